/* int8 N:M panels, AVX-512 VNNI and VBMI: up to 8 rows x 32 outputs, 16 ZMM of sums.
 *
 * vpermb picks the four bytes of each of 16 outputs from 64 neighbouring bytes of a row, enough for a quad of any pattern. With a dot
 * product it takes 1.33 cycles on Zen 4, where a dense dot product takes one.
 *
 * One or two rows decode the places where they use them, 2 bits each: a single pass over weights in memory. For more rows they are
 * decoded once, a block of quads at a time. */
#include "spmm_nm8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,prfchw")

#include "../gemm_s8c/gemm_s8c_zmm.h"

enum {
    ROWS = 8,
    STRETCH = 32, /* quads */
    AHEAD = 2048  /* bytes of weights to prefetch for few rows; twice as many where they are the only stream */
};

/* acc + w * the bytes that `take` names. One asm: gcc would move shuffles and dot products apart, which costs 4 %. */
EC_INLINE __m512i pick_dot(__m512i acc, __m512i take, __m512i bytes, __m512i w)
{
    __m512i picked;
    __asm__("vpermb %3, %2, %1\n\tvpdpbusd %4, %1, %0" : "+v"(acc), "=&v"(picked) : "v"(take), "v"(bytes), "v"(w));
    return acc;
}

/* The word of 16 outputs that quad q is in. */
EC_INLINE __m512i load_places(const ec_nm8_panel *p, int bits, int shared, int v, int64_t q)
{
    const uint32_t *word = p->places + v * p->places_panel + q / (8 / bits) * (shared ? 1 : EC_PANEL);
    return shared ? _mm512_set1_epi32((int)*word) : _mm512_loadu_si512(word);
}

/* Quad i of a word. */
EC_INLINE __m512i decode(__m512i places, int bits, int i, uint32_t base)
{
    const __m512i place = _mm512_and_si512(_mm512_srli_epi32(places, (unsigned)(bits * i)), _mm512_set1_epi8(bits == 2 ? 3 : 15));
    return _mm512_add_epi8(place, _mm512_set1_epi32((int)base));
}

EC_INLINE __m512i first_sum(const ec_nm8_panel *p, int64_t row, int v)
{
    return _mm512_mullo_epi32(_mm512_set1_epi32(-p->tile.zero[row]), _mm512_loadu_si512(p->tile.wsum + 16 * v));
}

EC_INLINE void few_rows(int mr, int bits, int shared, const ec_nm8_panel *p)
{
    enum { EACH = 4 };
    const int each = 8 / bits;
    const int64_t quads = p->tile.quads, ldx = p->ldx;
    const uint8_t *x = p->tile.x;
    __m512i acc[2][EACH];
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++) {
        acc[i][0] = first_sum(p, i, 0);
#pragma GCC unroll 4
        for (int u = 1; u < each; u++)
            acc[i][u] = _mm512_setzero_si512();
    }
    int64_t q = 0;
    for (; q + each <= quads; q += each) {
        const __m512i places = load_places(p, bits, shared, 0, q);
        if (!shared)
            _mm_prefetch((const char *)p->places + 64 * (q / each) + AHEAD / 4, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int u = 0; u < each; u++) {
            const __m512i take = decode(places, bits, u, p->base[q + u]);
            const uint8_t *window = x + p->window[q + u];
            _mm_prefetch((const char *)p->tile.w + 64 * (q + u) + AHEAD * (1 + shared), _MM_HINT_T0);
            if (p->tile.far)
                _mm_prefetch((const char *)p->tile.w + 64 * (q + u) + EC_FAR_AHEAD, _MM_HINT_T1);
#pragma GCC unroll 2
            for (int i = 0; i < mr; i++)
                acc[i][u] = pick_dot(acc[i][u], take, _mm512_loadu_si512(window + i * ldx), _mm512_loadu_si512(p->tile.w + 64 * (q + u)));
        }
    }
    if (q < quads)
        for (__m512i places = load_places(p, bits, shared, 0, q); q < quads; q++) {
            const __m512i take = decode(places, bits, 0, p->base[q]);
#pragma GCC unroll 2
            for (int i = 0; i < mr; i++)
                acc[i][0] = pick_dot(acc[i][0], take, _mm512_loadu_si512(x + p->window[q] + i * ldx),
                                     _mm512_loadu_si512(p->tile.w + 64 * q));
            places = _mm512_srli_epi32(places, (unsigned)bits);
        }
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int u = 1; u < each; u++)
            acc[i][0] = _mm512_add_epi32(acc[i][0], acc[i][u]);
        finish(columns_of(&p->tile, 0), acc[i][0], p->tile.sx[i], p->tile.y + i * p->tile.ldy);
    }
}

/* The offset in scratch of a second panel's decoded places: 0 if both panels have the same. */
static int64_t scratch_panel(const ec_nm8_panel *p) { return p->places_panel ? EC_NM8_SCRATCH / 2 : 0; }

EC_INLINE void decode_block(int bits, int shared, const ec_nm8_panel *p)
{
    for (int v = 0; v < (p->places_panel ? p->panels : 1); v++) {
        uint8_t *out = p->scratch + v * scratch_panel(p);
        for (int64_t q = p->quad0; q < p->quad1;) {
            __m512i places = load_places(p, bits, shared, v, q);
            for (const int64_t end = EC_MIN(q + 8 / bits, p->quad1); q < end; q++, out += 64) {
                _mm512_store_si512(out, decode(places, bits, 0, p->base[q]));
                places = _mm512_srli_epi32(places, (unsigned)bits);
            }
        }
    }
}

/* Tile i of `tiles`: rows row .. row + mr - 1. bits: those of places of each output, which it decodes and leaves decoded for the other
 * tiles; 0 if they are decoded. */
EC_INLINE void tile(int mr, int nv, int bits, const ec_nm8_panel *p, int64_t row, int64_t i, int64_t tiles)
{
    uint8_t *take = p->scratch;
    const uint8_t *x = p->tile.x + row * p->ldx;
    const int64_t quads = p->quad1 - p->quad0, ldx = p->ldx, take_panel = scratch_panel(p), w_panel = p->tile.panel;
    const int8_t *w = p->tile.w + 64 * p->quad0;
    const int32_t *window = p->window + p->quad0;
    int32_t *sums = p->sums + 16 * nv * row;
    /* Each tile prefetches its part of what the next panels need into L2. */
    const int8_t *ahead = w + nv * w_panel + 64 * ec_part(quads, tiles, i);
    const int64_t lines = p->ahead ? ec_div_up(ec_div_up(quads, tiles), quads / STRETCH + 1) : 0;
    int64_t q = p->quad0;
    __m512i acc[ROWS][2], places[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++)
            acc[r][v] = p->quad0 ? _mm512_load_si512(sums + 16 * (nv * r + v)) : first_sum(p, row + r, v);
    for (int64_t left = quads; left > 0;) {
        if (left <= STRETCH && p->quad1 == p->tile.quads)
#pragma GCC unroll 8
            for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++)
                    __builtin_prefetch(p->tile.y + (row + r) * p->tile.ldy + 16 * v, 1);
        for (int64_t l = 0; l < lines; l++, ahead += 64)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++)
                _mm_prefetch((const char *)(ahead + v * w_panel), _MM_HINT_T1);
        const int64_t now = EC_MIN(left, STRETCH);
        left -= now;
        for (uint8_t *end = take + 64 * now; take < end; take += 64, w += 64) {
            const uint8_t *from = x + *window++;
            __m512i t[2], b[2];
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) {
                b[v] = _mm512_loadu_si512(w + v * w_panel);
                if (!bits) {
                    t[v] = _mm512_load_si512(take + v * take_panel);
                    continue;
                }
                places[v] = q % (8 / bits) ? _mm512_srli_epi32(places[v], (unsigned)bits) : load_places(p, bits, 0, v, q);
                t[v] = decode(places[v], bits, 0, p->base[q]);
                _mm512_store_si512(take + v * take_panel, t[v]);
            }
            q++;
#pragma GCC unroll 8
            for (int r = 0; r < mr; r++) {
                const __m512i bytes = _mm512_loadu_si512(from + r * ldx);
#pragma GCC unroll 2
                for (int v = 0; v < nv; v++)
                    acc[r][v] = pick_dot(acc[r][v], t[v], bytes, b[v]);
            }
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < nv; v++) {
        const columns c = columns_of(&p->tile, v);
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++)
            if (p->quad1 < p->tile.quads)
                _mm512_store_si512(sums + 16 * (nv * r + v), acc[r][v]);
            else
                finish(c, acc[r][v], p->tile.sx[row + r], p->tile.y + (row + r) * p->tile.ldy + 16 * v);
    }
}

static void decode_places(const ec_nm8_panel *p)
{
    switch (p->bits + p->shared) { /* 2 or 4, and 1 for places that are shared */
    case 2: decode_block(2, 0, p); break;
    case 3: decode_block(2, 1, p); break;
    case 4: decode_block(4, 0, p); break;
    default: decode_block(4, 1, p);
    }
}

EC_INLINE void any_rows(int nv, const ec_nm8_panel *p)
{
    const int64_t tiles = ec_div_up(p->m, ROWS);
    int64_t i = 0;
    if (nv == 2 && !p->shared && ec_part(p->m, tiles, 1) == 8) { /* decoding fits between the dot products */
        i = 1;
        if (p->bits == 2)
            tile(8, 2, 2, p, 0, 0, tiles);
        else
            tile(8, 2, 4, p, 0, 0, tiles);
    } else
        decode_places(p);
    for (; i < tiles; i++) {
        const int64_t row = ec_part(p->m, tiles, i);
        switch (ec_part(p->m, tiles, i + 1) - row) { /* three rows or more are cut into tiles of three or more */
        case 3: tile(3, nv, 0, p, row, i, tiles); break;
        case 4: tile(4, nv, 0, p, row, i, tiles); break;
        case 5: tile(5, nv, 0, p, row, i, tiles); break;
        case 6: tile(6, nv, 0, p, row, i, tiles); break;
        case 7: tile(7, nv, 0, p, row, i, tiles); break;
        default: tile(8, nv, 0, p, row, i, tiles);
        }
    }
}

void ec_spmm_nm8_avx512vbmi(const ec_nm8_panel *p)
{
    if (p->m > 2) {
        if (p->panels == 2)
            any_rows(2, p);
        else
            any_rows(1, p);
        return;
    }
    switch (10 * (int)p->m + p->bits + p->shared) {
    case 12: few_rows(1, 2, 0, p); break;
    case 13: few_rows(1, 2, 1, p); break;
    case 14: few_rows(1, 4, 0, p); break;
    case 15: few_rows(1, 4, 1, p); break;
    case 22: few_rows(2, 2, 0, p); break;
    case 23: few_rows(2, 2, 1, p); break;
    case 24: few_rows(2, 4, 0, p); break;
    default: few_rows(2, 4, 1, p);
    }
}
EC_TARGET_END
#endif
