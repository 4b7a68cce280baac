/* The distillation loss and its gradient, a row per turn. The logits are read from memory once, block by block: e^x of student and teacher
 * go to the scratch of the thread (two rows, which stay in L2), relative to the largest logits met so far. When all sums are known a second
 * pass makes the gradient of the scratch: multiplications and additions, written once, past the caches if it is large. */
#include <float.h>

#include "../kernels.h"
#ifdef EC_X86
#include <immintrin.h>
#endif

enum {
    STREAM_BYTES = 4 << 20, /* gradients from this size on would only push other data out of the caches */
    TASK = 16384            /* classes of the rows that are taken at once */
};

typedef struct {
    int64_t m, n, lds, ldt, ldg, rows; /* rows of a task */
    const float *student, *teacher;
    const int64_t *labels;
    const double *weight;
    const ec_kd *how;
    double *loss;
    float *grad, *scratch;
    int stream;
    const ec_kd_loss_impl *use;
} job;

/* One row on its way. */
typedef struct {
    const float *s, *t;
    float *w, *z, *max_s, *max_t; /* scratch: two rows; what each block is relative to */
    ec_kd_row r;                  /* with the maxima of the row, once they are known */
    ec_kd_sums sums;
    double squares;
    double lambda;                /* log(p / q) = (e / temperature) + lambda */
} row;

static int64_t blocks_of(int64_t n) { return ec_div_up(n, EC_KD_BLOCK); }
static int64_t pitch(int64_t n) { return n + 80; } /* rows of scratch a power of two apart would share sets of the cache */
static int64_t scratch_floats(int64_t n) { return 2 * (pitch(n) + blocks_of(n)); }

static float at_least(float max) { return max > -FLT_MAX ? max : -FLT_MAX; } /* so that -inf - max is -inf */

static double rescale(double from, double to, double inv) { return to > from ? exp((from - to) * inv) : 1; }

static void in_bits(float inv, float scale[2], float *least)
{
    const double exact = 1.4426950408889634 * (double)inv;
    scale[0] = (float)exact;
    scale[1] = (float)(exact - (double)scale[0]);
    *least = -87 / inv;
}

static void read_row(const job *j, row *x, int kind)
{
    const double inv_s = x->r.inv_s, inv_t = x->r.inv_t;
    float max_s = -INFINITY, max_t = -INFINITY;
    for (int64_t i = 0, b = 0; i < j->n; i += EC_KD_BLOCK, b++) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, j->n - i);
        float found[3];
        j->use->extremes(count, x->s + i, x->t + i, found);
        const double old_s = at_least(max_s), old_t = at_least(max_t);
        if (found[0] > max_s && b > 0) {
            x->sums.w *= rescale(max_s, found[0], inv_s);
            x->sums.w1 *= rescale(max_s, found[0], 1);
        }
        if (found[1] > max_t && b > 0) {
            const double factor = rescale(max_t, found[1], inv_t);
            x->sums.z *= factor;
            x->sums.ze *= factor;
        }
        max_s = found[0] > max_s ? found[0] : max_s;
        max_t = found[1] > max_t ? found[1] : max_t;
        x->max_s[b] = x->r.max_s = at_least(max_s);
        x->max_t[b] = x->r.max_t = at_least(max_t);
        if (x->sums.z > 0)
            x->sums.ze += x->sums.z * ((old_t - (double)x->r.max_t) * (double)x->r.ratio - (old_s - (double)x->r.max_s));
        if (kind == EC_KD_MSE)
            x->squares += j->use->squares(count, x->s + i, x->t + i, &x->r, found[2] == -INFINITY, x->w + i, x->z + i, &x->sums);
        else
            j->use->forward(count, x->s + i, x->t + i, &x->r, found[2] == -INFINITY, x->w + i, x->z + i, &x->sums);
    }
}

/* Where p and q are close the logarithms of their normalisers cancel, and with them the digits of their e^x: then lambda comes from
 * the differences, log1p(sum p (e^(log q/p + lambda) - 1)). */
static void refine(const job *j, row *x)
{
    const double inv_s = x->r.inv_s, inv_t = x->r.inv_t, max_s = x->r.max_s, max_t = x->r.max_t;
    double out[2] = {0, 0};
    for (int64_t i = 0, b = 0; i < j->n; i += EC_KD_BLOCK, b++) {
        const double w = rescale(x->max_s[b], max_s, inv_s), z = rescale(x->max_t[b], max_t, inv_t);
        const float scale[2] = {(float)(w / x->sums.z), (float)(z / x->sums.z)};
        j->use->refine(EC_MIN(EC_KD_BLOCK, j->n - i), x->s + i, x->t + i, &x->r, x->w + i, x->z + i, scale, out);
    }
    if (fabs(out[0]) < 1) {
        x->lambda = log1p(out[0]);
        x->sums.ze = out[1] * x->sums.z;
    }
}

/* The loss of a kind but KL; z becomes its derivative by q. mean: the sum of that times q. */
static double pairs(const job *j, row *x, int kind, double *mean)
{
    const double inv_s = x->r.inv_s, inv_t = x->r.inv_t;
    double out[2] = {0, 0};
    for (int64_t i = 0, b = 0; i < j->n; i += EC_KD_BLOCK, b++) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, j->n - i);
        const double w = rescale(x->max_s[b], x->r.max_s, inv_s), z = rescale(x->max_t[b], x->r.max_t, inv_t);
        const float scale[2] = {(float)(w / x->sums.w), (float)(z / x->sums.z)};
        j->use->pair(kind, count, x->s + i, x->t + i, &x->r, x->w + i, x->z + i, scale, (float)x->lambda, out);
    }
    *mean = out[1];
    return out[0];
}

/* The gradient of the row, of which `label` (if not negative) gets `hot` less. c: as the microkernel has it, for the row's maxima. */
static void write_row(const job *j, const row *x, int kl, const double c[4], double mean, int64_t label, double hot, float *grad)
{
    const double inv_s = x->r.inv_s, inv_t = x->r.inv_t;
    for (int64_t i = 0, b = 0; i < j->n; i += EC_KD_BLOCK, b++) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, j->n - i), at = label - i;
        const double one = rescale(x->max_s[b], x->r.max_s, 1), w = rescale(x->max_s[b], x->r.max_s, inv_s);
        const double z = j->how->kind == EC_KD_MSE || !kl ? 1 : rescale(x->max_t[b], x->r.max_t, inv_t);
        const float factors[4] = {(float)(c[0] * one), (float)(c[1] * w), (float)(c[2] * z), (float)c[3]};
        ec_kd_row r = x->r;
        r.max_s = x->max_s[b];
        double entry = 0;
        if (at >= 0 && at < count) {
            const double wl = x->w[label], zl = x->z[label];
            entry = c[0] * exp((double)x->s[label] - (double)x->r.max_s) - hot - c[3];
            entry += kl ? c[1] * w * wl - c[2] * z * zl : c[1] * w * wl * (zl - mean);
        }
        j->use->gradient(kl, count, x->s + i, &r, x->w + i, x->z + i, factors, (float)mean, grad + i, j->stream);
        if (at >= 0 && at < count)
            grad[label] = (float)entry;
    }
}

static void do_row(const job *j, int64_t i, float *scratch)
{
    const ec_kd *how = j->how;
    const int64_t n = j->n, label = j->labels && how->ce != 0 ? j->labels[i] : -1;
    const int kind = how->kd != 0 ? how->kind : EC_KD_KL, ce = how->ce != 0;
    const double temperature = how->temperature, weight = j->weight[i];
    float *grad = j->grad ? j->grad + i * j->ldg : NULL;
    if (!(weight > 0)) {
        j->loss[i] = 0;
        if (grad)
            memset(grad, 0, (size_t)n * 4);
        return;
    }
    row x = {.s = j->student + i * j->lds, .t = j->teacher + i * j->ldt, .w = scratch, .z = scratch + pitch(n)};
    x.max_s = scratch + 2 * pitch(n);
    x.max_t = x.max_s + blocks_of(n);
    x.r.ce = ce;
    x.r.beta = (float)how->beta;
    x.r.inv_s = kind == EC_KD_MSE ? 1 : (float)(1 / temperature);
    x.r.inv_t = (float)(1 / how->teacher_temperature);
    in_bits(x.r.inv_s, x.r.scale_s, &x.r.least_s);
    in_bits(x.r.inv_t, x.r.scale_t, &x.r.least_t);
    x.r.ratio = (float)(temperature / how->teacher_temperature);
    x.r.power = kind == EC_KD_MSE ? 1 : temperature == 1 ? 1 : temperature == 2 ? 2 : temperature == 3 ? 3 : temperature == 4 ? 4 : 0;
    read_row(j, &x, kind);

    const double inv_s = x.r.inv_s, max_s = x.r.max_s;
    double hard = 0, kd, mean = 0;
    if (ce) {
        hard = log(x.sums.w1) + (max_s - (double)x.s[label]);
        if (hard < 0.25) { /* next to the largest term, which is 1, the others have lost digits */
            double out[2] = {0, 0};
            for (int64_t k = 0; k < n; k += EC_KD_BLOCK)
                j->use->rest(EC_MIN(EC_KD_BLOCK, n - k), x.s + k, x.r.max_s, out);
            hard = log1p(out[0] + (out[1] - 1)) + (max_s - (double)x.s[label]);
        }
        hard *= 1 - how->smoothing;
        if (how->smoothing != 0) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++)
                sum += (double)x.s[k] - max_s;
            hard += how->smoothing * (log(x.sums.w1) - sum / (double)n);
        }
    }
    if (kind == EC_KD_MSE) {
        kd = x.squares / (temperature * temperature);
        kd += x.sums.w1 != x.sums.w1 ? NAN : 0;
    } else {
        x.lambda = log(x.sums.w) - log(x.sums.z);
        kd = inv_s * (x.sums.ze / x.sums.z) + x.lambda;
        if (kd < 0.125 && !(how->kd * 0.25 < how->ce * hard)) { /* beyond, 2^-22 of error are less than 2e-6 of the loss */
            refine(j, &x);
            kd = inv_s * (x.sums.ze / x.sums.z) + x.lambda;
        }
        const int broken = kd != kd || !(x.sums.w > 0);
        if (kind != EC_KD_KL)
            kd = pairs(j, &x, kind, &mean);
        kd = broken ? NAN : kd < 0 ? 0 : kd;
    }
    const double none = kd != kd ? kd : 0; /* NaN of a row that has it */
    j->loss[i] = weight * ((how->kd != 0 ? how->kd * kd : none) + (ce ? how->ce * hard : 0));
    if (!grad)
        return;
    const double g = how->scale * weight, hot = ce ? g * how->ce * (1 - how->smoothing) : 0;
    double c[4] = {ce ? g * how->ce / x.sums.w1 : 0, 0, 0, ce ? g * how->ce * how->smoothing / (double)n : 0};
    if (kind == EC_KD_MSE) {
        c[2] = -2 * g * how->kd / (temperature * temperature);
    } else {
        c[1] = g * how->kd / temperature / x.sums.w;
        c[2] = g * how->kd / temperature / x.sums.z;
    }
    if (kd != kd || (kind == EC_KD_REVERSE_KL && kd == INFINITY))
        c[3] = NAN;
    write_row(j, &x, kind == EC_KD_KL || kind == EC_KD_MSE, c, mean, label, hot, grad);
}

static void do_rows(void *ctx, int64_t task, int thread)
{
    const job *j = ctx;
    float *scratch = j->scratch + thread * scratch_floats(j->n);
    for (int64_t i = task * j->rows; i < EC_MIN(j->m, (task + 1) * j->rows); i++)
        do_row(j, i, scratch);
#ifdef EC_X86
    _mm_sfence(); /* what went past the caches is there for who waits */
#endif
}

static int thread_count(int64_t m, int64_t n, int threads)
{
    return ec_threads_that_pay((int)EC_MIN(m + !m, ec_thread_limit(threads)), (double)m * (double)n);
}

int ec_kd_loss_threads(int64_t m, int64_t n, int64_t k, int threads) { return (void)k, thread_count(m, n, threads); }

size_t ec_kd_loss_workspace(int64_t m, int64_t n, int threads)
{
    return (size_t)(EC_MIN(m, ec_thread_limit(threads)) * scratch_floats(n)) * 4;
}

int ec_kd_loss(int64_t m, int64_t n, const float *student, int64_t lds, const float *teacher, int64_t ldt, const int64_t *labels,
               const double *weight, const ec_kd *how, double *loss, float *grad, int64_t ldg, int threads, void *workspace, size_t size)
{
    if (size < ec_kd_loss_workspace(m, n, threads))
        return EC_E_WORKSPACE;
    job j = {.m = m, .n = n, .lds = lds, .ldt = ldt, .ldg = ldg, .student = student, .teacher = teacher, .labels = labels, .weight = weight,
             .how = how, .loss = loss, .grad = grad, .scratch = workspace, .use = ec_use_kd_loss()};
    j.rows = EC_MIN(1 + TASK / n, ec_div_up(m + !m, 1));
    j.stream = (size_t)(m * n) * 4 >= STREAM_BYTES;
    ec_parallel(thread_count(m, n, threads), ec_div_up(m, j.rows), do_rows, &j);
    return EC_OK;
}
