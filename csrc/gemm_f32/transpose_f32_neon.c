/* Transposition into panels, NEON: 4 x 4 blocks in registers, two of them side by side. */
#include "../kernels.h"
#ifdef EC_ARM64
#include <arm_neon.h>

EC_INLINE float64x2_t f64(float32x4_t v) { return vreinterpretq_f64_f32(v); }
EC_INLINE float32x4_t f32(float64x2_t v) { return vreinterpretq_f32_f64(v); }

EC_INLINE void transpose(float32x4_t r[4])
{
    const float32x4_t even0 = vtrn1q_f32(r[0], r[1]), odd0 = vtrn2q_f32(r[0], r[1]);
    const float32x4_t even2 = vtrn1q_f32(r[2], r[3]), odd2 = vtrn2q_f32(r[2], r[3]);
    r[0] = f32(vtrn1q_f64(f64(even0), f64(even2)));
    r[1] = f32(vtrn1q_f64(f64(odd0), f64(odd2)));
    r[2] = f32(vtrn2q_f64(f64(even0), f64(even2)));
    r[3] = f32(vtrn2q_f64(f64(odd0), f64(odd2)));
}

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
