/* Peaks of AVX-512: fused multiply-add and reading, 64 bytes at a time. */
#include "roof.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx512f")

enum { SUMS = 12, READ_SUMS = 8 }; /* two instructions a cycle of latency 4 or 5 want 8 to 10 sums */

/* Volatile: neither merged, nor moved, nor left out because nobody reads the sums. */
EC_INLINE __m512 fmadd(__m512 sum, __m512 x, __m512 y)
{
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
    return sum;
}

double ec_roof_fma_f32_avx512(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const __m512 x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(0.5f);
    __m512 sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = fmadd(sum[i], x, y);
    return (double)reps * SUMS * 16 * 2;
}

/* Reads once. The order of the loads is kept: what the prefetchers make of it changes the L3 figure by a tenth. Not
 * inlined: the sums go through memory between two passes, as a kernel's results do (on a Zen 5: 445 GB/s from 16 KiB
 * instead of 490), and the next pass reads again. */
static __attribute__((noinline)) void pass(__m512 *sums, const float *p, const float *end)
{
    __m512 sum[READ_SUMS];
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sum[i] = sums[i];
    for (; p < end; p += 16 * READ_SUMS)
#pragma GCC unroll 8
        for (int i = 0; i < READ_SUMS; i++) {
            __m512 v = _mm512_loadu_ps(p + 16 * i);
            __asm__ volatile("" : "+v"(v));
            sum[i] = _mm512_add_ps(sum[i], v);
        }
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = sum[i];
}

double ec_roof_read_avx512(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)b;
    __m512 sums[READ_SUMS];
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < reps; r++)
        pass(sums, a, a + bytes / sizeof(float));
    return (double)reps * (double)bytes;
}

EC_TARGET_END
#endif
