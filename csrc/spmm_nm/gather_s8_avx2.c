/* Gathers kept inputs from an int8 activation panel, AVX2. A quad of the panel has four inputs of each row side by side: a shuffle takes
 * one of the four of every row to its byte of the new quad, and leaves zeros in the other bytes. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2")

/* [byte it comes from][byte it goes to]. */
#define ROW(a, b, c, d) {a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12}
#define TO(f) {ROW(f, Z, Z, Z), ROW(Z, f, Z, Z), ROW(Z, Z, f, Z), ROW(Z, Z, Z, f)}
enum { Z = -128 };
static const int8_t TAKE[4][4][16] __attribute__((aligned(64))) = {TO(0), TO(1), TO(2), TO(3)};

EC_INLINE __m128i four(const uint8_t *x, int32_t input, int64_t row, int to)
{
    const __m128i quad = _mm_loadu_si128((const __m128i *)(x + (int64_t)(input >> 2) * row));
    return _mm_shuffle_epi8(quad, _mm_load_si128((const __m128i *)TAKE[input & 3][to]));
}

EC_INLINE __m256i eight(const uint8_t *x, int32_t input, int64_t row, int to)
{
    const __m256i quad = _mm256_loadu_si256((const __m256i *)(x + (int64_t)(input >> 2) * row));
    return _mm256_shuffle_epi8(quad, _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)TAKE[input & 3][to])));
}

/* Two inputs of one quad at once: [the one][the other], to bytes 0 and 1 or 2 and 3. */
#define LOW(f) {ROW(f, 0, Z, Z), ROW(f, 1, Z, Z), ROW(f, 2, Z, Z), ROW(f, 3, Z, Z)}
#define HIGH(f) {ROW(Z, Z, f, 0), ROW(Z, Z, f, 1), ROW(Z, Z, f, 2), ROW(Z, Z, f, 3)}
static const int8_t PAIR[2][4][4][16] __attribute__((aligned(64))) = {{LOW(0), LOW(1), LOW(2), LOW(3)},
                                                                      {HIGH(0), HIGH(1), HIGH(2), HIGH(3)}};

EC_INLINE __m128i pair(const uint8_t *x, const int32_t *input, int64_t row, int high)
{
    const __m128i quad = _mm_loadu_si128((const __m128i *)(x + (int64_t)(input[0] >> 2) * row));
    return _mm_shuffle_epi8(quad, _mm_load_si128((const __m128i *)PAIR[high][input[0] & 3][input[1] & 3]));
}

EC_INLINE void gather_pairs(int mr, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out)
{
    for (; quads > 0; quads--, input += 4, out += 4 * mr)
        _mm_storeu_si128((__m128i *)out, _mm_or_si128(pair(x, input, 4 * mr, 0), pair(x, input + 2, 4 * mr, 1)));
}

EC_INLINE void gather(int mr, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out)
{
    const int64_t row = 4 * mr;
    if (mr <= 4)
        for (; quads > 0; quads--, input += 4, out += row) {
            const __m128i a = _mm_or_si128(four(x, input[0], row, 0), four(x, input[1], row, 1));
            const __m128i b = _mm_or_si128(four(x, input[2], row, 2), four(x, input[3], row, 3));
            _mm_storeu_si128((__m128i *)out, _mm_or_si128(a, b));
        }
    else
        for (; quads > 0; quads--, input += 4, out += row) {
            const __m256i a = _mm256_or_si256(eight(x, input[0], row, 0), eight(x, input[1], row, 1));
            const __m256i b = _mm256_or_si256(eight(x, input[2], row, 2), eight(x, input[3], row, 3));
            _mm256_storeu_si256((__m256i *)out, _mm256_or_si256(a, b));
        }
}

/* AVX2's tiles have up to three rows, AVX-512's eight: with mr a constant, its products are part of addresses. */
void ec_gather_s8_avx2(int mr, int paired, int64_t quads, const uint8_t *x, const int32_t *input, uint8_t *out)
{
    if (paired && mr <= 3) {
        switch (mr) {
        case 1: gather_pairs(1, quads, x, input, out); break;
        case 2: gather_pairs(2, quads, x, input, out); break;
        default: gather_pairs(3, quads, x, input, out);
        }
        return;
    }
    switch (mr) {
    case 1: gather(1, quads, x, input, out); break;
    case 2: gather(2, quads, x, input, out); break;
    case 3: gather(3, quads, x, input, out); break;
    case 8: gather(8, quads, x, input, out); break;
    default: gather(mr, quads, x, input, out);
    }
}
EC_TARGET_END
#endif
