/* The distillation loss, any CPU: vectors of one. */
#include "kd_loss.h"

enum { LANES = 1, SIDE = 1 /* of what `turn` turns */ };
typedef float vf __attribute__((vector_size(4)));
EC_INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; } /* not fused: without an instruction fmaf is slow */
EC_INLINE vf vmax(vf a, vf b) { return (vf){a[0] > b[0] ? a[0] : b[0]}; }
EC_INLINE vf vpick(vf a, vf b, vf x, vf y) { return a[0] > b[0] ? x : y; }
EC_INLINE vf vlookup(const int32_t *table, vf at)
{
    int32_t bits;
    vf v;
    memcpy(&bits, &at, 4);
    memcpy(&v, table + (bits & 7), 4);
    return v;
}
EC_INLINE void vstream(float *p, vf v) { *p = v[0]; }

EC_INLINE void turn(const float *const *from, float *const *to) { to[0][0] = from[0][0]; }

#include "kd_loops.h"
#include "kd_short.h"

const ec_kd_loss_impl ec_kd_loss_scalar = {
    maxima, forward, squares, refine, rest, pair, gradient, LANES,
    short_forward, short_log, short_refine, short_rest, short_gradient,
};
