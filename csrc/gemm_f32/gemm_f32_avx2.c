/* float32 tile, AVX2 + FMA: up to 6 rows x 16 columns, 12 YMM of sums. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,prfchw")

#include "gemm_f32_ymm.h"

EC_INLINE void tile(int mr, const ec_gemm_f32_tile *t)
{
    const float *x = t->x, *w = t->w, *ahead = t->ahead;
    const int ahead_lines = (int)ec_div_up(t->ahead_lines, t->k / 16 + 1);
    __m256 acc[6][2];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
        __builtin_prefetch(t->y + i * t->ldy, 1);
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    }
    for (int64_t k = t->k; k > 0; k -= 16) {
        for (int p = 0; p < ahead_lines; p++, ahead += 16)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        for (int64_t s = EC_MIN(k, 16); s > 0; s--, w += 16, x += mr) {
            const __m256 lo = _mm256_loadu_ps(w), hi = _mm256_loadu_ps(w + 8);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++) {
                const __m256 a = _mm256_broadcast_ss(x + i);
                acc[i][0] = _mm256_fmadd_ps(a, lo, acc[i][0]);
                acc[i][1] = _mm256_fmadd_ps(a, hi, acc[i][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
        finish(t, i, 0, acc[i][0]);
        finish(t, i, 1, acc[i][1]);
    }
}

/* One row: 4 k summed separately, so that there are 8 chains. */
EC_INLINE void one_row(const ec_gemm_f32_tile *t)
{
    const float *x = t->x, *w = t->w;
    __m256 acc[4][2];
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++)
        acc[u][0] = acc[u][1] = _mm256_setzero_ps();
    int64_t k = t->k;
    for (; k >= 4; k -= 4, w += 64, x += 4)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            const __m256 a = _mm256_broadcast_ss(x + u);
            acc[u][0] = _mm256_fmadd_ps(a, _mm256_loadu_ps(w + 16 * u), acc[u][0]);
            acc[u][1] = _mm256_fmadd_ps(a, _mm256_loadu_ps(w + 16 * u + 8), acc[u][1]);
        }
    for (; k > 0; k--, w += 16, x++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[0][h] = _mm256_fmadd_ps(_mm256_broadcast_ss(x), _mm256_loadu_ps(w + 8 * h), acc[0][h]);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
        finish(t, 0, h, _mm256_add_ps(_mm256_add_ps(acc[0][h], acc[1][h]), _mm256_add_ps(acc[2][h], acc[3][h])));
}

void ec_gemm_f32_tile_avx2(int mr, int nv, const ec_gemm_f32_tile *t)
{
    assert(nv == 1);
    (void)nv;
    switch (mr) {
    case 1: one_row(t); break;
    case 2: tile(2, t); break;
    case 3: tile(3, t); break;
    case 4: tile(4, t); break;
    case 5: tile(5, t); break;
    default: tile(6, t);
    }
}
EC_TARGET_END
#endif
