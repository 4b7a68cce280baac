"""gemm_s4g and gemm_s8g: x quantised per row and group to int8, weights of 4 or 8 bits with a scale per output and group.

A strip of 32 outputs is one stream of records; tiles of rows pass by it. Results are those of edgecomp.reference, bit for bit.
"""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import address, aligned, flat, helper, kernel, part, rows_of, run
from edgecomp.kernels._jobs import JOB, done, enter, leave, take, wait
from edgecomp.kernels._tile_sg import STRIP, tile
from edgecomp.kernels.quantize_groups import quantize_group

ROWS = 32  # of a tile: its y is 4 KB
_BLOCK_ROWS = 256  # that pass by one strip before the next one's turn
_CHUNKS_PER_THREAD = 8  # so that a thread that is late costs an eighth of its share at most


@helper
def _pack_tile(
    x: Any, order: Any, given: Any, scales: Any, group: int, row0: int, mr: int, in_order: Any, q: Any, sx: Any, sums: Any
) -> None:
    """mr rows from row0 on, quantised or (if x is empty) copied, to q [groups][mr][group], sx and sums [groups][mr]."""
    k = max(x.shape[1], given.shape[1])
    groups = -(-k // group)
    for i in range(mr):
        row = row0 + i
        if len(order):
            values = run(x, row, 0, k, np.float32)
            for p in range(k):
                in_order[0, p] = values[order[p]]
        for g in range(groups):
            first, count, at = g * group, min(group, k - g * group), (row0 * groups + g * mr + i)
            out = run(q, 0, at * group, group, np.int8)
            if not len(x):
                codes, total = run(given, row, first, count, np.int8), np.int32(0)
                for p in range(count):
                    out[p] = codes[p]
                    total += codes[p]
                sx[at], sums[at] = scales[row, g], total
            elif len(order):
                bits, values = run(in_order, 0, first, count, np.int32), run(in_order, 0, first, count, np.float32)
                sx[at], sums[at] = quantize_group(bits, values, out)
            else:
                bits, values = run(x, row, first, count, np.int32), run(x, row, first, count, np.float32)
                sx[at], sums[at] = quantize_group(bits, values, out)
            out[count:] = 0


@kernel(
    *(rows_of(types.float32), flat(types.int32), rows_of(types.int8), rows_of(types.float32)),
    *(flat(types.uint8, dimensions=2), types.int64, types.int64, types.int64, types.int64, types.int64, types.int64),
    *(flat(types.float32), types.int64, rows_of(types.float32, True)),
    *(rows_of(types.int8, True), flat(types.float32, True), flat(types.int32, True), types.int64, JOB),
)
def gemm_sg(
    x: Any, order: Any, given: Any, scales: Any, records: Any, bits: int, group: int, record: int, header: int, half: int, zero: int,
    bias: Any, relu: int, y: Any, q: Any, sx: Any, sums: Any, threads: int, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = x w^T + bias (-0.0 for none), clamped at 0 if relu.

    x is float32 [M, K], to be quantised, input i of the weights being x[:, order[i]] unless order is empty; or x is empty, and given
    int8 [M, K] with scales [M, groups]. records: [N/32][groups * record] bytes, see tile. q (1, M * groups * group), sx and sums
    (M * groups) are scratch that the threads share.
    """
    mode = enter(job)
    if mode < 0:
        return
    (m, n), k = y.shape, max(x.shape[1], given.shape[1])
    groups, strips, tiles = -(-k // group), -(-n // STRIP), -(-m // ROWS)
    in_order = np.empty((1, len(order)), np.float32)
    t = take(job, 0)
    while t < tiles:
        row0 = part(m, tiles, t)
        _pack_tile(x, order, given, scales, group, row0, part(m, tiles, t + 1) - row0, in_order, q, sx, sums)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, tiles)

    blocks = -(-_CHUNKS_PER_THREAD * threads // max(strips, 1)) if threads > 1 else 1
    blocks = min(tiles, max(blocks, -(-m // _BLOCK_ROWS)))
    v, acc = aligned(ROWS * STRIP, np.float32).reshape((ROWS, STRIP)), aligned(ROWS * STRIP, np.int32)
    acc[:] = 0
    limit = np.float32(0) if relu else np.float32(-np.inf)
    chunk = take(job, 1)
    while chunk < strips * blocks:
        strip, block = chunk // blocks, chunk % blocks
        col0 = strip * STRIP
        cols = min(n - col0, STRIP)
        for t in range(part(tiles, blocks, block), part(tiles, blocks, block + 1)):
            row0 = part(m, tiles, t)
            mr, at = part(m, tiles, t + 1) - row0, row0 * groups
            v[:mr] = 0
            tile(
                bits, mr, groups, group // 4, address(q, at * group), address(sx, at), address(sums, at),
                address(records, strip * groups * record), record, header, half, zero, address(v, 0), address(acc, 0),
            )  # fmt: skip
            for i in range(mr):
                out = run(y, row0 + i, col0, cols, np.float32)
                for c in range(cols):
                    value = v[i, c] + bias[col0 + c]
                    value = limit if value <= limit else value
                    out[c] = value if value == value else np.float32(np.nan)
        chunk = take(job, 1)
    leave(job, mode)
