/* Few rows times outputs with places of their own, AVX-512: up to 8 rows x 16 outputs.
 *
 * A kept input of 16 outputs is one vector of weights; vpermps takes each output's own activation from the 16 inputs that may be it. A
 * shift and one vpternlog make its index of a word of places: one row is a stream of weights from memory, with little more to do for
 * two bits each. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,prfchw")

#include "../zmm.h"

enum { ROWS = 8, CHAINS = 4, AHEAD = 4096 /* bytes of weights to prefetch: 8192 push x out of L1 */ };

/* Adds a kept input, whose place is in the lowest bits of each lane of `places`. */
EC_INLINE void one(int mr, int bits, const float *x, int64_t ldx, int32_t base, const float *weights, int far, __m512i places,
                   __m512 acc[ROWS])
{
    /* places & mask | base */
    const __m512i take = _mm512_ternarylogic_epi32(places, _mm512_set1_epi32((1 << bits) - 1), _mm512_set1_epi32(base), 0xEA);
    const __m512 w = _mm512_loadu_ps(weights);
    _mm_prefetch((const char *)weights + AHEAD, _MM_HINT_T0);
    if (far)
        _mm_prefetch((const char *)weights + EC_FAR_AHEAD, _MM_HINT_T1);
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
        acc[i] = _mm512_fmadd_ps(_mm512_permutexvar_ps(take, _mm512_loadu_ps(x + i * ldx)), w, acc[i]);
}

EC_INLINE void rows(int mr, int bits, int chains, const ec_nm_rows *p)
{
    const int each = 32 / bits, far = ec_memory_is_far();
    const uint32_t *word = p->places;
    const float *x = p->x, *w = p->w;
    const int32_t *window = p->window, *base = p->base;
    __m512 acc[CHAINS][ROWS];
#pragma GCC unroll 4
    for (int u = 0; u < chains; u++)
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++)
            acc[u][i] = _mm512_setzero_ps();
    int64_t e = 0;
    for (; e + each <= p->kept;
         e += each, word += EC_PANEL, w += EC_PANEL * each, x += p->word_x, window += p->word_at, base += p->word_at) {
        const __m512i places = _mm512_loadu_si512(word);
        _mm_prefetch((const char *)word + AHEAD / 16 + 64, _MM_HINT_T0);
#pragma GCC unroll 16
        for (int c = 0; c < each; c++)
            one(mr, bits, x + window[c], p->ldx, base[c], w + EC_PANEL * c, far,
                _mm512_srli_epi32(places, (unsigned)(8 * (c % 4) + bits * (c / 4))), acc[c % chains]);
    }
    if (e < p->kept) {
        const __m512i places = _mm512_loadu_si512(word);
        for (int c = 0; e + c < p->kept; c++)
            one(mr, bits, x + window[c], p->ldx, base[c], w + EC_PANEL * c, far,
                _mm512_srl_epi32(places, _mm_cvtsi32_si128(8 * (c % 4) + bits * (c / 4))), acc[0]);
    }
    const __mmask16 mask = p->cols >= 16 ? 0xFFFF : (__mmask16)((1u << p->cols) - 1);
    const __m512 bias = _mm512_maskz_loadu_ps(mask, p->bias);
    const __m512i relu = _mm512_set1_epi32(FIX_NAN_AND_RELU);
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int u = 1; u < chains; u++)
            acc[0][i] = _mm512_add_ps(acc[0][i], acc[u][i]);
        __m512 y = _mm512_add_ps(acc[0][i], bias);
        if (p->relu)
            y = _mm512_fixupimm_ps(y, y, relu, 0);
        _mm512_mask_storeu_ps(p->y + i * p->ldy, mask, y);
    }
}

EC_INLINE void any_rows(int mr, int bits, const ec_nm_rows *p)
{
    switch (mr) {
    case 1: rows(1, bits, 4, p); break;
    case 2: rows(2, bits, 4, p); break;
    case 3: rows(3, bits, 2, p); break;
    case 4: rows(4, bits, 2, p); break;
    case 5: rows(5, bits, 1, p); break;
    case 6: rows(6, bits, 1, p); break;
    case 7: rows(7, bits, 1, p); break;
    default: rows(8, bits, 1, p);
    }
}

void ec_nm_rows_avx512(int mr, const ec_nm_rows *p)
{
    if (p->bits == 2)
        any_rows(mr, 2, p);
    else
        any_rows(mr, 4, p);
}
EC_TARGET_END
#endif
