/* A CSR weight times one token, AVX-512: its rows, or slices of 16 of them (csr_sell.c). Included inside a target region by files that
 * define turn(), which fetches 16 activations in the way that is fast on their CPUs, and FAR, how many entries ahead L2 is prefetched,
 * or 0. */
enum {
    STEP = 16,   /* entries of a turn */
    EXACT = 512, /* int8: so many turns, and one more, stay below 2^24 in each lane: 513 * 255 * 127 */
    AHEAD = 2048 /* bytes of indices to prefetch, and of values as many entries */
};

/* Where entries are: values or codes, narrow or wide indices. The two that are not there are NULL. */
typedef struct {
    const float *values;
    const int8_t *codes;
    const uint16_t *narrow;
    const int32_t *wide;
    const float *x;
} entries;

/* The entries of a turn as floats, those in m. */
EC_INLINE __m512 load_entries(const entries *w, int64_t e, __mmask16 m)
{
    return w->values ? _mm512_maskz_loadu_ps(m, w->values + e)
                     : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, w->codes + e)));
}

/* acc plus the products of a turn's entries, those in m: nothing of the others is read. Each including file defines it. */
EC_INLINE __m512 turn(const entries *w, int64_t e, __mmask16 m, __m512 acc);

EC_INLINE void ask(const entries *w, int64_t e, int level)
{
    const char *entry = w->values ? (const char *)(w->values + e) : (const char *)(w->codes + e);
    const char *input = w->narrow ? (const char *)(w->narrow + e) : (const char *)(w->wide + e);
    level == 1 ? _mm_prefetch(entry, _MM_HINT_T0) : _mm_prefetch(entry, _MM_HINT_T1);
    level == 1 ? _mm_prefetch(input, _MM_HINT_T0) : _mm_prefetch(input, _MM_HINT_T1);
}

EC_INLINE void ask_ahead(const entries *w, int64_t e)
{
    ask(w, e + AHEAD / (w->narrow ? 2 : 4), 1);
    if (FAR)
        ask(w, e + FAR, 2);
}

/* The sum of entries from .. to - 1: a float, or an integer that is exact. */
EC_INLINE double dot(const entries *w, int64_t from, int64_t to)
{
    int64_t e = from, whole = 0;
    __m512 acc;
    do {
        const int64_t stop = w->codes ? EC_MIN(to, e + EXACT * STEP) : to;
        acc = _mm512_setzero_ps();
        for (; e + STEP <= stop; e += STEP) {
            ask_ahead(w, e);
            acc = turn(w, e, 0xFFFF, acc);
        }
        /* a turn for what is left, even if that is nothing: a mispredicted branch costs more */
        acc = turn(w, e, (__mmask16)((1u << (stop - e)) - 1), acc);
        e = stop;
        if (w->codes)
            whole += _mm512_reduce_add_epi32(_mm512_cvtps_epi32(acc)); /* 16 * 2^24 at most */
    } while (w->codes && e < to);
    return w->codes ? (double)whole : (double)_mm512_reduce_add_ps(acc);
}

EC_INLINE void rows(const ec_csr *w, int64_t row0, int64_t row1, entries r, float *sums)
{
    for (int64_t i = row0; i < row1; i++)
        *sums++ = (float)dot(&r, w->indptr[i], w->indptr[i + 1]);
}

/* What the longest of some rows have beyond `steps`, from entry e on, added to their sums. */
EC_INLINE __m512 and_the_rest(const ec_csr *w, int lanes, const int32_t *row, int64_t steps, int64_t e, const entries *r, __m512i whole,
                              __m512 acc)
{
    int32_t integers[16];
    float sums[16];
    _mm512_storeu_si512(integers, whole);
    _mm512_storeu_ps(sums, acc);
    for (int l = 0; l < lanes; l++) {
        const int64_t end = e + w->indptr[row[l] + 1] - w->indptr[row[l]] - steps;
        if (end <= e)
            break;
        sums[l] = (float)((r->codes ? (double)integers[l] : (double)sums[l]) + dot(r, e, end));
        e = end;
    }
    return _mm512_loadu_ps(sums);
}

EC_INLINE void slices(const ec_csr *w, const ec_sell *f, int64_t n, int64_t slice0, int64_t slice1, entries r, float *y)
{
    for (int64_t i = slice0; i < slice1; i++) {
        const ec_sell_slice *s = f->slice + i;
        const int32_t *row = f->row + 16 * i;
        const int lanes = (int)EC_MIN(n - 16 * i, 16);
        const __mmask16 all = (__mmask16)((1u << lanes) - 1);
        const uint8_t *active = f->active + s->tail;
        int64_t e = s->entry;
        __m512 acc = _mm512_setzero_ps();
        __m512i whole = _mm512_setzero_si512();
        for (int32_t k = 0; k < s->steps;) {
            const int32_t stop = r.codes ? EC_MIN(s->steps, k + EXACT) : s->steps;
            for (const int32_t full = EC_MIN(s->full, stop); k < full; k++, e += STEP) {
                ask_ahead(&r, e);
                acc = turn(&r, e, 0xFFFF, acc);
            }
            for (; k < stop; k++, e += *active++)
                acc = turn(&r, e, (__mmask16)((1u << *active) - 1), acc);
            if (r.codes) {
                whole = _mm512_add_epi32(whole, _mm512_cvtps_epi32(acc));
                acc = _mm512_setzero_ps();
            }
        }
        __m512 sums = r.codes ? _mm512_cvtepi32_ps(whole) : acc;
        if (w->indptr[row[0] + 1] - w->indptr[row[0]] > s->steps)
            sums = and_the_rest(w, lanes, row, s->steps, e, &r, whole, sums);
        _mm512_mask_i32scatter_ps(y, all, _mm512_maskz_loadu_epi32(all, row), sums, 4);
    }
}
