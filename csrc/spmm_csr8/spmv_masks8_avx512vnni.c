/* int8 rows of a CSR weight times a few quantised tokens by bit masks, AVX-512 VNNI and VBMI2: the codes of 64 inputs are spread to their
 * places, once for all tokens. Four rows share the activations. */
#include "spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi2,popcnt,bmi2")

/* The first codes of `from` where bits has ones. Cleared before: else it waits for what the register held (Zen 4). */
EC_INLINE __m512i spread(uint64_t bits, int count, int end, const int8_t *from)
{
    const __m512i codes = end ? _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)count), from) : _mm512_loadu_si512(from);
    __m512i v;
    __asm__("vpxord %0,%0,%0\n\tvpexpandb %2,%0%{%1%}%{z%}" : "=&v"(v) : "Yk"((__mmask64)bits), "v"(codes));
    return v;
}

/* Sums of four rows; end: of the last ones, behind whose codes nothing may be read. `ahead` bytes of codes are prefetched with every word,
 * from the next four rows on, and their masks. */
EC_INLINE void four(int tokens, int end, const int8_t *code[4], const uint64_t *mask, int64_t words, const uint8_t *x, const int8_t *next,
                    int64_t ahead, int32_t sums[EC_MASKS_TOKENS][4])
{
    __m512i acc[EC_MASKS_TOKENS][4];
    EC_UNROLL(4)
    for (int t = 0; t < tokens; t++)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            acc[t][i] = _mm512_setzero_si512();
    for (int64_t w = 0; w < words; w++, mask += 4, x += 64) {
        __m512i in[EC_MASKS_TOKENS];
        EC_UNROLL(4)
        for (int t = 0; t < tokens; t++)
            in[t] = _mm512_loadu_si512(x + 64 * words * t);
        _mm_prefetch((const char *)(mask + 4 * words), _MM_HINT_T0);
        for (int64_t p = 0; p < ahead; p += 64) {
            _mm_prefetch((const char *)next + p, _MM_HINT_T0);
            _mm_prefetch((const char *)next + p + EC_FAR_AHEAD, _MM_HINT_T1);
        }
        next += ahead;
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++) {
            const int count = (int)_mm_popcnt_u64(mask[i]);
            const __m512i v = spread(mask[i], count, end, code[i]);
            EC_UNROLL(4)
            for (int t = 0; t < tokens; t++)
                __asm__("vpdpbusd %2,%1,%0" : "+v"(acc[t][i]) : "v"(in[t]), "v"(v));
            code[i] += count;
        }
    }
    EC_UNROLL(4)
    for (int t = 0; t < tokens; t++)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            sums[t][i] = _mm512_reduce_add_epi32(acc[t][i]);
}

EC_INLINE void rows(int tokens, const ec_csr *w, int64_t n, int64_t words, const int32_t *sum, const uint64_t *mask, int64_t row0,
                    int64_t row1, const uint8_t *x, const int32_t *zero, float *sums, int64_t ld)
{
    for (int64_t first = row0 / 4 * 4; first < row1; first += 4) {
        const int8_t *code[4];
        int32_t found[EC_MASKS_TOKENS][4];
        for (int i = 0; i < 4; i++)
            code[i] = w->codes + w->indptr[EC_MIN(first + i, n)];
        const int8_t *next = w->codes + w->indptr[EC_MIN(first + 4, n)];
        const int64_t ahead = (next - code[0]) / words + 1;
        if (w->indptr[n] - w->indptr[EC_MIN(first + 4, n)] >= 64)
            four(tokens, 0, code, mask + first * words, words, x, next, ahead, found);
        else
            four(tokens, 1, code, mask + first * words, words, x, next, ahead, found);
        for (int64_t r = first > row0 ? first : row0; r < row1 && r < first + 4; r++)
            for (int t = 0; t < tokens; t++)
                sums[t * ld + r - row0] = (float)(found[t][r - first] - zero[t] * sum[r]);
    }
}

void ec_spmv_masks8_avx512vnni(const ec_csr *w, int64_t n, int64_t words, const int32_t *sum, const uint64_t *mask, int64_t row0,
                               int64_t row1, int tokens, const uint8_t *x, const int32_t *zero, float *sums, int64_t ld)
{
    switch (tokens) {
    case 1: rows(1, w, n, words, sum, mask, row0, row1, x, zero, sums, ld); break;
    case 2: rows(2, w, n, words, sum, mask, row0, row1, x, zero, sums, ld); break;
    case 3: rows(3, w, n, words, sum, mask, row0, row1, x, zero, sums, ld); break;
    default: rows(4, w, n, words, sum, mask, row0, row1, x, zero, sums, ld); break;
    }
}
EC_TARGET_END
#endif
