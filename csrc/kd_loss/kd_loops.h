/* The passes over a block of a row, once for all ISAs. Included by their files inside the target region, after LANES, vf (a vector of LANES
 * floats) and vfma, vmax, vpick (a > b ? x : y), vlookup (of 8 values, by the lowest bits), vstream. The rest is what gcc and clang know of
 * vectors. */
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES))); /* bits: these may wrap */

/* Sums leave float32 after so many additions in a lane: each then adds at most 2^-19 of itself as error, and far less as a rule. */
enum { RUN = 32 * LANES };

EC_INLINE vf vset(float v) { return v - (vf){0}; }

EC_INLINE vf vload(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

EC_INLINE void vstore(float *p, vf v) { memcpy(p, &v, sizeof v); }

/* Below LANES values. */
EC_INLINE vf vload_part(const float *p, int64_t n, float missing)
{
    float part[LANES];
    for (int i = 0; i < LANES; i++)
        part[i] = missing;
    memcpy(part, p, (size_t)n * 4);
    return vload(part);
}

EC_INLINE void vstore_part(float *p, vf v, int64_t n) { memcpy(p, &v, (size_t)n * 4); }

EC_INLINE void add_lanes(double *sums, vf v)
{
    for (int i = 0; i < LANES; i++)
        sums[i] += (double)v[i];
}

EC_INLINE double total(const double *sums)
{
    double sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += sums[i];
    return sum;
}

/* 2^n from n + 1.5 * 2^23, whose low bits are n. */
EC_INLINE vf vpow2(vf shifted) { return (vf)(((vu)shifted << 23) + 0x3F800000u); }

/* ec_exp of vmath.h for x up to 88, at most 1.2 ulp off; but 0 below -87, which spares the second factor for denormals. NaN stays. */
EC_INLINE vf vexp(vf x)
{
    const vf shift = vset(0x1.8p23f), shifted = vfma(x, vset(1.44269504f), shift), n = shifted - shift;
    const vf r = vfma(n, vset(2.12194440e-4f), vfma(n, vset(-0.693359375f), x));
    vf p = vfma(vset(1.9875691500e-4f), r, vset(1.3981999507e-3f));
    p = vfma(p, r, vset(8.3334519073e-3f));
    p = vfma(p, r, vset(4.1665795894e-2f));
    p = vfma(p, r, vset(1.6666665459e-1f));
    p = vfma(p, r, vset(5.0000001201e-1f));
    p = vfma(p * r, r, r) + vset(1);
    return vpick(vset(-87), x, vset(0), p * vpow2(shifted));
}

/* The bits of 2^(i/8), less those of i once it is shifted to below the exponent. */
static const int32_t EIGHTHS[8] = {0x3F800000, 0x3F7B95C2, 0x3F7837F0, 0x3F75FED7, 0x3F7504F3, 0x3F75672A, 0x3F7744FD, 0x3F7AC0C7};

/* 2^(scale x) for scale x up to 120, at most 1.5 ulp off; 0 where x is below `least`, which is -127 / scale. NaN stays.
 * 2^(n/8) 2^r with r in -1/16 .. 1/16: a short chain of few operations, which is what bounds the pass. */
EC_INLINE vf vsoft(vf x, float scale, float least)
{
    const vf y = vmax(vset(least), x), shift = vset(0x1.8p20f), shifted = vfma(y, vset(scale), shift);
    const vf r = vfma(y, vset(scale), shift - shifted);
    const vf power = (vf)((vu)vlookup(EIGHTHS, shifted) + ((vu)shifted << 20));
    const vf p = vfma(vfma(r, vset(5.549622154e-2f), vset(2.402576298e-1f)), r, vset(6.931472143e-1f));
    return vfma(p, r * power, power);
}

/* e^x - 1 for x up to 88: small results keep their digits. */
EC_INLINE vf vexpm1(vf x)
{
    const vf shift = vset(0x1.8p23f), shifted = vfma(x, vset(1.44269504f), shift), n = shifted - shift;
    const vf r = vfma(n, vset(2.12194440e-4f), vfma(n, vset(-0.693359375f), x)), scale = vpow2(shifted);
    vf p = vfma(vset(1.9875691500e-4f), r, vset(1.3981999507e-3f));
    p = vfma(p, r, vset(8.3334519073e-3f));
    p = vfma(p, r, vset(4.1665795894e-2f));
    p = vfma(p, r, vset(1.6666665459e-1f));
    p = vfma(p, r, vset(5.0000001201e-1f));
    return vpick(vset(-87), x, vset(-1), vfma(scale, vfma(p * r, r, r), scale - vset(1)));
}

/* log(1 + y) for -1 < y <= 0: the polynomial of Cephes logf, and what 1 + y has rounded away. */
EC_INLINE vf vlog1p(vf y)
{
    const vf v = y + vset(1);
    const vi k = (vi)((vu)v - 0x3F3504F3u) >> 23; /* v = 2^k (1 + f), 1 + f in sqrt(1/2) .. sqrt(2) */
    const vf f = (vf)((vu)v - ((vu)k << 23)) - vset(1), exponent = __builtin_convertvector(k, vf), square = f * f;
    vf p = vfma(vset(7.0376836292e-2f), f, vset(-1.1514610310e-1f));
    p = vfma(p, f, vset(1.1676998740e-1f));
    p = vfma(p, f, vset(-1.2420140846e-1f));
    p = vfma(p, f, vset(1.4249322787e-1f));
    p = vfma(p, f, vset(-1.6668057665e-1f));
    p = vfma(p, f, vset(2.0000714765e-1f));
    p = vfma(p, f, vset(-2.4999993993e-1f));
    p = vfma(p, f, vset(3.3333331174e-1f));
    p = vfma(p * f, square, exponent * vset(-2.12194440e-4f));
    p = vfma(vset(-0.5f), square, p) + f;
    return vfma(exponent, vset(0.693359375f), p) + (y - (v - vset(1))) / v;
}

/* e^(s - max_s), from w where the temperature is a small integer. */
EC_INLINE vf vplain(int power, vf w, vf s, vf max_s)
{
    const vf square = w * w;
    if (power == 1)
        return w;
    if (power == 2)
        return square;
    if (power == 3)
        return square * w;
    if (power == 4)
        return square * square;
    return vexp(s - max_s);
}

/* What a - b has lost by rounding (Knuth); 0 for an infinite a. */
EC_INLINE vf vlost(vf a, vf b)
{
    const vf d = a - b, back = d - a, lost = (a - (d - back)) - (b + back);
    return (vf)((vi)lost & (lost == lost));
}

/* e, right to its last digits: where student and teacher are close the roundings of s - max_s would be more than what they differ by. */
EC_INLINE vf difference(vf s, vf t, vf max_s, vf max_t, vf ratio)
{
    return vfma(t - max_t, ratio, max_s - s) + vfma(vlost(t, max_t), ratio, -vlost(s, max_s));
}

EC_INLINE float largest(vf v)
{
    float max = -INFINITY;
    for (int j = 0; j < LANES; j++)
        max = v[j] > max ? v[j] : max;
    return max;
}

static void maxima(int64_t n, const float *s, const float *t, float out[2])
{
    vf s0 = vset(-INFINITY), s1 = s0, t0 = s0, t1 = s0;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 = vmax(s0, vload(s + i)), t0 = vmax(t0, vload(t + i));
        s1 = vmax(s1, vload(s + i + LANES)), t1 = vmax(t1, vload(t + i + LANES));
    }
    out[0] = largest(vmax(s0, s1)), out[1] = largest(vmax(t0, t1));
    for (; i < n; i++) {
        out[0] = s[i] > out[0] ? s[i] : out[0];
        out[1] = t[i] > out[1] ? t[i] : out[1];
    }
}

/* One vector of forward: w and z; adds to a[4]. */
EC_INLINE void forward_step(int power, int masked, vf s, vf t, vf max_s, vf max_t, const ec_kd_row *r, vf *w, vf *z, vf *a)
{
    const vf x = s - max_s, y = t - max_t, none = vset(-INFINITY), e = vfma(y, vset(r->ratio), -x);
    *w = vsoft(x, r->scale_s, r->least_s);
    *z = vsoft(y, r->scale_t, r->least_t);
    a[0] += *w;
    a[1] += *z;
    if (masked) /* by what differences of float32 overflow to, too, where z is 0 */
        a[2] += vpick(t, none, vpick(s, none, vpick(*z, vset(0), *z * e, vset(0)), vset(INFINITY)), vset(0));
    else
        a[2] = vfma(*z, e, a[2]);
    if (power != 1)
        a[3] += vplain(power, *w, s, max_s);
}

EC_INLINE void forward_as(int power, int masked, int64_t n, const float *s, const float *t, const ec_kd_row *r, const float *next_s,
                          const float *next_t, float *w, float *z, ec_kd_sums *sums, float found[2])
{
    const ec_kd_row row = *r; /* which no store through w or z can change */
    const vf max_s = vset(row.max_s), max_t = vset(row.max_t);
    double acc[4][LANES] = {{0}};
    vf x, y, top_s = vset(-INFINITY), top_t = top_s;
    for (int64_t i = 0; i < n;) {
        vf a[4] = {vset(0), vset(0), vset(0), vset(0)};
        for (const int64_t end = EC_MIN(i + RUN, n - LANES + 1); i < end; i += LANES) {
            if (LANES == 16) /* an eighth faster on Zen 4, 3 % slower on Zen 3 with AVX2 */
                __builtin_prefetch(next_s + i + EC_KD_BLOCK), __builtin_prefetch(next_t + i + EC_KD_BLOCK);
            top_s = vmax(top_s, vload(next_s + i)), top_t = vmax(top_t, vload(next_t + i));
            forward_step(power, masked, vload(s + i), vload(t + i), max_s, max_t, &row, &x, &y, a);
            vstore(w + i, x);
            vstore(z + i, y);
        }
        if (n - i < LANES && i < n) { /* what is missing is masked */
            const float none = -INFINITY;
            top_s = vmax(top_s, vload_part(next_s + i, n - i, none)), top_t = vmax(top_t, vload_part(next_t + i, n - i, none));
            forward_step(power, 1, vload_part(s + i, n - i, none), vload_part(t + i, n - i, none), max_s, max_t, &row, &x, &y, a);
            vstore_part(w + i, x, n - i);
            vstore_part(z + i, y, n - i);
            i = n;
        }
        for (int j = 0; j < 4; j++)
            add_lanes(acc[j], a[j]);
    }
    sums->w += total(acc[0]);
    sums->z += total(acc[1]);
    sums->ze += total(acc[2]);
    sums->w1 += total(acc[power == 1 ? 0 : 3]);
    found[0] = largest(top_s);
    found[1] = largest(top_t);
}

static void forward(int64_t n, const float *s, const float *t, const ec_kd_row *r, int masked, const float *next_s,
                    const float *next_t, float *w, float *z, ec_kd_sums *sums, float found[2])
{
    const int power = r->ce ? r->power : 1;
    if (masked)
        forward_as(power, 1, n, s, t, r, next_s, next_t, w, z, sums, found);
    else if (power == 1)
        forward_as(1, 0, n, s, t, r, next_s, next_t, w, z, sums, found);
    else if (power == 2)
        forward_as(2, 0, n, s, t, r, next_s, next_t, w, z, sums, found);
    else if (power == 4)
        forward_as(4, 0, n, s, t, r, next_s, next_t, w, z, sums, found);
    else
        forward_as(power, 0, n, s, t, r, next_s, next_t, w, z, sums, found);
}

static double squares(int64_t n, const float *s, const float *t, const ec_kd_row *r, float *w, float *z, ec_kd_sums *sums)
{
    double acc[2][LANES] = {{0}};
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = EC_MIN(n - i, LANES);
        const vf a = left == LANES ? vload(s + i) : vload_part(s + i, left, -INFINITY);
        const vf b = left == LANES ? vload(t + i) : vload_part(t + i, left, -INFINITY);
        const vf x = vexp(a - vset(r->max_s)), none = vset(-INFINITY);
        vf d = a - b;
        d = (vf)((vi)d & ~((vi)(a == none) & (vi)(b == none))); /* neither has the class */
        vstore_part(w + i, x, left);
        vstore_part(z + i, d, left);
        for (int j = 0; j < LANES; j++)
            acc[1][j] += (double)d[j] * (double)d[j];
        add_lanes(acc[0], x);
    }
    sums->w1 += total(acc[0]);
    return total(acc[1]);
}

/* q - p, by e where q is about p: exact to second order; and p e. */
EC_INLINE vf near(vf q, vf p, vf e, float inv_s, vf *p_e)
{
    const vf x = e * vset(-inv_s); /* NaN where both mask */
    *p_e = vpick(p, vset(0), p * e, vset(0));
    return vpick(vset(0.5f), x, p * vexpm1(x), q - p);
}

static void refine(int64_t n, const float *s, const float *t, const ec_kd_row *r, float even_s, const float *w, const float *z,
                   const float scale[2], double out[2])
{
    double acc[2][LANES] = {{0}};
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = EC_MIN(n - i, LANES);
        const int whole = left == LANES;
        const vf a = whole ? vload(s + i) : vload_part(s + i, left, 0), b = whole ? vload(t + i) : vload_part(t + i, left, 0);
        const vf q = (whole ? vload(w + i) : vload_part(w + i, left, 0)) * vset(scale[0]);
        const vf p = (whole ? vload(z + i) : vload_part(z + i, left, 0)) * vset(scale[1]);
        vf p_e;
        add_lanes(acc[0], near(q, p, difference(a, b, vset(even_s), vset(r->max_t), vset(r->ratio)), r->inv_s, &p_e));
        add_lanes(acc[1], p_e);
    }
    out[0] += total(acc[0]);
    out[1] += total(acc[1]);
}

static void rest(int64_t n, const float *s, float max_s, double out[2])
{
    double acc[2][LANES] = {{0}};
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = EC_MIN(n - i, LANES);
        const vf a = left == LANES ? vload(s + i) : vload_part(s + i, left, -INFINITY), max = vset(max_s);
        add_lanes(acc[0], vpick(max, a, vexp(a - max), vset(0)));
        add_lanes(acc[1], vpick(max, a, vset(0), vset(1)));
    }
    out[0] += total(acc[0]);
    out[1] += total(acc[1]);
}

/* One vector of pair: g from the logits, p, q and d = log(q / p); the loss's terms. */
EC_INLINE vf pair_step(int kind, vf s, vf t, vf p, vf q, vf d, float beta, vf *loss)
{
    const vf zero = vset(0), one = vset(1), far = vset(INFINITY);
    if (kind == EC_KD_REVERSE_KL) {
        d = vpick(q, zero, d, zero);
        *loss = vpick(t, -far, q * d, vpick(s, -far, far, zero));
        return d;
    }
    d = (vf)((vi)d & (d == d)); /* NaN: masked by both, unless p and q are NaN too */
    const vf u = vexpm1(-vmax(d, -d)), larger = vpick(d, zero, q, p); /* u = smaller / larger - 1 */
    if (kind == EC_KD_TVD) {
        *loss = larger * u * vset(-0.5f);
        return vpick(d, zero, vset(0.5f), vpick(zero, d, vset(-0.5f), zero));
    }
    const vf share = vpick(d, zero, vset(beta), one - vset(beta)); /* of the smaller one in m */
    const vf to_larger = -vlog1p(share * u), to_smaller = to_larger - vmax(d, -d); /* log(larger / m), log(smaller / m) */
    const vf to_p = vpick(d, zero, to_smaller, to_larger), to_q = vpick(d, zero, to_larger, to_smaller);
    const vf g = vpick(zero, q, zero, vpick(q, zero, to_q, zero + q));
    *loss = vfma(vset(beta), vpick(p, zero, p * to_p, p), (one - vset(beta)) * vpick(q, zero, q * to_q, q));
    return (one - vset(beta)) * g;
}

EC_INLINE void pair_as(int kind, int64_t n, const float *s, const float *t, const ec_kd_row *r, float even_s, const float *w, float *z,
                       const float scale[2], float lambda, double out[2])
{
    double acc[2][LANES] = {{0}};
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = EC_MIN(n - i, LANES);
        const int whole = LANES == 1 || left == LANES;
        const vf a = whole ? vload(s + i) : vload_part(s + i, left, 0), b = whole ? vload(t + i) : vload_part(t + i, left, 0);
        const vf q = (whole ? vload(w + i) : vload_part(w + i, left, 0)) * vset(scale[0]);
        const vf p = (whole ? vload(z + i) : vload_part(z + i, left, 0)) * vset(scale[1]);
        vf loss;
        const vf e = difference(a, b, vset(even_s), vset(r->max_t), vset(r->ratio));
        const vf g = pair_step(kind, a, b, p, q, vfma(e, vset(-r->inv_s), vset(-lambda)), r->beta, &loss);
        add_lanes(acc[0], loss);
        add_lanes(acc[1], q * g);
        vstore_part(z + i, g, left);
    }
    out[0] += total(acc[0]);
    out[1] += total(acc[1]);
}

static void pair(int kind, int64_t n, const float *s, const float *t, const ec_kd_row *r, float even_s, const float *w, float *z,
                 const float scale[2], float lambda, double out[2])
{
    if (kind == EC_KD_REVERSE_KL)
        pair_as(EC_KD_REVERSE_KL, n, s, t, r, even_s, w, z, scale, lambda, out);
    else if (kind == EC_KD_TVD)
        pair_as(EC_KD_TVD, n, s, t, r, even_s, w, z, scale, lambda, out);
    else
        pair_as(EC_KD_JSD, n, s, t, r, even_s, w, z, scale, lambda, out);
}

EC_INLINE vf gradient_step(int kl, int power, vf s, vf w, vf z, const ec_kd_row *r, const float *c, float mean)
{
    vf g = vset(-c[3]);
    if (kl)
        g = vfma(vset(c[1]), w, vfma(vset(-c[2]), z, g));
    else
        g = vfma(vset(c[1]) * w, z - vset(mean), g);
    if (r->ce)
        g = vfma(vset(c[0]), vplain(power, w, s, vset(r->max_s)), g);
    return g;
}

EC_INLINE void gradient_as(int kl, int power, int64_t n, const float *s, const ec_kd_row *r, const float *w, const float *z, const float *c,
                           float mean, float *grad, int stream)
{
    const float k[4] = {c[0], c[1], c[2], c[3]};
    const ec_kd_row row = *r;
    int64_t i = 0;
    const int64_t head = stream ? (int64_t)(-(uintptr_t)grad / 4 % LANES) : 0; /* up to where a vector may be written past the caches */
    if (head && n) {
        i = EC_MIN(head, n);
        const vf a = vload_part(s, i, 0), b = vload_part(w, i, 0), d = vload_part(z, i, 0);
        vstore_part(grad, gradient_step(kl, power, a, b, d, &row, k, mean), i);
    }
    if (stream)
        for (; i + LANES <= n; i += LANES)
            vstream(grad + i, gradient_step(kl, power, vload(s + i), vload(w + i), vload(z + i), &row, k, mean));
    else
        for (; i + LANES <= n; i += LANES)
            vstore(grad + i, gradient_step(kl, power, vload(s + i), vload(w + i), vload(z + i), &row, k, mean));
    if (i < n) {
        const int64_t left = n - i;
        const vf a = vload_part(s + i, left, 0), b = vload_part(w + i, left, 0), d = vload_part(z + i, left, 0);
        vstore_part(grad + i, gradient_step(kl, power, a, b, d, &row, k, mean), left);
    }
}

static void gradient(int kl, int64_t n, const float *s, const ec_kd_row *r, const float *w, const float *z, const float c[4], float mean,
                     float *grad, int stream)
{
    const int power = r->ce ? r->power : 1;
    if (!kl)
        gradient_as(0, power, n, s, r, w, z, c, mean, grad, stream);
    else if (power == 1)
        gradient_as(1, 1, n, s, r, w, z, c, mean, grad, stream);
    else if (power == 2)
        gradient_as(1, 2, n, s, r, w, z, c, mean, grad, stream);
    else if (power == 4)
        gradient_as(1, 4, n, s, r, w, z, c, mean, grad, stream);
    else
        gradient_as(1, power, n, s, r, w, z, c, mean, grad, stream);
}
