/* Transposition into panels, AVX2: 8 x 8 blocks in registers. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")

EC_INLINE void transpose(__m256 r[8])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = t[i];
}

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
    for (int r = 0; r < stride; r += 8)
        if (rows - r >= 8)
            eight_rows(8, k, x + r * ldx, ldx, out + r, stride);
        else
            eight_rows(rows - r, k, x + r * ldx, ldx, out + r, stride);
}
EC_TARGET_END
#endif
