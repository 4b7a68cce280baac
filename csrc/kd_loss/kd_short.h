/* Short rows, one in each lane: the same steps as in kd_loops.h, which is included before, with the classes as the loop. */
#include <float.h>

/* Line c of lines[n][LANES] is class c of each row. */
static void take(int64_t n, const float *const *rows, float *lines)
{
    for (int lane = 0; lane < LANES; lane += SIDE, rows += SIDE, lines += SIDE) {
        for (int64_t c = 0; c < n && n < SIDE; c++)
            for (int i = 0; i < SIDE; i++)
                lines[c * LANES + i] = rows[i][c];
        for (int64_t c = 0; c < n && n >= SIDE; c += SIDE) {
            const float *from[SIDE];
            float *to[SIDE];
            const int64_t at = EC_MIN(c, n - SIDE); /* the last block overlaps the one before */
            for (int i = 0; i < SIDE; i++)
                from[i] = rows[i] + at, to[i] = lines + (at + i) * LANES;
            turn(from, to);
        }
    }
}

/* The way back; rows that are NULL stay as they are. */
static void give(int64_t n, const float *lines, float *const *rows)
{
    float nowhere[SIDE];
    for (int lane = 0; lane < LANES; lane += SIDE, rows += SIDE, lines += SIDE) {
        for (int i = 0; i < SIDE && n < SIDE; i++)
            for (int64_t c = 0; c < n && rows[i]; c++)
                rows[i][c] = lines[c * LANES + i];
        for (int64_t c = 0; c < n && n >= SIDE; c += SIDE) {
            const float *from[SIDE];
            float *to[SIDE];
            const int64_t at = EC_MIN(c, n - SIDE);
            for (int i = 0; i < SIDE; i++)
                from[i] = lines + (at + i) * LANES, to[i] = rows[i] ? rows[i] + at : nowhere;
            turn(from, to);
        }
    }
}

EC_INLINE void short_forward_as(int power, int64_t n, const ec_kd_row *r, ec_kd_short *l)
{
    const ec_kd_row row = *r;
    const float *s = l->lines, *t = s + n * LANES;
    float *w = l->lines + 2 * n * LANES, *z = w + n * LANES;
    vf max_s = vset(-FLT_MAX), max_t = max_s; /* so that -inf - max is -inf */
    for (int64_t c = 0; c < n; c++) {
        max_s = vmax(max_s, vload(s + c * LANES));
        max_t = vmax(max_t, vload(t + c * LANES));
    }
    vstore(l->max_s, max_s);
    vstore(l->max_t, max_t);
    memset(l->w, 0, 4 * sizeof l->w);
    for (int64_t c = 0; c < n;) {
        vf a[4] = {vset(0), vset(0), vset(0), vset(0)}, x, y;
        for (const int64_t end = EC_MIN(n, c + RUN / LANES); c < end; c++) {
            forward_step(power, 0, vload(s + c * LANES), vload(t + c * LANES), max_s, max_t, &row, &x, &y, a);
            vstore(w + c * LANES, x);
            vstore(z + c * LANES, y);
        }
        add_lanes(l->w, a[0]);
        add_lanes(l->z, a[1]);
        add_lanes(l->ze, a[2]);
        add_lanes(l->w1, a[power == 1 ? 0 : 3]);
    }
}

static void short_forward(int64_t n, const float *const *s, const float *const *t, const ec_kd_row *r, ec_kd_short *l)
{
    const int power = r->ce ? r->power : 1;
    take(n, s, l->lines);
    take(n, t, l->lines + n * LANES);
    if (power == 1)
        short_forward_as(1, n, r, l);
    else if (power == 2)
        short_forward_as(2, n, r, l);
    else if (power == 4)
        short_forward_as(4, n, r, l);
    else
        short_forward_as(power, n, r, l);
}

/* Natural logarithms of normal numbers, at most 1e-12 off: x = 2^e m, log m = 2 artanh((m - 1) / (m + 1)). libm's takes a value at a
 * time. */
static void short_log(double *x)
{
    for (int i = 0; i < LANES; i++) {
        uint64_t bits, up;
        double m, e;
        memcpy(&bits, x + i, 8);
        up = (bits - 0x3FE6A09E667F3BCDu + ((uint64_t)1023 << 52)) >> 52; /* e + 1023, with m from sqrt(1/2) to sqrt(2) */
        bits -= (up - 1023) << 52;
        up |= 0x4330000000000000u; /* 2^52 + it */
        memcpy(&m, &bits, 8);
        memcpy(&e, &up, 8);
        const double t = (m - 1) / (m + 1), q = t * t;
        const double p = ((((((2.0 / 13) * q + 2.0 / 11) * q + 2.0 / 9) * q + 2.0 / 7) * q + 2.0 / 5) * q + 2.0 / 3) * q + 2;
        x[i] = (e - (0x1p52 + 1023)) * 0.69314718055994531 + t * p;
    }
}

static void short_refine(int64_t n, const ec_kd_row *r, const ec_kd_short *l, const double *lambda, double *off, double *pe)
{
    const float *s = l->lines, *t = s + n * LANES, *w = t + n * LANES, *z = w + n * LANES;
    const vf max_t = vload(l->max_t), ratio = vset(r->ratio);
    const double inv_s = (double)r->inv_s, heat = 1 / inv_s;
    vf even_s, of_w, of_z;
    for (int i = 0; i < LANES; i++) {
        even_s[i] = (float)(l->max_s[i] + lambda[i] * heat);
        const double x = lambda[i] - ((double)even_s[i] - (double)l->max_s[i]) * inv_s; /* what even_s has lost by rounding */
        const double a = 12 + x * x;
        of_w[i] = (float)((a + 6 * x) / ((a - 6 * x) * l->w[i])); /* e^x / w */
        of_z[i] = (float)(1 / l->z[i]);
    }
    for (int64_t c = 0; c < n; c++) {
        const vf e = difference(vload(s + c * LANES), vload(t + c * LANES), even_s, max_t, ratio);
        vf p_e, q_less_p = near(vload(w + c * LANES) * of_w, vload(z + c * LANES) * of_z, e, r->inv_s, &p_e);
        add_lanes(off, q_less_p);
        add_lanes(pe, p_e);
    }
}

static void short_rest(int64_t n, const ec_kd_short *l, double *sum, double *ones)
{
    const vf max = vload(l->max_s);
    for (int64_t c = 0; c < n; c++) {
        const vf s = vload(l->lines + c * LANES);
        add_lanes(sum, vpick(max, s, vexp(s - max), vset(0)));
        add_lanes(ones, vpick(max, s, vset(0), vset(1)));
    }
}

EC_INLINE void short_gradient_as(int power, int64_t n, const ec_kd_row *r, const ec_kd_short *l, float *g)
{
    const int ce = r->ce;
    const float *s = l->lines, *w = s + 2 * n * LANES, *z = w + n * LANES;
    const vf max = vload(l->max_s), c0 = vload(l->c[0]), c1 = vload(l->c[1]), c2 = vload(l->c[2]), c3 = vload(l->c[3]);
    const vf label = vload(l->label), hot = vload(l->hot);
    for (int64_t c = 0; c < n; c++) {
        const vf x = vload(w + c * LANES);
        vf v = vfma(c1, x, vfma(-c2, vload(z + c * LANES), -c3));
        if (ce) {
            v = vfma(c0, vplain(power, x, vload(s + c * LANES), max), v);
            v -= (vf)((vi)hot & (label == vset((float)c)));
        }
        vstore(g + c * LANES, v);
    }
}

static void short_gradient(int64_t n, const ec_kd_row *r, ec_kd_short *l, float *const *rows)
{
    const int power = r->ce ? r->power : 1;
    float *g = l->lines + n * LANES; /* where the teacher was */
    if (power == 1)
        short_gradient_as(1, n, r, l, g);
    else if (power == 2)
        short_gradient_as(2, n, r, l, g);
    else if (power == 4)
        short_gradient_as(4, n, r, l, g);
    else
        short_gradient_as(power, n, r, l, g);
    give(n, g, rows);
}
