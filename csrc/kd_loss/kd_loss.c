/* The distillation loss and its gradient: a row per turn, or a group of short rows; what is done once a row. */
#include "kd_job.h"

enum {
    STREAM_BYTES = 4 << 20, /* gradients from this size on would only push other data out of the caches */
    TASK = 16384,           /* classes of the rows that are taken at once */
    SHARED = 65536          /* classes from which on threads share a row */
};

typedef ec_kd_job job;
typedef ec_kd_one row;

static int64_t blocks_of(int64_t n) { return ec_div_up(n, EC_KD_BLOCK); }
static int64_t pitch(int64_t n) { return n + 80; } /* rows of scratch a power of two apart would share sets of the cache */
static int64_t scratch_floats(int64_t n)
{
    const int64_t one = 2 * (pitch(n) + blocks_of(n));
    return n <= EC_KD_SHORT && one < 4 * n * EC_KD_LANES ? 4 * n * EC_KD_LANES : one;
}

double ec_kd_in_bits(double temperature, float *scale, float *least)
{
    *scale = (float)(1.4426950408889634 / temperature);
    *least = -127 / *scale;
    return (double)*scale / 1.4426950408889634;
}

static void do_row(const job *j, int64_t i, int64_t next, ec_kd_ahead *ahead, float *scratch)
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
    row x = {.s = j->student + i * j->lds, .t = j->teacher + i * j->ldt, .w = scratch, .z = scratch + pitch(n), .ahead = ahead};
    if (next < j->m && j->weight[next] > 0)
        x.next_s = j->student + next * j->lds, x.next_t = j->teacher + next * j->ldt;
    x.max_s = scratch + 2 * pitch(n);
    x.max_t = x.max_s + blocks_of(n);
    x.r.ce = ce;
    x.r.beta = (float)how->beta;
    x.inv_s = ec_kd_in_bits(kind == EC_KD_MSE ? 1 : temperature, &x.r.scale_s, &x.r.least_s);
    x.inv_t = ec_kd_in_bits(how->teacher_temperature, &x.r.scale_t, &x.r.least_t);
    x.inv_s = kind == EC_KD_MSE ? 1 : x.inv_s;
    x.r.inv_s = (float)x.inv_s;
    x.r.ratio = (float)(temperature / how->teacher_temperature);
    x.r.power = kind == EC_KD_MSE ? 1 : ec_kd_power(temperature);
    ec_kd_read(j, &x, kind);

    const double inv_s = x.inv_s, max_s = x.r.max_s;
    double hard = 0, kd, mean = 0;
    if (ce) {
        hard = log(x.sums.w1) + (max_s - (double)x.s[label]);
        if (hard < 0.25) /* next to the largest term, which is 1, the others have lost digits */
            hard = ec_kd_rest(j, &x) + (max_s - (double)x.s[label]);
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
        const double lambda = log(x.sums.w) - log(x.sums.z);
        kd = inv_s * (x.sums.ze / x.sums.z) + lambda;
        x.even_s = (float)(max_s + lambda / inv_s);
        x.lambda = lambda - ((double)x.even_s - max_s) * inv_s;
        const int small = kd < 0.125 || (kd == INFINITY && kind != EC_KD_KL); /* an infinite KL tells nothing of the others */
        if (small && !(how->kd * 0.25 < how->ce * hard)) /* beyond, 2^-22 of error are less than 2e-6 of the loss */
            kd = ec_kd_refine(j, &x, kd);
        const int broken = kd != kd || !(x.sums.w > 0);
        if (kind != EC_KD_KL)
            kd = ec_kd_pairs(j, &x, kind, &mean);
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
    ec_kd_write(j, &x, kind == EC_KD_KL || kind == EC_KD_MSE, c, mean, label, hot, grad);
}

static void do_rows(void *ctx, int64_t task, int thread)
{
    const job *j = ctx;
    float *scratch = j->scratch + thread * scratch_floats(j->n);
    ec_kd_ahead ahead = {0};
    const int64_t end = EC_MIN(j->m, (task + 1) * j->rows);
    for (int64_t i = task * j->rows; i < end; i += ec_kd_is_short(j) ? j->use->lanes : 1) {
        const int count = (int)EC_MIN(end - i, j->use->lanes);
        if (!ec_kd_is_short(j)) {
            do_row(j, i, i + 1 < end ? i + 1 : j->m, &ahead, scratch);
            continue;
        }
        for (unsigned left = ec_kd_short_rows(j, i, count, scratch), k = 0; left >> k; k++)
            if (left >> k & 1)
                do_row(j, i + k, j->m, &ahead, scratch);
    }
}

static int thread_count(int64_t m, int64_t n, int threads)
{
    return ec_threads_that_pay(threads, (double)m * ((double)n + 50)); /* ns */
}

/* Whether threads share rows instead of taking some each. */
static int is_shared(int64_t m, int64_t n, int threads) { return m < threads && n >= SHARED; }

int ec_kd_loss_threads(int64_t m, int64_t n, int64_t k, int threads)
{
    (void)k;
    const int count = thread_count(m, n, threads);
    return is_shared(m, n, count) ? count : (int)EC_MIN(m + !m, count);
}

size_t ec_kd_loss_workspace(int64_t m, int64_t n, int threads)
{
    return 64 + (size_t)(EC_MIN(m, ec_thread_limit(threads)) * scratch_floats(n)) * 4;
}

int ec_kd_loss(int64_t m, int64_t n, const float *student, int64_t lds, const float *teacher, int64_t ldt, const int64_t *labels,
               const double *weight, const ec_kd *how, double *loss, float *grad, int64_t ldg, int threads, void *workspace, size_t size)
{
    threads = ec_thread_limit(threads); /* once: another thread may set the default meanwhile, and the scratch is counted by it */
    if (size < ec_kd_loss_workspace(m, n, threads))
        return EC_E_WORKSPACE;
    job j = {.m = m, .n = n, .lds = lds, .ldt = ldt, .ldg = ldg, .student = student, .teacher = teacher, .labels = labels, .weight = weight,
             .how = how, .loss = loss, .grad = grad, .use = ec_use_kd_loss()};
    j.scratch = (float *)(((uintptr_t)workspace + 63) & ~(uintptr_t)63);
    j.rows = ec_kd_is_short(&j) ? ec_div_up(TASK / n, j.use->lanes) * j.use->lanes : 1 + TASK / n;
    j.stream = (size_t)(m * n) * 4 >= STREAM_BYTES;
    const int count = thread_count(m, n, threads), shared = is_shared(m, n, count);
    j.inner = shared ? count : 1;
    ec_parallel(shared ? 1 : count, ec_div_up(m, j.rows), do_rows, &j);
    return EC_OK;
}
