/* Rows of x to lanes, and sums in lanes to rows of y, AVX-512. Squares of 16 by 16 are transposed in registers, but 64 of a row are
 * read and written at a time: rows that are a power of two apart share few sets of the cache, and a line that two squares have in
 * common would be evicted in between. */
#include "spmm_csr.h"
#include "../spmm_csr8/spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

#include "../zmm.h"
#include "turn_zmm.h"

enum { WIDE = 64 };

void ec_csr_pack_avx512(int64_t tokens, int64_t k, const float *x, int64_t ldx, float *out, int64_t lanes)
{
    float line[16][WIDE] __attribute__((aligned(64)));
    for (int64_t t0 = 0; t0 < lanes; t0 += 16)
        for (int64_t k0 = 0; k0 < k; k0 += WIDE) {
            const int64_t wide = EC_MIN(k - k0, WIDE), some = tokens - t0;
            for (int64_t i = 0; i < 16; i++)
                for (int64_t c = 0; c < wide; c += 16) {
                    if (i < some && k0 + WIDE + c < k)
                        _mm_prefetch((const char *)(x + (t0 + i) * ldx + k0 + WIDE + c), _MM_HINT_T0);
                    _mm512_store_ps(line[i] + c, _mm512_maskz_loadu_ps(i < some ? first_lanes(wide - c) : 0, x + (t0 + i) * ldx + k0 + c));
                }
            for (int64_t c = 0; c < wide; c += 16) {
                __m512 v[16];
                EC_UNROLL(16)
                for (int i = 0; i < 16; i++)
                    v[i] = _mm512_load_ps(line[i] + c);
                turn(v);
                float *to = out + (k0 + c) * lanes + t0;
                EC_UNROLL(16)
                for (int i = 0; i < 16; i++)
                    if (c + i < wide)
                        _mm512_storeu_ps(to + i * lanes, v[i]);
            }
        }
}

/* line[token][row] = sums[row][token] of `wide` rows and 16 tokens, floats or int32 alike. */
EC_INLINE void turn_sums(int64_t wide, const void *sums, int64_t lanes, float line[16][WIDE])
{
    for (int64_t c = 0; c < wide; c += 16) {
        const char *from = (const char *)sums + 4 * c * lanes;
        __m512 v[16];
        EC_UNROLL(16)
        for (int i = 0; i < 16; i++)
            v[i] = _mm512_maskz_loadu_ps(c + i < wide ? 0xFFFF : 0, from + 4 * i * lanes);
        turn(v);
        EC_UNROLL(16)
        for (int i = 0; i < 16; i++)
            _mm512_store_ps(line[i] + c, v[i]);
    }
}

void ec_csr_finish_avx512(int64_t rows, int64_t tokens, const float *sums, int64_t lanes, const float *bias, int relu, float *y,
                          int64_t ldy)
{
    float line[16][WIDE] __attribute__((aligned(64)));
    for (int64_t t0 = 0; t0 < tokens; t0 += 16)
        for (int64_t r0 = 0; r0 < rows; r0 += WIDE) {
            const int64_t wide = EC_MIN(rows - r0, WIDE), lines = EC_MIN(tokens - t0, 16);
            turn_sums(wide, sums + r0 * lanes + t0, lanes, line);
            for (int64_t t = 0; t < lines; t++)
                for (int64_t c = 0; c < wide; c += 16) {
                    if (r0 + WIDE + c < rows)
                        __builtin_prefetch(y + (t0 + t) * ldy + r0 + WIDE + c, 1);
                    const __mmask16 some = first_lanes(wide - c);
                    const __m512 b = bias ? _mm512_maskz_loadu_ps(some, bias + r0 + c) : _mm512_set1_ps(-0.0f);
                    const __m512 sum = _mm512_add_ps(_mm512_load_ps(line[t] + c), b);
                    const __mmask16 keep = relu ? (__mmask16)~_mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_LE_OQ) : 0xFFFF;
                    _mm512_mask_storeu_ps(y + (t0 + t) * ldy + r0 + c, some, _mm512_maskz_mov_ps(keep, sum));
                }
        }
}

void ec_csr8_finish_avx512(int64_t rows, int64_t tokens, const int32_t *sums, int64_t lanes, const ec_csr8_scales *s, float *y, int64_t ldy)
{
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    const __m512i fix = _mm512_set1_epi32(s->relu ? FIX_NAN_AND_RELU : FIX_NAN);
    float line[16][WIDE] __attribute__((aligned(64)));
    for (int64_t t0 = 0; t0 < tokens; t0 += 16)
        for (int64_t r0 = 0; r0 < rows; r0 += WIDE) {
            const int64_t wide = EC_MIN(rows - r0, WIDE), lines = EC_MIN(tokens - t0, 16);
            turn_sums(wide, sums + r0 * lanes + t0, lanes, line);
            for (int64_t t = 0; t < lines; t++) {
                const __m512i zero = _mm512_set1_epi32(s->zero[t0 + t]);
                const __m512 sx = _mm512_set1_ps(s->sx[t0 + t]);
                for (int64_t c = 0; c < wide; c += 16) {
                    const int64_t r = r0 + c;
                    if (r + WIDE < rows)
                        __builtin_prefetch(y + (t0 + t) * ldy + r + WIDE, 1);
                    const __mmask16 some = first_lanes(wide - c);
                    const __m512i all = _mm512_mullo_epi32(zero, _mm512_maskz_loadu_epi32(some, s->sum + r));
                    const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(line[t] + c), all));
                    const __m512 bias = s->bias ? _mm512_maskz_loadu_ps(some, s->bias + r) : _mm512_set1_ps(-0.0f);
                    const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(sum, sx), _mm512_maskz_loadu_ps(some, s->sw + r)), bias);
                    _mm512_mask_storeu_ps(y + (t0 + t) * ldy + r, some, _mm512_fixupimm_ps(nan, v, fix, 0));
                }
            }
        }
}
EC_TARGET_END
#endif
