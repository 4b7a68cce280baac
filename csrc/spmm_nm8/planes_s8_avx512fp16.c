/* int8 over the kept inputs of a block of outputs, for CPUs where unpacking takes the dot products' unit (Intel's, told by AVX512-FP16,
 * of which no instruction is used): the planes are interleaved once for 16 outputs, where doing it again in each pass would cost a
 * third. */
#include "spmm_nm8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prfchw")

#include "planes_s8_zmm.h"

enum { BLOCK = 64 }; /* quads of x that stay in L1: 16 KB */

void ec_planes_s8_avx512fp16(const ec_planes_s8 *p)
{
    uint8_t turned[BLOCK * 4 * 64] __attribute__((aligned(64)));
    for (int64_t quad = 0; quad == 0 || quad < p->tile.quads; quad += BLOCK) {
        const int64_t quads = EC_MIN(p->tile.quads - quad, BLOCK);
        outputs(0, 6, KEPT, WEIGHTS, p, quad, quads, turned);
        outputs(6, 5, TURNED, NOTHING, p, quad, quads, turned);
        outputs(11, 5, TURNED, OUTPUTS, p, quad, quads, turned);
    }
    finish_rows(p);
}
EC_TARGET_END
#endif
