"""The specification: every op in plain NumPy, and the backend where nothing is compiled.

The int8 ops define the bits: all arithmetic is float32, rounded to nearest even after each operation, in the order written here;
every other backend gives the same results up to a transcendental activation. Arguments are checked by edgecomp.ops; y is written.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecomp.grouped import GroupedInt8Weight, GroupedWeight, Int4Weight
from edgecomp.nm import NMWeight
from edgecomp.sparse import CSRWeight
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
_f = np.float32


def variant(op: str, m: int | None = None, w: Any = None) -> str:
    """The code that serves an op: here always NumPy."""
    return "numpy"


def threads_for(op: str, m: int, n: int, k: int, limit: int) -> int:
    """How many threads a call uses, leaving aside those of NumPy's matmul."""
    return 1


def warmup() -> None:
    """Nothing to prepare."""


def quantize_rows(x: Float32, q: npt.NDArray[np.uint8], scale: Float32, zero: npt.NDArray[np.uint8], threads: int = 0) -> None:
    """x [M, K] to q uint8 [M, K], scale float32 [M], zero uint8 [M]: asymmetric, one scale per row, 0 always on the grid.

    A row with a scale below 2**-126 counts as zeros (q 0, scale 1, zero 0); one with NaN or Inf gets scale NaN, q and zero 0.
    """
    with np.errstate(all="ignore"):
        finite = np.isfinite(x).all(axis=1)
        lo, hi = x.min(axis=1, initial=0), x.max(axis=1, initial=0)
        s = hi / _f(255) - lo / _f(255)
        used = finite & (s >= _f(2.0**-126))
        inv = np.where(used, _f(1) / s, _f(0))
        z = np.where(used, np.clip(np.rint(-lo * inv), 0, 255), _f(0))
        values = np.where(used[:, None], x, _f(0)) * inv[:, None]
        q[...] = np.clip(np.rint(values) + z[:, None], 0, 255)
        zero[...] = z
        scale[...] = np.where(used, s, np.where(finite, _f(1), _f(np.nan)))


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
    """y [M, N] = activation(x w^T + bias) with x quantised per row: ((float(sum (q - zero) w) * sx) * sw) + bias.

    The sums are exact integers, however long; NaN results are stored as 0x7FC00000. With out_scale y is int8, requantised with
    out_scale and out_zero, and refused (ValueError) if x has NaN or Inf.
    """
    if isinstance(x, QuantizedRows):
        q, sx, zero = x.q.reshape(y.shape[0], -1), x.scale.reshape(-1), np.reshape(x.zero, -1)  # type: ignore[arg-type]  # rows without groups have zeros
    else:
        q, sx, zero = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32), np.empty(len(x), np.uint8)
        quantize_rows(x, q, sx, zero)
    if out_scale is not None and np.isnan(sx).any():
        raise ValueError(NONFINITE_INT8)
    acc = (q.astype(np.float64) - zero[:, None]) @ w.q.T.astype(np.float64)  # exact: every partial sum is an integer below 2**53
    with np.errstate(all="ignore"):
        v = acc.astype(np.float32) * sx[:, None] * w.scale
        if bias is not None:
            v = v + bias
    v[np.isnan(v)] = np.nan
    _finish(v, activation, y, out_scale, out_zero)


def quantize_groups(x: Float32, group_size: int, q: npt.NDArray[np.int8], scale: Float32, threads: int = 0) -> None:
    """x [M, K] to q int8 [M, K], scale float32 [M, groups]: symmetric, absmax / 127 of each row and group.

    A group with a scale below 2**-126 counts as zeros (q 0, scale 1); one with NaN or Inf gets scale NaN, q 0.
    """
    for g in range(scale.shape[1]):
        part = x[:, g * group_size : (g + 1) * group_size]
        with np.errstate(all="ignore"):
            finite = np.isfinite(part).all(axis=1)
            s = np.abs(part).max(axis=1, initial=0) / _f(127)
            used = finite & (s >= _f(2.0**-126))
            inv = np.where(used, _f(1) / s, _f(0))
            q[:, g * group_size : (g + 1) * group_size] = np.rint(np.where(used[:, None], part, _f(0)) * inv[:, None])
        scale[:, g] = np.where(used, s, np.where(finite, _f(1), _f(np.nan)))


def gemm_s4g(
    x: Float32 | QuantizedRows, w: Int4Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    """y [M, N] = activation(x w^T + bias) with x quantised per row and group.

    y = 0; for each group in order y = y + float(sum (code - zero) q) * (sx * sw), with offsets then y = y + float(sum q) * (sx * offset);
    then + bias. The sums are exact integers; NaN results are stored as 0x7FC00000.
    """
    _gemm_grouped(x, w, bias, activation, y)


def gemm_s8g(
    x: Float32 | QuantizedRows, w: GroupedInt8Weight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    """gemm_s4g with int8 codes."""
    _gemm_grouped(x, w, bias, activation, y)


def _gemm_grouped(x: Float32 | QuantizedRows, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32) -> None:
    (m, n), k, group = y.shape, w.shape[1], w.group_size
    codes, sw, zero, offset = w.codes.astype(np.float64), w.scale.astype(np.float32), w.zero, w.offset
    if isinstance(x, QuantizedRows):
        q, sx = x.q.reshape(m, k), x.scale.reshape(m, -1)
    else:
        q, sx = np.empty((m, k), np.int8), np.empty((m, -(-k // group)), np.float32)
        quantize_groups(x if w.permutation is None else x[:, w.permutation], group, q, sx)
    v = np.zeros((m, n), np.float32)
    with np.errstate(all="ignore"):
        for g in range(sx.shape[1]):
            part, scale = slice(g * group, (g + 1) * group), sx[:, g, None]
            a = q[:, part].astype(np.float64)
            centre = zero[:, g, None] if zero is not None else 0 if offset is not None else 1 << (w.bits - 1)
            acc = a @ (codes[:, part] - centre).T  # exact
            v = v + acc.astype(np.float32) * (scale * sw[:, g])
            if offset is not None:
                v = v + a.sum(axis=1, keepdims=True).astype(np.float32) * (scale * offset[:, g].astype(np.float32))
        if bias is not None:
            v = v + bias
    v[np.isnan(v)] = np.nan
    _finish(v, activation, y, None, 0)


def gemm_sg_f32(x: Float32, w: GroupedWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    """y = activation(x w^T + bias), float activations and the dequantised weights."""
    gemm_f32(x, w.dequantize(), bias, activation, y)


def gemm_s8c_i32(a: npt.NDArray[Any], w: Int8Weight, y: npt.NDArray[np.int32], threads: int = 0) -> None:
    """y int32 [M, N] = a w^T exactly; a is int8 or uint8 [M, K]."""
    y[...] = a.astype(np.float64) @ w.q.T.astype(np.float64)


def gemm_s8c_f32(x: Float32, w: Int8Weight, bias: Float32 | None, activation: str | None, y: npt.NDArray[Any], threads: int = 0) -> None:
    """y = activation(x w^T + bias), float activations and the dequantised weights."""
    gemm_f32(x, w.dequantize(), bias, activation, y)


def gemm_f32(
    x: Float32, w: Float32 | DenseWeight, bias: Float32 | None, activation: str | None, y: npt.NDArray[Any], threads: int = 0
) -> None:
    """y [M, N] = activation(x w^T + bias) in float32."""
    with np.errstate(all="ignore"):
        v = x @ (w.dequantize() if isinstance(w, DenseWeight) else w).T
        if bias is not None:
            v = v + bias
    _finish(v, activation, y, None, 0)


def gemm_f32_add(x: Float32, w: Float32, y: Float32, threads: int = 0) -> None:
    """y [M, N] += x [M, K] w [K, N] in float32. w and y have their rows one after the other; x its rows or its columns."""
    with np.errstate(all="ignore"):
        y += x @ w


def _row_sums(products: npt.NDArray[Any], w: CSRWeight) -> npt.NDArray[Any]:
    """The sums of the entries' products, row of w by row; 0 for a row without entries."""
    full = w.indptr[1:] > w.indptr[:-1]
    out = np.zeros(w.shape[0], products.dtype)
    if products.size:
        out[full] = np.add.reduceat(products, w.indptr[:-1][full])
    return out


def spmm_csr(x: Float32, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    """y [M, N] = activation(x w^T + bias) over the stored entries of w: what x has elsewhere, NaN too, has no effect."""
    v = np.empty(y.shape, np.float32)
    with np.errstate(all="ignore"):
        for i, row in enumerate(x):
            v[i] = _row_sums(row[w.indices] * w.data, w)
        if bias is not None:
            v = v + bias
    _finish(v, activation, y, None, 0)


def spmm_csr8(
    x: Float32 | QuantizedRows, w: CSRWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0
) -> None:
    """spmm_csr with int8 values and x quantised per row: ((float(sum (q - zero) w) * sx) * sw) + bias over the stored entries.

    The sums are exact integers; NaN results are stored as 0x7FC00000; a row of x with NaN or Inf gives a row of NaN.
    """
    if isinstance(x, QuantizedRows):
        q, sx, zero = x.q.reshape(y.shape[0], -1), x.scale.reshape(-1), np.reshape(x.zero, -1)  # type: ignore[arg-type]  # rows without groups have zeros
    else:
        q, sx, zero = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32), np.empty(len(x), np.uint8)
        quantize_rows(x, q, sx, zero)
    assert w.scale is not None
    values = w.data.astype(np.int64)
    v = np.empty(y.shape, np.float32)
    for i, row in enumerate(q):
        v[i] = _row_sums((row[w.indices].astype(np.int64) - zero[i]) * values, w)  # exact, then rounded once
    with np.errstate(all="ignore"):
        v = v * sx[:, None] * w.scale
        if bias is not None:
            v = v + bias
    v[np.isnan(v)] = np.nan
    _finish(v, activation, y, None, 0)


def spmm_csr_columns(b: Float32, w: CSRWeight, y: Float32, threads: int = 0) -> bool:
    """y = w @ b where neither has to be turned; False if nothing is gained by that."""
    return False


def transpose(a: Float32, out: Float32, threads: int = 0) -> None:
    """out[...] = a.T"""
    out[...] = a.T


def csr_form(w: CSRWeight, m: int) -> str:
    """How m rows of x meet a CSR weight."""
    return "read row by row, as it is stored"


def csr_threads(w: CSRWeight, m: int, limit: int) -> int:
    """How many threads m rows of x use."""
    return 1


def nm_form(w: NMWeight, m: int, compute: str) -> NMWeight:
    """What an N:M weight runs as."""
    return w


def nm_read(w: NMWeight) -> str:
    """How an N:M weight is read that runs as one."""
    return "read as it is stored"


def spmm_nm(x: Float32, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    """y [M, N] = activation(x w^T + bias) over the kept inputs of w: what x has elsewhere, NaN too, has no effect."""
    values, v = w.kept_values(), np.empty(y.shape, np.float32)
    with np.errstate(all="ignore"):
        for b, columns in enumerate(w.columns()):
            part = slice(b * w.block, (b + 1) * w.block)
            v[:, part] = x[:, columns] @ values[part].T
        if bias is not None:
            v = v + bias
    _finish(v, activation, y, None, 0)


def spmm_nm8(x: Float32 | QuantizedRows, w: NMWeight, bias: Float32 | None, activation: str | None, y: Float32, threads: int = 0) -> None:
    """spmm_nm with int8 values and x quantised per row: ((float(sum (q - zero) w) * sx) * sw) + bias over the kept inputs, as spmm_csr8."""
    if isinstance(x, QuantizedRows):
        q, sx, zero = x.q.reshape(y.shape[0], -1), x.scale.reshape(-1), np.reshape(x.zero, -1)  # type: ignore[arg-type]  # rows without groups have zeros
    else:
        q, sx, zero = np.empty(x.shape, np.uint8), np.empty(len(x), np.float32), np.empty(len(x), np.uint8)
        quantize_rows(x, q, sx, zero)
    centred, values = q.astype(np.float64) - zero[:, None], w.kept_values().astype(np.float64)
    v = np.empty(y.shape, np.float32)
    for b, columns in enumerate(w.columns()):
        part = slice(b * w.block, (b + 1) * w.block)
        v[:, part] = centred[:, columns] @ values[part].T  # exact, then rounded once
    assert w.scale is not None
    with np.errstate(all="ignore"):
        v = v * sx[:, None] * w.scale
        if bias is not None:
            v = v + bias
    v[np.isnan(v)] = np.nan
    _finish(v, activation, y, None, 0)


def requantize(y: Float32, scale: float, zero: int, q: npt.NDArray[np.int8]) -> None:
    """q = clip(rint(y / scale) + zero, -128, 127); NaN as zero."""
    with np.errstate(all="ignore"):
        v = np.clip(np.rint(y / _f(scale)) + _f(zero), -128, 127)
    q[...] = np.where(np.isnan(v), _f(zero), v)


NONFINITE_INT8 = "linear: x has a row with NaN or Inf, which int8 output cannot express"


def _finish(v: Float32, activation: str | None, y: npt.NDArray[Any], out_scale: float | None, out_zero: int) -> None:
    if activation is not None:
        v = ACTIVATIONS[activation](v)
    if out_scale is not None:
        requantize(v, out_scale, out_zero, y)
    else:
        y[...] = v


def _relu(v: Float32) -> Float32:
    return np.where((v > 0) | np.isnan(v), v, _f(0))


def _relu6(v: Float32) -> Float32:
    return np.clip(v, _f(0), _f(6)) + _f(0)  # + 0: no -0


def _canonical(v: Float32) -> Float32:
    return np.where(np.isnan(v), _f(np.nan), v)


def _exact(function: Callable[[Float32], Any]) -> Callable[[Float32], Float32]:
    """An activation in float32, operation by operation."""

    def inner(v: Float32) -> Float32:
        with np.errstate(all="ignore"):
            return np.asarray(function(v), np.float32)

    return inner


def _rounded(function: Callable[[npt.NDArray[np.float64]], Any]) -> Callable[[Float32], Float32]:
    """A transcendental activation in float64, rounded once."""

    def inner(v: Float32) -> Float32:
        with np.errstate(all="ignore"):
            return np.asarray(function(v.astype(np.float64)), np.float32)

    return inner


_erfc: Any = np.frompyfunc(math.erfc, 1, 1)  # NumPy has none

ACTIVATIONS = {
    "relu": _relu,
    "relu6": _relu6,
    "leaky_relu": _exact(lambda v: np.where(v > 0, v, v * _f(0.01))),
    "hardswish": _exact(lambda v: _canonical(v * _relu6(v + _f(3)) / _f(6))),
    "hardsigmoid": _exact(lambda v: _relu6(v + _f(3)) / _f(6)),
    "gelu": _rounded(lambda v: 0.5 * v * _erfc(v * -math.sqrt(0.5)).astype(np.float64)),
    "gelu_tanh": _rounded(lambda v: v / (1 + np.exp(-math.sqrt(8 / math.pi) * (v + 0.044715 * v**3)))),
    "silu": _rounded(lambda v: v / (1 + np.exp(-v))),
    "tanh": _rounded(np.tanh),
    "sigmoid": _rounded(lambda v: 1 / (1 + np.exp(-v))),
}
"""What `activation=` may name. leaky_relu has slope 0.01; gelu is the exact one (erf), gelu_tanh its tanh form."""


class Objective(NamedTuple):
    """What kd_loss minimises, for each row: kd * KD + ce * CE."""

    kind: str
    temperature: float
    teacher_temperature: float  # what the teacher's values are divided by: 1 for log-probabilities, which are softened already
    kd: float  # alpha T^2, or alpha
    ce: float  # 1 - alpha
    beta: float
    smoothing: float


def kd_loss(
    student: Float32,
    teacher: Float32,
    labels: npt.NDArray[np.int64] | None,
    weight: Float64,
    how: Objective,
    scale: float,
    losses: Float64,
    grad: Float32 | None,
    threads: int = 0,
) -> None:
    """losses [M] = weight * (how.kd * KD + how.ce * CE); grad [M, V] = scale * weight * its derivative by the student's logits.

    Rows of weight 0 give 0 in both, whatever is in them: their labels are not read. grad may be student.
    """
    step = max(1, (1 << 18) // max(1, student.shape[1]))  # rows in float64: 2 MB an array
    for i in range(0, len(student), step):
        part = slice(i, i + step)
        used = weight[part] > 0
        known = None if labels is None else np.where(used, labels[part], 0)
        loss, slope = kd_rows(student[part].astype(np.float64), teacher[part].astype(np.float64), known, how)
        with np.errstate(all="ignore"):
            losses[part] = np.where(used, weight[part] * loss, 0)
            if grad is not None:
                grad[part] = np.where(used[:, None], (scale * weight[part])[:, None] * slope, 0)


def kd_rows(s: Float64, t: Float64, labels: npt.NDArray[np.int64] | None, how: Objective) -> tuple[Float64, Float64]:
    """The loss [M] and its derivative [M, V] by s, in the precision of its arguments: both terms for each row."""
    with np.errstate(all="ignore"):
        if how.kind == "mse":
            both = np.isneginf(s) & np.isneginf(t)  # a class that neither has
            d = np.where(both, 0, s - t) / how.temperature
            loss, slope = (d * d).sum(axis=1), 2 * d
        else:
            loss, slope = KD_KINDS[how.kind](_log_softmax(t / how.teacher_temperature), _log_softmax(s / how.temperature), how.beta)
        if how.kd == 0:  # no infinity of a term that has no part in the loss
            loss, slope = np.zeros(len(s)), np.zeros(s.shape)
        broken = np.isnan(s).any(axis=1) | np.isnan(t).any(axis=1)
        if how.kind == "mse":
            broken |= np.isposinf(s.max(axis=1))  # the cross entropy's softmax, with a share or without
        else:  # no softmax of +inf, nor of nothing but masks
            broken |= np.isinf(s.max(axis=1)) | np.isinf(t.max(axis=1))
        loss, slope = loss + np.where(broken, np.nan, 0), slope + np.where(broken, np.nan, 0)[:, None]
        loss, slope = how.kd * loss, how.kd / how.temperature * slope
        if labels is not None and how.ce != 0:
            rows, classes, lq = np.arange(len(s)), s.shape[1], _log_softmax(s)
            soft = np.mean(-lq, axis=1) if how.smoothing else 0
            loss = loss + how.ce * ((1 - how.smoothing) * -lq[rows, labels] + how.smoothing * soft)
            slope = slope + how.ce * (np.exp(lq) - how.smoothing / classes)
            slope[rows, labels] -= how.ce * (1 - how.smoothing)
    return loss, slope


def _log_softmax(x: Float64) -> Float64:
    x = x - x.max(axis=1, keepdims=True)
    normaliser: Float64 = np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x - normaliser


# Each from log p (teacher) and log q (student) to the loss, and its derivative by the softened logits x, of which q is the softmax.
# By the chain rule that is q (g - sum q g), g being the derivative by q. -inf is a class that is masked: 0 log 0 = 0.


def _kl(lp: Float64, lq: Float64, beta: float) -> tuple[Float64, Float64]:
    """sum p log(p / q): Hinton, Vinyals and Dean 2015. inf where the teacher has a class that the student masks."""
    term = np.where(lp > -np.inf, np.where(lq > -np.inf, np.exp(lp) * (lp - lq), np.inf), 0)
    return np.maximum(term.sum(axis=1), 0), np.exp(lq) - np.exp(lp)


def _reverse_kl(lp: Float64, lq: Float64, beta: float) -> tuple[Float64, Float64]:
    """sum q log(q / p): Gu et al. 2024 (MiniLLM). inf where the student has a class that the teacher masks, and NaN as derivative."""
    q, d = np.exp(lq), lq - lp
    loss = np.where(lq > -np.inf, np.where(lp > -np.inf, q * d, np.inf), 0).sum(axis=1)
    slope = np.where(lq > -np.inf, q * (d - loss[:, None]), 0)
    return np.maximum(loss, 0), np.where(np.isinf(loss)[:, None], np.nan, slope)


def _jsd(lp: Float64, lq: Float64, beta: float) -> tuple[Float64, Float64]:
    """beta KL(p, m) + (1 - beta) KL(q, m) with m = beta p + (1 - beta) q: Agarwal et al. 2024 (GKD)."""
    p, q = np.exp(lp), np.exp(lq)
    lm = np.logaddexp(lp + np.log(beta), lq + np.log1p(-beta))
    to_p, to_q = np.where(lp > -np.inf, lp - lm, 0), np.where(lq > -np.inf, lq - lm, 0)
    loss = (beta * p * to_p + (1 - beta) * q * to_q).sum(axis=1)
    return np.maximum(loss, 0), (1 - beta) * q * (to_q - (q * to_q).sum(axis=1, keepdims=True))


def _tvd(lp: Float64, lq: Float64, beta: float) -> tuple[Float64, Float64]:
    """sum |p - q| / 2: Wen et al. 2023 (f-distill)."""
    p, q = np.exp(lp), np.exp(lq)
    g = np.sign(q - p) / 2
    return np.abs(q - p).sum(axis=1) / 2, q * (g - (q * g).sum(axis=1, keepdims=True))


KD_KINDS = {"kl": _kl, "reverse_kl": _reverse_kl, "jsd": _jsd, "tvd": _tvd}
"""What `distillation_loss(kind=)` may name, beside "mse" on the logits."""
