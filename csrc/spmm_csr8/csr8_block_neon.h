/* An int8 block of a CSR weight's form, for the NEON that includes this. It brings dot: sum + the four products in each 32 bits. */

/* vecs registers of 16 tokens: the bytes of four entries are interleaved, token by token. */
EC_INLINE void block(int vecs, const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const uint8_t *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        int32_t *sums = b->sums + b->order[r] * 16 * vecs;
        int32x4_t acc[2][4];
        EC_UNROLL(2)
        for (int g = 0; g < vecs; g++)
            EC_UNROLL(4)
            for (int t = 0; t < 4; t++)
                acc[g][t] = b->first ? vdupq_n_s32(0) : vld1q_s32(sums + 4 * vecs * t + 4 * g);
        for (int left = b->count[r]; left > 0; left--, local += 4, value += 4) {
            uint32_t four;
            memcpy(&four, value, 4);
            const int8x16_t w = vreinterpretq_s8_u32(vdupq_n_u32(four));
            EC_UNROLL(2)
            for (int g = 0; g < vecs; g++) {
                const int8_t *x = b->x + 16 * g;
                const int8x16_t x0 = vld1q_s8(x + local[0] * 16 * vecs), x1 = vld1q_s8(x + local[1] * 16 * vecs);
                const int8x16_t x2 = vld1q_s8(x + local[2] * 16 * vecs), x3 = vld1q_s8(x + local[3] * 16 * vecs);
                const int16x8_t lo = vreinterpretq_s16_s8(vzip1q_s8(x0, x1)), lo2 = vreinterpretq_s16_s8(vzip1q_s8(x2, x3));
                const int16x8_t hi = vreinterpretq_s16_s8(vzip2q_s8(x0, x1)), hi2 = vreinterpretq_s16_s8(vzip2q_s8(x2, x3));
                acc[g][0] = dot(acc[g][0], w, vreinterpretq_s8_s16(vzip1q_s16(lo, lo2)));
                acc[g][1] = dot(acc[g][1], w, vreinterpretq_s8_s16(vzip2q_s16(lo, lo2)));
                acc[g][2] = dot(acc[g][2], w, vreinterpretq_s8_s16(vzip1q_s16(hi, hi2)));
                acc[g][3] = dot(acc[g][3], w, vreinterpretq_s8_s16(vzip2q_s16(hi, hi2)));
            }
        }
        EC_UNROLL(2)
        for (int g = 0; g < vecs; g++)
            EC_UNROLL(4)
            for (int t = 0; t < 4; t++)
                vst1q_s32(sums + 4 * vecs * t + 4 * g, acc[g][t]);
    }
}

EC_INLINE void any_block(int lanes, const ec_csr8_block *b)
{
    if (lanes == 16)
        block(1, b);
    else
        block(2, b);
}
