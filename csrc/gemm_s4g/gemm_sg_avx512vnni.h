/* The grouped tile with vpdpbusd: up to 6 rows x 32 columns, 12 ZMM of int32 sums and 12 of floats. Included inside an AVX-512 VNNI
 * target region. Codes are the unsigned operand as they are; the sums of a group begin at -zero * sum(x), which costs nothing. The two
 * products that scale a sum compete with the dot products: in groups of 32, 8 of 10 is the most. */
#include "../zmm.h"
#include "record_zmm.h"

enum { AHEAD = 6144 }; /* bytes to prefetch ahead */

/* Prefetches two lines into L1 and, if `ahead` is 2, two much farther ahead into L2: one is asked for, and the CPU brings its neighbour
 * too. */
EC_INLINE void prefetch(int ahead, const uint8_t *w)
{
    _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
    _mm_prefetch((const char *)w + AHEAD + 64, _MM_HINT_T0);
    if (ahead == 2)
        _mm_prefetch((const char *)w + EC_FAR_AHEAD, _MM_HINT_T1);
}

EC_INLINE __m512i dot(__m512i acc, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8)); /* inline: see gemm_s8c_zmm.h */
    return acc;
}

/* With a quad of x: reading it into a register first is a vector operation more. */
EC_INLINE __m512i dot_quad(__m512i acc, __m512i u8, const int8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u8), "m"(*(const int32_t (*)[1])(const void *)x));
    return acc;
}

/* What the sums of vector v begin with: see ec_sum_factor. */
EC_INLINE __m512i start(int kind, const ec_gemm_sg_tile *t, const uint8_t *w, int v, __m512i sum)
{
    if (kind == EC_ZERO_POINT)
        return _mm512_mullo_epi32(zeros_at(ec_record_zeros(w, t->scale_bytes) + 16 * v), sum);
    return kind == EC_ZERO_OFFSET ? _mm512_setzero_si512() : sum;
}

/* y + float(sum) * (*sx * sw): in this order, without fma (promise 1 of docs/numerics.md). */
EC_INLINE __m512 add_scaled(__m512 y, __m512i sum, const int8_t *sx, __m512 sw)
{
    return _mm512_add_ps(y, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_castsi512_ps(bcast_quad(sx)), sw)));
}

/* Bias, relu, y of vector v. */
EC_INLINE void finish(int mr, const ec_gemm_sg_tile *t, int v, const __m512 *y)
{
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    const __m512i fix = _mm512_set1_epi32(t->relu ? FIX_NAN_AND_RELU : FIX_NAN);
    const int left = t->cols - 16 * v;
    const __mmask16 mask = left >= 16 ? 0xFFFF : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
    const __m512 bias = _mm512_maskz_loadu_ps(mask, t->bias + 16 * v);
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
        _mm512_mask_storeu_ps(t->y + i * t->ldy + 16 * v, mask, _mm512_fixupimm_ps(nan, _mm512_add_ps(y[i], bias), fix, 0));
}

/* The products of one line of codes: a quad of bytes, two of nibbles. x: [1 or 2][mr][4] */
EC_INLINE void line(int mr, int bits, const uint8_t *codes, const int8_t *x, __m512i (*acc)[2])
{
    const __m512i nibble = _mm512_set1_epi8(15), v0 = _mm512_loadu_si512(codes), v1 = _mm512_loadu_si512(codes + 64);
    const __m512i low0 = bits == 8 ? v0 : _mm512_and_si512(v0, nibble), low1 = bits == 8 ? v1 : _mm512_and_si512(v1, nibble);
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
        const __m512i a = bcast_quad(x + 4 * i);
        acc[i][0] = dot(acc[i][0], low0, a);
        acc[i][1] = dot(acc[i][1], low1, a);
    }
    if (bits == 8)
        return;
    const __m512i high0 = _mm512_and_si512(_mm512_srli_epi16(v0, 4), nibble), high1 = _mm512_and_si512(_mm512_srli_epi16(v1, 4), nibble);
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
        const __m512i a = bcast_quad(x + 4 * (mr + i));
        acc[i][0] = dot(acc[i][0], high0, a);
        acc[i][1] = dot(acc[i][1], high1, a);
    }
}

EC_INLINE void tile(int mr, int bits, int kind, int ahead, const ec_gemm_sg_tile *t)
{
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    const int quads_of_line = bits == 4 ? 2 : 1, scale_bytes = t->scale_bytes;
    const int64_t before = t->groups < 2 ? 0 : t->groups - 2; /* the group at which the lines of y are prefetched */
    __m512 y[2][6];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
        y[0][i] = y[1][i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < t->groups; g++, w += t->record) {
        const uint8_t *codes = w + t->header;
        const int8_t *sx = x + 4 * t->quads * mr, *sum = sx + 4 * mr;
        __m512i acc[6][2];
        if (g == before) /* see gemm_s8c_avx512vnni.c */
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++) {
                __builtin_prefetch(t->y + i * t->ldy, 1);
                __builtin_prefetch(t->y + i * t->ldy + 16, 1);
            }
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
            const __m512i s = bcast_quad(sum + 4 * i);
            acc[i][0] = start(kind, t, w, 0, s);
            acc[i][1] = start(kind, t, w, 1, s);
        }
        for (int q = t->quads; q > 0; q -= 2 * quads_of_line) {
#pragma GCC unroll 2
            for (int l = 0; l < 2; l++, codes += 4 * EC_STRIP, x += 4 * mr * quads_of_line) {
                if (ahead)
                    prefetch(t->ahead, codes);
                line(mr, bits, codes, x, acc);
            }
        }
        x += 8 * mr;
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            const __m512 sw = floats(w, scale_bytes, 0, v);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++)
                y[v][i] = add_scaled(y[v][i], acc[i][v], sx + 4 * i, sw);
            if (kind != EC_ZERO_OFFSET)
                continue;
            const __m512 offset = floats(w, scale_bytes, 1, v);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++)
                y[v][i] = add_scaled(y[v][i], bcast_quad(sum + 4 * i), sx + 4 * i, offset);
        }
    }
    finish(mr, t, 0, y[0]);
    finish(mr, t, 1, y[1]);
}

/* One row, bound by reading the records: a code is loaded once, and not the high nibbles are shifted down but their sum. */
EC_INLINE void one_row(int bits, int kind, int scale_bytes, int ahead, const ec_gemm_sg_tile *t)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xF0);
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    __m512 y[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += 8) {
        const uint8_t *codes = w + t->header;
        const int8_t *sx = x + 4 * t->quads, *sum = sx + 4;
        const __m512i s = bcast_quad(sum);
        if (ahead)
            _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
        __m512i even[2] = {start(kind, t, w, 0, s), start(kind, t, w, 1, s)}, odd[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int q = t->quads; q > 0; q -= 4, codes += bits * 64, x += 16)
#pragma GCC unroll 2
            for (int l = 0; l < 2; l++) {
                for (int p = 0; ahead && p < bits / 4; p++)
                    prefetch(2, codes + bits * 32 * l + 128 * p);
#pragma GCC unroll 2
                for (int v = 0; v < 2; v++) {
                    const int8_t *x0 = x + 8 * l, *x1 = x0 + 4;
                    __m512i c = _mm512_loadu_si512(codes + bits * 32 * l + 64 * v);
                    __asm__("" : "+v"(c)); /* else gcc loads it twice */
                    even[v] = dot_quad(even[v], bits == 4 ? _mm512_and_si512(c, low) : c, x0);
                    const __m512i next = bits == 4 ? _mm512_and_si512(c, high) : _mm512_loadu_si512(codes + bits * 32 * l + 128 + 64 * v);
                    odd[v] = dot_quad(odd[v], next, x1);
                }
            }
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            const __m512i acc = _mm512_add_epi32(even[v], bits == 4 ? _mm512_srai_epi32(odd[v], 4) : odd[v]);
            const __m512 scale = _mm512_castsi512_ps(bcast_quad(sx));
            y[v] = _mm512_add_ps(y[v], _mm512_mul_ps(_mm512_cvtepi32_ps(acc), _mm512_mul_ps(scale, floats(w, scale_bytes, 0, v))));
            if (kind == EC_ZERO_OFFSET)
                y[v] = _mm512_add_ps(y[v], _mm512_mul_ps(_mm512_cvtepi32_ps(s), _mm512_mul_ps(scale, floats(w, scale_bytes, 1, v))));
        }
    }
    finish(1, t, 0, y);
    finish(1, t, 1, y + 1);
}

EC_INLINE void rows(int mr, int bits, int ahead, const ec_gemm_sg_tile *t)
{
    switch (t->zero) {
    case EC_ZERO_MIDDLE: tile(mr, bits, EC_ZERO_MIDDLE, ahead, t); break;
    case EC_ZERO_POINT: tile(mr, bits, EC_ZERO_POINT, ahead, t); break;
    default: tile(mr, bits, EC_ZERO_OFFSET, ahead, t);
    }
}

EC_INLINE void row(int bits, int ahead, const ec_gemm_sg_tile *t)
{
    switch (3 * (t->scale_bytes == 4) + t->zero) {
    case EC_ZERO_MIDDLE: one_row(bits, EC_ZERO_MIDDLE, 2, ahead, t); break;
    case EC_ZERO_POINT: one_row(bits, EC_ZERO_POINT, 2, ahead, t); break;
    case EC_ZERO_OFFSET: one_row(bits, EC_ZERO_OFFSET, 2, ahead, t); break;
    case 3 + EC_ZERO_MIDDLE: one_row(bits, EC_ZERO_MIDDLE, 4, ahead, t); break;
    case 3 + EC_ZERO_POINT: one_row(bits, EC_ZERO_POINT, 4, ahead, t); break;
    default: one_row(bits, EC_ZERO_OFFSET, 4, ahead, t);
    }
}

EC_INLINE void tiles_ahead(int mr, int bits, int ahead, const ec_gemm_sg_tile *t)
{
    switch (mr) {
    case 1: row(bits, ahead, t); break;
    case 2: rows(2, bits, ahead, t); break;
    case 3: rows(3, bits, ahead, t); break;
    case 4: rows(4, bits, ahead, t); break;
    case 5: rows(5, bits, ahead, t); break;
    default: rows(6, bits, ahead, t);
    }
}

/* Whether to prefetch is a constant: a test for each line costs 4 % of many rows. */
EC_INLINE void tiles(int mr, int bits, const ec_gemm_sg_tile *t) { t->ahead ? tiles_ahead(mr, bits, 1, t) : tiles_ahead(mr, bits, 0, t); }
