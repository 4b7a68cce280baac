/* Peak of AVX-VNNI: vpdpbusd on YMM, 32 multiply-adds of a byte each. */
#include "roof.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,avxvnni")

enum { SUMS = 12 }; /* two instructions a cycle of latency 4 or 5 want 8 to 10 sums */

/* As asm: gcc's partial-redundancy pass copies and spills the sums of the intrinsic, which halves the figure. */
EC_INLINE __m256i dot(__m256i sum, __m256i u8, __m256i s8)
{
    __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u8), "x"(s8));
    return sum;
}

double ec_roof_dot_s8_avxvnni(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const __m256i x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(-2);
    __m256i sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = dot(sum[i], x, w);
    return (double)reps * SUMS * 32 * 2;
}

EC_TARGET_END
#endif
