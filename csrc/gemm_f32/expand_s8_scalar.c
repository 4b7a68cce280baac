/* int8 panels to float32 panels, plain C. */
#include "gemm_f32.h"

void ec_expand_s8_scalar(int64_t k, const int8_t *panel, const float *scale, float *out)
{
    for (int64_t p = 0; p < k; p++)
        for (int c = 0; c < EC_PANEL; c++)
            out[p * EC_PANEL + c] = (float)panel[p / 4 * 64 + 4 * c + p % 4] * scale[c];
}
