"""int8 GEMM: x quantised per row to uint8, int8 weights with one scale per output, exact integer sums.

Groups of weight panels are the outer loop, so that a group stays in the L2 cache while all rows pass by; the sums stay in
registers over all of K. Results are those of edgecomp.reference, bit for bit.
"""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import address, flat, helper, kernel, part, rows_of, run
from edgecomp.kernels._jobs import JOB, done, enter, leave, take, wait
from edgecomp.kernels._tile import COLUMNS
from edgecomp.kernels._tile_s8c import INT32, ISA, RELU, tile
from edgecomp.kernels.quantize_rows import quantize_row

ROWS, PANELS = ISA.rows, ISA.panels
_BLOCK_ROWS = 256  # that pass by one group before the next one's turn
_CHUNKS_PER_THREAD = 8  # so that a thread that is late costs an eighth of its share at most
_EXACT_QUADS = 66311 // 4  # 255 * 127 * 66311 < 2**31; beyond it blocks are added in int64:
_BLOCK_QUADS = 16384


@helper
def _pack_tile(x: Any, q: Any, flip: int, row0: int, mr: int, codes: Any, panel: Any, sx: Any, zero: Any, scales: Any, zeros: Any) -> None:
    """mr rows from row0 on, quantised or (if x is empty) copied, to an activation panel [quads][mr][4]."""
    quads = codes.shape[1]
    for i in range(row0, row0 + mr):
        out = run(codes, i - row0, 0, 4 * quads, np.uint8)
        if len(x):
            sx[i], zero[i] = quantize_row(x, i, out)
        else:
            k = q.shape[1]
            given = run(q, i, 0, k, np.uint8)
            for p in range(k):
                out[p] = given[p] ^ np.uint8(flip)
            sx[i], zero[i] = scales[i], zeros[i]
    for block in range(0, quads, 64):
        for i in range(mr):
            source = run(codes, i, 0, quads, np.uint32)
            for p in range(block, min(block + 64, quads)):
                panel[row0 * quads + p * mr + i] = source[p]


@helper
def _add_block(sums: Any, is_first: bool, totals: Any) -> None:
    for i in range(ROWS):
        for c in range(COLUMNS):
            totals[i, c] = sums[i, c] + (0 if is_first else totals[i, c])


@helper
def _finish_long(
    totals: Any, y: Any, relu: bool, row0: int, col0: int, mr: int, cols: int, zero: Any, sx: Any, wsum: Any, wscale: Any, bias: Any
) -> None:
    """y = what the tile would have made of these sums, which do not fit int32."""
    for i in range(mr):
        for c in range(cols):
            total = totals[i, c] - np.int64(zero[row0 + i]) * np.int64(wsum[col0 + c])
            v = np.float32(total) * sx[row0 + i] * wscale[col0 + c] + bias[col0 + c]
            v = np.float32(0) if relu and v <= np.float32(0) else v
            y[i, c] = v if v == v else np.float32(np.nan)


@kernel(
    *(rows_of(types.float32), rows_of(types.uint8), flat(types.float32), flat(types.uint8), types.int64),
    *(flat(types.int8, dimensions=4), flat(types.float32), flat(types.int32), flat(types.float32), types.int64),
    *(rows_of(types.float32, True), flat(types.uint32, True), flat(types.float32, True), flat(types.int32, True), types.int64, JOB),
)
def gemm_s8c(
    x: Any, q: Any, scales: Any, zeros: Any, flip: int, w: Any, wscale: Any, wsum: Any, bias: Any, kind: int,
    y: Any, panel: Any, sx: Any, zero: Any, threads: int, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = x w^T, as `kind` says: FLOAT and RELU dequantise and add the bias (-0.0 for none), INT32 stores the sums; y is then an
    int32 array read as float32.

    x is float32 [M, K], to be quantised; or empty, and q uint8 [M, K] with scales and zeros [M], its bytes XORed with flip. w: panels
    n16k4; wscale, wsum, bias of whole panels. panel (M * ceil(K/4)), sx, zero (M) are scratch that the threads share.
    """
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    panels, quads = w.shape[0], w.shape[1]
    tiles = -(-m // ROWS)
    codes = np.empty((ROWS, quads), np.uint32)
    t = take(job, 0)
    while t < tiles:
        row0 = part(m, tiles, t)
        _pack_tile(x, q, flip, row0, part(m, tiles, t + 1) - row0, codes, panel, sx, zero, scales, zeros)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, tiles)

    groups = -(-panels // PANELS) if m > 3 else panels  # a few rows: one stream from memory
    blocks = -(-_CHUNKS_PER_THREAD * threads // groups) if threads > 1 else 1
    blocks = min(tiles, max(blocks, -(-m // _BLOCK_ROWS)))
    is_long = quads > _EXACT_QUADS and kind != INT32
    longest = _BLOCK_QUADS if is_long else max(quads, 1)
    scratch, sums = np.empty((ROWS, COLUMNS), np.float32), np.empty((ROWS, COLUMNS), np.int32)
    totals, no_zeros = np.empty((ROWS, COLUMNS), np.int64), np.zeros(ROWS, np.int32)
    chunk = take(job, 1)
    while chunk < groups * blocks:
        group, block = chunk // blocks, chunk % blocks
        panel0, panel1 = part(panels, groups, group), part(panels, groups, group + 1)
        nv, col0, cols = panel1 - panel0, panel0 * 16, min(panel1 * 16, n) - panel0 * 16
        tile0, tile1 = part(tiles, blocks, block), part(tiles, blocks, block + 1)
        aside = is_long or cols < 16 * nv  # the tile goes to scratch first
        # The weights this thread most likely takes next come into L2 while it works on these.
        following = (chunk + threads) // blocks
        ahead = part(panels, groups, following) if group < following < groups else panels
        lines = -(-quads // ((tile1 - tile0) * (quads // 16 + 1)))
        ahead_at = address(w, ahead * quads * 64)
        ahead_end = ahead_at + 64 * quads if m > 3 and ahead + nv <= panels else 0
        for t in range(tile0, tile1):
            row0 = part(m, tiles, t)
            mr = part(m, tiles, t + 1) - row0
            y_at = address(y, col0) + row0 * y.strides[0]
            for first in range(0, max(quads, 1), longest):
                tile(
                    mr, nv, min(quads - first, longest),
                    address(panel, row0 * quads + first * mr), address(w, (panel0 * quads + first) * 64), 64 * quads,
                    address(sums, 0) if is_long else address(scratch, 0) if aside else y_at,
                    4 * COLUMNS if aside else y.strides[0], ahead_at, lines if ahead_at < ahead_end else 0,
                    INT32 if is_long else kind, address(no_zeros, 0) if is_long else address(zero, row0),
                    address(sx, row0), address(wsum, col0), address(wscale, col0), address(bias, col0),
                )  # fmt: skip
                if is_long:
                    _add_block(sums, first == 0, totals)
            if is_long:
                _finish_long(totals, scratch, kind == RELU, row0, col0, mr, cols, zero, sx, wsum, wscale, bias)
            ahead_at += lines * 64 * (quads // 16)
            if aside:
                for i in range(mr):
                    for c in range(cols):
                        y[row0 + i, col0 + c] = scratch[i, c]
        chunk = take(job, 1)
    leave(job, mode)
