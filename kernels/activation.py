"""What may come after a GEMM: activations in place (relu is the tile's own), and requantisation to int8."""

from typing import Any

import numpy as np
from numba import njit, types

from edgecomp.kernels._jit import OPTIONS, helper, kernel, rows_of, run
from edgecomp.kernels._jobs import JOB, enter, leave, take

NAMES = ("relu6", "leaky_relu", "hardswish", "hardsigmoid", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")

_f = np.float32
smooth = njit(**OPTIONS, fastmath={"contract"})
"""For the functions whose bits are not promised: fused multiply-add where the CPU has it."""


@helper
def _six(v: Any) -> Any:
    """relu6, -0 becoming 0."""
    clipped = _f(0) if v < _f(0) else v
    return (_f(6) if clipped > _f(6) else clipped) + _f(0)


@helper
def _hardswish(v: Any) -> Any:
    y = v * _six(v + _f(3)) / _f(6)
    return y if y == y else _f(np.nan)


@smooth
def _exp(x: Any) -> Any:
    """e^x, 0 below -104 and Inf above 88.8. x = n ln 2 + r with ln 2 in two parts (Cephes expf); 2^n in two factors, so that results
    below 2^-126 come out as denormals."""
    x = _f(-104) if x < _f(-104) else x
    x = _f(89) if x > _f(89) else x
    shift = _f(12582912)  # 1.5 * 2^23: the sum's low bits are n
    shifted = _f(x * _f(1.44269504) + shift)
    n = shifted - shift
    r = x + n * _f(-0.693359375)
    r = r + n * _f(2.12194440e-4)
    p = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    p = (p * r * r + r) + _f(1)
    i = np.int32(_f(shifted).view(np.int32) - np.int32(0x4B400000))
    half = np.int32(i >> 1)
    low, high = np.int32((half + 127) << 23), np.int32((i - half + 127) << 23)
    return p * np.int32(low).view(np.float32) * np.int32(high).view(np.float32)


@smooth
def _gelu(v: Any) -> Any:
    """0.5 v erfc(-v / sqrt 2), with the Chebyshev fit of erfc in t = 1 / (1 + z / 2) of Numerical Recipes (erfcc)."""
    z = abs(v) * _f(0.70710678)
    t = _f(1) / (_f(0.5) * z + _f(1))
    p = _f(0.17087277) * t + _f(-0.82215223)
    p = p * t + _f(1.48851587)
    p = p * t + _f(-1.13520398)
    p = p * t + _f(0.27886807)
    p = p * t + _f(-0.18628806)
    p = p * t + _f(0.09678418)
    p = p * t + _f(0.37409196)
    p = p * t + _f(1.00002368)
    p = p * t + _f(-1.26551223)
    tail = t * _exp(p - z * z)  # erfc(z)
    return _f(0.5) * v * (tail if v < _f(0) else _f(2) - tail)


@smooth
def _tanh(v: Any) -> Any:
    """Below 0.625 the odd polynomial of Cephes tanhf, beyond it 1 - 2 / (e^2|v| + 1)."""
    a, z = abs(v), v * v
    p = _f(-5.70498872745e-3) * z + _f(2.06390887954e-2)
    p = p * z + _f(-5.37397155531e-2)
    p = p * z + _f(1.33314422036e-1)
    p = p * z + _f(-3.33332819422e-1)
    small, large = p * z * v + v, _f(1) - _f(2) / (_exp(_f(2) * a) + _f(1))
    return small if a < _f(0.625) else (-large if v < _f(0) else large)


@smooth
def _apply(code: int, y: Any) -> None:
    """One activation over a row. `code` is its place in NAMES."""
    if code == 0:
        for c in range(len(y)):
            y[c] = _six(y[c])
    elif code == 1:
        for c in range(len(y)):
            y[c] = y[c] if y[c] > _f(0) else y[c] * _f(0.01)
    elif code == 2:
        for c in range(len(y)):
            y[c] = _hardswish(y[c])
    elif code == 3:
        for c in range(len(y)):
            y[c] = _six(y[c] + _f(3)) / _f(6)
    elif code == 4:
        for c in range(len(y)):
            y[c] = _gelu(y[c])
    elif code == 5:
        for c in range(len(y)):  # 0.5 v (1 + tanh(u)) = v / (1 + e^-2u), u = sqrt(2/pi) (v + 0.044715 v^3)
            v = y[c]
            y[c] = v / (_f(1) + _exp(_f(-1.5957691216) * (v + _f(0.044715) * v * v * v)))
    elif code == 6:
        for c in range(len(y)):
            y[c] = y[c] / (_f(1) + _exp(-y[c]))
    elif code == 7:
        for c in range(len(y)):
            y[c] = _tanh(y[c])
    else:
        for c in range(len(y)):
            y[c] = _f(1) / (_f(1) + _exp(-y[c]))


@kernel(types.int64, rows_of(types.float32, True), JOB)
def activate(code: int, y: Any, job: Any) -> None:
    """y = NAMES[code](y)."""
    mode = enter(job)
    if mode < 0:
        return
    i = take(job, 0)
    while i < len(y):
        _apply(code, run(y, i, 0, y.shape[1], np.float32))
        i = take(job, 0)
    leave(job, mode)


@kernel(rows_of(types.float32), types.float32, types.float32, rows_of(types.int8, True), JOB)
def requantize(y: Any, scale: Any, zero: Any, q: Any, job: Any) -> None:
    """q = clip(rint(y / scale) + zero, -128, 127); NaN as zero."""
    mode = enter(job)
    if mode < 0:
        return
    i = take(job, 0)
    while i < len(y):
        values, out = run(y, i, 0, y.shape[1], np.float32), run(q, i, 0, y.shape[1], np.int8)
        for c in range(len(values)):
            v = np.rint(values[c] / scale) + zero
            v = v if v == v else zero
            out[c] = np.int8(np.int32(min(max(v, _f(-128)), _f(127))))
        i = take(job, 0)
    leave(job, mode)
