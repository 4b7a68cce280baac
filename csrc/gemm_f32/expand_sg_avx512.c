/* Grouped weights to float32 panels, AVX-512: 16 columns x 4 k a step, scales and zeros loaded once per group. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

#include "../gemm_s4g/record_zmm.h"

void ec_expand_sg_avx512(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out)
{
    const int64_t record = (int64_t)ec_record_bytes(w, bits);
    const uint8_t *strip = (const uint8_t *)w->records + col0 / EC_STRIP * groups * record;
    const int column = (int)(col0 % EC_STRIP), header = ec_header_bytes(w), has_offset = w->zero == EC_ZERO_OFFSET;
    for (int64_t p = k0; p < k0 + k;) {
        const uint8_t *r = strip + p / w->group * record;
        const int64_t end = EC_MIN(k0 + k, (p / w->group + 1) * w->group);
        const __m512 scale = floats_at(r + w->scale_bytes * column, w->scale_bytes);
        const __m512 offset = has_offset ? floats_at(r + w->scale_bytes * (EC_STRIP + column), w->scale_bytes) : _mm512_setzero_ps();
        __m512i zero = _mm512_set1_epi32(1 << (bits - 1));
        if (w->zero == EC_ZERO_POINT)
            zero = zeros_at(ec_record_zeros(r, w->scale_bytes) + column);
        for (; p < end; p += 4) {
            const int64_t quad = p % w->group / 4;
            __m512i v = _mm512_loadu_si512(r + header + ((bits == 8 ? quad : quad / 2) * EC_STRIP + column) * 4);
            if (bits == 4)
                v = _mm512_and_si512(quad & 1 ? _mm512_srli_epi16(v, 4) : v, _mm512_set1_epi8(15));
            for (int64_t i = 0; i < EC_MIN(4, end - p); i++, out += EC_PANEL) {
                const __m512i code = _mm512_and_si512(v, _mm512_set1_epi32(255));
                const __m512 f = has_offset ? _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scale, offset)
                                            : _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(code, zero)), scale);
                _mm512_storeu_ps(out, f);
                v = _mm512_srli_epi32(v, 8);
            }
        }
        p = end;
    }
}
EC_TARGET_END
#endif
