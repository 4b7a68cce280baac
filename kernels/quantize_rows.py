"""Rows of float32 to uint8 codes with one scale and zero point each. The arithmetic is that of edgecomp.reference, bit for bit."""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import flat, helper, kernel, rows_of, run
from edgecomp.kernels._jobs import JOB, enter, leave, take

_SMALLEST = np.float32(2.0**-126)  # a smaller scale counts as a row of zeros
_INF, _MINUS_ZERO, _MINUS_INF = np.int32(0x7F800000), np.uint32(0x80000000), np.uint32(0xFF800000)


@helper
def quantize_row(x: Any, i: int, codes: Any) -> Any:
    """codes = row i of x, quantised. Returns its scale and zero point."""
    k = x.shape[1]
    # Extremes from the bits, 0 among them: a float's bits grow with its magnitude, so the signed maximum is the largest positive
    # value and the unsigned maximum the most negative one; a NaN passes every Inf. These loops become vector code, those of
    # floats would not.
    positive, negative = run(x, i, 0, k, np.int32), run(x, i, 0, k, np.uint32)
    high, low = np.int32(0), _MINUS_ZERO
    for p in range(k):
        high = max(high, positive[p])
        low = max(low, negative[p])
    finite = high < _INF and low < _MINUS_INF
    lo, hi = np.uint32(low).view(np.float32), np.int32(high).view(np.float32)
    scale = hi / np.float32(255) - lo / np.float32(255)
    if not finite or scale < _SMALLEST:
        codes[:k] = 0
        return (np.float32(1) if finite else np.float32(np.nan)), np.int32(0)
    inverse = np.float32(1) / scale
    zero = np.int32(min(max(np.rint(-lo * inverse), np.float32(0)), np.float32(255)))
    values = run(x, i, 0, k, np.float32)
    for p in range(k):
        code = np.int32(np.rint(values[p] * inverse)) + zero
        codes[p] = np.uint8(min(max(code, 0), 255))  # type: ignore[arg-type]
    return scale, zero


@kernel(rows_of(types.float32), flat(types.uint8, True, 2), flat(types.float32, True), flat(types.uint8, True), JOB)
def quantize_rows(x: Any, q: Any, scale: Any, zero: Any, job: Any) -> None:
    """x [M, K] to codes q [M, K] with scale and zero point [M]."""
    mode = enter(job)
    if mode < 0:
        return
    i = take(job, 0)
    while i < len(x):
        scale[i], zero[i] = quantize_row(x, i, run(q, i, 0, x.shape[1], np.uint8))
        i = take(job, 0)
    leave(job, mode)
