/* The floats and zero points of a record's header (edgecomp.h), NEON. Included after <arm_neon.h>. */
#ifndef EC_RECORD_NEON_H
#define EC_RECORD_NEON_H

/* 4 scales or offsets of scale_bytes each. */
EC_INLINE float32x4_t floats_at(const uint8_t *at, int scale_bytes)
{
    if (scale_bytes == 2)
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at)));
    return vreinterpretq_f32_u8(vld1q_u8(at));
}

/* Vector v of the scales (which = 0) or offsets (1). */
EC_INLINE float32x4_t floats(const uint8_t *record, int scale_bytes, int which, int v)
{
    return floats_at(record + scale_bytes * (EC_STRIP * which + 4 * v), scale_bytes);
}

/* 4 zero points. */
EC_INLINE uint32x4_t zeros_at(const uint8_t *at)
{
    uint32_t four;
    memcpy(&four, at, 4);
    return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
#endif
