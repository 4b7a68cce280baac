"""float32 GEMM, and the expansion of int8 and of grouped weights to float32 for it.

Groups of weight panels are the outer loop and blocks of K the next, so that a group's block stays in the L2 cache while all rows
pass by; y carries the sums from block to block. Weights that are not float32 panels are made into such block by block.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecomp.kernels import _simd
from edgecomp.kernels._jit import address, aligned, flat, helper, kernel, part, rows_of, run
from edgecomp.kernels._jobs import JOB, done, enter, leave, take, wait
from edgecomp.kernels._tile import COLUMNS
from edgecomp.kernels._tile_f32 import ISA, tile
from edgecomp.kernels._tile_sg import MIDDLE, OFFSET, POINT, STRIP

ROWS, PANELS = ISA.rows, ISA.panels
_BLOCK_K = 1024
_BLOCK_ROWS = 1024  # that pass by one group before the next one's turn
_CHUNKS_PER_THREAD = 8  # so that a thread that is late costs an eighth of its share at most


@helper
def _transpose(a: Any, row0: int, rows: int, first: int, count: int, out: Any, stride: int) -> None:
    """out[p * stride + i] = a[row0 + i, first + p]; zeros for i >= rows."""
    for block in range(0, count, 64):
        for i in range(stride):
            if i < rows:
                source = run(a, row0 + i, first, count, np.float32)
                for p in range(block, min(block + 64, count)):
                    out[p * stride + i] = source[p]
            else:
                for p in range(block, min(block + 64, count)):
                    out[p * stride + i] = 0


@helper
def _expand(codes: Any, scale: Any, panel: int, first: int, count: int, out: Any) -> None:
    """out[p * 16 + c] = one int8 panel's weight of input first + p and output c, times its scale. first is a multiple of 4."""
    for p in range(count):
        for c in range(16):
            out[p * 16 + c] = np.float32(codes[panel, (first + p) // 4, c, (first + p) % 4]) * scale[panel * 16 + c]


@intrinsic  # type: ignore[misc]
def _expand_sixteen(typing: Any, words: Any, shift: Any, mask: Any, centre: Any, scale: Any, offset: Any, out: Any) -> Any:
    """out = (code - centre) * scale + offset rounded once, code being some bits of a word; 16 of each at these addresses."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        ints, floats = ir.VectorType(_simd.I32, 16), ir.VectorType(_simd.F32, 16)
        words, centre, scale, offset, out = (b.inttoptr(args[i], _simd.BYTES) for i in (0, 3, 4, 5, 6))
        shift, mask = (_simd.splat(b, b.trunc(value, _simd.I32), 16) for value in args[1:3])
        code = b.sitofp(b.and_(b.lshr(_simd.load(b, ints, words), shift), mask), floats)
        centre, scale, offset = (_simd.load(b, floats, p) for p in (centre, scale, offset))
        _simd.store(b, _simd.call(b, "llvm.fma.v16f32", floats, b.fsub(code, centre), scale, offset), out)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), emit


@intrinsic  # type: ignore[misc]
def _from_half(typing: Any, bits: Any) -> Any:
    return types.float32(types.uint16), lambda context, b, signature, args: _simd.from_half(b, b.zext(args[0], _simd.I32))


@helper
def _expand_groups(
    records: Any, bits: int, group: int, record: int, header: int, half: int, zero: int, panel: int, first: int, count: int, out: Any
) -> None:
    """The same of 16 outputs of grouped weights, which are scale * (code - zero) or scale * code + offset, rounded once."""
    strip, col, per_word = panel * 16 // STRIP, panel * 16 % STRIP, 32 // bits  # codes of an output that are neighbours
    scale, centre, offset = np.empty(16, np.float32), np.empty(16, np.float32), np.full(16, np.float32(-0.0))
    k = first
    while k < first + count:
        g = k // group
        at = g * record
        if half:
            halves = run(records, strip, at, 2 * STRIP, np.uint16)
            for c in range(16):
                scale[c] = _from_half(halves[col + c])
                if zero == OFFSET:
                    offset[c] = _from_half(halves[STRIP + col + c])
        else:
            floats = run(records, strip, at, 2 * STRIP, np.float32)
            for c in range(16):
                scale[c] = floats[col + c]
                if zero == OFFSET:
                    offset[c] = floats[STRIP + col + c]
        points = run(records, strip, at + STRIP * (2 if half else 4) + col, 16, np.uint8)
        for c in range(16):
            centre[c] = np.float32(1 << (bits - 1)) if zero == MIDDLE else np.float32(points[c]) if zero == POINT else np.float32(0)
        end = min((g + 1) * group, first + count)
        while k < end:
            i = k - g * group
            words = address(records, at + header + (i // per_word * STRIP + col) * 4) + strip * records.strides[0]
            shift = 8 * (i % 4) + (4 * (i // 4 % 2) if bits == 4 else 0)
            _expand_sixteen(
                words, shift, (1 << bits) - 1, address(centre, 0), address(scale, 0), address(offset, 0), address(out, (k - first) * 16)
            )
            k += 1


@helper
def _block_at(k: int, blocks: int, b: int) -> int:
    """Where block b of K begins: at a whole quad, as codes need."""
    return min(4 * part(-(-k // 4), blocks, b), k)


@kernel(
    *(rows_of(types.float32), flat(types.float32, dimensions=3), rows_of(types.float32), flat(types.int8, dimensions=4)),
    *(flat(types.float32), flat(types.uint8, dimensions=2), *[types.int64] * 6, flat(types.float32), types.int64),
    *(rows_of(types.float32, True), flat(types.float32, True), types.int64, JOB),
)
def gemm_f32(
    x: Any, w: Any, rows: Any, codes: Any, scale: Any,
    records: Any, bits: int, per_group: int, record: int, header: int, half: int, zero: int,
    bias: Any, relu: int, y: Any, panel: Any, threads: int, job: Any,
) -> None:  # fmt: skip
    """y [M, N] = x w^T + bias (-0.0 for none), clamped at 0 if relu.

    The weights are one of four, the others being empty: w, panels [N/16][K][16]; rows [N, K]; codes, int8 panels n16k4, with
    their scale; or records with what gemm_sg wants to know of them, per_group being the inputs of a group. bias and scale of whole
    panels; panel (M * K) is scratch that the threads share.
    """
    mode = enter(job)
    if mode < 0:
        return
    (m, n), k = y.shape, x.shape[1]
    panels, tiles = -(-n // 16), -(-m // ROWS)
    t = take(job, 0)
    while t < tiles:
        row0, row1 = part(m, tiles, t), part(m, tiles, t + 1)
        _transpose(x, row0, row1 - row0, 0, k, panel[row0 * k :], row1 - row0)
        done(job, 0)
        t = take(job, 0)
    wait(job, 0, tiles)

    packed = len(w) > 0
    groups = -(-panels // PANELS) if m > 3 else panels  # a few rows: one stream from memory
    blocks = -(-_CHUNKS_PER_THREAD * threads // groups) if threads > 1 else 1
    blocks = min(tiles, max(blocks, -(-m // _BLOCK_ROWS)))
    k_blocks = max(-(-k // _BLOCK_K), 1) if m > 3 or not packed else 1
    no_bias = np.full(COLUMNS, np.float32(-0.0))
    made = aligned(0 if packed else COLUMNS * (_BLOCK_K + 4), np.float32)
    scratch = np.empty((ROWS, COLUMNS), np.float32)
    chunk = take(job, 1)
    while chunk < groups * blocks:
        group, block = chunk // blocks, chunk % blocks
        panel0, panel1 = part(panels, groups, group), part(panels, groups, group + 1)
        nv, col0, cols = panel1 - panel0, panel0 * 16, min(panel1 * 16, n) - panel0 * 16
        tile0, tile1 = part(tiles, blocks, block), part(tiles, blocks, block + 1)
        aside = cols < 16 * nv  # the tile goes through scratch
        for b in range(k_blocks):
            k0, k1 = _block_at(k, k_blocks, b), _block_at(k, k_blocks, b + 1)
            length, is_last = k1 - k0, b + 1 == k_blocks
            if packed:
                w_at, panel_bytes = address(w, 16 * (panel0 * k + k0)), 64 * k
            else:
                w_at, panel_bytes = address(made, 0), 64 * length
                for v in range(nv):
                    if len(rows):
                        col = col0 + 16 * v
                        _transpose(rows, col, min(n - col, 16), k0, length, made[16 * v * length :], 16)
                    elif len(records):
                        _expand_groups(
                            records, bits, per_group, record, header, half, zero, panel0 + v, k0, length, made[16 * v * length :]
                        )  # fmt: skip
                    else:
                        _expand(codes, scale, panel0 + v, k0, length, made[16 * v * length :])
            # What this thread most likely takes next comes into L2 while it works on this: the next block of K, or the first of
            # another group.
            ahead_at, lines = w_at + 64 * length, -(-length // ((tile1 - tile0) * (length // 16 + 1)))
            if is_last:
                following = (chunk + threads) // blocks
                ahead = part(panels, groups, following) if group < following < groups else panels
                ahead_at, lines = address(w, 16 * ahead * k), lines if ahead + nv <= panels else 0
            ahead_end = ahead_at + 64 * length if packed and m > 3 else 0
            for t in range(tile0, tile1):
                row0 = part(m, tiles, t)
                mr = part(m, tiles, t + 1) - row0
                if aside and b > 0:
                    for i in range(mr):
                        for c in range(cols):
                            scratch[i, c] = y[row0 + i, col0 + c]
                tile(
                    mr, nv, length, address(panel, row0 * k + k0 * mr), w_at, panel_bytes,
                    address(scratch, 0) if aside else address(y, col0) + row0 * y.strides[0],
                    4 * COLUMNS if aside else y.strides[0], ahead_at, lines if ahead_at < ahead_end else 0,
                    b == 0, relu and is_last, address(bias, col0) if is_last else address(no_bias, 0),
                )  # fmt: skip
                ahead_at += lines * 64 * (length // 16)
                if aside:
                    for i in range(mr):
                        for c in range(cols):
                            y[row0 + i, col0 + c] = scratch[i, c]
        chunk = take(job, 1)
    leave(job, mode)
