/* int8 tile, NEON with smmla: up to 6 rows x 16 columns, 24 registers of sums, each 2 rows x 2 columns.
 *
 * smmla multiplies 2 rows by 2 columns over 8 k; zip of two neighbouring quads makes its operands. Per 2 quads there are 8
 * zips for the panel and one for each pair of rows: 35 instructions for 6 rows instead of 48 sdot, 26 instead of 32 for 4
 * rows. Up to 3 rows sdot takes no more. */
#include "gemm_s8c.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("i8mm")

#include "gemm_s8c_neon.h"

/* As inline asm: see gemm_s8c_neondot.c. Volatile keeps the order: else gcc and clang run out of registers. */
EC_INLINE int32x4_t dot(int32x4_t acc, int8x16_t x, int8x16_t w)
{
    __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(w));
    return acc;
}

EC_INLINE int8x16_t zip_low(int8x16_t q0, int8x16_t q1)
{
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(q0), vreinterpretq_s32_s8(q1)));
}

EC_INLINE int8x16_t zip_high(int8x16_t q0, int8x16_t q1)
{
    return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(q0), vreinterpretq_s32_s8(q1)));
}

/* One quad of two rows, in the low half; a row without a partner is its own partner. */
EC_INLINE int8x16_t pair(int alone, const uint8_t *x)
{
    return alone ? bcast_quad(x) : vreinterpretq_s8_u8(vcombine_u8(vld1_u8(x), vdup_n_u8(0)));
}

EC_INLINE void two_quads(int mr, int32x4_t acc[3][8], const uint8_t *x, const int8_t *w, int second)
{
    const int8x16_t none = vdupq_n_s8(0);
    int8x16_t a[3];
    EC_UNROLL(3)
    for (int p = 0; p < (mr + 1) / 2; p++) {
        const int alone = 2 * p + 1 == mr;
        a[p] = zip_low(pair(alone, x + 8 * p), second ? pair(alone, x + 4 * mr + 8 * p) : none);
    }
    EC_UNROLL(4)
    for (int h = 0; h < 4; h++) {
        const int8x16_t q0 = vld1q_s8(w + 16 * h), q1 = second ? vld1q_s8(w + 64 + 16 * h) : none;
        EC_UNROLL(2)
        for (int c = 2 * h; c < 2 * h + 2; c++) {
            const int8x16_t b = c % 2 ? zip_high(q0, q1) : zip_low(q0, q1);
            EC_UNROLL(3)
            for (int p = 0; p < (mr + 1) / 2; p++)
                acc[p][c] = dot(acc[p][c], a[p], b);
        }
    }
}

EC_INLINE void tile(int mr, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    int32x4_t acc[3][8];
    EC_UNROLL(3)
    for (int p = 0; p < (mr + 1) / 2; p++)
        EC_UNROLL(8)
        for (int c = 0; c < 8; c++)
            acc[p][c] = vdupq_n_s32(0);
    int64_t q = t->quads;
    for (; q >= 2; q -= 2, w += 128, x += 8 * mr)
        two_quads(mr, acc, x, w, 1);
    if (q)
        two_quads(mr, acc, x, w, 0);
    EC_UNROLL(3)
    for (int p = 0; p < (mr + 1) / 2; p++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++) {
            const int64x2_t left = vreinterpretq_s64_s32(acc[p][2 * h]), right = vreinterpretq_s64_s32(acc[p][2 * h + 1]);
            finish(t, 2 * p, h, vreinterpretq_s32_s64(vzip1q_s64(left, right)));
            if (2 * p + 1 < mr)
                finish(t, 2 * p + 1, h, vreinterpretq_s32_s64(vzip2q_s64(left, right)));
        }
}

void ec_gemm_s8c_tile_i8mm(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    assert(nv == 1);
    if (mr < 4) {
        ec_gemm_s8c_tile_neondot(mr, nv, t);
        return;
    }
    if (t->cols < EC_PANEL) {
        ragged(mr, t, ec_gemm_s8c_tile_i8mm);
        return;
    }
    switch (mr) {
    case 4: tile(4, t); break;
    case 5: tile(5, t); break;
    default: tile(6, t);
    }
}
EC_TARGET_END
#endif
