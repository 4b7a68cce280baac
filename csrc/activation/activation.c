/* What does not depend on the ISA: int8 output. */
#include "../kernels.h"

int ec_requantize(int64_t count, const float *y, float scale, int zero, int8_t *q)
{
    for (int64_t i = 0; i < count; i++) {
        float v = rintf(y[i] / scale) + (float)zero;
        v = v < -128 ? -128 : v > 127 ? 127 : v;
        q[i] = (int8_t)(v == v ? (int)v : zero);
    }
    return EC_OK;
}
