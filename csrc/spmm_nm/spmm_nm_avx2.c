/* float32 tile over the kept inputs of a block, AVX2 + FMA: the tile of gemm_f32, whose activations are found by an index. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,prfchw")

#include "../gemm_f32/gemm_f32_ymm.h"

EC_INLINE void tile(int mr, const ec_gemm_f32_tile *t, const int32_t *input)
{
    const float *w = t->w, *ahead = t->ahead;
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
        for (int64_t s = EC_MIN(k, 16); s > 0; s--, w += 16, input++) {
            const float *x = t->x + (int64_t)*input * mr;
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

void ec_spmm_nm_tile_avx2(int mr, const ec_gemm_f32_tile *t, const int32_t *input)
{
    switch (mr) {
    case 1: tile(1, t, input); break;
    case 2: tile(2, t, input); break;
    case 3: tile(3, t, input); break;
    case 4: tile(4, t, input); break;
    case 5: tile(5, t, input); break;
    default: tile(6, t, input);
    }
}
EC_TARGET_END
#endif
