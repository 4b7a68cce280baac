/* float32 GEMM, the driver: transpose x into activation panels, split the output, call the tile.
 *
 * Groups of up to three weight panels are the outer loop and blocks of k the next, so that a group's block stays in L2
 * while the rows of a section (grid.h) pass by; y carries the sums from block to block. Weights that are not packed, or
 * not float32, become panels block by block in scratch. */
#include "gemm_f32.h"
#include "../grid.h"
#include "../activation/activation.h"

enum { FEW = 3 /* rows that stream through all of k */, BLOCK_K = 1024 };

typedef struct {
    int64_t m, n, k;
    const float *x;
    int64_t ldx;
    int x_turned;           /* x is [k][ldx] */
    int add;                /* to what is in y */
    const float *w;         /* panels if ldw is 0, else rows */
    int64_t ldw;
    const int8_t *w8;       /* or int8 panels n16k4 with their scales */
    const float *wscale;
    const ec_grouped *grouped; /* or records */
    int bits;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    /* what run() plans */
    const ec_gemm_f32_impl *impl;
    ec_transpose_f32_fn *transpose;
    ec_expand_s8_fn *expand;
    ec_expand_sg_fn *expand_sg;
    ec_gemv_sg_fn *gemv_sg;
    ec_activation_fn *activation;
    int64_t panels, groups, tiles, blocks; /* blocks of k */
    ec_grid grid;
    int threads;
    float *panel;   /* workspace: activation panels, */
    float *scratch; /* then per thread one block of a group's weights */
} job;

const float ec_no_bias[EC_TILE_COLS] = {
#define TWELVE(x) x, x, x, x, x, x, x, x, x, x, x, x
    TWELVE(-0.0f), TWELVE(-0.0f), TWELVE(-0.0f), TWELVE(-0.0f)};

enum { SCRATCH = BLOCK_K * EC_TILE_COLS + 16 };

static int is_packed(const job *j) { return !j->ldw && !j->w8 && !j->grouped; }

/* Where a tile's panel begins. The last store of a transposition may write past its panel: there is room between them. */
static int64_t panel_at(int64_t row, int64_t tile, int64_t k) { return row * k + tile * EC_PANEL; }

size_t ec_gemm_f32_workspace(int64_t m, int64_t k, int packed, int threads)
{
    return 4 * ((size_t)panel_at(m, m, k) + (packed ? 0 : (size_t)ec_thread_limit(threads) * SCRATCH)) + 64;
}

static void pack_tile(void *ctx, int64_t tile, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t row = ec_part(j->m, j->tiles, tile);
    const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
    float *panel = j->panel + panel_at(row, tile, j->k);
    if (!j->x_turned) {
        j->transpose(mr, j->k, j->x + row * j->ldx, j->ldx, panel, mr);
        return;
    }
    /* Copies of a fixed size: what is too much, the next one overwrites. */
    const int64_t whole = mr <= 8 && row + 8 <= j->m ? j->k : 0;
    for (int64_t c = 0; c < whole; c++)
        memcpy(panel + c * mr, j->x + c * j->ldx + row, 32);
    for (int64_t c = whole; c < j->k; c++)
        memcpy(panel + c * mr, j->x + c * j->ldx + row, 4 * (size_t)mr);
}

/* Makes panels [k][16] of columns col0.. and k0 .. k0 + k of the weights. */
static void make_panels(const job *j, int64_t col0, int nv, int64_t k0, int64_t k, float *out)
{
    for (int v = 0; v < nv; v++, col0 += EC_PANEL, out += k * EC_PANEL) {
        if (j->grouped) {
            j->expand_sg(j->grouped, j->bits, ec_div_up(j->k, j->grouped->group), col0, k0, k, out);
            continue;
        }
        if (!j->w8) {
            const int rows = (int)EC_MIN(j->n - col0, EC_PANEL);
            j->transpose(rows, k, j->w + col0 * j->ldw + k0, j->ldw, out, EC_PANEL);
            continue;
        }
        j->expand(k, j->w8 + col0 * ec_div_up(j->k, 4) * 4 + k0 * EC_PANEL, j->wscale + col0, out);
    }
}

/* Where block b of k begins: at a whole quad, as int8 panels need. */
static int64_t block_at(const job *j, int64_t b)
{
    return EC_MIN(j->k, 4 * ec_part(ec_div_up(j->k, 4), j->blocks, b));
}

static void gemm_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_chunk own = ec_grid_at(&j->grid, chunk);
    const int64_t group = own.group, next = ec_grid_next(&j->grid, chunk), tile0 = own.tile0, tile1 = own.tile1;
    const int64_t panel0 = ec_part(j->panels, j->groups, group), col0 = panel0 * EC_PANEL;
    const int nv = (int)(ec_part(j->panels, j->groups, group + 1) - panel0);
    const int packed = is_packed(j);
    float *scratch = j->scratch + (int64_t)thread * SCRATCH;

    for (int64_t b = 0; b < j->blocks; b++) {
        const int64_t k0 = block_at(j, b), k = block_at(j, b + 1) - k0;
        const float *w = scratch;
        if (packed)
            w = j->w + panel0 * EC_PANEL * j->k + k0 * EC_PANEL;
        else
            make_panels(j, col0, nv, k0, k, scratch);
        /* The weights that this thread most likely takes next come into L2 while it works on these: the next block of k,
         * or the first of another group. */
        const float *ahead = w + k * EC_PANEL;
        int64_t ahead_lines = 0;
        if (packed && j->m > FEW) {
            const int last = b + 1 == j->blocks;
            const int64_t p = last && next > group ? ec_part(j->panels, j->groups, next) : j->panels;
            if (last)
                ahead = j->w + p * EC_PANEL * j->k;
            if (!last || p + nv <= j->panels)
                ahead_lines = ec_div_up(k, tile1 - tile0);
        }
        for (int64_t tile = tile0; tile < tile1; tile++, ahead += 16 * ahead_lines) {
            const int64_t row = ec_part(j->m, j->tiles, tile);
            const int mr = (int)(ec_part(j->m, j->tiles, tile + 1) - row);
            const ec_gemm_f32_tile t = {
                .k = k,
                .x = j->panel + panel_at(row, tile, j->k) + k0 * mr,
                .w = w,
                .panel = EC_PANEL * (packed ? j->k : k),
                .bias = j->bias ? j->bias + col0 : ec_no_bias,
                .y = j->y + row * j->ldy + col0,
                .ldy = j->ldy,
                .cols = (int)EC_MIN(j->n - col0, nv * EC_PANEL),
                .first = b == 0 && !j->add,
                .last = b + 1 == j->blocks,
                .relu = j->act == EC_ACT_RELU,
                .ahead = ahead,
                .ahead_panel = EC_PANEL * j->k,
                .ahead_lines = ahead_lines,
                .far = packed && ec_memory_is_far(),
                .fresh = packed && tile == tile0,
            };
            j->impl->tile(mr, nv, &t);
            if (t.last && j->act > EC_ACT_RELU)
                j->activation(j->act, mr, t.cols, t.y, t.ldy);
        }
    }
}

/* Few rows of x times a strip of records: the weights are never stored as floats. */
static void gemv_chunk(void *ctx, int64_t strip, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t groups = ec_div_up(j->k, j->grouped->group), col0 = strip * EC_STRIP, cols = EC_MIN(j->n - col0, EC_STRIP);
    const uint8_t *w = (const uint8_t *)j->grouped->records + strip * groups * (int64_t)ec_record_bytes(j->grouped, j->bits);
    float sums[FEW][EC_STRIP];
    j->gemv_sg((int)j->m, &(ec_gemv_sg){.groups = groups, .x = j->panel, .w = w, .form = j->grouped, .bits = j->bits, .sums = sums[0]});
    for (int64_t i = 0; i < j->m; i++)
        for (int64_t c = 0; c < cols; c++) {
            const float v = sums[i][c] + (j->bias ? j->bias[col0 + c] : -0.0f);
            j->y[i * j->ldy + col0 + c] = j->act == EC_ACT_RELU && v <= 0 ? 0.0f : v;
        }
    if (j->act > EC_ACT_RELU)
        j->activation(j->act, j->m, cols, j->y + col0, j->ldy);
}

/* Inputs that the last group lacks. */
static int64_t missing(const job *j) { return ec_div_up(j->k, j->grouped->group) * j->grouped->group - j->k; }

/* Few rows, if the scratch that other weights need has room for the missing inputs: groups of tens of thousands may lack more. */
static int is_gemv(const job *j) { return j->grouped && j->m <= FEW && j->m * missing(j) <= SCRATCH; }

static void run_gemv(job *j)
{
    j->gemv_sg = ec_use_gemv_sg();
    /* Zeros up to a whole group, so that the kernel has no remainder. */
    memset(j->panel + j->m * j->k, 0, sizeof(float) * (size_t)(j->m * missing(j)));
    ec_parallel(j->threads, ec_div_up(j->n, EC_STRIP), gemv_chunk, j);
}

/* Bound by the products, or by reading the weights: 1/20 ns a byte. */
int ec_gemm_f32_threads(int64_t m, int64_t n, int64_t k, int threads)
{
    const double weights = (double)n * (double)k, compute = weights * (double)m / ec_use_gemm_f32()->macs_per_ns;
    return ec_threads_that_pay(threads, compute > 0.2 * weights ? compute : 0.2 * weights);
}

static int run(job *j, int threads, void *workspace, size_t size)
{
    const int packed = is_packed(j);
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < ec_gemm_f32_workspace(j->m, j->k, packed, threads))
        return EC_E_WORKSPACE;
    if (j->m == 0 || j->n == 0)
        return EC_OK;
    j->impl = ec_use_gemm_f32();
    j->transpose = ec_use_transpose_f32();
    j->expand = ec_use_expand_s8();
    j->expand_sg = ec_use_expand_sg();
    j->activation = ec_use_activation();
    j->panels = ec_div_up(j->n, EC_PANEL);
    j->groups = ec_div_up(j->panels, j->impl->vecs);
    j->tiles = ec_div_up(j->m, j->impl->rows);
    j->panel = ec_line_from(workspace);
    j->scratch = j->panel + panel_at(j->m, j->m, j->k);
    /* A few rows of packed weights are one stream through all of k. */
    j->blocks = j->k == 0 || (j->m <= FEW && packed) ? 1 : ec_div_up(j->k, BLOCK_K);

    ec_parallel(ec_threads_that_pay(threads, 0.06 * (double)j->m * (double)j->k), j->tiles, pack_tile, j);
    j->threads = ec_gemm_f32_threads(j->m, j->n, j->k, threads);
    if (is_gemv(j)) {
        run_gemv(j);
        return EC_OK;
    }
    j->grid = ec_grid_of(j->threads, j->groups, j->m, j->tiles, 4 * j->k, EC_SECTION_L3);
    ec_parallel(j->threads, ec_grid_chunks(&j->grid), gemm_chunk, j);
    return EC_OK;
}

int ec_gemm_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, const float *bias, int act,
                float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .w = w, .ldw = ldw, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}

int ec_gemm_s8c_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const int8_t *w, const float *wscale, const float *bias,
                    int act, float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .w8 = w, .wscale = wscale, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}

int ec_gemm_sg_f32(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_grouped *w, int bits, const float *bias, int act,
                   float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .grouped = w, .bits = bits, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, workspace, size);
}

typedef struct {
    int64_t n, k, ldw;
    const float *w;
    float *panels;
} turning;

enum { TURN_ROWS = 32 };

/* Rows of w [k][n] are lines of its panels already. */
static void turn_rows(void *ctx, int64_t task, int thread)
{
    (void)thread;
    const turning *t = ctx;
    for (int64_t row = task * TURN_ROWS; row < EC_MIN(t->k, (task + 1) * TURN_ROWS); row++) {
        const float *from = t->w + row * t->ldw;
        float *to = t->panels + row * EC_PANEL;
        int64_t left = t->n;
        for (; left >= EC_PANEL; left -= EC_PANEL, from += EC_PANEL, to += t->k * EC_PANEL)
            memcpy(to, from, 4 * EC_PANEL);
        if (left > 0) {
            memset(to, 0, 4 * EC_PANEL);
            memcpy(to, from, 4 * (size_t)left);
        }
    }
}

size_t ec_gemm_f32_add_workspace(int64_t m, int64_t n, int64_t k)
{
    return ec_gemm_f32_workspace(m, k, 1, 1) + 4 * (size_t)(ec_div_up(n, EC_PANEL) * EC_PANEL * k) + 64;
}

int ec_gemm_f32_add(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, int x_turned, const float *w, int64_t ldw, float *y,
                    int64_t ldy, int threads, void *workspace, size_t size)
{
    if (size < ec_gemm_f32_add_workspace(m, n, k))
        return EC_E_WORKSPACE;
    const size_t used = ec_gemm_f32_workspace(m, k, 1, 1);
    float *panels = ec_line_from((char *)workspace + used);
    turning t = {.n = n, .k = k, .ldw = ldw, .w = w, .panels = panels};
    if (m == 0 || n == 0 || k == 0)
        return EC_OK;
    ec_parallel(ec_threads_that_pay(threads, 0.2 * (double)n * (double)k), ec_div_up(k, TURN_ROWS), turn_rows, &t);
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .x_turned = x_turned, .add = 1, .w = panels, .act = EC_ACT_NONE, .y = y,
             .ldy = ldy};
    return run(&j, threads, workspace, used);
}
