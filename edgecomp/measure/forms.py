"""The forms that one float32 matrix can run in, and how long `linear` takes in each: under `edgecomp.best_format` and `bench --break-even`.

A few rows of x meet each weight once in a pass through a model: there the caches are swept before every call, and a call with the first
outputs alone brings code and x back. More rows are timed call after call, in turn.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp.measure import timing
from edgecomp.measure.timing import Candidate, interleave
from edgecomp.nm_places import kept_inputs
from edgecomp.pruning import BLOCKS
from edgecomp.weights import K_MAX_INT8

Float32 = npt.NDArray[np.float32]

COLD_ROWS = 8  # of x, at most: their weights come from memory
COLD_SLICES, SLICES = 9, 5
WORTH_CSR = 0.7  # densities above, and patterns of more than WORTH_NM, are slower than dense on every CPU measured so far
WORTH_NM, SLACK = 0.75, 1.5  # SLACK: a pattern may store so many times the non-zeros; chance finds worse ones in any sparse matrix
TWIN = 64  # outputs of the call that brings code and x back into the caches: the largest block of N:M


@dataclass(frozen=True)
class Form:
    """A form that weights can have.

    name: "float32", "int8", "int4", "csr", "csr8", "nm 2:4", "nm 2:4 b16", "nm8 2:4", ...
    make: gives it from a float32 array [N, K].
    error: the form whose rounding it has; "" for exact ones.
    """

    name: str
    make: Callable[[Float32], Any]
    error: str = ""


DENSE = Form("float32", ec.pack)
INT8 = Form("int8", functools.partial(ec.quantize, bits=8), "int8")
INT4 = Form("int4", functools.partial(ec.quantize, bits=4, group_size=32), "int4")
CSR = Form("csr", ec.to_csr)
CSR8 = Form("csr8", functools.partial(ec.to_csr, bits=8), "int8")


def nm(pattern: str, block: int, bits: int | None = None) -> Form:
    """The N:M form of float32 (bits None) or int8 values."""
    name = f"nm{bits or ''} {pattern}{f' b{block}' if block > 1 else ''}"
    return Form(name, functools.partial(ec.to_nm, pattern=pattern, block=block, bits=bits), "int8" if bits else "")


def forms(w: Float32) -> list[Form]:
    """The forms in which w may be fastest; dense float32 first. CSR and N:M where there are zeros enough."""
    found = [DENSE, INT8, INT4]
    if np.count_nonzero(w) <= WORTH_CSR * w.size:
        found += [CSR, CSR8]
    if w.shape[1] > K_MAX_INT8:
        return [form for form in found if not form.error]
    return found + [nm(pattern, block, bits) for pattern, block in patterns(w) for bits in (None, 8)]


def patterns(w: Float32) -> list[tuple[str, int]]:
    """The N:M patterns of w's zeros, as (pattern, block): for each block the one that stores least, if it stores less than larger
    blocks do."""
    used = w != 0
    nonzeros, found, least = np.count_nonzero(used), [], 1.0
    for block in BLOCKS[::-1]:
        shared = used if block == 1 else np.logical_or.reduceat(used, np.arange(0, len(used), block), axis=0)
        stored, n, m = min(_tightest(shared, m) for m in range(2, 17))
        if n <= WORTH_NM * m and stored < least and stored * w.size <= SLACK * nonzeros:
            found.append((f"{n}:{m}", block))
            least = stored
    return found


def _tightest(used: npt.NDArray[np.bool_], m: int) -> tuple[float, int, int]:
    """The share of inputs that n:m stores, n and m, for the least n that holds all that is used. A look at some rows rules most m out."""
    k, n = used.shape[1], 0
    for rows in (used[:TWIN], used):
        counts = np.zeros((len(rows), -(-k // m)), np.uint8)
        for i in range(min(m, k)):
            column = rows[:, i::m]
            counts[:, : column.shape[1]] += column
        n = max(1, int(counts.max()))
        if n > WORTH_NM * m:
            break
    return kept_inputs(k, n, m) / k, n, m


def random_rows(m: int, k: int) -> Float32:
    """Standard normal float32 [m, k], the same ones each time."""
    return np.random.default_rng(1).standard_normal((m, k), dtype=np.float32)


def sweeper(threads: int) -> Callable[[], object]:
    """A call that reads more than the caches hold, with all the threads whose caches matter."""
    rows = max(1, timing.COLD_BYTES // 4 // 4096)
    weight, x, y = ec.pack(np.ones((rows, 4096), np.float32)), np.ones((1, 4096), np.float32), np.empty((1, rows), np.float32)
    return lambda: ec.linear(x, weight, out=y, threads=threads)


def seconds(
    weights: Sequence[Any],
    twins: Sequence[Any],
    m: int,
    threads: int,
    *,
    sweep: Callable[[], object] | None = None,
    after_slice: Callable[[], object] | None = None,
) -> list[float]:
    """Median seconds of `linear` with m rows of x for each of the weights, which have one shape, in turn.

    twins: the same forms of the first outputs (`w[:TWIN]`). sweep: `sweeper(threads)`, made here if m <= COLD_ROWS and none is given.
    """
    n, k = weights[0].shape
    x, y, small = random_rows(m, k), np.ones((m, n), np.float32), np.ones((m, min(n, TWIN)), np.float32)
    runs = [functools.partial(ec.linear, x, w, out=y, threads=threads) for w in weights]
    for run in runs:
        run()  # compiles, and derives the form that is kept beside the weight
    if m > COLD_ROWS:
        candidates = [Candidate("", run, 1) for run in runs]
        return [t.median for t in interleave(candidates, slices=SLICES, after_slice=after_slice)]
    sweep = sweep or sweeper(threads)
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(COLD_SLICES):
        for run, twin, found in zip(runs, twins, taken, strict=True):
            sweep()
            ec.linear(x, twin, out=small, threads=threads)
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
            if after_slice:
                after_slice()
    return [statistics.median(found) for found in taken]
