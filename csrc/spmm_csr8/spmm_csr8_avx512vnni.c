/* int8 block of a CSR weight, VNNI in AVX-512's encoding; 32 tokens of bytes fill half a ZMM. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

EC_INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }

EC_INLINE __m256i dot(__m256i sum, __m256i w, __m256i x)
{
    __asm__("%{evex%} vpdpbusd %2,%1,%0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

#include "csr8_block_ymm.h"

void ec_spmm_csr8_avx512vnni(int lanes, const ec_csr8_block *b) { any_block(lanes, b); }
EC_TARGET_END
#endif
