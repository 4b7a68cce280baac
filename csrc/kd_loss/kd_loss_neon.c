/* The distillation loss, NEON: 4 classes at a time. */
#include "../kernels.h"
#ifdef EC_ARM64
#include <arm_neon.h>

enum { LANES = 4 };
typedef float32x4_t vf;
EC_INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
EC_INLINE vf vmax(vf a, vf b) { return vmaxq_f32(a, b); }
EC_INLINE vf vmin(vf a, vf b) { return vminq_f32(a, b); }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return vbslq_f32(vcgtq_f32(a, b), x, y); }
EC_INLINE void vstream(float *p, vf v) { vst1q_f32(p, v); }

#include "kd_loops.h"

const ec_kd_loss_impl ec_kd_loss_neon = {extremes, forward, squares, refine, rest, pair, gradient};
#endif
