/* Grouped weights to float32 panels, AVX2: 8 columns x 4 k a step, scales and zeros loaded once per group. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,f16c")

#include "../gemm_s4g/record_ymm.h"

void ec_expand_sg_avx2(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out)
{
    const int64_t record = (int64_t)ec_record_bytes(w, bits);
    const uint8_t *strip = (const uint8_t *)w->records + col0 / EC_STRIP * groups * record;
    const int column = (int)(col0 % EC_STRIP), header = ec_header_bytes(w), has_offset = w->zero == EC_ZERO_OFFSET;
    for (int64_t p = k0; p < k0 + k;) {
        const uint8_t *r = strip + p / w->group * record;
        const int64_t begin = p, end = EC_MIN(k0 + k, (p / w->group + 1) * w->group);
        for (int h = 0; h < 2; h++) {
            const int c0 = column + 8 * h;
            const __m256 scale = floats_at(r + w->scale_bytes * c0, w->scale_bytes);
            const __m256 offset = has_offset ? floats_at(r + w->scale_bytes * (EC_STRIP + c0), w->scale_bytes) : _mm256_setzero_ps();
            __m256i zero = _mm256_set1_epi32(1 << (bits - 1));
            if (w->zero == EC_ZERO_POINT)
                zero = zeros_at(ec_record_zeros(r, w->scale_bytes) + c0);
            for (p = begin; p < end; p += 4) {
                const int64_t quad = p % w->group / 4;
                const uint8_t *at = r + header + ((bits == 8 ? quad : quad / 2) * EC_STRIP + c0) * 4;
                __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)at);
                if (bits == 4)
                    v = _mm256_and_si256(quad & 1 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
                for (int64_t i = 0; i < EC_MIN(4, end - p); i++) {
                    const __m256i code = _mm256_and_si256(_mm256_srlv_epi32(v, _mm256_set1_epi32((int)(8 * i))), _mm256_set1_epi32(255));
                    const __m256 f = has_offset ? _mm256_fmadd_ps(_mm256_cvtepi32_ps(code), scale, offset)
                                                : _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero)), scale);
                    _mm256_storeu_ps(out + (p - k0 + i) * EC_PANEL + 8 * h, f);
                }
            }
        }
        p = end;
    }
}
EC_TARGET_END
#endif
