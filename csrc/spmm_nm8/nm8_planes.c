/* int8 N:M weights whose outputs share their inputs in blocks, for many rows: the driver.
 *
 * 64 rows of x become planes, a line of 64 bytes for each input. A block's kept inputs are lines, by indices that are found once. A
 * group of planes stays in a cache while all outputs pass by. */
#include "spmm_nm8.h"
#include "../activation/activation.h"
#include "../quantize_rows/quantize_rows.h"

enum {
    FROM = 48, /* rows: fewer cost less in other kernels than as 64 here */
    SUMS = 4 * EC_PANEL * EC_PLANE
};

typedef struct {
    int64_t m, n, k, kept, quads;
    const float *x;
    int64_t ldx;
    const uint8_t *xq, *xzero; /* or quantised rows */
    const float *xscale;
    const ec_nm *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    const ec_planes_s8_impl *impl;
    ec_quantize_rows_fn *quantize;
    ec_nm_inputs_fn *inputs;
    ec_activation_fn *activation;
    int64_t panels, blocks, tiles, groups;
    uint8_t *planes;  /* workspace: of each tile of 64 rows, */
    float *sx;        /* scale and zero of each row, */
    int32_t *zero;
    int32_t *group;   /* the first input of each kept input's group, */
    uint8_t *scratch; /* then for each thread panels of 64 rows, or the sums and inputs of a block */
} job;

static int64_t plane_bytes(int64_t k) { return ec_div_up(k, 16) * 16 * EC_PLANE; }
static int64_t tiles_of(int64_t m) { return ec_div_up(m, EC_PLANE); }

static int64_t scratch_bytes(int64_t k, const ec_nm *w)
{
    const int64_t inputs = 4 * (ec_div_up(ec_nm_kept(k, w), 16) * 16 + 32) + SUMS;
    return inputs > plane_bytes(k) ? inputs : plane_bytes(k);
}

int ec_nm8_in_planes(int64_t m, const ec_nm *w) { return w->block > 1 && m >= FROM && ec_use_planes_s8()->multiply; }

size_t ec_nm8_planes_workspace(int64_t m, int64_t k, const ec_nm *w, int threads)
{
    return 128 + (size_t)(tiles_of(m) * (plane_bytes(k) + 8 * EC_PLANE) + ec_div_up(ec_nm_kept(k, w), 16) * 64 +
                          ec_thread_limit(threads) * scratch_bytes(k, w));
}

/* Row r of a panel of eight, from bytes in order. */
static void weave(int64_t quads, const uint8_t *bytes, uint8_t *panel, int r)
{
    for (int64_t q = 0; q < quads; q++)
        memcpy(panel + 32 * q + 4 * r, bytes + 4 * q, 4);
}

static void pack_tile(void *ctx, int64_t tile, int thread)
{
    const job *j = ctx;
    const int64_t whole = ec_div_up(j->k, 16) * 16, row0 = tile * EC_PLANE, panel = 8 * whole;
    uint8_t *panels = j->scratch + (int64_t)thread * scratch_bytes(j->k, j->w), *planes = j->planes + tile * plane_bytes(j->k);
    float *sx = j->sx + row0;
    int32_t *zero = j->zero + row0;
    for (int64_t first = 0; first < EC_PLANE; first += 8, panels += panel) {
        if (j->x && row0 + first + 8 <= j->m) {
            j->quantize(8, j->k, j->x + (row0 + first) * j->ldx, j->ldx, 0, panels, sx + first, zero + first);
            continue;
        }
        memset(panels, 0, (size_t)panel);
        for (int r = 0; r < 8; r++) {
            const int64_t i = first + r, row = row0 + i;
            sx[i] = 0;
            zero[i] = 0;
            if (row >= j->m)
                continue;
            uint8_t *bytes = planes; /* not written yet */
            if (j->x)
                j->quantize(1, j->k, j->x + row * j->ldx, j->ldx, 0, bytes, sx + i, zero + i);
            else {
                memset(bytes + j->k, 0, (size_t)(whole - j->k));
                memcpy(bytes, j->xq + row * j->k, (size_t)j->k);
                sx[i] = j->xscale[row];
                zero[i] = j->xzero[row];
            }
            weave(whole / 4, bytes, panels, r);
        }
    }
    j->impl->pack(whole / 4, panels - EC_PLANE / 8 * panel, panel, planes);
}

static void planes_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_nm *w = j->w;
    const int64_t group = chunk / j->blocks, block = chunk % j->blocks, each = w->block / EC_PANEL;
    const int64_t tile0 = ec_part(j->tiles, j->groups, group), tile1 = ec_part(j->tiles, j->groups, group + 1);
    const int64_t panel1 = EC_MIN(j->panels, (block + 1) * each);
    uint8_t *scratch = j->scratch + (int64_t)thread * scratch_bytes(j->k, w);
    int32_t *sums = (int32_t *)scratch, *input = (int32_t *)(scratch + SUMS);
    j->inputs(ec_nm_bits(w), j->kept, w->packed + block * ec_nm_words(j->kept, w), j->group, input);
    memset(input + j->kept, 0, 4 * (size_t)(4 * j->quads + 32 - j->kept)); /* their weights are zeros */
    for (int64_t panel = block * each; panel < panel1; panel++) {
        const int64_t col0 = panel * EC_PANEL;
        for (int64_t tile = tile0; tile < tile1; tile++) {
            const int64_t row0 = tile * EC_PLANE, rows = EC_MIN(j->m - row0, EC_PLANE);
            const ec_planes_s8 p = {
                .tile = {
                    .quads = j->quads,
                    .w = w->codes + panel * j->quads * 64,
                    .zero = j->zero + row0,
                    .wsum = w->sums + col0,
                    .sx = j->sx + row0,
                    .sw = w->scale + col0,
                    .bias = j->bias ? j->bias + col0 : ec_no_bias,
                    .y = j->y + row0 * j->ldy + col0,
                    .ldy = j->ldy,
                    .cols = (int)EC_MIN(j->n - col0, EC_PANEL),
                    .relu = j->act == EC_ACT_RELU,
                },
                .planes = j->planes + tile * plane_bytes(j->k),
                .input = input,
                .rows = rows,
                .sums = sums,
            };
            j->impl->multiply(&p);
            if (j->act > EC_ACT_RELU)
                j->activation(j->act, rows, p.tile.cols, p.tile.y, j->ldy);
        }
    }
}

int ec_nm8_planes(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                  const uint8_t *xzero, const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace,
                  size_t size)
{
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < ec_nm8_planes_workspace(m, k, w, threads))
        return EC_E_WORKSPACE;
    if (n == 0)
        return EC_OK;
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .xzero = xzero,
             .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    j.kept = ec_nm_kept(k, w);
    j.quads = ec_div_up(j.kept, 4);
    j.impl = ec_use_planes_s8();
    j.quantize = ec_use_quantize_rows();
    j.inputs = ec_use_nm_inputs();
    j.activation = ec_use_activation();
    j.panels = ec_div_up(n, EC_PANEL);
    j.blocks = ec_div_up(n, w->block);
    j.tiles = tiles_of(m);
    j.groups = ec_div_up(j.tiles, EC_MIN(j.tiles, j.impl->group_bytes / (plane_bytes(k) + 1) + 1)); /* + 1: k may be 0, or more than fits */
    j.planes = ec_line_from(workspace);
    j.scratch = j.planes + j.tiles * plane_bytes(k);
    j.sx = (float *)(j.scratch + threads * scratch_bytes(k, w));
    j.zero = (int32_t *)(j.sx + j.tiles * EC_PLANE);
    j.group = j.zero + j.tiles * EC_PLANE;
    ec_nm_groups(j.kept, w, j.group);
    ec_parallel(ec_threads_that_pay(threads, 0.1 * (double)m * (double)k), j.tiles, pack_tile, &j);
    ec_parallel(ec_spmm_nm8_threads(m, n, j.kept, threads), j.groups * j.blocks, planes_chunk, &j);
    return EC_OK;
}
