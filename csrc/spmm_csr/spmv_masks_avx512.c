/* Rows of a CSR weight times one token by bit masks, AVX-512: the entries of sixteen inputs are loaded to their places. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,popcnt")

#include "expand_zmm.h"

enum { AHEAD = 1024 }; /* entries to prefetch, a line for 32 inputs: two cost more than they bring */

void ec_spmv_masks_avx512(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, const float *x, float *sums)
{
    for (int64_t r = row0; r < row1; r++) {
        const float *value = w->values + w->indptr[r], *in = x;
        const uint8_t *m = mask + 4 * words * r;
        __m512 acc[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int64_t i = 0; i < words; i++, m += 4, in += 32) {
            _mm_prefetch((const char *)(value + AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)value + EC_FAR_AHEAD, _MM_HINT_T1);
            EC_UNROLL(2)
            for (int u = 0; u < 2; u++) {
                uint16_t bits;
                memcpy(&bits, m + 2 * u, 2);
                const __m512 v = expand(bits, value);
                acc[u] = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(bits, in + 16 * u), acc[u]);
                value += _mm_popcnt_u32(bits);
            }
        }
        *sums++ = _mm512_reduce_add_ps(_mm512_add_ps(acc[0], acc[1]));
    }
}
EC_TARGET_END
#endif
