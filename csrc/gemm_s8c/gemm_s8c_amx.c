/* int8 tile, AMX: up to 32 rows x 32 columns, four tiles of sums.
 *
 * Per 64 k: two tiles of rows of x, two of weights, four products. A product takes 16 cycles, a tile from L1 8. */
#include "gemm_s8c.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prfchw,amx-tile,amx-int8")

#include "../amx.h"
#include "gemm_s8c_zmm.h"

enum {
    ROWS = 16, QUADS = 16, BYTES = 1024, /* of a tile */
    Y_AHEAD = 12                         /* so many steps before the last, the lines of y are prefetched */
};

/* The products of 64 k. */
EC_INLINE void step(int below, int nv, const uint8_t *x, int64_t ldx, const int8_t *w, int64_t panel)
{
    EC_TILE_LOAD(4, x, ldx);
    EC_TILE_LOAD(6, w, 64);
    EC_TILE_DOT("us", 0, 4, 6);
    if (nv == 2) {
        EC_TILE_LOAD(7, w + panel, 64);
        EC_TILE_DOT("us", 1, 4, 7);
    }
    if (below) {
        EC_TILE_LOAD(5, x + ROWS * ldx, ldx);
        EC_TILE_DOT("us", 2, 5, 6);
        if (nv == 2)
            EC_TILE_DOT("us", 3, 5, 7);
    }
}

/* below: whether there are rows beyond the first 16. */
EC_INLINE void tile(int below, int nv, int mr, const ec_gemm_s8c_tile *t)
{
    const int64_t whole = t->quads / QUADS, rest = t->quads % QUADS;
    const char *ahead = t->ahead;
    const int ahead_lines = (int)ec_div_up(t->ahead_bytes / 64, whole + 1);
    if (!t->same) {
        const uint8_t first = (uint8_t)EC_MIN(mr, ROWS), others = (uint8_t)(below ? mr - ROWS : 1);
        const ec_tile_config config = {
            .palette = 1,
            .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
            .rows = {first, first, others, others, first, others, QUADS, QUADS},
        };
        ec_tile_configure(&config);
    }
    EC_TILE_ZERO(0);
    EC_TILE_ZERO(1);
    EC_TILE_ZERO(2);
    EC_TILE_ZERO(3);
    char *y = t->yi ? (char *)t->yi : (char *)t->y;
    const int64_t soon = whole > Y_AHEAD ? whole - Y_AHEAD : 0;
    for (int64_t s = 0; s < whole; s++) {
        if (s == soon)
            for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++)
                    __builtin_prefetch(y + 4 * (i * t->ldy + EC_PANEL * v), 1);
        step(below, nv, t->x + 64 * s, t->ldx, t->w + BYTES * s, t->panel);
        for (int p = 0; p < ahead_lines; p++, ahead += 64)
            _mm_prefetch(ahead, _MM_HINT_T1);
    }
    if (rest) { /* weights up to the tile's end are zeros */
        int8_t w[2][BYTES] = {{0}};
        for (int v = 0; v < nv; v++)
            memcpy(w[v], t->w + v * t->panel + BYTES * whole, (size_t)(64 * rest));
        step(below, nv, t->x + 64 * whole, t->ldx, w[0], BYTES);
    }
    int32_t sums[2 * ROWS][2 * EC_PANEL] __attribute__((aligned(64)));
    EC_TILE_STORE(0, sums[0], sizeof sums[0]);
    if (nv == 2)
        EC_TILE_STORE(1, sums[0] + EC_PANEL, sizeof sums[0]);
    if (below) {
        EC_TILE_STORE(2, sums[ROWS], sizeof sums[0]);
        if (nv == 2)
            EC_TILE_STORE(3, sums[ROWS] + EC_PANEL, sizeof sums[0]);
    }
    if (!t->more)
        ec_tile_release();
#pragma GCC unroll 2
    for (int v = 0; v < nv; v++) {
        const columns c = columns_of(t, v);
        const __m512i wsum = _mm512_loadu_si512(t->wsum + EC_PANEL * v);
        for (int i = 0; i < mr; i++) {
            const int64_t at = i * t->ldy + EC_PANEL * v;
            const __m512i zero = _mm512_mullo_epi32(_mm512_set1_epi32(t->zero[i]), wsum);
            const __m512i sum = _mm512_sub_epi32(_mm512_loadu_si512(sums[i] + EC_PANEL * v), zero);
            if (t->yi)
                _mm512_mask_storeu_epi32(t->yi + at, c.mask, sum);
            else
                finish(c, sum, t->sx[i], t->y + at);
        }
    }
}

void ec_gemm_s8c_tile_amx(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    switch (2 * (mr > ROWS) + nv) {
    case 1: tile(0, 1, mr, t); break;
    case 2: tile(0, 2, mr, t); break;
    case 3: tile(1, 1, mr, t); break;
    default: tile(1, 2, mr, t);
    }
}
EC_TARGET_END
#endif
