/* The distillation loss, NEON: 4 classes at a time. */
#include "kd_loss.h"
#ifdef EC_ARM64
#include <arm_neon.h>

enum { LANES = 4, SIDE = 4 /* of what `turn` turns */ };
typedef float32x4_t vf;
EC_INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
EC_INLINE vf vmax(vf a, vf b) { return vmaxq_f32(a, b); }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }
EC_INLINE vf vlookup(const int32_t *table, vf at)
{
    const uint8x16x2_t bytes = {{vreinterpretq_u8_s32(vld1q_s32(table)), vreinterpretq_u8_s32(vld1q_s32(table + 4))}};
    /* of the four bytes of a value */
    const int32x4_t first = vmulq_n_s32(vandq_s32(vreinterpretq_s32_f32(at), vdupq_n_s32(7)), 0x04040404);
    return vreinterpretq_f32_u8(vqtbl2q_u8(bytes, vreinterpretq_u8_s32(vaddq_s32(first, vdupq_n_s32(0x03020100)))));
}
EC_INLINE void vstream(float *p, vf v) { vst1q_f32(p, v); }

#include "../gemm_f32/transpose_neon.h"
#include "kd_loops.h"
#include "kd_short.h"

const ec_kd_loss_impl ec_kd_loss_neon = {
    maxima, forward, squares, refine, rest, pair, gradient, LANES,
    short_forward, short_log, short_refine, short_rest, short_gradient,
};
#endif
