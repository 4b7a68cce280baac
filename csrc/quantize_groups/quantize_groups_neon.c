/* The group quantiser, NEON: 16 floats a step. */
#include "quantize_groups.h"
#ifdef EC_ARM64
#include <arm_neon.h>

#include "../neon.h"

void ec_quantize_groups_neon(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel)
{
    for (int64_t g = 0; g < k; g += group, panel += ec_group_bytes(group, mr))
        for (int i = 0; i < mr; i++) {
            const float *from = x + i * ldx + g;
            const int64_t count = EC_MIN(group, k - g);
            uint32x4_t top = vdupq_n_u32(0); /* by the bits: see quantize_groups_avx2.c */
            for (int64_t p = 0; p < count; p += 4)
                top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(load_left(from + p, count - p)), vdupq_n_u32(0x7FFFFFFF)));
            const uint32_t bits = vmaxvq_u32(top);
            float absmax, scale;
            memcpy(&absmax, &bits, 4);
            const float inv = ec_group_scale(absmax, bits < 0x7F800000, &scale);
            int32x4_t sums = vdupq_n_s32(0);
            int8_t *to = panel + 4 * i;
            for (int64_t p = 0; p < group; p += 4, to += 4 * mr) {
                const int32x4_t q = inv == 0 ? vdupq_n_s32(0) : vcvtnq_s32_f32(vmulq_n_f32(load_left(from + p, count - p), inv));
                sums = vaddq_s32(sums, q);
                const int16x4_t words = vmovn_s32(q);
                const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
                const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
                memcpy(to, &four, 4);
            }
            const int32_t sum = vaddvq_s32(sums) * factor;
            memcpy(panel + group * mr + 4 * i, &scale, 4);
            memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4);
        }
}
#endif
