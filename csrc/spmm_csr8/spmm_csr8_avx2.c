/* int8 block of a CSR weight, AVX2: tokens in lanes, four entries at a time. Their activations are interleaved, multiplied by the entries'
 * absolute values and added in pairs, 2 * 127 * 128 fits 16 bits, then in fours. */
#include "spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")

EC_INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }

EC_INLINE __m256i dot(__m256i sum, __m256i w, __m256i x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

#include "csr8_block_ymm.h"

void ec_spmm_csr8_avx2(int lanes, const ec_csr8_block *b) { any_block(lanes, b); }

/* Four quads of 4 x 4 (lanes 16) or 8 x 4 bytes: bytes of one input together, then the four panels' dwords of one input. */
void ec_pack_csr8_avx2(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x)
{
    const __m256i turn = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i ones = _mm256_set1_epi8(-1);
    for (int64_t i = 0; i < quads; i++, q += lanes, x += 8 * lanes) {
        __m256i a[4];
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++) {
            const uint8_t *p = q + t * panel;
            a[t] = _mm256_shuffle_epi8(lanes == 16 ? _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)) : load(p), turn);
        }
        const __m256i lo = _mm256_unpacklo_epi32(a[0], a[1]), lo2 = _mm256_unpacklo_epi32(a[2], a[3]);
        const __m256i hi = _mm256_unpackhi_epi32(a[0], a[1]), hi2 = _mm256_unpackhi_epi32(a[2], a[3]);
        const __m256i c[4] = {_mm256_unpacklo_epi64(lo, lo2), _mm256_unpackhi_epi64(lo, lo2), _mm256_unpacklo_epi64(hi, hi2),
                              _mm256_unpackhi_epi64(hi, hi2)};
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++) {
            int8_t *out = x + 2 * lanes * t;
            if (lanes == 16) {
                _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(c[t]));
                _mm_storeu_si128((__m128i *)(out + 16), _mm256_castsi256_si128(_mm256_xor_si256(c[t], ones)));
            } else {
                _mm256_storeu_si256((__m256i *)out, c[t]);
                _mm256_storeu_si256((__m256i *)(out + 32), _mm256_xor_si256(c[t], ones));
            }
        }
    }
}
EC_TARGET_END
#endif
