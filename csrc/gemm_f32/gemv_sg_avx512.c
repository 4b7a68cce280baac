/* Few rows times grouped weights, AVX-512: 32 outputs at a time. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum { LANES = 16 };
typedef __m512 vec;

EC_INLINE vec set1(float v) { return _mm512_set1_ps(v); }
EC_INLINE vec set1_bits(uint32_t v) { return _mm512_castsi512_ps(_mm512_set1_epi32((int)v)); }
EC_INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
EC_INLINE vec fused(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
EC_INLINE vec load(const float *at) { return _mm512_loadu_ps(at); }
EC_INLINE void store(float *to, vec v) { _mm512_storeu_ps(to, v); }
EC_INLINE vec words(const uint8_t *at) { return _mm512_loadu_ps((const float *)(const void *)at); }
EC_INLINE vec shifted(vec v, int down) { return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_castps_si512(v), (unsigned)down)); }

EC_INLINE vec field(vec v, vec mask, vec magic)
{
    const __m512i a = _mm512_castps_si512(v), b = _mm512_castps_si512(mask), c = _mm512_castps_si512(magic);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(a, b, c, 0xEA)); /* a & b | c */
}

EC_INLINE vec bytes(const uint8_t *at)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at)));
}

EC_INLINE vec floats(const uint8_t *record, int scale_bytes, int which, int h)
{
    const uint8_t *at = record + scale_bytes * (EC_STRIP * which + LANES * h);
    return scale_bytes == 2 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)) : words(at);
}

#include "gemv_sg.h"

void ec_gemv_sg_avx512(int mr, const ec_gemv_sg *t)
{
    if (t->bits == 4)
        strips(mr, 4, t);
    else
        strips(mr, 8, t);
}
EC_TARGET_END
#endif
