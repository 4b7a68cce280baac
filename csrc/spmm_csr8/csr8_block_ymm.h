/* An int8 block of a CSR weight's form in YMM registers, for the ISA that includes this. It brings load and dot: sum + the four products of
 * unsigned w and signed x in each 32 bits. */

EC_INLINE void block32(const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const uint8_t *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        __m256i *sums = (__m256i *)(b->sums + (int64_t)b->order[r] * 32), acc[4];
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++)
            acc[t] = b->first ? _mm256_setzero_si256() : load(sums + t);
        for (int left = b->count[r]; left > 0; left--, local += 4, value += 4) {
            float four; /* as a float it is broadcast from memory */
            memcpy(&four, value, 4);
            const __m256i w = _mm256_castps_si256(_mm256_set1_ps(four));
            const __m256i x0 = load(b->x + 32 * (size_t)local[0]), x1 = load(b->x + 32 * (size_t)local[1]);
            const __m256i x2 = load(b->x + 32 * (size_t)local[2]), x3 = load(b->x + 32 * (size_t)local[3]);
            const __m256i lo = _mm256_unpacklo_epi8(x0, x1), lo2 = _mm256_unpacklo_epi8(x2, x3);
            const __m256i hi = _mm256_unpackhi_epi8(x0, x1), hi2 = _mm256_unpackhi_epi8(x2, x3);
            acc[0] = dot(acc[0], w, _mm256_unpacklo_epi16(lo, lo2));
            acc[1] = dot(acc[1], w, _mm256_unpackhi_epi16(lo, lo2));
            acc[2] = dot(acc[2], w, _mm256_unpacklo_epi16(hi, hi2));
            acc[3] = dot(acc[3], w, _mm256_unpackhi_epi16(hi, hi2));
        }
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++)
            _mm256_storeu_si256(sums + t, acc[t]);
    }
}

/* Half the tokens: the interleaved bytes of tokens 0 - 7 and 8 - 15 make two whole registers again. */
EC_INLINE void block16(const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const uint8_t *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        __m256i *sums = (__m256i *)(b->sums + (int64_t)b->order[r] * 16);
        /* acc[0]: tokens 0-3 and 8-11; acc[1]: 4-7 and 12-15 */
        __m256i acc[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int left = b->count[r]; left > 0; left--, local += 4, value += 4) {
            float four;
            memcpy(&four, value, 4);
            const __m256i w = _mm256_castps_si256(_mm256_set1_ps(four));
            const __m128i *x0 = (const __m128i *)(b->x + 16 * (size_t)local[0]), *x1 = (const __m128i *)(b->x + 16 * (size_t)local[1]);
            const __m128i *x2 = (const __m128i *)(b->x + 16 * (size_t)local[2]), *x3 = (const __m128i *)(b->x + 16 * (size_t)local[3]);
            const __m128i y0 = _mm_loadu_si128(x0), y1 = _mm_loadu_si128(x1), y2 = _mm_loadu_si128(x2), y3 = _mm_loadu_si128(x3);
            const __m256i p = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(y0, y1)), _mm_unpackhi_epi8(y0, y1), 1);
            const __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(y2, y3)), _mm_unpackhi_epi8(y2, y3), 1);
            acc[0] = dot(acc[0], w, _mm256_unpacklo_epi16(p, q));
            acc[1] = dot(acc[1], w, _mm256_unpackhi_epi16(p, q));
        }
        __m256i lo = _mm256_permute2x128_si256(acc[0], acc[1], 0x20), hi = _mm256_permute2x128_si256(acc[0], acc[1], 0x31);
        if (!b->first) {
            lo = _mm256_add_epi32(lo, load(sums));
            hi = _mm256_add_epi32(hi, load(sums + 1));
        }
        _mm256_storeu_si256(sums, lo);
        _mm256_storeu_si256(sums + 1, hi);
    }
}

EC_INLINE void any_block(int lanes, const ec_csr8_block *b)
{
    if (lanes == 16)
        block16(b);
    else
        block32(b);
}
