/* Peaks of AVX2: fused multiply-add, reading, and the fastest exact chain of int8 multiply-adds. */
#include "roof.h"
#ifdef EC_X86
#include <immintrin.h>
EC_TARGET_BEGIN("avx2,fma")

enum { SUMS = 12, READ_SUMS = 8 };

/* Volatile: neither merged, nor moved, nor left out because nobody reads the sums. */
EC_INLINE __m256 fmadd(__m256 sum, __m256 x, __m256 y)
{
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(x), "x"(y));
    return sum;
}

double ec_roof_fma_f32_avx2(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const __m256 x = _mm256_set1_ps(1.0f), y = _mm256_set1_ps(0.5f);
    __m256 sum[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_setzero_ps();
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = fmadd(sum[i], x, y);
    return (double)reps * SUMS * 8 * 2;
}

/* 32 exact multiply-adds of bytes. vpmaddubsw alone saturates: two products of 255 * 127 leave 16 bits. Exact are
 *   (a) |x - 128| times w with the sign of x - 128 (at most 2 * 128 * 127), widened: vpsignb, vpmaddubsw, vpmaddwd, vpaddd;
 *   (b) both operands widened to 16 bits beforehand: twice vpmaddwd and vpaddd.
 * One thread of a Zen 5 at 3.8 GHz, best of 7, three runs: (a) 210-215, (b) 213-215 GOP/s in the best order found of each,
 * 198-207 and 210-214 with one chain after the other. So (b), four multiplications before their four additions. */
EC_INLINE __m256i products(__m256i x, __m256i w)
{
    __m256i t;
    __asm__ volatile("vpmaddwd %2, %1, %0" : "=x"(t) : "x"(x), "x"(w));
    return t;
}

EC_INLINE __m256i add(__m256i sum, __m256i t)
{
    __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(t));
    return sum;
}

double ec_roof_chain_s8_avx2(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const __m256i x = _mm256_set1_epi16(3), w = _mm256_set1_epi16(-2);
    __m256i sum[8], t[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        sum[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 2
        for (int half = 0; half < 8; half += 4) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                t[i] = products(x, w);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                sum[half + i] = add(sum[half + i], t[i]);
        }
    return (double)reps * 8 * 16 * 2;
}

/* Reads once. The order of the loads is kept: what the prefetchers make of it changes the L3 figure by a tenth. Not
 * inlined: the sums go through memory between two passes, as a kernel's results do (on a Zen 5: 445 GB/s from 16 KiB
 * instead of 490), and the next pass reads again. */
static __attribute__((noinline)) void pass(__m256 *sums, const float *p, const float *end)
{
    __m256 sum[READ_SUMS];
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sum[i] = sums[i];
    for (; p < end; p += 8 * READ_SUMS)
#pragma GCC unroll 8
        for (int i = 0; i < READ_SUMS; i++) {
            __m256 v = _mm256_loadu_ps(p + 8 * i);
            __asm__ volatile("" : "+x"(v));
            sum[i] = _mm256_add_ps(sum[i], v);
        }
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = sum[i];
}

double ec_roof_read_avx2(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)b;
    __m256 sums[READ_SUMS];
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = _mm256_setzero_ps();
    for (int64_t r = 0; r < reps; r++)
        pass(sums, a, a + bytes / sizeof(float));
    return (double)reps * (double)bytes;
}

EC_TARGET_END
#endif
