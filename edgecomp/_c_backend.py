"""The C backend: one thin function per op over the cffi module. No checks and no decisions; importing it fails without the C library."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import reference
from edgecomp._edgecomp_c import ffi, lib
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

Float32 = npt.NDArray[np.float32]

ACTIVATION_CODES = {None: lib.EC_ACT_NONE} | {name: getattr(lib, "EC_ACT_" + name.upper()) for name in reference.ACTIVATIONS}
ISAS = tuple(ffi.string(lib.ec_isa_name(i)).decode() for i in range(lib.ec_isa_count()))
ROOF_LOOPS = {
    "dot_s8": lib.EC_ROOF_DOT_S8,
    "chain_s8": lib.EC_ROOF_CHAIN_S8,
    "fma_f32": lib.EC_ROOF_FMA_F32,
    "read": lib.EC_ROOF_READ,
    "copy": lib.EC_ROOF_COPY,
}
_buffer, _NULL = ffi.from_buffer, ffi.NULL


class _Scratch(threading.local):
    """The workspace of each Python thread, which only grows."""

    def __init__(self) -> None:
        self.size = 0
        self.pointer = _NULL

    def at_least(self, size: int) -> Any:
        if size > self.size:
            self.size = size + size // 4
            self.pointer = _buffer("char[]", np.empty(self.size, np.uint8))  # the cdata keeps the array
        return self.pointer


_scratch = _Scratch()


def _raise_if(status: int) -> None:
    if status == lib.EC_E_NONFINITE:
        raise ValueError(reference.NONFINITE_INT8)
    if status != lib.EC_OK:
        raise RuntimeError(f"edgecomp C library: status {status}")


def _f32(a: Float32 | None) -> Any:
    return _NULL if a is None else _buffer("float[]", a) if a.flags.c_contiguous else _strided("float *", a)


def _strided(ctype: str, a: npt.NDArray[Any]) -> Any:
    return ffi.cast(ctype, a.__array_interface__["data"][0])  # from_buffer takes contiguous arrays only


def _ld(a: npt.NDArray[Any]) -> int:
    return a.strides[0] // a.itemsize


def _int8_pointers(w: Int8Weight) -> Any:
    if w.pointers is None:
        object.__setattr__(w, "pointers", (_buffer("int8_t[]", w.panels), _buffer("float[]", w.scales), _buffer("int32_t[]", w.sums)))
    return w.pointers


def variant(op: str) -> str:
    """The ISA line that serves an op under the present cap."""
    name = lib.ec_variant(op.encode())
    return ffi.string(name).decode() if name else "scalar"


def threads_for(op: str, m: int, n: int, k: int, limit: int) -> int:
    """How many threads a call of this op and size uses."""
    return int((lib.ec_gemm_s8c_threads if op == "gemm_s8c" else lib.ec_gemm_f32_threads)(m, n, k, limit))


def quantize_rows(x: Float32, q: npt.NDArray[np.uint8], scale: Float32, zero: npt.NDArray[np.uint8], threads: int = 0) -> None:
    m, k = x.shape
    _raise_if(
        lib.ec_quantize_rows(
            m, k, _f32(x), _ld(x), _buffer("uint8_t[]", q), _buffer("float[]", scale), _buffer("uint8_t[]", zero), threads,
            _scratch.at_least(lib.ec_quantize_rows_workspace(m, k)),
        )
    )  # fmt: skip


def gemm_s8c(
    x: Float32 | QuantizedRows,
    w: Int8Weight,
    bias: Float32 | None,
    activation: str | None,
    y: npt.NDArray[Any],
    out_scale: float = 1.0,
    out_zero: int = 0,
    threads: int = 0,
) -> None:
    n, k = w.shape
    m = y.shape[0]
    panels, scales, sums = w.pointers or _int8_pointers(w)
    if isinstance(x, QuantizedRows):
        rows = _NULL, k, _buffer("uint8_t[]", x.q), _buffer("float[]", x.scale), _buffer("uint8_t[]", x.zero)
    else:
        rows = _f32(x), _ld(x), _NULL, _NULL, _NULL
    if y.dtype == np.int8:
        out = _NULL, _buffer("int8_t[]", y) if y.flags.c_contiguous else _strided("int8_t *", y)
    else:
        out = _f32(y), _NULL
    _raise_if(
        lib.ec_gemm_s8c(
            m, n, k, *rows, panels, scales, sums, _f32(bias), ACTIVATION_CODES[activation], *out, _ld(y), out_scale, out_zero, threads,
            _scratch.at_least(lib.ec_gemm_s8c_workspace(m, k)),
        )
    )  # fmt: skip


def gemm_s8c_i32(a: npt.NDArray[Any], w: Int8Weight, y: npt.NDArray[np.int32], threads: int = 0) -> None:
    n, k = w.shape
    m = y.shape[0]
    panels, _, sums = w.pointers or _int8_pointers(w)
    _raise_if(
        lib.ec_gemm_s8c_i32(
            m, n, k, _strided("void *", a), _ld(a), a.dtype == np.int8, panels, sums, _strided("int32_t *", y), _ld(y), threads,
            _scratch.at_least(lib.ec_gemm_s8c_workspace(m, k)),
        )
    )  # fmt: skip


def gemm_s8c_f32(x: Float32, w: Int8Weight, bias: Float32 | None, activation: str | None, y: npt.NDArray[Any], threads: int = 0) -> None:
    n, k = w.shape
    m = y.shape[0]
    panels, scales, _ = w.pointers or _int8_pointers(w)
    _raise_if(
        lib.ec_gemm_s8c_f32(
            m, n, k, _f32(x), _ld(x), panels, scales, _f32(bias), ACTIVATION_CODES[activation], _f32(y), _ld(y), threads,
            _scratch.at_least(lib.ec_gemm_f32_workspace(m, k, 0, threads)),
        )
    )  # fmt: skip


def gemm_f32(
    x: Float32, w: Float32 | DenseWeight, bias: Float32 | None, activation: str | None, y: npt.NDArray[Any], threads: int = 0
) -> None:
    n, k = w.shape
    m = y.shape[0]
    if isinstance(w, DenseWeight):
        if w.pointers is None:
            object.__setattr__(w, "pointers", _buffer("float[]", w.panels))
        weights, ldw = w.pointers, 0
    else:
        weights, ldw = _f32(w), max(_ld(w), 1)
    _raise_if(
        lib.ec_gemm_f32(
            m, n, k, _f32(x), _ld(x), weights, ldw, _f32(bias), ACTIVATION_CODES[activation], _f32(y), _ld(y), threads,
            _scratch.at_least(lib.ec_gemm_f32_workspace(m, k, ldw == 0, threads)),
        )
    )  # fmt: skip


def requantize(y: Float32, scale: float, zero: int, q: npt.NDArray[np.int8]) -> None:
    for source, target in zip(y, q, strict=True):
        _raise_if(lib.ec_requantize(len(source), _buffer("float[]", source), scale, zero, _buffer("int8_t[]", target)))


def roof(loop: str, reps: int, a: Float32, b: Float32, nbytes: int, threads: int) -> float:
    """Runs one of ROOF_LOOPS on `threads` threads: operations or bytes done, 0.0 if this CPU has no such instruction."""
    return float(lib.ec_roof(ROOF_LOOPS[loop], reps, _buffer("float[]", a), _buffer("float[]", b), nbytes, threads))
