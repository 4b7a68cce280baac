"""The ops: check the call, allocate, choose the backend. Every error names the function, the argument, what came and what was wanted."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, backend, pool, reference
from edgecomp.arguments import integer
from edgecomp.grouped import K_MAX_GROUP, GroupedWeight
from edgecomp.nm import NMWeight, Outline
from edgecomp.reference import ACTIVATIONS
from edgecomp.sparse import CSRWeight, borrowed
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows, Weight

_FLOAT32, _INT8, _INT32 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.int32)
_empty, _PLAIN = np.empty, 0x101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
_PLAIN_DTYPE, _PLAIN_ZERO = "float32", 0
_SMALLEST, _LARGEST = 2.0**-149, float(np.finfo(np.float32).max)

BORROWED = 16
"""Columns for which a SciPy matrix is read as it is: fewer than make up for a CSRWeight."""

K_MAX_UINT8, K_MAX_INT8 = 66311, 132104
"""The longest sums that fit int32: 255 * 127 * 66311 and 128 * 127 * 132104 are below 2**31."""


def _weight(w: Any) -> Weight | arrays.Float32:
    if isinstance(w, Weight):
        return w
    if hasattr(w, "tocsr"):
        return CSRWeight.from_scipy(w)
    a = arrays.to_float32(w, "linear: w")
    if a.ndim != 2:
        raise ValueError(f"linear: w has shape {a.shape}, wanted [out_features, in_features]")
    return arrays.rows(a)


_QUANTIZED = frozenset(("gemm_s8c", "gemm_s4g", "gemm_s8g", "spmm_csr8", "spmm_nm8"))


def _compute(op: str, compute: str | None) -> str:
    if compute is None:
        return "int8" if op in _QUANTIZED else "float32"
    if not isinstance(compute, str) or compute not in ("int8", "float32"):
        raise ValueError(f'linear: compute is {compute!r}, wanted "int8" or "float32"')
    if compute == "int8" and op not in _QUANTIZED:
        raise ValueError('linear: compute="int8" wants quantized weights (edgecomp.quantize), w is float32')
    return compute


def _rows_fit(x: QuantizedRows, w: Any, how: str) -> None:
    """Refuses rows that were quantised for another kind of weight."""
    if how == "float32":
        raise ValueError('linear: x is QuantizedRows, which wants quantized weights and compute="int8"')
    if x.group_size != w.group_size:
        raise ValueError(
            f"linear: x was quantised with group_size={x.group_size}, w has {w.group_size}:"
            f" edgecomp.quantize_rows(x, group_size={w.group_size})"
        )
    if isinstance(w, GroupedWeight) and w.permutation is not None:
        raise ValueError("linear: w permutes its inputs (act-order): pass x, which is permuted while it is quantised")


def linear(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    out: npt.NDArray[Any] | None = None,
    compute: str | None = None,
    threads: int | None = None,
    out_dtype: str = "float32",
    out_scale: float | None = None,
    out_zero: int = 0,
) -> npt.NDArray[Any]:
    """activation(x @ w.T + bias): a linear layer with any kind of weights.

    Args:
        x: float32 [..., K] (float16 and float64 are converted), or QuantizedRows.
        w: Int8Weight, Int4Weight, GroupedInt8Weight, CSRWeight, NMWeight, DenseWeight; or a float32 array [N, K], which is packed
            anew at each call (`pack` it once), or a SciPy sparse matrix, of which a CSRWeight is (`CSRWeight.from_scipy` builds it once).
        bias: float32 [N], or None.
        activation: None, "relu", "relu6", "leaky_relu" (slope 0.01), "hardswish", "hardsigmoid", "gelu", "gelu_tanh", "silu",
            "tanh" or "sigmoid".
        out: where to write, [..., N]; may not overlap an input. Returned.
        compute: "int8" quantises x on the fly, per row to uint8, or per row and group to int8 for weights with groups (the default for
            quantized weights, at every M); "float32" keeps x and expands the weights.
        threads: limit for this call, 1..1024.
        out_dtype: "float32", or "int8": clip(rint(y / out_scale) + out_zero, -128, 127).
        out_scale, out_zero: finite positive float, int in -128..127. With "int8" only.

    Returns:
        float32 (or int8) [..., N]. With compute="int8" a row of x with NaN or Inf gives a row of NaN, and everything before a
        transcendental activation has the same bits on every backend, ISA, thread count and M.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: wrong shape or value; NaN or Inf in x with int8 output. Nothing is written.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> w = ec.quantize(np.eye(3, dtype=np.float32))
        >>> ec.linear(np.array([[255.0, 0, 51]], np.float32), w, activation="relu")
        array([[255.,   0.,  51.]], dtype=float32)
    """
    # Small layers take a microsecond: the usual case makes few calls before the kernel's.
    if isinstance(w, Weight):
        op = w.op
    else:
        w, op = _weight(w), "gemm_f32"
    n, k = w.shape
    quantized = False
    if type(x) is not np.ndarray or x.dtype is not _FLOAT32:
        quantized = isinstance(x, QuantizedRows)
        x = x if quantized else arrays.to_float32(x, "linear: x")
    shape = x.shape
    if not shape or shape[-1] != k:
        raise ValueError(f"linear: x has shape {shape}, weight takes [..., {k}]")
    how = _compute(op, compute)
    if quantized:
        _rows_fit(x, w, how)
    if bias is not None:
        bias = arrays.vector(bias, n, "linear: bias")
    if activation is not None and (not isinstance(activation, str) or activation not in ACTIVATIONS):
        raise ValueError(f"linear: activation is {activation!r}, wanted None or one of {', '.join(ACTIVATIONS)}")
    limit = pool.limit(threads, "linear: threads")
    scale, dtype = None, _FLOAT32
    if out_dtype is not _PLAIN_DTYPE or out_scale is not None or out_zero is not _PLAIN_ZERO:  # an array's == is no answer
        scale, dtype = _output(out_dtype, out_scale, out_zero, bias)
    flat = len(shape) == 2
    size = (shape[0], n) if flat else (*shape[:-1], n)
    if out is None:
        y = out = _empty(size, dtype)
    else:
        inputs = (x.q, x.scale, x.zero) if quantized else (x,)
        held = w if isinstance(w, np.ndarray) else None  # the arrays of a weight are read-only: no `out` can be one
        y = arrays.check_out(out, size, dtype, "linear: out", *inputs, bias, held)
    if y.size == 0:
        return out
    if not flat:
        y = y.reshape(-1, n)
    use = backend.current()
    if not quantized and not (flat and x.flags.num & _PLAIN == _PLAIN):
        x = arrays.rows(x)
    if isinstance(w, NMWeight):
        w = use.nm_form(w.as_float32() if how == "float32" else w, len(y), how)
        op = w.op
    if how == "float32":
        op = _float_op(w)
    elif op == "gemm_s8c":
        use.gemm_s8c(x, w, bias, activation, y, scale, out_zero, limit)
        return out
    gemm = getattr(use, op)
    if how == "float32" and isinstance(w, CSRWeight):
        w = w.as_float32()
    if scale is None:
        gemm(x, w, bias, activation, y, limit)
        return out
    if not np.isfinite(x.scale if quantized else x).all():
        raise ValueError(reference.NONFINITE_INT8)
    wide = np.empty(y.shape, np.float32)
    gemm(x, w, bias, activation, wide, limit)
    use.requantize(wide, scale, out_zero, y)
    return out


def _float_op(w: Any) -> str:
    """The function of a backend that serves the weight with compute="float32"."""
    if isinstance(w, (CSRWeight, NMWeight)):
        return "spmm_csr" if isinstance(w, CSRWeight) else "spmm_nm"
    return "gemm_sg_f32" if isinstance(w, GroupedWeight) else "gemm_s8c_f32" if isinstance(w, Int8Weight) else "gemm_f32"


def _output(dtype: str, scale: float | None, zero: int, bias: arrays.Float32 | None) -> tuple[float | None, np.dtype[Any]]:
    """The scale (None for float32) and dtype of the output."""
    if not isinstance(dtype, str) or dtype not in ("float32", "int8"):
        raise ValueError(f'linear: out_dtype is {dtype!r}, wanted "float32" or "int8"')
    integer("linear: out_zero", zero, range(-128, 128), "an int in -128..127")
    if dtype == "float32":
        if scale is not None or zero != 0:
            raise ValueError('linear: out_scale and out_zero are for out_dtype="int8"')
        return None, _FLOAT32
    given = float(scale) if isinstance(scale, np.floating) else scale  # the bounds would be rounded to its dtype
    if isinstance(scale, bool) or not isinstance(given, numbers.Real) or not _SMALLEST <= given <= _LARGEST:
        raise ValueError(f"linear: out_scale is {scale!r}, wanted a positive float")
    if bias is not None and not np.isfinite(bias).all():
        raise ValueError("linear: bias has NaN or Inf, which int8 output cannot express")
    return float(given), _INT8


def quantize_rows(x: Any, *, group_size: int | None = None, threads: int | None = None) -> QuantizedRows:
    """Quantises x once for several `linear` calls: to uint8 with one scale and zero point per row, or to int8 with a scale per group.

    Args:
        x: float32 [..., K].
        group_size: that of the weights, `w.group_size`; None for Int8Weight, CSRWeight and NMWeight.
        threads: limit for this call, 1..1024.

    Returns:
        QuantizedRows: q uint8 [..., K], scale float32 [...], zero uint8 [...]; x is about (q - zero) * scale, off by half a scale
        at most. With groups q int8 [..., K], scale float32 [..., groups], no zero. A row (group) with NaN or Inf gets scale NaN.

    Raises:
        TypeError, ValueError: x is no float array, or has no dimension; a group_size that no weight has.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> xq = ec.quantize_rows(np.array([[-1.0, 0.0, 1.55]], np.float32))
        >>> xq.q, xq.zero
        (array([[  0, 100, 255]], dtype=uint8), array([100], dtype=uint8))
    """
    x = arrays.to_float32(x, "quantize_rows: x")
    if x.ndim == 0:
        raise ValueError("quantize_rows: x has shape (), wanted [..., K]")
    limit = pool.limit(threads, "quantize_rows: threads")
    flat = arrays.rows(x)
    m, k = flat.shape
    if group_size is not None:
        most = -(-K_MAX_GROUP // 16) * 16
        group_size = integer("quantize_rows: group_size", group_size, range(16, most + 1, 16), f"None or a multiple of 16 up to {most}")
        groups = -(-k // group_size)
        grouped_q, grouped_scale = np.empty((m, k), np.int8), np.empty((m, groups), np.float32)
        if m and k:
            backend.current().quantize_groups(flat, group_size, grouped_q, grouped_scale, limit)
        return QuantizedRows(grouped_q.reshape(x.shape), grouped_scale.reshape(*x.shape[:-1], groups), group_size=group_size)
    q, scale, zero = np.empty((m, k), np.uint8), np.empty(m, np.float32), np.empty(m, np.uint8)
    if m:
        backend.current().quantize_rows(flat, q, scale, zero, limit)
    lead = x.shape[:-1]
    return QuantizedRows(q.reshape(x.shape), scale.reshape(lead), zero.reshape(lead))


def matmul_int8(a: Any, w: Int8Weight, out: npt.NDArray[np.int32] | None = None, *, threads: int | None = None) -> npt.NDArray[np.int32]:
    """a @ w.q.T in exact int32: no scales.

    Args:
        a: int8 or uint8 [..., K]; K at most 132104 (int8) or 66311 (uint8), so that every sum fits int32.
        w: Int8Weight [N, K].
        out: int32 [..., N] to write to; may not overlap an input. Returned.
        threads: limit for this call, 1..1024.

    Raises:
        TypeError: a is not int8 or uint8, w no Int8Weight.
        ValueError: wrong shape, or K too large.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> w = ec.Int8Weight.from_arrays(np.array([[1, 2], [3, -4]], np.int8), np.ones(2, np.float32))
        >>> ec.matmul_int8(np.array([[10, 100]], np.uint8), w)
        array([[ 210, -370]], dtype=int32)
    """
    a = arrays.to_numpy(a, "matmul_int8: a")
    if a.dtype != np.int8 and a.dtype != np.uint8:
        raise TypeError(f"matmul_int8: a has dtype {a.dtype}, wanted int8 or uint8")
    if not isinstance(w, Int8Weight):
        raise TypeError(f"matmul_int8: w is a {type(w).__name__}, wanted Int8Weight")
    n, k = w.shape
    if not a.shape or a.shape[-1] != k:
        raise ValueError(f"matmul_int8: a has shape {a.shape}, weight takes [..., {k}]")
    most = K_MAX_INT8 if a.dtype == np.int8 else K_MAX_UINT8
    if k > most:
        raise ValueError(f"matmul_int8: K is {k}, {a.dtype} sums fit int32 up to {most}")
    limit = pool.limit(threads, "matmul_int8: threads")
    shape = (*a.shape[:-1], n)
    if out is None:
        y = out = np.empty(shape, np.int32)
    else:
        y = arrays.check_out(out, shape, _INT32, "matmul_int8: out", a)
    if y.size:
        backend.current().gemm_s8c_i32(arrays.rows(a), w, y if y.ndim == 2 else y.reshape(-1, n), limit)
    return out


def spmm(a: Any, b: Any, *, out: npt.NDArray[np.float32] | None = None, threads: int | None = None) -> npt.NDArray[np.float32]:
    """a @ b, sparse times dense as SciPy writes it.

    Args:
        a: CSRWeight or NMWeight [N, K]; or a SciPy sparse matrix, which is checked at each call, and converted unless it is CSR of float32
            and b has at most 16 columns, for each of which it is read anew: build a CSRWeight once.
        b: float32 [K, M] or [K]. With int8 values in a, each column of b is quantised to uint8.
        out: float32 [N, M] or [N], C-contiguous; may not overlap b, nor a SciPy matrix that is read as it is. Returned.
        threads: limit for this call, 1..1024.

    Raises:
        TypeError, ValueError: a is not sparse, shapes that do not fit.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> a = ec.to_csr(np.array([[0, 2], [1, 0]], np.float32))
        >>> ec.spmm(a, np.array([[1, 10], [3, 30]], np.float32))
        array([[ 6., 60.],
               [ 1., 10.]], dtype=float32)
    """
    if not (isinstance(a, (CSRWeight, NMWeight)) or hasattr(a, "tocsr")):
        raise TypeError(f"spmm: a is a {type(a).__name__}, wanted a CSRWeight, an NMWeight or a SciPy sparse matrix")
    b = arrays.to_float32(b, "spmm: b")
    read: tuple[Any, ...] = ()
    if not isinstance(a, (CSRWeight, NMWeight)):
        own = borrowed(a) if b.ndim == 1 or (b.ndim == 2 and b.shape[1] <= BORROWED) else None
        if own is not None:
            read = a.data, a.indices, a.indptr
        a = CSRWeight.from_scipy(a) if own is None else own
    n, k = a.shape
    if b.ndim not in (1, 2) or b.shape[0] != k:
        raise ValueError(f"spmm: b has shape {b.shape}, a takes [{k}, M] or [{k}]")
    if out is not None:
        arrays.check_out(out, (n, *b.shape[1:]), _FLOAT32, "spmm: out", b, *read)
    limit, use = pool.limit(threads, "spmm: threads"), backend.current()
    if b.ndim == 1:
        return linear(b, a, out=out, threads=threads)
    y = np.empty((n, b.shape[1]), np.float32) if out is None else out
    if isinstance(a, CSRWeight) and arrays.walkable(b) and use.spmm_csr_columns(b, a, y, limit):
        return y
    x = b.T
    if not arrays.walkable(x):
        x = np.empty(x.shape, np.float32)
        use.transpose(arrays.rows(b), x, limit)
    use.transpose(linear(x, a, threads=threads), y, limit)
    return y


@dataclass(frozen=True)
class Explanation:
    """What a `linear` call does: print it, or read the fields."""

    op: str
    backend: str
    variant: str
    threads: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.op} on {self.backend}:{self.variant}, {self.threads} thread{'s' if self.threads > 1 else ''}"]
        return "\n  ".join(lines + list(self.notes))


def _conversions(name: str, given: arrays.Array, used: arrays.Array) -> list[str]:
    """What happens to an argument before the kernel sees it."""
    if given.dtype != np.float32:
        return [f"{name}: {given.dtype} converted to float32"]
    return [] if used.size == 0 or np.may_share_memory(given, used) else [f"{name}: copied, its rows are not contiguous and aligned"]


def explain(x: Any, w: Any, *, compute: str | None = None, threads: int | None = None) -> Explanation:
    """Which kernel `linear(x, w)` runs, on which ISA, with how many threads, and what is converted or copied on the way.

    Nothing is computed. Raises what `linear` would raise for these arguments.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> e = ec.explain(np.zeros((1, 8), np.float64), ec.quantize(np.ones((4, 8), np.float32)))
        >>> e.op, e.notes[0]
        ('gemm_s8c', 'x: float64 converted to float32')
    """
    notes = []
    weight = _weight(w)
    n, k = weight.shape
    quantized = isinstance(x, QuantizedRows)
    given = x if quantized else arrays.to_numpy(x, "linear: x")
    x = x if quantized else arrays.to_float32(given, "linear: x")
    if not x.shape or x.shape[-1] != k:
        raise ValueError(f"linear: x has shape {x.shape}, weight takes [..., {k}]")
    how = _compute(weight.op if isinstance(weight, Weight) else "gemm_f32", compute)
    if quantized:
        _rows_fit(x, weight, how)
    notes += ["x: quantised already"] if quantized else _conversions("x", given, arrays.rows(x))
    if weight is not w and isinstance(weight, CSRWeight):
        notes.append("w: a CSRWeight is built at each call; edgecomp.CSRWeight.from_scipy(w) does it once")
    if isinstance(weight, np.ndarray):
        notes += _conversions("w", arrays.to_numpy(w, "linear: w"), weight)
    if arrays.is_mapped(weight if isinstance(weight, np.ndarray) else next(iter(weight.arrays().values()))):
        notes.append("w: read where its file is mapped")
    m = math.prod(x.shape[:-1])
    limit = pool.limit(threads, "linear: threads")
    use = backend.current()
    if isinstance(weight, NMWeight):
        if how == "float32" and weight.scales is not None:
            notes.append("w: its values converted to float32, derived at the first call")
        form = use.nm_form(Outline.of(weight, how), m, how)
        if isinstance(form, NMWeight):
            notes.append(f"w: {use.nm_read(form)}")
        else:
            kind = "CSR" if isinstance(form, CSRWeight) else "dense int8"
            notes.append(f"w: {weight.pattern} run as {kind}, derived at the first call")
        weight = form
    op = weight.op if isinstance(weight, Weight) and how == "int8" else _float_op(weight)
    if how == "int8":
        grouped = isinstance(weight, GroupedWeight)
        kind = f"int8 per row and group of {getattr(weight, 'group_size', 0)}" if grouped else "uint8 per row"
        notes.append("int32 sums, float32 output" if quantized else f"x: quantised to {kind}")
        if getattr(weight, "permutation", None) is not None:
            notes.append("x: permuted to the order of the weight's groups")
    elif isinstance(weight, (CSRWeight, NMWeight)):
        if isinstance(weight, CSRWeight) and weight.scale is not None:
            notes.append("w: its values converted to float32, derived at the first call")
            weight = weight.with_floats(np.empty(weight.nnz, np.float32))
    elif isinstance(weight, (Int8Weight, GroupedWeight)):
        notes.append("w: expanded to float32 as it is read")
    elif not isinstance(weight, DenseWeight):
        notes.append("w: packed at each call; edgecomp.pack(w) does it once")
    family = {"gemm_s8c_f32": "gemm_f32", "gemm_sg_f32": "gemm_f32"}.get(op, op)
    if isinstance(weight, CSRWeight):
        notes.append(f"w: {use.csr_form(weight, m)}")
        used = use.csr_threads(weight, m, limit)
    else:
        used = use.threads_for(family, m, n, weight.kept if isinstance(weight, NMWeight) else k, limit)
    return Explanation(op, backend.name_of(use), use.variant(family, m, weight), used, tuple(notes))
