/* Random problems: rows of activations and of weights of every kind that has ever broken a kernel, bias, scales. */
#ifndef PROBLEM_H
#define PROBLEM_H
#include <float.h>

#include "guard.h"
#include "oracle.h"

/* One row of k floats. Half are plain; `wild` allows NaN and Inf; `range` is the largest magnitude the op can take. */
static void fill_row(float *x, int64_t k, int wild, float range)
{
    enum { ZEROS, MINUS_ZEROS, POSITIVE, NEGATIVE, CONSTANT, DENORMAL, HUGE, SPIKE, FLOOR, TIES, NANS, INFS, KINDS };
    const int may_overflow = k > 66311 && below(4); /* sums beyond int32 need the extremes all along the row */
    const int kind = may_overflow ? CONSTANT : rnd() & 1 ? KINDS : below(wild ? KINDS : NANS);
    const float size = ldexpf(1, below(40) - 20), constant = size * normalish();
    for (int64_t p = 0; p < k; p++)
        switch (kind) {
        case ZEROS: x[p] = 0; break;
        case MINUS_ZEROS: x[p] = p & 1 ? -0.0f : 0.0f; break;
        case POSITIVE: x[p] = size * fabsf(normalish()); break;
        case NEGATIVE: x[p] = -size * fabsf(normalish()); break;
        case CONSTANT: x[p] = constant; break;
        case DENORMAL: x[p] = from_bits(rnd() & 0x807FFFFF); break;
        case HUGE: x[p] = range * uniform(); break;
        case SPIKE: x[p] = 1e-3f * uniform(); break;
        case FLOOR: x[p] = (float)(below(257) - 1) * 0x1p-126f * (1 - FLT_EPSILON * (float)below(2)); break; /* scale about 2^-126 */
        case TIES: x[p] = (float)below(511) / 2 - 128; break; /* scale 1: every other value is a tie */
        default: x[p] = size * normalish();
        }
    if (k == 0)
        return;
    const int64_t spot = below((int)k);
    if (kind == SPIKE)
        x[spot] = rnd() & 1 ? 1e6f : -1e6f;
    if (kind == TIES && k > 1) {
        x[0] = 127;
        x[k - 1] = -128;
    }
    if (kind == NANS)
        x[spot] = from_bits(rnd() & 1 ? 0x7FC01234 : 0xFFA00001); /* quiet; signalling with the sign set */
    if (kind == INFS)
        x[spot] = rnd() & 1 ? INFINITY : -INFINITY;
}

/* The extremes are there for kernels that saturate on the way. */
static void fill_weights(int8_t *w, int64_t k)
{
    const int kind = below(k > 66311 ? 3 : 8);
    for (int64_t p = 0; p < k; p++)
        w[p] = (int8_t)(kind == 0 ? 127 : kind == 1 ? -127 : kind == 2 ? (p & 1 ? 127 : -127) : kind == 3 ? 0 : below(255) - 127);
}

static float special(void)
{
    static const float SPECIALS[] = {0.0f, -0.0f, FLT_MIN, -1e-41f, 1e30f, -1e30f, 1.0f, -2.5f};
    return SPECIALS[below(8)];
}

/* ---- one problem: the inputs of every op, and what the integer ops have to give ------------------------------------------ */

typedef struct {
    int64_t m, n, k, ldx, panels;
    float *x;
    uint8_t *xq, *xzero; /* x quantised by the oracle */
    float *xscale;
    int nonfinite;       /* rows with NaN or Inf */
    int8_t *w;           /* packed n16k4 */
    const int8_t *w_plain;
    float *wscale, *bias;
    int32_t *wsum;
    float *product;      /* [m][n]: ((float)sum * xscale) * wscale */
} problem;

static float *resized(float **memory, size_t count)
{
    *memory = realloc(*memory, (count + 1) * sizeof(float));
    if (!*memory)
        fail("no memory");
    return *memory;
}

static void make_x(problem *p, float range)
{
    const int wild = below(4) == 0;
    p->ldx = p->k + (rnd() & 1 ? below(20) : 0);
    p->x = place(X, 4 * extent(p->m, p->k, p->ldx));
    p->xq = place(XQ, (size_t)(p->m * p->k));
    p->xscale = place(XSCALE, 4 * (size_t)p->m);
    p->xzero = place(XZERO, (size_t)p->m);
    p->nonfinite = 0;
    for (int64_t i = 0; i < p->m; i++) {
        fill_row(p->x + i * p->ldx, p->k, wild, range);
        oracle_quantize_row(p->k, p->x + i * p->ldx, p->xq + i * p->k, p->xscale + i, p->xzero + i);
        p->nonfinite += p->xscale[i] != p->xscale[i];
    }
}

static void make_s8(problem *p)
{
    static float *product;
    const size_t columns = (size_t)(16 * p->panels);
    int8_t *plain = place(W_PLAIN, (size_t)(p->n * p->k));
    p->w = memset(place(W, columns * (size_t)((p->k + 3) / 4 * 4)), 0, columns * (size_t)((p->k + 3) / 4 * 4));
    p->wscale = memset(place(WSCALE, 4 * columns), 0, 4 * columns);
    p->wsum = memset(place(WSUM, 4 * columns), 0, 4 * columns);
    p->bias = place(BIAS, 4 * (size_t)p->n);
    for (int64_t j = 0; j < p->n; j++) {
        fill_weights(plain + j * p->k, p->k);
        for (int64_t i = 0; i < p->k; i++)
            p->wsum[j] += plain[j * p->k + i];
        p->wscale[j] = below(10) ? 0.01f * (1.5f + uniform()) : special();
        p->bias[j] = below(10) ? normalish() : special();
    }
    if (p->n && below(4) == 0)
        p->bias[below((int)p->n)] = rnd() & 1 ? from_bits(0xFFC00001) : INFINITY;
    pack_n16k4(p->n, p->k, plain, p->w);
    p->w_plain = plain;
    p->product = resized(&product, (size_t)(p->m * p->n));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            const int64_t sum = oracle_dot(p->k, p->xq + i * p->k, 0, p->xzero[i], plain + j * p->k);
            p->product[i * p->n + j] = (float)sum * p->xscale[i] * p->wscale[j];
        }
}
#endif
