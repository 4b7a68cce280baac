"""The Numba backend: one function per op over edgecomp.kernels, and the threads they run on. No checks.

The kernels of an op are compiled, or loaded from Numba's cache, when the op is first called.
"""

import contextlib
import functools
import importlib
import os
import threading
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import packing, pool, reference
from edgecomp.csr_blocks import Blocks, block_inputs, to_blocks
from edgecomp.grouped import GroupedInt8Weight, GroupedWeight, Int4Weight
from edgecomp.nm import K_MAX_UINT8, NMWeight
from edgecomp.sparse import CSRWeight
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

Float32 = npt.NDArray[np.float32]

KERNELS = {
    "gemm_s8c": "gemm_s8c",
    "gemm_f32": "gemm_f32",
    "gemm_sg": "gemm_s4g",
    "spmm_csr": "spmm_csr",
    "spmm_csr8": "spmm_csr",
    "spmm_blocks": "spmm_blocks",
    "spmm_blocks8": "spmm_blocks",
    "spmm_nm8": "spmm_nm8",
    "quantize_rows": "quantize_rows",
    "quantize_groups": "quantize_groups",
    "activate": "activation",
    "requantize": "activation",
    "kd_loss": "kd_loss",
    "close": "_jobs",
}
"""The compiled functions, and the module of edgecomp.kernels that each is in."""


@functools.cache
def _kernel(name: str) -> Any:
    return getattr(importlib.import_module(f"edgecomp.kernels.{KERNELS[name]}"), name)


def _module(name: str) -> Any:
    return importlib.import_module(f"edgecomp.kernels.{name}")


# ---- threads ---------------------------------------------------------------------------------------------------------

_DISPATCH_NS = 40_000
"""To hand a job to the pool and have a thread at work."""

_busy = threading.Lock()
_calls: SimpleQueue[tuple[Any, tuple[Any, ...]]] = SimpleQueue()
_started = 0
"""Threads that wait for calls. Not a ThreadPoolExecutor, which takes twice as long to have one at work."""


def _forget_threads() -> None:
    """A forked child has the caller's thread only."""
    global _busy, _calls, _started
    _busy, _calls, _started = threading.Lock(), SimpleQueue(), 0


os.register_at_fork(after_in_child=_forget_threads)


def _serve(calls: SimpleQueue[tuple[Any, tuple[Any, ...]]]) -> None:
    while True:
        kernel, arguments = calls.get()
        kernel(*arguments)
        del kernel, arguments  # the caller's arrays


def _helpers(count: int, kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Lets up to `count` threads come to a kernel. Those that cannot be started do not come."""
    global _started
    count = min(count, pool.MAX_THREADS)
    with contextlib.suppress(RuntimeError):  # the interpreter is shutting down, or no thread can be started
        while _started < count:
            threading.Thread(target=_serve, args=(_calls,), name=f"edgecomp_{_started}", daemon=True).start()
            _started += 1
    for _ in range(min(count, _started)):
        _calls.put((kernel, arguments))


def _run(threads: int, kernel: str, *arguments: Any) -> None:
    """Calls a kernel on up to `threads` threads: the caller's, and the pool's unless another call has them."""
    run, job = _kernel(kernel), np.zeros(_module("_jobs").LENGTH, np.int64)
    if threads < 2 or not _busy.acquire(blocking=False):
        run(*arguments, job)
        return
    try:
        _helpers(threads - 1, run, (*arguments, job))
        run(*arguments, job)
    finally:
        _kernel("close")(job)  # waits for those who came, not for those who would come too late
        _busy.release()


def _threads_that_pay(limit: int, ns: float) -> int:
    """How many threads a call that takes ns nanoseconds on one thread is given."""
    threads = limit or pool.default()
    while threads > 1 and ns - ns / threads < 2 * _DISPATCH_NS:
        threads //= 2
    return threads


_TILES = {
    "gemm_s8c": "_tile_s8c",
    "gemm_s4g": "_tile_sg",
    "gemm_s8g": "_tile_sg",
    "gemm_f32": "_tile_f32",
    "spmm_csr": "_tile_f32",
    "spmm_csr8": "_tile_s8c",
    "spmm_nm": "_tile_f32",
    "spmm_nm8": "_tile_s8c",
}
_READ_NS = {"gemm_s8c": 0.05, "gemm_s8g": 0.05, "gemm_s4g": 0.025}
"""Reading one weight; a float takes 0.2."""


def threads_for(op: str, m: int, n: int, k: int, limit: int) -> int:
    """How many threads a call of this op and size uses."""
    isa = _module(_TILES[op] if op.startswith("gemm") else "_tile_f32").ISA
    return _threads_that_pay(limit, n * k * max(m / isa.macs_per_ns, _READ_NS.get(op, 0.2)))  # products, or reading the weights


# ---- ops -------------------------------------------------------------------------------------------------------------


def variant(op: str, m: int | None = None, w: Any = None) -> str:
    """How the op's tile is written; "loops" for plain loops, which LLVM fits to the CPU."""
    return str(_module(_TILES[op]).ISA.name) if op in _TILES else "loops"


def warmup() -> None:
    """Compiles or loads every kernel, and starts the threads."""
    for name in KERNELS:
        _kernel(name)
    row, code = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8)
    _run(pool.default(), "quantize_rows", row, code, row[0], code[0])


class _Scratch(threading.local):
    """Memory of each Python thread, which only grows."""

    array = packing.aligned_empty((0,), np.uint32)


_scratch = _Scratch()


def _scratch_of(words: int) -> npt.NDArray[np.uint32]:
    if len(_scratch.array) < words:
        _scratch.array = packing.aligned_empty((words + words // 4,), np.uint32)
    return _scratch.array


_NO_MATRIX, _NO_BYTES = np.empty((0, 0), np.float32), np.empty((0, 0), np.uint8)
_NO_PANELS, _NO_CODES = np.empty((0, 0, 16), np.float32), np.empty((0, 0, 16, 4), np.int8)
_NO_SCALES, _NO_ORDER, _NO_RECORDS = np.empty(0, np.float32), np.empty(0, np.int32), (_NO_BYTES, *[0] * 6)
_NO_SHORTS = np.empty(0, np.uint16)
_NO_LABELS = np.empty(0, np.int64)


def _padded_bias(bias: Float32 | None, n: int) -> Float32:
    """For whole panels; adding -0.0 changes nothing."""
    out = np.full(-(-n // 16) * 16, -0.0, np.float32)
    if bias is not None:
        out[: len(bias)] = bias
    return out


def _activate(activation: str | None, y: Float32, limit: int) -> None:
    """Every activation but relu, which the tiles do."""
    if activation not in (None, "relu"):
        code = _module("activation").NAMES.index(activation)
        _run(_threads_that_pay(limit, y.size), "activate", code, y)


def quantize_rows(x: Float32, q: npt.NDArray[np.uint8], scale: Float32, zero: npt.NDArray[np.uint8], threads: int = 0) -> None:
    _run(_threads_that_pay(threads, 0.15 * x.size), "quantize_rows", x, q, scale, zero)


def _gemm_s8c(rows: Any, w: Int8Weight, bias: Float32 | None, kind: int, y: Any, threads: int) -> Float32:
    """rows: what the kernel takes as x, q, scales, zeros, flip. Returns the scales of the rows."""
    m, (n, k) = len(y), w.shape
    panel, sx, zero = _scratch_of(m * w.panels.shape[1]), np.empty(m, np.float32), np.empty(m, np.int32)
    threads = threads_for("gemm_s8c", m, n, k, threads)
    _run(threads, "gemm_s8c", *rows, w.panels, w.scales, w.sums, _padded_bias(bias, n), kind, y, panel, sx, zero, threads)
    return sx


def _rows_of(x: Float32 | QuantizedRows, m: int, k: int) -> tuple[Any, ...]:
    """What gemm_s8c takes as x, q, scales, zeros, flip."""
    if isinstance(x, QuantizedRows):
        return _NO_MATRIX, x.q.reshape(m, k), x.scale.reshape(m), np.reshape(x.zero, m), 0  # type: ignore[arg-type]  # rows without groups
    return x, _NO_BYTES, _NO_MATRIX[0:0].reshape(0), _NO_BYTES.reshape(0), 0


def gemm_s8c(
    x: Float32 | QuantizedRows,
    w: Int8Weight,
    bias: Float32 | None,
    activation: str | None,
    y: npt.NDArray[Any],
    out_scale: float | None = None,
    out_zero: int = 0,
    threads: int = 0,
) -> None:
    rows = _rows_of(x, len(y), w.shape[1])
    wide = y if out_scale is None else np.empty(y.shape, np.float32)
    sx = _gemm_s8c(rows, w, bias, int(activation == "relu"), wide, threads)
    if out_scale is not None and np.isnan(sx).any():
        raise ValueError(reference.NONFINITE_INT8)
    _activate(activation, wide, threads)
    if out_scale is not None:
        requantize(wide, out_scale, out_zero, y, threads)


def quantize_groups(x: Float32, group_size: int, q: npt.NDArray[np.int8], scale: Float32, threads: int = 0) -> None:
    _run(_threads_that_pay(threads, 0.2 * x.size), "quantize_groups", x, group_size, q, scale)


def _records(w: GroupedWeight) -> tuple[Any, ...]:
    """What the kernels take as records, bits, group, record, header, half, zero."""
    kind = w.records.dtype
    names = kind.names or ()
    zero = 1 if "zero" in names else 2 if "offset" in names else 0
    header, half = kind.fields["codes"][1], int(kind["scale"].base == np.float16)  # type: ignore[index]  # it has fields
    raw = w.records.view(np.uint8).reshape(len(w.records), w.records.shape[1] * kind.itemsize)
    return raw, w.bits, w.group_size, kind.itemsize, header, half, zero


def _gemm_grouped(
    x: Float32 | QuantizedRows, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32, limit: int
) -> None:
    m, (n, k), group = len(y), w.shape, w.group_size
    groups = -(-k // group)
    rows: tuple[Any, ...]
    if isinstance(x, QuantizedRows):
        rows = _NO_MATRIX, _NO_ORDER, x.q.reshape(m, k), x.scale.reshape(m, groups)
    else:
        rows = x, _NO_ORDER if w.permutation is None else w.permutation, _NO_BYTES.view(np.int8), _NO_MATRIX
    each, words = m * groups, m * groups * group // 4
    scratch = _scratch_of(words + 2 * each)
    q, sx, sums = scratch[:words].view(np.int8)[None], scratch[words : words + each], scratch[words + each : words + 2 * each]
    threads = threads_for(w.op, m, n, k, limit)
    _run(
        threads, "gemm_sg", *rows, *_records(w), _padded_bias(bias, n), int(activation == "relu"), y,
        q, sx.view(np.float32), sums.view(np.int32), threads,
    )  # fmt: skip
    _activate(activation, y, limit)


def gemm_s4g(x: Float32 | QuantizedRows, w: Int4Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    _gemm_grouped(x, w, bias, activation, y, threads)


def gemm_s8g(
    x: Float32 | QuantizedRows, w: GroupedInt8Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    _gemm_grouped(x, w, bias, activation, y, threads)


spmm_csr_columns, transpose = reference.spmm_csr_columns, reference.transpose


def csr_form(w: CSRWeight, m: int) -> str:
    """How m rows of x meet a CSR weight."""
    return "read as blocks of rows and inputs, derived at the first call" if _reads_blocks(w, m) else "read row by row, as it is stored"


def csr_threads(w: CSRWeight, m: int, limit: int) -> int:
    """How many threads m rows of x use."""
    return threads_for(w.op, m, w.nnz, 1, limit)


def nm_form(w: NMWeight, m: int, compute: str) -> Any:
    """What an N:M weight runs as. Few rows leave lanes empty, and patterns of more than two thirds nothing to gain over dense int8."""
    if compute != "int8":
        return w.served(m, compute, shared=m > 1 and min(w.shape) > 0)
    own = w.block == 1 and m >= 16 and 64 % w.m == 0 and w.kept <= K_MAX_UINT8 and min(w.shape) > 0 and 3 * w.n <= 2 * w.m
    if own and _module("_tile_nm8").CAN:
        return w
    return w.served(m, compute, shared=m > 32 and 3 * w.n <= 2 * w.m and min(w.shape) > 0)


def nm_read(w: NMWeight) -> str:
    """How an N:M weight is read that runs as one."""
    return f"read {'as blocks of four outputs and of inputs' if w.block > 1 else 'in windows of 64 inputs'}, derived at the first call"


def spmm_nm(x: Float32, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    limit = threads_for("spmm_nm", len(y), w.shape[0], w.kept, threads)
    _spmm_blocks(x, w.as_blocks(), bias, activation, y, limit)


def spmm_nm8(x: Float32 | QuantizedRows, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    (m, n), k = y.shape, w.shape[1]
    limit = threads_for("spmm_nm8", m, n, w.kept, threads)
    if w.block > 1:
        _spmm_blocks8(x, w.as_blocks(), w.scale, k, bias, activation, y, limit)
        return
    form, rows = w.as_windows(), -(-m // 8) * 8
    words = rows * form.shape[1] * 16
    scratch = _scratch_of(words + 2 * rows)
    panel, sx, zero = scratch[:words].view(np.uint8), scratch[words : words + rows].view(np.float32), scratch[words + rows :].view(np.int32)
    columns = *(packing.padded(np.asarray(a), 2 * len(form)) for a in (w.scales, w.sums)), _padded_bias(bias, 32 * len(form))
    _run(limit, "spmm_nm8", *_rows_of(x, m, k)[:4], form, k, *columns, int(activation == "relu"), y, panel, sx, zero, limit)
    _activate(activation, y, threads)


def _reads_blocks(w: CSRWeight, m: int) -> bool:
    """Not for one row, and not where blocks of inputs would be emptier than one entry a row."""
    (n, k), int8 = w.shape, w.scale is not None
    if m < 2 or min(n, k) == 0 or (int8 and k > K_MAX_UINT8) or w.derived is None:
        return False
    return w.nnz >= n * (-(-k // block_inputs(n, k, w.nnz, int8)) - 1)


def _blocks(w: CSRWeight, m: int) -> Blocks | None:
    """What m rows of x multiply, if they read blocks: derived once."""
    if not _reads_blocks(w, m):
        return None
    assert w.derived is not None
    blocks = w.derived.get("blocks")
    if blocks is None:
        blocks = w.derived["blocks"] = to_blocks(w.data[:, None], w.indices, w.indptr, w.shape[1])
    assert isinstance(blocks, Blocks)
    return blocks


def _entries(w: CSRWeight) -> tuple[Any, ...]:
    """What the kernels take as data, short, indices, indptr."""
    short = w.indices.dtype == np.uint16
    return w.data, w.indices if short else _NO_SHORTS, _NO_ORDER if short else w.indices, w.indptr


def spmm_csr(x: Float32, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    limit, blocks = csr_threads(w, len(y), threads), _blocks(w, len(y))
    if blocks is not None:
        _spmm_blocks(x, blocks, bias, activation, y, limit)
        return
    parts = _entries(w)
    _run(limit, "spmm_csr", np.ascontiguousarray(x.T), *parts, _padded_bias(bias, w.shape[0]), int(activation == "relu"), y)
    _activate(activation, y, threads)


def spmm_csr8(x: Float32 | QuantizedRows, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    m, (n, k) = len(y), w.shape
    limit, blocks = csr_threads(w, m, threads), _blocks(w, m)
    if blocks is not None:
        _spmm_blocks8(x, blocks, w.scale, k, bias, activation, y, limit)
        return
    if isinstance(x, QuantizedRows):
        q, sx, zero = x.q.reshape(m, k), x.scale.reshape(m), np.reshape(x.zero, m)  # type: ignore[arg-type]  # rows without groups
    else:
        q, sx, zero = np.empty((m, k), np.uint8), np.empty(m, np.float32), np.empty(m, np.uint8)
        quantize_rows(x, q, sx, zero, threads)
    centred = np.ascontiguousarray(q.T.astype(np.int16) - zero)
    parts = *_entries(w), w.scale
    _run(limit, "spmm_csr8", centred, *parts, sx, _padded_bias(bias, n), int(activation == "relu"), y)
    _activate(activation, y, threads)


def _spmm_blocks(x: Float32, blocks: Blocks, bias: Float32 | None, activation: str | None, y: Float32, limit: int) -> None:
    (m, k), n = x.shape, y.shape[1]
    panel = _scratch_of(-(-m // 16) * -(-k // 16) * 256).view(np.float32)
    _run(limit, "spmm_blocks", x, *blocks[:-1], _padded_bias(bias, n + 16), int(activation == "relu"), y, panel)
    _activate(activation, y, limit)


def _spmm_blocks8(
    x: Float32 | QuantizedRows, blocks: Blocks, scale: Any, k: int, bias: Float32 | None, activation: str | None, y: Float32, limit: int
) -> None:
    m, n = y.shape
    tokens, whole_k = -(-m // 64) * 64, -(-k // 16) * 16
    words = tokens * whole_k // 4
    scratch = _scratch_of(words + 2 * m)
    panel, sx, zero = scratch[:words].view(np.uint8), scratch[words : words + m].view(np.float32), scratch[words + m :].view(np.int32)
    form = *blocks[:-1], k, packing.padded(scale, n // 16 + 2), packing.padded(blocks.sums[:n], n // 16 + 2)
    relu = int(activation == "relu")
    _run(limit, "spmm_blocks8", *_rows_of(x, m, k)[:4], *form, _padded_bias(bias, n + 16), relu, y, panel, sx, zero)
    _activate(activation, y, limit)


def gemm_s8c_i32(a: npt.NDArray[Any], w: Int8Weight, y: npt.NDArray[np.int32], threads: int = 0) -> None:
    flip = 0x80 if a.dtype == np.int8 else 0
    rows = _NO_MATRIX, a.view(np.uint8), np.ones(len(a), np.float32), np.full(len(a), flip, np.uint8), flip
    _gemm_s8c(rows, w, None, _module("_tile_s8c").INT32, y.view(np.float32), threads)


def _gemm_f32(x: Float32, weights: Any, shape: Any, bias: Float32 | None, activation: str | None, y: Float32, limit: int) -> None:
    """weights: what the kernel takes as w, rows, codes, scale and _records."""
    n, k = shape
    threads = threads_for("gemm_f32", len(y), n, k, limit)
    panel = _scratch_of(len(y) * k).view(np.float32)
    _run(threads, "gemm_f32", x, *weights, _padded_bias(bias, n), int(activation == "relu"), y, panel, threads)
    _activate(activation, y, limit)


def gemm_s8c_f32(x: Float32, w: Int8Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    _gemm_f32(x, (_NO_PANELS, _NO_MATRIX, w.panels, w.scales, *_NO_RECORDS), w.shape, bias, activation, y, threads)


def gemm_sg_f32(x: Float32, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    if w.permutation is not None:
        x = np.take(x, w.permutation, axis=1)
    _gemm_f32(x, (_NO_PANELS, _NO_MATRIX, _NO_CODES, _NO_SCALES, *_records(w)), w.shape, bias, activation, y, threads)


def gemm_f32(x: Float32, w: Float32 | DenseWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    weights = (w.panels, _NO_MATRIX) if isinstance(w, DenseWeight) else (_NO_PANELS, w)
    _gemm_f32(x, (*weights, _NO_CODES, _NO_SCALES, *_NO_RECORDS), w.shape, bias, activation, y, threads)


def gemm_f32_add(x: Float32, w: Float32, y: Float32, threads: int = 0) -> None:
    reference.gemm_f32_add(x, w, y)  # NumPy's product


def kd_loss(
    student: Float32,
    teacher: Float32,
    labels: npt.NDArray[np.int64] | None,
    weight: npt.NDArray[np.float64],
    how: reference.Objective,
    scale: float,
    losses: npt.NDArray[np.float64],
    grad: Float32 | None,
    threads: int = 0,
) -> None:
    m, v = student.shape
    limit = min(_threads_that_pay(threads, student.size), m)
    pitch = -(-v // 16) * 16 + 80  # rows a power of two apart would share sets of the cache
    scratch = _scratch_of(2 * limit * pitch).view(np.float32)[: 2 * limit * pitch].reshape(2 * limit, pitch)
    known = _NO_LABELS if labels is None else labels
    code = _module("kd_loss").NAMES.index(how.kind)
    _run(limit, "kd_loss", student, teacher, known, weight, code, *how[1:], scale, losses, _NO_MATRIX if grad is None else grad, scratch)


def requantize(y: Float32, scale: float, zero: int, q: npt.NDArray[np.int8], threads: int = 0) -> None:
    _run(_threads_that_pay(threads, 0.5 * y.size), "requantize", y, scale, zero, q)
