/* The group quantiser, AVX-512: 16 floats a step. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

EC_INLINE __m512i load(const float *x, int64_t left)
{
    if (left >= 16)
        return _mm512_loadu_si512(x);
    if (left <= 0) /* x may lie past the array */
        return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi32((__mmask16)((1u << left) - 1), x);
}

void ec_quantize_groups_avx512(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel)
{
    for (int64_t g = 0; g < k; g += group, panel += ec_group_bytes(group, mr))
        for (int i = 0; i < mr; i++) {
            const float *from = x + i * ldx + g;
            const int64_t count = EC_MIN(group, k - g);
            __m512i top = _mm512_setzero_si512(), sums = top; /* by the bits: see quantize_groups_avx2.c */
            for (int64_t p = 0; p < count; p += 16)
                top = _mm512_max_epu32(top, _mm512_and_si512(load(from + p, count - p), _mm512_set1_epi32(0x7FFFFFFF)));
            const uint32_t bits = _mm512_reduce_max_epu32(top);
            float absmax, scale;
            memcpy(&absmax, &bits, 4);
            const float inv = ec_group_scale(absmax, bits < 0x7F800000, &scale);
            const __mmask16 used = inv == 0 ? 0 : 0xFFFF; /* where inv is 0 the products may be NaN: no q then */
            int8_t *to = panel + 4 * i;
            for (int64_t p = 0; p < group; p += 16) {
                const __m512 v = _mm512_castsi512_ps(load(from + p, count - p));
                const __m512i q = _mm512_maskz_cvtps_epi32(used, _mm512_mul_ps(v, _mm512_set1_ps(inv)));
                sums = _mm512_add_epi32(sums, q);
                uint32_t quad[4];
                _mm_storeu_si128((__m128i *)(void *)quad, _mm512_cvtepi32_epi8(q));
                for (int u = 0; u < 4; u++, to += 4 * mr)
                    memcpy(to, quad + u, 4);
            }
            const int32_t sum = _mm512_reduce_add_epi32(sums) * factor;
            memcpy(panel + group * mr + 4 * i, &scale, 4);
            memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4);
        }
}
EC_TARGET_END
#endif
