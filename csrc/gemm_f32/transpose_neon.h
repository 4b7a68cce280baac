/* 4 x 4 floats in registers, NEON. */
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

/* to[j][i] = from[i][j]: 4 rows of 4 floats. */
EC_INLINE void turn(const float *const *from, float *const *to)
{
    float32x4_t r[4];
    EC_UNROLL(4)
    for (int i = 0; i < 4; i++)
        r[i] = vld1q_f32(from[i]);
    transpose(r);
    EC_UNROLL(4)
    for (int i = 0; i < 4; i++)
        vst1q_f32(to[i], r[i]);
}
