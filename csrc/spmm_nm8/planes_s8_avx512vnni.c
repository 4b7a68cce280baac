/* int8 over the kept inputs of a block of outputs, AVX-512 VNNI: each pass interleaves the planes again, on a unit that dot products
 * leave free. Reading them from L1 as an earlier pass left them is slower: the sums come and go with every piece of k that fits. */
#include "spmm_nm8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prfchw")

#include "planes_s8_zmm.h"

/* Lane l, byte 4 z + e of a line is row 16 z + 4 l + e: interleaved in fours, row 16 z + 4 l + e is lane l, number e of vector z. */
void ec_planes_s8_pack_avx512vnni(int64_t quads, const uint8_t *panels, int64_t panel, uint8_t *planes)
{
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (int64_t q = 0; q < quads; q++, panels += 32, planes += 256) {
        __m512i v[4], half[4];
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++) {
            const __m256i low = _mm256_loadu_si256((const __m256i *)(panels + 2 * z * panel));
            const __m256i high = _mm256_loadu_si256((const __m256i *)(panels + (2 * z + 1) * panel));
            v[z] = _mm512_shuffle_epi8(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), turn); /* lane: four rows of each input */
        }
#pragma GCC unroll 2
        for (int z = 0; z < 4; z += 2) {
            half[z] = _mm512_unpacklo_epi32(v[z], v[z + 1]);
            half[z + 1] = _mm512_unpackhi_epi32(v[z], v[z + 1]);
        }
        _mm512_storeu_si512(planes, _mm512_unpacklo_epi64(half[0], half[2]));
        _mm512_storeu_si512(planes + 64, _mm512_unpackhi_epi64(half[0], half[2]));
        _mm512_storeu_si512(planes + 128, _mm512_unpacklo_epi64(half[1], half[3]));
        _mm512_storeu_si512(planes + 192, _mm512_unpackhi_epi64(half[1], half[3]));
    }
}

void ec_planes_s8_avx512vnni(const ec_planes_s8 *p)
{
    outputs(0, 6, INTERLEAVED, WEIGHTS, p, 0, p->tile.quads, NULL);
    outputs(6, 5, INTERLEAVED, NOTHING, p, 0, p->tile.quads, NULL);
    outputs(11, 5, INTERLEAVED, OUTPUTS, p, 0, p->tile.quads, NULL);
    finish_rows(p);
}
EC_TARGET_END
#endif
