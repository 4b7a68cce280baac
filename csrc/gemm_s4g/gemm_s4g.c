/* GEMM with a scale per group of inputs, the driver of gemm_s4g and gemm_s8g: quantise x group by group, split the output, call the tile.
 *
 * A strip of 32 outputs is one stream of records: from memory for one row, and small enough for L2 (74 KB of int4 at k = 4096) while many
 * rows pass by. Groups are summed in order within one tile, never split. */
#include "gemm_s4g.h"
#include "../grid.h"
#include "../activation/activation.h"

typedef struct {
    int64_t m, n, k;
    const float *x;
    int64_t ldx;
    const int8_t *xq;
    const float *xscale;
    const ec_grouped *w;
    int bits;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    /* what run() plans */
    const ec_gemm_sg_impl *impl;
    ec_quantize_groups_fn *quantize;
    ec_activation_fn *activation;
    int64_t groups, strips, tiles, row_bytes; /* of a row with its scales and sums */
    ec_grid grid; /* of strips */
    int8_t *panel;   /* workspace: activation panels, */
    float *permuted; /* then x in the weights' order */
} job;

size_t ec_record_bytes(const ec_grouped *w, int bits)
{
    return (size_t)ec_header_bytes(w) + (size_t)ec_div_up(w->group, bits == 4 ? 8 : 4) * EC_STRIP * 4;
}

static int64_t row_bytes(int by_rows, int64_t k, int64_t group)
{
    const int64_t groups = ec_div_up(k, group);
    return by_rows ? ec_grouped_row_bytes(groups, group) + 64 * ec_div_up(8 * groups, 64) : groups * ec_group_bytes(group, 1);
}

size_t ec_gemm_s4g_workspace(int64_t m, int64_t k, const ec_grouped *w)
{
    const size_t rows = k == 0 ? 0 : (size_t)(m * row_bytes(1, k, w->group));
    return rows + (w->permutation ? 4 * (size_t)m * (size_t)k : 0) + 128; /* tiles may read 64 bytes past the last sums */
}
size_t ec_gemm_s8g_workspace(int64_t m, int64_t k, const ec_grouped *w) { return ec_gemm_s4g_workspace(m, k, w); }

/* Rows that are quantised already become the same panel by copying. */
static void copy_rows(int mr, const job *j, int64_t row, int8_t *panel)
{
    const int64_t group = j->w->group;
    for (int64_t g = 0; g < j->groups; g++, panel += ec_group_bytes(group, mr)) {
        memset(panel, 0, (size_t)(group * mr));
        for (int i = 0; i < mr; i++) {
            const int8_t *q = j->xq + (row + i) * j->k + g * group;
            int32_t sum = 0;
            for (int64_t p = 0; p < EC_MIN(group, j->k - g * group); p++) {
                panel[p / 4 * 4 * mr + 4 * i + p % 4] = q[p];
                sum += q[p];
            }
            sum *= ec_sum_factor(j->bits, j->w->zero);
            memcpy(panel + group * mr + 4 * i, j->xscale + (row + i) * j->groups + g, 4);
            memcpy(panel + (group + 4) * mr + 4 * i, &sum, 4);
        }
    }
}

static void pack_panel(int mr, const job *j, int64_t row, int8_t *panel)
{
    if (!j->x) {
        copy_rows(mr, j, row, panel);
        return;
    }
    const float *x = j->x + row * j->ldx;
    int64_t ldx = j->ldx;
    if (j->w->permutation) {
        float *in_order = j->permuted + row * j->k;
        for (int i = 0; i < mr; i++)
            for (int64_t p = 0; p < j->k; p++)
                in_order[i * j->k + p] = x[i * ldx + j->w->permutation[p]];
        x = in_order;
        ldx = j->k;
    }
    j->quantize(mr, j->k, j->w->group, x, ldx, ec_sum_factor(j->bits, j->w->zero), panel);
}

/* A panel of each row, whose scales and sums move behind the codes of all rows. */
static void pack_rows(int mr, const job *j, int64_t row, int8_t *rows)
{
    const int64_t group = j->w->group, ldx = ec_grouped_row_bytes(j->groups, group);
    int8_t *scale = rows + mr * ldx, *sum = scale + 4 * mr * j->groups;
    for (int i = 0; i < mr; i++) {
        int8_t *to = rows + i * ldx;
        const int8_t *panel = to;
        pack_panel(1, j, row + i, to);
        for (int64_t g = 0; g < j->groups; g++, panel += 8) {
            for (int64_t p = 0; p < group; p += 16, to += 16, panel += 16) {
                int8_t codes[16]; /* a copy: at first they move by less than 16 bytes */
                memcpy(codes, panel, 16);
                memcpy(to, codes, 16);
            }
            memcpy(scale + 4 * (g * mr + i), panel, 4);
            memcpy(sum + 4 * (g * mr + i), panel + 4, 4);
        }
    }
}

static void pack_tile(void *ctx, int64_t tile, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t row = ec_part(j->m, j->tiles, tile);
    const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
    (j->impl->by_rows ? pack_rows : pack_panel)(mr, j, row, j->panel + row * j->row_bytes);
}

static void gemm_chunk(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const ec_chunk own = ec_grid_at(&j->grid, chunk);
    const int64_t strip = own.group, col0 = strip * EC_STRIP;
    const int64_t record = (int64_t)ec_record_bytes(j->w, j->bits);
    int mr_before = 0;
    const int ahead = ec_memory_is_far() ? 2 : own.tile1 - own.tile0 > 1; /* a tile alone loses by prefetching where memory is near */
    for (int64_t tile = own.tile0; tile < own.tile1; tile++) {
        const int64_t row = ec_part(j->m, j->tiles, tile);
        const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
        const ec_gemm_sg_tile t = {
            .groups = j->groups,
            .quads = j->w->group / 4,
            .x = j->panel + row * j->row_bytes,
            .w = (const uint8_t *)j->w->records + strip * j->groups * record,
            .record = record,
            .header = ec_header_bytes(j->w),
            .scale_bytes = j->w->scale_bytes,
            .zero = j->w->zero,
            .bias = j->bias ? j->bias + col0 : ec_no_bias,
            .y = j->y + row * j->ldy + col0,
            .ldy = j->ldy,
            .cols = (int)EC_MIN(j->n - col0, EC_STRIP),
            .relu = j->act == EC_ACT_RELU,
            .same = mr == mr_before,
            .more = tile + 1 < own.tile1,
            .ahead = tile == own.tile0 ? ahead : 0,
        };
        mr_before = mr;
        j->impl->tile(mr, &t);
        if (j->act > EC_ACT_RELU)
            j->activation(j->act, mr, t.cols, t.y, t.ldy);
    }
}

/* Bound by the products, or by reading the weights: 1/20 ns a byte. */
static int threads_for(const ec_gemm_sg_impl *impl, int bits, int64_t m, int64_t n, int64_t k, int threads)
{
    const double weights = (double)n * (double)k, compute = weights * (double)m / impl->macs_per_ns, read = weights * bits / 160;
    return ec_threads_that_pay(threads, compute > read ? compute : read);
}

int ec_gemm_s4g_threads(int64_t m, int64_t n, int64_t k, int threads) { return threads_for(ec_use_gemm_s4g(m, 32), 4, m, n, k, threads); }
int ec_gemm_s8g_threads(int64_t m, int64_t n, int64_t k, int threads) { return threads_for(ec_use_gemm_s8g(), 8, m, n, k, threads); }

/* Rows of a tile. Tall ones unpack a code for more rows: they pay where one tile takes all rows, and in large groups, whose scales
 * weigh less, where no tile is left half empty. */
static int tile_rows(const job *j)
{
    const int tall = j->impl->tall;
    return tall && (j->m <= tall || (j->w->group >= 64 && j->m > 2 * tall)) ? tall : j->impl->rows;
}

static int run(job *j, int threads, void *workspace, size_t size)
{
    if (size < ec_gemm_s4g_workspace(j->m, j->k, j->w))
        return EC_E_WORKSPACE;
    if (j->m == 0 || j->n == 0)
        return EC_OK;
    j->impl = j->bits == 4 ? ec_use_gemm_s4g(j->m, j->w->group) : ec_use_gemm_s8g();
    j->quantize = ec_use_quantize_groups();
    j->activation = ec_use_activation();
    j->groups = ec_div_up(j->k, j->w->group);
    j->strips = ec_div_up(j->n, EC_STRIP);
    j->tiles = ec_div_up(j->m, tile_rows(j));
    j->row_bytes = row_bytes(j->impl->by_rows, j->k, j->w->group);
    j->panel = ec_line_from(workspace);
    j->permuted = (float *)(void *)(j->panel + j->m * j->row_bytes + 64);

    /* 0.1 ns to quantise a value */
    ec_parallel(ec_threads_that_pay(threads, 0.1 * (double)j->m * (double)j->k), j->tiles, pack_tile, j);
    threads = threads_for(j->impl, j->bits, j->m, j->n, j->k, threads);
    j->grid = ec_grid_of(threads, j->strips, j->m, j->tiles, j->row_bytes, j->impl->by_rows ? EC_SECTION_L2 : EC_SECTION_L3);
    ec_parallel(threads, ec_grid_chunks(&j->grid), gemm_chunk, j);
    return EC_OK;
}

int ec_gemm_s4g(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *xq, const float *xscale, const ec_grouped *w,
                const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .w = w, .bits = 4, .bias = bias, .act = act, .y = y,
             .ldy = ldy};
    return run(&j, threads, workspace, size);
}

int ec_gemm_s8g(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *xq, const float *xscale, const ec_grouped *w,
                const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .w = w, .bits = 8, .bias = bias, .act = act, .y = y,
             .ldy = ldy};
    return run(&j, threads, workspace, size);
}
