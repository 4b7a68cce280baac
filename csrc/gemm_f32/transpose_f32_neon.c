/* Transposition into panels, NEON: 4 x 4 blocks in registers, two of them side by side. */
#include "gemm_f32.h"
#ifdef EC_ARM64
#include <arm_neon.h>

#include "transpose_neon.h"

/* Up to 8 rows. Each k stores 8 floats; with a stride below 8 the next k's store overwrites what is too many. */
EC_INLINE void eight_rows(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride)
{
    int64_t p = 0;
    for (; p + 4 <= k; p += 4) {
        float32x4_t r[8];
        EC_UNROLL(8)
        for (int i = 0; i < 8; i++)
            r[i] = i < rows ? vld1q_f32(x + i * ldx + p) : vdupq_n_f32(0);
        transpose(r);
        transpose(r + 4);
        EC_UNROLL(4)
        for (int i = 0; i < 4; i++) {
            vst1q_f32(out + (p + i) * stride, r[i]);
            vst1q_f32(out + (p + i) * stride + 4, r[4 + i]);
        }
    }
    for (; p < k; p++)
        for (int i = 0; i < EC_MIN(8, stride); i++)
            out[p * stride + i] = i < rows ? x[i * ldx + p] : 0;
}

void ec_transpose_f32_neon(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride)
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
#endif
