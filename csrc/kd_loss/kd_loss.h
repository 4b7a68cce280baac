/* Distillation loss: what kernels and driver agree on. */
#ifndef EC_KD_LOSS_H
#define EC_KD_LOSS_H
#include "../kernels.h"

/* A row is worked off in blocks, each relative to the largest logits met so far. With x = (s - max_s) / T and y likewise of the teacher:
 * w = e^x, z = e^y, and e = T (y - x), what the two differ by. */
enum { EC_KD_BLOCK = 1024 };

typedef struct {
    int power;          /* e^(s - max_s) = w^power: 1 to 4, or 0 where T is none of them */
    int ce;             /* whether anyone asks for e^(s - max_s) */
    float inv_s;        /* 1 / temperature of the student */
    float scale_s, scale_t; /* the same in bits: log2(e) times that. What float32 rounds away of it is a temperature 2^-25 off */
    float least_s, least_t; /* what is below has e^x = 0 */
    float ratio;            /* of the temperatures, student's / teacher's */
    float max_s, max_t;     /* the largest logits met so far, at least -FLT_MAX */
    float beta;
} ec_kd_row;

typedef struct { double w, w1, z, ze; } ec_kd_sums; /* of w, e^(s - max_s), z and z * e */

/* Rows of so few classes are worked off side by side, one in each lane of a vector: 16 at most. */
enum { EC_KD_SHORT = 128, EC_KD_LANES = 16 };

typedef struct {
    float *lines; /* s, t, w, z: [4][n][lanes] */
    float max_s[EC_KD_LANES], max_t[EC_KD_LANES];
    double w[EC_KD_LANES], w1[EC_KD_LANES], z[EC_KD_LANES], ze[EC_KD_LANES]; /* sums */
    float c[4][EC_KD_LANES], hot[EC_KD_LANES], label[EC_KD_LANES]; /* of the gradient: as below, and what class `label` gets less */
} ec_kd_short;

typedef struct {
    /* The largest s and t. */
    void (*maxima)(int64_t n, const float *s, const float *t, float out[2]);
    /* w and z of a block; adds to the sums. masked: there may be -inf, which otherwise makes the sum of z e infinite or NaN. On the way
     * finds the largest values of next_s[n] and next_t[n], which brings them near. */
    void (*forward)(int64_t n, const float *s, const float *t, const ec_kd_row *r, int masked, const float *next_s, const float *next_t,
                    float *w, float *z, ec_kd_sums *sums, float found[2]);
    /* w = e^(s - max_s), z = s - t, 0 for a class that both mask; returns the sum of z^2. */
    double (*squares)(int64_t n, const float *s, const float *t, const ec_kd_row *r, float *w, float *z, ec_kd_sums *sums);
    /* Adds to out the sums of q - p, by e where q is about p: exact to second order; and of p e. e is relative to even_s and r's max_t;
     * w and z times scale[0] and scale[1] are q and p, both with p's normaliser. */
    void (*refine)(int64_t n, const float *s, const float *t, const ec_kd_row *r, float even_s, const float *w, const float *z,
                   const float scale[2], double out[2]);
    /* Adds to out the sum of e^(s - max_s) without its largest terms, which are 1, and how many these are. */
    void (*rest)(int64_t n, const float *s, float max_s, double out[2]);
    /* Of a kind but KL: z becomes g, the loss's derivative by q; adds to out the sums of the loss and of q g. w and z times scale[0] and
     * scale[1] are q and p; log(q / p) = -inv_s * e - lambda, e as there. */
    void (*pair)(int kind, int64_t n, const float *s, const float *t, const ec_kd_row *r, float even_s, const float *w, float *z,
                 const float scale[2], float lambda, double out[2]);
    /* grad = c[0] e^(s - max_s) + c[1] w (z - mean) - c[3]; or, if kl, c[0] e^(s - max_s) + c[1] w - c[2] z - c[3].
     * stream: past the caches. */
    void (*gradient)(int kl, int64_t n, const float *s, const ec_kd_row *r, const float *w, const float *z, const float c[4], float mean,
                     float *grad, int stream);
    /* Short rows of kind KL without a mask, `lanes` at a time: s, t and the gradients are pointers to their rows. As above. */
    int lanes;
    void (*short_forward)(int64_t n, const float *const *s, const float *const *t, const ec_kd_row *r, ec_kd_short *l);
    void (*short_log)(double *x); /* of normal numbers, to 1e-12 */
    /* lambda: log(sum of w / sum of z). */
    void (*short_refine)(int64_t n, const ec_kd_row *r, const ec_kd_short *l, const double *lambda, double *off, double *pe);
    void (*short_rest)(int64_t n, const ec_kd_short *l, double *sum, double *ones);
    void (*short_gradient)(int64_t n, const ec_kd_row *r, ec_kd_short *l, float *const *rows); /* NULL: none for that row */
} ec_kd_loss_impl;

const ec_kd_loss_impl *ec_use_kd_loss(void);
#endif
