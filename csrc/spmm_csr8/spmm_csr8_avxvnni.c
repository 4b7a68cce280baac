/* int8 block of a CSR weight, AVX-VNNI (VEX): client CPUs without AVX-512. */
#include "spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,avxvnni")

EC_INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }

EC_INLINE __m256i dot(__m256i sum, __m256i w, __m256i x)
{
    __asm__("%{vex%} vpdpbusd %2,%1,%0" : "+x"(sum) : "x"(w), "x"(x));
    return sum;
}

#include "csr8_block_ymm.h"

void ec_spmm_csr8_avxvnni(int lanes, const ec_csr8_block *b) { any_block(lanes, b); }
EC_TARGET_END
#endif
