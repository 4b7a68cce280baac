/* The group quantiser, AVX-512. Blocks of 16 groups: first the scales of a row, a lane for each group; then the codes of four rows at a
 * time, which two packs leave in the order of the panel. */
#include "quantize_groups.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

#include "../zmm.h"

enum { GROUPS = 16 };

EC_INLINE __m512i load(int whole, const float *x, int64_t left)
{
    if (whole || left >= 16)
        return _mm512_loadu_si512(x);
    if (left <= 0) /* x may lie past the array */
        return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi32(first_lanes(left), x);
}

EC_INLINE __m512i either(int sum, __m512i a, __m512i b) { return sum ? _mm512_add_epi32(a, b) : _mm512_max_epu32(a, b); }

/* Lane i: the sum, or the largest, of v[i]'s lanes. */
EC_INLINE __m512i of_lanes(int sum, const __m512i *v)
{
    __m512i twos[8], fours[4], eights[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        twos[i] = either(sum, _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        fours[i] = either(sum, _mm512_unpacklo_epi64(twos[2 * i], twos[2 * i + 1]), _mm512_unpackhi_epi64(twos[2 * i], twos[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        eights[i] = either(sum, _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                           _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0xDD));
    return either(sum, _mm512_shuffle_i32x4(eights[0], eights[1], 0x88), _mm512_shuffle_i32x4(eights[0], eights[1], 0xDD));
}

/* The scales of `groups` groups from x on, of which `left` inputs exist, and their inverses, as ec_group_scale. Returns the mask of
 * those with a scale to multiply with. */
EC_INLINE __mmask16 scales(int whole, int groups, int64_t group, const float *x, int64_t left, float *scale, float *inverse)
{
    __m512i top[GROUPS];
    for (int g = 0; g < groups; g++, left -= group) { /* by the bits: see quantize_groups_avx2.c */
        __m512i most = _mm512_setzero_si512();
        for (int64_t p = 0; p < group; p += 16, x += 16)
            most = _mm512_max_epu32(most, _mm512_and_si512(load(whole, x, left - p), _mm512_set1_epi32(0x7FFFFFFF)));
        top[g] = most;
    }
    for (int g = groups; g < GROUPS; g++)
        top[g] = _mm512_setzero_si512();
    const __m512i bits = of_lanes(0, top);
    const __mmask16 finite = _mm512_cmplt_epu32_mask(bits, _mm512_set1_epi32(0x7F800000));
    const __m512 s = _mm512_div_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(127)), one = _mm512_set1_ps(1);
    const __mmask16 used = _mm512_mask_cmp_ps_mask(finite, s, _mm512_set1_ps(0x1p-126f), _CMP_GE_OQ);
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    _mm512_storeu_ps(scale, _mm512_mask_mov_ps(_mm512_mask_mov_ps(nan, finite, one), used, s));
    _mm512_storeu_ps(inverse, _mm512_maskz_div_ps(used, one, s));
    return used;
}

/* What the rows of a tile have in a block. */
typedef struct {
    float scale[EC_TALL_ROWS][GROUPS], inverse[EC_TALL_ROWS][GROUPS];
    __mmask16 used[EC_TALL_ROWS];
} block;

EC_INLINE __m512i quantized(int plain, const float *x, int64_t left, const block *b, int i, int g)
{
    const __m512 product = _mm512_mul_ps(_mm512_castsi512_ps(load(plain, x, left)), _mm512_set1_ps(b->inverse[i][g]));
    if (plain)
        return _mm512_cvtps_epi32(product);
    /* where the inverse is 0 the products may be NaN: no q then */
    return _mm512_maskz_cvtps_epi32((__mmask16)-(b->used[i] >> g & 1), product);
}

/* Group g of the block, `rows` (1, 2 or 4) of the panel's rows from row i on, which begins at x. plain: the group exists to its end,
 * and all groups of the block are used. */
EC_INLINE void codes(int rows, int plain, int mr, int i, const block *b, int g, int64_t group, const float *x, int64_t ldx, int64_t count,
                     int factor, int8_t *panel)
{
    const __m512i one = _mm512_set1_epi8(1), ones = _mm512_set1_epi16(1);
    __m512i sums = _mm512_setzero_si512();
    int8_t *to = panel + 4 * i;
    for (int64_t p = 0; p < group; p += 16, to += 16 * mr) {
        __m512i q[4];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            q[r] = quantized(plain, x + r * ldx + p, count - p, b, i + r, g);
        const __m512i low = _mm512_packs_epi32(q[0], q[rows > 1]), high = rows == 4 ? _mm512_packs_epi32(q[2], q[3]) : low;
        const __m512i quads = _mm512_packs_epi16(low, high); /* 128 bits: a quad of each row */
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(one, quads), ones));
        const __m128i each[4] = {_mm512_castsi512_si128(quads), _mm512_extracti32x4_epi32(quads, 1), _mm512_extracti32x4_epi32(quads, 2),
                                 _mm512_extracti32x4_epi32(quads, 3)};
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++)
            memcpy(to + 4 * mr * u, each + u, 4 * (size_t)rows);
    }
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
    const __m128i whole = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const __m128i sum = _mm_mullo_epi32(whole, _mm_set1_epi32(factor));
    memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4 * (size_t)rows);
    for (int r = 0; r < rows; r++)
        memcpy(panel + group * mr + 4 * (i + r), &b->scale[i + r][g], 4);
}

EC_INLINE void all_codes(int plain, int mr, const block *b, int groups, int64_t group, const float *x, int64_t ldx, int64_t left,
                         int factor, int8_t *panel)
{
    for (int g = 0; g < groups; g++, panel += ec_group_bytes(group, mr), x += group, left -= group) {
        int i = 0;
        for (; i + 4 <= mr; i += 4)
            codes(4, plain, mr, i, b, g, group, x + i * ldx, ldx, left, factor, panel);
        if (i + 2 <= mr) {
            codes(2, plain, mr, i, b, g, group, x + i * ldx, ldx, left, factor, panel);
            i += 2;
        }
        if (i < mr)
            codes(1, plain, mr, i, b, g, group, x + i * ldx, ldx, left, factor, panel);
    }
}

/* One row alone: its codes are in order already, and the sums of 16 groups are made as the scales are. */
EC_INLINE void one_row(const block *b, int groups, int64_t group, const float *x, int factor, int8_t *panel)
{
    __m512i sums[GROUPS];
    int8_t *to = panel;
    for (int g = 0; g < groups; g++, to += 8) {
        __m512i sum = _mm512_setzero_si512();
        for (int64_t p = 0; p < group; p += 16, x += 16, to += 16) {
            const __m512i q = quantized(1, x, 16, b, 0, g);
            sum = _mm512_add_epi32(sum, q);
            _mm512_mask_cvtepi32_storeu_epi8(to, 0xFFFF, q);
        }
        sums[g] = sum;
    }
    for (int g = groups; g < GROUPS; g++)
        sums[g] = _mm512_setzero_si512();
    int32_t sum[GROUPS];
    _mm512_storeu_si512(sum, _mm512_mullo_epi32(of_lanes(1, sums), _mm512_set1_epi32(factor)));
    for (int g = 0; g < groups; g++, panel += ec_group_bytes(group, 1)) {
        memcpy(panel + group, &b->scale[0][g], 4);
        memcpy(panel + group + 4, sum + g, 4);
    }
}

void ec_quantize_groups_avx512(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel)
{
    block b;
    for (; k > 0; k -= GROUPS * group, x += GROUPS * group, panel += GROUPS * ec_group_bytes(group, mr)) {
        const int groups = (int)EC_MIN(GROUPS, ec_div_up(k, group)), whole = groups * group <= k, all = (1 << groups) - 1;
        int plain = whole;
        for (int i = 0; i < mr; i++) {
            const float *row = x + i * ldx;
            b.used[i] = whole ? scales(1, groups, group, row, k, b.scale[i], b.inverse[i])
                              : scales(0, groups, group, row, k, b.scale[i], b.inverse[i]);
            plain &= b.used[i] == all;
        }
        if (plain && mr == 1)
            one_row(&b, groups, group, x, factor, panel);
        else if (plain)
            all_codes(1, mr, &b, groups, group, x, ldx, k, factor, panel);
        else
            all_codes(0, mr, &b, groups, group, x, ldx, k, factor, panel);
    }
}
EC_TARGET_END
#endif
