/* The ops on N:M weights. */
#ifndef NM_H
#define NM_H
#include "sparse.h"

static ec_nm nm;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Chooses a pattern, a block and the places; all other weights become zeros. codes: int8, else `weights`. */
static void make_nm(problem *p, int8_t *codes)
{
    nm = (ec_nm){.m = 1 + below(16), .block = below(2) ? 1 : 16 << below(3)};
    nm.n = 1 + below(nm.m);
    if (p->k > 66311) /* the op's limit is that of the kept ones */
        nm.m = 16, nm.n = 1 + below(4);
    const int64_t kept = p->k / nm.m * nm.n + (p->k % nm.m < nm.n ? p->k % nm.m : nm.n), quads = (kept + 3) / 4;
    const int bits = nm.m <= 4 ? 2 : 4;
    const int64_t blocks = (p->n + nm.block - 1) / nm.block, words = (kept * bits + 31) / 32;
    const size_t bytes = 4 * (size_t)((nm.block == 1 ? 16 * p->panels : blocks) * words);
    uint32_t *places = memset(place(XZERO, bytes), 0, bytes);
    float *values = codes ? NULL : memset(place(W, 64 * (size_t)(p->panels * kept)), 0, 64 * (size_t)(p->panels * kept));
    int8_t *stored = codes ? memset(place(W, 64 * (size_t)(p->panels * quads)), 0, 64 * (size_t)(p->panels * quads)) : NULL;
    int32_t *sums = memset(place(WSUM, 64 * (size_t)p->panels), 0, 64 * (size_t)p->panels);
    int32_t *negative = memset(place(W_NEGATIVE, 64 * (size_t)p->panels), 0, 64 * (size_t)p->panels);
    for (int64_t b = 0; b < blocks; b++) {
        uint32_t *word = places + (nm.block == 1 ? b / 16 * 16 * words + b % 16 : b * words);
        int64_t e = 0;
        for (int64_t i = 0; i < p->k; i++) {
            const int64_t left = smaller(nm.m, p->k - i / nm.m * nm.m) - i % nm.m;
            const int64_t room = smaller(kept, (i / nm.m + 1) * nm.n) - e;
            const int keep = room > 0 && below((int)left) < room;
            for (int64_t j = b * nm.block; j < p->n && j < (b + 1) * nm.block; j++) {
                if (!keep && codes)
                    codes[j * p->k + i] = 0;
                else if (!keep)
                    weights[j * p->k + i] = 0;
                else if (codes) {
                    stored[((j / 16 * quads + e / 4) * 16 + j % 16) * 4 + e % 4] = codes[j * p->k + i];
                    sums[j] += codes[j * p->k + i];
                    negative[j] += codes[j * p->k + i] < 0 ? codes[j * p->k + i] : 0;
                } else
                    values[(j / 16 * kept + e) * 16 + j % 16] = weights[j * p->k + i];
            }
            if (keep) {
                const int64_t each = 32 / bits, at = e % each; /* entry 4 i + c is in byte c, from bit bits * i on */
                word[e / each * (nm.block == 1 ? 16 : 1)] |= (uint32_t)(i % nm.m) << (8 * (at % 4) + bits * (at / 4));
                e++;
            }
        }
    }
    nm.values = values, nm.codes = stored, nm.scale = p->wscale, nm.sums = sums, nm.negative = negative, nm.packed = places;
}

/* x is finite: what it holds where nothing is kept plays no part, and the bound would not know. */
static void make_spmm_nm(problem *p)
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
    make_nm(p, NULL);
    make_sums(p, NULL);
}

static void call_spmm_nm(const problem *p, const options *o, int plain, float *y)
{
    (void)plain;
    const size_t size = ec_spmm_nm_workspace(p->m, p->k, &nm, o->threads);
    void *work = place_work(size);
    enter();
    leave(ec_spmm_nm(p->m, p->n, p->k, p->x, p->ldx, &nm, o->bias ? p->bias : NULL, o->act, y, o->ldy, o->threads, work, size), EC_OK);
}

static void check_spmm_nm(const problem *p) { check_float_op(p, call_spmm_nm, 1); }

/* ---- spmm_nm8: the bits of the dense product with the same zeros ------------------------------------------------------------- */

static void make_spmm_nm8(problem *p)
{
    static float *product;
    make_x(p, 1e30f);
    const size_t columns = 16 * (size_t)p->panels;
    p->wscale = memset(place(WSCALE, 4 * columns), 0, 4 * columns);
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
    make_nm(p, plain);
    p->product = resized(&product, (size_t)(p->m * p->n));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            const int64_t sum = oracle_dot(p->k, rows_q + i * p->k, 0, rows_zero[i], plain + j * p->k);
            p->product[i * p->n + j] = (float)sum * p->xscale[i] * p->wscale[j];
        }
}

static void check_spmm_nm8(const problem *p)
{
    static float *pre;
    resized(&pre, (size_t)(p->m * p->n));
    for (int quantised = 0; quantised < 2; quantised++) {
        const options o = pick(p, quantised ? "quantised x" : "x");
        for (int64_t i = 0; i < p->m * p->n; i++)
            pre[i] = one_nan(p->product[i] + (o.bias ? p->bias[i % p->n] : -0.0f));
        float *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
        const size_t size = ec_spmm_nm_workspace(p->m, p->k, &nm, o.threads);
        void *work = place_work(size);
        enter();
        leave(ec_spmm_nm8(p->m, p->n, p->k, quantised ? NULL : p->x, p->ldx, quantised ? rows_q : NULL, quantised ? p->xscale : NULL,
                          quantised ? rows_zero : NULL, &nm, o.bias ? p->bias : NULL, o.act, y, o.ldy, o.threads, work, size), EC_OK);
        check_floats(p->m, p->n, y, o.ldy, pre, o.act, 1);
    }
}
#endif
