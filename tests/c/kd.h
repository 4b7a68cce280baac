/* The distillation loss against double arithmetic. */
#ifndef KD_H
#define KD_H
#include "calls.h"

enum { KD_KINDS = EC_KD_MSE + 1 };

static float *kd_t;
static int64_t kd_ldt, *kd_labels;
static double *kd_weight, *kd_want, *kd_slope, *kd_size, *kd_unsure; /* see oracle_kd_row */

/* Rows as far apart as they come, close to each other, but for a class too, equal, peaked, masked. */
static void make_kd(problem *p)
{
    p->ldx = p->n + below(9);
    kd_ldt = p->n + below(9);
    p->x = place(X, 4 * extent(p->m, p->n, p->ldx));
    kd_t = place(W, 4 * extent(p->m, p->n, kd_ldt));
    kd_labels = place(XQ, 8 * (size_t)p->m);
    kd_weight = place(XSCALE, 8 * (size_t)p->m);
    for (int64_t i = 0; i < p->m; i++) {
        const int kind = below(7);
        const float size = kind == 5 ? 300 : kind == 6 ? 0.01f : 0.1f + 4 * fabsf(uniform());
        float *s = p->x + i * p->ldx, *t = kd_t + i * kd_ldt;
        for (int64_t c = 0; c < p->n; c++) {
            t[c] = size * normalish();
            s[c] = kind == 0 ? t[c] : kind == 1 || kind == 6 ? t[c] + 1e-3f * normalish() : kind == 2 ? t[c] + 40 : size * normalish();
            if (kind == 3 && p->n > 1 && below(4) == 0)
                s[c] = t[c] = -INFINITY;
        }
        if (p->n && kind == 6)
            s[below((int)p->n)] = below(2) ? 2 : -INFINITY;
        if (p->n)
            kd_labels[i] = below((int)p->n), s[kd_labels[i]] = t[kd_labels[i]] = size * normalish();
        kd_weight[i] = below(4) ? 0.5 * (1 + below(4)) : 0;
    }
}

static double kd_lse(int64_t n, const float *x, double temperature)
{
    double max = -INFINITY, sum = 0;
    for (int64_t c = 0; c < n; c++)
        max = x[c] > max ? x[c] : max;
    for (int64_t c = 0; c < n; c++)
        sum += exp(((double)x[c] - max) / temperature);
    return max / temperature + log(sum);
}

/* One row in double: the loss; what its error is measured by; the slope; the q of classes for which the sign of q - p is nobody's to tell.
 * log p is not -inf unless log q is. */
static void oracle_kd_row(int64_t n, const float *s, const float *t, int64_t label, const ec_kd *how, double *loss, double *size,
                          double *slope, double *unsure)
{
    const double ls = kd_lse(n, s, how->temperature), lt = kd_lse(n, t, how->teacher_temperature), l1 = kd_lse(n, s, 1);
    double kd = 0, distance = 0, mean = 0, soft = 0;
    *unsure = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t c = 0; c < n; c++) {
            const double lq = s[c] / how->temperature - ls, lp = t[c] / how->teacher_temperature - lt, q = exp(lq), p = exp(lp);
            const int masked = s[c] == -INFINITY;
            const double d = masked ? 0 : lq - lp, m = how->beta * p + (1 - how->beta) * q;
            const double apart = masked && t[c] == -INFINITY ? 0 : ((double)s[c] - (double)t[c]) / how->temperature;
            double value = 0, g = 0;
            switch (how->kind) {
            case EC_KD_KL: value = masked && p > 0 ? INFINITY : -p * d; break;
            case EC_KD_REVERSE_KL: value = q * d, g = d; break;
            case EC_KD_TVD: value = 0.5 * fabs(p - q), g = q > p ? 0.5 : q < p ? -0.5 : 0; break;
            case EC_KD_MSE: value = apart * apart; break;
            default:
                value = (p > 1e-300 ? how->beta * p * log(p / m) : 0) + (q > 1e-300 ? (1 - how->beta) * q * log(q / m) : 0);
                g = q > 1e-300 ? (1 - how->beta) * log(q / m) : 0;
            }
            if (pass == 0) {
                kd += value;
                mean += q * g;
                distance += how->kind == EC_KD_MSE ? value : masked ? p : (p > q ? p : q) * fabs(d);
                soft += l1 - (double)s[c];
                *unsure += fabs(d) < 1e-5 ? q : 0;
                continue;
            }
            const double slope_kd = how->kind == EC_KD_KL ? q - p : how->kind == EC_KD_MSE ? 2 * apart : q * (g - mean);
            slope[c] = how->kd / how->temperature * slope_kd;
            if (how->ce != 0)
                slope[c] += how->ce * (exp(s[c] - l1) - how->smoothing / (double)n - (c == label ? 1 - how->smoothing : 0));
        }
    double hard = how->ce != 0 ? (1 - how->smoothing) * (l1 - (double)s[label]) : 0;
    hard += how->ce != 0 && how->smoothing != 0 ? how->smoothing * soft / (double)n : 0;
    *loss = (how->kd != 0 ? how->kd * kd : 0) + how->ce * hard;
    *size = (how->kd != 0 ? how->kd * distance : 0) + how->ce * hard;
}

static void check_kd_results(const problem *p, const ec_kd *how, const double *loss, const float *grad, int64_t ldg)
{
    check_gaps(grad, p->m, p->n, ldg, sizeof *grad);
    for (int64_t i = 0; i < p->m; i++) {
        const double weight = kd_weight[i], want = weight != 0 ? weight * kd_want[i] : 0;
        const double bound = weight != 0 ? weight * (2e-6 * kd_size[i] + 1e-12) : 0; /* 1e-12: what double itself can tell */
        if (!(fabs(loss[i] - want) <= bound) && !(isinf(want) && loss[i] == want))
            fail("loss[%lld] = %.9g instead of %.9g, bound %.3g", (long long)i, loss[i], want, bound);
        double top = 0, far = 1;
        for (int64_t c = 0; c < p->n; c++) {
            const double apart = fabs((double)p->x[i * p->ldx + c] - (double)kd_t[i * kd_ldt + c]) / how->temperature;
            far = isfinite(apart) && apart > far ? apart : far; /* what log(q / p) and the derivatives grow with */
            const double steep = fabs(kd_slope[i * p->n + c]);
            top = isfinite(steep) && steep > top ? steep : top;
        }
        const double scale = how->scale * weight, slack = 1e-5 * far + (how->kind == EC_KD_TVD ? kd_unsure[i] : 0);
        const double room = scale * (how->kd / how->temperature * slack + 1e-5 * how->ce + 1e-7 * top);
        for (int64_t c = 0; c < p->n; c++) {
            const double got = (double)grad[i * ldg + c], slope = scale != 0 ? scale * kd_slope[i * p->n + c] : 0;
            if (!(fabs(got - slope) <= room) && !(isinf(slope) && got == slope))
                fail("grad[%lld][%lld] = %.9g instead of %.9g, bound %.3g", (long long)i, (long long)c, got, slope, room);
        }
    }
}

static void check_kd(const problem *p)
{
    static const double TEMPERATURES[] = {1, 2, 3, 4, 0.5, 20};
    if (p->n == 0)
        return;
    const size_t values = (size_t)(p->m * p->n + 1) * 8, rows = (size_t)(p->m + 1) * 8;
    kd_want = realloc(kd_want, rows), kd_size = realloc(kd_size, rows), kd_unsure = realloc(kd_unsure, rows);
    kd_slope = realloc(kd_slope, values);
    for (int kind = 0; kind < KD_KINDS; kind++) {
        const double temperature = TEMPERATURES[below(6)];
        const double teacher_temperature = below(4) || kind == EC_KD_MSE ? temperature : 1;
        ec_kd how = {kind, temperature, teacher_temperature, 0.25 * below(5), 0.5 * below(3), 0.3, 0.2 * below(2), 1.5};
        for (int64_t i = 0; i < p->m; i++) {
            for (int64_t c = 0; c < p->n && how.smoothing != 0; c++)
                how.smoothing = p->x[i * p->ldx + c] == -INFINITY ? 0 : how.smoothing; /* infinite: no class may be impossible then */
            how.kd = how.kd == 0 && kind != EC_KD_KL ? 1 : how.kd;
        }
        for (int64_t i = 0; i < p->m; i++)
            oracle_kd_row(p->n, p->x + i * p->ldx, kd_t + i * kd_ldt, kd_labels[i], &how, kd_want + i, kd_size + i,
                          kd_slope + i * p->n, kd_unsure + i);
        const int threads = below(4), in_place = below(2);
        const int64_t ldg = in_place ? p->ldx : p->n + below(9);
        snprintf(now->call, sizeof now->call, "kind=%d T=%.3g/%.3g kd=%.3g ce=%.3g soft=%.2g threads=%d %d", kind, how.temperature,
                 how.teacher_temperature, how.kd, how.ce, how.smoothing, threads, in_place);
        double *loss = place(WSCALE, 8 * (size_t)p->m), *alone = place(BIAS, 8 * (size_t)p->m);
        float *grad = place(Y, 4 * extent(p->m, p->n, ldg));
        for (int64_t i = 0; i < p->m && in_place; i++)
            memcpy(grad + i * ldg, p->x + i * p->ldx, 4 * (size_t)p->n);
        const float *student = in_place ? grad : p->x;
        const int64_t *labels = how.ce != 0 || below(2) ? kd_labels : NULL;
        const size_t size = ec_kd_loss_workspace(p->m, p->n, threads), one = ec_kd_loss_workspace(p->m, p->n, 1);
        void *work = place_work(size);
        enter();
        leave(ec_kd_loss(p->m, p->n, student, p->ldx, kd_t, kd_ldt, labels, kd_weight, &how, loss, grad, ldg, threads, work, size), EC_OK);
        check_kd_results(p, &how, loss, grad, ldg);
        enter();
        leave(ec_kd_loss(p->m, p->n, p->x, p->ldx, kd_t, kd_ldt, labels, kd_weight, &how, alone, NULL, 0, 1, place_work(one), one), EC_OK);
        if (p->m && memcmp(loss, alone, 8 * (size_t)p->m))
            fail("the losses of one thread, without gradient, are others");
    }
}
#endif
