/* A CSR weight times one token by gathers, AVX-512: for CPUs with AVX512-FP16, whose gathers are fast; none of its instructions is used
 * here. A Xeon (Emerald Rapids) takes 0.24 ns an entry row by row, and 0.29 by broadcasts (spmv_csr_avx512.c); a Zen 4, which has no
 * FP16, 0.33 and 0.18. In slices of 16 rows, where nothing is summed across lanes and few turns are short, the Xeon takes 0.21 to 0.24. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum { FAR = 0 }; /* 3 % from memory, and in L3 it costs 8 */
#include "../spmm_csr/spmv_avx512.h"

EC_INLINE __m512 turn(const entries *w, int64_t e, __mmask16 m, __m512 acc)
{
    const __m512i input = w->narrow ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, w->narrow + e))
                                    : _mm512_maskz_loadu_epi32(m, w->wide + e);
    const __m512 entry = load_entries(w, e, m);
    __mmask16 lanes = m;
    __asm__("" : "+Yk"(lanes)); /* else gcc lets a gather of all lanes wait for what its register held */
    return _mm512_fmadd_ps(entry, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes, input, w->x, 4), acc);
}

void ec_spmv_csr_avx512fp16(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    if (w->codes && w->short_indices)
        rows(w, row0, row1, (entries){NULL, w->codes, w->short_indices, NULL, x}, sums);
    else if (w->codes)
        rows(w, row0, row1, (entries){NULL, w->codes, NULL, w->indices, x}, sums);
    else if (w->short_indices)
        rows(w, row0, row1, (entries){w->values, NULL, w->short_indices, NULL, x}, sums);
    else
        rows(w, row0, row1, (entries){w->values, NULL, NULL, w->indices, x}, sums);
}

void ec_spmv_sell_avx512fp16(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, const float *x, float *y)
{
    if (w->codes && w->short_indices)
        slices(w, f, n, slice0, slice1, (entries){NULL, f->value, f->input, NULL, x}, y);
    else if (w->codes)
        slices(w, f, n, slice0, slice1, (entries){NULL, f->value, NULL, f->input, x}, y);
    else if (w->short_indices)
        slices(w, f, n, slice0, slice1, (entries){f->value, NULL, f->input, NULL, x}, y);
    else
        slices(w, f, n, slice0, slice1, (entries){f->value, NULL, NULL, f->input, x}, y);
}
EC_TARGET_END
#endif
