/* The row quantiser in plain C: the spelling that the others follow. */
#include "quantize_rows.h"

void ec_quantize_rows_scalar(int mr, int64_t k, const float *x, int64_t ldx, uint8_t flip, uint8_t *panel, float *scale, int32_t *zero)
{
    for (int i = 0; i < mr; i++, x += ldx) {
        float lo = 0, hi = 0;
        int finite = 1;
        for (int64_t p = 0; p < k; p++) {
            lo = x[p] < lo ? x[p] : lo;
            hi = x[p] > hi ? x[p] : hi;
            finite &= isfinite(x[p]) != 0;
        }
        const float inv = ec_row_scale(lo, hi, finite, scale + i, zero + i);
        for (int64_t p = 0; p < ec_div_up(k, 16) * 16; p++) {
            float q = (finite && p < k ? rintf(x[p] * inv) : 0) + (float)zero[i];
            q = q < 0 ? 0 : q > 255 ? 255 : q;
            panel[p / 4 * 4 * mr + 4 * i + p % 4] = (uint8_t)q ^ flip;
        }
    }
}
