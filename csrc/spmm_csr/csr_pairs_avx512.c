/* Pairs of rows of a CSR weight, AVX-512: what both have is loaded once for two FMAs, in up to 16 ZMM of sums. With one row an FMA
 * waits for its load. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

enum { MOST = EC_MAX_LANES / 16 };

EC_INLINE void load(int vecs, int first, const float *from, __m512 *to)
{
    EC_UNROLL(8)
    for (int h = 0; h < vecs; h++)
        to[h] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(from + 16 * h);
}

/* The entries of one row alone. */
EC_INLINE void single(int vecs, int count, const uint16_t *local, const float *value, const float *in, __m512 *acc)
{
    for (; count > 0; count--, local++, value++) {
        const float *x = in + (size_t)*local * 16 * (size_t)vecs;
        const __m512 w = _mm512_set1_ps(*value);
        EC_UNROLL(8)
        for (int h = 0; h < vecs; h++)
            acc[h] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + 16 * h), acc[h]);
    }
}

EC_INLINE void pairs(int vecs, const ec_csr_block *b)
{
    const int lanes = 16 * vecs;
    const uint16_t *local = b->local, *count = b->count;
    const float *value = b->value;
    for (int64_t p = 0; p < b->rows; p++, count += 3) {
        float *sums0 = b->sums + (int64_t)b->order[2 * p] * lanes, *sums1 = b->sums + (int64_t)b->order[2 * p + 1] * lanes;
        __m512 acc0[MOST], acc1[MOST];
        load(vecs, b->first, sums0, acc0);
        load(vecs, b->first, sums1, acc1);
        for (int left = count[0]; left > 0; left--, local++, value += 2) {
            const float *x = b->x + (size_t)*local * (size_t)lanes;
            const __m512 w0 = _mm512_set1_ps(value[0]), w1 = _mm512_set1_ps(value[1]);
            EC_UNROLL(8)
            for (int h = 0; h < vecs; h++) {
                __m512 q = _mm512_loadu_ps(x + 16 * h);
                __asm__("" : "+v"(q)); /* else gcc loads it for each FMA */
                acc0[h] = _mm512_fmadd_ps(w0, q, acc0[h]);
                acc1[h] = _mm512_fmadd_ps(w1, q, acc1[h]);
            }
        }
        single(vecs, count[1], local, value, b->x, acc0);
        single(vecs, count[2], local + count[1], value + count[1], b->x, acc1);
        local += count[1] + count[2];
        value += count[1] + count[2];
        EC_UNROLL(8)
        for (int h = 0; h < vecs; h++) {
            _mm512_storeu_ps(sums0 + 16 * h, acc0[h]);
            _mm512_storeu_ps(sums1 + 16 * h, acc1[h]);
        }
    }
}

void ec_csr_pairs_avx512(int lanes, const ec_csr_block *b)
{
    switch (lanes / 16) {
    case 1: pairs(1, b); break;
    case 2: pairs(2, b); break;
    case 3: pairs(3, b); break;
    case 4: pairs(4, b); break;
    case 5: pairs(5, b); break;
    case 6: pairs(6, b); break;
    case 7: pairs(7, b); break;
    default: pairs(8, b);
    }
}
EC_TARGET_END
#endif
