"""The passes of the distillation loss over a block of a row: loops that LLVM turns into vectors. kd_loss.py says what w and z are."""

from typing import Any

import numpy as np
from numba import njit

from edgecomp.kernels._jit import OPTIONS, helper

RUN = 512  # terms that are added in float32 before their sum goes to a float64: 16 or 32 to each of LLVM's partial sums
KL, REVERSE_KL, JSD, TVD, MSE = range(5)

_f = np.float32
_fused = njit(**OPTIONS, fastmath={"contract"})
_summed = njit(**OPTIONS, fastmath={"contract", "reassoc", "nsz"})
"""For sums whose order is LLVM's to choose. What is added comes from functions that keep their own order."""


@_fused
def _reduced(x: Any) -> Any:
    """x = n ln 2 + r with ln 2 in two parts (Cephes expf): r, (e^r - 1 - r) / r^2 and 2^n."""
    shifted = _f(x * _f(1.44269504) + _f(12582912))  # + 1.5 * 2^23: the sum's low bits are n
    n = shifted - _f(12582912)
    r = x + n * _f(-0.693359375)
    r = r + n * _f(2.12194440e-4)
    p = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    return r, p, np.int32((_f(shifted).view(np.int32) << 23) + 0x3F800000).view(np.float32)


@_fused
def exp(x: Any) -> Any:
    """For x up to 88, at most 1.2 ulp off; 0 below -87. NaN stays."""
    r, p, scale = _reduced(x)
    y = (p * r * r + r + _f(1)) * scale
    return _f(0) if x < _f(-87) else y


@_fused
def _soft(x: Any, scale: Any, least: Any) -> Any:
    """2^(scale x) for scale x up to 120, at most 2 ulp off; 0 where x is below `least`, which is -127 / scale. NaN stays."""
    x = least if x < least else x
    shifted = _f(x * scale + _f(12582912))  # + 1.5 * 2^23: the sum's low bits are the integer part
    r = x * scale - (shifted - _f(12582912))
    p = _f(1.326472755e-3) * r + _f(9.671512641e-3)
    p = p * r + _f(5.550733742e-2)
    p = p * r + _f(2.402224209e-1)
    p = p * r + _f(6.931469776e-1)
    p = p * r + _f(1)
    return p * np.int32((_f(shifted).view(np.int32) << 23) + 0x3F800000).view(np.float32)


@_fused
def _expm1(x: Any) -> Any:
    """e^x - 1: small results keep their digits."""
    r, p, scale = _reduced(x)
    y = scale * (p * r * r + r) + (scale - _f(1))
    return _f(-1) if x < _f(-87) else y


@_fused
def _log1p(y: Any) -> Any:
    """log(1 + y) for -1 < y <= 0: the polynomial of Cephes logf, and what 1 + y has rounded away."""
    v = _f(y + _f(1))
    bits = _f(v).view(np.int32)
    k = np.int32(np.int32(bits - 0x3F3504F3) >> 23)  # v = 2^k (1 + f), 1 + f in sqrt(1/2) .. sqrt(2)
    f = np.int32(bits - (k << 23)).view(np.float32) - _f(1)
    exponent, square = _f(k), f * f
    p = _f(7.0376836292e-2) * f + _f(-1.1514610310e-1)
    p = p * f + _f(1.1676998740e-1)
    p = p * f + _f(-1.2420140846e-1)
    p = p * f + _f(1.4249322787e-1)
    p = p * f + _f(-1.6668057665e-1)
    p = p * f + _f(2.0000714765e-1)
    p = p * f + _f(-2.4999993993e-1)
    p = p * f + _f(3.3333331174e-1)
    p = p * f * square + exponent * _f(-2.12194440e-4)
    p = _f(-0.5) * square + p + f
    return exponent * _f(0.693359375) + p + (y - (v - _f(1))) / v


@helper
def _lost(a: Any, b: Any) -> Any:
    """What a - b has lost by rounding (Knuth); 0 for an infinite a."""
    d = _f(a - b)
    back = _f(d - a)
    lost = _f(_f(a - _f(d - back)) - _f(b + back))
    return lost if lost == lost else _f(0)


@_fused
def _difference(s: Any, t: Any, max_s: Any, max_t: Any, ratio: Any) -> Any:
    """e, right to its last digits: where student and teacher are close the roundings of s - max_s would be more than what they
    differ by."""
    return (t - max_t) * ratio + (max_s - s) + (_lost(t, max_t) * ratio - _lost(s, max_s))


@helper
def key(bits: Any) -> Any:
    """Integers in the order of the floats with these bits, NaN beyond both infinities; and back."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@helper
def extremes(s: Any, t: Any) -> Any:
    """The keys of the largest s and t, and the smallest of both. s, t: int32."""
    top_s = top_t = np.int32(-0x80000000)
    low = np.int32(0x7FFFFFFF)
    for i in range(len(s)):
        a, b = key(s[i]), key(t[i])
        top_s, top_t = max(top_s, a), max(top_t, b)
        low = min(low, min(a, b))
    return top_s, top_t, low


@_fused
def _terms(s: Any, t: Any, max_s: Any, max_t: Any, soft_s: Any, soft_t: Any, ratio: Any, masked: bool) -> Any:
    x, y = s - max_s, t - max_t
    w, z, e = _soft(x, soft_s[0], soft_s[1]), _soft(y, soft_t[0], soft_t[1]), y * ratio - x
    ze = z * e
    if masked:  # by what differences of float32 overflow to, too, where z is 0
        ze = ze if z > _f(0) else _f(0)
        ze = ze if s > _f(-np.inf) else _f(np.inf)
        ze = ze if t > _f(-np.inf) else _f(0)
    return w, z, ze


@helper
def in_bits(temperature: float) -> Any:
    """What `_soft` takes for 1 / temperature; and 1 / temperature as that has it, float32's rounding included."""
    scale = _f(1.4426950408889634 / temperature)
    return scale, _f(-127) / scale, np.float64(scale) / 1.4426950408889634


@_summed
def forward(s: Any, t: Any, max_s: Any, max_t: Any, soft_s: Any, soft_t: Any, ratio: Any, masked: bool, w: Any, z: Any) -> Any:
    """w and z; the sums of w, z and z e."""
    sum_w = sum_z = sum_ze = _f(0)
    for i in range(len(s)):
        a, b, c = _terms(s[i], t[i], max_s, max_t, soft_s, soft_t, ratio, masked)
        w[i], z[i] = a, b
        sum_w += a
        sum_z += b
        sum_ze += c
    return sum_w, sum_z, sum_ze


@_fused
def _plain(power: int, w: Any, s: Any, max_s: Any) -> Any:
    """e^(s - max_s), from w where the temperature is a small integer."""
    if power == 1:
        return w
    if power == 2:
        return w * w
    if power == 3:
        return w * w * w
    if power == 4:
        return w * w * (w * w)
    return exp(s - max_s)


@_summed
def sum_plain(power: int, w: Any, s: Any, max_s: Any) -> Any:
    total = _f(0)
    for i in range(len(w)):
        total += _plain(power, w[i], s[i], max_s)
    return total


@_fused
def _square(s: Any, t: Any) -> Any:
    """s - t; 0 where both mask: e^-inf, which NaN makes NaN."""
    d = s - t
    return d if s > _f(-np.inf) or t > _f(-np.inf) else exp(s + t)


@_summed
def squares(s: Any, t: Any, max_s: Any, w: Any, z: Any) -> Any:
    """w = e^(s - max_s), z = s - t; the sums of w and of z^2."""
    sum_w, total = _f(0), 0.0
    for i in range(len(s)):
        w[i] = exp(s[i] - max_s)
        z[i] = _square(s[i], t[i])
        sum_w += w[i]
        total += np.float64(z[i]) * np.float64(z[i])
    return sum_w, total


@_fused
def _near(p: Any, q: Any, e: Any, inv_s: Any) -> Any:
    x = e * -inv_s
    small = p * _expm1(x)
    return small if x < _f(0.5) else q - p, p * e if p > _f(0) else _f(0)  # x is NaN where both mask


@_summed
def refine(s: Any, t: Any, even_s: Any, max_t: Any, inv_s: Any, ratio: Any, w: Any, z: Any, norm_w: Any, norm_z: Any) -> Any:
    """The sums of q - p, by e where q is about p: exact to second order; and of p e. p and q, both with p's normaliser, are z and w
    times the norms."""
    off, pe = _f(0), _f(0)
    for i in range(len(s)):
        a, b = _near(z[i] * norm_z, w[i] * norm_w, _difference(s[i], t[i], even_s, max_t, ratio), inv_s)
        off += a
        pe += b
    return off, pe


@_summed
def rest(s: Any, max_s: Any) -> Any:
    """The sum of e^(s - max_s) without its largest terms, which are 1, and how many these are."""
    total, ones = _f(0), 0
    for i in range(len(s)):
        x = s[i] - max_s
        total += exp(x) if x < _f(0) else _f(0)
        ones += x >= _f(0)
    return total, ones


@_fused
def _pair(kind: int, s: Any, t: Any, p: Any, q: Any, d: Any, beta: Any) -> Any:
    """The loss's term and its derivative by q, of a kind but KL; d = log(q / p)."""
    if kind == REVERSE_KL:
        d = d if q > _f(0) else _f(0)
        return q * d if t > _f(-np.inf) else _f(np.inf) if s > _f(-np.inf) else _f(0), d
    d = d if d == d else _f(0)  # NaN: masked by both, unless p and q are NaN too
    u = _expm1(-abs(d))  # smaller / larger - 1
    if kind == TVD:
        return (q if d > _f(0) else p) * u * _f(-0.5), _f(0.5) if d > _f(0) else _f(-0.5) if d < _f(0) else _f(0)
    share = beta if d > _f(0) else _f(1) - beta  # of the smaller one in m
    to_larger = -_log1p(share * u)  # log(larger / m)
    to_smaller = to_larger - abs(d)
    to_p, to_q = (to_smaller, to_larger) if d > _f(0) else (to_larger, to_smaller)
    by_p = p * to_p if p > _f(0) else p
    by_q = q * to_q if q > _f(0) else q
    return beta * by_p + (_f(1) - beta) * by_q, (_f(1) - beta) * (to_q if q > _f(0) else q)


@_summed
def pairs(
    kind: int, s: Any, t: Any, even_s: Any, max_t: Any, inv_s: Any, ratio: Any, w: Any, z: Any, norm_w: Any, norm_z: Any,
    shift: Any, beta: Any,
) -> Any:  # fmt: skip
    """z becomes g, the loss's derivative by q; the sums of the loss and of q g. log(q / p) = -inv_s e - shift."""
    loss, mean = 0.0, 0.0  # the loop is no vector's: in float32 all terms would go to one sum
    for i in range(len(s)):
        q = w[i] * norm_w
        d = _difference(s[i], t[i], even_s, max_t, ratio) * -inv_s - shift
        term, g = _pair(kind, s[i], t[i], z[i] * norm_z, q, d, beta)
        z[i] = g
        loss += np.float64(term)
        mean += np.float64(q * g)
    return loss, mean


@_fused
def gradient(kl: bool, power: int, s: Any, max_s: Any, w: Any, z: Any, c0: Any, c1: Any, c2: Any, c3: Any, mean: Any) -> None:
    """z becomes the gradient: c0 e^(s - max_s) + c1 w (z - mean) - c3; or, if kl, c0 e^(s - max_s) + c1 w - c2 z - c3."""
    for i in range(len(s)):
        g = c1 * w[i] - c2 * z[i] if kl else c1 * w[i] * (z[i] - mean)
        z[i] = g - c3
    if c0 != _f(0):
        for i in range(len(s)):
            z[i] += c0 * _plain(power, w[i], s[i], max_s)
