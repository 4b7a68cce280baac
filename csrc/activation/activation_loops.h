/* One loop per activation over the rows of a tile. Included by the files of the ISAs, inside their target region. */
#define EC_ROWS(expression) \
    for (int64_t r = 0; r < rows; r++, y += ldy) \
        for (int64_t c = 0; c < cols; c++) { \
            const float v = y[c]; \
            y[c] = expression; \
        } \
    break;

EC_INLINE void activate(int act, int64_t rows, int64_t cols, float *restrict y, int64_t ldy)
{
    switch (act) {
    case EC_ACT_RELU6: EC_ROWS(ec_clamp_activation(EC_ACT_RELU6, v))
    case EC_ACT_LEAKY_RELU: EC_ROWS(ec_clamp_activation(EC_ACT_LEAKY_RELU, v))
    case EC_ACT_HARDSWISH: EC_ROWS(ec_clamp_activation(EC_ACT_HARDSWISH, v))
    case EC_ACT_HARDSIGMOID: EC_ROWS(ec_clamp_activation(EC_ACT_HARDSIGMOID, v))
    case EC_ACT_GELU: EC_ROWS(ec_canonical(ec_gelu(v)))
    case EC_ACT_GELU_TANH: EC_ROWS(ec_canonical(ec_gelu_tanh(v)))
    case EC_ACT_SILU: EC_ROWS(ec_canonical(ec_silu(v)))
    case EC_ACT_TANH: EC_ROWS(ec_canonical(ec_tanh(v)))
    case EC_ACT_SIGMOID: EC_ROWS(ec_canonical(ec_sigmoid(v)))
    default: assert(0);
    }
}
