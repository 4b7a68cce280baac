"""The C backend: one thin function per op over the cffi module. No checks and no decisions; importing it fails without the C library."""

import functools
import threading
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgecomp import reference
from edgecomp._edgecomp_c import ffi, lib
from edgecomp.grouped import GroupedInt8Weight, GroupedWeight, Int4Weight
from edgecomp.nm import K_MAX_UINT8, NMWeight
from edgecomp.packing import aligned_empty
from edgecomp.sparse import CSRWeight
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

Float32 = npt.NDArray[np.float32]

ACTIVATION_CODES = {None: lib.EC_ACT_NONE} | {name: getattr(lib, "EC_ACT_" + name.upper()) for name in reference.ACTIVATIONS}
ISAS = tuple(ffi.string(lib.ec_isa_name(i)).decode() for i in range(lib.ec_isa_count()))
ROOF_LOOPS = {
    "tile_s8": lib.EC_ROOF_TILE_S8,
    "dot_s8": lib.EC_ROOF_DOT_S8,
    "chain_s8": lib.EC_ROOF_CHAIN_S8,
    "fma_f32": lib.EC_ROOF_FMA_F32,
    "read": lib.EC_ROOF_READ,
    "copy": lib.EC_ROOF_COPY,
}
_buffer, _NULL = ffi.from_buffer, ffi.NULL


class _Scratch(threading.local):
    """The workspace of each Python thread, which only grows."""

    size = 0
    pointer = _NULL


HUGE = 8 << 20
"""Of so many bytes NumPy wants pages of 2 MiB; those that are not used cost nothing."""
_scratch = _Scratch()


def _recover(status: int, workspace: int) -> None:
    """After a call that did not return EC_OK: makes room so that it can be repeated, or raises."""
    if status == lib.EC_E_WORKSPACE:
        _scratch.size = max(workspace + workspace // 4, HUGE)
        _scratch.pointer = _buffer(_VOID, np.empty(_scratch.size, np.uint8))  # the cdata keeps the array
    elif status == lib.EC_E_NONFINITE:
        raise ValueError(reference.NONFINITE_INT8)
    else:
        raise RuntimeError(f"edgecomp C library: status {status}")


_FLOATS, _BYTES, _INT8S = ffi.typeof("float[]"), ffi.typeof("uint8_t[]"), ffi.typeof("int8_t[]")
_INT32S, _UINT16S, _UINT32S, _VOID = (ffi.typeof(t) for t in ("int32_t[]", "uint16_t[]", "uint32_t[]", "char[]"))
_POINTERS = {t: ffi.typeof(t.item.cname + " *") for t in (_FLOATS, _BYTES, _INT8S, _INT32S, _UINT16S, _VOID)}


def _matrix(kind: Any, a: npt.NDArray[Any], columns: int) -> tuple[Any, int]:
    """Pointer to a's first element and the distance of its rows in elements."""
    try:
        return _buffer(kind, a), columns
    except ValueError:  # from_buffer takes contiguous arrays only
        return ffi.cast(_POINTERS[kind], a.__array_interface__["data"][0]), a.strides[0] // a.itemsize


def _vector(a: Float32 | None) -> Any:
    return _NULL if a is None else _buffer(_FLOATS, a)


def _int8_pointers(w: Int8Weight) -> Any:
    if w.pointers is None:
        object.__setattr__(w, "pointers", (_buffer(_INT8S, w.panels), _buffer(_FLOATS, w.scales), _buffer(_INT32S, w.sums)))
    return w.pointers


def variant(op: str, m: int | None = None, w: Any = None) -> str:
    """The ISA line that serves an op under the present cap; m rows times w."""
    if m is None:
        name = lib.ec_variant(op.encode())
    else:
        kind = lib.ec_csr_kind(m, *w.shape, _csr_pointers(w)) if isinstance(w, CSRWeight) else 0
        form = kind or getattr(w, "group_size", None) or getattr(w, "block", None) or 0
        name = lib.ec_variant_for(op.encode(), m, form)
    return ffi.string(name).decode() if name else "scalar"


def threads_for(op: str, m: int, n: int, k: int, limit: int) -> int:
    """How many threads a call of this op and size uses."""
    return int(getattr(lib, f"ec_{op}_threads")(m, n, k, limit))


def warmup() -> None:
    """Starts the threads of a call without a limit of its own."""
    lib.ec_dispatch_ns(lib.edgecomp_get_num_threads())


def quantize_rows(x: Float32, q: npt.NDArray[np.uint8], scale: Float32, zero: npt.NDArray[np.uint8], threads: int = 0) -> None:
    m, k = x.shape
    args = m, k, *_matrix(_FLOATS, x, k), _buffer(_BYTES, q), _vector(scale), _buffer(_BYTES, zero), threads
    while status := lib.ec_quantize_rows(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_quantize_rows_workspace(m, k))


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
    n, k = w.shape
    m = len(y)
    panels, scales, sums = w.pointers or _int8_pointers(w)
    if isinstance(x, QuantizedRows):
        px, ldx, q, qscale, qzero = _NULL, k, _buffer(_BYTES, x.q), _vector(x.scale), _buffer(_BYTES, cast("Any", x.zero))
    else:
        px, ldx = _matrix(_FLOATS, x, k)
        q = qscale = qzero = _NULL
    if out_scale is None:
        py, ldy = _matrix(_FLOATS, y, n)
        pyq, out_scale = _NULL, 1.0
    else:
        pyq, ldy = _matrix(_INT8S, y, n)
        py = _NULL
    pb, act, work = _vector(bias), ACTIVATION_CODES[activation], _scratch
    while status := lib.ec_gemm_s8c(
        m, n, k, px, ldx, q, qscale, qzero, panels, scales, sums, pb, act,
        py, pyq, ldy, out_scale, out_zero, threads, work.pointer, work.size,
    ):  # fmt: skip
        _recover(status, lib.ec_gemm_s8c_workspace(m, k))


def quantize_groups(x: Float32, group_size: int, q: npt.NDArray[np.int8], scale: Float32, threads: int = 0) -> None:
    m, k = x.shape
    args = m, k, group_size, *_matrix(_FLOATS, x, k), _buffer(_INT8S, q), _vector(scale), threads
    while status := lib.ec_quantize_groups(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_quantize_groups_workspace(m, k, group_size))


_ZEROS = {"zero": lib.EC_ZERO_POINT, "offset": lib.EC_ZERO_OFFSET}


def _grouped_pointers(w: GroupedWeight) -> Any:
    """The struct ec_grouped, and what it points to."""
    if w.pointers is None:
        records = _buffer(_BYTES, w.records.view(np.uint8))
        order = _NULL if w.permutation is None else _buffer(_INT32S, w.permutation)
        names = w.records.dtype.names or ()
        zero = next((code for name, code in _ZEROS.items() if name in names), lib.EC_ZERO_MIDDLE)
        scale_bytes = w.records.dtype["scale"].base.itemsize
        struct = ffi.new("ec_grouped *", (records, order, w.group_size, scale_bytes, zero))
        object.__setattr__(w, "pointers", (struct, records, order))
    return w.pointers


def _gemm_grouped(
    op: Any, workspace: Any, x: Any, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int
) -> None:
    n, k = w.shape
    m = len(y)
    struct = (w.pointers or _grouped_pointers(w))[0]
    if isinstance(x, QuantizedRows):
        px, ldx, q, scale = _NULL, k, _buffer(_INT8S, x.q), _vector(x.scale)
    else:
        px, ldx = _matrix(_FLOATS, x, k)
        q = scale = _NULL
    py, ldy = _matrix(_FLOATS, y, n)
    pb, act, work = _vector(bias), ACTIVATION_CODES[activation], _scratch
    while status := op(m, n, k, px, ldx, q, scale, struct, pb, act, py, ldy, threads, work.pointer, work.size):
        _recover(status, workspace(m, k, struct))


def gemm_s4g(
    x: Float32 | QuantizedRows, w: Int4Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    _gemm_grouped(lib.ec_gemm_s4g, lib.ec_gemm_s4g_workspace, x, w, bias, activation, y, threads)


def gemm_s8g(
    x: Float32 | QuantizedRows, w: GroupedInt8Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    _gemm_grouped(lib.ec_gemm_s8g, lib.ec_gemm_s8g_workspace, x, w, bias, activation, y, threads)


def gemm_sg_f32(x: Float32, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    struct = (w.pointers or _grouped_pointers(w))[0]
    if w.permutation is not None:
        x = np.take(x, w.permutation, axis=1)
    act = ACTIVATION_CODES[activation]
    args = m, n, k, *_matrix(_FLOATS, x, k), struct, w.bits, _vector(bias), act, *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_gemm_sg_f32(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_gemm_f32_workspace(m, k, 0, threads))


CSR_KINDS = {
    lib.EC_CSR_ROWS: "read row by row, as it is stored",
    lib.EC_CSR_BLOCKS: "read as blocks of rows and inputs, derived at the first call",
    lib.EC_CSR_PAIRS: "read as blocks of inputs of pairs of rows, derived at the first call",
    lib.EC_CSR_MASKS: "read by a mask of its inputs for each row, derived at the first call",
    lib.EC_CSR_SELL: "read in slices of 16 rows, the longest first, derived at the first call",
    lib.EC_CSR_SIGNED: "read as blocks of rows and inputs, derived at the first call",
    lib.EC_CSR_DENSE: "made dense, derived at the first call",
    lib.EC_CSR_PANELS: "made dense from a bit for each weight, panel by panel, derived at the first call",
}


def csr_form(w: CSRWeight, m: int) -> str:
    """How m rows of x meet a CSR weight."""
    return CSR_KINDS[lib.ec_csr_kind(m, *w.shape, _csr_pointers(w))]


def csr_threads(w: CSRWeight, m: int, limit: int) -> int:
    """How many threads m rows of x use."""
    return int(lib.ec_spmm_csr_threads(m, *w.shape, _csr_pointers(w), limit))


def _csr_pointers(w: CSRWeight) -> Any:
    """The struct ec_csr."""
    if w.pointers is None:
        indptr, scale = _buffer(_INT32S, w.indptr), _vector(w.scale)
        short = w.indices.dtype == np.uint16
        indices, narrow = (_NULL, _buffer(_UINT16S, w.indices)) if short else (_buffer(_INT32S, w.indices), _NULL)
        values, codes = (_buffer(_FLOATS, w.data), _NULL) if w.scale is None else (_NULL, _buffer(_INT8S, w.data))
        struct = ffi.new("ec_csr *", (indptr, indices, narrow, values, codes, scale))
        object.__setattr__(w, "pointers", (struct, indptr, indices, narrow, values, codes, scale))
    return w.pointers[0]


def _csr_struct(w: CSRWeight, m: int) -> Any:
    """The struct, with what m rows of x want of the weight, derived once. Without a lock, which a signal's handler might wait for as well:
    what one thread derived stays, and stands in every struct, of which threads that meet at the first call make one each."""
    struct = _csr_pointers(w)
    kind = lib.ec_csr_kind(m, *w.shape, struct)
    if kind and w.derived is not None and not struct.derived[kind]:
        if kind not in w.derived:
            memory = aligned_empty((-(-lib.ec_csr_derived_bytes(kind, *w.shape, struct) // 8),), np.uint64)
            lib.ec_csr_derive(kind, *w.shape, struct, _buffer(_VOID, memory))
            w.derived.setdefault(kind, memory)
        struct.derived[kind] = _buffer(_VOID, cast("Any", w.derived[kind]))
    return struct


def nm_form(w: NMWeight, m: int, compute: str) -> Any:
    """What an N:M weight runs as."""
    if compute != "int8":
        return w if w.block > 1 or (m <= FEW_NM and lib.ec_isa_allows(b"avx512")) else w.as_csr()
    form = lib.ec_nm8_form(m, w.n, w.m, w.block)
    if form == lib.EC_NM8_DENSE or w.kept > K_MAX_UINT8:
        return w.as_int8()
    return w if form == lib.EC_NM8_OWN else w.as_csr()


FEW_NM = 24
"""Rows up to which AVX-512 decodes the places of each output faster than CSR's blocks are read."""


def nm_read(w: NMWeight) -> str:
    """How an N:M weight is read that runs as one."""
    return "read as it is stored" + ("" if w.scales is None else ", with sums of its negative values, derived at the first call")


def _nm_pointers(w: NMWeight) -> Any:
    """The struct ec_nm, and what it points to: to be held during a call, another thread's may take their place beside the weight."""
    held = w.pointers
    if held is None:
        values, codes = (_buffer(_FLOATS, w.values), _NULL) if w.scales is None else (_NULL, _buffer(_INT8S, w.values))
        sums, negative = (_NULL, _NULL) if w.sums is None else (_buffer(_INT32S, a) for a in (w.sums, w.negative_sums()))
        parts = values, codes, _vector(w.scales), sums, negative, _buffer(_UINT32S, w.packed)
        held = (ffi.new("ec_nm *", (*parts, w.n, w.m, w.block)), *parts)
        object.__setattr__(w, "pointers", held)
    return held


def spmm_nm(x: Float32, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    held, act = _nm_pointers(w), ACTIVATION_CODES[activation]
    args = m, n, k, *_matrix(_FLOATS, x, k), held[0], _vector(bias), act, *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_spmm_nm(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_spmm_nm_workspace(m, k, held[0], threads))


def spmm_nm8(
    x: Float32 | QuantizedRows, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    n, k = w.shape
    m = len(y)
    rows: tuple[Any, ...]
    if isinstance(x, QuantizedRows):
        rows = _NULL, k, _buffer(_BYTES, x.q), _vector(x.scale), _buffer(_BYTES, cast("Any", x.zero))
    else:
        rows = (*_matrix(_FLOATS, x, k), _NULL, _NULL, _NULL)
    held = _nm_pointers(w)
    args = m, n, k, *rows, held[0], _vector(bias), ACTIVATION_CODES[activation], *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_spmm_nm8(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_spmm_nm_workspace(m, k, held[0], threads))


def spmm_csr(x: Float32, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    act = ACTIVATION_CODES[activation]
    args = m, n, k, *_matrix(_FLOATS, x, k), _csr_struct(w, m), _vector(bias), act, *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_spmm_csr(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_spmm_csr_workspace(m, k, threads))


def spmm_csr_columns(b: Float32, w: CSRWeight, y: Float32, threads: int = 0) -> bool:
    """y [N, M] = w @ b [K, M] where neither has to be turned. False: nothing is done, this weight is read by rows of x."""
    n, k = w.shape
    m = y.shape[1]
    if w.scale is not None or w.derived is None or min(m, n, k) == 0 or lib.ec_csr_by_token(lib.ec_csr_kind(m, n, k, _csr_pointers(w))):
        return False
    args = m, n, k, *_matrix(_FLOATS, b, m), _csr_struct(w, m), *_matrix(_FLOATS, y, m), threads
    while status := lib.ec_spmm_csr_columns(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_spmm_csr_workspace(m, k, threads))
    return True


def transpose(a: Float32, out: Float32, threads: int = 0) -> None:
    """out[...] = a.T"""
    rows, columns = a.shape
    lib.ec_transpose(rows, columns, *_matrix(_FLOATS, a, columns), *_matrix(_FLOATS, out, rows), threads)


def spmm_csr8(
    x: Float32 | QuantizedRows, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    n, k = w.shape
    m = len(y)
    rows: tuple[Any, ...]
    if isinstance(x, QuantizedRows):
        rows = _NULL, k, _buffer(_BYTES, x.q), _vector(x.scale), _buffer(_BYTES, cast("Any", x.zero))
    else:
        rows = (*_matrix(_FLOATS, x, k), _NULL, _NULL, _NULL)
    args = m, n, k, *rows, _csr_struct(w, m), _vector(bias), ACTIVATION_CODES[activation], *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_spmm_csr8(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_spmm_csr8_workspace(m, k, threads))


def gemm_s8c_i32(a: npt.NDArray[Any], w: Int8Weight, y: npt.NDArray[np.int32], threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    panels, _, sums = w.pointers or _int8_pointers(w)
    args = m, n, k, *_matrix(_VOID, a, k), a.dtype == np.int8, panels, sums, *_matrix(_INT32S, y, n), threads
    while status := lib.ec_gemm_s8c_i32(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_gemm_s8c_workspace(m, k))


def gemm_s8c_f32(x: Float32, w: Int8Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    panels, scales, _ = w.pointers or _int8_pointers(w)
    act = ACTIVATION_CODES[activation]
    args = m, n, k, *_matrix(_FLOATS, x, k), panels, scales, _vector(bias), act, *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_gemm_s8c_f32(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_gemm_f32_workspace(m, k, 0, threads))


def gemm_f32(x: Float32, w: Float32 | DenseWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    n, k = w.shape
    m = len(y)
    if isinstance(w, DenseWeight):
        if w.pointers is None:
            object.__setattr__(w, "pointers", _buffer(_FLOATS, w.panels))
        weights, ldw = w.pointers, 0
    else:
        weights, ldw = _matrix(_FLOATS, w, max(k, 1))
    act = ACTIVATION_CODES[activation]
    args = m, n, k, *_matrix(_FLOATS, x, k), weights, ldw, _vector(bias), act, *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_gemm_f32(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_gemm_f32_workspace(m, k, ldw == 0, threads))


def gemm_f32_add(x: Float32, w: Float32, y: Float32, threads: int = 0) -> None:
    k, n = w.shape
    m, turned = len(x), x.strides[1] != x.itemsize
    px, ldx = _matrix(_FLOATS, x.T if turned else x, m if turned else k)
    args = m, n, k, px, ldx, turned, *_matrix(_FLOATS, w, n), *_matrix(_FLOATS, y, n), threads
    while status := lib.ec_gemm_f32_add(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_gemm_f32_add_workspace(m, n, k))


KD_KINDS = {name: getattr(lib, "EC_KD_" + name.upper()) for name in ("kl", "reverse_kl", "jsd", "tvd", "mse")}
_DOUBLES, _INT64S = ffi.typeof("double[]"), ffi.typeof("int64_t[]")


@functools.lru_cache(maxsize=64)
def _kd_struct(how: reference.Objective, scale: float) -> Any:
    return ffi.new("ec_kd *", (KD_KINDS[how.kind], *how[1:], scale))


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
    m, n = student.shape
    struct = _kd_struct(how, scale)
    known = _NULL if labels is None else _buffer(_INT64S, labels)
    out, ldg = (_NULL, n) if grad is None else _matrix(_FLOATS, grad, n)
    args = (
        m, n, *_matrix(_FLOATS, student, n), *_matrix(_FLOATS, teacher, n), known, _buffer(_DOUBLES, weight), struct,
        _buffer(_DOUBLES, losses), out, ldg, threads,
    )  # fmt: skip
    while status := lib.ec_kd_loss(*args, _scratch.pointer, _scratch.size):
        _recover(status, lib.ec_kd_loss_workspace(m, n, threads))


def requantize(y: Float32, scale: float, zero: int, q: npt.NDArray[np.int8]) -> None:
    for source, target in zip(y, q, strict=True):
        lib.ec_requantize(len(source), _vector(source), scale, zero, _buffer(_INT8S, target))


def roof(loop: str, reps: int, a: Float32, b: Float32, nbytes: int, threads: int) -> float:
    """Runs one of ROOF_LOOPS on `threads` threads: operations or bytes done, 0.0 if this CPU has no such instruction."""
    return float(lib.ec_roof(ROOF_LOOPS[loop], reps, _vector(a), _vector(b), nbytes, threads))
