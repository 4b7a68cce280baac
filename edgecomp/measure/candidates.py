"""What is timed: this package's ops, and NumPy beside them, at a shape, on data made up here, against the peak that bounds them."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp.measure.roof import Probe, c_backend, dram_bytes
from edgecomp.measure.shapes import Shape
from edgecomp.measure.timing import SLICES, Call, Candidate, Timing, cold_copies, interleave, rotating

# OpenBLAS's idle threads go on spinning after a call, and would slow down whatever is timed next.
NUMPY_SETTLE = 0.05

Maker = Callable[[], Call]  # gives a call with a weight of its own


def _floats(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def _int8(*shape: int) -> npt.NDArray[np.int8]:
    return np.random.default_rng(2).integers(-127, 128, shape, dtype=np.int8)


# Large outputs exist beforehand and are written once (np.ones): the page faults of a fresh one cost more than many a kernel.
# Small ones are returned fresh, as small layers would be used.
SMALL_OUTPUT = 1 << 16  # bytes


def _out(m: int, n: int, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    y = np.ones((m, n), dtype)
    return y if y.nbytes > SMALL_OUTPUT else None


def _linear_int8(shape: Shape, threads: int) -> tuple[Maker, int]:
    x, bias, y = _floats(shape.m, shape.k), _floats(shape.n), _out(shape.m, shape.n, np.float32)
    q, scale = _int8(shape.n, shape.k), np.full(shape.n, 0.01, np.float32)

    def make() -> Call:
        w = ec.Int8Weight.from_arrays(q, scale)
        return lambda: ec.linear(x, w, bias, activation="relu", out=y, threads=threads)

    return make, q.nbytes


def _linear_grouped(bits: int, group_size: int, shape: Shape, threads: int) -> tuple[Maker, int]:
    x, bias, y = _floats(shape.m, shape.k), _floats(shape.n), _out(shape.m, shape.n, np.float32)
    q = _int8(shape.n, shape.k) >> (8 - bits)
    scale = np.full((shape.n, -(-shape.k // group_size)), 0.01, np.float16)
    weight = ec.Int4Weight if bits == 4 else ec.GroupedInt8Weight
    w = weight.from_arrays(q, scale, group_size=group_size)

    def make() -> Call:
        own = copy.deepcopy(w)
        return lambda: ec.linear(x, own, bias, activation="relu", out=y, threads=threads)

    return make, w.nbytes


def _matmul_int8(shape: Shape, threads: int) -> tuple[Maker, int]:
    a, q, y = _int8(shape.m, shape.k), _int8(shape.n, shape.k), _out(shape.m, shape.n, np.int32)
    scale = np.ones(shape.n, np.float32)

    def make() -> Call:
        w = ec.Int8Weight.from_arrays(q, scale)
        return lambda: ec.matmul_int8(a, w, out=y, threads=threads)

    return make, q.nbytes


def _linear_f32(shape: Shape, threads: int) -> tuple[Maker, int]:
    x, bias, y = _floats(shape.m, shape.k), _floats(shape.n), _out(shape.m, shape.n, np.float32)
    dense = _floats(shape.n, shape.k)

    def make() -> Call:
        w = ec.pack(dense)
        return lambda: ec.linear(x, w, bias, activation="relu", out=y, threads=threads)

    return make, dense.nbytes


def _linear_sparse(prune: Callable[[Any], Any], form: Callable[[Any], Any], shape: Shape, threads: int) -> tuple[Maker, int]:
    x, bias, y = _floats(shape.m, shape.k), _floats(shape.n), _out(shape.m, shape.n, np.float32)
    w = form(prune(_floats(shape.n, shape.k)))
    stored = w.nbytes

    def make() -> Call:
        own = copy.deepcopy(w)

        def call() -> object:
            return ec.linear(x, own, bias, activation="relu", out=y, threads=threads)

        call()  # some forms derive another one when they meet x
        return call

    return make, stored


def _numpy_f32(shape: Shape, threads: int) -> tuple[Maker, int]:
    x, dense, y = _floats(shape.m, shape.k), _floats(shape.n, shape.k), np.ones((shape.m, shape.n), np.float32)

    def make() -> Call:
        w = dense.copy().T
        return lambda: np.matmul(x, w, out=y)

    return make, dense.nbytes


_CSR = functools.partial(ec.prune, sparsity=0.9)
_NM, _NM16 = (functools.partial(ec.prune, pattern="2:4", block=block) for block in (1, 16))

OPS: dict[str, Callable[[Shape, int], tuple[Maker, int]]] = {
    "linear_int8": _linear_int8,  # Int8Weight, bias and ReLU; x is quantised in every call
    "linear_int4": functools.partial(_linear_grouped, 4, 32),  # Int4Weight, groups of 32, float16 scales
    "linear_int4_g128": functools.partial(_linear_grouped, 4, 128),
    "linear_int8_g32": functools.partial(_linear_grouped, 8, 32),  # GroupedInt8Weight
    "linear_csr": functools.partial(_linear_sparse, _CSR, ec.to_csr),  # nine of ten weights are zeros; N:M is 2:4
    "linear_csr8": functools.partial(_linear_sparse, _CSR, functools.partial(ec.to_csr, bits=8)),
    "linear_nm": functools.partial(_linear_sparse, _NM, functools.partial(ec.to_nm, pattern="2:4", block=1)),
    "linear_nm8": functools.partial(_linear_sparse, _NM, functools.partial(ec.to_nm, pattern="2:4", block=1, bits=8)),
    "linear_nm_b16": functools.partial(_linear_sparse, _NM16, functools.partial(ec.to_nm, pattern="2:4", block=16)),
    "matmul_int8": _matmul_int8,  # int8 x int8 -> int32
    "linear_f32": _linear_f32,  # DenseWeight (packed once), bias and ReLU
    "numpy_f32": _numpy_f32,  # matmul alone: the baseline
}
LEFT = {"linear_csr": 0.1, "linear_csr8": 0.1, "linear_nm": 0.5, "linear_nm8": 0.5, "linear_nm_b16": 0.5}
"""The share of a product's operations that zeros leave."""
TILED, TILE_ROWS = ("linear_int8", "matmul_int8"), 8  # what AMX multiplies a scale per output with, and from how many rows on (dispatch.c)
FLOAT32 = ("linear_f32", "numpy_f32", "linear_csr", "linear_nm", "linear_nm_b16")


@functools.cache
def _probe_under(variants: tuple[str, ...], loop: str, threads: int, nbytes: int) -> Probe:
    return Probe(loop, threads, nbytes)


def _probe(loop: str, threads: int, nbytes: int = 0) -> Probe:
    """Sized once: again under another cap on the ISA, which changes what exists and how long it takes."""
    variant = c_backend().variant
    return _probe_under((variant("gemm_s8c"), variant("gemm_f32")), loop, threads, nbytes)


def arithmetic(op: str, shape: Shape, threads: int) -> str:
    """The loop of an op's arithmetic on this CPU. int8: tiles or dot products where it has them, else multiply and add."""
    if op in FLOAT32:
        return "fma_f32"
    if op in TILED and shape.m >= TILE_ROWS and _probe("tile_s8", threads).exists:
        return "tile_s8"
    return "dot_s8" if _probe("dot_s8", threads).exists else "chain_s8"


def peak(against: str, shape: Shape, weight_bytes: int, threads: int) -> tuple[Probe | None, int]:
    """The probe of a peak, and the work of one call that counts against it. (None, operations) if this CPU has no such peak.

    against: a loop of arithmetic: operations count; "DRAM" or "cache": bytes of weights count, against reading from
        memory or from a buffer as large as the weights, shared between the threads; "time": no peak.
    """
    if against == "DRAM":
        return _probe("read", threads, dram_bytes(threads)), weight_bytes
    if against == "cache":
        return _probe("read", threads, -(-weight_bytes // threads)), weight_bytes
    if against == "time" or not _probe(against, threads).exists:
        return None, shape.operations
    return _probe(against, threads), shape.operations


def bound(op: str, shape: Shape, weight_bytes: int, threads: int, cold: bool) -> str:
    """Which peak bounds a product: what takes longer, its operations or reading its weights once, each at its peak now."""
    compute, memory = arithmetic(op, shape, threads), "DRAM" if cold else "cache"
    computing, operations = peak(compute, shape, weight_bytes, threads)
    reading, nbytes = peak(memory, shape, weight_bytes, threads)
    if computing and reading and nbytes / reading() > LEFT.get(op, 1) * operations / computing():
        return memory
    return compute


def candidate(op: str, shape: Shape, threads: int, *, cold: bool = False, against: str | None = None) -> Candidate:
    """One op of `OPS` at one shape, ready for `interleave`. NumPy obeys `threads` inside `numpy_threads(threads)` only.

    cold: the calls rotate over so many copies of the weight that each finds its own in memory, as in a model.
    against: a peak, as in `peak`; None for the one that bounds the product. NumPy is held against none.
    """
    make, weight_bytes = OPS[op](shape, threads)
    run = rotating([make() for _ in range(cold_copies(weight_bytes))]) if cold else make()
    if op == "numpy_f32":
        return Candidate(op, run, shape.operations, settle=NUMPY_SETTLE if threads > 1 or not limits_numpy() else 0.0)
    against = against or bound(op, shape, weight_bytes, threads, cold)
    probe, work = peak(against, shape, weight_bytes, threads)
    left = 1 if against in ("DRAM", "cache") else LEFT.get(op, 1)
    return Candidate(op, run, left * work, probe, against=against)


def compare(
    op: str, shape: Shape, threads: int, *, cold: bool = False, slices: int = SLICES, after_slice: Call | None = None
) -> tuple[Candidate, Timing, Timing]:
    """Times an op and NumPy's float32 matmul in turn: the candidate, its timing, NumPy's timing."""
    ours, baseline = candidate(op, shape, threads, cold=cold), candidate("numpy_f32", shape, threads, cold=cold)
    with numpy_threads(threads):
        timing, numpy_timing = interleave([ours, baseline], slices=slices, after_slice=after_slice)
    return ours, timing, numpy_timing


def limits_numpy() -> bool:
    """Whether `numpy_threads` has an effect: with threadpoolctl installed."""
    return importlib.util.find_spec("threadpoolctl") is not None


@contextlib.contextmanager
def numpy_threads(threads: int) -> Iterator[None]:
    """Inside, NumPy's matmul uses at most `threads` threads, if threadpoolctl is installed; else as many as it likes."""
    if not limits_numpy():
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield
