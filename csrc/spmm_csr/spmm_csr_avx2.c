/* float32 block of a CSR weight, AVX2 + FMA: up to 8 YMM of sums, as an FMA takes four cycles and two begin in each. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

enum { LANES = 8 };
typedef __m256 vec;
EC_INLINE vec vzero(void) { return _mm256_setzero_ps(); }
EC_INLINE vec vload(const float *p) { return _mm256_loadu_ps(p); }
EC_INLINE void vstore(float *p, vec v) { _mm256_storeu_ps(p, v); }
EC_INLINE vec vset1(float v) { return _mm256_set1_ps(v); }
EC_INLINE vec vadd(vec a, vec b) { return _mm256_add_ps(a, b); }
EC_INLINE vec vfma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }

#include "csr_block.h"

void ec_spmm_csr_avx2(int lanes, const ec_csr_block *b)
{
    switch (lanes) {
    case 8: block(1, 4, b); break;
    case 16: block(2, 4, b); break;
    case 32: block(4, 2, b); break;
    case 48: block(6, 1, b); break;
    default: block(8, 1, b);
    }
}
EC_TARGET_END
#endif
