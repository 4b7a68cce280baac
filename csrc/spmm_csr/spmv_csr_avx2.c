/* Rows of a CSR weight times one token, AVX2 + FMA. Four activations are loaded one by one into a vector, which is faster than a gather
 * on the CPUs that were measured, and multiplied with four entries. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

enum {
    STEP = 16,              /* entries of a turn: four vectors of sums, an FMA takes four cycles */
    EXACT = 512 * STEP,     /* int8: a lane adds up so many turns, and three entries, below 2^24, exactly: 515 * 255 * 127 */
    AHEAD = 512             /* entries to prefetch */
};

/* Indices as one or two words: shifts cost less than loads, of which there are enough. */
EC_INLINE __m128 inputs(const uint16_t *narrow, const int32_t *wide, int64_t e, const float *x)
{
    uint64_t i[4], word[2];
    if (narrow) {
        memcpy(word, narrow + e, 8);
        i[0] = word[0] & 0xFFFF, i[1] = word[0] >> 16 & 0xFFFF, i[2] = word[0] >> 32 & 0xFFFF, i[3] = word[0] >> 48;
    } else {
        memcpy(word, wide + e, 16);
        i[0] = (uint32_t)word[0], i[1] = word[0] >> 32, i[2] = (uint32_t)word[1], i[3] = word[1] >> 32;
    }
    __m128 v = _mm_load_ss(x + i[0]);
    v = _mm_insert_ps(v, _mm_load_ss(x + i[1]), 0x10);
    v = _mm_insert_ps(v, _mm_load_ss(x + i[2]), 0x20);
    return _mm_insert_ps(v, _mm_load_ss(x + i[3]), 0x30);
}

EC_INLINE __m128 entries(const float *values, const int8_t *codes, int64_t e)
{
    int four;
    if (values)
        return _mm_loadu_ps(values + e);
    memcpy(&four, codes + e, 4);
    return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
}

/* The sum of entries from .. to - 1, in two parts: vectors, and up to three entries. */
EC_INLINE float dot(int64_t from, int64_t to, const float *values, const int8_t *codes, const uint16_t *narrow, const int32_t *wide,
                    const float *x)
{
    int64_t e = from, whole = 0;
    float rest = 0;
    __m128 acc[4];
    do {
        const int64_t end = codes ? EC_MIN(to, e + EXACT) : to;
        for (int u = 0; u < 4; u++)
            acc[u] = _mm_setzero_ps();
        for (; e + STEP <= end; e += STEP) {
            _mm_prefetch(values ? (const char *)(values + e + AHEAD) : (const char *)(codes + e + AHEAD), _MM_HINT_T0);
            _mm_prefetch(narrow ? (const char *)(narrow + e + AHEAD) : (const char *)(wide + e + AHEAD), _MM_HINT_T0);
#pragma GCC unroll 4
            for (int u = 0; u < 4; u++)
                acc[u] = _mm_fmadd_ps(entries(values, codes, e + 4 * u), inputs(narrow, wide, e + 4 * u, x), acc[u]);
        }
        for (; e + 4 <= end; e += 4)
            acc[0] = _mm_fmadd_ps(entries(values, codes, e), inputs(narrow, wide, e, x), acc[0]);
        for (; e < end; e++)
            rest += (values ? values[e] : (float)codes[e]) * x[narrow ? narrow[e] : wide[e]];
        if (codes) { /* |sum| <= 8192 * 255 * 127 < 2^31 */
            __m128i sum = _mm_add_epi32(_mm_add_epi32(_mm_cvtps_epi32(acc[0]), _mm_cvtps_epi32(acc[2])),
                                        _mm_add_epi32(_mm_cvtps_epi32(acc[1]), _mm_cvtps_epi32(acc[3])));
            sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
            whole += _mm_cvtsi128_si32(sum) + (int64_t)_mm_extract_epi32(sum, 1) + (int64_t)rest;
            rest = 0;
        }
    } while (codes && e < to);
    if (codes)
        return (float)whole;
    __m128 sum = _mm_add_ps(_mm_add_ps(acc[0], acc[2]), _mm_add_ps(acc[1], acc[3]));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(sum) + _mm_cvtss_f32(_mm_movehdup_ps(sum)) + rest;
}

EC_INLINE void rows(const ec_csr *w, int64_t row0, int64_t row1, const float *values, const int8_t *codes, const uint16_t *narrow,
                    const int32_t *wide, const float *x, float *sums)
{
    for (int64_t r = row0; r < row1; r++)
        *sums++ = dot(w->indptr[r], w->indptr[r + 1], values, codes, narrow, wide, x);
}

void ec_spmv_csr_avx2(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    if (w->codes && w->short_indices)
        rows(w, row0, row1, NULL, w->codes, w->short_indices, NULL, x, sums);
    else if (w->codes)
        rows(w, row0, row1, NULL, w->codes, NULL, w->indices, x, sums);
    else if (w->short_indices)
        rows(w, row0, row1, w->values, NULL, w->short_indices, NULL, x, sums);
    else
        rows(w, row0, row1, w->values, NULL, NULL, w->indices, x, sums);
}
EC_TARGET_END
#endif
