/* exp and the transcendental activations, one value at a time and without branches: the loops of activation_loops.h
 * become vector code of whatever ISA the including file targets (it must have fma). Bounds measured over all floats. */
#ifndef EC_VMATH_H
#define EC_VMATH_H
#include "activation.h"

EC_INLINE float ec_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* e^x, at most 1.2 ulp off, 0 below -104 and Inf above 88.8. x = n ln 2 + r with ln 2 in two parts (Cephes expf);
 * 2^n in two factors, so that results below 2^-126 come out as denormals. */
EC_INLINE float ec_exp(float x)
{
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float shift = 0x1.8p23f, shifted = __builtin_fmaf(x, 1.44269504f, shift), n = shifted - shift;
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p * r, r, r) + 1.0f;
    int32_t i;
    memcpy(&i, &shifted, 4);
    i -= 0x4B400000; /* n as an integer: the low bits of shifted */
    const int32_t half = i >> 1;
    return p * ec_from_bits((uint32_t)(half + 127) << 23) * ec_from_bits((uint32_t)(i - half + 127) << 23);
}

EC_INLINE float ec_sigmoid(float v) { return 1.0f / (1.0f + ec_exp(-v)); }
EC_INLINE float ec_silu(float v) { return v / (1.0f + ec_exp(-v)); }

/* 0.5 v (1 + tanh(u)) = v / (1 + e^-2u), u = sqrt(2/pi) (v + 0.044715 v^3) */
EC_INLINE float ec_gelu_tanh(float v) { return v / (1.0f + ec_exp(-1.5957691216057308f * (v + 0.044715f * v * v * v))); }

/* Below 0.625 the odd polynomial of Cephes tanhf, beyond it 1 - 2 / (e^2|v| + 1). */
EC_INLINE float ec_tanh(float v)
{
    const float a = __builtin_fabsf(v), z = v * v;
    float p = -5.70498872745e-3f;
    p = __builtin_fmaf(p, z, 2.06390887954e-2f);
    p = __builtin_fmaf(p, z, -5.37397155531e-2f);
    p = __builtin_fmaf(p, z, 1.33314422036e-1f);
    p = __builtin_fmaf(p, z, -3.33332819422e-1f);
    const float small = __builtin_fmaf(p * z, v, v), large = __builtin_copysignf(1.0f - 2.0f / (ec_exp(2.0f * a) + 1.0f), v);
    return a < 0.625f ? small : large;
}

/* 0.5 v erfc(-v / sqrt 2), with the Chebyshev fit of erfc in t = 1 / (1 + z / 2) (Numerical Recipes, erfcc): relative
 * error 1.2e-7 of the fit. */
EC_INLINE float ec_gelu(float v)
{
    const float z = __builtin_fabsf(v) * 0.70710678118654752f, t = 1.0f / __builtin_fmaf(0.5f, z, 1.0f);
    float p = 0.17087277f;
    p = __builtin_fmaf(p, t, -0.82215223f);
    p = __builtin_fmaf(p, t, 1.48851587f);
    p = __builtin_fmaf(p, t, -1.13520398f);
    p = __builtin_fmaf(p, t, 0.27886807f);
    p = __builtin_fmaf(p, t, -0.18628806f);
    p = __builtin_fmaf(p, t, 0.09678418f);
    p = __builtin_fmaf(p, t, 0.37409196f);
    p = __builtin_fmaf(p, t, 1.00002368f);
    p = __builtin_fmaf(p, t, -1.26551223f);
    const float tail = t * ec_exp(__builtin_fmaf(-z, z, p)); /* erfc(z) */
    return 0.5f * v * (v < 0 ? tail : 2.0f - tail);
}
#endif
