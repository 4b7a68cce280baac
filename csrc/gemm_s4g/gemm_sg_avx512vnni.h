/* The grouped tile with vpdpbusd: up to 6 rows x 32 columns, 12 ZMM of int32 sums and 12 of floats. Included inside an AVX-512 VNNI
 * target region. Codes are the unsigned operand as they are; the sums of a group begin at -zero * sum(x), which costs nothing. */
EC_INLINE __m512i dot(__m512i acc, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8)); /* inline: see gemm_s8c_avx512vnni.c */
    return acc;
}

EC_INLINE __m512i quad(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, 4);
    return _mm512_set1_epi32(v);
}

EC_INLINE __m512 floats(const uint8_t *record, int scale_bytes, int which, int v)
{
    const uint8_t *at = record + scale_bytes * (EC_STRIP * which + 16 * v);
    return scale_bytes == 2 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)) : _mm512_loadu_ps(at);
}

EC_INLINE void tile(int mr, int bits, const ec_gemm_sg_tile *t)
{
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512 y[6][2];
    __m512i acc[6][2];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++)
        y[i][0] = y[i][1] = _mm512_setzero_ps();
    for (int64_t g = 0; g < t->groups; g++, w += t->record) {
        const uint8_t *codes = w + t->header;
        const float *sx = (const float *)(const void *)(x + 4 * t->quads * mr);
        const int32_t *sum = (const int32_t *)(const void *)(sx + mr);
        if (t->zero == EC_ZERO_POINT) {
            const uint8_t *zeros = ec_record_zeros(w, t->scale_bytes);
#pragma GCC unroll 2
            for (int v = 0; v < 2; v++) {
                const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(zeros + 16 * v))));
#pragma GCC unroll 6
                for (int i = 0; i < mr; i++)
                    acc[i][v] = _mm512_mullo_epi32(minus, _mm512_set1_epi32(sum[i]));
            }
        } else {
            const int shift = bits - 1, used = t->zero == EC_ZERO_OFFSET ? 0 : -1;
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++)
                acc[i][0] = acc[i][1] = _mm512_set1_epi32((int32_t)((uint32_t)(sum[i] * used) << shift));
        }
        for (int q = t->quads; q > 0; q -= bits == 4 ? 2 : 1, codes += 4 * EC_STRIP) {
            const __m512i v0 = _mm512_loadu_si512(codes), v1 = _mm512_loadu_si512(codes + 64);
            const __m512i low0 = bits == 8 ? v0 : _mm512_and_si512(v0, nibble), low1 = bits == 8 ? v1 : _mm512_and_si512(v1, nibble);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++, x += 4) {
                const __m512i a = quad(x);
                acc[i][0] = dot(acc[i][0], low0, a);
                acc[i][1] = dot(acc[i][1], low1, a);
            }
            if (bits == 8)
                continue;
            const __m512i high0 = _mm512_and_si512(_mm512_srli_epi16(v0, 4), nibble), high1 = _mm512_and_si512(_mm512_srli_epi16(v1, 4), nibble);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++, x += 4) {
                const __m512i a = quad(x);
                acc[i][0] = dot(acc[i][0], high0, a);
                acc[i][1] = dot(acc[i][1], high1, a);
            }
        }
        x += 8 * mr;
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            const __m512 sw = floats(w, t->scale_bytes, 0, v);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++)
                y[i][v] = _mm512_add_ps(y[i][v], _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][v]), _mm512_mul_ps(_mm512_set1_ps(sx[i]), sw)));
            if (t->zero != EC_ZERO_OFFSET)
                continue;
            const __m512 offset = floats(w, t->scale_bytes, 1, v);
#pragma GCC unroll 6
            for (int i = 0; i < mr; i++)
                y[i][v] = _mm512_add_ps(y[i][v], _mm512_mul_ps(_mm512_set1_ps((float)sum[i]), _mm512_mul_ps(_mm512_set1_ps(sx[i]), offset)));
        }
    }
    /* see gemm_s8c_avx512vnni.c */
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000));
    const __m512i fix = _mm512_set1_epi32(t->relu ? 0x18181800 : 0x11111100);
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        const int left = t->cols - 16 * v;
        const __mmask16 mask = left >= 16 ? 0xFFFF : left > 0 ? (__mmask16)((1u << left) - 1) : 0;
        const __m512 bias = _mm512_maskz_loadu_ps(mask, t->bias + 16 * v);
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++)
            _mm512_mask_storeu_ps(t->y + i * t->ldy + 16 * v, mask, _mm512_fixupimm_ps(nan, _mm512_add_ps(y[i][v], bias), fix, 0));
    }
}

EC_INLINE void tiles(int mr, int bits, const ec_gemm_sg_tile *t)
{
    switch (mr) {
    case 1: tile(1, bits, t); break;
    case 2: tile(2, bits, t); break;
    case 3: tile(3, bits, t); break;
    case 4: tile(4, bits, t); break;
    case 5: tile(5, bits, t); break;
    default: tile(6, bits, t);
    }
}
