/* Peaks of portable C: four lanes at a time, which every compiler has registers for (SSE2, NEON), and no fused
 * multiply-add. Also the copy loop: memcpy is as good as what a kernel does by hand. */
#include "roof.h"

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

enum { SUMS = 12, READ_SUMS = 8 };

/* A multiply and an add, 4 lanes each. The sums converge (to 2): neither overflow nor subnormals. */
double ec_roof_fma_f32_scalar(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const four half = {0.5f, 0.5f, 0.5f, 0.5f}, one = {1, 1, 1, 1};
    four sum[SUMS], total = one;
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = one * (float)i;
    for (int64_t r = 0; r < reps; r++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = sum[i] * half + one;
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        total += sum[i];
    __asm__ volatile("" : : "m"(total)); /* someone looks at it, as far as the compiler knows */
    return (double)reps * SUMS * 4 * 2;
}

/* Reads once. Not inlined, so that the next pass reads again. */
static __attribute__((noinline)) void pass(four *sums, const float *p, const float *end)
{
    four sum[READ_SUMS];
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sum[i] = sums[i];
    for (; p < end; p += 4 * READ_SUMS)
#pragma GCC unroll 8
        for (int i = 0; i < READ_SUMS; i++)
            sum[i] += *(const four *)(p + 4 * i);
#pragma GCC unroll 8
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = sum[i];
}

double ec_roof_read_scalar(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)b;
    four sums[READ_SUMS] = {{0}};
    for (int64_t r = 0; r < reps; r++)
        pass(sums, a, a + bytes / sizeof(float));
    return (double)reps * (double)bytes;
}

double ec_roof_copy_scalar(int64_t reps, float *a, float *b, size_t bytes)
{
    for (int64_t r = 0; r < reps; r++) {
        memcpy(b, a, bytes);
        __asm__ volatile("" : : : "memory");
    }
    return (double)reps * (double)bytes * 2;
}
