/* Transposition into panels, plain C. */
#include "gemm_f32.h"

void ec_transpose_f32_scalar(int rows, int64_t k, const float *x, int64_t ldx, float *out, int64_t stride)
{
    for (int64_t p = 0; p < k; p++)
        for (int64_t r = 0; r < stride; r++)
            out[p * stride + r] = r < rows ? x[r * ldx + p] : 0;
}
