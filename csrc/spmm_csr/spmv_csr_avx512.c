/* A CSR weight times one token, AVX-512. Activations go to their lanes one by one, by broadcasts under masks: fewer steps than
 * inserting them, and twice as fast as a gather on the CPU that was measured (Zen 4). In slices, where nothing is summed across lanes
 * and few turns are short, rows of 400 entries take 3 to 10 % less time, and rows of 40 a quarter. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,bmi")

enum { FAR = EC_FAR_AHEAD / 4 }; /* a fifth to a third from memory on Zen 4, and nothing in L3 */
#include "../spmm_csr/spmv_avx512.h"

EC_INLINE __m256 to_lane(__m256 v, __mmask8 lane, const float *x) { return _mm256_mask_broadcastss_ps(v, lane, _mm_load_ss(x)); }

/* Four activations, in the lanes from `first` on, whose indices are the 8 bytes i; the other lanes may hold anything. */
EC_INLINE __m256 four(const float *x, uint64_t i, int first)
{
    __m256 v = _mm256_broadcast_ss(x + (i & 0xFFFF));
    v = to_lane(v, (__mmask8)(2 << first), x + _bextr_u64(i, 16, 16));
    v = to_lane(v, (__mmask8)(4 << first), x + _bextr_u64(i, 32, 16));
    return to_lane(v, (__mmask8)(8 << first), x + (i >> 48));
}

EC_INLINE __m256 eight(const float *x, const uint16_t *input)
{
    uint64_t i[2];
    memcpy(i, input, 16);
    return _mm256_blend_ps(four(x, i[0], 0), four(x, i[1], 4), 0xF0);
}

EC_INLINE __m512 turn(const entries *w, int64_t e, __mmask16 m, __m512 acc)
{
    _Alignas(32) uint16_t some[16]; /* indices, zeros where there is none */
    const uint16_t *input = m == 0xFFFF ? w->narrow + e : some;
    if (m != 0xFFFF)
        _mm256_store_si256((__m256i *)(void *)some, _mm256_maskz_loadu_epi16(m, w->narrow + e));
    const __m512 entry = load_entries(w, e, m);
    const __m512 x = _mm512_insertf32x8(_mm512_castps256_ps512(eight(w->x, input)), eight(w->x, input + 8), 1);
    return _mm512_mask3_fmadd_ps(entry, x, acc, m);
}

void ec_spmv_csr_avx512(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    if (!w->short_indices) /* so wide a matrix has short rows, as a rule */
        ec_spmv_csr_avx2(w, row0, row1, x, sums);
    else if (w->indptr[row0] == w->indptr[row1]) /* a turn without entries would read the first input, and there may be none */
        memset(sums, 0, sizeof *sums * (size_t)(row1 - row0));
    else if (w->codes)
        rows(w, row0, row1, (entries){NULL, w->codes, w->short_indices, NULL, x}, sums);
    else
        rows(w, row0, row1, (entries){w->values, NULL, w->short_indices, NULL, x}, sums);
}

/* Not for wide matrices: 100,000 rows of 10 entries take an eighth longer than by rows. */
void ec_spmv_sell_avx512(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, const float *x, float *y)
{
    if (w->codes)
        slices(w, f, n, slice0, slice1, (entries){NULL, f->value, f->input, NULL, x}, y);
    else
        slices(w, f, n, slice0, slice1, (entries){f->value, NULL, f->input, NULL, x}, y);
}
EC_TARGET_END
#endif
