/* How an op is called and what comes back is compared. */
#ifndef CALLS_H
#define CALLS_H
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "problem.h"

static double worst[ACTS]; /* error of the smooth activations, as a share of what is allowed */

typedef struct { int act, threads, bias; int64_t ldy; } options;

static options pick(const problem *p, const char *form)
{
    static int act; /* rotates, so that every kind of call meets every activation */
    const options o = {act++ % ACTS, below(4), below(2), p->n + (below(2) ? below(20) : 0)};
    snprintf(now->call, sizeof now->call, "%s, act=%s threads=%d bias=%d ldx=%lld ldy=%lld", form, ACT_NAMES[o.act], o.threads, o.bias,
             (long long)p->ldx, (long long)o.ldy);
    return o;
}

/* Rounding towards zero, denormals as zeros: what a caller may have set, no op may notice, and every op must put back. */
#if defined(__x86_64__)
enum { HOSTILE = 0xFFC0, DEFAULT = 0x1F80, STATUS = 0x3F };
static unsigned fp_mode(void) { return _mm_getcsr() & ~(unsigned)STATUS; }
static void set_fp_mode(unsigned mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
enum { HOSTILE = 0x01C00000, DEFAULT = 0 };
static unsigned fp_mode(void) { return (unsigned)__builtin_aarch64_get_fpcr(); }
static void set_fp_mode(unsigned mode) { __builtin_aarch64_set_fpcr(mode); }
#endif

static void enter(void) { set_fp_mode(rnd() & 1 ? HOSTILE : DEFAULT); }

static void leave(int status, int wanted)
{
    const unsigned mode = fp_mode();
    set_fp_mode(DEFAULT);
    if (mode != HOSTILE && mode != DEFAULT)
        fail("floating-point mode %#x is not put back", mode);
    if (status != wanted)
        fail("returned %d instead of %d", status, wanted);
    now->passed++;
}

/* How far a smooth activation is from the true one, as a share of what docs/numerics.md allows, in units of the last
 * place: 3, and 8 for gelu and gelu_tanh. On the left tail of those the rounding of v^2 in the exponent adds 2.5 v^2.
 * Further left, where results are below 2^-120, the e^-v in a denominator may be Inf. */
static double error_share(int act, float v, float got)
{
    const double want = oracle_smooth_act(act, v), square = v < 0 ? (double)v * (double)v : 0;
    if (v < -8 && fabs(got - want) < 0x1p-120)
        return 0;
    return ulps(got, want) / (act == EC_ACT_GELU || act == EC_ACT_GELU_TANH ? 8 + 2.5 * square : 3);
}

/* y against act(pre). canonical: NaN has to be 0x7FC00000. */
static void check_floats(int64_t m, int64_t n, const float *y, int64_t ldy, const float *pre, int act, int canonical)
{
    const int smooth = act > EC_ACT_HARDSIGMOID;
    check_gaps(y, m, n, ldy, sizeof *y);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            const float v = pre[i * n + j], got = y[i * ldy + j];
            const float want = smooth ? (float)oracle_smooth_act(act, v) : oracle_simple_act(act, v);
            const double off = smooth ? error_share(act, v, got) : 0;
            int same = smooth ? off <= 1 : bits_of(got) == bits_of(want);
            if (want != want)
                same = canonical ? bits_of(got) == 0x7FC00000 : got != got && bits_of(got) != 0xFFFFFFFF;
            if (!same)
                fail("y[%lld][%lld] = %.9g (%#x) instead of %.9g (%#x), before the activation %.9g (%#x)", (long long)i, (long long)j,
                     (double)got, bits_of(got), (double)want, bits_of(one_nan(want)), (double)v, bits_of(v));
            if (off > worst[act])
                worst[act] = off;
        }
}
#endif
