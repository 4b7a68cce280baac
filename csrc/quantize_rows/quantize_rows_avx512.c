/* The row quantiser, AVX-512. Eight rows go together: their extremes share one reduction, their scales are eight lanes,
 * and the packs that narrow the codes also weave the rows into the panel. Other counts go row by row. */
#include "quantize_rows.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

#include "../zmm.h"

/* Smallest and largest value from the bits, with 0 among them: a float's bits grow with its magnitude, so the signed maximum is the
 * largest positive value and the unsigned maximum the most negative one; a NaN passes every Inf. */
EC_INLINE void widen(__m512i *lo, __m512i *hi, __m512i v)
{
    *hi = _mm512_max_epi32(*hi, v);
    *lo = _mm512_max_epu32(*lo, v);
}

/* The maxima of eight vectors' lanes, as eight lanes. */
EC_INLINE __m256i reduce8(const __m512i v[8], __m512i (*max)(__m512i, __m512i))
{
    __m512i pair[4], four[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        pair[i] = max(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        four[i] = max(_mm512_unpacklo_epi64(pair[2 * i], pair[2 * i + 1]), _mm512_unpackhi_epi64(pair[2 * i], pair[2 * i + 1]));
    const __m512i half = max(_mm512_shuffle_i32x4(four[0], four[1], 0x88), _mm512_shuffle_i32x4(four[0], four[1], 0xDD));
    const __m512i whole = max(half, _mm512_shuffle_i32x4(half, half, 0xB1)); /* lanes 0 and 2 */
    return _mm512_castsi512_si256(_mm512_shuffle_i32x4(whole, whole, 0x08));
}
EC_INLINE __m512i max_signed(__m512i a, __m512i b) { return _mm512_max_epi32(a, b); }
EC_INLINE __m512i max_unsigned(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }

/* ec_row_scale_bits for eight rows. */
EC_INLINE __m256 scales8(__m256i lo, __m256i hi, float *scale, int32_t *zero)
{
    const __mmask8 finite = _mm256_cmplt_epu32_mask(lo, _mm256_set1_epi32((int)0xFF800000)) &
                            _mm256_cmplt_epu32_mask(hi, _mm256_set1_epi32(0x7F800000));
    const __m256 l = _mm256_castsi256_ps(lo), h = _mm256_castsi256_ps(hi), one = _mm256_set1_ps(1), c255 = _mm256_set1_ps(255);
    const __m256 s = _mm256_sub_ps(_mm256_div_ps(h, c255), _mm256_div_ps(l, c255));
    const __mmask8 used = _mm256_mask_cmp_ps_mask(finite, s, _mm256_set1_ps(0x1p-126f), _CMP_GE_OQ);
    const __m256 inv = _mm256_maskz_div_ps(used, one, s);
    const __m256i z = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_xor_ps(l, _mm256_set1_ps(-0.0f)), inv));
    const __m256i clipped = _mm256_maskz_min_epi32(used, _mm256_max_epi32(z, _mm256_setzero_si256()), _mm256_set1_epi32(255));
    const __m256 unused = _mm256_mask_mov_ps(_mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)), finite, one);
    _mm256_storeu_ps(scale, _mm256_mask_mov_ps(unused, used, s));
    _mm256_storeu_si256((__m256i *)zero, clipped);
    return inv;
}

EC_INLINE __m512i codes(__m512 x, __m512 inv, __m512i zero) { return _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(x, inv)), zero); }

static void eight_rows(int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    __m512i lo[8], hi[8], z[8];
    __m512 inv[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        hi[i] = _mm512_setzero_si512();
        lo[i] = _mm512_set1_epi32(INT32_MIN); /* the bits of -0 */
    }
    int64_t p = 0;
    for (; p + 16 <= k; p += 16)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            widen(lo + i, hi + i, _mm512_loadu_si512(x + i * ldx + p));
    if (p < k)
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            widen(lo + i, hi + i, _mm512_maskz_loadu_epi32(first_lanes(k - p), x + i * ldx + p));
    float inverse[8];
    _mm256_storeu_ps(inverse, scales8(reduce8(lo, max_unsigned), reduce8(hi, max_signed), scale, zero));
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        inv[i] = _mm512_set1_ps(inverse[i]);
        z[i] = _mm512_set1_epi32(zero[i]);
        __asm__("" : "+v"(inv[i]), "+v"(z[i])); /* else gcc loads and broadcasts them at every use: twice the time */
    }
    const __m512i flips = _mm512_set1_epi8((char)flip);
    const __m512i even = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), odd = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    for (p = 0; p < k; p += 16, panel += 128) {
        __m512i q[8], four[2];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            /* the rows that most likely come next: eight short streams are too many for the hardware's prefetcher */
            _mm_prefetch((const char *)(x + (8 + i) * ldx + p), _MM_HINT_T1);
            q[i] = codes(p + 16 <= k ? _mm512_loadu_ps(x + i * ldx + p) : _mm512_maskz_loadu_ps(first_lanes(k - p), x + i * ldx + p),
                         inv[i], z[i]);
        }
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) /* saturated to 0..255; 128-bit lane l holds quad l of four rows */
            four[h] = _mm512_xor_si512(_mm512_packus_epi16(_mm512_packs_epi32(q[4 * h], q[4 * h + 1]),
                                                           _mm512_packs_epi32(q[4 * h + 2], q[4 * h + 3])), flips);
        _mm512_storeu_si512(panel, _mm512_permutex2var_epi64(four[0], even, four[1]));
        _mm512_storeu_si512(panel + 64, _mm512_permutex2var_epi64(four[0], odd, four[1]));
    }
}

static void one_row(int mr, int i, int64_t k, const float *x, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    __m512i lo[4], hi[4];
    for (int u = 0; u < 4; u++) {
        hi[u] = _mm512_setzero_si512();
        lo[u] = _mm512_set1_epi32(INT32_MIN);
    }
    int64_t p = 0;
    for (; p + 64 <= k; p += 64)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++)
            widen(lo + u, hi + u, _mm512_loadu_si512(x + p + 16 * u));
    for (; p < k; p += 16)
        widen(lo, hi, _mm512_maskz_loadu_epi32(first_lanes(k - p), x + p));
    const __m512i most = max_signed(max_signed(hi[0], hi[1]), max_signed(hi[2], hi[3]));
    const __m512i least = max_unsigned(max_unsigned(lo[0], lo[1]), max_unsigned(lo[2], lo[3]));
    const float inverse = ec_row_scale_bits(_mm512_reduce_max_epu32(least), (uint32_t)_mm512_reduce_max_epi32(most), scale, zero);
    const __m512 inv = _mm512_set1_ps(inverse);
    const __m512i z = _mm512_set1_epi32(*zero);
    const __m128i flips = _mm_set1_epi8((char)flip);
    for (p = 0; p < k; p += 16, panel += 16 * mr) {
        const __m512i q = max_signed(codes(_mm512_maskz_loadu_ps(first_lanes(k - p), x + p), inv, z), _mm512_setzero_si512());
        const __m128i bytes = _mm_xor_si128(_mm512_cvtusepi32_epi8(q), flips);
        uint32_t quad[4];
        _mm_storeu_si128((__m128i *)(mr == 1 ? panel : (uint8_t *)quad), bytes);
        for (int j = 0; j < 4 && mr > 1; j++)
            memcpy(panel + 4 * (mr * j + i), quad + j, 4);
    }
}

void ec_quantize_rows_avx512(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    if (mr == 8)
        eight_rows(k, x, ldx, flip, panel, scale, zero);
    else
        for (int i = 0; i < mr; i++)
            one_row(mr, i, k, x + i * ldx, flip, panel, scale + i, zero + i);
}
EC_TARGET_END
#endif
