/* Grouped weights to float32 panels, NEON: 4 columns x 4 k a step, scales and zeros loaded once per group. */
#include "gemm_f32.h"
#ifdef EC_ARM64
#include <arm_neon.h>

#include "../gemm_s4g/record_neon.h"

void ec_expand_sg_neon(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out)
{
    const int64_t record = (int64_t)ec_record_bytes(w, bits);
    const uint8_t *strip = (const uint8_t *)w->records + col0 / EC_STRIP * groups * record;
    const int header = ec_header_bytes(w), has_offset = w->zero == EC_ZERO_OFFSET;
    for (int64_t begin = k0, end; begin < k0 + k; begin = end) {
        const uint8_t *r = strip + begin / w->group * record;
        end = EC_MIN(k0 + k, (begin / w->group + 1) * w->group);
        for (int h = 0; h < EC_PANEL / 4; h++) {
            const int c0 = (int)(col0 % EC_STRIP) + 4 * h;
            const float32x4_t scale = floats_at(r + w->scale_bytes * c0, w->scale_bytes);
            const float32x4_t offset = has_offset ? floats_at(r + w->scale_bytes * (EC_STRIP + c0), w->scale_bytes) : vdupq_n_f32(0);
            const int32x4_t zero = w->zero == EC_ZERO_POINT ? vreinterpretq_s32_u32(zeros_at(ec_record_zeros(r, w->scale_bytes) + c0))
                                                          : vdupq_n_s32(1 << (bits - 1));
            for (int64_t p = begin; p < end; p += 4) {
                const int64_t quad = p % w->group / 4;
                uint8x16_t v = vld1q_u8(r + header + ((bits == 8 ? quad : quad / 2) * EC_STRIP + c0) * 4);
                if (bits == 4)
                    v = quad & 1 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
                for (int64_t i = 0; i < EC_MIN(4, end - p); i++) {
                    const uint32x4_t word = vshlq_u32(vreinterpretq_u32_u8(v), vdupq_n_s32(-8 * (int)i));
                    const int32x4_t code = vreinterpretq_s32_u32(vandq_u32(word, vdupq_n_u32(255)));
                    const float32x4_t f = has_offset ? vfmaq_f32(offset, vcvtq_f32_s32(code), scale)
                                                     : vmulq_f32(vcvtq_f32_s32(vsubq_s32(code, zero)), scale);
                    vst1q_f32(out + (p - k0 + i) * EC_PANEL + 4 * h, f);
                }
            }
        }
    }
}
#endif
