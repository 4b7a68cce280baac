"""Sparse weights in their block form (edgecomp.csr_blocks) times several rows of x: CSR, and N:M whose outputs share their inputs.

x becomes groups of tokens, which fill the lanes. A thread takes a block of row groups and a group of tokens, adds up block after block
of inputs, and turns the sums into rows of y. The int8 form gives the bits of edgecomp.reference.
"""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import address, aligned, flat, helper, kernel, rows_of, run
from edgecomp.kernels._jobs import JOB, done, enter, leave, take, wait
from edgecomp.kernels._tile_csr import (
    FEW8,
    MOST,
    TOKENS8,
    finish_f32,
    finish_s8,
    rows_f32,
    rows_s8,
    turn_f32,
    turn_u8,
)  # fmt: skip
from edgecomp.kernels._tile_s8c import FLOAT, RELU
from edgecomp.kernels.quantize_rows import quantize_row

_PACK = 256  # inputs that a thread turns at a time
_MOST_1, _MOST_4 = MOST[1], MOST[4]


@helper
def _aside(x: Any, row0: int, k0: int, count: int, out: Any) -> None:
    """out [16][_PACK] = `count` inputs of the rows from row0 on, zeros for what is not there."""
    out[:] = 0
    for i in range(min(16, x.shape[0] - row0)):
        for p in range(count):
            out[i, p] = x[row0 + i, k0 + p]


@helper
def _pack_f32(x: Any, token0: int, tokens: int, k0: int, panel: Any, scratch: Any) -> None:
    """Inputs k0 .. k0 + _PACK - 1 of a group of tokens, as [input][tokens]; whole sixteens."""
    count = min(_PACK, x.shape[1] - k0)
    at = address(panel, 0)
    for t in range(0, tokens, 16):
        near, base = x.strides[0], address(x, k0) + (token0 + t) * x.strides[0]
        if token0 + t + 16 > x.shape[0] or count % 16:
            _aside(x, token0 + t, k0, count, scratch)
            near, base = 4 * _PACK, address(scratch, 0)
        for p in range(0, count, 16):
            turn_f32(base + 4 * p, near, 4 * near, at + 4 * ((k0 + p) * tokens + t), 4 * tokens)


_FORM = (flat(types.int32), flat(types.int64), flat(types.uint16), flat(types.uint16))


@kernel(
    rows_of(types.float32), *_FORM, flat(types.float32), types.int64, types.int64, flat(types.float32), types.int64,
    rows_of(types.float32, True), flat(types.float32, True), JOB,
)  # fmt: skip
def spmm_blocks(
    x: Any, rows: Any, start: Any, count: Any, local: Any, value: Any, inputs: int, shared: int, bias: Any, relu: int,
    y: Any, panel: Any, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = x w^T + bias (-0.0 for none; of whole sixteens), clamped at 0 if relu. panel: ceil(M / 16) * 16 times ceil(K / 16) * 16
    floats that the threads share."""
    mode = enter(job)
    if mode < 0:
        return
    (m, n), k = y.shape, x.shape[1]
    most = _MOST_1 if shared == 1 else _MOST_4
    whole_k, whole_m = -(-k // 16) * 16, -(-m // 16) * 16
    groups, packs, blocks, blocks_k = -(-m // most), -(-k // _PACK), len(rows) - 1, -(-k // inputs)
    scratch = np.empty((16, _PACK), np.float32)
    t = take(job, 0)
    while t < groups * packs:
        token0 = t // packs * most
        _pack_f32(x, token0, min(most, whole_m - token0), t % packs * _PACK, panel[token0 * whole_k :], scratch)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, groups * packs)

    longest = 0
    for b in range(blocks):
        longest = max(longest, rows[b + 1] - rows[b])
    sums = aligned((longest * shared + 16) * most, np.float32)
    chunk = take(job, 1)
    while chunk < groups * blocks:
        block, token0 = chunk // groups, chunk % groups * most
        tokens, own = min(most, whole_m - token0), min(most, m - token0)
        row0, each = rows[block], rows[block + 1] - rows[block]
        for b in range(blocks_k):
            first = start[block * blocks_k + b]
            rows_f32(
                100 * shared + tokens, each, address(count, row0 * blocks_k + b * each), address(local, first),
                address(value, first * shared), address(panel, token0 * whole_k + b * inputs * tokens), address(sums, 0), b == 0,
            )  # fmt: skip
        col0, cols = row0 * shared, min(each * shared, n - row0 * shared)
        for t in range(0, own, 16):
            for c in range(0, cols, 16):
                aside = t + 16 > own or c + 16 > cols
                finish_f32(
                    address(sums, c * tokens + t), 4 * tokens,
                    address(scratch, 0) if aside else address(y, col0 + c) + (token0 + t) * y.strides[0],
                    4 * _PACK if aside else y.strides[0], 1, relu, address(bias, col0 + c),
                )  # fmt: skip
                if aside:
                    for i in range(min(16, own - t)):
                        for j in range(min(16, cols - c)):
                            y[token0 + t + i, col0 + c + j] = scratch[i, j]
        chunk = take(job, 1)
    leave(job, mode)


@helper
def _pack_s8(
    x: Any, q: Any, scales: Any, zeros: Any, token0: int, tokens: int, part: int, k: int, codes: Any, panel: Any, sx: Any, zero: Any
) -> None:
    """16 rows of a group of tokens, quantised or (if x is empty) copied, as [input][tokens] bytes.

    These are tokens 4 g .. 4 g + 3 of each quarter of the group, for part g: what unpacking bytes, then pairs, puts in order."""
    lanes = tokens // 4
    for i in range(16):
        token = token0 + i // 4 * lanes + 4 * part + i % 4
        out = run(codes, i, 0, codes.shape[1], np.uint8)
        if token >= len(sx):
            continue
        if len(x):
            sx[token], zero[token] = quantize_row(x, token, out)
        else:
            given = run(q, token, 0, k, np.uint8)
            for p in range(k):
                out[p] = given[p]
            sx[token], zero[token] = scales[token], zeros[token]
    base, near, at = address(codes, 0), codes.strides[0], address(panel, 16 * part)
    for p in range(0, k, 16):
        turn_u8(base + p, near, 4 * near, at + p * tokens, tokens)


@kernel(
    rows_of(types.float32), rows_of(types.uint8), flat(types.float32), flat(types.uint8), *_FORM, flat(types.int8), *[types.int64] * 3,
    flat(types.float32), flat(types.int32), flat(types.float32), types.int64, rows_of(types.float32, True),
    flat(types.uint8, True), flat(types.float32, True), flat(types.int32, True), JOB,
)  # fmt: skip
def spmm_blocks8(
    x: Any, q: Any, scales: Any, zeros: Any, rows: Any, start: Any, count: Any, local: Any, value: Any, inputs: int, shared: int, k: int,
    wscale: Any, wsum: Any, bias: Any, relu: int, y: Any, panel: Any, sx: Any, zero: Any, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = ((float(sum) * sx) * wscale) + bias of x as gemm_s8c takes it. wscale, wsum, bias of whole sixteens. panel: bytes for
    M rounded up to TOKENS8 times K to 16; sx and zero [M]: scratch that the threads share."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    whole_k = -(-k // 16) * 16
    groups, blocks, blocks_k = -(-m // TOKENS8), len(rows) - 1, -(-k // inputs)
    last, parts = FEW8 if m - (groups - 1) * TOKENS8 <= FEW8 else TOKENS8, groups * (TOKENS8 // 16)
    codes = np.zeros((16, whole_k + 64), np.uint8)
    t = take(job, 0)
    while t < parts:
        group, part = t % groups, t // groups  # parts of one group, which share lines of the panel, are best made by one thread
        token0 = group * TOKENS8
        tokens = last if group == groups - 1 else TOKENS8
        if part < tokens // 16:
            _pack_s8(x, q, scales, zeros, token0, tokens, part, k, codes, panel[token0 * whole_k :], sx, zero)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, parts)

    longest = 0
    for b in range(blocks):
        longest = max(longest, rows[b + 1] - rows[b])
    sums, scratch = aligned((longest * shared + 16) * TOKENS8, np.int32), np.empty((16, 16), np.float32)
    row_zero, row_scale = np.zeros(16, np.int32), np.zeros(16, np.float32)
    chunk = take(job, 1)
    while chunk < groups * blocks:
        block, group = chunk // groups, chunk % groups
        token0 = group * TOKENS8
        tokens = last if group == groups - 1 else TOKENS8
        own = min(tokens, m - token0)
        row0, each = rows[block], rows[block + 1] - rows[block]
        for b in range(blocks_k):
            first = start[block * blocks_k + b]
            rows_s8(
                100 * shared + tokens, each, address(count, row0 * blocks_k + b * each), address(local, first),
                address(value, first * shared), address(panel, token0 * whole_k + b * inputs * tokens), address(sums, 0), b == 0,
            )  # fmt: skip
        col0, cols = row0 * shared, min(each * shared, n - row0 * shared)
        for t in range(0, own, 16):
            for i in range(min(16, own - t)):
                row_zero[i], row_scale[i] = zero[token0 + t + i], sx[token0 + t + i]
            for c in range(0, cols, 16):
                aside = t + 16 > own or c + 16 > cols
                finish_s8(
                    address(sums, c * tokens + t), 4 * tokens,
                    address(scratch, 0) if aside else address(y, col0 + c) + (token0 + t) * y.strides[0], 64 if aside else y.strides[0],
                    RELU if relu else FLOAT, address(row_zero, 0), address(row_scale, 0),
                    address(wsum, col0 + c), address(wscale, col0 + c), address(bias, col0 + c),
                )  # fmt: skip
                if aside:
                    for i in range(min(16, own - t)):
                        for j in range(min(16, cols - c)):
                            y[token0 + t + i, col0 + c + j] = scratch[i, j]
        chunk = take(job, 1)
    leave(job, mode)
