/* float32 tile over the kept inputs of a block, AVX-512: up to 12 rows x 16 outputs, 12 ZMM of sums.
 *
 * Per kept input: its index, a vector of weights, and 12 products with one activation each, which the FMA broadcasts from memory. That is
 * 14 loads for 12 FMAs, and enough for nearly all of the peak. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,prfchw")

#include "../zmm.h"

enum { ROWS = 12, STRETCH = 16, AHEAD = 4096 /* bytes of weights, for few rows */ };

/* unroll: how many inputs are summed separately, so that few rows still have enough independent sums. */
EC_INLINE void tile(int mr, int unroll, const ec_gemm_f32_tile *t, const int32_t *input)
{
    const float *w = t->w, *ahead = t->ahead;
    const int64_t ahead_lines = mr <= 3 ? 0 : ec_div_up(t->ahead_lines, t->k / STRETCH + 1);
    const __mmask16 mask = t->cols >= 16 ? 0xFFFF : (__mmask16)((1u << t->cols) - 1);
    __m512 acc[ROWS][8];
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 8
        for (int u = 0; u < unroll; u++)
            acc[i][u] = _mm512_setzero_ps();
    for (int64_t k = t->k; k > 0; k -= STRETCH) {
        if (k <= 2 * STRETCH) /* see gemm_s8c_avx512vnni.c */
#pragma GCC unroll 12
            for (int i = 0; i < mr; i++)
                __builtin_prefetch(t->y + i * t->ldy, 1);
        for (int64_t p = 0; p < ahead_lines; p++, ahead += 16)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        int64_t left = EC_MIN(k, STRETCH);
        for (; left >= unroll; left -= unroll, w += 16 * unroll, input += unroll)
#pragma GCC unroll 8
            for (int u = 0; u < unroll; u++) {
                const float *x = t->x + (int64_t)input[u] * mr;
                __m512 b = _mm512_loadu_ps(w + 16 * u);
                __asm__("" : "+v"(b)); /* else gcc loads it for each row */
                if (mr <= 3)
                    _mm_prefetch((const char *)(w + 16 * u) + AHEAD, _MM_HINT_T0);
                if (mr > 3 && t->fresh)
                    _mm_prefetch((const char *)(w + 16 * u) + EC_NEAR_AHEAD, _MM_HINT_T0);
                if (mr <= 3 && t->far)
                    _mm_prefetch((const char *)(w + 16 * u) + EC_FAR_AHEAD, _MM_HINT_T1);
#pragma GCC unroll 12
                for (int i = 0; i < mr; i++)
                    acc[i][u] = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), b, acc[i][u]);
            }
        for (; unroll > 1 && left > 0; left--, w += 16, input++)
#pragma GCC unroll 12
            for (int i = 0; i < mr; i++)
                acc[i][0] = _mm512_fmadd_ps(_mm512_set1_ps(t->x[(int64_t)*input * mr + i]), _mm512_loadu_ps(w), acc[i][0]);
    }
    const __m512i relu = _mm512_set1_epi32(FIX_NAN_AND_RELU);
    const __m512 bias = t->last ? _mm512_maskz_loadu_ps(mask, t->bias) : _mm512_set1_ps(-0.0f);
#pragma GCC unroll 12
    for (int i = 0; i < mr; i++) {
        float *y = t->y + i * t->ldy;
#pragma GCC unroll 8
        for (int u = 1; u < unroll; u++)
            acc[i][0] = _mm512_add_ps(acc[i][0], acc[i][u]);
        if (!t->first)
            acc[i][0] = _mm512_add_ps(acc[i][0], _mm512_maskz_loadu_ps(mask, y));
        acc[i][0] = _mm512_add_ps(acc[i][0], bias);
        if (t->relu && t->last)
            acc[i][0] = _mm512_fixupimm_ps(acc[i][0], acc[i][0], relu, 0);
        _mm512_mask_storeu_ps(y, mask, acc[i][0]);
    }
}

void ec_spmm_nm_tile_avx512(int mr, const ec_gemm_f32_tile *t, const int32_t *input)
{
    switch (mr) {
    case 1: tile(1, 8, t, input); break;
    case 2: tile(2, 4, t, input); break;
    case 3: tile(3, 4, t, input); break;
    case 4: tile(4, 2, t, input); break;
    case 5: tile(5, 2, t, input); break;
    case 6: tile(6, 2, t, input); break;
    case 7: tile(7, 1, t, input); break;
    case 8: tile(8, 1, t, input); break;
    case 9: tile(9, 1, t, input); break;
    case 10: tile(10, 1, t, input); break;
    case 11: tile(11, 1, t, input); break;
    default: tile(12, 1, t, input);
    }
}
EC_TARGET_END
#endif
