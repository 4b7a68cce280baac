"""What a caller may hand in: DLPack, buffers and friends to NumPy, the dtype, stride and `out=` rules. Once for all ops."""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_F32 = np.dtype(np.float32)


def to_numpy(obj: Any, where: str) -> Array:
    """obj as a plain ndarray without copying. `where` ("linear: x") begins the message of a TypeError."""
    if isinstance(obj, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array; fill it first (x.filled(value))")
    if isinstance(obj, np.ndarray):
        return obj.view(np.ndarray) if type(obj) is not np.ndarray else obj
    if hasattr(obj, "tocsr"):
        raise TypeError(f"{where} is a {type(obj).__name__}: .toarray() makes it dense, edgecomp.CSRWeight.from_scipy a weight")
    try:
        if hasattr(obj, "__dlpack__"):
            return np.from_dlpack(obj)
        if hasattr(obj, "__array_interface__"):
            return np.asarray(obj)
        return np.asarray(memoryview(obj))
    except (TypeError, BufferError, RuntimeError, ValueError) as e:
        raise TypeError(
            f"{where} is a {type(obj).__name__} that NumPy cannot view ({e}); wanted an array with DLPack, the buffer protocol or "
            "__array_interface__, on the CPU, without gradient (torch: x.detach().float())"
        ) from e


def of_numbers(obj: Any, where: str) -> Array:
    """As to_numpy; a list or tuple will do too, an empty one as integers."""
    if not isinstance(obj, (list, tuple)):
        return to_numpy(obj, where)
    try:
        a = np.asarray(obj)
    except ValueError:
        raise ValueError(f"{where} is a {type(obj).__name__} whose rows differ in length") from None
    return a if a.size else a.astype(np.int32)  # NumPy makes floats of nothing


def to_float32(obj: Any, where: str) -> Float32:
    """obj as native float32. float16 and float64 are converted; a finite float64 that overflows is a ValueError, any other dtype
    a TypeError."""
    if type(obj) is np.ndarray and obj.dtype is _F32:
        return obj
    a = to_numpy(obj, where)
    if a.dtype == _F32:
        return a.astype(_F32, copy=False)
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        raise TypeError(f"{where} has dtype {a.dtype}, wanted float32 (float16 and float64 are converted)")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        b = a.astype(np.float32)
    if a.dtype.itemsize == 8 and not np.array_equal(np.isfinite(a), np.isfinite(b)):
        raise ValueError(f"{where} has finite float64 values beyond float32's range (3.4e38)")
    return b


def rows(a: Array) -> Array:
    """a [..., K] as [M, K] that C can walk: unit stride in a row, a constant positive stride between rows. Copies if it must."""
    if a.ndim != 2:
        a = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
    return a if walkable(a) else np.array(a, order="C")


def walkable(a: Array) -> bool:
    """Whether the [M, K] array needs no copy: aligned, unit stride in a row, rows that follow each other."""
    f = a.flags
    if f.c_contiguous and f.aligned:
        return True
    size = a.itemsize
    s0, s1 = a.strides
    k = a.shape[1]
    return bool(f.aligned and s1 == size and s0 % size == 0 and s0 >= k * size and a.dtype.isnative)


def vector(obj: Any, n: int, where: str) -> Float32:
    """A float32 vector of n entries, contiguous."""
    a = to_float32(obj, where)
    if a.shape != (n,):
        raise ValueError(f"{where} has shape {a.shape}, wanted ({n},)")
    f = a.flags
    return a if f.c_contiguous and f.aligned else np.array(a, order="C")


class Pages(mmap.mmap):
    """Memory of no file."""


def is_mapped(a: Array) -> bool:
    """Whether a is a view of a file that is mapped into memory."""
    base: Any = a
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return isinstance(base, mmap.mmap) and not isinstance(base, Pages)


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], where: str, *inputs: Array | None) -> Array:
    """The caller's `out=`: a writable NumPy array of that shape and dtype, rows as C walks them, sharing no memory with the
    inputs. Returned as it came."""
    if type(out) is not np.ndarray:
        raise TypeError(f"{where} is a {type(out).__name__}, wanted a numpy.ndarray")
    if out.dtype != dtype:
        raise TypeError(f"{where} has dtype {out.dtype}, wanted {dtype}")
    if out.shape != shape:
        raise ValueError(f"{where} has shape {out.shape}, wanted {shape}")
    f = out.flags
    if not f.writeable:
        raise ValueError(f"{where} is read-only")
    if not f.aligned or not (f.c_contiguous or (out.ndim == 2 and walkable(out))):
        raise ValueError(
            f"{where} has strides {out.strides}, wanted an aligned C-contiguous array"
            " (a 2-d one may have a larger distance between rows)"
        )
    for a in inputs:
        if a is not None and np.may_share_memory(out, a) and _overlap(out, a):
            raise ValueError(f"{where} overlaps an input in memory")
    return out


def _overlap(a: Array, b: Array) -> bool:
    """Whether two arrays whose bounds overlap share a byte; True if that is hard to tell."""
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stubs know two values only
    except np.exceptions.TooHardError:
        return True
