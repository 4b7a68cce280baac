/* int8 N:M panel, AVX2: up to 4 rows x 16 outputs, 8 YMM of sums.
 *
 * A shuffle picks the four bytes of each output from its row's window. They are x = q - 128 (flip 0x80), and vpmaddubsw needs an
 * unsigned operand: that is |w|, and the bytes for negative weights are inverted, ~x = -1 - x, which unlike -x is always a byte. The
 * sum is then too small by the sum of the negative weights, known beforehand. A pair is at most 2 * 127 * 128: exact. Where a window is
 * 8 inputs, x and ~x lie in one register (halves) and the shuffle picks the right one: four instructions for 32 products.
 *
 * One or two rows decode the places where they use them. For more rows they are decoded once, a block of quads at a time, so that what
 * was decoded stays in L1. */
#include "spmm_nm8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

#include "../gemm_s8c/gemm_s8c_ymm.h"

enum { ROWS = 4, AHEAD = 3072 /* bytes of weights to prefetch; of places half */ };

typedef struct { __m256i take[2], size[2], turn[2]; } picks; /* of 2 x 8 outputs */

/* Places of 8 outputs from quad q on, which is the first of a word. */
EC_INLINE __m256i load_places(const ec_nm8_panel *p, int bits, int64_t q, int h)
{
    const uint32_t *word = p->places + q / (8 / bits) * (p->shared ? 1 : EC_PANEL);
    if (!p->shared && h == 0)
        _mm_prefetch((const char *)word + AHEAD / 2, _MM_HINT_T0);
    return p->shared ? _mm256_set1_epi32((int)*word) : _mm256_loadu_si256((const __m256i *)(word + 8 * h));
}

EC_INLINE picks decode(const __m256i places[2], int bits, int halves, const int8_t *w, uint32_t base)
{
    picks d;
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(w + 32 * h));
        d.turn[h] = _mm256_cmpgt_epi8(_mm256_setzero_si256(), v);
        d.size[h] = _mm256_abs_epi8(v);
        d.take[h] = _mm256_and_si256(places[h], _mm256_set1_epi8(bits == 2 ? 3 : 15));
        d.take[h] = _mm256_add_epi8(d.take[h], _mm256_set1_epi32((int)base));
        if (halves)
            d.take[h] = _mm256_or_si256(d.take[h], _mm256_and_si256(d.turn[h], _mm256_set1_epi8(8)));
    }
    return d;
}

EC_INLINE void multiply(int mr, int halves, __m256i acc[ROWS][2], const uint8_t *x, int64_t ldx, picks d)
{
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++) {
        const __m256i window = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(x + i * ldx)));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m256i v = _mm256_shuffle_epi8(window, d.take[h]);
            if (!halves)
                v = _mm256_xor_si256(v, d.turn[h]);
            v = _mm256_madd_epi16(_mm256_maddubs_epi16(d.size[h], v), _mm256_set1_epi16(1));
            acc[i][h] = _mm256_add_epi32(acc[i][h], v);
            __asm__("" : "+x"(acc[i][h])); /* else gcc adds in another order and spills */
        }
    }
}

EC_INLINE __m256i first_sum(const ec_nm8_panel *p, int64_t row, int h)
{
    const __m256i zero = _mm256_set1_epi32(-p->tile.zero[row]), wsum = _mm256_loadu_si256((const __m256i *)(p->tile.wsum + 8 * h));
    return _mm256_sub_epi32(_mm256_mullo_epi32(zero, wsum), _mm256_loadu_si256((const __m256i *)(p->negative + 8 * h)));
}

EC_INLINE void few_rows(int mr, int bits, int halves, const ec_nm8_panel *p)
{
    const int64_t quads = p->tile.quads, ldx = p->ldx;
    const int8_t *w = p->tile.w;
    const uint32_t *base = p->base;
    const int32_t *window = p->window;
    __m256i acc[ROWS][2];
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++)
        acc[i][0] = first_sum(p, i, 0), acc[i][1] = first_sum(p, i, 1);
    for (int64_t q = 0; q < quads;) {
        __m256i places[2] = {load_places(p, bits, q, 0), load_places(p, bits, q, 1)};
        for (const int64_t end = EC_MIN(q + 8 / bits, quads); q < end; q++) {
            _mm_prefetch((const char *)(w + 64 * q + AHEAD), _MM_HINT_T0);
            multiply(mr, halves, acc, p->tile.x + window[q], ldx, decode(places, bits, halves, w + 64 * q, base[q]));
            places[0] = _mm256_srli_epi32(places[0], bits), places[1] = _mm256_srli_epi32(places[1], bits);
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < mr; i++)
        finish(&p->tile, i, 0, acc[i][0]), finish(&p->tile, i, 1, acc[i][1]);
}

EC_INLINE void decode_block(const ec_nm8_panel *p, int bits, int halves)
{
    picks *out = (picks *)p->scratch;
    for (int64_t q = p->quad0; q < p->quad1;) {
        __m256i places[2] = {load_places(p, bits, q, 0), load_places(p, bits, q, 1)};
        for (const int64_t end = EC_MIN(q + 8 / bits, p->quad1); q < end; q++) {
            _mm_prefetch((const char *)(p->tile.w + 64 * q + AHEAD), _MM_HINT_T0);
            *out++ = decode(places, bits, halves, p->tile.w + 64 * q, p->base[q]);
            places[0] = _mm256_srli_epi32(places[0], bits), places[1] = _mm256_srli_epi32(places[1], bits);
        }
    }
}

EC_INLINE void tile(int mr, int halves, const ec_nm8_panel *p, int64_t row)
{
    const picks *d = (const picks *)p->scratch;
    const int64_t quad1 = p->quad1, ldx = p->ldx;
    const uint8_t *x = p->tile.x + row * ldx;
    const int32_t *window = p->window;
    __m256i acc[ROWS][2], *sums = (__m256i *)p->sums + 2 * row;
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[i][h] = p->quad0 ? sums[2 * i + h] : first_sum(p, row + i, h);
    for (int64_t q = p->quad0; q < quad1; q++)
        multiply(mr, halves, acc, x + window[q], ldx, *d++);
    ec_gemm_s8c_tile t = p->tile;
    t.sx += row, t.y += row * t.ldy;
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            if (quad1 < t.quads)
                sums[2 * i + h] = acc[i][h];
            else
                finish(&t, i, h, acc[i][h]);
}

EC_INLINE void any_rows(int bits, int halves, const ec_nm8_panel *p)
{
    const int64_t tiles = ec_div_up(p->m, ROWS);
    if (p->m == 1 || p->m == 2) {
        if (p->m == 1)
            few_rows(1, bits, halves, p);
        else
            few_rows(2, bits, halves, p);
        return;
    }
    decode_block(p, bits, halves);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t row = ec_part(p->m, tiles, i);
        switch (ec_part(p->m, tiles, i + 1) - row) { /* three rows or more are not cut into tiles of one */
        case 2: tile(2, halves, p, row); break;
        case 3: tile(3, halves, p, row); break;
        default: tile(4, halves, p, row);
        }
    }
}

void ec_spmm_nm8_avx2(const ec_nm8_panel *p)
{
    switch (p->bits + p->halves) {
    case 2: any_rows(2, 0, p); break;
    case 3: any_rows(2, 1, p); break;
    case 4: any_rows(4, 0, p); break;
    default: any_rows(4, 1, p);
    }
}
EC_TARGET_END
#endif
