/* int8 block of a CSR weight, AVX-512 VNNI, of the form EC_CSR_SIGNED: x is the factor without sign as it is quantised. 64 tokens of bytes
 * fill a ZMM, 32 half of one. */
#include "spmm_csr8.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

EC_INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }

EC_INLINE __m256i dot(__m256i sum, __m256i w, __m256i x)
{
    __asm__("%{evex%} vpdpbusd %2,%1,%0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
}

#include "csr8_block_ymm.h"

EC_INLINE __m512i dot64(__m512i sum, __m512i w, __m512i x)
{
    __asm__("vpdpbusd %2,%1,%0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
}

static void block64(const ec_csr8_block *b)
{
    const uint16_t *local = b->local;
    const uint8_t *value = b->value;
    for (int64_t r = 0; r < b->rows; r++) {
        int32_t *sums = b->sums + (int64_t)b->order[r] * 64;
        __m512i acc[4];
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++)
            acc[t] = b->first ? _mm512_setzero_si512() : _mm512_loadu_si512(sums + 16 * t);
        for (int left = b->count[r]; left > 0; left--, local += 4, value += 4) {
            int32_t four;
            memcpy(&four, value, 4);
            const __m512i w = _mm512_set1_epi32(four);
            const __m512i x0 = _mm512_loadu_si512(b->x + 64 * (size_t)local[0]), x1 = _mm512_loadu_si512(b->x + 64 * (size_t)local[1]);
            const __m512i x2 = _mm512_loadu_si512(b->x + 64 * (size_t)local[2]), x3 = _mm512_loadu_si512(b->x + 64 * (size_t)local[3]);
            const __m512i lo = _mm512_unpacklo_epi8(x0, x1), lo2 = _mm512_unpacklo_epi8(x2, x3);
            const __m512i hi = _mm512_unpackhi_epi8(x0, x1), hi2 = _mm512_unpackhi_epi8(x2, x3);
            acc[0] = dot64(acc[0], w, _mm512_unpacklo_epi16(lo, lo2));
            acc[1] = dot64(acc[1], w, _mm512_unpackhi_epi16(lo, lo2));
            acc[2] = dot64(acc[2], w, _mm512_unpacklo_epi16(hi, hi2));
            acc[3] = dot64(acc[3], w, _mm512_unpackhi_epi16(hi, hi2));
        }
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++)
            _mm512_storeu_si512(sums + 16 * t, acc[t]);
    }
}

void ec_spmm_csr8_avx512vnni(int lanes, const ec_csr8_block *b)
{
    if (lanes == 64)
        block64(b);
    else
        any_block(lanes, b);
}

/* Four quads of inputs as in ec_pack_csr8_avx2. Lanes beyond those of x are not used. */
EC_INLINE void pack(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x)
{
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const int step = lanes == 16 ? 16 : 32;
    for (int64_t i = 0; i < quads; i++, q += step, x += 4 * lanes) {
        __m512i a[4];
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++) {
            const __m512i rows = lanes == 64 ? _mm512_inserti64x4(_mm512_castsi256_si512(load(q + 2 * t * panel)),
                                                                  load(q + (2 * t + 1) * panel), 1)
                : lanes == 32 ? _mm512_castsi256_si512(load(q + t * panel))
                              : _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(q + t * panel)));
            a[t] = _mm512_shuffle_epi8(rows, turn);
        }
        const __m512i lo = _mm512_unpacklo_epi32(a[0], a[1]), lo2 = _mm512_unpacklo_epi32(a[2], a[3]);
        const __m512i hi = _mm512_unpackhi_epi32(a[0], a[1]), hi2 = _mm512_unpackhi_epi32(a[2], a[3]);
        const __m512i c[4] = {_mm512_unpacklo_epi64(lo, lo2), _mm512_unpackhi_epi64(lo, lo2), _mm512_unpacklo_epi64(hi, hi2),
                              _mm512_unpackhi_epi64(hi, hi2)};
        EC_UNROLL(4)
        for (int t = 0; t < 4; t++)
            if (lanes == 64)
                _mm512_storeu_si512(x + 64 * t, c[t]);
            else if (lanes == 32)
                _mm256_storeu_si256((__m256i *)(x + 32 * t), _mm512_castsi512_si256(c[t]));
            else
                _mm_storeu_si128((__m128i *)(x + 16 * t), _mm512_castsi512_si128(c[t]));
    }
}

void ec_pack_csr8_avx512vnni(int lanes, int64_t quads, const uint8_t *q, int64_t panel, int8_t *x)
{
    if (lanes == 64)
        pack(64, quads, q, panel, x);
    else if (lanes == 32)
        pack(32, quads, q, panel, x);
    else
        pack(16, quads, q, panel, x);
}
EC_TARGET_END
#endif
