/* What the AVX2 kernels of several ops share. Included inside their target region. */
#ifndef EC_YMM_H
#define EC_YMM_H

/* The first n of 8 lanes, as masked loads and stores take them: none for n <= 0, all from 8 on. */
EC_INLINE __m256i first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }

/* The four bytes at x in each lane. */
EC_INLINE __m256i bcast_quad(const void *x)
{
    int32_t v;
    memcpy(&v, x, 4);
    return _mm256_set1_epi32(v);
}
#endif
