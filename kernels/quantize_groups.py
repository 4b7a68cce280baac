"""Rows of float32 to int8 with one scale per group of inputs. The arithmetic is that of edgecomp.reference, bit for bit."""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import flat, helper, kernel, rows_of, run
from edgecomp.kernels._jobs import JOB, enter, leave, take

_SMALLEST = np.float32(2.0**-126)  # a smaller scale counts as a group of zeros
_INF = np.int32(0x7F800000)


@helper
def quantize_group(bits: Any, values: Any, q: Any) -> Any:
    """q = values, quantised; bits are the values read as int32. Returns the scale and the sum of q."""
    largest = np.int32(0)  # magnitudes compare as their bits; a NaN passes every Inf
    for p in range(len(bits)):
        largest = max(largest, bits[p] & np.int32(0x7FFFFFFF))
    scale = np.int32(largest).view(np.float32) / np.float32(127)
    if largest >= _INF or scale < _SMALLEST:
        q[: len(bits)] = 0
        return (np.float32(1) if largest < _INF else np.float32(np.nan)), np.int32(0)
    inverse, total = np.float32(1) / scale, np.int32(0)
    for p in range(len(bits)):
        code = np.int32(np.rint(values[p] * inverse))
        q[p] = np.int8(code)
        total += code
    return scale, total


@kernel(rows_of(types.float32), types.int64, flat(types.int8, True, 2), flat(types.float32, True, 2), JOB)
def quantize_groups(x: Any, group: int, q: Any, scale: Any, job: Any) -> None:
    """x [M, K] to q [M, K] with scale [M, groups]."""
    mode = enter(job)
    if mode < 0:
        return
    i, k = take(job, 0), x.shape[1]
    while i < len(x):
        for g in range(scale.shape[1]):
            first, count = g * group, min(group, k - g * group)
            scale[i, g], _ = quantize_group(
                run(x, i, first, count, np.int32), run(x, i, first, count, np.float32), run(q, i, first, count, np.int8)
            )
        i = take(job, 0)
    leave(job, mode)
