/* int8 over the kept inputs of a block of outputs, 64 rows in lanes: what the 512-bit variants share. Included inside their target
 * region.
 *
 * A plane is a byte of each row for one input. Interleaving the planes of four kept inputs gives the quads of 64 rows, 4 ZMM, for as
 * many outputs as there are registers for: 6, of 4 sums each. */
#include "../gemm_s8c/gemm_s8c_zmm.h"
#include "../spmm_csr/turn_zmm.h"

enum { NEAR = 4 }; /* quads to prefetch ahead: planes lie in L2 */

/* Where a pass over the quads takes x from: interleaved by itself; so, and stored for the other passes; or as stored by one of these. */
enum source { INTERLEAVED, KEPT, TURNED };

/* What a pass prefetches, a line with each quad: weights of the next panel, or, shortly before the end, rows of y. */
enum ahead { NOTHING, WEIGHTS, OUTPUTS };

EC_INLINE __m512i line(const uint8_t *planes, int32_t input) { return _mm512_loadu_si512(planes + (int64_t)input * EC_PLANE); }

/* `count` outputs from `first` on times `quads` quads from `quad` on. turned: [quads][4][64], not used by INTERLEAVED. */
EC_INLINE void outputs(int first, int count, enum source source, enum ahead ahead, const ec_planes_s8 *p, int64_t quad, int64_t quads,
                       uint8_t *turned)
{
    const int32_t *at = p->input + 4 * quad;
    const int8_t *w = p->tile.w + 64 * quad + 4 * first;
    const uint8_t *planes = p->planes;
    const float *y = p->tile.y;
    int32_t *sums = p->sums + EC_PLANE * first;
    __m512i acc[6][4];
#pragma GCC unroll 4
    for (int z = 0; z < 4; z++) {
        const __m512i zero = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(p->tile.zero + 16 * z));
#pragma GCC unroll 6
        for (int r = 0; r < count; r++)
            acc[r][z] = quad == 0 ? _mm512_mullo_epi32(zero, _mm512_set1_epi32(p->tile.wsum[first + r]))
                                  : _mm512_load_si512(sums + EC_PLANE * r + 16 * z);
    }
    for (int64_t left = p->tile.quads - quad, end = left - quads; left > end; left--, at += 4, w += 64) {
        __m512i x[4];
        if (source != TURNED) {
            const __m512i a = line(planes, at[0]), b = line(planes, at[1]), c = line(planes, at[2]), d = line(planes, at[3]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                _mm_prefetch((const char *)planes + (int64_t)at[4 * NEAR + i] * EC_PLANE, _MM_HINT_T0);
            const __m512i ab = _mm512_unpacklo_epi8(a, b), ab2 = _mm512_unpackhi_epi8(a, b);
            const __m512i cd = _mm512_unpacklo_epi8(c, d), cd2 = _mm512_unpackhi_epi8(c, d);
            x[0] = _mm512_unpacklo_epi16(ab, cd);
            x[1] = _mm512_unpackhi_epi16(ab, cd);
            x[2] = _mm512_unpacklo_epi16(ab2, cd2);
            x[3] = _mm512_unpackhi_epi16(ab2, cd2);
        }
        if (source != INTERLEAVED) {
#pragma GCC unroll 4
            for (int z = 0; z < 4; z++)
                if (source == KEPT)
                    _mm512_store_si512(turned + 64 * z, x[z]);
                else
                    x[z] = _mm512_load_si512(turned + 64 * z);
            turned += 4 * 64;
        }
        if (ahead == WEIGHTS)
            _mm_prefetch((const char *)w + 64 * p->tile.quads, _MM_HINT_T1);
        if (ahead == OUTPUTS && left <= p->rows) {
            __builtin_prefetch(y, 1);
            y += p->tile.ldy;
        }
#pragma GCC unroll 6
        for (int r = 0; r < count; r++) {
            const __m512i weights = bcast_quad(w + 4 * r);
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

EC_INLINE void finish_rows(const ec_planes_s8 *p)
{
    const columns c = columns_of(&p->tile, 0);
    const float *sx = p->tile.sx;
    float *y = p->tile.y;
    const int64_t ldy = p->tile.ldy;
    for (int64_t row = 0, rows = p->rows; row < rows; row += 16, sx += 16) {
        __m512 v[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            v[i] = _mm512_castsi512_ps(_mm512_load_si512(p->sums + EC_PLANE * i + row));
        turn(v);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (row + i < rows) {
                finish(c, _mm512_castps_si512(v[i]), sx[i], y);
                y += ldy;
            }
    }
}
