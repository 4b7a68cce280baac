/* Rows of a CSR weight times one token by gathers, AVX-512: for CPUs with AVX512-FP16, which have the fast ones. None of its instructions is
 * used here. A Xeon (Emerald Rapids) takes 0.24 ns an entry so, 0.29 by broadcasts (spmv_csr_avx512.c); a Zen 4, which has no FP16, 0.33 and 0.18. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum {
    STEP = 16,          /* entries of a turn */
    EXACT = 512 * STEP, /* int8: a lane adds up so many turns, and an entry, below 2^24, exactly: 513 * 255 * 127 */
    AHEAD = 1024        /* entries to prefetch */
};

/* values or codes, narrow or wide indices. */
typedef struct {
    const float *values;
    const int8_t *codes;
    const uint16_t *narrow;
    const int32_t *wide;
    const float *x;
} row;

/* The entries of a turn, those in m: nothing of the others is read. */
EC_INLINE __m512 turn(const row *w, int64_t e, __mmask16 m, __m512 acc)
{
    const __m512i input = w->narrow ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, w->narrow + e)) : _mm512_maskz_loadu_epi32(m, w->wide + e);
    const __m512 entry = w->values ? _mm512_maskz_loadu_ps(m, w->values + e) : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, w->codes + e)));
    return _mm512_fmadd_ps(entry, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, input, w->x, 4), acc);
}

/* The sum of entries from .. to - 1. */
EC_INLINE float dot(const row *w, int64_t from, int64_t to)
{
    int64_t e = from, whole = 0;
    __m512 acc;
    do {
        const int64_t stop = w->codes ? EC_MIN(to, e + EXACT) : to;
        acc = _mm512_setzero_ps();
        for (; e + STEP <= stop; e += STEP) {
            _mm_prefetch(w->values ? (const char *)(w->values + e + AHEAD) : (const char *)(w->codes + e + AHEAD), _MM_HINT_T0);
            _mm_prefetch(w->narrow ? (const char *)(w->narrow + e + AHEAD) : (const char *)(w->wide + e + AHEAD), _MM_HINT_T0);
            acc = turn(w, e, 0xFFFF, acc);
        }
        acc = turn(w, e, (__mmask16)((1u << (stop - e)) - 1), acc); /* whatever is left, one more: to guess wrong costs more */
        e = stop;
        if (w->codes)
            whole += _mm512_reduce_add_epi32(_mm512_cvtps_epi32(acc)); /* 16 * 2^24 at most */
    } while (w->codes && e < to);
    return w->codes ? (float)whole : _mm512_reduce_add_ps(acc);
}

EC_INLINE void rows(const ec_csr *w, int64_t row0, int64_t row1, row r, float *sums)
{
    for (int64_t i = row0; i < row1; i++)
        *sums++ = dot(&r, w->indptr[i], w->indptr[i + 1]);
}

void ec_spmv_csr_avx512fp16(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    if (w->codes && w->short_indices)
        rows(w, row0, row1, (row){NULL, w->codes, w->short_indices, NULL, x}, sums);
    else if (w->codes)
        rows(w, row0, row1, (row){NULL, w->codes, NULL, w->indices, x}, sums);
    else if (w->short_indices)
        rows(w, row0, row1, (row){w->values, NULL, w->short_indices, NULL, x}, sums);
    else
        rows(w, row0, row1, (row){w->values, NULL, NULL, w->indices, x}, sums);
}
EC_TARGET_END
#endif
