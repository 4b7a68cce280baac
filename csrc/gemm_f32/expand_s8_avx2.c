/* int8 panels to float32 panels, AVX2: a shift pair sign-extends one byte of each column's four. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")
void ec_expand_s8_avx2(int64_t k, const int8_t *panel, const float *scale, float *out)
{
    const __m256 s[2] = {_mm256_loadu_ps(scale), _mm256_loadu_ps(scale + 8)};
    for (int64_t p = 0; p < k; p += 4, panel += 64, out += 64)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const __m256i w = _mm256_loadu_si256((const __m256i *)(panel + 32 * h));
#pragma GCC unroll 4
            for (int b = 0; b < 4; b++)
                if (p + b < k) {
                    const __m256i v = _mm256_srai_epi32(_mm256_slli_epi32(w, 24 - 8 * b), 24);
                    _mm256_storeu_ps(out + 16 * b + 8 * h, _mm256_mul_ps(_mm256_cvtepi32_ps(v), s[h]));
                }
        }
}
EC_TARGET_END
#endif
