/* float32 block of a CSR weight, NEON: up to 16 registers of sums. */
#include "spmm_csr.h"
#ifdef EC_ARM64
#include <arm_neon.h>

enum { LANES = 4 };
typedef float32x4_t vec;
EC_INLINE vec vzero(void) { return vdupq_n_f32(0); }
EC_INLINE vec vload(const float *p) { return vld1q_f32(p); }
EC_INLINE void vstore(float *p, vec v) { vst1q_f32(p, v); }
EC_INLINE vec vset1(float v) { return vdupq_n_f32(v); }
EC_INLINE vec vadd(vec a, vec b) { return vaddq_f32(a, b); }
EC_INLINE vec vfma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }

#include "csr_block.h"

void ec_spmm_csr_neon(int lanes, const ec_csr_block *b)
{
    switch (lanes) {
    case 8: block(2, 4, b); break;
    case 16: block(4, 4, b); break;
    case 32: block(8, 2, b); break;
    case 48: block(12, 1, b); break;
    default: block(16, 1, b);
    }
}
#endif
