/* The group quantiser, AVX2: 16 floats a step. */
#include "quantize_groups.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

#include "../ymm.h"

EC_INLINE __m256i load(const float *x, int64_t left)
{
    if (left >= 8)
        return _mm256_loadu_si256((const __m256i *)(const void *)x);
    if (left <= 0) /* x may lie past the array: nothing is to be read there, whatever the mask */
        return _mm256_setzero_si256();
    return _mm256_maskload_epi32((const int *)(const void *)x, first_lanes((int)left));
}

/* A float's bits grow with its magnitude, and Inf and NaN are the bits from 0x7F800000 on. */
EC_INLINE uint32_t largest(__m256i v)
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

void ec_quantize_groups_avx2(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF), in_order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
    for (int64_t g = 0; g < k; g += group, panel += ec_group_bytes(group, mr))
        for (int i = 0; i < mr; i++) {
            const float *from = x + i * ldx + g;
            const int64_t count = EC_MIN(group, k - g);
            __m256i top[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, sums = _mm256_setzero_si256();
            for (int64_t p = 0; p < count; p += 16) {
                top[0] = _mm256_max_epu32(top[0], _mm256_and_si256(load(from + p, count - p), magnitude));
                top[1] = _mm256_max_epu32(top[1], _mm256_and_si256(load(from + p + 8, count - p - 8), magnitude));
            }
            const uint32_t bits = largest(_mm256_max_epu32(top[0], top[1]));
            float absmax, scale;
            memcpy(&absmax, &bits, 4);
            const __m256 inv = _mm256_set1_ps(ec_group_scale(absmax, bits < 0x7F800000, &scale));
            int8_t *to = panel + 4 * i;
            for (int64_t p = 0; p < group; p += 16) {
                __m256i v[2];
                for (int u = 0; u < 2; u++) {
                    const __m256 a = _mm256_castsi256_ps(load(from + p + 8 * u, count - p - 8 * u));
                    /* where inv is 0 the products may be NaN: no q then */
                    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(a, inv));
                    v[u] = _mm256_andnot_si256(_mm256_castps_si256(_mm256_cmp_ps(inv, _mm256_setzero_ps(), _CMP_EQ_OQ)), q);
                }
                sums = _mm256_add_epi32(sums, _mm256_add_epi32(v[0], v[1]));
                const __m256i words = _mm256_packs_epi32(v[0], v[1]);
                const __m256i bytes = _mm256_packs_epi16(words, words); /* quads 0 2 0 2 | 1 3 1 3 */
                uint32_t quad[4];
                _mm_storeu_si128((__m128i *)(void *)quad, _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(bytes, in_order)));
                for (int u = 0; u < 4; u++, to += 4 * mr)
                    memcpy(to, quad + u, 4);
            }
            int32_t parts[8], sum = 0;
            _mm256_storeu_si256((__m256i *)(void *)parts, sums);
            for (int u = 0; u < 8; u++)
                sum += parts[u];
            sum *= factor;
            memcpy(panel + group * mr + 4 * i, &scale, 4);
            memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4);
        }
}
EC_TARGET_END
#endif
