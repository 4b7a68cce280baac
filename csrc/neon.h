/* What the NEON kernels of several ops share. Included after <arm_neon.h>. */
#ifndef EC_NEON_H
#define EC_NEON_H

/* 4 floats, of which the first `left` are read: the others are zeros. */
EC_INLINE float32x4_t load_left(const float *x, int64_t left)
{
    float v[4] = {0};
    if (left >= 4)
        return vld1q_f32(x);
    if (left > 0)
        memcpy(v, x, 4 * (size_t)left);
    return vld1q_f32(v);
}

/* The four bytes at x in each lane. */
EC_INLINE int8x16_t bcast_quad(const void *x)
{
    int32_t v;
    memcpy(&v, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}
#endif
