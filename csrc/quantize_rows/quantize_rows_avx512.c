/* The row quantiser, AVX-512: 16 floats a step, four rows at a time woven into the panel by the packs themselves. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

EC_INLINE __mmask16 first(int64_t n) { return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1); }

/* Largest and smallest value with 0 among them, from the bits: a float's bits grow with its magnitude, so the signed
 * maximum is the largest positive and the unsigned maximum the most negative one; a NaN passes every Inf. */
EC_INLINE float prepare(const float *x, int64_t k, float *scale, int32_t *zero)
{
    __m512i hi[4], lo[4];
    for (int u = 0; u < 4; u++) {
        hi[u] = _mm512_setzero_si512();
        lo[u] = _mm512_set1_epi32(INT32_MIN); /* the bits of -0 */
    }
    int64_t p = 0;
    for (; p + 64 <= k; p += 64)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            const __m512i v = _mm512_loadu_si512(x + p + 16 * u);
            hi[u] = _mm512_max_epi32(hi[u], v);
            lo[u] = _mm512_max_epu32(lo[u], v);
        }
    for (; p < k; p += 16) {
        const __m512i v = _mm512_maskz_loadu_epi32(first(k - p), x + p);
        hi[0] = _mm512_max_epi32(hi[0], v);
        lo[0] = _mm512_max_epu32(lo[0], v);
    }
    hi[0] = _mm512_max_epi32(_mm512_max_epi32(hi[0], hi[1]), _mm512_max_epi32(hi[2], hi[3]));
    lo[0] = _mm512_max_epu32(_mm512_max_epu32(lo[0], lo[1]), _mm512_max_epu32(lo[2], lo[3]));
    return ec_row_scale_bits(_mm512_reduce_max_epu32(lo[0]), (uint32_t)_mm512_reduce_max_epi32(hi[0]), scale, zero);
}

/* 16 values of one row as int32, before saturation. */
EC_INLINE __m512i codes(const float *x, int64_t left, float inv, int32_t zero)
{
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(first(left), x), _mm512_set1_ps(inv));
    return _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero));
}

/* The packs saturate to 0..255 and leave in 128-bit lane l the bytes of quad l of rows 0 to 3. */
EC_INLINE __m512i four_rows(const float *x, int64_t ldx, int64_t left, const float *inv, const int32_t *zero)
{
    const __m512i a = _mm512_packs_epi32(codes(x, left, inv[0], zero[0]), codes(x + ldx, left, inv[1], zero[1]));
    const __m512i b = _mm512_packs_epi32(codes(x + 2 * ldx, left, inv[2], zero[2]), codes(x + 3 * ldx, left, inv[3], zero[3]));
    return _mm512_packus_epi16(a, b);
}

void ec_quantize_rows_avx512(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    const __m512i flips = _mm512_set1_epi8((char)flip);
    float inv[EC_MAX_ROWS];
    for (int i = 0; i < mr; i++)
        inv[i] = prepare(x + i * ldx, k, scale + i, zero + i);
    for (int64_t p = 0; p < k; p += 16, panel += 16 * mr) {
        const int64_t left = k - p;
        if (mr == 8) { /* two results of four rows, lanes interleaved */
            const __m512i lo = _mm512_xor_si512(four_rows(x + p, ldx, left, inv, zero), flips);
            const __m512i hi = _mm512_xor_si512(four_rows(x + p + 4 * ldx, ldx, left, inv + 4, zero + 4), flips);
            const __m512i even = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), odd = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
            _mm512_storeu_si512(panel, _mm512_permutex2var_epi64(lo, even, hi));
            _mm512_storeu_si512(panel + 64, _mm512_permutex2var_epi64(lo, odd, hi));
            continue;
        }
        int i = 0;
        for (; i + 4 <= mr; i += 4) {
            const __m512i v = _mm512_xor_si512(four_rows(x + p + i * ldx, ldx, left, inv + i, zero + i), flips);
            uint8_t *out = panel + 4 * i;
            _mm_storeu_si128((__m128i *)out, _mm512_castsi512_si128(v));
            _mm_storeu_si128((__m128i *)(out + 4 * mr), _mm512_extracti32x4_epi32(v, 1));
            _mm_storeu_si128((__m128i *)(out + 8 * mr), _mm512_extracti32x4_epi32(v, 2));
            _mm_storeu_si128((__m128i *)(out + 12 * mr), _mm512_extracti32x4_epi32(v, 3));
        }
        for (; i < mr; i++) {
            const __m512i v = _mm512_max_epi32(codes(x + p + i * ldx, left, inv[i], zero[i]), _mm512_setzero_si512());
            const __m128i q = _mm_xor_si128(_mm512_cvtusepi32_epi8(v), _mm512_castsi512_si128(flips));
            if (mr == 1) {
                _mm_storeu_si128((__m128i *)panel, q);
            } else {
                uint32_t quad[4];
                _mm_storeu_si128((__m128i *)quad, q);
                for (int j = 0; j < 4; j++)
                    memcpy(panel + 4 * (mr * j + i), quad + j, 4);
            }
        }
    }
}
EC_TARGET_END
#endif
