/* int8 N:M weights times rows of x, each output finding its inputs by their places: the driver.
 *
 * Rows of x become rows of bytes. A quad is four kept inputs of each of a panel's 16 outputs. They come from a window of neighbouring
 * inputs, the same for all outputs: the kernel reads the window and picks four bytes for each output. Patterns whose windows are larger
 * than it reaches run in plain C. Where it is faster to gather what a block of outputs shares, spmm_nm.c multiplies. */
#include "spmm_nm8.h"
#include "../activation/activation.h"
#include "../quantize_rows/quantize_rows.h"

enum {
    ROWS = 128,            /* rows that pass by a group of panels before the next group: a block of their bytes stays in L2 */
    FEW = 16,
    GROUP = 8,             /* panels of a group */
    ROW_BYTES = 192 << 10, /* of rows that stay in L2 whole: then a group is one panel, a single stream of weights */
    SUMS = EC_PANEL * ROWS,
    SCRATCH = EC_NM8_SCRATCH + 4 * SUMS * GROUP /* bytes of a thread */
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
    /* what run() plans */
    const ec_spmm_nm8_impl *impl;
    ec_quantize_rows_fn *quantize;
    ec_activation_fn *activation;
    int halves;
    int64_t panels, groups, row_blocks;
    uint8_t *rows;  /* workspace: rows of bytes, row_bytes() apart, */
    float *sx;      /* scale and zero of each, */
    int32_t *zero;
    int32_t *window; /* of each quad, and from there to its groups, */
    uint32_t *base;
    uint8_t *scratch; /* then for each thread what the kernel asks for */
} job;

/* The inputs that a quad may come from, counted from the first of its first group on. */
static int64_t window_inputs(const ec_nm *w)
{
    int64_t most = 0;
    for (int64_t q = 0; q < w->n; q++) /* the quads of four rounds of n groups */
        most = w->m * ((4 * q + 3) / w->n - 4 * q / w->n + 1) > most ? w->m * ((4 * q + 3) / w->n - 4 * q / w->n + 1) : most;
    return most;
}

/* For few rows and 32 outputs or more, gathering once costs less than decoding places. */
int ec_nm8_by_places(int64_t m, const ec_nm *w)
{
    const ec_spmm_nm8_impl *impl = ec_use_spmm_nm8();
    if (w->block == 1 || m <= impl->shared_few)
        return 1;
    return window_inputs(w) <= impl->window && impl->shared && (w->block == EC_PANEL || m > FEW);
}

/* AMX multiplies all inputs of many rows in the time that other kernels take for a third of them. Elsewhere blocks that share their
 * inputs always win. Places of each output win for a few rows, and for many where less than half is kept; half and more only where their
 * permutation does not take the dot products' port, as it does on Intel's CPUs (bench/TRIED.md), and on ARM's by count of instructions. */
int ec_nm8_form(int64_t rows, int n, int m, int block)
{
    const ec_spmm_nm8_impl *impl = ec_use_spmm_nm8();
    const int squares = ec_use_gemm_s8c(EC_S8C_ROWS)->by_rows;
    int own;
    if (block > 1)
        own = !squares || 3 * n <= m || rows * n <= 2 * m;
    else
        own = impl->places && window_inputs(&(ec_nm){.n = n, .m = m}) <= impl->window &&
              (rows * n <= 8 * m || (!squares && (2 * n < m || impl->half)));
    if (own)
        return EC_NM8_OWN;
    return squares || (block == 1 && (rows < 16 || 3 * n > m)) ? EC_NM8_DENSE : EC_NM8_CSR;
}

static const ec_spmm_nm8_impl SCALAR = {.panel = ec_spmm_nm8_scalar, .block = 64, .panels = 1};

/* Whether four kept inputs always come from exactly eight inputs, and the kernel wants such windows doubled. */
static int in_halves(const ec_nm *w) { return ec_use_spmm_nm8()->halves && w->m == 2 * w->n && 4 % w->n == 0; }

/* Bytes of a row; with halves, each 8 inputs are there twice. Room for a window of 64 past the end, and no power of two from row to
 * row. */
static int64_t row_bytes(int64_t k, int halves) { return ec_div_up((k + 16) * (1 + halves), 128) * 128 + 64; }

size_t ec_nm8_workspace(int64_t m, int64_t k, const ec_nm *w, int threads)
{
    const int64_t quads = ec_div_up(ec_nm_kept(k, w), 4);
    return 128 + (size_t)(m * (row_bytes(k, 1) + 8) + 8 * quads + ec_thread_limit(threads) * SCRATCH);
}

/* After each 8 bytes the same 8 inverted; in place, from the last to the first. */
static void double_row(int64_t k, uint8_t *row)
{
    for (int64_t i = ec_div_up(k, 8) - 1; i >= 0; i--) {
        uint64_t eight;
        memcpy(&eight, row + 8 * i, 8);
        memcpy(row + 16 * i, &eight, 8);
        eight = ~eight;
        memcpy(row + 16 * i + 8, &eight, 8);
    }
}

static void pack_row(void *ctx, int64_t i, int thread)
{
    (void)thread;
    const job *j = ctx;
    const uint8_t flip = j->impl->flip;
    uint8_t *row = j->rows + i * row_bytes(j->k, j->halves);
    if (j->x)
        j->quantize(1, j->k, j->x + i * j->ldx, j->ldx, flip, row, j->sx + i, j->zero + i);
    else {
        for (int64_t p = 0; p < j->k; p++)
            row[p] = j->xq[i * j->k + p] ^ flip;
        j->sx[i] = j->xscale[i];
        j->zero[i] = j->xzero[i];
    }
    j->zero[i] -= flip;
    if (j->halves)
        double_row(j->k, row);
}

static void nm8_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const ec_nm *w = j->w;
    const int64_t block = chunk / j->groups, group = chunk % j->groups;
    const int64_t row0 = ec_part(j->m, j->row_blocks, block), rows = ec_part(j->m, j->row_blocks, block + 1) - row0;
    const int64_t panel0 = ec_part(j->panels, j->groups, group), panel1 = ec_part(j->panels, j->groups, group + 1);
    const int few = rows <= j->impl->whole;
    const int64_t step = few ? j->quads + 1 : j->impl->block, /* + 1: k may be 0 */
                  words = ec_nm_words(j->kept, w), ldx = row_bytes(j->k, j->halves);
    uint8_t *scratch = j->scratch + (int64_t)thread * SCRATCH;
    for (int64_t quad = 0; quad == 0 || quad < j->quads; quad += step)
        for (int64_t panel = panel0, panels; panel < panel1; panel += panels) {
            const int64_t col0 = panel * EC_PANEL;
            panels = EC_MIN(panel1 - panel, few ? 1 : j->impl->panels);
            j->impl->panel(&(ec_nm8_panel){
                .tile = {
                    .quads = j->quads,
                    .x = j->rows + row0 * ldx,
                    .w = w->codes + panel * j->quads * 64,
                    .panel = j->quads * 64,
                    .zero = j->zero + row0,
                    .wsum = w->sums + col0,
                    .sx = j->sx + row0,
                    .sw = w->scale + col0,
                    .bias = j->bias ? j->bias + col0 : ec_no_bias,
                    .y = j->y + row0 * j->ldy + col0,
                    .ldy = j->ldy,
                    .cols = (int)EC_MIN(j->n - col0, panels * EC_PANEL),
                    .relu = j->act == EC_ACT_RELU,
                    .far = ec_memory_is_far(),
                },
                .m = rows,
                .ldx = ldx,
                .panels = (int)panels,
                .quad0 = quad,
                .quad1 = EC_MIN(quad + step, j->quads),
                .sums = (int32_t *)(scratch + EC_NM8_SCRATCH) + (panel - panel0) * SUMS,
                .negative = w->negative + col0,
                .window = j->window,
                .base = j->base,
                .places = w->packed + (w->block == 1 ? col0 : col0 / w->block) * words,
                .places_panel = words * (w->block == 1 ? EC_PANEL : (col0 + EC_PANEL) / w->block - col0 / w->block),
                .bits = ec_nm_bits(w),
                .shared = w->block > 1,
                .halves = j->halves,
                .ahead = panel + 2 * panels <= j->panels,
                .scratch = scratch,
            });
        }
    const int64_t col0 = panel0 * EC_PANEL;
    if (j->act > EC_ACT_RELU)
        j->activation(j->act, rows, EC_MIN(j->n, panel1 * EC_PANEL) - col0, j->y + row0 * j->ldy + col0, j->ldy);
}

int ec_spmm_nm8_threads(int64_t m, int64_t n, int64_t k, int threads) { return ec_gemm_s8c_threads(m, n, k, threads); }

/* A window of 64 inputs begins at a multiple of 64 where that covers the quad: its load crosses no cache line. */
static void plan_windows(const job *j)
{
    const int64_t n = j->w->n, m = j->w->m;
    for (int64_t q = 0; q < j->quads; q++) {
        const int64_t group = 4 * q / n, last = EC_MIN(4 * q + 3, j->kept - 1) / n, first = group * m;
        const int64_t window = j->impl->window == 64 && (last + 1) * m <= first / 64 * 64 + 64 ? first / 64 * 64 : first;
        uint8_t base[4];
        for (int64_t b = 0; b < 4; b++)
            base[b] = (uint8_t)(EC_MIN(4 * q + b, j->kept - 1) / n * m - window);
        memcpy(j->base + q, base, 4);
        j->window[q] = (int32_t)(window * (1 + j->halves));
    }
}

int ec_spmm_nm8(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale, const uint8_t *xzero,
                const ec_nm *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace, size_t size)
{
    if (ec_nm8_in_planes(m, w))
        return ec_nm8_planes(m, n, k, x, ldx, xq, xscale, xzero, w, bias, act, y, ldy, threads, workspace, size);
    if (!ec_nm8_by_places(m, w))
        return ec_nm8_gathered(m, n, k, x, ldx, xq, xscale, xzero, w, bias, act, y, ldy, threads, workspace, size);
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < ec_nm8_workspace(m, k, w, threads))
        return EC_E_WORKSPACE;
    if (m == 0 || n == 0)
        return EC_OK;
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .xzero = xzero,
             .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    j.kept = ec_nm_kept(k, w);
    j.quads = ec_div_up(j.kept, 4);
    j.impl = window_inputs(w) <= ec_use_spmm_nm8()->window ? ec_use_spmm_nm8() : &SCALAR;
    j.quantize = ec_use_quantize_rows();
    j.activation = ec_use_activation();
    j.halves = in_halves(w);
    j.panels = ec_div_up(n, EC_PANEL);
    j.rows = ec_line_from(workspace);
    j.scratch = j.rows + m * row_bytes(k, j.halves);
    j.sx = (float *)(j.scratch + (int64_t)threads * SCRATCH);
    j.zero = (int32_t *)(j.sx + m);
    j.window = j.zero + m;
    j.base = (uint32_t *)(j.window + j.quads);
    plan_windows(&j);
    ec_parallel(ec_threads_that_pay(threads, 0.1 * (double)m * (double)k), m, pack_row, &j);
    const int work = ec_spmm_nm8_threads(m, n, j.kept, threads);
    j.groups = ec_div_up(j.panels, m <= j.impl->whole ? 1 : m * row_bytes(k, j.halves) <= ROW_BYTES ? j.impl->panels : GROUP);
    const int64_t fit = ec_div_up(m, ROWS), wanted = work == 1 ? 1 : ec_div_up((int64_t)EC_CHUNKS_PER_THREAD * work, j.groups);
    j.row_blocks = wanted > fit ? EC_MIN(m, wanted) : fit;
    ec_parallel(work, j.groups * j.row_blocks, nm8_chunk, &j);
    return EC_OK;
}
