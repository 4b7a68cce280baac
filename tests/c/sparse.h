/* The ops on CSR weights. */
#ifndef SPARSE_H
#define SPARSE_H
#include "float32.h"

static ec_csr csr;
static int32_t *indptr;

/* A row without entries, one with all, or a share of them. The oracle's weights hold zeros where there is no entry. */
static int keeps(int kind) { return kind == 0 ? 0 : kind == 1 ? 1 : below(kind == 2 ? 2 : kind == 3 ? 10 : 60) == 0; }

/* Chooses the entries; all other weights become zeros. The arrays end, or begin, at forbidden pages, and so does the form. */
static void make_csr(problem *p, int8_t *codes)
{
    const int density = below(8);
    indptr = place(WSUM, 4 * (size_t)(p->n + 1));
    static int32_t *found;
    found = realloc(found, (size_t)(p->n * p->k + 1) * sizeof *found);
    int32_t count = 0;
    for (int64_t j = 0; j < p->n; j++) {
        indptr[j] = count;
        const int kind = below(6) ? density % 5 : below(5);
        for (int64_t i = 0; i < p->k; i++) {
            if (keeps(kind))
                found[count++] = (int32_t)i;
            else if (codes)
                codes[j * p->k + i] = 0;
            else
                weights[j * p->k + i] = 0;
        }
    }
    indptr[p->n] = count;
    const int narrow = p->k <= 65536 && below(2);
    int32_t *indices = narrow ? NULL : place(XZERO, 4 * (size_t)count);
    uint16_t *short_indices = narrow ? place(XZERO, 2 * (size_t)count) : NULL;
    for (int32_t e = 0; e < count; e++)
        if (narrow)
            short_indices[e] = (uint16_t)found[e];
        else
            indices[e] = found[e];
    float *values = codes ? NULL : place(W, 4 * (size_t)count);
    int8_t *stored = codes ? place(W, (size_t)count) : NULL;
    for (int64_t j = 0; j < p->n; j++)
        for (int32_t e = indptr[j]; e < indptr[j + 1]; e++)
            if (codes)
                stored[e] = codes[j * p->k + found[e]];
            else
                values[e] = weights[j * p->k + found[e]];
    csr = (ec_csr){.indptr = indptr, .indices = indices, .short_indices = short_indices, .values = values, .codes = stored, .scale = p->wscale};
    const int kind = ec_csr_kind(p->m, p->n, p->k, &csr);
    if (kind != EC_CSR_ROWS && below(8)) { /* without it rows are read as they are */
        static void *form;
        const size_t size = ec_csr_derived_bytes(kind, p->n, p->k, &csr);
        const int guarded = kind == EC_CSR_MASKS && !codes; /* there the oracle's weights are elsewhere */
        void *memory = guarded ? place(W_PLAIN, size) : (form = realloc(form, size + 64));
        if (!guarded)
            memset(form, 0x5A, size + 64);
        ec_csr_derive(kind, p->n, p->k, &csr, memory);
        for (size_t i = size; !guarded && i < size + 64; i++)
            if (((const uint8_t *)form)[i] != 0x5A)
                fail("a form is longer than ec_csr_derived_bytes");
        csr.derived[kind] = memory;
    }
}

/* x is finite: what it holds where no entry is plays no part, and the bound would not know. */
static void make_spmm_csr(problem *p)
{
    make_x(p, 1e30f);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t c = 0; c < p->k; c++)
            if (!isfinite(p->x[i * p->ldx + c]))
                p->x[i * p->ldx + c] = 1;
    resized(&weights, (size_t)(p->n * p->k));
    p->bias = place(BIAS, 4 * (size_t)p->n);
    for (int64_t j = 0; j < p->n; j++) {
        fill_row(weights + j * p->k, p->k, 0, 1);
        p->bias[j] = below(10) ? normalish() : special();
    }
    make_csr(p, NULL);
    make_sums(p, NULL);
}

static void call_spmm_csr(const problem *p, const options *o, int plain, float *y)
{
    (void)plain;
    const size_t size = ec_spmm_csr_workspace(p->m, p->k, o->threads);
    void *work = place_work(size);
    enter();
    leave(ec_spmm_csr(p->m, p->n, p->k, p->x, p->ldx, &csr, o->bias ? p->bias : NULL, o->act, y, o->ldy, o->threads, work, size), EC_OK);
}

/* b and y of other pitches than x and y. */
static void check_columns(const problem *p)
{
    const int kind = ec_csr_kind(p->m, p->n, p->k, &csr), threads = 1 + below(4);
    const int64_t ldb = p->m + below(3), ldy = p->m + below(3);
    if (p->m == 0 || ec_csr_by_token(kind) || !csr.derived[kind])
        return;
    snprintf(now->call, sizeof now->call, "columns ldb=%lld ldy=%lld threads=%d", (long long)ldb, (long long)ldy, threads);
    static float *rows;
    resized(&rows, (size_t)(p->m * p->n));
    float *b = place(XQ, 4 * extent(p->k, p->m, ldb));
    for (int64_t c = 0; c < p->k; c++)
        for (int64_t i = 0; i < p->m; i++)
            b[c * ldb + i] = p->x[i * p->ldx + c];
    const size_t size = ec_spmm_csr_workspace(p->m, p->k, threads);
    void *work = place_work(size);
    float *y = place(Y, 4 * extent(p->n, p->m, ldy));
    enter();
    leave(ec_spmm_csr(p->m, p->n, p->k, p->x, p->ldx, &csr, NULL, EC_ACT_NONE, rows, p->n, threads, work, size), EC_OK);
    enter();
    leave(ec_spmm_csr_columns(p->m, p->n, p->k, b, ldb, &csr, y, ldy, threads, work, size), EC_OK);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++)
            if (memcmp(&rows[i * p->n + j], &y[j * ldy + i], 4))
                fail("y[%lld][%lld] is not what rows give", (long long)j, (long long)i);
    check_gaps(y, p->n, p->m, ldy, 4);
    now->passed++;
}

static void check_spmm_csr(const problem *p)
{
    check_float_op(p, call_spmm_csr, 1);
    check_columns(p);
}

/* ---- spmm_csr8: the bits of the dense product with the same zeros ----------------------------------------------------------- */

static uint8_t *rows_q, *rows_zero; /* x as the oracle quantises it, where make_csr leaves it alone */

static void make_spmm_csr8(problem *p)
{
    static float *product;
    make_x(p, 1e30f);
    p->wscale = place(WSCALE, 4 * (size_t)p->n);
    p->bias = place(BIAS, 4 * (size_t)p->n);
    int8_t *plain = place(W_PLAIN, (size_t)(p->n * p->k));
    for (int64_t j = 0; j < p->n; j++) {
        fill_weights(plain + j * p->k, p->k);
        p->wscale[j] = below(10) ? 0.01f * (1.5f + uniform()) : special();
        p->bias[j] = below(10) ? normalish() : special();
    }
    rows_q = p->xq;
    rows_zero = realloc(rows_zero, (size_t)p->m + 1);
    if (p->m)
        memcpy(rows_zero, p->xzero, (size_t)p->m);
    make_csr(p, plain);
    p->product = resized(&product, (size_t)(p->m * p->n));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            const int64_t sum = oracle_dot(p->k, rows_q + i * p->k, 0, rows_zero[i], plain + j * p->k);
            p->product[i * p->n + j] = (float)sum * p->xscale[i] * p->wscale[j];
        }
}

static void check_spmm_csr8(const problem *p)
{
    static float *pre;
    resized(&pre, (size_t)(p->m * p->n));
    for (int quantised = 0; quantised < 2; quantised++) {
        const options o = pick(p, quantised ? "quantised x" : "x");
        for (int64_t i = 0; i < p->m * p->n; i++)
            pre[i] = one_nan(p->product[i] + (o.bias ? p->bias[i % p->n] : -0.0f));
        float *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
        const size_t size = ec_spmm_csr8_workspace(p->m, p->k, o.threads);
        void *work = place_work(size);
        enter();
        leave(ec_spmm_csr8(p->m, p->n, p->k, quantised ? NULL : p->x, p->ldx, quantised ? rows_q : NULL, quantised ? p->xscale : NULL,
                           quantised ? rows_zero : NULL, &csr, o.bias ? p->bias : NULL, o.act, y, o.ldy, o.threads, work, size), EC_OK);
        check_floats(p->m, p->n, y, o.ldy, pre, o.act, 1);
    }
}
#endif
