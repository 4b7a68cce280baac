/* int8 tile with a 256-bit dot product: up to 6 rows x 16 columns, 12 YMM of sums, 15 registers in all. Included by the
 * files of the two encodings, inside their target region, with DOT the instruction. */
#include "gemm_s8c_ymm.h"

/* As inline asm: see gemm_s8c_zmm.h. */
EC_INLINE __m256i dot(__m256i acc, __m256i u8, __m256i s8)
{
    __asm__(DOT " %2, %1, %0" : "+x"(acc) : "x"(u8), "xm"(s8));
    return acc;
}

EC_INLINE void tile(int mr, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    __m256i acc[6][2];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[i][h] = _mm256_mullo_epi32(_mm256_set1_epi32(-t->zero[i]), _mm256_loadu_si256((const __m256i *)(t->wsum + 8 * h)));
    for (int64_t q = t->quads; q > 0; q--, w += 64, x += 4 * mr) {
        const __m256i lo = _mm256_loadu_si256((const __m256i *)w), hi = _mm256_loadu_si256((const __m256i *)(w + 32));
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
            const __m256i a = bcast_quad(x + 4 * i);
            acc[i][0] = dot(acc[i][0], a, lo);
            acc[i][1] = dot(acc[i][1], a, hi);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
        finish(t, i, 0, acc[i][0]);
        finish(t, i, 1, acc[i][1]);
    }
}

/* One row: 4 quads summed separately, so that there are 8 chains. */
EC_INLINE void one_row(const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    __m256i acc[4][2];
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[u][h] = u ? _mm256_setzero_si256()
                          : _mm256_mullo_epi32(_mm256_set1_epi32(-t->zero[0]), _mm256_loadu_si256((const __m256i *)(t->wsum + 8 * h)));
    int64_t q = t->quads;
    for (; q >= 4; q -= 4, w += 256, x += 16)
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            const __m256i a = bcast_quad(x + 4 * u);
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++)
                acc[u][h] = dot(acc[u][h], a, _mm256_loadu_si256((const __m256i *)(w + 64 * u + 32 * h)));
        }
    for (; q > 0; q--, w += 64, x += 4)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++)
            acc[0][h] = dot(acc[0][h], bcast_quad(x), _mm256_loadu_si256((const __m256i *)(w + 32 * h)));
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++)
        finish(t, 0, h, _mm256_add_epi32(_mm256_add_epi32(acc[0][h], acc[1][h]), _mm256_add_epi32(acc[2][h], acc[3][h])));
}

EC_INLINE void any_tile(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    assert(nv == 1);
    (void)nv;
    switch (mr) {
    case 1: one_row(t); break;
    case 2: tile(2, t); break;
    case 3: tile(3, t); break;
    case 4: tile(4, t); break;
    case 5: tile(5, t); break;
    default: tile(6, t);
    }
}
