/* Peak of AVX-512 VNNI: vpdpbusd, 64 multiply-adds of a byte each. */
#include "roof.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f,avx512vnni")

enum { SUMS = 12 }; /* two instructions a cycle of latency 4 or 5 want 8 to 10 sums */

/* As asm: gcc's partial-redundancy pass copies and spills the sums of the intrinsic, which halves the figure. */
EC_INLINE __m512i dot(__m512i sum, __m512i u8, __m512i s8)
{
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

double ec_roof_dot_s8_avx512vnni(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(-2);
    __m512i sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_si512();
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = dot(sum[i], x, w);
    return (double)reps * SUMS * 64 * 2;
}

EC_TARGET_END
#endif
