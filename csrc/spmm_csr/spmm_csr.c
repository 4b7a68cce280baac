/* CSR weights times rows of x, the driver of both kinds of values.
 *
 * Several tokens: x becomes panels [k][16] of 16 tokens, which fill the lanes; up to four panels pass a block of the weight's form
 * together. A thread takes a block of rows for such a group of tokens, adds up block after block of inputs, and turns the sums into rows
 * of y. One token or two: rows of CSR as they are, shared out by the number of entries. */
#include "../kernels.h"

enum { CHUNKS_PER_THREAD = 8, SUMS = EC_FORM_ROWS * EC_MAX_LANES, TURN = EC_MAX_LANES * EC_PANEL, TURNED = 2 * TURN + 16 };

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
    /* what run() plans */
    ec_csr_parts form;
    ec_transpose_f32_fn *transpose;
    ec_quantize_rows_fn *quantize;
    ec_activation_fn *activation;
    ec_spmv_csr_fn *spmv;
    int64_t panels, groups, chunks;
    char *panel;      /* workspace: activation panels, */
    float *sx;        /* scales of the rows, */
    int32_t *zero;    /* their zero points, */
    float *scratch;   /* for each thread sums and room to turn them, */
    uint8_t *row;     /* and a quantised row; or one token as floats */
    const float *vector; /* the token of multiply_rows */
    int64_t token;
} job;

/* Bytes of an activation panel; and a line between them, so that the next does not share its sets of the cache, and for the last store
 * of a transposition. */
static int64_t panel_bytes(int64_t k, int int8) { return (k + 1) * EC_LANES * (int8 ? 2 : 4); }

static size_t workspace(int64_t m, int64_t k, int threads, int int8)
{
    const size_t rows = (size_t)(ec_div_up(m, EC_LANES) * EC_LANES);
    const int limit = ec_thread_limit(threads);
    const size_t quantised = int8 ? 8 * rows + (size_t)ec_panel_bytes(k, limit < 4 ? 4 : limit) : 0;
    return 64 + (size_t)panel_bytes(k, int8) * (rows / EC_LANES) + quantised + 4 * (size_t)limit * (SUMS + TURNED);
}

size_t ec_spmm_csr_workspace(int64_t m, int64_t k, int threads) { return workspace(m, k, threads, 0); }
size_t ec_spmm_csr8_workspace(int64_t m, int64_t k, int threads) { return workspace(m, k, threads, 1); }

/* Row i as k bytes (room for ec_panel_bytes(k, 1)), with scale and zero point. */
static void quantize_row(const job *j, int64_t i, uint8_t *row)
{
    if (!j->x) {
        j->sx[i] = j->xscale[i];
        j->zero[i] = j->xzero[i];
        if (j->k)
            memcpy(row, j->xq + i * j->k, (size_t)j->k);
        return;
    }
    j->quantize(1, j->k, j->x + i * j->ldx, j->ldx, 0, row, j->sx + i, j->zero + i);
}

static void pack_panel(void *ctx, int64_t p, int thread)
{
    const job *j = ctx;
    const int64_t row0 = p * EC_LANES;
    const int rows = (int)EC_MIN(j->m - row0, EC_LANES);
    if (!j->w->codes) {
        j->transpose(rows, j->k, j->x + row0 * j->ldx, j->ldx, (float *)(j->panel + p * panel_bytes(j->k, 0)), EC_LANES);
        return;
    }
    int16_t *out = (int16_t *)(j->panel + p * panel_bytes(j->k, 1));
    for (int r = 0; r < EC_LANES; r++) {
        const int64_t i = row0 + r;
        if (r >= rows) { /* lanes without a token */
            j->sx[i] = 0;
            for (int64_t c = 0; c < j->k; c++)
                out[c * EC_LANES + r] = 0;
            continue;
        }
        uint8_t *row = j->row + ec_panel_bytes(j->k, thread);
        quantize_row(j, i, row);
        const int zero = j->zero[i];
        for (int64_t c = 0; c < j->k; c++)
            out[c * EC_LANES + r] = (int16_t)(row[c] - zero);
    }
}

/* 16 columns of y (or fewer) for the tokens of a group, from turned sums [tokens][16]. */
static void finish(const job *j, const float *sums, int64_t token0, int64_t tokens, int64_t col0, int cols)
{
    const float *bias = j->bias ? j->bias + col0 : ec_no_bias, *sw = j->w->codes ? j->w->scale + col0 : NULL;
    const int relu = j->act == EC_ACT_RELU;
    for (int64_t t = 0; t < tokens; t++, sums += EC_PANEL) {
        float *y = j->y + (token0 + t) * j->ldy + col0;
        for (int c = 0; c < cols; c++) {
            const float v = sw ? ec_canonical(sums[c] * sw[c] + bias[c]) : sums[c] + bias[c];
            y[c] = relu && v <= 0 ? 0.0f : v;
        }
    }
}

static void multiply(const job *j, int64_t b, int64_t p, int vecs, float *sums)
{
    const ec_csr_parts *f = &j->form;
    const int64_t rows = f->row[b + 1] - f->row[b], at = p * panel_bytes(j->k, j->w->codes != NULL);
    for (int64_t kb = 0; kb < f->blocks_k; kb++) {
        const int64_t start = f->start[b * f->blocks_k + kb], x = kb * f->block_k * EC_LANES;
        const uint16_t *count = f->count + f->row[b] * f->blocks_k + kb * rows, *local = f->local + start;
        if (j->w->codes)
            ec_use_spmm_csr8()(vecs, &(ec_csr8_block){
                .rows = rows, .first = kb == 0, .count = count, .local = local, .value = (const int16_t *)f->value + start,
                .x = (const int16_t *)(j->panel + at) + x, .panel = panel_bytes(j->k, 1) / 2, .sums = (int32_t *)sums});
        else
            ec_use_spmm_csr()(vecs, &(ec_csr_block){
                .rows = rows, .first = kb == 0, .count = count, .local = local, .value = (const float *)f->value + start,
                .x = (const float *)(j->panel + at) + x, .panel = panel_bytes(j->k, 0) / 4, .sums = sums});
    }
}

static void spmm_chunk(void *ctx, int64_t chunk, int thread)
{
    const job *j = ctx;
    const int64_t b = chunk / j->groups, group = chunk % j->groups;
    const int64_t p = ec_part(j->panels, j->groups, group), vecs = ec_part(j->panels, j->groups, group + 1) - p, lanes = EC_LANES * vecs;
    const int64_t token0 = p * EC_LANES, tokens = EC_MIN(j->m - token0, lanes);
    const int64_t row0 = j->form.row[b], rows = j->form.row[b + 1] - row0;
    float *sums = j->scratch + (int64_t)thread * (SUMS + TURNED), *turned = sums + SUMS, *scaled = turned + TURN + 16;
    multiply(j, b, p, (int)vecs, sums);
    for (int64_t r = 0; r < rows; r += EC_PANEL) {
        const int cols = (int)EC_MIN(rows - r, EC_PANEL);
        const float *part = sums + r * lanes;
        if (j->w->codes) {
            const int32_t *whole = (const int32_t *)sums + r * lanes;
            for (int64_t i = 0; i < cols; i++)
                for (int64_t t = 0; t < lanes; t++)
                    scaled[i * lanes + t] = (float)whole[i * lanes + t] * j->sx[token0 + t];
            part = scaled;
        }
        j->transpose(cols, lanes, part, lanes, turned, EC_PANEL);
        finish(j, turned, token0, tokens, row0 + r, cols);
    }
    if (j->act > EC_ACT_RELU)
        j->activation(j->act, tokens, rows, j->y + token0 * j->ldy + row0, j->ldy);
}

/* 1/12 ns for an entry and a token; one token, or reading the weight, 0.4 ns an entry. */
static int threads_for(double m, double entries, int threads)
{
    return ec_threads_that_pay(threads, entries * (m / 12 > 0.4 ? m / 12 : 0.4));
}

/* Rows of CSR as they are, times token j->token. */
static void rows_chunk(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const ec_csr *w = j->w;
    const int64_t row0 = ec_csr_split(j->n, w->indptr, j->chunks, chunk), row1 = ec_csr_split(j->n, w->indptr, j->chunks, chunk + 1);
    float *y = j->y + j->token * j->ldy;
    j->spmv(w, row0, row1, j->vector, y + row0);
    for (int64_t r = row0; r < row1; r++) {
        const float bias = j->bias ? j->bias[r] : -0.0f;
        const float v = w->codes ? ec_canonical(y[r] * j->sx[j->token] * w->scale[r] + bias) : y[r] + bias;
        y[r] = j->act == EC_ACT_RELU && v <= 0 ? 0.0f : v;
    }
    if (j->act > EC_ACT_RELU && row1 > row0)
        j->activation(j->act, 1, row1 - row0, y + row0, j->ldy);
}

/* int8: token j->token as floats q - zero, in j->row. The q are at the end of that memory; each is read before it is written over. */
static void centre_token(void *ctx, int64_t chunk, int thread)
{
    (void)chunk, (void)thread;
    const job *j = ctx;
    float *centred = (float *)j->row;
    uint8_t *row = j->row + 3 * ec_panel_bytes(j->k, 1);
    quantize_row(j, j->token, row);
    for (int64_t c = 0; c < j->k; c++)
        centred[c] = (float)(row[c] - j->zero[j->token]);
}

static void multiply_rows(job *j, int threads)
{
    threads = threads_for(1, (double)j->w->indptr[j->n], threads);
    j->spmv = ec_use_spmv_csr();
    j->chunks = threads == 1 ? 1 : EC_MIN(j->n, CHUNKS_PER_THREAD * threads);
    for (j->token = 0; j->token < j->m; j->token++) {
        j->vector = j->w->codes ? (const float *)j->row : j->x + j->token * j->ldx;
        if (j->w->codes)
            ec_parallel(1, 1, centre_token, j);
        ec_parallel(threads, j->chunks, rows_chunk, j);
    }
}

int ec_spmm_csr_threads(int64_t m, int64_t n, int64_t k, int threads) { return threads_for((double)m, (double)n * (double)k, threads); }
int ec_spmm_csr8_threads(int64_t m, int64_t n, int64_t k, int threads) { return ec_spmm_csr_threads(m, n, k, threads); }

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
    j->panels = ec_div_up(j->m, EC_LANES);
    j->groups = ec_div_up(j->panels, EC_MAX_LANES / EC_LANES);
    j->panel = (char *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    j->sx = (float *)(j->panel + j->panels * panel_bytes(j->k, int8));
    j->scratch = j->sx;
    if (int8) {
        j->zero = (int32_t *)(j->sx + EC_LANES * j->panels);
        j->scratch = (float *)(j->zero + EC_LANES * j->panels);
        j->row = (uint8_t *)(j->scratch + (int64_t)threads * (SUMS + TURNED));
    }
    if (!ec_csr_needs_form(j->m, j->n, j->k, j->w)) {
        multiply_rows(j, threads);
        return EC_OK;
    }
    const int work = threads_for((double)j->m, (double)j->w->indptr[j->n], threads);
    const int pack = ec_threads_that_pay(threads, (int8 ? 1 : 0.1) * (double)j->m * (double)j->k);
    j->form = ec_csr_open(j->n, j->w->form);
    ec_parallel(pack, j->panels, pack_panel, j);
    ec_parallel(work, j->form.blocks_n * j->groups, spmm_chunk, j);
    return EC_OK;
}

int ec_spmm_csr(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const ec_csr *w, const float *bias, int act, float *y,
                int64_t ldy, int threads, void *memory, size_t size)
{
    job j = {.m = m, .n = n, .k = k, .x = x, .ldx = ldx, .w = w, .bias = bias, .act = act, .y = y, .ldy = ldy};
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
