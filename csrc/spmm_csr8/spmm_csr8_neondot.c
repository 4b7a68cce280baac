/* int8 block of a CSR weight, NEON with sdot. */
#include "spmm_csr8.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("dotprod")

/* As inline asm: before clang 16 the intrinsic exists with -march only. */
EC_INLINE int32x4_t dot(int32x4_t sum, int8x16_t w, int8x16_t x)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(w), "w"(x));
    return sum;
}

#include "csr8_block_neon.h"

void ec_spmm_csr8_neondot(int lanes, const ec_csr8_block *b) { any_block(lanes, b); }
EC_TARGET_END
#endif
