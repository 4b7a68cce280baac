/* A CSR weight times one token, AVX-512. Activations go to their lanes one by one, by broadcasts under masks: fewer steps than inserting them,
 * and twice as fast as a gather on the CPU that was measured (Zen 4). In slices, where nothing is summed across lanes and few turns are short,
 * rows of 400 entries take 3 to 10 % less, and of 40 a quarter. */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,bmi")

enum { FAR = EC_FAR_AHEAD / 4 }; /* a fifth to a third from memory on Zen 4, and nothing in L3 */
#include "../spmm_csr/spmv_avx512.h"

EC_INLINE __m256 to_lane(__m256 v, __mmask8 lane, const float *x) { return _mm256_mask_broadcastss_ps(v, lane, _mm_load_ss(x)); }

/* Four activations in the lanes from `first` on, of indices that lie in 8 bytes; what the others hold does not matter. */
EC_INLINE __m256 four(const float *x, uint64_t i, int first)
{
    __m256 v = _mm256_broadcast_ss(x + (i & 0xFFFF));
    v = to_lane(v, (__mmask8)(2 << first), x + _bextr_u64(i, 16, 16));
    v = to_lane(v, (__mmask8)(4 << first), x + _bextr_u64(i, 32, 16));
    return to_lane(v, (__mmask8)(8 << first), x + (i >> 48));
}

EC_INLINE __m256 four_wide(const float *x, uint64_t i, uint64_t j, int first)
{
    __m256 v = _mm256_broadcast_ss(x + (uint32_t)i);
    v = to_lane(v, (__mmask8)(2 << first), x + (i >> 32));
    v = to_lane(v, (__mmask8)(4 << first), x + (uint32_t)j);
    return to_lane(v, (__mmask8)(8 << first), x + (j >> 32));
}

EC_INLINE uint64_t word(const void *from, int i)
{
    uint64_t v;
    memcpy(&v, (const char *)from + 8 * i, 8);
    return v;
}

EC_INLINE __m256 eight(const entries *w, const void *input, int half)
{
    if (w->narrow)
        return _mm256_blend_ps(four(w->x, word(input, 2 * half), 0), four(w->x, word(input, 2 * half + 1), 4), 0xF0);
    return _mm256_blend_ps(four_wide(w->x, word(input, 4 * half), word(input, 4 * half + 1), 0), four_wide(w->x, word(input, 4 * half + 2), word(input, 4 * half + 3), 4), 0xF0);
}

EC_INLINE __m512 turn(const entries *w, int64_t e, __mmask16 m, __m512 acc)
{
    _Alignas(64) char some[64]; /* indices, zeros where there is none */
    const void *input = some;
    if (m == 0xFFFF)
        input = w->narrow ? (const void *)(w->narrow + e) : (const void *)(w->wide + e);
    else if (w->narrow)
        _mm256_store_si256((__m256i *)some, _mm256_maskz_loadu_epi16(m, w->narrow + e));
    else
        _mm512_store_si512(some, _mm512_maskz_loadu_epi32(m, w->wide + e));
    const __m512 entry = w->values ? _mm512_maskz_loadu_ps(m, w->values + e) : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, w->codes + e)));
    const __m512 x = _mm512_insertf32x8(_mm512_castps256_ps512(eight(w, input, 0)), eight(w, input, 1), 1);
    return _mm512_mask3_fmadd_ps(entry, x, acc, m);
}

void ec_spmv_csr_avx512(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums) { all_rows(w, row0, row1, x, sums); }

void ec_spmv_sell_avx512(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, const float *x, float *y)
{
    all_slices(w, f, n, slice0, slice1, x, y);
}
EC_TARGET_END
#endif
