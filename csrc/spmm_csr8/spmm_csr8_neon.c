/* int8 block of a CSR weight, NEON: pairs of products, 127 * 128 each, are added in 16 bits. */
#include "spmm_csr8.h"
#ifdef EC_ARM64
#include <arm_neon.h>

EC_INLINE int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x)
{
    const int16x8_t lo = vmull_s8(vget_low_s8(w), vget_low_s8(x)), hi = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(lo, hi)); /* 2 * 127 * 128 fits 16 bits */
}

#include "csr8_block_neon.h"

void ec_spmm_csr8_neon(int lanes, const ec_csr8_block *b) { any_block(lanes, b); }

/* Bytes of one input together, then the four panels' of one input. */
void ec_pack_csr8_neon(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x)
{
    static const uint8_t TURN[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const uint8x16_t turn = vld1q_u8(TURN);
    for (int64_t i = 0; i < quads; i++, q += lanes, x += 8 * lanes)
        for (int g = 0; g < lanes / 16; g++) {
            uint32x4_t a[4];
            EC_UNROLL(4)
            for (int t = 0; t < 4; t++)
                a[t] = vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(q + t * panel + 16 * g), turn));
            const uint64x2_t even = vreinterpretq_u64_u32(vtrn1q_u32(a[0], a[1])), even2 = vreinterpretq_u64_u32(vtrn1q_u32(a[2], a[3]));
            const uint64x2_t odd = vreinterpretq_u64_u32(vtrn2q_u32(a[0], a[1])), odd2 = vreinterpretq_u64_u32(vtrn2q_u32(a[2], a[3]));
            const uint64x2_t c[4] = {vtrn1q_u64(even, even2), vtrn1q_u64(odd, odd2), vtrn2q_u64(even, even2), vtrn2q_u64(odd, odd2)};
            EC_UNROLL(4)
            for (int t = 0; t < 4; t++) {
                int8_t *out = x + 2 * lanes * t + 16 * g;
                vst1q_s8(out, vreinterpretq_s8_u64(c[t]));
                vst1q_s8(out + lanes, vmvnq_s8(vreinterpretq_s8_u64(c[t])));
            }
        }
}
#endif
