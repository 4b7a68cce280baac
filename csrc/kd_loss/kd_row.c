/* The passes over a row of the distillation loss. The logits are read from memory once, block by block: e^x of student and teacher go to
 * the scratch of the row (two rows, which stay in L2), relative to the largest logits met so far. When all sums are known a last pass makes
 * the gradient of the scratch: multiplications and additions, written once, past the caches if it is large. */
#include "kd_job.h"
#ifdef EC_X86
#include <immintrin.h>
#endif

static float at_least(float max) { return max > -FLT_MAX ? max : -FLT_MAX; } /* so that -inf - max is -inf */

static double rescale(double from, double to, double inv) { return to > from ? exp((from - to) * inv) : 1; }

/* Makes all relative to max_s and max_t, if these are larger than before. */
static void raise(ec_kd_one *x, float max_s, float max_t)
{
    const float s = at_least(max_s), t = at_least(max_t);
    if (s > x->r.max_s) {
        x->sums.w *= rescale(x->r.max_s, s, x->inv_s);
        x->sums.w1 *= rescale(x->r.max_s, s, 1);
        x->sums.ze += x->sums.z > 0 ? x->sums.z * ((double)s - (double)x->r.max_s) : 0;
        x->r.max_s = s;
    }
    if (t > x->r.max_t) {
        const double factor = rescale(x->r.max_t, t, x->inv_t);
        x->sums.ze -= x->sums.z > 0 ? x->sums.z * ((double)t - (double)x->r.max_t) * (double)x->r.ratio : 0;
        x->sums.z *= factor;
        x->sums.ze *= x->sums.ze < INFINITY ? factor : 1; /* inf stays, whatever it came from */
        x->r.max_t = t;
    }
}

/* One block: w, z and their sums; and the largest logits of the block that is worked off after it. */
static ec_kd_sums read_block(const ec_kd_job *j, ec_kd_one *x, int64_t i, int64_t count)
{
    const int same_row = i + count < j->n, known = same_row ? j->n - i - count >= count : x->next_s != NULL;
    const float *s = x->s + i, *t = x->t + i, *next_s = same_row ? s + count : x->next_s, *next_t = same_row ? t + count : x->next_t;
    ec_kd_sums sums;
    for (int masked = 0; masked < 2; masked++) {
        sums = (ec_kd_sums){0};
        j->use->forward(count, s, t, &x->r, masked, known ? next_s : s, known ? next_t : t, x->w + i, x->z + i, &sums, x->ahead->found);
        if (sums.ze - sums.ze == 0)
            break;
    }
    x->ahead->s = known ? next_s : NULL;
    x->ahead->count = count;
    return sums;
}

/* The largest logits of a block, of which some may have been seen on the way to it. */
static void find_largest(const ec_kd_job *j, ec_kd_one *x, int64_t i, int64_t count)
{
    const int64_t seen = x->ahead->s == x->s + i ? EC_MIN(x->ahead->count, count) : 0;
    float found[2] = {-INFINITY, -INFINITY};
    if (seen < count)
        j->use->maxima(count - seen, x->s + i + seen, x->t + i + seen, found);
    for (int k = 0; k < 2 && seen; k++)
        found[k] = x->ahead->found[k] > found[k] ? x->ahead->found[k] : found[k];
    raise(x, found[0], found[1]);
}

enum {
    PARTS = 64,             /* of a row, at most */
    PART = 32 * EC_KD_BLOCK /* classes of a part, at least */
};

/* One pass over a row. */
typedef struct pass {
    void (*run)(struct pass *p, int64_t begin, int64_t end, int part);
    const ec_kd_job *j;
    ec_kd_one *x;
    int kind, kl;
    const double *c;
    double mean, hot;
    int64_t label, size; /* of a part */
    float *grad;
    double (*out)[2]; /* sums of each part */
    ec_kd_one *parts; /* of read_part */
} pass;

static void one_part(void *ctx, int64_t part, int thread)
{
    (void)thread;
    pass *p = ctx;
    p->run(p, part * p->size, EC_MIN(p->j->n, (part + 1) * p->size), (int)part);
}

/* Returns the number of parts. */
static int64_t run(pass *p, double out[2])
{
    const int64_t n = p->j->n, least = ec_div_up(ec_div_up(n, PARTS), EC_KD_BLOCK) * EC_KD_BLOCK;
    p->size = least < PART ? PART : least;
    const int64_t parts = ec_div_up(n, p->size);
    double sums[PARTS][2];
    memset(sums, 0, (size_t)parts * sizeof *sums);
    p->out = sums;
    if (p->j->inner > 1)
        ec_parallel(p->j->inner, parts, one_part, p);
    else
        for (int64_t i = 0; i < parts; i++)
            one_part(p, i, 0);
    for (int64_t i = 0; i < parts; i++)
        out[0] += sums[i][0], out[1] += sums[i][1];
    p->out = NULL;
    return parts;
}

static void read_part(pass *p, int64_t begin, int64_t end, int part)
{
    const ec_kd_job *j = p->j;
    ec_kd_one x = *p->x;
    ec_kd_ahead own = {0};
    if (j->inner > 1)
        x.ahead = &own;
    for (int64_t i = begin; i < end; i += EC_KD_BLOCK) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, end - i), b = i / EC_KD_BLOCK;
        ec_kd_sums sums = {0};
        find_largest(j, &x, i, count);
        if (p->kind == EC_KD_MSE)
            x.squares += j->use->squares(count, x.s + i, x.t + i, &x.r, x.w + i, x.z + i, &sums);
        else
            sums = read_block(j, &x, i, count);
        x.max_s[b] = x.r.max_s;
        x.max_t[b] = x.r.max_t;
        x.sums.w += sums.w, x.sums.w1 += sums.w1, x.sums.z += sums.z, x.sums.ze += sums.ze;
    }
    p->parts[part] = x;
}

void ec_kd_read(const ec_kd_job *j, ec_kd_one *x, int kind)
{
    ec_kd_one found[PARTS];
    pass p = {.run = read_part, .j = j, .x = x, .kind = kind, .parts = found};
    double none[2] = {0, 0};
    x->r.max_s = x->r.max_t = -INFINITY;
    const int64_t parts = run(&p, none);
    for (int64_t i = 0; i < parts; i++) {
        ec_kd_one *part = &found[i];
        raise(x, part->r.max_s, part->r.max_t);
        raise(part, x->r.max_s, x->r.max_t);
        x->sums.w += part->sums.w, x->sums.w1 += part->sums.w1, x->sums.z += part->sums.z, x->sums.ze += part->sums.ze;
        x->squares += part->squares;
    }
}

/* Where p and q are close the logarithms of their normalisers cancel, and with them the digits of their e^x: then lambda comes from
 * the differences, log1p(sum p (e^(log q/p + lambda) - 1)): a small sum of small terms, e being relative to even_s. */
static void refine_part(pass *p, int64_t begin, int64_t end, int part)
{
    const ec_kd_one *x = p->x;
    for (int64_t i = begin; i < end; i += EC_KD_BLOCK) {
        const int64_t b = i / EC_KD_BLOCK;
        const double w = exp(((double)x->max_s[b] - (double)x->even_s) * x->inv_s), z = rescale(x->max_t[b], x->r.max_t, x->inv_t);
        const float scale[2] = {(float)(w / x->sums.z), (float)(z / x->sums.z)};
        p->j->use->refine(EC_MIN(EC_KD_BLOCK, end - i), x->s + i, x->t + i, &x->r, x->even_s, x->w + i, x->z + i, scale, p->out[part]);
    }
}

double ec_kd_refine(const ec_kd_job *j, ec_kd_one *x, double kl)
{
    pass p = {.run = refine_part, .j = j, .x = x};
    double out[2] = {0, 0};
    run(&p, out);
    if (!(fabs(out[0]) < 1)) /* logits so large that even_s cannot be told from max_s */
        return kl;
    x->lambda = log1p(out[0]);
    return x->inv_s * out[1] + x->lambda;
}

/* The loss of a kind but KL; z becomes its derivative by q. mean: the sum of that times q. */
static void pair_part(pass *p, int64_t begin, int64_t end, int part)
{
    const ec_kd_one *x = p->x;
    const float lambda = (float)x->lambda;
    for (int64_t i = begin; i < end; i += EC_KD_BLOCK) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, end - i), b = i / EC_KD_BLOCK;
        const double w = rescale(x->max_s[b], x->r.max_s, x->inv_s), z = rescale(x->max_t[b], x->r.max_t, x->inv_t);
        const float scale[2] = {(float)(w / x->sums.w), (float)(z / x->sums.z)};
        p->j->use->pair(p->kind, count, x->s + i, x->t + i, &x->r, x->even_s, x->w + i, x->z + i, scale, lambda, p->out[part]);
    }
}

double ec_kd_pairs(const ec_kd_job *j, ec_kd_one *x, int kind, double *mean)
{
    pass p = {.run = pair_part, .j = j, .x = x, .kind = kind};
    double out[2] = {0, 0};
    run(&p, out);
    *mean = out[1];
    return out[0];
}

static void rest_part(pass *p, int64_t begin, int64_t end, int part)
{
    for (int64_t i = begin; i < end; i += EC_KD_BLOCK)
        p->j->use->rest(EC_MIN(EC_KD_BLOCK, end - i), p->x->s + i, p->x->r.max_s, p->out[part]);
}

double ec_kd_rest(const ec_kd_job *j, ec_kd_one *x)
{
    pass p = {.run = rest_part, .j = j, .x = x};
    double out[2] = {0, 0};
    run(&p, out);
    return log1p(out[0] + (out[1] - 1));
}

/* The gradient of a part, of whose row `label` (if not negative) gets `hot` less. c: as the microkernel has it, for the row's maxima. */
static void write_part(pass *p, int64_t begin, int64_t end, int part)
{
    (void)part;
    const ec_kd_job *j = p->j;
    const ec_kd_one *x = p->x;
    const double *c = p->c;
    for (int64_t i = begin; i < end; i += EC_KD_BLOCK) {
        const int64_t count = EC_MIN(EC_KD_BLOCK, end - i), b = i / EC_KD_BLOCK, label = p->label, at = label - i;
        const double one = rescale(x->max_s[b], x->r.max_s, 1), w = rescale(x->max_s[b], x->r.max_s, x->inv_s);
        const double z = j->how->kind == EC_KD_MSE || !p->kl ? 1 : rescale(x->max_t[b], x->r.max_t, x->inv_t);
        const float factors[4] = {(float)(c[0] * one), (float)(c[1] * w), (float)(c[2] * z), (float)c[3]};
        ec_kd_row r = x->r;
        r.max_s = x->max_s[b];
        double entry = 0;
        if (at >= 0 && at < count) {
            const double wl = x->w[label], zl = x->z[label];
            entry = c[0] * exp((double)x->s[label] - (double)x->r.max_s) - p->hot - c[3];
            entry += p->kl ? c[1] * w * wl - c[2] * z * zl : c[1] * w * wl * (zl - p->mean);
        }
        j->use->gradient(p->kl, count, x->s + i, &r, x->w + i, x->z + i, factors, (float)p->mean, p->grad + i, j->stream);
        if (at >= 0 && at < count)
            p->grad[label] = (float)entry;
    }
#ifdef EC_X86
    _mm_sfence(); /* what went past the caches is there for who waits */
#endif
}

void ec_kd_write(const ec_kd_job *j, ec_kd_one *x, int kl, const double c[4], double mean, int64_t label, double hot, float *grad)
{
    pass p = {.run = write_part, .j = j, .x = x, .kl = kl, .c = c, .mean = mean, .label = label, .hot = hot, .grad = grad};
    double none[2] = {0, 0};
    run(&p, none);
}
