/* int8 tile, AVX-512 VNNI: up to 8 rows x 48 columns, 24 ZMM of sums.
 *
 * Per 4 k: 3 weight vectors (16 columns x 4 k each), 8 broadcasts of one row's 4 bytes, 24 vpdpbusd: 11 loads for 24
 * dot products, so a CPU with two 64-byte loads and two vpdpbusd a cycle is bound by the dot products. */
#include "gemm_s8c.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prfchw")

#include "gemm_s8c_zmm.h"

/* unroll: how many quads are summed separately, so that small tiles still have enough independent sums. */
EC_INLINE void tile(int mr, int nv, int unroll, const ec_gemm_s8c_tile *t)
{
    const uint8_t *x = t->x;
    const int8_t *w = t->w;
    const char *ahead = t->ahead;
    const int ahead_lines = (int)ec_div_up(t->ahead_bytes / 64, t->quads / 16 + 1);
    __m512i acc[8][3], more[8][3][8];
#pragma GCC unroll 3
    for (int v = 0; v < nv; v++) {
        const __m512i wsum = _mm512_loadu_si512(t->wsum + 16 * v);
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            acc[i][v] = _mm512_mullo_epi32(_mm512_set1_epi32(-t->zero[i]), wsum);
#pragma GCC unroll 8
            for (int u = 1; u < unroll; u++)
                more[i][v][u] = _mm512_setzero_si512();
        }
    }
    char *y = t->yi ? (char *)t->yi : (char *)t->y;
    int64_t q = t->quads;
    while (q >= unroll) {
        const int64_t stretch = EC_MIN(q, 16);
        /* Prefetch the lines of y shortly before the end: a masked store that misses L1 stalls what follows (Zen 5: a
         * tenth of the time), and lines that came much earlier are gone again. */
        if (q <= 48 && (q > 32 || q == t->quads))
#pragma GCC unroll 8
            for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++)
                    __builtin_prefetch(y + 4 * (i * t->ldy + 16 * v), 1);
        for (int p = 0; p < ahead_lines; p++, ahead += 64)
            _mm_prefetch(ahead, _MM_HINT_T1);
        q -= stretch / unroll * unroll;
        for (int64_t s = stretch; s >= unroll; s -= unroll, w += 64 * unroll, x += 4 * mr * unroll)
#pragma GCC unroll 8
            for (int u = 0; u < unroll; u++) {
                __m512i b[3];
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++)
                    b[v] = _mm512_loadu_si512(w + v * t->panel + 64 * u);
                /* One panel is one stream. Prefetching makes one row 1.05 to 1.2 times as fast from memory on Zen 4, and two a tenth
                 * slower. */
                if (mr == 1 || (mr < 4 && t->far))
                    _mm_prefetch((const char *)w + 64 * u + 8192, _MM_HINT_T0);
                if (mr < 4 && t->far)
                    _mm_prefetch((const char *)w + 64 * u + EC_FAR_AHEAD, _MM_HINT_T1);
                if (mr > 3 && t->fresh) /* `ahead` has brought them into L2 */
#pragma GCC unroll 3
                    for (int v = 0; v < nv; v++)
                        _mm_prefetch((const char *)w + v * t->panel + 64 * u + EC_NEAR_AHEAD, _MM_HINT_T0);
#pragma GCC unroll 8
                for (int i = 0; i < mr; i++) {
                    const __m512i a = bcast_quad(x + 4 * (mr * u + i));
#pragma GCC unroll 3
                    for (int v = 0; v < nv; v++)
                        if (u)
                            more[i][v][u] = dot(more[i][v][u], a, b[v]);
                        else
                            acc[i][v] = dot(acc[i][v], a, b[v]);
                }
            }
    }
    for (; unroll > 1 && q > 0; q--, w += 64, x += 4 * mr)
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++)
                acc[i][v] = dot(acc[i][v], bcast_quad(x + 4 * i), _mm512_loadu_si512(w + v * t->panel));
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 3
        for (int v = 0; v < nv; v++) {
#pragma GCC unroll 8
            for (int u = 1; u < unroll; u++)
                acc[i][v] = _mm512_add_epi32(acc[i][v], more[i][v][u]);
        }
#pragma GCC unroll 3
    for (int v = 0; v < nv; v++) {
        const columns c = columns_of(t, v);
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            const int64_t at = i * t->ldy + 16 * v;
            if (t->yi)
                _mm512_mask_storeu_epi32(t->yi + at, c.mask, acc[i][v]);
            else
                finish(c, acc[i][v], t->sx[i], t->y + at);
        }
    }
}

/* Few rows: one panel after the other, a single stream from memory. */
EC_INLINE void narrow(int mr, int nv, int unroll, const ec_gemm_s8c_tile *t)
{
    for (int v = 0; v < nv; v++) {
        ec_gemm_s8c_tile one = *t;
        one.w += v * t->panel;
        one.wsum += 16 * v;
        one.sw += 16 * v;
        one.bias += 16 * v;
        one.y = t->y ? t->y + 16 * v : NULL;
        one.yi = t->yi ? t->yi + 16 * v : NULL;
        one.cols = EC_MIN(t->cols - 16 * v, 16);
        tile(mr, 1, unroll, &one);
    }
}

EC_INLINE void wide(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    if (nv == 3)
        tile(mr, 3, 1, t);
    else if (nv == 2)
        tile(mr, 2, 1, t);
    else
        tile(mr, 1, 2, t);
}

void ec_gemm_s8c_tile_avx512vnni(int mr, int nv, const ec_gemm_s8c_tile *t)
{
    switch (mr) {
    case 1: narrow(1, nv, 4, t); break;
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
