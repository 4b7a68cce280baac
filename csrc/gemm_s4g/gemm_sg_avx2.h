/* The grouped tile with vpmaddubsw: up to 8 rows x 32 columns. Included inside an AVX2 target region.
 *
 * A nibble is the unsigned operand as it is: a pair adds at most 2 * 15 * 127 = 3810, so eight of them fit int16 (30480) and one
 * vpmaddwd widens them all: 2.1 instructions per 32 products where full-range bytes take 4. A byte is two nibbles: 16 * high + low.
 * The int16 sums stay in registers, 8 of them in the loop of several rows; y, and the int32 sums of longer groups, live in L1. */
#include "../ymm.h"
#include "record_ymm.h"

enum { H = EC_STRIP / 8, AHEAD = 1536 }; /* bytes to prefetch ahead */

EC_INLINE __m256i pair(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }

/* Row i is done: bias, relu, y. */
EC_INLINE void finish(const ec_gemm_sg_tile *t, int i, const __m256 *sums)
{
    const __m256i nan = _mm256_set1_epi32(0x7FC00000);
    for (int h = 0; 8 * h < t->cols; h++) {
        const __m256i mask = first_lanes(t->cols - 8 * h);
        __m256 v = _mm256_add_ps(sums[h], _mm256_maskload_ps(t->bias + 8 * h, mask));
        /* see gemm_s8c_ymm.h */
        const __m256 low = t->relu ? _mm256_max_ps(v, _mm256_setzero_ps()) : v;
        v = _mm256_blendv_ps(low, _mm256_castsi256_ps(nan), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        _mm256_maskstore_ps(t->y + i * t->ldy + 8 * h, mask, v);
    }
}

/* What an int32 sum begins with: -zero * sum(x). */
EC_INLINE __m256i start(int kind, int scale_bytes, const uint8_t *w, int h, int32_t sum)
{
    if (kind == EC_ZERO_OFFSET)
        return _mm256_setzero_si256();
    if (kind == EC_ZERO_MIDDLE)
        return _mm256_set1_epi32(sum);
    return _mm256_mullo_epi32(zeros_at(ec_record_zeros(w, scale_bytes) + 8 * h), _mm256_set1_epi32(sum));
}

/* A group is summed. */
EC_INLINE __m256 flush(int kind, __m256 y, __m256i acc, __m256 sx, __m256 sw, __m256 offset, int32_t sum)
{
    y = _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(sx, sw)));
    if (kind == EC_ZERO_OFFSET)
        y = _mm256_add_ps(y, _mm256_mul_ps(_mm256_set1_ps((float)sum), _mm256_mul_ps(sx, offset)));
    return y;
}

/* Sums the products of `r` (2 .. 4) rows and `lines` lines of codes in int16: of nibbles 16 columns; of bytes 8, low and high nibbles
 * apart. */
EC_INLINE void products(int r, int bits, int lines, const uint8_t *codes, const int8_t *x, int64_t step, __m256i (*s)[2])
{
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int i = 0; i < r; i++)
        s[i][0] = s[i][1] = _mm256_setzero_si256();
    for (; lines > 0; lines--, codes += 4 * EC_STRIP, x += bits == 4 ? 2 * step : step) {
        __m256i v[2], w[2];
        v[0] = _mm256_loadu_si256((const __m256i *)(const void *)codes);
        w[0] = _mm256_and_si256(_mm256_srli_epi16(v[0], 4), nibble);
        v[0] = _mm256_and_si256(v[0], nibble);
        if (bits == 4) {
            v[1] = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 32));
            w[1] = _mm256_and_si256(_mm256_srli_epi16(v[1], 4), nibble);
            v[1] = _mm256_and_si256(v[1], nibble);
        } else
            v[1] = w[0];
#pragma GCC unroll 4
        for (int i = 0; i < r; i++) {
            const __m256i low = bcast_quad(x + 4 * i);
            s[i][0] = pair(s[i][0], _mm256_maddubs_epi16(v[0], low));
            s[i][1] = pair(s[i][1], _mm256_maddubs_epi16(v[1], low));
            __asm__("" : "+x"(s[i][0]), "+x"(s[i][1])); /* else gcc adds later, and keeps the products until then */
            if (bits == 4) {
                const __m256i high = bcast_quad(x + step + 4 * i);
                s[i][0] = pair(s[i][0], _mm256_maddubs_epi16(w[0], high));
                s[i][1] = pair(s[i][1], _mm256_maddubs_epi16(w[1], high));
                __asm__("" : "+x"(s[i][0]), "+x"(s[i][1]));
            }
        }
    }
}

/* One group, `r` rows, from column 8 * h on: 16 columns of nibbles, 8 of bytes. */
EC_INLINE void rows(int r, int bits, const ec_gemm_sg_tile *t, int mr, const uint8_t *w, const int8_t *x, int h, __m256 (*y)[H])
{
    const int vecs = bits == 4 ? 2 : 1, kind = t->zero;
    const uint8_t *codes = w + t->header + 32 * h;
    const float *sx = (const float *)(const void *)(x + 4 * t->quads * mr);
    const int32_t *sum = (const int32_t *)(const void *)(sx + mr);
    const __m256i one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
    __m256i acc[4][2] = {{{0}}};
    for (int q = 0; q < t->quads; q += 8) {
        __m256i s[4][2];
        const int quads = EC_MIN(t->quads - q, 8);
        products(r, bits, bits == 4 ? quads / 2 : quads, codes + bits / 4 * 2 * EC_STRIP * q, x + 4 * mr * q, 4 * mr, s);
#pragma GCC unroll 4
        for (int i = 0; i < r; i++)
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) {
                acc[i][v] = _mm256_add_epi32(acc[i][v], _mm256_madd_epi16(s[i][v], one));
                if (bits == 8)
                    acc[i][v] = _mm256_add_epi32(acc[i][v], _mm256_madd_epi16(s[i][1], sixteen));
            }
    }
#pragma GCC unroll 2
    for (int v = 0; v < vecs; v++) {
        const __m256 sw = floats(w, t->scale_bytes, 0, h + v), offset = kind == EC_ZERO_OFFSET ? floats(w, t->scale_bytes, 1, h + v) : sw;
#pragma GCC unroll 4
        for (int i = 0; i < r; i++) {
            const __m256i a = _mm256_add_epi32(acc[i][v], start(kind, t->scale_bytes, w, h + v, sum[i]));
            y[i][h + v] = flush(kind, y[i][h + v], a, _mm256_set1_ps(sx[i]), sw, offset, sum[i]);
        }
    }
}

EC_INLINE void tile(int bits, int mr, const ec_gemm_sg_tile *t)
{
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    __m256 y[EC_MAX_ROWS][H];
    memset(y, 0, (size_t)mr * sizeof *y);
    const int half = mr <= 4 ? mr : (mr + 1) / 2; /* 5 as 3 + 2 */
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += ec_group_bytes(4 * t->quads, mr))
        for (int h = 0; h < H; h += bits == 4 ? 2 : 1)
            for (int i = 0; i < mr; i += half)
                switch (EC_MIN(half, mr - i)) {
                case 2: rows(2, bits, t, mr, w, x + 4 * i, h, y + i); break;
                case 3: rows(3, bits, t, mr, w, x + 4 * i, h, y + i); break;
                default: rows(4, bits, t, mr, w, x + 4 * i, h, y + i);
                }
    for (int i = 0; i < mr; i++)
        finish(t, i, y[i]);
}

/* One row: `count` lines of codes, all 32 columns. */
EC_INLINE void lines(int bits, int count, const int8_t *x, const uint8_t *codes, __m256i *acc)
{
    const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
    __m256i low[H], high[H];
#pragma GCC unroll 8
    for (int l = 0; l < count; l++) {
        _mm_prefetch((const char *)codes + 4 * EC_STRIP * l + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)codes + 4 * EC_STRIP * l + AHEAD + 64, _MM_HINT_T0);
        const __m256i xl = bcast_quad(x + (bits == 8 ? 4 : 8) * l), xh = bits == 8 ? xl : bcast_quad(x + 8 * l + 4);
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 4 * EC_STRIP * l + 32 * h));
            __asm__("" : "+x"(v)); /* else gcc loads it twice */
            const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(v, nibble), xl);
            const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 4), nibble), xh);
            if (bits == 8) {
                low[h] = l ? pair(low[h], a) : a;
                high[h] = l ? pair(high[h], b) : b;
            } else
                low[h] = l ? pair(low[h], pair(a, b)) : pair(a, b);
            __asm__("" : "+x"(low[h])); /* else gcc adds later, and keeps all the products until then */
            if (bits == 8)
                __asm__("" : "+x"(high[h]));
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; h++) {
        acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(low[h], one));
        if (bits == 8)
            acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(high[h], sixteen));
    }
}

EC_INLINE void one_row(int bits, int kind, int scale_bytes, const ec_gemm_sg_tile *t)
{
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    __m256 y[H];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
        y[h] = _mm256_setzero_ps();
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += 8) {
        const uint8_t *codes = w + t->header;
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
        float sx;
        int32_t sum;
        memcpy(&sx, x + 4 * t->quads, 4);
        memcpy(&sum, x + 4 * t->quads + 4, 4);
        __m256i acc[H];
#pragma GCC unroll 4
        for (int h = 0; h < H; h++)
            acc[h] = start(kind, scale_bytes, w, h, sum);
        int q = t->quads;
        for (; q >= 8; q -= 8, x += 32, codes += 4 * bits * EC_STRIP)
            lines(bits, bits, x, codes, acc);
        if (q > 0) {
            lines(bits, bits / 2, x, codes, acc);
            x += 16;
        }
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) {
            const __m256 sw = floats(w, scale_bytes, 0, h), offset = kind == EC_ZERO_OFFSET ? floats(w, scale_bytes, 1, h) : sw;
            y[h] = flush(kind, y[h], acc[h], _mm256_set1_ps(sx), sw, offset, sum);
        }
    }
    finish(t, 0, y);
}

/* Kind and scale type are constants for one row, whose time is short; several rows test once for many products. */
EC_INLINE void tiles(int mr, int bits, const ec_gemm_sg_tile *t)
{
    if (mr > 1) {
        tile(bits, mr, t);
        return;
    }
    switch (3 * (t->scale_bytes == 4) + t->zero) {
    case EC_ZERO_MIDDLE: one_row(bits, EC_ZERO_MIDDLE, 2, t); break;
    case EC_ZERO_POINT: one_row(bits, EC_ZERO_POINT, 2, t); break;
    case EC_ZERO_OFFSET: one_row(bits, EC_ZERO_OFFSET, 2, t); break;
    case 3 + EC_ZERO_MIDDLE: one_row(bits, EC_ZERO_MIDDLE, 4, t); break;
    case 3 + EC_ZERO_POINT: one_row(bits, EC_ZERO_POINT, 4, t); break;
    default: one_row(bits, EC_ZERO_OFFSET, 4, t);
    }
}
