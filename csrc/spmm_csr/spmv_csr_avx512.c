/* Rows of a CSR weight times one token, AVX-512. Eight activations go to their lanes one by one, by broadcasts under masks: fewer steps than
 * inserting them, and twice as fast as a gather on the CPU that was measured (Zen 4). */
#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma,bmi")

enum {
    STEP = 16,              /* entries of a turn: two vectors of eight sums */
    EXACT = 512 * STEP,     /* int8: a lane adds up so many turns, and an entry, below 2^24, exactly: 513 * 255 * 127 */
    AHEAD = 512            /* entries to prefetch */
};

/* values or codes. */
typedef struct {
    const float *values;
    const int8_t *codes;
    const uint16_t *indices;
    const float *x;
} row;

EC_INLINE __m256 to_lane(__m256 v, __mmask8 lane, const float *x) { return _mm256_mask_broadcastss_ps(v, lane, _mm_load_ss(x)); }

/* Four activations in the lanes from `first` on; what the others hold does not matter. */
EC_INLINE __m256 four(const row *w, int64_t e, int first)
{
    uint64_t i;
    memcpy(&i, w->indices + e, 8);
    __m256 v = _mm256_broadcast_ss(w->x + (i & 0xFFFF));
    v = to_lane(v, (__mmask8)(2 << first), w->x + _bextr_u64(i, 16, 16));
    v = to_lane(v, (__mmask8)(4 << first), w->x + _bextr_u64(i, 32, 16));
    return to_lane(v, (__mmask8)(8 << first), w->x + (i >> 48));
}

EC_INLINE __m256 eight(const row *w, int64_t e) { return _mm256_blend_ps(four(w, e, 0), four(w, e + 4, 4), 0xF0); }

EC_INLINE __m256 entries(const row *w, int64_t e)
{
    return w->values ? _mm256_loadu_ps(w->values + e) : _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(w->codes + e))));
}

/* The entries of a turn, those in m. */
EC_INLINE void turn(const row *w, int64_t e, unsigned m, __m256 acc[2])
{
    acc[0] = _mm256_mask3_fmadd_ps(entries(w, e), eight(w, e), acc[0], (__mmask8)m);
    acc[1] = _mm256_mask3_fmadd_ps(entries(w, e + 8), eight(w, e + 8), acc[1], (__mmask8)(m >> 8));
}

/* A turn's entries where no more than `count` may be read. */
typedef struct {
    float values[STEP];
    int8_t codes[STEP];
    uint16_t indices[STEP];
} turn_copy;

static __attribute__((noinline)) void copy(const row *w, int64_t e, int64_t count, turn_copy *to)
{
    memset(to, 0, sizeof *to);
    memcpy(to->indices, w->indices + e, sizeof *w->indices * (size_t)count);
    if (w->values)
        memcpy(to->values, w->values + e, sizeof *w->values * (size_t)count);
    else
        memcpy(to->codes, w->codes + e, (size_t)count);
}

/* The sum of entries from .. to - 1; those before `end` may be read. */
EC_INLINE float dot(const row *w, int64_t from, int64_t to, int64_t end)
{
    int64_t e = from, whole = 0;
    __m256 acc[2];
    do {
        const int64_t stop = w->codes ? EC_MIN(to, e + EXACT) : to;
        acc[0] = acc[1] = _mm256_setzero_ps();
        for (; e + STEP <= stop; e += STEP) {
            _mm_prefetch(w->values ? (const char *)(w->values + e + AHEAD) : (const char *)(w->codes + e + AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)(w->indices + e + AHEAD), _MM_HINT_T0);
            acc[0] = _mm256_fmadd_ps(entries(w, e), eight(w, e), acc[0]);
            acc[1] = _mm256_fmadd_ps(entries(w, e + 8), eight(w, e + 8), acc[1]);
        }
        const int64_t rest = stop - e; /* whatever it is, one more turn: to guess wrong costs more */
        if (e + STEP <= end)
            turn(w, e, (1u << rest) - 1, acc);
        else if (rest) {
            turn_copy c;
            copy(w, e, rest, &c);
            turn(&(row){w->values ? c.values : NULL, c.codes, c.indices, w->x}, 0, (1u << rest) - 1, acc);
        }
        e = stop;
        if (w->codes) { /* |sum| <= 8192 * 255 * 127 < 2^31 */
            const __m256i sum = _mm256_add_epi32(_mm256_cvtps_epi32(acc[0]), _mm256_cvtps_epi32(acc[1]));
            __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
            whole += _mm_cvtsi128_si32(s) + (int64_t)_mm_extract_epi32(s, 1);
        }
    } while (w->codes && e < to);
    if (w->codes)
        return (float)whole;
    const __m256 sum = _mm256_add_ps(acc[0], acc[1]);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(s) + _mm_cvtss_f32(_mm_movehdup_ps(s));
}

EC_INLINE void rows(const ec_csr *w, int64_t row0, int64_t row1, const float *values, const int8_t *codes, const float *x, float *sums)
{
    const row r = {values, codes, w->short_indices, x};
    for (int64_t i = row0; i < row1; i++)
        *sums++ = dot(&r, w->indptr[i], w->indptr[i + 1], w->indptr[row1]);
}

ec_spmv_csr_fn ec_spmv_csr_avx2;

void ec_spmv_csr_avx512(const ec_csr *w, int64_t row0, int64_t row1, const float *x, float *sums)
{
    if (!w->short_indices) /* rows of so wide a matrix are short, as a rule */
        ec_spmv_csr_avx2(w, row0, row1, x, sums);
    else if (w->codes)
        rows(w, row0, row1, NULL, w->codes, x, sums);
    else
        rows(w, row0, row1, w->values, NULL, x, sums);
}
EC_TARGET_END
#endif
