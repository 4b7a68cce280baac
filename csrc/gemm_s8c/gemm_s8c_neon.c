/* int8 tile, NEON without a dot product: up to 2 rows x 16 columns, 16 registers of sums, 2 columns each.
 *
 * smull and smlal multiply int8 and add the products of two quads in int16: |q - 128| <= 128, so at most 2 * 128 * 127 =
 * 32512. Exact: three instructions per 16 products, sadalp being the third. Three rows would take 33 registers. */
#include "gemm_s8c.h"
#ifdef EC_ARM64
#include <arm_neon.h>

#include "gemm_s8c_neon.h"

/* Two quads of the columns in the low half of w; lanes 0 + 1 and 2 + 3 of the result are a column. */
EC_INLINE int32x4_t dot_low(int32x4_t acc, const int8x16_t w[2], const int8x16_t x[2])
{
    const int16x8_t pairs = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
    return vpadalq_s16(acc, vmlal_s8(pairs, vget_low_s8(w[1]), vget_low_s8(x[1])));
}

EC_INLINE int32x4_t dot_high(int32x4_t acc, const int8x16_t w[2], const int8x16_t x[2])
{
    return vpadalq_s16(acc, vmlal_high_s8(vmull_high_s8(w[0], x[0]), w[1], x[1]));
}

EC_INLINE void two_quads(int mr, int32x4_t acc[2][8], const uint8_t *x, const int8_t *w, int second)
{
    int8x16_t a[2][2];
    EC_UNROLL(2)
    for (int i = 0; i < mr; i++) {
        a[i][0] = bcast_quad(x + 4 * i);
        a[i][1] = second ? bcast_quad(x + 4 * (mr + i)) : vdupq_n_s8(0);
    }
    EC_UNROLL(4)
    for (int h = 0; h < 4; h++) {
        const int8x16_t b[2] = {vld1q_s8(w + 16 * h), second ? vld1q_s8(w + 64 + 16 * h) : vdupq_n_s8(0)};
        EC_UNROLL(2)
        for (int i = 0; i < mr; i++) {
            acc[i][2 * h] = dot_low(acc[i][2 * h], b, a[i]);
            acc[i][2 * h + 1] = dot_high(acc[i][2 * h + 1], b, a[i]);
        }
        __asm__ volatile("" : : : "memory"); /* else gcc loads all of w at once and has to spill sums */
    }
}

EC_INLINE void tile(int mr, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    int32x4_t acc[2][8];
    EC_UNROLL(2)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(8)
        for (int c = 0; c < 8; c++)
            acc[i][c] = vdupq_n_s32(0);
    int64_t q = t->quads;
    for (; q >= 2; q -= 2, w += 128, x += 8 * mr)
        two_quads(mr, acc, x, w, 1);
    if (q)
        two_quads(mr, acc, x, w, 0);
    EC_UNROLL(2)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            finish(t, i, h, vpaddq_s32(acc[i][2 * h], acc[i][2 * h + 1]));
}

void ec_gemm_s8c_tile_neon(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    assert(nv == 1);
    (void)nv;
    if (t->cols < EC_PANEL)
        ragged(mr, t, ec_gemm_s8c_tile_neon);
    else if (mr == 1)
        tile(1, t);
    else
        tile(2, t);
}
#endif
