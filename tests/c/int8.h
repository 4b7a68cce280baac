/* The int8 ops: the oracle's bits. */
#ifndef INT8_H
#define INT8_H
#include "calls.h"

/* ---- quantize_rows, requantize ------------------------------------------------------------------------------------------ */

static void make_rows(problem *p) { make_x(p, FLT_MAX); }

static void check_quantize_rows(const problem *p)
{
    const int threads = pick(p, "float32 x").threads;
    uint8_t *q = place(Y, (size_t)(p->m * p->k)), *zero = place(Y2, (size_t)p->m);
    float *scale = place(WSCALE, 4 * (size_t)p->m);
    const size_t size = ec_quantize_rows_workspace(p->m, p->k);
    void *work = place_work(size);
    enter();
    leave(ec_quantize_rows(p->m, p->k, p->x, p->ldx, q, scale, zero, threads, work, size), EC_OK);
    for (int64_t i = 0; i < p->m; i++) {
        if (bits_of(scale[i]) != bits_of(p->xscale[i]) || zero[i] != p->xzero[i])
            fail("row %lld: scale %.9g zero %d instead of %.9g and %d", (long long)i, (double)scale[i], zero[i], (double)p->xscale[i],
                 p->xzero[i]);
        for (int64_t c = 0; c < p->k; c++)
            if (q[i * p->k + c] != p->xq[i * p->k + c])
                fail("q[%lld][%lld] = %d instead of %d, x = %.9g scale %.9g zero %d", (long long)i, (long long)c, q[i * p->k + c],
                     p->xq[i * p->k + c], (double)p->x[i * p->ldx + c], (double)scale[i], zero[i]);
    }
}

static void check_requantize(const problem *p)
{
    for (int i = 0; i < 50; i++) {
        const int zero = below(256) - 128;
        const float scale = ldexpf(1.5f + uniform() / 2, below(60) - 40);
        int8_t *q = place(Y, (size_t)p->k);
        snprintf(now->call, sizeof now->call, "scale=%g zero=%d", (double)scale, zero);
        enter();
        leave(ec_requantize(p->k, p->x, scale, zero, q), EC_OK);
        for (int64_t c = 0; c < p->k; c++)
            if (q[c] != oracle_requantize(p->x[c], scale, zero))
                fail("q[%lld] = %d instead of %d, y = %.9g", (long long)c, q[c], oracle_requantize(p->x[c], scale, zero), (double)p->x[c]);
    }
}

/* ---- int8 ------------------------------------------------------------------------------------------------------------------ */

static float *pre; /* [m][n], before the activation */

static void make_gemm_s8c(problem *p)
{
    make_x(p, FLT_MAX);
    make_s8(p);
}

static int run_gemm_s8c(const problem *p, const options *o, int quantised, float *y, int8_t *yq, float scale, int zero)
{
    const size_t size = ec_gemm_s8c_workspace(p->m, p->k);
    void *work = place_work(size);
    enter();
    return ec_gemm_s8c(p->m, p->n, p->k, quantised ? NULL : p->x, p->ldx, p->xq, p->xscale, p->xzero, p->w, p->wscale, p->wsum,
                       o->bias ? p->bias : NULL, o->act, y, yq, o->ldy, scale, zero, o->threads, work, size);
}

static void check_gemm_s8c(const problem *p)
{
    resized(&pre, (size_t)(p->m * p->n));
    for (int form = 0; form < 4; form++) {
        const char *const FORMS[] = {"float32 to float32", "uint8 to float32", "float32 to int8", "uint8 to int8"};
        const options o = pick(p, FORMS[form]);
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++)
                pre[i * p->n + j] = one_nan(p->product[i * p->n + j] + (o.bias ? p->bias[j] : -0.0f));
        if (form < 2) {
            float *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
            leave(run_gemm_s8c(p, &o, form & 1, y, NULL, 0, 0), EC_OK);
            check_floats(p->m, p->n, y, o.ldy, pre, o.act, 1);
            continue;
        }
        const float some = fabsf(p->m && p->n ? pre[rnd() % (uint64_t)(p->m * p->n)] : 1) / 50;
        const float scale = some > FLT_MIN && some < FLT_MAX ? some : 0.25f;
        const int zero = below(256) - 128, refused = p->nonfinite && p->n, slack = o.act > EC_ACT_HARDSIGMOID;
        int8_t *y = place(Y, extent(p->m, p->n, o.ldy));
        leave(run_gemm_s8c(p, &o, form & 1, NULL, y, scale, zero), refused ? EC_E_NONFINITE : EC_OK);
        check_gaps(y, p->m, refused ? 0 : p->n, o.ldy, 1);
        for (int64_t i = 0; i < p->m && !refused; i++)
            for (int64_t j = 0; j < p->n; j++) {
                const float v = pre[i * p->n + j];
                const int want = oracle_requantize(slack ? (float)oracle_smooth_act(o.act, v) : oracle_simple_act(o.act, v), scale, zero);
                if (abs(y[i * o.ldy + j] - want) > slack)
                    fail("y[%lld][%lld] = %d instead of %d, before the activation %.9g, scale %.9g zero %d", (long long)i, (long long)j,
                         y[i * o.ldy + j], want, (double)v, (double)scale, zero);
            }
    }
}

static void make_gemm_s8c_i32(problem *p)
{
    make_x(p, 1);
    make_s8(p);
    for (int64_t i = 0; i < p->m; i++) {
        const int kind = below(6);
        for (int64_t c = 0; c < p->k; c++)
            p->xq[i * p->k + c] = (uint8_t)(kind == 0 ? 255 : kind == 1 ? 128 : kind == 2 ? 127 : (int)rnd());
    }
}

static void check_gemm_s8c_i32(const problem *p)
{
    for (int is_signed = p->k > 66311; is_signed < 2; is_signed++) {
        const options o = pick(p, is_signed ? "int8 to int32" : "uint8 to int32");
        int32_t *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
        uint8_t *a = place(Y2, extent(p->m, p->k, p->ldx));
        for (int64_t i = 0; i < p->m; i++)
            memcpy(a + i * p->ldx, p->xq + i * p->k, (size_t)p->k);
        const size_t size = ec_gemm_s8c_workspace(p->m, p->k);
        void *work = place_work(size);
        enter();
        leave(ec_gemm_s8c_i32(p->m, p->n, p->k, a, p->ldx, is_signed, p->w, p->wsum, y, o.ldy, o.threads, work, size), EC_OK);
        check_gaps(y, p->m, p->n, o.ldy, sizeof *y);
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++) {
                const int64_t want = oracle_dot(p->k, a + i * p->ldx, is_signed, 0, p->w_plain + j * p->k);
                if (y[i * o.ldy + j] != want)
                    fail("y[%lld][%lld] = %d instead of %lld", (long long)i, (long long)j, y[i * o.ldy + j], (long long)want);
            }
    }
}
#endif
