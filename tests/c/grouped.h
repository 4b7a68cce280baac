/* The ops with a scale per group: the oracle's bits, with every kind of record. */
#ifndef GROUPED_H
#define GROUPED_H
#include "float32.h"
#include "int8.h"

/* One weight in a form of its own, and x quantised for it. */
typedef struct {
    ec_grouped w;
    int bits;
    int64_t groups;
    int *codes;              /* [n][k] */
    float *scale, *offset;   /* [n][groups] */
    int *zero;               /* [n][groups]; the middle where there is none */
    int8_t *xq;              /* [m][k], */
    float *xscale;           /* [m][groups], in two arenas */
    int8_t *xq_plain;        /* the same, kept */
    float *xscale_plain;
} grouped;

static int64_t shorter(int64_t a, int64_t b) { return a < b ? a : b; }

static void *remade(void *memory, size_t bytes)
{
    memory = realloc(memory, bytes + 8);
    if (!memory)
        fail("no memory");
    return memory;
}

/* A float16's bits: of plain values, tiny, zero and negative ones. */
static uint16_t some_half(void) { return (uint16_t)(below(10) ? 0x2000 + below(0x1000) + (below(2) << 15) : below(2) << 15 | below(0x7C00)); }

static float half_value(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (float)(h & 0x8000 ? -size : size);
}

static void oracle_quantize_group(int64_t k, const float *x, const int32_t *order, int64_t from, int8_t *q, float *scale)
{
    float absmax = 0;
    int finite = 1;
    for (int64_t p = 0; p < k; p++) {
        const float v = order ? x[order[from + p]] : x[from + p];
        absmax = fabsf(v) > absmax ? fabsf(v) : absmax;
        finite &= isfinite(v) != 0;
    }
    const float s = absmax / 127.0f;
    *scale = finite ? 1 : from_bits(0x7FC00000);
    for (int64_t p = 0; p < k; p++)
        q[p] = 0;
    if (!finite || s < 0x1p-126f)
        return;
    *scale = s;
    for (int64_t p = 0; p < k; p++)
        q[p] = (int8_t)rintf((order ? x[order[from + p]] : x[from + p]) * (1.0f / s));
}

static void put(uint8_t *record, int at, int scale_bytes, float *value)
{
    const uint16_t h = some_half();
    *value = scale_bytes == 2 ? half_value(h) : below(10) ? 0.01f * (1.5f + uniform()) : special();
    if (scale_bytes == 2)
        memcpy(record + 2 * at, &h, 2);
    else
        memcpy(record + 4 * at, value, 4);
}

static void make_weight(const problem *p, grouped *g, int bits, int zero, int scale_bytes, int group, int permuted)
{
    const int64_t n = p->n, k = p->k, groups = (k + group - 1) / group, strips = (n + 31) / 32;
    int32_t *order = NULL;
    if (permuted) {
        order = place(XZERO, 4 * (size_t)k);
        for (int64_t i = 0; i < k; i++) {
            const int64_t other = below((int)i + 1);
            order[i] = order[other];
            order[other] = (int32_t)i;
        }
    }
    g->w = (ec_grouped){NULL, order, group, scale_bytes, zero};
    const size_t record = ec_record_bytes(&g->w, bits), header = record - (size_t)(group * 32 * bits / 8);
    uint8_t *records = place(W, (size_t)(strips * groups) * record);
    for (size_t i = 0; i < (size_t)(strips * groups) * record; i++)
        records[i] = (uint8_t)(i % record < header ? 0 : rnd()); /* what is beyond n and k may be anything */
    g->w.records = records;
    g->bits = bits;
    g->groups = groups;
    g->codes = remade(g->codes, sizeof(int) * (size_t)(n * k));
    g->scale = remade(g->scale, 4 * (size_t)(n * groups));
    g->offset = remade(g->offset, 4 * (size_t)(n * groups));
    g->zero = remade(g->zero, sizeof(int) * (size_t)(n * groups));
    for (int64_t j = 0; j < n; j++)
        for (int64_t s = 0; s < groups; s++) {
            uint8_t *r = records + (size_t)(j / 32 * groups + s) * record;
            const int c = (int)(j % 32), kind = below(5);
            put(r, c, scale_bytes, g->scale + j * groups + s);
            g->zero[j * groups + s] = zero == EC_ZERO_POINT ? below(bits == 4 ? 129 : 256) : zero == EC_ZERO_OFFSET ? 0 : 1 << (bits - 1);
            if (zero == EC_ZERO_POINT)
                r[32 * scale_bytes + c] = (uint8_t)g->zero[j * groups + s];
            if (zero == EC_ZERO_OFFSET)
                put(r, 32 + c, scale_bytes, g->offset + j * groups + s);
            for (int64_t i = 0; i < group && s * group + i < k; i++) {
                uint8_t *at = r + header + (bits == 8 ? (i / 4 * 32 + c) * 4 + i % 4 : (i / 8 * 32 + c) * 4 + i % 4);
                const int top = (1 << bits) - 1, code = kind == 0 ? top : kind == 1 ? 0 : below(top + 1);
                const int shift = bits == 4 && i & 4 ? 4 : 0;
                *at = (uint8_t)(bits == 8 ? code : (*at & ~(15 << shift)) | code << shift);
                g->codes[j * k + s * group + i] = code;
            }
        }
    g->xq_plain = remade(g->xq_plain, (size_t)(p->m * k));
    g->xscale_plain = remade(g->xscale_plain, 4 * (size_t)(p->m * groups));
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t s = 0; s < groups; s++)
            oracle_quantize_group(shorter(k - s * group, group), p->x + i * p->ldx, order, s * group, g->xq_plain + i * k + s * group,
                                  g->xscale_plain + i * groups + s);
    g->xq = memcpy(place(XQ, (size_t)(p->m * k)), g->xq_plain, (size_t)(p->m * k));
    g->xscale = memcpy(place(XSCALE, 4 * (size_t)(p->m * groups)), g->xscale_plain, 4 * (size_t)(p->m * groups));
}

static float oracle_grouped(const problem *p, const grouped *g, int64_t i, int64_t j)
{
    float y = 0;
    for (int64_t s = 0; s < g->groups; s++) {
        int64_t acc = 0, sum = 0;
        const int64_t at = j * g->groups + s;
        for (int64_t c = s * g->w.group; c < p->k && c < (s + 1) * g->w.group; c++) {
            acc += (g->codes[j * p->k + c] - g->zero[at]) * g->xq_plain[i * p->k + c];
            sum += g->xq_plain[i * p->k + c];
        }
        const float sx = g->xscale_plain[i * g->groups + s];
        y = y + (float)acc * (sx * g->scale[at]);
        if (g->w.zero == EC_ZERO_OFFSET)
            y = y + (float)sum * (sx * g->offset[at]);
    }
    return y;
}

static void make_grouped(problem *p)
{
    make_x(p, FLT_MAX);
    p->bias = place(BIAS, 4 * (size_t)p->n);
    for (int64_t j = 0; j < p->n; j++)
        p->bias[j] = below(10) ? normalish() : special();
}

static void check_grouped(const problem *p, int bits)
{
    static const int GROUPS[] = {16, 32, 48, 64, 128, 256};
    static int turn; /* every problem meets some of the forms, every form many problems */
    static grouped g;
    resized(&pre, (size_t)(p->m * p->n));
    for (int form = 0; form < 3; form++, turn++) {
        const int64_t whole = (p->k + 15) / 16 * 16;
        const int one_group = turn % 7 == 6 && bits == 4 && p->k > 0 && p->k < 60000;
        const int quantised = turn % 5 == 4, group = one_group ? (int)whole : GROUPS[turn % 6];
        make_weight(p, &g, bits, turn % 3, turn / 3 % 2 ? 2 : 4, group, turn % 4 == 3);
        const options o = pick(p, quantised ? "int8 x" : "float32 x");
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t j = 0; j < p->n; j++)
                pre[i * p->n + j] = one_nan(oracle_grouped(p, &g, i, j) + (o.bias ? p->bias[j] : -0.0f));
        float *y = place(Y, 4 * extent(p->m, p->n, o.ldy));
        const size_t size = ec_gemm_s4g_workspace(p->m, p->k, &g.w);
        void *work = place_work(size);
        const float *x = quantised ? NULL : p->x, *bias = o.bias ? p->bias : NULL;
        enter();
        leave((bits == 4 ? ec_gemm_s4g : ec_gemm_s8g)(p->m, p->n, p->k, x, p->ldx, g.xq, g.xscale, &g.w, bias, o.act, y, o.ldy, o.threads,
                                                      work, size), EC_OK);
        check_floats(p->m, p->n, y, o.ldy, pre, o.act, 1);
    }
}

static void check_gemm_s4g(const problem *p) { check_grouped(p, 4); }
static void check_gemm_s8g(const problem *p) { check_grouped(p, 8); }

static void check_quantize_groups(const problem *p)
{
    for (int group = 16; group <= 256; group *= 4) {
        const int threads = pick(p, "float32 x").threads;
        const int64_t groups = (p->k + group - 1) / group;
        int8_t *q = place(Y, (size_t)(p->m * p->k)), want[256];
        float *scale = place(WSCALE, 4 * (size_t)(p->m * groups)), s;
        const size_t size = ec_quantize_groups_workspace(p->m, p->k, group);
        void *work = place_work(size);
        enter();
        leave(ec_quantize_groups(p->m, p->k, group, p->x, p->ldx, q, scale, threads, work, size), EC_OK);
        for (int64_t i = 0; i < p->m; i++)
            for (int64_t g = 0; g < groups; g++) {
                const int64_t count = shorter(p->k - g * group, group);
                oracle_quantize_group(count, p->x + i * p->ldx, NULL, g * group, want, &s);
                if (bits_of(scale[i * groups + g]) != bits_of(s) || memcmp(q + i * p->k + g * group, want, (size_t)count))
                    fail("row %lld, group %lld: scale %.9g instead of %.9g, or other codes", (long long)i, (long long)g,
                         (double)scale[i * groups + g], (double)s);
            }
    }
}

/* ---- float32 activations: the weights rounded once, then as gemm_s8c_f32 ------------------------------------------------ */

static grouped form_f32;

static void make_gemm_sg_f32(problem *p)
{
    static int turn;
    turn++;
    make_grouped(p);
    make_x(p, 1e30f);
    make_weight(p, &form_f32, turn % 2 ? 4 : 8, turn % 3, 2, p->k > 65536 ? 32768 : 32 << turn % 3, 0); /* the last one nearly empty, too */
    resized(&weights, (size_t)(p->n * p->k));
    for (int64_t j = 0; j < p->n; j++)
        for (int64_t i = 0; i < p->k; i++) {
            const int64_t at = j * form_f32.groups + i / form_f32.w.group;
            const float code = (float)(form_f32.codes[j * p->k + i] - form_f32.zero[at]);
            weights[j * p->k + i] = form_f32.w.zero == EC_ZERO_OFFSET ? fmaf(code, form_f32.scale[at], form_f32.offset[at]) : code * form_f32.scale[at];
        }
    make_sums(p, NULL);
}

static void call_gemm_sg_f32(const problem *p, const options *o, int plain, float *y)
{
    (void)plain;
    const size_t size = ec_gemm_f32_workspace(p->m, p->k, 0, o->threads);
    void *work = place_work(size);
    enter();
    leave(ec_gemm_sg_f32(p->m, p->n, p->k, p->x, p->ldx, &form_f32.w, form_f32.bits, o->bias ? p->bias : NULL, o->act, y, o->ldy, o->threads,
                         work, size), EC_OK);
}

static void check_gemm_sg_f32(const problem *p) { check_float_op(p, call_gemm_sg_f32, 1); }
#endif
