"""CSR weights times one row of x, or several where no block form serves: x comes transposed. spmm_csr8 gives the bits of
edgecomp.reference."""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import flat, helper, kernel, rows_of
from edgecomp.kernels._jobs import JOB, enter, leave, take

_ROWS = 16
"""Rows of the weight that a thread takes at a time: few, so that long ones do not keep one thread busy alone."""
_ENTRIES = (flat(types.uint16), flat(types.int32), flat(types.int32))
"""indices in one of two widths, the other being empty; and indptr."""


@helper
def _dot(data: Any, indices: Any, first: int, end: int, x: Any, nothing: Any) -> Any:
    """Entries first .. end - 1 of the weight times x, four sums in turn."""
    a = b = c = d = nothing
    whole = end - (end - first) % 4
    for e in range(first, whole, 4):
        a += data[e] * x[indices[e]]
        b += data[e + 1] * x[indices[e + 1]]
        c += data[e + 2] * x[indices[e + 2]]
        d += data[e + 3] * x[indices[e + 3]]
    for e in range(whole, end):
        a += data[e] * x[indices[e]]
    return (a + b) + (c + d)


@helper
def _add(data: Any, indices: Any, first: int, end: int, x: Any, sums: Any) -> None:
    sums[:] = 0
    for e in range(first, end):
        value, row = data[e], x[indices[e]]
        for t in range(len(sums)):
            sums[t] += value * row[t]


@helper
def _sums(data: Any, short: Any, indices: Any, first: int, end: int, x: Any, vector: Any, nothing: Any, sums: Any) -> None:
    if len(sums) == 1:
        sums[0] = _dot(data, short, first, end, vector, nothing) if len(short) else _dot(data, indices, first, end, vector, nothing)
    elif len(short):
        _add(data, short, first, end, x, sums)
    else:
        _add(data, indices, first, end, x, sums)


@kernel(
    flat(types.float32, dimensions=2), flat(types.float32), *_ENTRIES,
    flat(types.float32), types.int64, rows_of(types.float32, True), JOB,
)  # fmt: skip
def spmm_csr(x: Any, data: Any, short: Any, indices: Any, indptr: Any, bias: Any, relu: int, y: Any, job: Any) -> None:
    """y [M, N] = x^T w^T + bias for x [K, M]."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    sums, vector = np.empty(m, np.float32), x.reshape(x.size)
    first = take(job, 0) * _ROWS
    while first < n:
        for j in range(first, min(first + _ROWS, n)):
            _sums(data, short, indices, indptr[j], indptr[j + 1], x, vector, np.float32(0), sums)
            for t in range(m):
                v = sums[t] + bias[j]
                y[t, j] = np.float32(0) if relu and v <= 0 else v
        first = take(job, 0) * _ROWS
    leave(job, mode)


@kernel(
    flat(types.int16, dimensions=2), flat(types.int8), *_ENTRIES, flat(types.float32), flat(types.float32),
    flat(types.float32), types.int64, rows_of(types.float32, True), JOB,
)  # fmt: skip
def spmm_csr8(
    x: Any, data: Any, short: Any, indices: Any, indptr: Any, scale: Any, sx: Any, bias: Any, relu: int, y: Any, job: Any
) -> None:  # fmt: skip
    """y [M, N] = ((float(x^T w^T) * sx) * scale) + bias for x int16 [K, M], the quantised rows less their zero points."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    sums, vector = np.empty(m, np.int64), x.reshape(x.size)
    first = take(job, 0) * _ROWS
    while first < n:
        for j in range(first, min(first + _ROWS, n)):
            _sums(data, short, indices, indptr[j], indptr[j + 1], x, vector, np.int64(0), sums)
            for t in range(m):
                v = np.float32(sums[t]) * sx[t] * scale[j] + bias[j]
                if v != v:
                    v = np.float32(np.nan)
                y[t, j] = np.float32(0) if relu and v <= 0 else v
        first = take(job, 0) * _ROWS
    leave(job, mode)
