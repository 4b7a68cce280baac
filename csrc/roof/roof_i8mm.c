/* Peak of smmla: 32 multiply-adds of a byte each. */
#include "roof.h"
#ifdef EC_ARM64
#include <arm_neon.h>
EC_TARGET_BEGIN("i8mm")

enum { SUMS = 20 }; /* four instructions a cycle of latency 4 want 16 sums */

EC_INLINE int32x4_t dot(int32x4_t sum, int8x16_t x, int8x16_t w)
{
    __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(x), "w"(w));
    return sum;
}

double ec_roof_dot_s8_i8mm(int64_t reps, float *a, float *b, size_t bytes)
{
    (void)a, (void)b, (void)bytes;
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-2);
    int32x4_t sum[SUMS];
    EC_UNROLL(20)
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_s32(0);
    for (int64_t r = 0; r < reps; r++)
        EC_UNROLL(20)
        for (int i = 0; i < SUMS; i++)
            sum[i] = dot(sum[i], x, w);
    return (double)reps * SUMS * 32 * 2;
}
EC_TARGET_END
#endif
