/* float32 block of a CSR weight, AVX-512: up to 4 ZMM of sums, in two or four sets that take entries in turn. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum { LANES = 16 };
typedef __m512 vec;
EC_INLINE vec vzero(void) { return _mm512_setzero_ps(); }
EC_INLINE vec vload(const float *p) { return _mm512_loadu_ps(p); }
EC_INLINE void vstore(float *p, vec v) { _mm512_storeu_ps(p, v); }
EC_INLINE vec vset1(float v) { return _mm512_set1_ps(v); }
EC_INLINE vec vadd(vec a, vec b) { return _mm512_add_ps(a, b); }
EC_INLINE vec vfma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }

#include "csr_block.h"

void ec_spmm_csr_avx512(int lanes, const ec_csr_block *b)
{
    switch (lanes) {
    case 8: ec_spmm_csr_avx2(lanes, b); break; /* half a register */
    case 16: block(1, 4, b); break;
    case 32: block(2, 4, b); break;
    case 48: block(3, 2, b); break;
    default: block(4, 2, b);
    }
}
EC_TARGET_END
#endif
