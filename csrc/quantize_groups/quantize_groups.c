/* Rows of float32 to int8 with one scale per group of inputs: the row-major form that Python hands around. The GEMM drivers call the
 * microkernels themselves and keep the panels. */
#include "quantize_groups.h"

typedef struct {
    int64_t k, group, ldx;
    const float *x;
    int8_t *q, *panels; /* one panel row each */
    float *scale;
    ec_quantize_groups_fn *quantize;
} job;

size_t ec_quantize_groups_workspace(int64_t m, int64_t k, int64_t group)
{
    return (size_t)(m * ec_div_up(k, group) * ec_group_bytes(group, 1)) + 64;
}

static void quantize_row(void *ctx, int64_t i, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t groups = ec_div_up(j->k, j->group);
    int8_t *panel = j->panels + i * groups * ec_group_bytes(j->group, 1);
    j->quantize(1, j->k, j->group, j->x + i * j->ldx, j->ldx, 1, panel);
    for (int64_t g = 0; g < groups; g++, panel += ec_group_bytes(j->group, 1)) {
        memcpy(j->q + i * j->k + g * j->group, panel, (size_t)EC_MIN(j->group, j->k - g * j->group));
        memcpy(j->scale + i * groups + g, panel + j->group, 4);
    }
}

int ec_quantize_groups(int64_t m, int64_t k, int64_t group, const float *x, int64_t ldx, int8_t *q, float *scale, int threads,
                       void *workspace, size_t size)
{
    job j = {.k = k, .group = group, .ldx = ldx, .x = x, .q = q, .scale = scale, .quantize = ec_use_quantize_groups()};
    if (size < ec_quantize_groups_workspace(m, k, group))
        return EC_E_WORKSPACE;
    j.panels = ec_line_from(workspace);
    ec_parallel(ec_threads_that_pay(threads, 0.2 * (double)m * (double)k), m, quantize_row, &j);
    return EC_OK;
}
