/* Many short rows: as many as a vector has lanes at once. A row by itself would be all beginnings and ends. */
#include "kd_job.h"

typedef struct {
    double hard[EC_KD_LANES], kd[EC_KD_LANES];
} losses;

/* CE of each row: as for long rows. */
static void hard_losses(const ec_kd_job *j, const ec_kd_short *l, const double *label_s, unsigned good, losses *out)
{
    const int lanes = j->use->lanes;
    double sum[EC_KD_LANES] = {0}, ones[EC_KD_LANES] = {0}, normaliser[EC_KD_LANES];
    int near = 0;
    memcpy(normaliser, l->w1, sizeof normaliser);
    j->use->short_log(normaliser);
    for (int i = 0; i < lanes; i++) {
        out->hard[i] = normaliser[i] + ((double)l->max_s[i] - label_s[i]);
        near |= (good >> i & 1) && out->hard[i] < 0.25;
    }
    if (near) { /* next to the largest term, which is 1, the others have lost digits */
        j->use->short_rest(j->n, l, sum, ones);
        for (int i = 0; i < lanes; i++)
            if (out->hard[i] < 0.25)
                out->hard[i] = log1p(sum[i] + (ones[i] - 1)) + ((double)l->max_s[i] - label_s[i]);
    }
    if (j->how->smoothing == 0)
        return;
    memset(sum, 0, sizeof sum);
    for (int64_t c = 0; c < j->n; c++)
        for (int i = 0; i < lanes; i++)
            sum[i] += (double)l->lines[c * lanes + i] - (double)l->max_s[i];
    for (int i = 0; i < lanes; i++)
        out->hard[i] = (1 - j->how->smoothing) * out->hard[i] + j->how->smoothing * (normaliser[i] - sum[i] / (double)j->n);
}

/* KD of each row: as for long rows. */
static void kd_losses(const ec_kd_job *j, const ec_kd_row *r, double inv_s, const ec_kd_short *l, unsigned good, losses *out)
{
    const int lanes = j->use->lanes;
    double off[EC_KD_LANES] = {0}, pe[EC_KD_LANES] = {0}, lambda[EC_KD_LANES];
    unsigned near = 0;
    for (int i = 0; i < lanes; i++)
        lambda[i] = l->w[i] / l->z[i];
    j->use->short_log(lambda);
    for (int i = 0; i < lanes; i++) {
        out->kd[i] = inv_s * (l->ze[i] / l->z[i]) + lambda[i];
        near |= (unsigned)(out->kd[i] < 0.125 && !(j->how->kd * 0.25 < j->how->ce * out->hard[i])) << i;
    }
    if (near & good)
        j->use->short_refine(j->n, r, l, lambda, off, pe);
    for (int i = 0; i < lanes; i++) {
        if (near & good & 1u << i && fabs(off[i]) < 1)
            out->kd[i] = inv_s * pe[i] + log1p(off[i]);
        out->kd[i] = out->kd[i] < 0 ? 0 : out->kd[i];
    }
}

unsigned ec_kd_short_rows(const ec_kd_job *j, int64_t first, int rows, float *scratch)
{
    const ec_kd *how = j->how;
    const int64_t n = j->n;
    const int lanes = j->use->lanes, ce = how->ce != 0;
    const float *s[EC_KD_LANES], *t[EC_KD_LANES];
    float *grad[EC_KD_LANES];
    double label_s[EC_KD_LANES] = {0}, weight[EC_KD_LANES] = {0};
    ec_kd_short l = {.lines = scratch};
    ec_kd_row r = {.power = ec_kd_power(how->temperature), .ce = ce, .ratio = (float)(how->temperature / how->teacher_temperature)};
    const double inv_s = ec_kd_in_bits(how->temperature, &r.scale_s, &r.least_s);
    ec_kd_in_bits(how->teacher_temperature, &r.scale_t, &r.least_t);
    r.inv_s = (float)inv_s;
    for (int i = 0; i < lanes; i++) {
        const int64_t row = first + EC_MIN(i, rows - 1); /* what is missing is the last once more */
        s[i] = j->student + row * j->lds;
        t[i] = j->teacher + row * j->ldt;
        weight[i] = j->weight[row];
    }
    j->use->short_forward(n, s, t, &r, &l);

    unsigned good = 0;
    for (int i = 0; i < rows; i++)
        good |= (unsigned)(weight[i] > 0 && l.ze[i] - l.ze[i] == 0) << i;
    for (int i = 0; i < lanes; i++) {
        const int64_t label = ce && good >> i & 1 ? j->labels[first + i] : 0;
        l.label[i] = (float)label;
        label_s[i] = (double)l.lines[label * lanes + i];
    }
    losses got = {{0}, {0}};
    if (ce)
        hard_losses(j, &l, label_s, good, &got);
    kd_losses(j, &r, inv_s, &l, good, &got);
    for (int i = 0; i < rows; i++)
        if (good >> i & 1)
            j->loss[first + i] = weight[i] * (how->kd * got.kd[i] + how->ce * got.hard[i]);
    if (j->grad) {
        const double ce_scale = how->scale * how->ce, kd_scale = how->scale * how->kd / how->temperature, u = how->smoothing;
        for (int i = 0; i < lanes; i++) {
            l.c[0][i] = (float)(ce_scale * weight[i] / l.w1[i]);
            l.c[1][i] = (float)(kd_scale * weight[i] / l.w[i]);
            l.c[2][i] = (float)(kd_scale * weight[i] / l.z[i]);
            l.c[3][i] = (float)(ce_scale * weight[i] * u / (double)n);
            l.hot[i] = (float)(ce_scale * weight[i] * (1 - u));
        }
        for (int i = 0; i < lanes; i++)
            grad[i] = good >> i & 1 ? j->grad + (first + i) * j->ldg : NULL;
        j->use->short_gradient(n, &r, &l, grad);
    }
    return ~good & ((1u << rows) - 1);
}
