/* Grouped weights to float32 panels, plain C. */
#include "gemm_f32.h"

void ec_expand_sg_scalar(const ec_grouped *w, int bits, int64_t groups, int64_t col0, int64_t k0, int64_t k, float *out)
{
    const int64_t record = (int64_t)ec_record_bytes(w, bits);
    const uint8_t *strip = (const uint8_t *)w->records + col0 / EC_STRIP * groups * record;
    for (int64_t p = k0; p < k0 + k; p++, out += EC_PANEL)
        for (int c = 0; c < EC_PANEL; c++)
            out[c] = ec_record_weight(strip + p / w->group * record, w, bits, (int)(col0 % EC_STRIP) + c, p % w->group);
}
