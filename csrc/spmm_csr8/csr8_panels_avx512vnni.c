/* A panel of int8 weights from a bit for each and the codes that are there, AVX-512 VBMI2. */
#include "spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512vbmi2,popcnt")

/* Three operations of one port for 64 weights: the mask into a register, and the permutation. */
void ec_csr8_panels_avx512vnni(int64_t quads, const uint64_t *mask, const int8_t *code, int8_t *to)
{
    for (int64_t q = 0; q < quads; q++, to += 64) {
        _mm512_storeu_si512(to, _mm512_maskz_expand_epi8(_cvtu64_mask64(mask[q]), _mm512_loadu_si512(code)));
        code += _mm_popcnt_u64(mask[q]);
    }
}
EC_TARGET_END
#endif
