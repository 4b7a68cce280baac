/* The ops as plain loops, after docs/numerics.md: what every variant, the scalar one included, has to equal. */
#ifndef ORACLE_H
#define ORACLE_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "edgecomp.h"

static uint32_t bits_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

static float from_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

static float clip(float v, float lo, float hi) { return v < lo ? lo : v > hi ? hi : v; } /* NaN stays */

static float one_nan(float v) { return v != v ? from_bits(0x7FC00000) : v; }

static void oracle_quantize_row(int64_t k, const float *x, uint8_t *q, float *scale, uint8_t *zero)
{
    float lo = 0, hi = 0;
    int finite = 1;
    for (int64_t p = 0; p < k; p++) {
        lo = x[p] < lo ? x[p] : lo;
        hi = x[p] > hi ? x[p] : hi;
        finite &= isfinite(x[p]) != 0;
    }
    const float s = hi / 255.0f - lo / 255.0f;
    for (int64_t p = 0; p < k; p++)
        q[p] = 0;
    *zero = 0;
    *scale = finite ? 1 : from_bits(0x7FC00000);
    if (!finite || s < 0x1p-126f)
        return;
    const float inv = 1.0f / s, z = clip(rintf(-lo * inv), 0, 255);
    for (int64_t p = 0; p < k; p++)
        q[p] = (uint8_t)clip(rintf(x[p] * inv) + z, 0, 255);
    *scale = s;
    *zero = (uint8_t)z;
}

/* sum of (a - zero) * w, in int64: exact for every k here. */
static int64_t oracle_dot(int64_t k, const uint8_t *a, int a_signed, int zero, const int8_t *w)
{
    int64_t sum = 0;
    for (int64_t p = 0; p < k;) {
        int32_t part = 0; /* 1024 * 256 * 128 < 2^31 */
        for (const int64_t end = p + 1024 < k ? p + 1024 : k; p < end; p++)
            part += ((a_signed ? (int8_t)a[p] : a[p]) - zero) * w[p];
        sum += part;
    }
    return sum;
}

static int8_t oracle_requantize(float y, float scale, int zero)
{
    return (int8_t)(y != y ? zero : (int)clip(rintf(y / scale) + (float)zero, -128, 127));
}

/* ---- activations ----------------------------------------------------------------------------------------------------- */

static const char *const ACT_NAMES[] = {"none", "relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid",
                                        "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
enum { ACTS = EC_ACT_SIGMOID + 1 };

/* Plain float32 arithmetic: the same bits everywhere. */
static float oracle_simple_act(int act, float v)
{
    const float v6 = clip(v + 3.0f, 0, 6);
    switch (act) {
    case EC_ACT_RELU: return v > 0 || v != v ? v : 0.0f;
    case EC_ACT_RELU6: return v > 0 || v != v ? (v > 6 ? 6 : v) : 0.0f;
    case EC_ACT_LEAKY_RELU: return v > 0 ? v : v * 0.01f;
    case EC_ACT_HARDSWISH: return v * v6 / 6.0f;
    case EC_ACT_HARDSIGMOID: return v6 / 6.0f;
    default: return v;
    }
}

/* In double, spelled so that the far negative side keeps its digits. */
static double oracle_smooth_act(int act, double v)
{
    switch (act) {
    case EC_ACT_GELU: return 0.5 * v * erfc(-v * 0.70710678118654752440);
    case EC_ACT_GELU_TANH: return v / (1 + exp(-2 * 0.79788456080286535588 * (v + 0.044715 * v * v * v)));
    case EC_ACT_SILU: return v / (1 + exp(-v));
    case EC_ACT_TANH: return tanh(v);
    default: return 1 / (1 + exp(-v));
    }
}

/* Distance in units of the last place that a float32 as large as `want` has. */
static double ulps(float got, double want)
{
    if (got != got || want != want)
        return (got != got) == (want != want) ? 0 : HUGE_VAL;
    const float nearest = (float)want;
    if (isinf(nearest) || isinf(got))
        return got == nearest ? 0 : HUGE_VAL;
    int exponent;
    frexp(want, &exponent);
    return fabs(got - want) / ldexp(1, exponent < -125 ? -149 : exponent - 24);
}

/* ---- packed weights ---------------------------------------------------------------------------------------------------- */

/* [ceil(n/16)][ceil(k/4)][16][4]; out is zeroed by the caller */
static void pack_n16k4(int64_t n, int64_t k, const int8_t *w, int8_t *out)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            out[((j / 16 * ((k + 3) / 4) + i / 4) * 16 + j % 16) * 4 + i % 4] = w[j * k + i];
}

/* [ceil(n/16)][k][16]; out is zeroed by the caller */
static void pack_n16(int64_t n, int64_t k, const float *w, int64_t ldw, float *out)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            out[(j / 16 * k + i) * 16 + j % 16] = w[j * ldw + i];
}
#endif
