/* What the NEON int8 tiles share: they take one panel, x as q - 128, and start their sums at 0. Included inside their target region. */

#include "../neon.h"

/* 4 columns of one row: quarter h of the panel. Promise 1 (docs/numerics.md) fixes the order and forbids fma. */
EC_INLINE void finish(const ec_gemm_s8c_tile *t, int i, int h, int32x4_t acc)
{
    const int32x4_t sum = vmlsq_n_s32(acc, vld1q_s32(t->wsum + 4 * h), t->zero[i]);
    if (t->yi) {
        vst1q_s32(t->yi + i * t->ldy + 4 * h, sum);
        return;
    }
    float32x4_t y = vmulq_n_f32(vcvtq_f32_s32(sum), t->sx[i]);
    y = vmulq_f32(y, vld1q_f32(t->sw + 4 * h));
    y = vaddq_f32(y, vld1q_f32(t->bias + 4 * h));
    const uint32x4_t bits = vreinterpretq_u32_f32(y), low = t->relu ? vandq_u32(bits, vcgtzq_f32(y)) : bits;
    const uint32x4_t canonical = vbslq_u32(vceqq_f32(y, y), low, vdupq_n_u32(0x7FC00000));
    vst1q_f32(t->y + i * t->ldy + 4 * h, vreinterpretq_f32_u32(canonical));
}

/* The tiles store whole vectors, so a panel with fewer columns goes through a buffer. */
EC_INLINE void ragged(int mr, const ec_gemm_s8c_tile *t, ec_gemm_s8c_tile_fn *tile)
{
    union { float y[EC_MAX_ROWS][EC_PANEL]; int32_t yi[EC_MAX_ROWS][EC_PANEL]; } out;
    float bias[EC_PANEL] = {0};
    const size_t bytes = 4 * (size_t)t->cols;
    ec_gemm_s8c_tile whole = *t;
    whole.cols = EC_PANEL;
    whole.ldy = EC_PANEL;
    whole.y = out.y[0];
    whole.yi = t->yi ? out.yi[0] : NULL;
    whole.bias = bias;
    if (!t->yi)
        memcpy(bias, t->bias, bytes);
    tile(mr, 1, &whole);
    for (int i = 0; i < mr; i++)
        if (t->yi)
            memcpy(t->yi + i * t->ldy, out.yi[i], bytes);
        else
            memcpy(t->y + i * t->ldy, out.y[i], bytes);
}
