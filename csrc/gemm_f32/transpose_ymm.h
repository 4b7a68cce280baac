/* 8 x 8 floats in registers, AVX. Included inside a target region. */
EC_INLINE void transpose(__m256 r[8])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = t[i];
}

/* to[j][i] = from[i][j]: 8 rows of 8 floats. */
EC_INLINE void turn(const float *const *from, float *const *to)
{
    __m256 r[8];
    EC_UNROLL(8)
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(from[i]);
    transpose(r);
    EC_UNROLL(8)
    for (int i = 0; i < 8; i++)
        _mm256_storeu_ps(to[i], r[i]);
}
