/* The float32 ops, and the activations. */
#ifndef FLOAT32_H
#define FLOAT32_H
#include "calls.h"

static double *sums, *sizes; /* [m][n]: x w^T in double, and the same of magnitudes: the unit of the error bound */
static float *weights;       /* [n][k], as gemm_f32 takes them plain; gemm_s8c_f32: dequantised */

static void make_sums(problem *p, const double *scale)
{
    sums = realloc(sums, (size_t)(p->m * p->n + 1) * sizeof *sums);
    sizes = realloc(sizes, (size_t)(p->m * p->n + 1) * sizeof *sizes);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < p->k; c++) {
                const double product = (double)p->x[i * p->ldx + c] * (double)weights[j * p->k + c] * (scale ? scale[j] : 1);
                sum += product;
                size += fabs(product);
            }
            sums[i * p->n + j] = sum;
            sizes[i * p->n + j] = size;
        }
}

/* Forward error of any order of summation, fused or not: (k + 8) roundings of at most sum |x||w| + |bias|. */
static void check_bound(const problem *p, const float *y, int64_t ldy, const float *bias)
{
    check_gaps(y, p->m, p->n, ldy, sizeof *y);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            const double b = bias ? (double)bias[j] : 0, want = sums[i * p->n + j] + b;
            const double size = sizes[i * p->n + j] + fabs(b), bound = (double)(p->k + 8) * (0x1p-24 * size + 0x1p-149);
            const double got = (double)y[i * ldy + j];
            if (bits_of(y[i * ldy + j]) == 0xFFFFFFFF)
                fail("y[%lld][%lld] is not written", (long long)i, (long long)j);
            if (size < INFINITY && size > 1e38)
                continue; /* the order of summation decides about overflow */
            if (isfinite(want) ? !(fabs(got - want) <= bound) : want != want ? got == got : got != want)
                fail("y[%lld][%lld] = %.9g instead of %.9g, bound %.3g", (long long)i, (long long)j, got, want, bound);
        }
}

typedef void call(const problem *p, const options *o, int plain, float *y);

/* Within the bound; then, on other threads, the same bits with the activation on top. */
static void check_float_op(const problem *p, call *op, int forms)
{
    static float *one_thread;
    resized(&one_thread, (size_t)(p->m * p->n));
    for (int form = 0; form < 2; form++) {
        const int plain = forms > 1 && form;
        const options o = pick(p, plain ? "plain w" : "packed w"), before = {EC_ACT_NONE, 1, o.bias, o.ldy};
        float *y = place(Y, 4 * extent(p->m, p->n, o.ldy)), *again = place(Y2, 4 * extent(p->m, p->n, o.ldy));
        op(p, &before, plain, y);
        check_bound(p, y, o.ldy, o.bias ? p->bias : NULL);
        for (int64_t i = 0; i < p->m; i++)
            memcpy(one_thread + i * p->n, y + i * o.ldy, 4 * (size_t)p->n);
        op(p, &o, plain, again);
        check_floats(p->m, p->n, again, o.ldy, one_thread, o.act, 0);
    }
}

/* ---- gemm_f32 ------------------------------------------------------------------------------------------------------------ */

static float *packed;
static int64_t ldw;

static void make_gemm_f32(problem *p)
{
    make_x(p, 1e30f);
    resized(&weights, (size_t)(p->n * p->k));
    ldw = p->k + below(9) + (p->k == 0); /* 0 would mean packed */
    float *plain = place(W_PLAIN, 4 * extent(p->n, p->k, ldw));
    packed = memset(place(W, 64 * (size_t)(p->panels * p->k)), 0, 64 * (size_t)(p->panels * p->k));
    p->bias = place(BIAS, 4 * (size_t)p->n);
    for (int64_t j = 0; j < p->n; j++) {
        fill_row(weights + j * p->k, p->k, 0, 1);
        memcpy(plain + j * ldw, weights + j * p->k, 4 * (size_t)p->k);
        p->bias[j] = below(10) ? normalish() : special();
    }
    pack_n16(p->n, p->k, plain, ldw, packed);
    p->w_plain = (const int8_t *)plain;
    make_sums(p, NULL);
}

static void call_gemm_f32(const problem *p, const options *o, int plain, float *y)
{
    const size_t size = ec_gemm_f32_workspace(p->m, p->k, !plain, o->threads);
    void *work = place_work(size);
    const float *w = plain ? (const float *)p->w_plain : packed;
    enter();
    leave(ec_gemm_f32(p->m, p->n, p->k, p->x, p->ldx, w, plain ? ldw : 0, o->bias ? p->bias : NULL, o->act, y, o->ldy, o->threads, work,
                      size), EC_OK);
}

/* y += x w with both as they are, and with x turned: within the bound of sums that begin with y, and the same bits from other threads. */
static void check_gemm_f32_add(const problem *p)
{
    static float *turned_x, *turned_w;
    const int64_t ldn = p->n + below(9), ldm = p->m + below(9), ldy = p->n + below(9);
    resized(&turned_x, (size_t)(p->k * ldm)), resized(&turned_w, (size_t)(p->k * ldn));
    for (int64_t c = 0; c < p->k; c++) {
        for (int64_t i = 0; i < p->m; i++)
            turned_x[c * ldm + i] = p->x[i * p->ldx + c];
        for (int64_t j = 0; j < p->n; j++)
            turned_w[c * ldn + j] = weights[j * p->k + c];
    }
    float *y[2];
    for (int t = 0; t < 2; t++) {
        const int threads = t ? 1 + below(4) : 1;
        const size_t size = ec_gemm_f32_add_workspace(p->m, p->n, p->k);
        snprintf(now->call, sizeof now->call, "add turned=%d threads=%d", t, threads);
        y[t] = place(t ? Y2 : Y, 4 * extent(p->m, p->n, ldy));
        for (int64_t i = 0; i < p->m; i++)
            memcpy(y[t] + i * ldy, p->bias, 4 * (size_t)p->n);
        void *work = place_work(size);
        float *x = place(XQ, 4 * (t ? extent(p->k, p->m, ldm) : extent(p->m, p->k, p->ldx)));
        memcpy(x, t ? turned_x : p->x, 4 * (t ? extent(p->k, p->m, ldm) : extent(p->m, p->k, p->ldx)));
        float *w = place(XSCALE, 4 * extent(p->k, p->n, ldn));
        memcpy(w, turned_w, 4 * extent(p->k, p->n, ldn));
        enter();
        leave(ec_gemm_f32_add(p->m, p->n, p->k, x, t ? ldm : p->ldx, t, w, ldn, y[t], ldy, threads, work, size), EC_OK);
        check_bound(p, y[t], ldy, p->bias);
    }
    for (int64_t i = 0; i < p->m; i++)
        check_floats(1, p->n, y[1] + i * ldy, ldy, y[0] + i * ldy, EC_ACT_NONE, 0);
}

static void check_gemm_f32(const problem *p)
{
    check_float_op(p, call_gemm_f32, 2);
    check_gemm_f32_add(p);
}

/* ---- gemm_s8c_f32 ---------------------------------------------------------------------------------------------------------- */

static void make_gemm_s8c_f32(problem *p)
{
    make_x(p, 1e4f);
    make_s8(p);
    resized(&weights, (size_t)(p->n * p->k));
    double *scale = calloc((size_t)p->n + 1, sizeof *scale);
    for (int64_t j = 0; j < p->n; j++) {
        scale[j] = (double)p->wscale[j];
        for (int64_t c = 0; c < p->k; c++)
            weights[j * p->k + c] = p->w_plain[j * p->k + c];
    }
    make_sums(p, scale);
    free(scale);
}

static void call_gemm_s8c_f32(const problem *p, const options *o, int plain, float *y)
{
    (void)plain;
    const size_t size = ec_gemm_f32_workspace(p->m, p->k, 0, o->threads);
    void *work = place_work(size);
    enter();
    leave(ec_gemm_s8c_f32(p->m, p->n, p->k, p->x, p->ldx, p->w, p->wscale, o->bias ? p->bias : NULL, o->act, y, o->ldy, o->threads, work,
                          size), EC_OK);
}

static void check_gemm_s8c_f32(const problem *p) { check_float_op(p, call_gemm_s8c_f32, 1); }

/* ---- activation ------------------------------------------------------------------------------------------------------------ */

/* The bias of a product over k = 0 is the activation's argument: here every exponent, and the range where curves bend. */
static void make_activation(problem *p)
{
    p->ldx = p->k;
    p->bias = place(BIAS, 4 * (size_t)p->n);
    for (int64_t j = 0; j < p->n; j++)
        p->bias[j] = j & 1 ? 12 * normalish() : from_bits((uint32_t)(j << 32) / (uint32_t)p->n + (rnd() >> 20));
}

static void check_activation(const problem *p)
{
    float *ones = place(WSCALE, 64 * (size_t)p->panels), *values = resized(&weights, (size_t)(p->m * p->n));
    int32_t *wsum = memset(place(WSUM, 64 * (size_t)p->panels), 0, 64 * (size_t)p->panels);
    for (int64_t j = 0; j < 16 * p->panels; j++)
        ones[j] = 1;
    for (int64_t i = 0; i < p->m * p->n; i++)
        values[i] = one_nan(p->bias[i % p->n] + 0.0f);
    for (int i = 0; i < ACTS; i++) {
        const options o = pick(p, "k = 0");
        float *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
        const size_t size = ec_gemm_s8c_workspace(p->m, 0);
        void *work = place_work(size);
        enter();
        leave(ec_gemm_s8c(p->m, p->n, 0, place(X, 0), 0, NULL, NULL, NULL, place(W, 0), ones, wsum, p->bias, o.act, y, NULL, o.ldy, 0, 0,
                          o.threads, work, size), EC_OK);
        check_floats(p->m, p->n, y, o.ldy, values, o.act, 1);
    }
}

static void check_transpose(const problem *p)
{
    const int64_t ldy = p->m + below(9);
    const int threads = 1 + below(4);
    float *y = place(Y, 4 * extent(p->k, p->m, ldy));
    snprintf(now->call, sizeof now->call, "ldx=%lld ldy=%lld threads=%d", (long long)p->ldx, (long long)ldy, threads);
    enter();
    ec_transpose(p->m, p->k, p->x, p->ldx, y, ldy, threads);
    leave(EC_OK, EC_OK);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t c = 0; c < p->k; c++)
            if (memcmp(&p->x[i * p->ldx + c], &y[c * ldy + i], 4))
                fail("y[%lld][%lld]", (long long)c, (long long)i);
    check_gaps(y, p->k, p->m, ldy, 4);
    now->passed++;
}
#endif
