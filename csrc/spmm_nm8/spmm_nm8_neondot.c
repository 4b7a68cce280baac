/* int8 N:M panel, NEON with sdot: up to 4 rows x 16 outputs, 16 registers of sums.
 *
 * A table lookup picks the four bytes of each output from its row's window of 16 inputs: two instructions for 16 products. One or two rows
 * decode the places where they use them. Else they are decoded once for all rows, for a block of quads, so that what was decoded stays in
 * L1. */
#include "spmm_nm8.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("dotprod")

#include "../gemm_s8c/gemm_s8c_neon.h"

enum { ROWS = 4 };

/* As inline asm: before clang 16 the intrinsic exists with -march only. */
EC_INLINE int32x4_t dot(int32x4_t acc, int8x16_t w, uint8x16_t x)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(w), "w"(x));
    return acc;
}

/* Places of 4 outputs from quad q on, q being the first of a word. */
EC_INLINE uint32x4_t load_places(const ec_nm8_panel *p, int bits, int64_t q, int h)
{
    const uint32_t *word = p->places + q / (8 / bits) * (p->shared ? 1 : EC_PANEL);
    return p->shared ? vdupq_n_u32(*word) : vld1q_u32(word + 4 * h);
}

/* Where in the window the bytes of 4 outputs are; moves on to the places of the next quad. */
EC_INLINE uint8x16_t decode(uint32x4_t *places, int bits, uint32_t base)
{
    const uint8x16_t take = vandq_u8(vreinterpretq_u8_u32(*places), vdupq_n_u8(bits == 2 ? 3 : 15));
    *places = bits == 2 ? vshrq_n_u32(*places, 2) : vshrq_n_u32(*places, 4);
    return vaddq_u8(take, vreinterpretq_u8_u32(vdupq_n_u32(base)));
}

EC_INLINE void multiply(int mr, int32x4_t acc[ROWS][4], const uint8_t *x, int64_t ldx, const int8_t *w, const uint8x16_t take[4])
{
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++) {
        const uint8x16_t window = vld1q_u8(x + i * ldx);
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            acc[i][h] = dot(acc[i][h], vld1q_s8(w + 16 * h), vqtbl1q_u8(window, take[h]));
    }
}

/* Outputs of a row: through a buffer where fewer than 16 exist. */
EC_INLINE void finish_row(const ec_gemm_s8c_tile *t, int64_t row, const int32x4_t acc[4])
{
    float y[EC_PANEL], bias[EC_PANEL] = {0};
    const size_t bytes = 4 * (size_t)t->cols;
    ec_gemm_s8c_tile one = *t;
    one.zero += row, one.sx += row, one.y += row * t->ldy;
    if (t->cols < EC_PANEL) {
        memcpy(bias, t->bias, bytes);
        one.bias = bias;
        one.y = y;
    }
    EC_UNROLL(4)
    for (int h = 0; h < 4; h++)
        finish(&one, 0, h, acc[h]);
    if (t->cols < EC_PANEL)
        memcpy(t->y + row * t->ldy, y, bytes);
}

EC_INLINE void few_rows(int mr, int bits, const ec_nm8_panel *p)
{
    const int64_t quads = p->tile.quads;
    int32x4_t acc[ROWS][4];
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            acc[i][h] = vdupq_n_s32(0);
    for (int64_t q = 0; q < quads;) {
        uint32x4_t places[4];
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            places[h] = load_places(p, bits, q, h);
        for (const int64_t end = EC_MIN(q + 8 / bits, quads); q < end; q++) {
            uint8x16_t take[4];
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                take[h] = decode(&places[h], bits, p->base[q]);
            multiply(mr, acc, p->tile.x + p->window[q], p->ldx, p->tile.w + 64 * q, take);
        }
    }
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++)
        finish_row(&p->tile, i, acc[i]);
}

EC_INLINE void decode_block(const ec_nm8_panel *p, int bits)
{
    uint8_t *out = p->scratch;
    for (int64_t q = p->quad0; q < p->quad1;) {
        uint32x4_t places[4];
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            places[h] = load_places(p, bits, q, h);
        for (const int64_t end = EC_MIN(q + 8 / bits, p->quad1); q < end; q++, out += 64)
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                vst1q_u8(out + 16 * h, decode(&places[h], bits, p->base[q]));
    }
}

EC_INLINE void tile(int mr, const ec_nm8_panel *p, int64_t row)
{
    const uint8_t *decoded = p->scratch, *x = p->tile.x + row * p->ldx;
    int32_t *sums = p->sums + EC_PANEL * row;
    int32x4_t acc[ROWS][4];
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++)
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            acc[i][h] = p->quad0 ? vld1q_s32(sums + EC_PANEL * i + 4 * h) : vdupq_n_s32(0);
    for (int64_t q = p->quad0; q < p->quad1; q++, decoded += 64) {
        uint8x16_t take[4];
        EC_UNROLL(4)
        for (int h = 0; h < 4; h++)
            take[h] = vld1q_u8(decoded + 16 * h);
        multiply(mr, acc, x + p->window[q], p->ldx, p->tile.w + 64 * q, take);
    }
    const int last = p->quad1 == p->tile.quads;
    EC_UNROLL(4)
    for (int i = 0; i < mr; i++)
        if (last)
            finish_row(&p->tile, row + i, acc[i]);
        else
            EC_UNROLL(4)
            for (int h = 0; h < 4; h++)
                vst1q_s32(sums + EC_PANEL * i + 4 * h, acc[i][h]);
}

EC_INLINE void any_rows(int bits, const ec_nm8_panel *p)
{
    const int64_t tiles = ec_div_up(p->m, ROWS);
    if (p->m == 1 || p->m == 2) {
        if (p->m == 1)
            few_rows(1, bits, p);
        else
            few_rows(2, bits, p);
        return;
    }
    decode_block(p, bits);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t row = ec_part(p->m, tiles, i);
        switch (ec_part(p->m, tiles, i + 1) - row) { /* three rows or more are not cut into tiles of one */
        case 2: tile(2, p, row); break;
        case 3: tile(3, p, row); break;
        default: tile(4, p, row);
        }
    }
}

void ec_spmm_nm8_neondot(const ec_nm8_panel *p)
{
    if (p->bits == 2)
        any_rows(2, p);
    else
        any_rows(4, p);
}
EC_TARGET_END
#endif
