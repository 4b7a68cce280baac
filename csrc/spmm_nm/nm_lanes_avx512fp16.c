/* Kept inputs of a block times 32 or 48 tokens, AVX-512: 8 of the panel's 16 outputs at a time.
 *
 * Per kept input: its index, two or three vectors of tokens, and 8 weights that are broadcast, so 11 loads for 16 FMAs. With outputs in
 * the lanes instead (spmm_nm_avx512.c) it is 14 for 12, which is the bound where two FMAs begin in a cycle, as on CPUs with
 * AVX512-FP16. None of its instructions is used. */
#include "spmm_nm.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum { OUTPUTS = 8 };

EC_INLINE void tile(int vecs, const ec_nm_lanes *t, const float *w, float *sums, const float *ahead, int64_t lines)
{
    const int lanes = 16 * vecs;
    __m512 acc[OUTPUTS][3];
    for (int64_t p = 0; p < lines; p++, ahead += 16)
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++)
            acc[o][v] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(sums + o * lanes + 16 * v);
    for (int64_t e = 0; e < t->kept; e++, w += EC_PANEL) {
        const float *line = t->x + (int64_t)t->input[e] * lanes;
        __m512 x[3];
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++) {
            x[v] = _mm512_load_ps(line + 16 * v);
            __asm__("" : "+v"(x[v])); /* else gcc loads it for each output */
        }
#pragma GCC unroll 8
        for (int o = 0; o < OUTPUTS; o++) {
            __m512 weight = _mm512_set1_ps(w[o]);
            __asm__("" : "+v"(weight));
#pragma GCC unroll 3
            for (int v = 0; v < vecs; v++)
                acc[o][v] = _mm512_fmadd_ps(weight, x[v], acc[o][v]);
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++)
#pragma GCC unroll 3
        for (int v = 0; v < vecs; v++)
            _mm512_store_ps(sums + o * lanes + 16 * v, acc[o][v]);
}

EC_INLINE void panel(int vecs, const ec_nm_lanes *t)
{
    const int64_t half = t->ahead_lines / 2;
    tile(vecs, t, t->w, t->sums, t->ahead, half);
    tile(vecs, t, t->w + OUTPUTS, t->sums + OUTPUTS * 16 * vecs, t->ahead + 16 * half, t->ahead_lines - half);
}

void ec_nm_lanes_avx512fp16(int lanes, const ec_nm_lanes *t)
{
    if (lanes == 32)
        panel(2, t);
    else
        panel(3, t);
}
EC_TARGET_END
#endif
