/* Activations: what kernels and drivers agree on. */
#ifndef EC_ACTIVATION_H
#define EC_ACTIVATION_H
#include "../kernels.h"

/* y[rows][ldy] = act(y), cols of each row. Every activation but relu, which the tiles do. */
typedef void ec_activation_fn(int act, int64_t rows, int64_t cols, float *y, int64_t ldy);
ec_activation_fn ec_activation_scalar, ec_activation_avx2, ec_activation_avx512, ec_activation_neon;

/* The activations that are exact on every ISA: the same float32 operations in the same order. NaN as 0x7FC00000. */
EC_INLINE float ec_clamp_activation(int act, float v)
{
    const float base = act == EC_ACT_RELU6 ? v : v + 3;
    const float six = base < 0 ? 0 : base > 6 ? 6 : base; /* relu6 */
    const float y = act == EC_ACT_RELU6       ? six + 0.0f /* -0 becomes 0 */
                    : act == EC_ACT_LEAKY_RELU ? (v > 0 ? v : v * 0.01f)
                    : act == EC_ACT_HARDSWISH  ? v * six / 6
                                               : six / 6;
    return ec_canonical(y);
}

/* The body of ec_requantize, for who is inside a job already. */
void ec_requantize_values(int64_t count, const float *y, float scale, int zero, int8_t *q);

ec_activation_fn *ec_use_activation(void);
#endif
