/* The row quantiser, NEON: one row after the other, 16 floats a step. */
#include "quantize_rows.h"
#ifdef EC_ARM64
#include <arm_neon.h>

#include "../neon.h"

/* Extremes from the bits: see quantize_rows_avx512.c. */
EC_INLINE void widen(uint32x4_t *lo, int32x4_t *hi, float32x4_t v)
{
    *hi = vmaxq_s32(*hi, vreinterpretq_s32_f32(v));
    *lo = vmaxq_u32(*lo, vreinterpretq_u32_f32(v));
}

EC_INLINE float prepare(const float *x, int64_t k, float *scale, int32_t *zero)
{
    uint32x4_t lo[4];
    int32x4_t hi[4];
    EC_UNROLL(4)
    for (int u = 0; u < 4; u++) {
        hi[u] = vdupq_n_s32(0);
        lo[u] = vdupq_n_u32(0x80000000); /* the bits of -0 */
    }
    int64_t p = 0;
    for (; p + 16 <= k; p += 16)
        EC_UNROLL(4)
        for (int u = 0; u < 4; u++)
            widen(lo + u, hi + u, vld1q_f32(x + p + 4 * u));
    for (; p < k; p += 4)
        widen(lo, hi, load_left(x + p, k - p));
    const uint32_t least = vmaxvq_u32(vmaxq_u32(vmaxq_u32(lo[0], lo[1]), vmaxq_u32(lo[2], lo[3])));
    const int32_t most = vmaxvq_s32(vmaxq_s32(vmaxq_s32(hi[0], hi[1]), vmaxq_s32(hi[2], hi[3])));
    return ec_row_scale_bits(least, (uint32_t)most, scale, zero);
}

/* 8 codes before the last clip. A row that is not finite comes with inv 0, and a NaN converts to 0. */
EC_INLINE int16x8_t codes(float32x4_t a, float32x4_t b, float inv, int16x8_t zero)
{
    const int32x4_t qa = vcvtnq_s32_f32(vmulq_n_f32(a, inv)), qb = vcvtnq_s32_f32(vmulq_n_f32(b, inv));
    return vaddq_s16(vqmovn_high_s32(vqmovn_s32(qa), qb), zero); /* at most 256 + 255 */
}

static void one_row(int mr, int i, int64_t k, const float *x, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    const float inv = prepare(x, k, scale, zero);
    const int16x8_t z = vdupq_n_s16((int16_t)*zero);
    for (int64_t p = 0; p < k; p += 16, panel += 16 * mr) {
        float32x4_t v[4];
        EC_UNROLL(4)
        for (int u = 0; u < 4; u++)
            v[u] = p + 16 <= k ? vld1q_f32(x + p + 4 * u) : load_left(x + p + 4 * u, k - p - 4 * u);
        const uint8x8_t low = vqmovun_s16(codes(v[0], v[1], inv, z));
        const uint8x16_t bytes = veorq_u8(vqmovun_high_s16(low, codes(v[2], v[3], inv, z)), vdupq_n_u8(flip));
        const uint32x4_t quads = vreinterpretq_u32_u8(bytes);
        const uint32_t quad[4] = {vgetq_lane_u32(quads, 0), vgetq_lane_u32(quads, 1), vgetq_lane_u32(quads, 2), vgetq_lane_u32(quads, 3)};
        if (mr == 1)
            vst1q_u8(panel, bytes);
        else
            EC_UNROLL(4)
            for (int j = 0; j < 4; j++)
                memcpy(panel + 4 * (mr * j + i), quad + j, 4);
    }
}

void ec_quantize_rows_neon(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    for (int i = 0; i < mr; i++)
        one_row(mr, i, k, x + i * ldx, flip, panel, scale + i, zero + i);
}
#endif
