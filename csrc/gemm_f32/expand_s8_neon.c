/* int8 panels to float32 panels, NEON: a shift pair sign-extends one byte of each column's four. */
#include "gemm_f32.h"
#ifdef EC_ARM64
#include <arm_neon.h>

void ec_expand_s8_neon(int64_t k, const int8_t *panel, const float *scale, float *out)
{
    const float32x4_t s[4] = {vld1q_f32(scale), vld1q_f32(scale + 4), vld1q_f32(scale + 8), vld1q_f32(scale + 12)};
    for (int64_t p = 0; p < k; p += 4, panel += 64, out += 64)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++) {
            const int32x4_t w = vreinterpretq_s32_s8(vld1q_s8(panel + 16 * h));
            EC_UNROLL(4)
            for (int b = 0; b < 4; b++)
                if (p + b < k) {
                    const int32x4_t v = vshrq_n_s32(vshlq_s32(w, vdupq_n_s32(24 - 8 * b)), 24);
                    vst1q_f32(out + 16 * b + 4 * h, vmulq_f32(vcvtq_f32_s32(v), s[h]));
                }
        }
}
#endif
