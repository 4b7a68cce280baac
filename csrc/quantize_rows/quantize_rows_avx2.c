/* The row quantiser, AVX2: 8 floats a step, four rows at a time woven into the panel by the packs themselves. */
#include "quantize_rows.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

#include "../ymm.h"

EC_INLINE __m256i load(const float *x, int64_t left)
{
    if (left >= 8)
        return _mm256_loadu_si256((const __m256i *)x);
    return _mm256_maskload_epi32((const int *)x, first_lanes((int)(left < 0 ? 0 : left)));
}

/* Largest and smallest value from the bits: see quantize_rows_avx512.c. */
EC_INLINE float prepare(const float *x, int64_t k, float *scale, int32_t *zero)
{
    __m256i hi[4], lo[4];
    for (int u = 0; u < 4; u++) {
        hi[u] = _mm256_setzero_si256();
        lo[u] = _mm256_set1_epi32(INT32_MIN);
    }
    int64_t p = 0;
    for (; p + 32 <= k; p += 32)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            const __m256i v = _mm256_loadu_si256((const __m256i *)(x + p + 8 * u));
            hi[u] = _mm256_max_epi32(hi[u], v);
            lo[u] = _mm256_max_epu32(lo[u], v);
        }
    for (; p < k; p += 8) {
        const __m256i v = load(x + p, k - p);
        hi[0] = _mm256_max_epi32(hi[0], v);
        lo[0] = _mm256_max_epu32(lo[0], v);
    }
    int32_t his[8];
    uint32_t los[8];
    _mm256_storeu_si256((__m256i *)his, _mm256_max_epi32(_mm256_max_epi32(hi[0], hi[1]), _mm256_max_epi32(hi[2], hi[3])));
    _mm256_storeu_si256((__m256i *)los, _mm256_max_epu32(_mm256_max_epu32(lo[0], lo[1]), _mm256_max_epu32(lo[2], lo[3])));
    for (int i = 1; i < 8; i++) {
        his[0] = his[i] > his[0] ? his[i] : his[0];
        los[0] = los[i] > los[0] ? los[i] : los[0];
    }
    return ec_row_scale_bits(los[0], (uint32_t)his[0], scale, zero);
}

EC_INLINE __m256i codes(const float *x, int64_t left, float inv, int32_t zero)
{
    const __m256 v = _mm256_mul_ps(_mm256_castsi256_ps(load(x, left)), _mm256_set1_ps(inv));
    return _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(zero));
}

void ec_quantize_rows_avx2(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    const __m256i flips = _mm256_set1_epi8((char)flip);
    float inv[EC_MAX_ROWS];
    for (int i = 0; i < mr; i++)
        inv[i] = prepare(x + i * ldx, k, scale + i, zero + i);
    for (int64_t p = 0; p < ec_div_up(k, 16) * 16; p += 8, panel += 8 * mr) {
        const int64_t left = k - p;
        for (int i = 0; i < mr; i += 4) { /* fewer than four rows left: the last one stands in for the missing */
            __m256i row[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                const int s = EC_MIN(i + r, mr - 1);
                row[r] = codes(x + s * ldx + p, left, inv[s], zero[s]);
            }
            const __m256i v =
                _mm256_xor_si256(_mm256_packus_epi16(_mm256_packs_epi32(row[0], row[1]), _mm256_packs_epi32(row[2], row[3])), flips);
            const size_t bytes = 4 * (size_t)EC_MIN(mr - i, 4);
            uint8_t quad[2][16]; /* lane l: quad l of four rows */
            _mm256_storeu_si256((__m256i *)quad, v);
            memcpy(panel + 4 * i, quad[0], bytes);
            memcpy(panel + 4 * (mr + i), quad[1], bytes);
        }
    }
}
EC_TARGET_END
#endif
