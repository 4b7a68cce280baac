/* Rows of float32 to uint8 with one scale and zero point each: the row-major form that Python hands around. The GEMM
 * drivers call the microkernels themselves and get panels. */
#include "quantize_rows.h"

typedef struct {
    int64_t k, ldx;
    const float *x;
    uint8_t *q, *zero, *row; /* row: one panel row per thread */
    float *scale;
    ec_quantize_rows_fn *quantize;
} job;

size_t ec_quantize_rows_workspace(int64_t m, int64_t k) { return (size_t)ec_panel_bytes(k, m); }

static void quantize_row(void *ctx, int64_t i, int thread)
{
    (void)thread;
    const job *j = ctx;
    int32_t zero;
    uint8_t *row = j->row + ec_panel_bytes(j->k, i); /* a panel of one row is the row itself, but longer: k is rounded up */
    j->quantize(1, j->k, j->x + i * j->ldx, j->ldx, 0, row, j->scale + i, &zero);
    j->zero[i] = (uint8_t)zero;
    if (j->k)
        memcpy(j->q + i * j->k, row, (size_t)j->k);
}

int ec_quantize_rows(int64_t m, int64_t k, const float *x, int64_t ldx, uint8_t *q, float *scale, uint8_t *zero, int threads,
                     void *workspace, size_t size)
{
    job j = {.k = k, .ldx = ldx, .x = x, .q = q, .zero = zero, .row = workspace, .scale = scale, .quantize = ec_use_quantize_rows()};
    if (size < ec_quantize_rows_workspace(m, k))
        return EC_E_WORKSPACE;
    ec_parallel(ec_threads_that_pay(threads, 0.15 * (double)m * (double)k), m, quantize_row, &j);
    return EC_OK;
}
