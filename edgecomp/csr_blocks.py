"""The form in which the Numba kernels read a sparse weight for several rows of x: blocks of rows times blocks of inputs, so that a
block's activations stay in the L1 cache and its sums in the L2 cache."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_SHARES = 16  # a block is at most such a share of the work
_MOST_OUTPUTS = 512
_ROW_WORK = 4  # what a row costs beside its entries, in entries


class Blocks(NamedTuple):
    """Block after block: all blocks of inputs of the first rows, then of the next. A row is `shared` outputs that have the same inputs."""

    rows: npt.NDArray[np.int32]  # [blocks of rows + 1]: where they begin
    start: npt.NDArray[np.int64]  # [blocks of rows * blocks of inputs + 1]: their first entries
    counts: npt.NDArray[np.uint16]  # [rows] of each block: entries; int8: fours of them, filled up with zeros
    local: npt.NDArray[np.uint16]  # of each entry: the input within its block
    value: npt.NDArray[Any]  # of each entry [shared]; int8: of each four [shared][4]
    inputs: int  # of a block
    shared: int
    sums: npt.NDArray[np.int32]  # of the int8 values of each output

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self if isinstance(a, np.ndarray))


def block_inputs(rows: int, k: int, entries: int, int8: bool) -> int:
    """Few enough for L1 (64 tokens of 4 bytes each, or of 1), but a dozen entries in each row of a block, or six fours."""
    least = 384 if int8 else 112
    wanted = (24 if int8 else 12) * rows * k / (entries + 1)
    return int(min(max(-(-wanted // 16) * 16, least), 32768))


def _cuts(work: npt.NDArray[Any], most: int) -> npt.NDArray[np.int32]:
    """Where blocks of rows begin: at most `most` rows, and a share of the work; sixteens where that may be."""
    total = np.concatenate([[0], np.cumsum(work)])
    share, cuts = total[-1] // _SHARES + 1, [0]
    while cuts[-1] < len(work):
        row = cuts[-1]
        end = int(np.searchsorted(total, total[row] + share, side="right")) - 1
        end = min(max(end, row + 1), row + most, len(work))
        cuts.append(end if end == len(work) or end - row < 16 else row + (end - row) // 16 * 16)
    return np.array(cuts, np.int32)


def to_blocks(values: npt.NDArray[Any], indices: npt.NDArray[Any], indptr: npt.NDArray[Any], k: int) -> Blocks:
    """Of rows with entries indptr[j] .. indptr[j + 1] - 1, ascending indices and values [entries, shared], float32 or int8; at
    least one row."""
    int8, shared, n = values.dtype == np.int8, values.shape[1], len(indptr) - 1
    inputs = block_inputs(n, k, len(indices), int8)
    blocks_k, counts = -(-k // inputs), np.diff(indptr).astype(np.int64)
    rows = _cuts(counts + _ROW_WORK, max(_MOST_OUTPUTS // shared, 16))
    starts, found, locals_, ordered, end = [], [], [], [], 0
    for row0, row1 in itertools.pairwise(rows):
        part = slice(indptr[row0], indptr[row1])
        block = (indices[part] // inputs).astype(np.uint16)
        order = np.argsort(block, kind="stable")
        run = block[order] * np.int64(row1 - row0) + np.repeat(np.arange(row1 - row0), counts[row0:row1])[order]
        count = np.bincount(run, minlength=blocks_k * (row1 - row0))
        own, entries = (indices[part] % inputs).astype(np.uint16)[order], values[part][order]
        if int8:  # every run becomes whole fours
            fours = -(-count // 4)
            filled = 4 * fours
            at = (np.cumsum(filled) - filled - np.cumsum(count) + count)[run] + np.arange(len(run))
            local, value = np.zeros(filled.sum(), np.uint16), np.zeros((filled.sum(), shared), np.int8)
            local[at], value[at] = own, entries
            own, entries, count = local, value.reshape(-1, 4, shared).transpose(0, 2, 1), fours
        per_block = count.reshape(blocks_k, -1).sum(axis=1) * (4 if int8 else 1)
        starts.append(end + np.cumsum(per_block) - per_block)
        end += int(per_block.sum())
        found.append(count.astype(np.uint16))
        locals_.append(own)
        ordered.append(entries.reshape(-1))
    sums = np.zeros(n * shared, np.int32)
    if int8:
        total = np.concatenate([np.zeros((1, shared), np.int64), np.cumsum(values, axis=0, dtype=np.int64)])
        sums = (total[indptr[1:]] - total[indptr[:-1]]).astype(np.int32).reshape(-1)
    start = np.concatenate([*starts, [end]]).astype(np.int64)
    counted, local, value = (np.concatenate(parts) for parts in (found, locals_, ordered))
    return Blocks(rows, start, counted, local, value, inputs, shared, sums)
