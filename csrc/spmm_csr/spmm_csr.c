/* CSR weights times rows of x, the driver of both kinds of values.
 *
 * Several tokens: x becomes groups of tokens, which fill the lanes: [groups][k][lanes]. For such a group a thread takes some blocks of
 * the weight's form, of rows or of pairs of rows, adds up block after block of inputs, and transposes the sums into rows of y. One
 * token: see csr_rows.c. */
#include "spmm_csr.h"
#include "../activation/activation.h"
#include "../gemm_s8c/gemm_s8c.h"
#include "../gemm_f32/gemm_f32.h"
#include "../quantize_rows/quantize_rows.h"
#include "../spmm_csr8/spmm_csr8.h"

enum {
    MOST_ROWS = 512, /* of a chunk: the activations of a block of inputs are fetched once for all of them */
    SUMS = (MOST_ROWS + 1) * EC_MAX_LANES, /* and the partner of an odd row */
    TURNED = EC_PANEL * EC_PANEL + 16,
    PACK_K = 256, /* inputs to pack at a time */
    L2_ENTRIES = 1 << 18 /* float32 entries that a small L2 holds */
};

typedef struct {
    int64_t m, n, k;
    const float *x;
    int64_t ldx;
    const uint8_t *xq, *xzero; /* or quantised rows */
    const float *xscale;
    const ec_csr *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    int columns; /* x is [k][ldx], and y [n][ldy]: tokens are in the lanes already */
    /* what run() plans */
    int kind;
    int ahead; /* whether few tokens ask for entries ahead */
    ec_csr_parts form;
    ec_csr_pack_fn *pack; /* or NULL, as the next */
    ec_csr_finish_fn *finish;
    ec_csr8_finish_fn *finish8;
    ec_transpose_f32_fn *transpose;
    ec_quantize_rows_fn *quantize;
    ec_activation_fn *activation;
    int64_t groups, chunks;
    int threads;      /* that multiply */
    int lanes;        /* of the widest group */
    int64_t units;    /* sixteens of tokens that the groups share out; eights if there is only one */
    float *panel;     /* workspace: x for the kernels, float32 or int8, */
    uint8_t *q;       /* quantised rows, panels of at most 8, */
    float *sx;        /* their scales, */
    int32_t *zero;    /* and zero points, */
    float *scratch;   /* for each thread sums and room to turn them, */
    uint8_t *row;     /* and a quantised row */
} job;

/* Tokens of which groups are made. */
static int unit(int64_t m, int int8) { return int8 ? (m > 32 ? 64 : m > 16 ? 32 : 16) : m > 8 ? 16 : 8; }

static size_t workspace(int64_t m, int64_t k, int threads, int int8)
{
    if (m <= 1)
        return ec_csr_rows_workspace(k);
    const size_t tokens = (size_t)(ec_div_up(m, unit(m, int8)) * unit(m, int8)), limit = (size_t)ec_thread_limit(threads);
    const size_t wide = (size_t)ec_panel_bytes(k, 1);
    const size_t x = int8 ? (3 * tokens + limit) * wide + 64 + 8 * (tokens + (size_t)m) : 4 * tokens * (size_t)k;
    const int dense = int8 && k <= EC_S8C_EXACT_K;
    const size_t bytes = 64 + x + 4 * limit * (SUMS + TURNED), made = dense ? ec_gemm_s8c_made_workspace(m, k, threads) : 0;
    return bytes > made ? bytes : made; /* more than rows need */
}

size_t ec_spmm_csr_workspace(int64_t m, int64_t k, int threads) { return workspace(m, k, threads, 0); }
size_t ec_spmm_csr8_workspace(int64_t m, int64_t k, int threads) { return workspace(m, k, threads, 1); }

/* Row i as k bytes, XORed with flip (room for ec_panel_bytes(k, 1)), with scale and zero point. */
static void quantize_row(const job *j, int64_t i, uint8_t flip, uint8_t *row)
{
    if (j->x) {
        j->quantize(1, j->k, j->x + i * j->ldx, j->ldx, flip, row, j->sx + i, j->zero + i);
        return;
    }
    j->sx[i] = j->xscale[i];
    j->zero[i] = j->xzero[i];
    for (int64_t c = 0; c < j->k; c++)
        row[c] = j->xq[i * j->k + c] ^ flip;
}

static int64_t first_token(const job *j, int64_t group)
{
    return ec_part(j->units, j->groups, group) * (j->units == 1 || j->w->codes ? j->lanes : 16);
}

/* Lanes of a group; of int8 the last may need fewer than the others. */
static int lanes_of(const job *j, int64_t group)
{
    const int64_t token0 = first_token(j, group);
    return j->kind == EC_CSR_SIGNED ? EC_MIN(unit(j->m - token0, 1), j->lanes) : (int)(first_token(j, group + 1) - token0);
}

static int panel_rows(int lanes) { return EC_MIN(lanes / 4, 8); }

/* Panel p % 8 of group p / 8, if that has so many. */
static void quantize_panel(void *ctx, int64_t p, int thread)
{
    const job *j = ctx;
    const int lanes = lanes_of(j, p / 8), mr = panel_rows(lanes), at = (int)(p % 8) * mr;
    const int64_t row0 = first_token(j, p / 8) + at, bytes = ec_panel_bytes(j->k, mr);
    const uint8_t flip = j->kind == EC_CSR_SIGNED ? 0 : 0x80;
    uint8_t *panel = j->q + row0 * ec_panel_bytes(j->k, 1);
    if (at >= lanes)
        return;
    if (j->x && row0 + mr <= j->m) {
        j->quantize(mr, j->k, j->x + row0 * j->ldx, j->ldx, flip, panel, j->sx + row0, j->zero + row0);
        return;
    }
    memset(panel, 0, (size_t)bytes); /* lanes without a token */
    uint8_t *row = j->row + thread * ec_panel_bytes(j->k, 1);
    for (int r = 0; r < mr && row0 + r < j->m; r++) {
        memset(row, 0, (size_t)ec_panel_bytes(j->k, 1));
        quantize_row(j, row0 + r, flip, row);
        for (int64_t quad = 0; quad < ec_div_up(j->k, 4); quad++)
            memcpy(panel + (quad * mr + r) * 4, row + 4 * quad, 4);
    }
}

/* x of a group and an input, int8. */
static int8_t *lines(const job *j, int64_t group, int64_t k0)
{
    const int64_t wide = ec_panel_bytes(j->k, 1), each = j->kind == EC_CSR_SIGNED ? 1 : 2;
    return (int8_t *)j->panel + each * (first_token(j, group) * wide + k0 * lanes_of(j, group));
}

/* Some values, rarely many: in sixteens, which the compiler moves without a call. */
static void copy(float *to, const float *from, int64_t count)
{
    for (; count >= 16; count -= 16, to += 16, from += 16)
        memcpy(to, from, 64);
    for (; count > 0; count--)
        *to++ = *from++;
}

/* Packs PACK_K inputs of a group. */
static void pack(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const int64_t group = chunk % j->groups, k0 = chunk / j->groups * PACK_K, k = EC_MIN(j->k - k0, PACK_K);
    if (j->w->codes) {
        const int some = lanes_of(j, group), mr = panel_rows(some);
        const uint8_t *q = j->q + first_token(j, group) * ec_panel_bytes(j->k, 1) + k0 * mr;
        ec_use_pack_csr8()(some, ec_div_up(k, 4), q, ec_panel_bytes(j->k, mr), lines(j, group, k0));
        return;
    }
    const int64_t token0 = first_token(j, group), lanes = first_token(j, group + 1) - token0;
    const int tokens = (int)EC_MIN(j->m - token0, lanes);
    const float *x = j->columns ? j->x + k0 * j->ldx + token0 : j->x + token0 * j->ldx + k0;
    float *panel = j->panel + token0 * j->k + k0 * lanes;
    if (j->columns)
        for (int64_t i = 0; i < k; i++, panel += lanes) {
            copy(panel, x + i * j->ldx, tokens);
            for (int64_t t = tokens; t < lanes; t++)
                panel[t] = 0;
        }
    else if (j->pack && lanes >= 16)
        j->pack(tokens, k, x, j->ldx, panel, lanes);
    else
        j->transpose(tokens, k, x, j->ldx, panel, lanes);
}

static void multiply(const job *j, int64_t b, int64_t kb, int64_t group, float *sums)
{
    const ec_csr_parts *f = &j->form;
    const int64_t rows = f->row[b + 1] - f->row[b], k0 = kb * f->block_k;
    const int64_t before = f->row[b] * f->blocks_k, each = j->kind == EC_CSR_PAIRS ? (rows + 1) / 2 : rows;
    const uint16_t *count = f->count + (j->kind == EC_CSR_PAIRS ? 5 * (before / 2 + kb * each) : 2 * (before + kb * each));
    const int64_t *start = f->start + 2 * (b * f->blocks_k + kb);
    if (j->w->codes) {
        ec_use_spmm_csr8()(lanes_of(j, group), &(ec_csr8_block){
            .rows = rows, .first = kb == 0, .count = count, .order = count + rows, .local = f->local + start[0],
            .value = (const uint8_t *)f->value + start[1], .sums = (int32_t *)sums,
            .x = lines(j, group, k0)});
        return;
    }
    const int64_t token0 = first_token(j, group), lanes = first_token(j, group + 1) - token0;
    const ec_csr_block block = {
        .rows = each,
        .first = kb == 0,
        .count = count,
        .order = count + (j->kind == EC_CSR_PAIRS ? 3 : 1) * each,
        .local = f->local + start[0],
        .value = (const float *)f->value + start[1],
        .sums = sums,
        .x = j->panel + token0 * j->k + k0 * lanes,
        .ahead = lanes <= 16 && j->ahead,
    };
    if (j->kind == EC_CSR_PAIRS)
        ec_use_csr_pairs()((int)lanes, &block);
    else
        ec_use_spmm_csr()((int)lanes, &block);
}

/* y of one token and up to 16 outputs from col on, from their sums. */
static void finish(const job *j, const float *sums, int64_t token, int64_t col, int cols)
{
    float *y = j->y + token * j->ldy + col;
    const float *bias = j->bias ? j->bias + col : ec_no_bias;
    const int relu = j->act == EC_ACT_RELU;
    if (!j->w->codes) {
        for (int c = 0; c < cols; c++) {
            const float v = sums[c] + bias[c];
            y[c] = relu && v <= 0 ? 0.0f : v;
        }
        return;
    }
    /* sum (q - zero) w = sum (q - 128) w + (128 - zero) sum w; a negative w was multiplied with -(q - 128) - 1. */
    const int32_t *add = j->form.sum + 2 * col;
    const uint32_t zero = (uint32_t)(128 - j->zero[token]);
    const float sx = j->sx[token], *sw = j->w->scale + col;
    uint32_t whole[EC_PANEL];
    memcpy(whole, sums, sizeof whole);
    for (int c = 0; c < cols; c++) {
        const int32_t sum = (int32_t)(whole[c] + zero * (uint32_t)add[2 * c] + (uint32_t)add[2 * c + 1]);
        const float v = ec_canonical((float)sum * sx * sw[c] + bias[c]);
        y[c] = relu && v <= 0 ? 0.0f : v;
    }
}

static void spmm_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const int64_t group = chunk / j->chunks, part = chunk % j->chunks; /* x of a group stays in L2, while weights stream */
    const int64_t b0 = ec_part(j->form.blocks_n, j->chunks, part), b1 = ec_part(j->form.blocks_n, j->chunks, part + 1);
    const int64_t token0 = first_token(j, group), lanes = lanes_of(j, group), tokens = EC_MIN(j->m - token0, lanes);
    const int64_t row0 = j->form.row[b0], rows = j->form.row[b1] - row0;
    float *sums = j->scratch + (int64_t)thread * (SUMS + TURNED), *turned = sums + SUMS;
    for (int64_t kb = 0; kb < j->form.blocks_k; kb++)
        for (int64_t b = b0; b < b1; b++)
            multiply(j, b, kb, group, sums + (j->form.row[b] - row0) * lanes);
    if (j->columns) {
        for (int64_t r = 0; r < rows; r++)
            copy(j->y + (row0 + r) * j->ldy + token0, sums + r * lanes, tokens);
        return;
    }
    if (j->finish)
        j->finish(rows, tokens, sums, lanes, j->bias ? j->bias + row0 : NULL, j->act == EC_ACT_RELU, j->y + token0 * j->ldy + row0, j->ldy);
    else if (j->finish8) {
        const ec_csr8_scales scales = {j->zero + token0, j->form.sum + row0, j->sx + token0, j->w->scale + row0,
                                       j->bias ? j->bias + row0 : NULL, j->act == EC_ACT_RELU};
        j->finish8(rows, tokens, (const int32_t *)sums, lanes, &scales, j->y + token0 * j->ldy + row0, j->ldy);
    }
    for (int64_t t0 = 0; !j->finish && !j->finish8 && t0 < tokens; t0 += EC_PANEL) { /* few rows of y at a time: each is a stream */
        const int64_t t1 = EC_MIN(t0 + EC_PANEL, tokens);
        for (int64_t r = 0; r < rows; r += EC_PANEL) {
            const int cols = (int)EC_MIN(rows - r, EC_PANEL);
            for (int64_t t = t0; t < t1; t++) /* what comes next */
                __builtin_prefetch(j->y + (token0 + t) * j->ldy + row0 + r + EC_PANEL, 1);
            j->transpose(cols, t1 - t0, sums + r * lanes + t0, lanes, turned, EC_PANEL);
            for (int64_t t = t0; t < t1; t++)
                finish(j, turned + (t - t0) * EC_PANEL, token0 + t, row0 + r, cols);
        }
    }
    if (j->act > EC_ACT_RELU)
        j->activation(j->act, tokens, rows, j->y + token0 * j->ldy + row0, j->ldy);
}

int ec_spmm_csr_threads(int64_t m, int64_t n, int64_t k, const ec_csr *w, int threads)
{
    const int kind = ec_csr_kind(m, n, k, w);
    if (ec_csr_made_dense(kind))
        return ec_gemm_s8c_threads(m, n, k, threads);
    return ec_csr_threads(ec_csr_by_token(kind) ? 1 : (double)m, (double)w->indptr[n], threads);
}

/* Lanes of the widest group. Where entries are few, blocks of inputs are long, and narrow groups keep them in L2. */
static int most_lanes(const job *j)
{
    if (j->kind == EC_CSR_PAIRS)
        return EC_MAX_LANES;
    return (double)j->w->indptr[j->n] < 0.02 * (double)j->n * (double)j->k ? EC_LANES1 / 2 : EC_LANES1;
}

static int run(job *j, int threads, void *memory, size_t size)
{
    const int int8 = j->w->codes != NULL;
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < workspace(j->m, j->k, threads, int8))
        return EC_E_WORKSPACE;
    if (j->m == 0 || j->n == 0)
        return EC_OK;
    j->transpose = ec_use_transpose_f32();
    j->quantize = ec_use_quantize_rows();
    j->activation = ec_use_activation();
    j->kind = ec_csr_kind(j->m, j->n, j->k, j->w);
    if (ec_csr_made_dense(j->kind) && j->w->derived[j->kind])
        return ec_csr8_as_dense(j->kind, j->m, j->n, j->k, j->x, j->ldx, j->xq, j->xscale, j->xzero, j->w->derived[j->kind], j->bias,
                                j->act, j->y, j->ldy, threads, memory, size);
    if (ec_csr_by_token(j->kind) || !j->w->derived[j->kind])
        return ec_csr_by_rows(j->m, j->n, j->k, j->x, j->ldx, j->xq, j->xscale, j->xzero, j->w, j->bias, j->act, j->y, j->ldy, threads,
                              memory);
    const int whole = unit(j->m, int8), most = most_lanes(j);
    const int one = int8 && j->kind != EC_CSR_SIGNED ? EC_MIN(whole, EC_LANES8) : whole;
    j->units = ec_div_up(j->m, one);
    j->groups = int8 ? j->units : ec_div_up(j->units, most / 16);
    j->lanes = int8 || j->units == 1 ? one : most;
    const int64_t tokens = ec_div_up(j->m, whole) * whole, wide = ec_panel_bytes(j->k, 1);
    j->panel = ec_line_from(memory);
    j->scratch = j->panel + tokens * j->k;
    if (int8) {
        j->q = (uint8_t *)j->panel + 2 * tokens * wide;
        j->sx = (float *)(j->q + tokens * wide);
        j->zero = (int32_t *)(j->sx + tokens + j->m);
        j->scratch = (float *)(j->zero + tokens + j->m);
        j->row = (uint8_t *)(j->scratch + (int64_t)threads * (SUMS + TURNED));
    }
    j->threads = ec_csr_threads((double)j->m, (double)j->w->indptr[j->n], threads);
    const int packers = ec_threads_that_pay(threads, 0.1 * (double)j->m * (double)j->k);
    const double entries = (double)j->w->indptr[j->n];
    /* of more than a third, one line for each row is too few */
    j->ahead = ec_memory_is_far() || (entries > L2_ENTRIES && entries < (double)j->n * (double)j->k / 3);
    j->form = ec_csr_open(j->kind, j->n, int8, j->w->derived[j->kind]);
    j->pack = ec_use_csr_pack();
    j->finish = int8 || j->lanes < 16 ? NULL : ec_use_csr_finish();
    j->finish8 = j->kind == EC_CSR_SIGNED ? ec_use_csr8_finish() : NULL;
    const int64_t blocks = j->form.blocks_n, least = ec_div_up(blocks, EC_MIN(MOST_ROWS / j->form.most_rows, blocks));
    const int64_t enough = ec_div_up(EC_CHUNKS_PER_THREAD * j->threads, j->groups);
    j->chunks = j->threads == 1 || enough < least ? least : EC_MIN(enough, blocks);
    if (int8)
        ec_parallel(packers, 8 * j->groups, quantize_panel, j);
    ec_parallel(packers, ec_div_up(j->k, PACK_K) * j->groups, pack, j);
    ec_parallel(j->threads, j->chunks * j->groups, spmm_chunk, j);
    return EC_OK;
}

int ec_spmm_csr(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_csr *w, const float *bias, int act, float *y,
                int64_t ldy, int threads, void *memory, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, memory, size);
}

int ec_spmm_csr_columns(int64_t m, int64_t n, int64_t k, const float *b, int64_t ldb, const ec_csr *w, float *y, int64_t ldy, int threads,
                        void *memory, size_t size)
{
    assert(!ec_csr_by_token(ec_csr_kind(m, n, k, w)) && w->derived[ec_csr_kind(m, n, k, w)]);
    job j = {.m = m, .n = n, .k = k, .x = b, .ldx = ldb, .w = w, .y = y, .ldy = ldy, .columns = 1};
    return run(&j, threads, memory, size);
}

int ec_spmm_csr8(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                 const uint8_t *xzero, const ec_csr *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *memory,
                 size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .xq = xq, .xscale = xscale, .xzero = xzero,
             .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
    return run(&j, threads, memory, size);
}
