/* The grouped tile with vpmaddubsw: up to 8 rows x 32 columns. Included inside an AVX2 target region.
 *
 * A nibble is the unsigned operand as it is: a pair adds at most 2 * 15 * 127 = 3810, so eight of them fit int16 (30480) and one
 * vpmaddwd widens them all: 2.1 instructions per 32 products where full-range bytes take 4. A byte is two nibbles: 16 * high + low.
 * The decoded weights of 8 columns stay in 8 registers while the rows pass by; sums and y live in L1. */
EC_INLINE __m256i quad(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, 4);
    return _mm256_set1_epi32(v);
}

EC_INLINE __m256 floats(const uint8_t *record, int scale_bytes, int which, int h)
{
    const uint8_t *at = record + scale_bytes * (EC_STRIP * which + 8 * h);
    return scale_bytes == 2 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at)) : _mm256_loadu_ps((const float *)(const void *)at);
}

EC_INLINE __m256i pair(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }

/* Sums in int32 of `quads` (4 or 8) quads of int4 codes. */
EC_INLINE __m256i chain(const __m256i *w, int quads, const int8_t *x, int step)
{
    __m256i s[8];
#pragma GCC unroll 8
    for (int q = 0; q < quads; q++)
        s[q] = _mm256_maddubs_epi16(w[q], quad(x + q * step));
    __m256i sum = pair(pair(s[0], s[1]), pair(s[2], s[3]));
    if (quads == 8)
        sum = pair(sum, pair(pair(s[4], s[5]), pair(s[6], s[7])));
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

/* The same of 4 quads of int8 codes: w[0..3] low nibbles, w[4..7] high ones. */
EC_INLINE __m256i chain8(const __m256i *w, const int8_t *x, int step)
{
    __m256i low[4], high[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        const __m256i a = quad(x + q * step);
        low[q] = _mm256_maddubs_epi16(w[q], a);
        high[q] = _mm256_maddubs_epi16(w[4 + q], a);
    }
    const __m256i one = _mm256_set1_epi16(1);
    const __m256i l = _mm256_madd_epi16(pair(pair(low[0], low[1]), pair(low[2], low[3])), one);
    const __m256i h = _mm256_madd_epi16(pair(pair(high[0], high[1]), pair(high[2], high[3])), one);
    return _mm256_add_epi32(l, _mm256_slli_epi32(h, 4));
}

/* Row i is done: bias, relu, y. */
EC_INLINE void finish(const ec_gemm_sg_tile *t, int i, const __m256 *sums)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), nan = _mm256_set1_epi32(0x7FC00000);
    for (int h = 0; 8 * h < t->cols; h++) {
        const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(t->cols - 8 * h), lane);
        __m256 v = _mm256_add_ps(sums[h], _mm256_maskload_ps(t->bias + 8 * h, mask));
        /* see gemm_s8c_ymm.h */
        const __m256 low = t->relu ? _mm256_max_ps(v, _mm256_setzero_ps()) : v;
        v = _mm256_blendv_ps(low, _mm256_castsi256_ps(nan), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        _mm256_maskstore_ps(t->y + i * t->ldy + 8 * h, mask, v);
    }
}

/* Codes of 8 columns from memory: nibbles of up to 8 quads, or of bytes the low ones of 4 quads and then the high ones. */
EC_INLINE void decode(int bits, int loads, const uint8_t *codes, __m256i *w)
{
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int l = 0; l < loads; l++) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 4 * EC_STRIP * l));
        const __m256i low = _mm256_and_si256(v, nibble), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
        w[bits == 8 ? l : 2 * l] = low;
        w[bits == 8 ? 4 + l : 2 * l + 1] = high;
    }
}

/* 8 columns of one group, while its blocks of quads are summed. */
typedef struct {
    const int8_t *x; /* the group's panel */
    const float *sx;
    const int32_t *sum;
    __m256 sw, offset;
    __m256i minus; /* what sum is multiplied with */
    int zero;
    __m256i *acc; /* [mr]: from block to block */
    __m256 *y;    /* [mr], EC_STRIP floats apart */
} eight;

/* Adds `quads` quads (8 or 4; 4 for bytes) from quad q on, and finishes the group with the last of them. */
EC_INLINE void block(int mr, int bits, int quads, int q, int last, const uint8_t *codes, const eight *e)
{
    __m256i w[8];
    decode(bits, bits == 8 ? 4 : quads / 2, codes, w);
    const int8_t *x = e->x + 4 * mr * q;
#pragma GCC unroll 1
    for (int i = 0; i < mr; i++, x += 4) {
        __m256i acc = bits == 8 ? chain8(w, x, 4 * mr) : chain(w, quads, x, 4 * mr);
        if (q > 0)
            acc = _mm256_add_epi32(acc, e->acc[i]);
        if (!last) {
            e->acc[i] = acc;
            continue;
        }
        const __m256i sum = _mm256_set1_epi32(e->sum[i]);
        if (e->zero == EC_ZERO_MIDDLE)
            acc = _mm256_sub_epi32(acc, _mm256_slli_epi32(sum, bits - 1));
        else if (e->zero == EC_ZERO_POINT)
            acc = _mm256_sub_epi32(acc, _mm256_mullo_epi32(e->minus, sum));
        const __m256 sx = _mm256_set1_ps(e->sx[i]);
        __m256 *y = e->y + EC_STRIP / 8 * i;
        __m256 v = _mm256_add_ps(*y, _mm256_mul_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(sx, e->sw)));
        if (e->zero == EC_ZERO_OFFSET)
            v = _mm256_add_ps(v, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(sx, e->offset)));
        *y = v;
    }
}

EC_INLINE void tile(int mr, int bits, const ec_gemm_sg_tile *t)
{
    enum { H = EC_STRIP / 8 };
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    __m256 y[EC_MAX_ROWS][H];
    __m256i acc[EC_MAX_ROWS];
    memset(y, 0, (size_t)mr * sizeof *y);
    memset(acc, 0, (size_t)mr * sizeof *acc);
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += ec_group_bytes(4 * t->quads, mr)) {
        const float *sx = (const float *)(const void *)(x + 4 * t->quads * mr);
        for (int h = 0; h < H; h++) {
            const uint8_t *codes = w + t->header + 32 * h, *zeros = ec_record_zeros(w, t->scale_bytes) + 8 * h;
            eight e = {.x = x, .sx = sx, .sum = (const int32_t *)(const void *)(sx + mr), .sw = floats(w, t->scale_bytes, 0, h), .zero = t->zero, .acc = acc, .y = &y[0][h]};
            if (t->zero == EC_ZERO_POINT)
                e.minus = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)zeros));
            if (t->zero == EC_ZERO_OFFSET)
                e.offset = floats(w, t->scale_bytes, 1, h);
            int q = 0;
            if (bits == 8)
                for (; q < t->quads; q += 4)
                    block(mr, 8, 4, q, q + 4 == t->quads, codes + 4 * EC_STRIP * q, &e);
            else {
                for (; q + 8 <= t->quads; q += 8)
                    block(mr, 4, 8, q, q + 8 == t->quads, codes + 2 * EC_STRIP * q, &e);
                if (q < t->quads)
                    block(mr, 4, 4, q, 1, codes + 2 * EC_STRIP * q, &e);
            }
        }
    }
    for (int i = 0; i < mr; i++)
        finish(t, i, y[i]);
}

/* One row: quads that meet every weight once are not worth the detour of `block`. Sums stay in registers, 32 columns wide. */
EC_INLINE void quads_of_row(int bits, int quads, const int8_t *x, const uint8_t *codes, __m256i *acc)
{
#pragma GCC unroll 4
    for (int h = 0; h < EC_STRIP / 8; h++) {
        __m256i w[8];
        decode(bits, bits == 8 ? 4 : quads / 2, codes + 32 * h, w);
        acc[h] = _mm256_add_epi32(acc[h], bits == 8 ? chain8(w, x, 4) : chain(w, quads, x, 4));
    }
}

EC_INLINE void one_row(int bits, int kind, const ec_gemm_sg_tile *t)
{
    enum { H = EC_STRIP / 8, AHEAD = 4096 }; /* bytes: cold weights come 1.25 times as fast */
    const int8_t *x = t->x;
    const uint8_t *w = t->w;
    __m256 y[H];
#pragma GCC unroll 4
    for (int h = 0; h < H; h++)
        y[h] = _mm256_setzero_ps();
    for (int64_t g = 0; g < t->groups; g++, w += t->record, x += 8) {
        const uint8_t *codes = w + t->header;
        for (int64_t b = 0; b < t->record; b += 64)
            _mm_prefetch((const char *)w + AHEAD + b, _MM_HINT_T0);
        float sx;
        int32_t sum;
        memcpy(&sx, x + 4 * t->quads, 4);
        memcpy(&sum, x + 4 * t->quads + 4, 4);
        __m256i acc[H];
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) {
            acc[h] = _mm256_set1_epi32(kind == EC_ZERO_MIDDLE ? -sum * (1 << (bits - 1)) : 0);
            if (kind == EC_ZERO_POINT) {
                const __m128i zeros = _mm_loadl_epi64((const __m128i *)(const void *)(ec_record_zeros(w, t->scale_bytes) + 8 * h));
                acc[h] = _mm256_mullo_epi32(_mm256_cvtepu8_epi32(zeros), _mm256_set1_epi32(-sum));
            }
        }
        int q = t->quads;
        for (; bits == 4 && q >= 8; q -= 8, x += 32, codes += 16 * EC_STRIP)
            quads_of_row(4, 8, x, codes, acc);
        for (; q > 0; q -= 4, x += 16, codes += 2 * bits * EC_STRIP)
            quads_of_row(bits, 4, x, codes, acc);
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) {
            const __m256 a = _mm256_set1_ps(sx);
            y[h] = _mm256_add_ps(y[h], _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h]), _mm256_mul_ps(a, floats(w, t->scale_bytes, 0, h))));
            if (kind == EC_ZERO_OFFSET)
                y[h] = _mm256_add_ps(y[h], _mm256_mul_ps(_mm256_set1_ps((float)sum), _mm256_mul_ps(a, floats(w, t->scale_bytes, 1, h))));
        }
    }
    finish(t, 0, y);
}

/* mr as a constant: it is in every address. */
EC_INLINE void tiles(int mr, int bits, const ec_gemm_sg_tile *t)
{
    switch (mr) {
    case 1:
        if (t->zero == EC_ZERO_MIDDLE)
            one_row(bits, EC_ZERO_MIDDLE, t);
        else if (t->zero == EC_ZERO_POINT)
            one_row(bits, EC_ZERO_POINT, t);
        else
            one_row(bits, EC_ZERO_OFFSET, t);
        break;
    case 2: tile(2, bits, t); break;
    case 3: tile(3, bits, t); break;
    case 4: tile(4, bits, t); break;
    case 5: tile(5, bits, t); break;
    case 6: tile(6, bits, t); break;
    case 7: tile(7, bits, t); break;
    default: tile(8, bits, t);
    }
}
