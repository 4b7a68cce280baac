/* What does not depend on the ISA: int8 output. */
#include "activation.h"

void ec_requantize_values(int64_t count, const float *y, float scale, int zero, int8_t *q)
{
    for (int64_t i = 0; i < count; i++) {
        float v = rintf(y[i] / scale) + (float)zero;
        v = v < -128 ? -128 : v > 127 ? 127 : v;
        q[i] = (int8_t)(v == v ? (int)v : zero);
    }
}

typedef struct {
    int64_t count;
    const float *y;
    float scale;
    int zero;
    int8_t *q;
} job;

static void requantize(void *ctx, int64_t i, int thread)
{
    (void)i, (void)thread;
    const job *j = ctx;
    ec_requantize_values(j->count, j->y, j->scale, j->zero, j->q);
}

int ec_requantize(int64_t count, const float *y, float scale, int zero, int8_t *q)
{
    job j = {count, y, scale, zero, q};
    ec_parallel(1, 1, requantize, &j); /* on this thread, in the default floating-point mode */
    return EC_OK;
}
