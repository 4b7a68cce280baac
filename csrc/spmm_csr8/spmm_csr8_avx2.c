/* int8 block of a CSR weight, AVX2: tokens in lanes, two entries at a time. Their activations, 16 bits each, are interleaved, and one
 * instruction multiplies both and adds: 2 * 255 * 127 fits 32 bits. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")

EC_INLINE void block(int vecs, const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const int16_t *value = b->value, *x0 = b->x, *x1 = x0 + b->panel, *x2 = x1 + b->panel, *x3 = x2 + b->panel;
    int32_t *sums = b->sums;
    for (int64_t r = 0; r < b->rows; r++, sums += EC_LANES * vecs) {
        /* Interleaving works within 128 bits: tokens 0-3 and 8-11 of a panel come first, then 4-7 and 12-15. */
        __m256i acc[8];
#pragma GCC unroll 8
        for (int h = 0; h < 2 * vecs; h++)
            acc[h] = _mm256_setzero_si256();
        for (int left = b->count[r]; left > 0; left -= 2, local += 2, value += 2) {
            int pair;
            memcpy(&pair, value, 4);
            const __m256i w = _mm256_set1_epi32(pair);
            const int64_t at = (int64_t)local[0] * EC_LANES, with = (int64_t)local[1] * EC_LANES;
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++) {
                const int16_t *x = v == 0 ? x0 : v == 1 ? x1 : v == 2 ? x2 : x3;
                const __m256i p = _mm256_loadu_si256((const __m256i *)(x + at)), q = _mm256_loadu_si256((const __m256i *)(x + with));
                acc[2 * v] = _mm256_add_epi32(acc[2 * v], _mm256_madd_epi16(_mm256_unpacklo_epi16(p, q), w));
                acc[2 * v + 1] = _mm256_add_epi32(acc[2 * v + 1], _mm256_madd_epi16(_mm256_unpackhi_epi16(p, q), w));
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) {
            __m256i *out = (__m256i *)(sums + EC_LANES * v);
            __m256i lo = _mm256_permute2x128_si256(acc[2 * v], acc[2 * v + 1], 0x20);
            __m256i hi = _mm256_permute2x128_si256(acc[2 * v], acc[2 * v + 1], 0x31);
            if (!b->first) {
                lo = _mm256_add_epi32(lo, _mm256_loadu_si256(out));
                hi = _mm256_add_epi32(hi, _mm256_loadu_si256(out + 1));
            }
            _mm256_storeu_si256(out, lo);
            _mm256_storeu_si256(out + 1, hi);
        }
    }
}

void ec_spmm_csr8_avx2(int vecs, const ec_csr8_block *b)
{
    switch (vecs) {
    case 1: block(1, b); break;
    case 2: block(2, b); break;
    case 3: block(3, b); break;
    default: block(4, b);
    }
}
EC_TARGET_END
#endif
