"""CSR weights times rows of x, which come transposed: tokens in lanes. spmm_csr8 gives the bits of edgecomp.reference."""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import flat, kernel, rows_of
from edgecomp.kernels._jobs import JOB, enter, leave, take

_ROWS = 16
"""Rows of the weight that a thread takes at a time: few, so that long ones do not keep one thread busy alone."""
_ENTRIES = (flat(types.int32), flat(types.int32))


@kernel(
    flat(types.float32, dimensions=2), flat(types.float32), *_ENTRIES,
    flat(types.float32), types.int64, rows_of(types.float32, True), JOB,
)  # fmt: skip
def spmm_csr(x: Any, data: Any, indices: Any, indptr: Any, bias: Any, relu: int, y: Any, job: Any) -> None:
    """y [M, N] = x^T w^T + bias for x [K, M]."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    sums = np.empty(m, np.float32)
    first = take(job, 0) * _ROWS
    while first < n:
        for j in range(first, min(first + _ROWS, n)):
            sums[:] = 0
            for e in range(indptr[j], indptr[j + 1]):
                value, row = data[e], x[indices[e]]
                for t in range(m):
                    sums[t] += value * row[t]
            for t in range(m):
                v = sums[t] + bias[j]
                y[t, j] = np.float32(0) if relu and v <= 0 else v
        first = take(job, 0) * _ROWS
    leave(job, mode)


@kernel(
    flat(types.int16, dimensions=2), flat(types.int8), *_ENTRIES, flat(types.float32), flat(types.float32),
    flat(types.float32), types.int64, rows_of(types.float32, True), JOB,
)  # fmt: skip
def spmm_csr8(x: Any, data: Any, indices: Any, indptr: Any, scale: Any, sx: Any, bias: Any, relu: int, y: Any, job: Any) -> None:
    """y [M, N] = ((float(x^T w^T) * sx) * scale) + bias for x int16 [K, M], the quantised rows less their zero points."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    sums = np.empty(m, np.int64)
    first = take(job, 0) * _ROWS
    while first < n:
        for j in range(first, min(first + _ROWS, n)):
            sums[:] = 0
            for e in range(indptr[j], indptr[j + 1]):
                value, row = np.int32(data[e]), x[indices[e]]
                for t in range(m):
                    sums[t] += value * np.int32(row[t])
            for t in range(m):
                v = np.float32(sums[t]) * sx[t] * scale[j] + bias[j]
                if v != v:
                    v = np.float32(np.nan)
                y[t, j] = np.float32(0) if relu and v <= 0 else v
        first = take(job, 0) * _ROWS
    leave(job, mode)
