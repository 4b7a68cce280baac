/* Few rows times grouped weights, NEON: 32 outputs at a time for one row, 16 for more. */
#include "gemm_f32.h"
#ifdef EC_ARM64
#include <arm_neon.h>

enum { LANES = 4, CHAINS = 1 };
typedef float32x4_t vec;

EC_INLINE vec set1(float v) { return vdupq_n_f32(v); }
EC_INLINE vec set1_bits(uint32_t v) { return vreinterpretq_f32_u32(vdupq_n_u32(v)); }
EC_INLINE vec add(vec a, vec b) { return vaddq_f32(a, b); }
EC_INLINE vec sub(vec a, vec b) { return vsubq_f32(a, b); }
EC_INLINE vec fused(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
EC_INLINE vec load(const float *at) { return vld1q_f32(at); }
EC_INLINE void store(float *to, vec v) { vst1q_f32(to, v); }
EC_INLINE vec words(const uint8_t *at) { return vreinterpretq_f32_u8(vld1q_u8(at)); }
EC_INLINE vec shifted(vec v, int down) { return vreinterpretq_f32_u32(vshlq_u32(vreinterpretq_u32_f32(v), vdupq_n_s32(-down))); }

EC_INLINE vec field(vec v, vec mask, vec magic)
{
    const uint32x4_t code = vandq_u32(vreinterpretq_u32_f32(v), vreinterpretq_u32_f32(mask));
    return vreinterpretq_f32_u32(vorrq_u32(code, vreinterpretq_u32_f32(magic)));
}

EC_INLINE vec bytes(const uint8_t *at)
{
    uint32_t four;
    memcpy(&four, at, 4);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}

EC_INLINE vec floats(const uint8_t *record, int scale_bytes, int which, int h)
{
    const uint8_t *at = record + scale_bytes * (EC_STRIP * which + LANES * h);
    return scale_bytes == 2 ? vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at))) : words(at);
}

#include "gemv_sg.h"

void ec_gemv_sg_neon(int mr, const ec_gemv_sg *t)
{
    if (t->bits == 4)
        strips(mr, 4, t);
    else
        strips(mr, 8, t);
}
#endif
