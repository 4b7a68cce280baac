/* Quantising groups of activations: what kernels and drivers agree on. */
#ifndef EC_QUANTIZE_GROUPS_H
#define EC_QUANTIZE_GROUPS_H
#include "../kernels.h"

enum { EC_TALL_ROWS = 12 }; /* most rows a panel of groups has */

/* A panel of mr rows, group after group: int8 q[group/4][mr][4] (quad of inputs, row, input), float scale[mr], int32 sum[mr]: the sums
 * of the q times `factor` (ec_sum_factor). The last group is as long as the others, with zeros beyond k. */
static inline int64_t ec_group_bytes(int64_t group, int64_t rows) { return (group + 8) * rows; }

/* Quantises mr rows (1 .. EC_TALL_ROWS) of k floats, ldx floats apart, as ec_quantize_groups says, into such a panel. */
typedef void ec_quantize_groups_fn(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel);
ec_quantize_groups_fn ec_quantize_groups_scalar, ec_quantize_groups_avx2, ec_quantize_groups_avx512, ec_quantize_groups_neon;

/* The factor of a panel's sums that the tile of such weights wants. Where all codes have the same zero: minus that, so that int32 sums
 * can begin at what stands in the panel. With zero points: -1, for a product with the zero of each output. With offsets: 1, the sum
 * itself. */
static inline int ec_sum_factor(int bits, int zero) { return zero == EC_ZERO_MIDDLE ? -(1 << (bits - 1)) : zero == EC_ZERO_POINT ? -1 : 1; }

/* The arithmetic of a group, once for all ISAs. Returns the factor for x: 0 for a group of zeros, and for one that is not finite. */
static inline float ec_group_scale(float absmax, int finite, float *scale)
{
    const float s = absmax / 127.0f;
    *scale = finite ? 1 : ec_canonical(NAN);
    if (!finite || s < 0x1p-126f)
        return 0;
    *scale = s;
    return 1.0f / s;
}

ec_quantize_groups_fn *ec_use_quantize_groups(void);
#endif
