"""int8 N:M weights whose outputs have places of their own, times many rows of x, where the CPU shuffles bytes of 64 (AVX-512 VBMI).

Rows of x are quantised to windows of 64 inputs; panels of 32 outputs are the outer loop, so that a panel stays in the L2 cache while all
rows pass by. Results are those of edgecomp.reference, bit for bit.
"""

from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels._jit import address, flat, helper, kernel, part, rows_of, run
from edgecomp.kernels._jobs import JOB, done, enter, leave, take, wait
from edgecomp.kernels._tile_nm8 import OUTPUTS, ROWS, WINDOW, tile
from edgecomp.kernels._tile_s8c import FLOAT, RELU
from edgecomp.kernels.quantize_rows import quantize_row

_CHUNKS_PER_THREAD = 8  # so that a thread that is late costs an eighth of its share at most
_BLOCK_TILES = 32  # that pass by one panel before the next one's turn


@helper
def _pack_tile(x: Any, q: Any, scales: Any, zeros: Any, row0: int, k: int, codes: Any, out: Any, sx: Any, zero: Any) -> None:
    """ROWS rows from row0 on, quantised or (if x is empty) copied, as [windows][ROWS][WINDOW]; the rest of a window stays."""
    m = max(len(x), len(q))
    for i in range(min(ROWS, m - row0)):
        row = row0 + i
        if len(x):
            sx[row], zero[row] = quantize_row(x, row, codes)
        else:
            given = run(q, row, 0, k, np.uint8)
            for p in range(k):
                codes[p] = given[p]
            sx[row], zero[row] = scales[row], zeros[row]
        words = codes.view(np.uint64)
        target = out.view(np.uint64)
        for window in range(len(codes) // WINDOW):
            for p in range(WINDOW // 8):
                target[(window * ROWS + i) * (WINDOW // 8) + p] = words[window * (WINDOW // 8) + p]


@kernel(
    rows_of(types.float32), rows_of(types.uint8), flat(types.float32), flat(types.uint8), flat(types.uint8, dimensions=5), types.int64,
    flat(types.float32), flat(types.int32), flat(types.float32), types.int64, rows_of(types.float32, True),
    flat(types.uint8, True), flat(types.float32, True), flat(types.int32, True), types.int64, JOB,
)  # fmt: skip
def spmm_nm8(
    x: Any, q: Any, scales: Any, zeros: Any, w: Any, k: int, wscale: Any, wsum: Any, bias: Any, relu: int,
    y: Any, panel: Any, sx: Any, zero: Any, threads: int, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = ((float(sum) * sx) * wscale) + bias of x as gemm_s8c takes it. w [panels][windows][steps][4][64]; wscale, wsum, bias of
    whole panels. panel (bytes for M rounded up to ROWS times K to WINDOW), sx and zero (M likewise): scratch that the threads share."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = y.shape
    panels, windows, steps = w.shape[0], w.shape[1], w.shape[2]
    tiles, each = -(-m // ROWS), windows * WINDOW * ROWS
    codes = np.zeros(windows * WINDOW, np.uint8)
    t = take(job, 0)
    while t < tiles:
        _pack_tile(x, q, scales, zeros, t * ROWS, k, codes, panel[t * each : (t + 1) * each], sx, zero)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, tiles)

    blocks = -(-_CHUNKS_PER_THREAD * threads // panels) if threads > 1 else 1
    blocks = min(tiles, max(blocks, -(-tiles // _BLOCK_TILES)))
    scratch = np.empty((ROWS, OUTPUTS), np.float32)
    chunk = take(job, 1)
    while chunk < panels * blocks:
        group, block = chunk // blocks, chunk % blocks
        col0 = group * OUTPUTS
        cols = min(n - col0, OUTPUTS)
        for t in range(part(tiles, blocks, block), part(tiles, blocks, block + 1)):
            row0 = t * ROWS
            rows = min(ROWS, m - row0)
            aside = rows < ROWS or cols < OUTPUTS
            tile(
                windows, steps, address(panel, t * each), address(w, group * windows * steps * 256),
                address(scratch, 0) if aside else address(y, col0) + row0 * y.strides[0], 4 * OUTPUTS if aside else y.strides[0],
                RELU if relu else FLOAT, address(zero, row0), address(sx, row0),
                address(wsum, col0), address(wscale, col0), address(bias, col0),
            )  # fmt: skip
            if aside:
                for i in range(rows):
                    for c in range(cols):
                        y[row0 + i, col0 + c] = scratch[i, c]
        chunk = take(job, 1)
    leave(job, mode)
