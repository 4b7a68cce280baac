/* float32 block of a CSR weight, AVX2 + FMA: tokens in lanes, up to 64 of them, 8 YMM of sums. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

/* vecs panels and `chains` entries at a time, so that there are eight sums to add to in turn: an FMA takes four cycles. */
EC_INLINE void block(int vecs, int chains, const ec_csr_block *b)
{
    const uint16_t *local = b->local;
    const float *value = b->value, *x0 = b->x, *x1 = x0 + b->panel, *x2 = x1 + b->panel, *x3 = x2 + b->panel;
    float *sums = b->sums;
    for (int64_t r = 0; r < b->rows; r++, sums += EC_LANES * vecs) {
        __m256 acc[4][8];
#pragma GCC unroll 8
        for (int h = 0; h < 2 * vecs; h++)
            acc[0][h] = b->first ? _mm256_setzero_ps() : _mm256_loadu_ps(sums + 8 * h);
#pragma GCC unroll 4
        for (int u = 1; u < chains; u++)
#pragma GCC unroll 8
            for (int h = 0; h < 2 * vecs; h++)
                acc[u][h] = _mm256_setzero_ps();
        int left = b->count[r];
        for (; left >= chains; left -= chains, local += chains, value += chains)
#pragma GCC unroll 4
            for (int u = 0; u < chains; u++) {
                const __m256 w = _mm256_broadcast_ss(value + u);
                const int64_t at = (int64_t)local[u] * EC_LANES;
#pragma GCC unroll 8
                for (int h = 0; h < 2 * vecs; h++) {
                    const float *x = h < 2 ? x0 : h < 4 ? x1 : h < 6 ? x2 : x3;
                    acc[u][h] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + at + 8 * (h & 1)), acc[u][h]);
                }
            }
        for (; chains > 1 && left > 0; left--, local++, value++) {
            const __m256 w = _mm256_broadcast_ss(value);
            const int64_t at = (int64_t)*local * EC_LANES;
#pragma GCC unroll 8
            for (int h = 0; h < 2 * vecs; h++)
                acc[0][h] = _mm256_fmadd_ps(w, _mm256_loadu_ps((h < 2 ? x0 : x1) + at + 8 * (h & 1)), acc[0][h]);
        }
#pragma GCC unroll 8
        for (int h = 0; h < 2 * vecs; h++) {
            __m256 sum = acc[0][h];
#pragma GCC unroll 4
            for (int u = 1; u < chains; u++)
                sum = _mm256_add_ps(sum, acc[u][h]);
            _mm256_storeu_ps(sums + 8 * h, sum);
        }
    }
}

void ec_spmm_csr_avx2(int vecs, const ec_csr_block *b)
{
    switch (vecs) {
    case 1: block(1, 4, b); break;
    case 2: block(2, 2, b); break;
    case 3: block(3, 1, b); break;
    default: block(4, 1, b);
    }
}
EC_TARGET_END
#endif
