/* The floats and zero points of a record's header (edgecomp.h), AVX2. Included inside a target region with F16C. */
#ifndef EC_RECORD_YMM_H
#define EC_RECORD_YMM_H

/* 8 scales or offsets of scale_bytes each. */
EC_INLINE __m256 floats_at(const uint8_t *at, int scale_bytes)
{
    return scale_bytes == 2 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at))
                            : _mm256_loadu_ps((const float *)(const void *)at);
}

/* Vector v of the scales (which = 0) or offsets (1). */
EC_INLINE __m256 floats(const uint8_t *record, int scale_bytes, int which, int v)
{
    return floats_at(record + scale_bytes * (EC_STRIP * which + 8 * v), scale_bytes);
}

/* 8 zero points. */
EC_INLINE __m256i zeros_at(const uint8_t *at)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
}
#endif
