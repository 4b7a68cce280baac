/* Transposition into panels, AVX2: 8 x 8 blocks in registers. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")

#include "transpose_ymm.h"

/* Up to 8 rows. Each k stores 8 floats; with a stride below 8 the next k's store overwrites what is too many. */
EC_INLINE void eight_rows(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride)
{
    int64_t p = 0;
    for (; p + 8 <= k; p += 8) {
        __m256 r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            r[i] = i < rows ? _mm256_loadu_ps(x + i * ldx + p) : _mm256_setzero_ps();
        transpose(r);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            _mm256_storeu_ps(out + (p + i) * stride, r[i]);
    }
    for (; p < k; p++)
        for (int i = 0; i < EC_MIN(8, stride); i++)
            out[p * stride + i] = i < rows ? x[i * ldx + p] : 0;
}

void ec_transpose_f32_avx2(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride)
{
    if (stride == 1) {
        memcpy(out, x, 4 * (size_t)k);
        return;
    }
    /* From the last rows on: what they store past a line of 12, the first rows of the next line overwrite. */
    for (int r = (int)(stride - 1) / 8 * 8; r >= 0; r -= 8)
        if (rows - r >= 8)
            eight_rows(8, k, x + r * ldx, ldx, out + r, stride);
        else
            eight_rows(rows - r, k, x + r * ldx, ldx, out + r, stride);
}
EC_TARGET_END
#endif
