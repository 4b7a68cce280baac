/* The distillation loss, any CPU: vectors of one. */
#include "../kernels.h"

enum { LANES = 1 };
typedef float vf __attribute__((vector_size(4)));
EC_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; } /* not fused: without an instruction fmaf is slow */
EC_INLINE vf vmax(vf a, vf b) { return (vf){a[0] > b[0] ? a[0] : b[0]}; }
EC_INLINE vf vmin(vf a, vf b) { return (vf){a[0] < b[0] ? a[0] : b[0]}; }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return a[0] > b[0] ? x : y; }
EC_INLINE void vstream(float *p, vf v) { *p = v[0]; }

#include "kd_loops.h"

const ec_kd_loss_impl ec_kd_loss_scalar = {extremes, forward, squares, refine, rest, pair, gradient};
