/* int8 GEMM, the driver: quantise or copy x into activation panels, split the output, call the tile.
 *
 * Groups of up to three weight panels are the outer loop, so that a group (192 bytes per quad: 196 KB at k = 4096) stays
 * in L2 while the rows of a section (grid.h) pass by; k is never split, the sums stay in registers. */
#include "gemm_s8c.h"
#include "../grid.h"
#include "../activation/activation.h"
#include "../gemm_f32/gemm_f32.h"
#include "../quantize_rows/quantize_rows.h"

enum { BLOCK_K = 65536 }; /* beyond EC_S8C_EXACT_K, exact int32 blocks are added in int64 */

typedef struct {
    int64_t m, n, k, quads;
    const float *x, *xscale;
    const uint8_t *xq, *xzero;
    int64_t ldx;
    uint8_t flip_in; /* 0x80: xq holds int8 */
    const int8_t *w;
    const ec_s8c_maker *maker; /* or NULL, and w is not read */
    const float *wscale, *bias;
    const int32_t *wsum;
    int act;
    float *y;
    int32_t *yi;
    int8_t *yq;
    int64_t ldy;
    float out_scale;
    int out_zero;
    /* what run() plans */
    const ec_gemm_s8c_impl *impl;
    ec_quantize_rows_fn *quantize;
    ec_transpose_f32_fn *transpose;
    ec_activation_fn *activation;
    int64_t panels, groups, tiles, row_bytes;
    ec_grid grid;
    int threads;
    uint8_t *panel; /* workspace: activation panels, */
    float *sx;      /* then scale and zero of each row */
    int32_t *zero;
    uint8_t *made; /* for each thread, made_bytes() apart: weights it made, the number of their group behind them */
} job;

size_t ec_gemm_s8c_workspace(int64_t m, int64_t k) { return (size_t)(ec_odd_lines(k) * m) + 8 * (size_t)m + 192; }

/* A group of weights in L2, its number, and no two threads in a line. */
static int64_t made_bytes(int64_t k) { return EC_TILE_COLS * 4 * ec_div_up(k, 4) + 128; }

size_t ec_gemm_s8c_made_workspace(int64_t m, int64_t k, int threads)
{
    return ec_gemm_s8c_workspace(m, k) + (size_t)(ec_thread_limit(threads) * made_bytes(k));
}

/* Rows that are quantised already: the same panel by copying. Quads move as floats do, four bytes that nobody looks at. */
static void copy_rows(int mr, const job *j, int64_t row, uint8_t *panel)
{
    const uint8_t flip = j->impl->flip ^ j->flip_in, *x = j->xq + row * j->ldx;
    if (mr == 1) {
        for (int64_t p = 0; p < j->k; p++)
            panel[p] = x[p] ^ flip;
        memset(panel + j->k, 0, (size_t)(4 * j->quads - j->k)); /* their weights are zeros */
        return;
    }
    const int64_t whole = mr == EC_MAX_ROWS && j->ldx % 4 == 0 && (uintptr_t)x % 4 == 0 ? j->k / 4 : 0;
    if (whole)
        j->transpose(mr, whole, (const float *)(const void *)x, j->ldx / 4, (float *)(void *)panel, mr);
    for (int64_t i = 0; flip && i < 4 * mr * whole; i++)
        panel[i] ^= flip;
    for (int i = 0; i < mr; i++)
        for (int64_t p = 4 * whole; p < 4 * j->quads; p++) /* the last quad's weights are zeros beyond k */
            panel[p / 4 * 4 * mr + 4 * i + p % 4] = p < j->k ? x[i * j->ldx + p] ^ flip : 0;
}

static void pack_tile(void *ctx, int64_t tile, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t row = ec_part(j->m, j->tiles, tile);
    const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
    const int each = j->impl->by_rows ? 1 : mr; /* a panel of one row is the row */
    for (int64_t r = row; r < row + mr; r += each)
        if (j->x)
            j->quantize(each, j->k, j->x + r * j->ldx, j->ldx, j->impl->flip, j->panel + r * j->row_bytes, j->sx + r, j->zero + r);
        else
            copy_rows(each, j, r, j->panel + r * j->row_bytes);
    for (int64_t i = row; i < row + mr; i++) {
        if (!j->x) {
            j->zero[i] = j->xzero ? j->xzero[i] : j->flip_in;
            j->sx[i] = j->xscale ? j->xscale[i] : 1;
        }
        j->zero[i] -= j->impl->flip;
    }
}

/* k beyond EC_S8C_EXACT_K: blocks of exact int32 sums added in int64, converted once. */
static void long_tile(const job *j, int mr, int nv, const ec_gemm_s8c_tile *whole)
{
    static const int32_t ZERO[EC_MAX_ROWS];
    int32_t part[EC_MAX_ROWS][EC_TILE_COLS];
    int64_t sum[EC_MAX_ROWS][EC_TILE_COLS];
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < whole->cols; c++)
            sum[i][c] = -(int64_t)whole->zero[i] * whole->wsum[c];
    for (int64_t q = 0; q < whole->quads; q += BLOCK_K / 4) {
        ec_gemm_s8c_tile t = *whole;
        t.quads = EC_MIN(whole->quads - q, BLOCK_K / 4);
        t.x += 4 * mr * q;
        t.w += 64 * q;
        t.zero = ZERO;
        t.yi = part[0];
        t.ldy = EC_TILE_COLS;
        j->impl->tile(mr, nv, &t);
        for (int i = 0; i < mr; i++)
            for (int c = 0; c < whole->cols; c++)
                sum[i][c] += part[i][c];
    }
    for (int i = 0; i < mr; i++)
        for (int c = 0; c < whole->cols; c++) {
            const float v = (float)sum[i][c] * whole->sx[i] * whole->sw[c] + whole->bias[c];
            whole->y[i * whole->ldy + c] = whole->relu && v <= 0 ? 0.0f : ec_canonical(v);
        }
}

/* The weights of a group, which a thread makes once if it meets the group several times in a row. */
static const int8_t *group_weights(const job *j, int64_t group, int64_t panel, int64_t panels, int thread)
{
    if (!j->maker)
        return j->w + panel * 64 * j->quads;
    int8_t *w = (int8_t *)j->made + thread * made_bytes(j->k);
    int64_t *which = (int64_t *)(void *)(w + EC_TILE_COLS * 4 * j->quads);
    if (*which != group) {
        j->maker->make(j->maker->weights, panel, panels, w);
        *which = group;
    }
    return w;
}

static void gemm_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_chunk own = ec_grid_at(&j->grid, chunk);
    const int64_t group = own.group, next = ec_grid_next(&j->grid, chunk), tile0 = own.tile0, tile1 = own.tile1;
    const int64_t panel0 = ec_part(j->panels, j->groups, group), col0 = panel0 * EC_PANEL, panel_bytes = j->quads * 64;
    const int nv = (int)(ec_part(j->panels, j->groups, group + 1) - panel0);
    const int8_t *w = group_weights(j, group, panel0, nv, thread);
    /* The weights this thread most likely takes next come into L2 while it works on these. One or two rows are bound by
     * memory and do best as one plain stream. */
    const int64_t ahead0 = next > group && j->m > 3 && !j->maker ? ec_part(j->panels, j->groups, next) : j->panels;
    const char *ahead = (const char *)(j->maker ? w : j->w + ahead0 * panel_bytes);
    const int64_t ahead_bytes = EC_MIN(j->panels - ahead0, nv) * panel_bytes / (tile1 - tile0) & -64;
    int mr_before = 0;
    float quantised[EC_S8C_ROWS * EC_TILE_COLS];

    for (int64_t tile = tile0; tile < tile1; tile++, ahead += ahead_bytes) {
        const int64_t row = ec_part(j->m, j->tiles, tile);
        const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
        const ec_gemm_s8c_tile t = {
            .quads = j->quads,
            .x = j->panel + row * j->row_bytes,
            .ldx = j->row_bytes,
            .w = w,
            .panel = panel_bytes,
            .zero = j->zero + row,
            .wsum = j->wsum + col0,
            .sx = j->sx + row,
            .sw = j->yi ? ec_no_bias : j->wscale + col0,
            .bias = j->bias ? j->bias + col0 : ec_no_bias,
            .y = j->yi ? NULL : j->yq ? quantised : j->y + row * j->ldy + col0,
            .yi = j->yi ? j->yi + row * j->ldy + col0 : NULL,
            .ldy = j->yq ? EC_TILE_COLS : j->ldy,
            .cols = (int)EC_MIN(j->n - col0, nv * EC_PANEL),
            .relu = j->act == EC_ACT_RELU,
            .ahead = ahead,
            .ahead_bytes = ahead_bytes,
            .far = ec_memory_is_far(),
            .fresh = tile == tile0 && !j->maker,
            .same = mr == mr_before,
            .more = tile + 1 < tile1,
        };
        mr_before = mr;
        if (j->k > EC_S8C_EXACT_K && !j->yi)
            long_tile(j, mr, nv, &t);
        else
            j->impl->tile(mr, nv, &t);
        if (j->act > EC_ACT_RELU)
            j->activation(j->act, mr, t.cols, t.y, t.ldy);
        if (j->yq)
            for (int i = 0; i < mr; i++)
                ec_requantize_values(t.cols, t.y + i * t.ldy, j->out_scale, j->out_zero, j->yq + (row + i) * j->ldy + col0);
    }
}

/* Bound by the products, or by reading the weights: 1/20 ns a byte. */
int ec_gemm_s8c_threads(int64_t m, int64_t n, int64_t k, int threads)
{
    const double weights = (double)n * (double)k, compute = weights * (double)m / ec_use_gemm_s8c(m)->macs_per_ns;
    return ec_threads_that_pay(threads, compute > 0.05 * weights ? compute : 0.05 * weights);
}

static int run(job *j, int threads, void *workspace, size_t size)
{
    if (size < (j->maker ? ec_gemm_s8c_made_workspace(j->m, j->k, threads) : ec_gemm_s8c_workspace(j->m, j->k)))
        return EC_E_WORKSPACE;
    if (j->m == 0 || j->n == 0)
        return EC_OK;
    j->impl = ec_use_gemm_s8c(j->k > EC_S8C_EXACT_K ? 1 : j->m); /* a long tile is one of few rows */
    j->row_bytes = j->impl->by_rows ? ec_odd_lines(j->k) : ec_panel_bytes(j->k, 1);
    j->quantize = ec_use_quantize_rows();
    j->transpose = ec_use_transpose_f32();
    j->activation = ec_use_activation();
    j->quads = ec_div_up(j->k, 4);
    j->panels = ec_div_up(j->n, EC_PANEL);
    j->groups = ec_div_up(j->panels, j->impl->vecs);
    j->tiles = ec_div_up(j->m, j->impl->rows);
    j->panel = ec_line_from(workspace);
    j->sx = (float *)(void *)(j->panel + j->m * j->row_bytes);
    j->zero = (int32_t *)(j->sx + j->m);
    j->made = ec_line_from(j->zero + j->m);

    /* 0.06 ns to quantise or copy a value */
    ec_parallel(ec_threads_that_pay(threads, 0.06 * (double)j->m * (double)j->k), j->tiles, pack_tile, j);
    if (j->yq)
        for (int64_t i = 0; i < j->m; i++)
            if (j->sx[i] != j->sx[i])
                return EC_E_NONFINITE;
    j->threads = ec_gemm_s8c_threads(j->m, j->n, j->k, threads);
    j->grid = ec_grid_of(j->threads, j->groups, j->m, j->tiles, j->row_bytes, j->impl->by_rows ? EC_SECTION_L2 : EC_SECTION_L3);
    for (int t = 0; j->maker && t < j->threads; t++)
        memset(j->made + (t + 1) * made_bytes(j->k) - 128, 0xFF, 128); /* no group */
    ec_parallel(j->threads, ec_grid_chunks(&j->grid), gemm_chunk, j);
    return EC_OK;
}

int ec_gemm_s8c(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale, const uint8_t *xzero,
                const int8_t *w, const float *wscale, const int32_t *wsum, const float *bias, int act, float *y, int8_t *yq, int64_t ldy,
                float out_scale, int out_zero, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = x ? ldx : k, .xq = xq, .xscale = xscale, .xzero = xzero, .w = w, .wscale = wscale,
             .wsum = wsum, .bias = bias, .act = act, .y = y, .yq = yq, .ldy = ldy, .out_scale = out_scale, .out_zero = out_zero};
    return run(&j, threads, workspace, size);
}

int ec_gemm_s8c_i32(int64_t m, int64_t n, int64_t k, const void *a, int64_t lda, int a_signed, const int8_t *w, const int32_t *wsum,
                    int32_t *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .xq = a, .ldx = lda, .flip_in = a_signed ? 0x80 : 0, .w = w, .wsum = wsum, .yi = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}

int ec_gemm_s8c_made(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                     const uint8_t *xzero, const ec_s8c_maker *w, const float *wscale, const int32_t *wsum, const float *bias, int act,
                     float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and what is made is counted by it */
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = x ? ldx : k, .xq = xq, .xscale = xscale, .xzero = xzero, .maker = w, .wscale = wscale,
             .wsum = wsum, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}
