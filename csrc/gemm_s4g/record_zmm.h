/* The floats and zero points of a record's header (edgecomp.h), AVX-512. Included inside a target region. */
#ifndef EC_RECORD_ZMM_H
#define EC_RECORD_ZMM_H

/* 16 scales or offsets of scale_bytes each. */
EC_INLINE __m512 floats_at(const uint8_t *at, int scale_bytes)
{
    return scale_bytes == 2 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)) : _mm512_loadu_ps(at);
}

/* Vector v of the scales (which = 0) or offsets (1). */
EC_INLINE __m512 floats(const uint8_t *record, int scale_bytes, int which, int v)
{
    return floats_at(record + scale_bytes * (EC_STRIP * which + 16 * v), scale_bytes);
}

/* 16 zero points. */
EC_INLINE __m512i zeros_at(const uint8_t *at)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
}
#endif
