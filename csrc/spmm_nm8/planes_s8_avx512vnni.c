/* int8 over the kept inputs of a block of outputs, AVX-512 VNNI: 64 rows in lanes.
 *
 * An input's plane is a byte of each row. Interleaving the planes of four kept inputs gives the quads of 64 rows, 4 ZMM, for as many outputs as
 * there are registers for: 6 times 4 sums. The others read them as they are interleaved then: where unpacking takes the dot products'
 * pipe (Intel), it costs a third. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prfchw")

#include "../gemm_s8c/gemm_s8c_zmm.h"

enum {
    NEAR = 8,  /* quads to prefetch ahead: planes lie in L2 */
    BLOCK = 64 /* quads of x that stay in L1, interleaved once for 16 outputs: 16 KB */
};

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

EC_INLINE __m512i line(const uint8_t *planes, int32_t input) { return _mm512_loadu_si512(planes + (int64_t)input * EC_PLANE); }

/* Outputs from `first` on times `quads` quads. The first ones interleave the planes, and leave the quads of x for those after them. */
EC_INLINE void outputs(int count, int interleave, const ec_planes_s8 *p, int64_t quad, int64_t quads, int first, uint8_t *turned)
{
    const int32_t *at = p->input + 4 * quad;
    const int8_t *w = p->tile.w + 64 * quad + 4 * first;
    const uint8_t *planes = p->planes;
    int32_t *sums = p->sums + EC_PLANE * first;
    __m512i acc[6][4];
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        const __m512i zero = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(p->tile.zero + 16 * z));
#pragma GCC unroll 6
        for (int r = 0; r < count; r++)
            acc[r][z] = quad == 0 ? _mm512_mullo_epi32(zero, _mm512_set1_epi32(p->tile.wsum[first + r])) : _mm512_load_si512(sums + EC_PLANE * r + 16 * z);
    }
    for (; quads > 0; quads--, at += 4, w += 64, turned += 4 * 64) {
        __m512i x[4];
        if (interleave) {
            const __m512i a = line(planes, at[0]), b = line(planes, at[1]), c = line(planes, at[2]), d = line(planes, at[3]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                _mm_prefetch((const char *)planes + (int64_t)at[4 * NEAR + i] * EC_PLANE, _MM_HINT_T0);
            _mm_prefetch((const char *)w + 64 * p->tile.quads, _MM_HINT_T1); /* the next panel's */
            const __m512i ab = _mm512_unpacklo_epi8(a, b), ab2 = _mm512_unpackhi_epi8(a, b);
            const __m512i cd = _mm512_unpacklo_epi8(c, d), cd2 = _mm512_unpackhi_epi8(c, d);
            x[0] = _mm512_unpacklo_epi16(ab, cd);
            x[1] = _mm512_unpackhi_epi16(ab, cd);
            x[2] = _mm512_unpacklo_epi16(ab2, cd2);
            x[3] = _mm512_unpackhi_epi16(ab2, cd2);
        }
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++)
            if (interleave)
                _mm512_store_si512(turned + 64 * z, x[z]);
            else
                x[z] = _mm512_load_si512(turned + 64 * z);
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            int32_t four;
            memcpy(&four, w + 4 * r, 4);
            const __m512i weights = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int z = 0; z < 4; z++)
                acc[r][z] = dot(acc[r][z], x[z], weights);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < count; r++)
#pragma GCC unroll 4
        for (int z = 0; z < 4; z++)
            _mm512_store_si512(sums + EC_PLANE * r + 16 * z, acc[r][z]);
}

/* Turns sums[16][16], 64 apart, so that v[i] is those of row i. */
EC_INLINE void turn_sums(const int32_t *sums, __m512i v[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        a[i] = _mm512_load_si512(sums + 64 * i);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            a[i + 2 * h] = _mm512_unpacklo_epi64(b[i + h], b[i + 2 + h]);
            a[i + 2 * h + 1] = _mm512_unpackhi_epi64(b[i + h], b[i + 2 + h]);
        }
    /* a[4 g + j], lane l: outputs 4 g .. 4 g + 3 of row 4 l + j */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i low = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44), low2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44);
        const __m512i high = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xEE), high2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xEE);
        v[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
        v[4 + j] = _mm512_shuffle_i32x4(low, low2, 0xDD);
        v[8 + j] = _mm512_shuffle_i32x4(high, high2, 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(high, high2, 0xDD);
    }
}

void ec_planes_s8_avx512vnni(const ec_planes_s8 *p)
{
    uint8_t turned[BLOCK * 4 * 64] __attribute__((aligned(64)));
    for (int64_t quad = 0; quad == 0 || quad < p->tile.quads; quad += BLOCK) {
        const int64_t quads = EC_MIN(p->tile.quads - quad, BLOCK);
        outputs(6, 1, p, quad, quads, 0, turned);
        outputs(5, 0, p, quad, quads, 6, turned);
        outputs(5, 0, p, quad, quads, 11, turned);
    }
    for (int64_t row = 0; row < p->rows; row += 16) {
        __m512i v[16];
        turn_sums(p->sums + row, v);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (row + i < p->rows)
                finish(&p->tile, row + i, 0, v[i]);
    }
}
EC_TARGET_END
#endif
