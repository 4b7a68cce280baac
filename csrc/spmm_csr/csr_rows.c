/* CSR weights times one token, or a few: rows as they are, by masks, or in slices, shared out by the number of entries. Masks meet a
 * few tokens at once (AVX-512); otherwise tokens meet a share of the rows one after the other, while it is in L2. */
#include "spmm_csr.h"
#include "../activation/activation.h"
#include "../quantize_rows/quantize_rows.h"
#include "../spmm_csr8/spmm_csr8.h"

enum {
    PAD = 64, /* most inputs that masks address together */
    TOKENS = EC_MASKS_TOKENS,
    SHARE = 1 << 16 /* entries, 6 or 8 bytes each */
};

typedef struct {
    int64_t n, k;
    int tokens;     /* taken together */
    const float *x; /* the first of them; or NULL, and xq, xscale and xzero hold quantised ones */
    int64_t ldx;
    const uint8_t *xq, *xzero;
    const float *xscale;
    float sx[TOKENS];
    int32_t zero[TOKENS];
    const ec_csr *w;
    const float *bias;
    int act;
    float *y;
    int64_t ldy;
    /* what ec_csr_by_rows plans */
    ec_spmv_csr_fn *spmv;
    ec_spmv_sell_fn *sell; /* or NULL, as the next */
    ec_sell slices;
    ec_spmv_masks_fn *masks;
    ec_spmm_masks_fn *few;
    int finite;
    ec_spmv_masks8_fn *masks8;
    int64_t chunks;
    const float *vector; /* the tokens as the kernels read them, maybe in the workspace: */
    int64_t ldv;
    uint8_t *row;
} job;

/* Zeros follow the last input, up to a multiple of PAD. int8 has room for one token of floats, or for TOKENS of bytes. Several tokens
 * of floats: spmm_csr.c. */
size_t ec_csr_rows_workspace(int64_t k) { return 64 + sizeof(float) * (size_t)(ec_div_up(k, PAD) * PAD); }

/* 1/12 ns for an entry and a token; one token, or reading the weight, 0.4 ns an entry. */
int ec_csr_threads(double m, double entries, int threads)
{
    return ec_threads_that_pay(threads, entries * (m / 12 > 0.4 ? m / 12 : 0.4));
}

/* Kernels of masks read past a row's entries, so the last rows, near the end of all entries, are read as CSR. Returns the row at which
 * they begin. */
static int64_t masked_rows(const ec_csr *w, int64_t n, int64_t row0, int64_t row1)
{
    while (row1 > row0 && w->indptr[n] - w->indptr[row1] < 8)
        row1--;
    return row1;
}

static void rows_chunk(void *ctx, int64_t chunk, int thread)
{
    (void)thread;
    const job *j = ctx;
    const ec_csr *w = j->w;
    int64_t row0 = ec_csr_split(j->n, w->indptr, j->chunks, chunk), row1 = ec_csr_split(j->n, w->indptr, j->chunks, chunk + 1);
    float *y = j->y;
    if (j->sell) { /* whole windows, whose rows are not in order */
        row0 = EC_MIN(j->n, ec_div_up(row0, EC_SELL_WINDOW) * EC_SELL_WINDOW);
        row1 = EC_MIN(j->n, ec_div_up(row1, EC_SELL_WINDOW) * EC_SELL_WINDOW);
    }
    if (j->masks8) {
        const void *sum = w->derived[EC_CSR_MASKS];
        j->masks8(w, j->n, ec_div_up(j->k, 64), sum, ec_csr_masks8(j->n, (void *)(uintptr_t)sum), row0, row1, j->tokens, j->row, j->zero,
                  y + row0, j->ldy);
    } else if (j->masks) {
        const uint8_t *mask = w->derived[EC_CSR_MASKS];
        const int64_t words = ec_div_up(j->k, 32), last = masked_rows(w, j->n, row0, row1);
        if (j->few)
            j->few(w, mask, words, row0, last, j->tokens, j->finite, j->vector, j->ldv, y + row0, j->ldy);
        for (int t = 0; t < j->tokens; t++) {
            const float *x = j->vector + t * j->ldv;
            if (!j->few)
                j->masks(w, mask, words, row0, last, x, y + t * j->ldy + row0);
            j->spmv(w, last, row1, x, y + t * j->ldy + last);
        }
    } else
        for (int t = 0; t < j->tokens; t++) {
            const float *x = j->vector + t * j->ldv;
            if (j->sell)
                j->sell(w, &j->slices, j->n, ec_div_up(row0, 16), ec_div_up(row1, 16), x, y + t * j->ldy);
            else
                j->spmv(w, row0, row1, x, y + t * j->ldy + row0);
        }
    for (int t = 0; t < j->tokens; t++, y += j->ldy) {
        if (w->codes)
            for (int64_t r = row0; r < row1; r++)
                y[r] = ec_canonical(y[r] * j->sx[t] * w->scale[r] + (j->bias ? j->bias[r] : -0.0f));
        else if (j->bias)
            for (int64_t r = row0; r < row1; r++)
                y[r] += j->bias[r];
        for (int64_t r = row0; j->act == EC_ACT_RELU && r < row1; r++)
            y[r] = y[r] <= 0 ? 0.0f : y[r];
        if (j->act > EC_ACT_RELU && row1 > row0)
            ec_use_activation()(j->act, 1, row1 - row0, y + row0, row1 - row0);
    }
}

/* int8: token t as it is quantised (room for ec_panel_bytes(k, 1)); its scale and zero point. */
static void quantize_token(job *j, int t, uint8_t *row)
{
    if (j->x) {
        ec_use_quantize_rows()(1, j->k, j->x + t * j->ldx, j->ldx, 0, row, &j->sx[t], &j->zero[t]);
        return;
    }
    memcpy(row, j->xq + t * j->k, (size_t)j->k);
    j->sx[t] = j->xscale[t];
    j->zero[t] = j->xzero[t];
}

/* What the kernels read: floats, with zeros behind them if need be; for int8 masks bytes, likewise; else, int8, one token, as floats q
 * - zero. */
static void prepare_tokens(void *ctx, int64_t chunk, int thread)
{
    (void)chunk, (void)thread;
    job *j = ctx;
    const size_t rest = (size_t)(-j->k & (PAD - 1));
    j->vector = j->x;
    j->ldv = j->ldx;
    j->finite = j->few && ec_first_nonfinite(j->x, j->tokens, j->k, 4 * j->ldx, 4) < 0;
    if (!j->w->codes) {
        if (!j->masks || j->k % 32 == 0)
            return;
        float *row = (float *)(void *)j->row;
        j->ldv = ec_div_up(j->k, PAD) * PAD;
        for (int t = 0; t < j->tokens; t++, row += j->ldv) {
            memcpy(row, j->x + t * j->ldx, (size_t)j->k * sizeof *row);
            memset(row + j->k, 0, rest * sizeof *row);
        }
    } else if (j->masks8) {
        uint8_t *row = j->row;
        for (int t = 0; t < j->tokens; t++, row += ec_div_up(j->k, PAD) * PAD) {
            quantize_token(j, t, row);
            memset(row + j->k, 0, rest);
        }
    } else {
        /* the q stand at the end of that memory: each is read before it is written over */
        float *centred = (float *)(void *)j->row;
        uint8_t *q = j->row + 3 * ec_panel_bytes(j->k, 1);
        quantize_token(j, 0, q);
        for (int64_t c = 0; c < j->k; c++)
            centred[c] = (float)(q[c] - j->zero[0]);
    }
    j->vector = (const float *)(const void *)j->row;
}

int ec_csr_by_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const uint8_t *xq, const float *xscale,
                   const uint8_t *xzero, const ec_csr *w, const float *bias, int act, float *y, int64_t ldy, int threads, void *workspace)
{
    const int kind = ec_csr_kind(m, n, k, w), by_masks = kind == EC_CSR_MASKS && w->derived[EC_CSR_MASKS];
    job j = {.n = n, .k = k, .ldx = ldx, .w = w, .bias = bias, .act = act, .ldy = ldy};
    j.spmv = ec_use_spmv_csr();
    if (kind == EC_CSR_SELL && w->derived[EC_CSR_SELL]) {
        j.sell = ec_use_spmv_sell(w);
        j.slices = ec_csr_open_sell(n, w, w->derived[EC_CSR_SELL]);
    }
    j.masks = by_masks && !w->codes ? ec_use_spmv_masks() : NULL;
    j.few = j.masks && m > 1 ? ec_use_spmm_masks() : NULL;
    j.masks8 = by_masks && w->codes ? ec_use_spmv_masks8() : NULL;
    j.row = ec_line_from(workspace);
    threads = ec_csr_threads(1, (double)w->indptr[n], threads);
    const int together = !w->codes || j.masks8 ? TOKENS : 1;
    const int64_t shares = m > 1 && !w->codes ? w->indptr[n] / SHARE : 0, least = threads == 1 ? 1 : EC_CHUNKS_PER_THREAD * threads;
    j.chunks = EC_MIN(n, shares > least ? shares : least);
    for (int64_t i = 0; i < m; i += j.tokens) {
        j.tokens = (int)EC_MIN(together, m - i);
        j.y = y + i * ldy;
        if (xq) {
            j.xq = xq + i * k;
            j.xscale = xscale + i;
            j.xzero = xzero + i;
        } else
            j.x = x + i * ldx;
        ec_parallel(1, 1, prepare_tokens, &j); /* as a job, for the floating-point mode */
        ec_parallel(threads, j.chunks, rows_chunk, &j);
    }
    return EC_OK;
}
