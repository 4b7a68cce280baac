/* Rows of a CSR weight times one token by bit masks, AVX2 + FMA: the entries of eight inputs are loaded together and spread to their
 * places. */
#include "spmm_csr.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma,popcnt")

/* For each mask of eight inputs: which of the consecutive entries belongs to each input, with the sign bit set where there is one. */
#define BIT(m, i) ((m) >> (i) & 1)
#define BELOW(m, i) (BIT((m) & ((1 << (i)) - 1), 0) + BIT((m) & ((1 << (i)) - 1), 1) + BIT((m) & ((1 << (i)) - 1), 2) + \
                     BIT((m) & ((1 << (i)) - 1), 3) + BIT((m) & ((1 << (i)) - 1), 4) + BIT((m) & ((1 << (i)) - 1), 5) + \
                     BIT((m) & ((1 << (i)) - 1), 6))
#define LANE(m, i) (BIT(m, i) ? INT32_MIN | BELOW(m, i) : 0)
#define LINE(m) {LANE(m, 0), LANE(m, 1), LANE(m, 2), LANE(m, 3), LANE(m, 4), LANE(m, 5), LANE(m, 6), LANE(m, 7)}
#define FOUR(m) LINE(m), LINE((m) + 1), LINE((m) + 2), LINE((m) + 3)
#define SIXTEEN(m) FOUR(m), FOUR((m) + 4), FOUR((m) + 8), FOUR((m) + 12)
#define SIXTY_FOUR(m) SIXTEEN(m), SIXTEEN((m) + 16), SIXTEEN((m) + 32), SIXTEEN((m) + 48)
static const int32_t PLACES[256][8] __attribute__((aligned(32))) = {SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128), SIXTY_FOUR(192)};

enum { AHEAD = 512 }; /* entries to prefetch */

void ec_spmv_masks_avx2(const ec_csr *w, const uint8_t *mask, int64_t words, int64_t row0, int64_t row1, const float *x, float *sums)
{
    for (int64_t r = row0; r < row1; r++) {
        const float *value = w->values + w->indptr[r], *in = x;
        const uint8_t *m = mask + 4 * words * r;
        __m256 acc[4];
        EC_UNROLL(4)
        for (int u = 0; u < 4; u++)
            acc[u] = _mm256_setzero_ps();
        for (int64_t i = 0; i < words; i++, m += 4, in += 32) {
            uint32_t bits;
            memcpy(&bits, m, 4);
            _mm_prefetch((const char *)(value + AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)(value + AHEAD + 16), _MM_HINT_T0);
            EC_UNROLL(4)
            for (int u = 0; u < 4; u++) {
                const __m256i places = _mm256_load_si256((const __m256i *)PLACES[bits >> 8 * u & 0xFF]);
                const float *first = value + _mm_popcnt_u32(bits & ((1u << 8 * u) - 1));
                const __m256 v = _mm256_permutevar8x32_ps(_mm256_loadu_ps(first), places);
                acc[u] = _mm256_fmadd_ps(v, _mm256_maskload_ps(in + 8 * u, places), acc[u]); /* what x holds elsewhere plays no part */
            }
            value += _mm_popcnt_u32(bits);
        }
        const __m256 sum = _mm256_add_ps(_mm256_add_ps(acc[0], acc[2]), _mm256_add_ps(acc[1], acc[3]));
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        *sums++ = _mm_cvtss_f32(s) + _mm_cvtss_f32(_mm_movehdup_ps(s));
    }
}
EC_TARGET_END
#endif
