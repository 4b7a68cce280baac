/* float32 tile, AVX-512: up to 8 rows x 48 columns, 24 ZMM of sums; the int8 tile's shape, one k at a time. */
#include "gemm_f32.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,prfchw")

#include "../zmm.h"

EC_INLINE __mmask16 columns(const ec_gemm_f32_tile *t, int v)
{
    const int left = t->cols - 16 * v;
    return left >= 16 ? 0xFFFF : (__mmask16)((1u << left) - 1);
}

/* unroll: how many k are summed separately, so that small tiles still have enough independent sums. */
EC_INLINE void tile(int mr, int nv, int unroll, const ec_gemm_f32_tile *t)
{
    const float *x = t->x, *w = t->w, *ahead = t->ahead;
    const int ahead_lines = (int)ec_div_up(t->ahead_lines, t->k / 16 + 1);
    __m512 acc[8][3], more[8][3][8];
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int v = 0; v < nv; v++) {
            acc[i][v] = _mm512_setzero_ps();
#pragma GCC unroll 8
            for (int u = 1; u < unroll; u++)
                more[i][v][u] = _mm512_setzero_ps();
        }
    int64_t k = t->k;
    while (k >= unroll) {
        const int64_t stretch = EC_MIN(k, 16);
        if (k <= 48 && (k > 32 || k == t->k)) /* see gemm_s8c_avx512vnni.c */
#pragma GCC unroll 8
            for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++)
                    __builtin_prefetch(t->y + i * t->ldy + 16 * v, 1);
        for (int p = 0; p < ahead_lines; p++, ahead += 16)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++)
                _mm_prefetch((const char *)(ahead + v * t->ahead_panel), _MM_HINT_T1);
        k -= stretch / unroll * unroll;
        for (int64_t s = stretch; s >= unroll; s -= unroll, w += 16 * unroll, x += mr * unroll)
#pragma GCC unroll 8
            for (int u = 0; u < unroll; u++) {
                __m512 b[3];
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++)
                    b[v] = _mm512_loadu_ps(w + v * t->panel + 16 * u);
                if (mr < 4 && t->far) { /* more rows have `ahead` */
                    _mm_prefetch((const char *)(w + 16 * u) + 8192, _MM_HINT_T0);
                        _mm_prefetch((const char *)(w + 16 * u) + EC_FAR_AHEAD, _MM_HINT_T1);
                }
                if (mr > 3 && t->fresh) /* which brought them into L2 */
#pragma GCC unroll 3
                    for (int v = 0; v < nv; v++)
                        _mm_prefetch((const char *)(w + v * t->panel + 16 * u) + EC_NEAR_AHEAD, _MM_HINT_T0);
#pragma GCC unroll 8
                for (int i = 0; i < mr; i++) {
                    const __m512 a = _mm512_set1_ps(x[mr * u + i]);
#pragma GCC unroll 3
                    for (int v = 0; v < nv; v++)
                        if (u)
                            more[i][v][u] = _mm512_fmadd_ps(a, b[v], more[i][v][u]);
                        else
                            acc[i][v] = _mm512_fmadd_ps(a, b[v], acc[i][v]);
                }
            }
    }
    for (; unroll > 1 && k > 0; k--, w += 16, x += mr)
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++)
                acc[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), _mm512_loadu_ps(w + v * t->panel), acc[i][v]);
    const __m512i relu = _mm512_set1_epi32(FIX_NAN_AND_RELU);
#pragma GCC unroll 3
    for (int v = 0; v < nv; v++) {
        const __mmask16 mask = columns(t, v);
        const __m512 bias = t->last ? _mm512_maskz_loadu_ps(mask, t->bias + 16 * v) : _mm512_set1_ps(-0.0f);
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            float *y = t->y + i * t->ldy + 16 * v;
#pragma GCC unroll 8
            for (int u = 1; u < unroll; u++)
                acc[i][v] = _mm512_add_ps(acc[i][v], more[i][v][u]);
            if (!t->first)
                acc[i][v] = _mm512_add_ps(acc[i][v], _mm512_maskz_loadu_ps(mask, y));
            acc[i][v] = _mm512_add_ps(acc[i][v], bias);
            if (t->relu && t->last)
                acc[i][v] = _mm512_fixupimm_ps(acc[i][v], acc[i][v], relu, 0);
            _mm512_mask_storeu_ps(y, mask, acc[i][v]);
        }
    }
}

/* Few rows: one panel after the other, a single stream from memory. */
EC_INLINE void narrow(int mr, int nv, int unroll, const ec_gemm_f32_tile *t)
{
    for (int v = 0; v < nv; v++) {
        ec_gemm_f32_tile one = *t;
        one.w += v * t->panel;
        one.bias += 16 * v;
        one.y += 16 * v;
        one.cols = EC_MIN(t->cols - 16 * v, 16);
        tile(mr, 1, unroll, &one);
    }
}

EC_INLINE void wide(int mr, int nv, const ec_gemm_f32_tile *t)
{
    if (nv == 3)
        tile(mr, 3, 1, t);
    else if (nv == 2)
        tile(mr, 2, 1, t);
    else
        tile(mr, 1, 2, t);
}

void ec_gemm_f32_tile_avx512(int mr, int nv, const ec_gemm_f32_tile *t)
{
    switch (mr) {
    case 1: narrow(1, nv, 8, t); break;
    case 2: narrow(2, nv, 4, t); break;
    case 3: narrow(3, nv, 4, t); break;
    case 4: wide(4, nv, t); break;
    case 5: wide(5, nv, t); break;
    case 6: wide(6, nv, t); break;
    case 7: wide(7, nv, t); break;
    default: wide(8, nv, t);
    }
}
EC_TARGET_END
#endif
