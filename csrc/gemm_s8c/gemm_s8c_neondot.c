/* int8 tile, NEON with sdot: up to 6 rows x 16 columns, 24 registers of sums.
 *
 * sdot takes one row's 4 bytes from a lane of its last operand: per 4 quads and row one load of x and 16 sdot. */
#include "gemm_s8c.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("dotprod")

#include "gemm_s8c_neon.h"

/* As inline asm: before clang 16 the intrinsic exists with -march only. The lane has to be a literal. */
EC_INLINE int32x4_t dot(int32x4_t acc, int8x16_t w, int8x16_t x, int lane)
{
    switch (lane) {
    case 0: __asm__("sdot %0.4s, %1.16b, %2.4b[0]" : "+w"(acc) : "w"(w), "w"(x)); break;
    case 1: __asm__("sdot %0.4s, %1.16b, %2.4b[1]" : "+w"(acc) : "w"(w), "w"(x)); break;
    case 2: __asm__("sdot %0.4s, %1.16b, %2.4b[2]" : "+w"(acc) : "w"(w), "w"(x)); break;
    default: __asm__("sdot %0.4s, %1.16b, %2.4b[3]" : "+w"(acc) : "w"(w), "w"(x));
    }
    return acc;
}

/* sets: how many quads are summed separately, so that small tiles still have enough independent sums. */
EC_INLINE void tile(int mr, int sets, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    int32x4_t acc[4][6][4];
    EC_UNROLL(4)
    for (int s = 0; s < sets; s++)
        EC_UNROLL(6)
        for (int i = 0; i < mr; i++)
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                acc[s][i][h] = vdupq_n_s32(0);
    int64_t q = t->quads;
    for (; q >= 4; q -= 4, w += 256, x += 16 * mr)
        EC_UNROLL(4)
        for (int u = 0; u < 4; u++) {
            int8x16_t b[4];
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                b[h] = vld1q_s8(w + 64 * u + 16 * h);
            EC_UNROLL(6)
            for (int i = 0; i < mr; i++) {
                const int lane = mr * u + i; /* of the 4 * mr in this step's vectors of x */
                const int8x16_t a = vreinterpretq_s8_u8(vld1q_u8(x + lane / 4 * 16));
                EC_UNROLL(4)
                for (int h = 0; h < 4; h++)
                    acc[u % sets][i][h] = dot(acc[u % sets][i][h], b[h], a, lane % 4);
            }
        }
    for (; q > 0; q--, w += 64, x += 4 * mr)
        EC_UNROLL(6)
        for (int i = 0; i < mr; i++)
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                acc[0][i][h] = dot(acc[0][i][h], vld1q_s8(w + 16 * h), bcast_quad(x + 4 * i), 0);
    EC_UNROLL(6)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++) {
            EC_UNROLL(4)
            for (int s = 1; s < sets; s++)
                acc[0][i][h] = vaddq_s32(acc[0][i][h], acc[s][i][h]);
            finish(t, i, h, acc[0][i][h]);
        }
}

void ec_gemm_s8c_tile_neondot(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    assert(nv == 1);
    (void)nv;
    if (t->cols < EC_PANEL) {
        ragged(mr, t, ec_gemm_s8c_tile_neondot);
        return;
    }
    switch (mr) {
    case 1: tile(1, 4, t); break;
    case 2: tile(2, 2, t); break;
    case 3: tile(3, 1, t); break;
    case 4: tile(4, 1, t); break;
    case 5: tile(5, 1, t); break;
    default: tile(6, 1, t);
    }
}
EC_TARGET_END
#endif
