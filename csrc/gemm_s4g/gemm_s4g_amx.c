/* int4 tile, AMX: up to 32 rows x 32 columns, in squares of 16 x 16.
 *
 * The codes of some groups, less their zeros, become tiles of signed bytes in L1. Each square and group then has a tile of int32 sums,
 * which is stored, scaled and added to 16 ZMM of floats while the tile of the next group is multiplied. Scaling takes four operations
 * for 16 outputs, as in the other kernels; with the stores of the tiles it takes most of the time in groups of 32. */
#include "gemm_s4g.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,gfni,amx-tile,amx-int8")

#include "../amx.h"
#include "../gemm_s4g/gemm_sg_avx512vnni.h"

enum {
    SQUARE = 16,
    BLOCK_INPUTS = 256, /* their tiles stay in L1 beside rows, sums and y */
    QUADS = 16          /* of a tile at most */
};

/* The codes of a record, of 16 columns, less their zeros, as rows of a tile: [quads][16][4]. A GFNI product takes a nibble out of a
 * byte; for a zero of 8 it also fills the upper bits with the inverse of the nibble's highest bit. */
EC_INLINE void unpack(int kind, const ec_gemm_sg_tile *t, const uint8_t *record, int v, int8_t *to)
{
    const uint8_t *codes = record + t->header + 64 * v;
    const __m512i low = _mm512_set1_epi64(kind == EC_ZERO_MIDDLE ? 0x0102040808080808 : 0x0102040800000000);
    const __m512i high = _mm512_set1_epi64(kind == EC_ZERO_MIDDLE ? 0x1020408080808080 : 0x1020408000000000);
    __m512i zero = _mm512_setzero_si512();
    if (kind == EC_ZERO_POINT) /* in each of the four bytes */
        zero = _mm512_mullo_epi32(zeros_at(ec_record_zeros(record, t->scale_bytes) + SQUARE * v), _mm512_set1_epi32(0x01010101));
    for (int q = 0; q < t->quads; q += 2, codes += 128, to += 128) {
        const __m512i c = _mm512_loadu_si512(codes);
        if (kind == EC_ZERO_MIDDLE) {
            _mm512_store_si512(to, _mm512_gf2p8affine_epi64_epi8(c, low, 0xF8));
            _mm512_store_si512(to + 64, _mm512_gf2p8affine_epi64_epi8(c, high, 0xF8));
        } else {
            _mm512_store_si512(to, _mm512_sub_epi8(_mm512_gf2p8affine_epi64_epi8(c, low, 0), zero));
            _mm512_store_si512(to + 64, _mm512_sub_epi8(_mm512_gf2p8affine_epi64_epi8(c, high, 0), zero));
        }
    }
}

/* Sums of one group, of rows 0 .. 15 or, if `below`, of those from 16 on: `parts` products, each of `quads` quads. */
EC_INLINE void products(int below, int parts, int quads, const int8_t *x, int64_t ldx, const int8_t *w, int32_t *sums)
{
    if (below)
        EC_TILE_ZERO(1);
    else
        EC_TILE_ZERO(0);
    for (int p = 0; p < parts; p++, x += 4 * quads, w += 64 * quads) {
        EC_TILE_LOAD(4, w, 64);
        if (below) {
            EC_TILE_LOAD(3, x, ldx);
            EC_TILE_DOT("ss", 1, 3, 4);
        } else {
            EC_TILE_LOAD(2, x, ldx);
            EC_TILE_DOT("ss", 0, 2, 4);
        }
    }
    if (below)
        EC_TILE_STORE(1, sums, 64);
    else
        EC_TILE_STORE(0, sums, 64);
}

/* Adds `groups` groups, from group0 on, to a square of y; the first call, with group0 = 0, sets it. Rows that do not exist are computed
 * from what stands in their place. */
EC_INLINE void square(int below, int kind, int mr, int parts, const ec_gemm_sg_tile *t, int64_t group0, int64_t groups,
                      const int8_t *codes, int v, __m512 *square_of_y)
{
    const int quads = t->quads / parts;
    const int64_t group = 4 * t->quads, ldx = ec_grouped_row_bytes(t->groups, group);
    const int8_t *x = t->x + SQUARE * below * ldx + group0 * group;
    const int8_t *scale = t->x + mr * ldx + 4 * (group0 * mr + SQUARE * below), *sum = scale + 4 * mr * t->groups;
    const uint8_t *record = t->w + group0 * t->record;
    int32_t sums[2][SQUARE][SQUARE] __attribute__((aligned(64)));
    __m512 y[SQUARE];
#pragma GCC unroll 16
    for (int i = 0; i < SQUARE; i++)
        y[i] = group0 ? square_of_y[i] : _mm512_setzero_ps();
    if (groups)
        products(below, parts, quads, x, ldx, codes, sums[0][0]);
    for (int64_t g = 0; g < groups; g++, record += t->record, scale += 4 * mr, sum += 4 * mr) {
        if (g + 1 < groups)
            products(below, parts, quads, x + (g + 1) * group, ldx, codes + (g + 1) * group * SQUARE, sums[(g + 1) % 2][0]);
        const __m512 sw = floats(record, t->scale_bytes, 0, v);
        const __m512 offset = kind == EC_ZERO_OFFSET ? floats(record, t->scale_bytes, 1, v) : _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int i = 0; i < SQUARE; i++) {
            const __m512 sx = _mm512_castsi512_ps(bcast_quad(scale + 4 * i));
            y[i] = _mm512_add_ps(y[i], _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[g % 2][i])), _mm512_mul_ps(sx, sw)));
            if (kind == EC_ZERO_OFFSET)
                y[i] = _mm512_add_ps(y[i], _mm512_mul_ps(_mm512_cvtepi32_ps(bcast_quad(sum + 4 * i)), _mm512_mul_ps(sx, offset)));
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < SQUARE; i++)
        square_of_y[i] = y[i];
}

/* The fewest equal parts of a group that tiles hold. */
static int parts_of(int quads)
{
    int parts = (int)ec_div_up(quads, QUADS);
    while (quads % parts)
        parts++;
    return parts;
}

EC_INLINE void squares(int kind, int mr, const ec_gemm_sg_tile *t)
{
    const int parts = parts_of(t->quads), group = 4 * t->quads, columns = t->cols > SQUARE ? 2 : 1;
    if (!t->same) {
        const uint8_t above = (uint8_t)EC_MIN(mr, SQUARE), below = (uint8_t)(mr > SQUARE ? mr - SQUARE : 1);
        const uint8_t quads = (uint8_t)(t->quads / parts);
        const uint16_t wide = 4 * quads;
        const ec_tile_config config = {.palette = 1, .row_bytes = {64, 64, wide, wide, 64}, .rows = {above, below, above, below, quads}};
        ec_tile_configure(&config);
    }
    __m512 y[2][2][SQUARE];
    int8_t codes[SQUARE * BLOCK_INPUTS] __attribute__((aligned(64)));
    int64_t g = 0;
    do { /* once even without a group: that sets y */
        const int64_t groups = EC_MIN(BLOCK_INPUTS / group, t->groups - g);
        for (int v = 0; v < columns; v++) {
            for (int64_t b = 0; b < groups; b++)
                unpack(kind, t, t->w + (g + b) * t->record, v, codes + b * group * SQUARE);
            square(0, kind, mr, parts, t, g, groups, codes, v, y[0][v]);
            if (mr > SQUARE)
                square(1, kind, mr, parts, t, g, groups, codes, v, y[1][v]);
        }
        g += groups;
    } while (g < t->groups);
    if (!t->more)
        ec_tile_release();
    ec_gemm_sg_tile lower = *t; /* the rows below */
    lower.y += SQUARE * t->ldy;
    for (int v = 0; v < columns; v++) {
        finish(EC_MIN(mr, SQUARE), t, v, y[0][v]);
        if (mr > SQUARE)
            finish(mr - SQUARE, &lower, v, y[1][v]);
    }
}

void ec_gemm_s4g_tile_amx(int mr, const ec_gemm_sg_tile *t)
{
    switch (t->zero) {
    case EC_ZERO_MIDDLE: squares(EC_ZERO_MIDDLE, mr, t); break;
    case EC_ZERO_POINT: squares(EC_ZERO_POINT, mr, t); break;
    default: squares(EC_ZERO_OFFSET, mr, t);
    }
}
EC_TARGET_END
#endif
