/* Few rows times grouped weights, AVX2: 32 outputs at a time for one row, 16 for more. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,f16c")

#include "../gemm_s4g/record_ymm.h"

enum { LANES = 8, CHAINS = 1 };
typedef __m256 vec;

EC_INLINE vec set1(float v) { return _mm256_set1_ps(v); }
EC_INLINE vec set1_bits(uint32_t v) { return _mm256_castsi256_ps(_mm256_set1_epi32((int)v)); }
EC_INLINE vec add(vec a, vec b) { return _mm256_add_ps(a, b); }
EC_INLINE vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
EC_INLINE vec fused(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
EC_INLINE vec load(const float *at) { return _mm256_loadu_ps(at); }
EC_INLINE void store(float *to, vec v) { _mm256_storeu_ps(to, v); }
EC_INLINE vec words(const uint8_t *at) { return _mm256_loadu_ps((const float *)(const void *)at); }
EC_INLINE vec shifted(vec v, int down) { return _mm256_castsi256_ps(_mm256_srli_epi32(_mm256_castps_si256(v), down)); }

EC_INLINE vec field(vec v, vec mask, vec magic) { return _mm256_or_ps(_mm256_and_ps(v, mask), magic); }

EC_INLINE vec bytes(const uint8_t *at) { return _mm256_cvtepi32_ps(zeros_at(at)); }

#include "gemv_sg.h"

void ec_gemv_sg_avx2(int mr, const ec_gemv_sg *t)
{
    if (t->bits == 4)
        strips(mr, 4, t);
    else
        strips(mr, 8, t);
}
EC_TARGET_END
#endif
