/* Peaks of NEON: fused multiply-add, reading, and exact int8 multiply-adds without a dot product. */
#include "roof.h"
#ifdef EC_ARM64
#include <arm_neon.h>

enum { SUMS = 20, READ_SUMS = 16 }; /* four instructions a cycle of latency 4 want 16 sums */

/* Volatile: neither merged, nor moved, nor left out because nobody reads the sums. */
EC_INLINE float32x4_t fmadd(float32x4_t sum, float32x4_t x, float32x4_t y)
{
    __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(x), "w"(y));
    return sum;
}

double ec_roof_fma_f32_neon(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const float32x4_t x = vdupq_n_f32(1.0f), y = vdupq_n_f32(0.5f);
    float32x4_t sum[SUMS];
    EC_UNROLL(20)
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_f32(0);
    for (int64_t r = 0; r < reps; r++)
        EC_UNROLL(20)
        for (int i = 0; i < SUMS; i++)
            sum[i] = fmadd(sum[i], x, y);
    return (double)reps * SUMS * 4 * 2;
}

/* 16 exact multiply-adds of bytes: two products fit 16 bits if one side is at most 128 (see gemm_s8c_neon.c). */
EC_INLINE int16x8_t products(int8x8_t x, int8x8_t w)
{
    int16x8_t t;
    __asm__ volatile("smull %0.8h, %1.8b, %2.8b" : "=w"(t) : "w"(x), "w"(w));
    return t;
}

EC_INLINE int16x8_t more_products(int16x8_t t, int8x8_t x, int8x8_t w)
{
    __asm__ volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(t) : "w"(x), "w"(w));
    return t;
}

EC_INLINE int32x4_t add(int32x4_t sum, int16x8_t t)
{
    __asm__ volatile("sadalp %0.4s, %1.8h" : "+w"(sum) : "w"(t));
    return sum;
}

double ec_roof_chain_s8_neon(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const int8x8_t x = vdup_n_s8(3), w = vdup_n_s8(-2);
    int32x4_t sum[16];
    int16x8_t t[8];
    EC_UNROLL(16)
    for (int i = 0; i < 16; i++)
        sum[i] = vdupq_n_s32(0);
    for (int64_t r = 0; r < reps; r++)
        EC_UNROLL(2)
        for (int half = 0; half < 16; half += 8) {
            EC_UNROLL(8)
            for (int i = 0; i < 8; i++)
                t[i] = products(x, w);
            EC_UNROLL(8)
            for (int i = 0; i < 8; i++)
                t[i] = more_products(t[i], x, w);
            EC_UNROLL(8)
            for (int i = 0; i < 8; i++)
                sum[half + i] = add(sum[half + i], t[i]);
        }
    return (double)reps * 16 * 16 * 2;
}

/* Reads once. Not inlined, so that the next pass reads again. */
static __attribute__((noinline)) void pass(float32x4_t *sums, const float *p, const float *end)
{
    float32x4_t sum[READ_SUMS];
    EC_UNROLL(16)
    for (int i = 0; i < READ_SUMS; i++)
        sum[i] = sums[i];
    for (; p < end; p += 4 * READ_SUMS)
        EC_UNROLL(16)
        for (int i = 0; i < READ_SUMS; i++)
            sum[i] = vaddq_f32(sum[i], vld1q_f32(p + 4 * i));
    EC_UNROLL(16)
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = sum[i];
}

double ec_roof_read_neon(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)b;
    float32x4_t sums[READ_SUMS];
    for (int i = 0; i < READ_SUMS; i++)
        sums[i] = vdupq_n_f32(0);
    for (int64_t r = 0; r < reps; r++)
        pass(sums, a, a + bytes / sizeof(float));
    return (double)reps * (double)bytes;
}
#endif
