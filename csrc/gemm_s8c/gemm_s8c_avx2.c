/* int8 tile, AVX2 without a dot product: up to 3 rows x 32 columns, 12 YMM of sums.
 *
 * vpmaddubsw multiplies uint8 by int8 and adds pairs in int16, saturating: with q as it is, 2 * 255 * 127 would not fit.
 * So rows come as x = q - 128 (flip 0x80). |x| <= 128 is the unsigned operand, w with the sign of x the other, and a pair
 * is at most 2 * 128 * 127 = 32512. Exact: four instructions per 32 products, and one vpabsb per row. */
#include "gemm_s8c.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

#include "gemm_s8c_ymm.h"

EC_INLINE void tile(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    __m256i acc[3][4];
#pragma GCC unroll 3
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int h = 0; h < 2 * nv; h++)
            acc[i][h] = _mm256_mullo_epi32(_mm256_set1_epi32(-t->zero[i]), _mm256_loadu_si256((const __m256i *)(t->wsum + 8 * h)));
    for (int64_t q = t->quads; q > 0; q--, w += 64, x += 4 * mr) {
        if (mr > 2 && t->fresh)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++)
                _mm_prefetch((const char *)w + v * t->panel + EC_NEAR_AHEAD, _MM_HINT_T0);
#pragma GCC unroll 3
        for (int i = 0; i < mr; i++) {
            const __m256i signed_x = bcast_quad(x + 4 * i), size_x = _mm256_abs_epi8(signed_x);
#pragma GCC unroll 4
            for (int h = 0; h < 2 * nv; h++) {
                const __m256i b = _mm256_loadu_si256((const __m256i *)(w + h / 2 * t->panel + h % 2 * 32));
                const __m256i pairs = _mm256_maddubs_epi16(size_x, _mm256_sign_epi8(b, signed_x));
                acc[i][h] = _mm256_add_epi32(acc[i][h], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
#pragma GCC unroll 3
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int h = 0; h < 2 * nv; h++)
            finish(t, i, h, acc[i][h]);
}

void ec_gemm_s8c_tile_avx2(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    switch (2 * mr + nv) {
    case 3: tile(1, 1, t); break;
    case 4: tile(1, 2, t); break;
    case 5: tile(2, 1, t); break;
    case 6: tile(2, 2, t); break;
    case 7: tile(3, 1, t); break;
    default: tile(3, 2, t);
    }
}
EC_TARGET_END
#endif
