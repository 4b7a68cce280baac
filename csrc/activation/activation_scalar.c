/* Activations with libm: any CPU. */
#include "activation.h"

static float apply(int act, float v)
{
    switch (act) {
    case EC_ACT_GELU: return 0.5f * v * erfcf(v * -0.70710678118654752f);
    case EC_ACT_GELU_TANH: return v / (1 + expf(-1.5957691216057308f * (v + 0.044715f * v * v * v)));
    case EC_ACT_SILU: return v / (1 + expf(-v));
    case EC_ACT_TANH: return tanhf(v);
    case EC_ACT_SIGMOID: return 1 / (1 + expf(-v));
    default: return ec_clamp_activation(act, v);
    }
}

void ec_activation_scalar(int act, int64_t rows, int64_t cols, float *y, int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            y[r * ldy + c] = ec_canonical(apply(act, y[r * ldy + c]));
}
