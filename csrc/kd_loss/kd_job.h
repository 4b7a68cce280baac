/* What the driver's files share. */
#ifndef EC_KD_JOB_H
#define EC_KD_JOB_H
#include <float.h>

#include "kd_loss.h"

typedef struct {
    int64_t m, n, lds, ldt, ldg, rows; /* rows of a task */
    const float *student, *teacher;
    const int64_t *labels;
    const double *weight;
    const ec_kd *how;
    double *loss;
    float *grad, *scratch;
    int stream;
    int inner; /* threads that share a row */
    const ec_kd_loss_impl *use;
} ec_kd_job;

/* e^(s - max_s) = w^power, or 0. */
EC_INLINE int ec_kd_power(double temperature)
{
    return temperature == 1 || temperature == 2 || temperature == 3 || temperature == 4 ? (int)temperature : 0;
}

EC_INLINE int ec_kd_is_short(const ec_kd_job *j) { return j->n <= EC_KD_SHORT && (j->how->kind == EC_KD_KL || j->how->kd == 0); }

/* 1 / temperature in bits, and what is too far below the largest logit; returns 1 / temperature as the first has it. */
double ec_kd_in_bits(double temperature, float *scale, float *least);

/* What is known already of the block of logits that comes next: the largest of the first `count`. */
typedef struct {
    const float *s;
    int64_t count;
    float found[2];
} ec_kd_ahead;

/* One row on its way. */
typedef struct {
    const float *s, *t;
    float *w, *z, *max_s, *max_t; /* scratch: two rows; what each block is relative to */
    const float *next_s, *next_t; /* the row that comes after it, or NULL */
    ec_kd_ahead *ahead;
    ec_kd_row r;                  /* with the maxima of the row, once they are known */
    double inv_s, inv_t;          /* 1 / temperatures */
    ec_kd_sums sums;
    double squares;
    float even_s;                 /* the logits of student and teacher that even_s and max_t stand for are about equally likely */
    double lambda;                /* log(p / q) = (e / temperature) + lambda, e relative to even_s and max_t */
} ec_kd_one;

/* The passes over a row, part by part, each part block by block. Parts depend on n alone and are summed in order: the threads that share
 * them change nothing. */
void ec_kd_read(const ec_kd_job *j, ec_kd_one *x, int kind);
double ec_kd_refine(const ec_kd_job *j, ec_kd_one *x, double kl); /* a better one, and lambda */
double ec_kd_rest(const ec_kd_job *j, ec_kd_one *x); /* log sum e^(s - max_s), where that is next to 0 */
double ec_kd_pairs(const ec_kd_job *j, ec_kd_one *x, int kind, double *mean);
void ec_kd_write(const ec_kd_job *j, ec_kd_one *x, int kl, const double c[4], double mean, int64_t label, double hot, float *grad);

/* Loss and gradient of up to `lanes` rows, the first of a job's short ones or `lanes` times n after it. Returns those, a bit each, that
 * it leaves alone: rows without weight, with masks, or with what makes NaN. */
unsigned ec_kd_short_rows(const ec_kd_job *j, int64_t first, int rows, float *scratch);

#endif
