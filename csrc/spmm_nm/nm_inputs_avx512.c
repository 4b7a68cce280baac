/* The kept inputs of a block of outputs, AVX-512: 16 at a time, of one word or two. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

EC_INLINE void inputs(int bits, int64_t kept, const uint32_t *words, const int32_t *group, int32_t *input)
{
    const __m128i shift = bits == 2 ? _mm_setr_epi32(0, 2, 4, 6) : _mm_setr_epi32(0, 4, 0, 4);
    const __m128i mask = _mm_set1_epi8(bits == 2 ? 3 : 15);
    for (int64_t e = 0; e < kept; e += 16, words += bits / 2) {
        const __mmask16 there = kept - e >= 16 ? 0xFFFF : (__mmask16)((1u << (kept - e)) - 1);
        const uint32_t second = bits == 4 && kept - e > 8 ? words[1] : words[0];
        const __m128i word = _mm_setr_epi32((int)words[0], (int)words[0], (int)second, (int)second);
        const __m128i places = _mm_and_si128(_mm_srlv_epi32(word, shift), mask); /* a byte each, in order */
        const __m512i at = _mm512_add_epi32(_mm512_cvtepu8_epi32(places), _mm512_maskz_loadu_epi32(there, group + e));
        _mm512_mask_storeu_epi32(input + e, there, at);
    }
}

void ec_nm_inputs_avx512(int bits, int64_t kept, const uint32_t *words, const int32_t *group, int32_t *input)
{
    if (bits == 2)
        inputs(2, kept, words, group, input);
    else
        inputs(4, kept, words, group, input);
}
EC_TARGET_END
#endif
