/* The group quantiser in plain C: the spelling that the others follow. */
#include "quantize_groups.h"

void ec_quantize_groups_scalar(int mr, int64_t k, int64_t group, const float *x, int64_t ldx, int factor, int8_t *panel)
{
    for (int64_t g = 0; g < k; g += group, panel += ec_group_bytes(group, mr))
        for (int i = 0; i < mr; i++) {
            const float *from = x + i * ldx + g;
            const int64_t count = EC_MIN(group, k - g);
            float absmax = 0, scale;
            int finite = 1;
            int32_t sum = 0;
            for (int64_t p = 0; p < count; p++) {
                absmax = fabsf(from[p]) > absmax ? fabsf(from[p]) : absmax;
                finite &= isfinite(from[p]) != 0;
            }
            const float inv = ec_group_scale(absmax, finite, &scale);
            for (int64_t p = 0; p < group; p++) {
                const int8_t q = inv != 0 && p < count ? (int8_t)rintf(from[p] * inv) : 0;
                panel[p / 4 * 4 * mr + 4 * i + p % 4] = q;
                sum += q;
            }
            sum *= factor;
            memcpy(panel + group * mr + 4 * i, &scale, 4);
            memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4);
        }
}
