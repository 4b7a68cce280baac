/* Rows of a CSR weight times a few tokens by bit masks, AVX-512: the entries of sixteen inputs are loaded to their places once for all
 * tokens, and four rows share the activations. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,popcnt")

#include "expand_zmm.h"

/* Sums of four rows. finite: the zeros between the entries may meet what x holds there. With every word, `ahead` bytes from `next` on
 * are prefetched. */
EC_INLINE void four(int tokens, int finite, const float *value[4], const uint8_t *mask[4], int64_t words, const float *x, int64_t ldx,
                    const char *next, int64_t ahead, float sums[EC_MASKS_TOKENS][4])
{
    __m512 acc[EC_MASKS_TOKENS][4];
    EC_UNROLL(4)
    for (int t = 0; t < tokens; t++)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            acc[t][i] = _mm512_setzero_ps();
    for (int64_t w = 0; w < words; w++, x += 32) {
        for (int64_t p = 0; p < ahead; p += 64)
            _mm_prefetch(next + p, _MM_HINT_T1);
        next += ahead;
        EC_UNROLL(2)
        for (int u = 0; u < 2; u++) {
            __m512 in[EC_MASKS_TOKENS];
            EC_UNROLL(4)
            for (int t = 0; finite && t < tokens; t++)
                in[t] = _mm512_loadu_ps(x + t * ldx + 16 * u);
            EC_UNROLL(4)
            for (int i = 0; i < 4; i++) {
                uint16_t bits;
                memcpy(&bits, mask[i] + 4 * w + 2 * u, 2);
                const __m512 v = expand(bits, value[i]);
                EC_UNROLL(4)
                for (int t = 0; t < tokens; t++)
                    acc[t][i] = _mm512_fmadd_ps(v, finite ? in[t] : _mm512_maskz_loadu_ps(bits, x + t * ldx + 16 * u), acc[t][i]);
                value[i] += _mm_popcnt_u32(bits);
            }
        }
    }
    EC_UNROLL(4)
    for (int t = 0; t < tokens; t++)
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++)
            sums[t][i] = _mm512_reduce_add_ps(acc[t][i]);
}

EC_INLINE void rows(int tokens, int finite, const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, const float *x,
                    int64_t ldx, float *sums, int64_t ld)
{
    for (int64_t first = row0; first < row1; first += 4) {
        const float *value[4];
        const uint8_t *m[4];
        float found[EC_MASKS_TOKENS][4];
        for (int i = 0; i < 4; i++) { /* the last row takes the place of those that are missing */
            const int64_t r = EC_MIN(first + i, row1 - 1);
            value[i] = w->values + w->indptr[r];
            m[i] = mask + 4 * words * r;
        }
        const char *next = (const char *)(w->values + w->indptr[EC_MIN(first + 4, row1)]);
        four(tokens, finite, value, m, words, x, ldx, next, (next - (const char *)(w->values + w->indptr[first])) / words, found);
        for (int i = 0; i < 4 && first + i < row1; i++)
            for (int t = 0; t < tokens; t++)
                sums[t * ld + first + i - row0] = found[t][i];
    }
}

void ec_spmm_masks_avx512(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, int tokens, int finite,
                          const float *x, int64_t ldx, float *sums, int64_t ld)
{
    switch (2 * tokens + finite) {
    case 2: rows(1, 0, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 3: rows(1, 1, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 4: rows(2, 0, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 5: rows(2, 1, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 6: rows(3, 0, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 7: rows(3, 1, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    case 8: rows(4, 0, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    default: rows(4, 1, w, mask, words, row0, row1, x, ldx, sums, ld); break;
    }
}
EC_TARGET_END
#endif
