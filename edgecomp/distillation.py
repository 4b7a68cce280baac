"""Knowledge distillation: the loss of a student's logits and its gradient, without a [batch, classes] temporary."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, backend, pool
from edgecomp.arguments import flag, number, one_of, whole
from edgecomp.reference import Objective

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

KINDS = ("kl", "reverse_kl", "jsd", "tvd", "mse")
REDUCTIONS = ("batchmean", "sum", "none", "mean")
TEACHER_KINDS = ("logits", "log_probs", "probs")
_CHUNK = 1 << 18  # values converted at a time where the inputs are not float32


def distillation_loss(
    student: Any,
    teacher: Any,
    labels: Any = None,
    *,
    temperature: float = 1.0,
    alpha: float | None = None,
    kind: str = "kl",
    beta: float = 0.5,
    reduction: str = "batchmean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    teacher_kind: str = "logits",
    scale_by_t2: bool = True,
    return_grad: bool = True,
    grad_out: npt.NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> Any:
    """The distillation loss (Hinton, Vinyals and Dean 2015) and its gradient by the student's logits.

    A row's loss is alpha * T^2 * KD + (1 - alpha) * CE, with p and q the softmax of teacher and student at temperature T:

        kl          sum p log(p / q), teacher to student
        reverse_kl  sum q log(q / p)
        jsd         beta KL(p, m) + (1 - beta) KL(q, m) with m = beta p + (1 - beta) q
        tvd         sum |p - q| / 2
        mse         sum ((student - teacher) / T)^2, on the logits

    and CE the cross entropy of the student at temperature 1 with the labels.

    Args:
        student: logits [..., V], float32 or float16 (float64 is converted to float32).
        teacher: as `teacher_kind` says, of the student's shape.
        labels: integers [...], or None for the distillation term alone.
        temperature: T, a positive float.
        alpha: the share of the distillation term, 0..1: has to be chosen with labels; 1 without.
        kind: one of the above.
        beta: of "jsd", between 0 and 1.
        reduction: "sum" of the rows; "batchmean": the sum / the number of rows (torch's "batchmean", and what its cross_entropy calls
            "mean"); "mean": the sum / (rows * V), as torch's kl_div and mse_loss have it: V times smaller than "batchmean"; "none": a
            loss per row, and the gradient of their sum.
        ignore_index: rows with this label leave both terms and the divisor; their gradient is 0. It need not be a class.
        label_smoothing: 0..1, of the CE term: the target is (1 - s) * one-hot + s / V.
        sample_weight: non-negative weights [...] of the rows; the divisors above then count each row by its weight.
        teacher_kind: "logits" are softened by T; "log_probs" and "probs" are the teacher's distribution, softened already, taken as it
            is but for being normalised. (Log-probabilities of temperature 1 are logits too.)
        scale_by_t2: whether the distillation term is multiplied by T^2, so that its gradient does not shrink with T.
        return_grad: False returns the loss alone.
        grad_out: float32 [..., V] for the gradient; may be `student` itself, but overlap no other input. Returned.
        threads: limit for this call, 1..1024.

    Returns:
        (loss, grad), or the loss alone: a Python float (float64 [...] with "none"); grad is float32 [..., V]. A row with NaN, +inf, or
        nothing but -inf makes its loss and gradient NaN; of these, "mse" makes inf of +inf in the teacher, and takes -inf for masks. -inf
        masks a class: 0 log 0 = 0. A class masked by the student only
        makes kl inf (its gradient stays finite), one masked by the teacher only reverse_kl (its gradient becomes NaN). Without rows
        that count, means are 0 / 0 = NaN, "sum" is 0, the gradient is 0.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value. Nothing is written.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> student, teacher = np.array([[0.0, 0.0]], np.float32), np.log(np.array([[1.0, 3.0]], np.float32))
        >>> loss, grad = ec.distillation_loss(student, teacher)
        >>> round(loss, 4), grad
        (0.1308, array([[ 0.25, -0.25]], dtype=float32))
    """
    f = "distillation_loss"
    s, t = _float(student, f"{f}: student"), _float(teacher, f"{f}: teacher")
    if s.ndim == 0 or s.shape[-1] == 0:
        raise ValueError(f"{f}: student has shape {s.shape}, wanted [..., V] with at least one class")
    if t.shape != s.shape:
        raise ValueError(f"{f}: teacher has shape {t.shape}, student has {s.shape}")
    how = objective(
        f, labels is not None, temperature, alpha, kind, beta, label_smoothing, teacher_kind, scale_by_t2,
    )  # fmt: skip
    counted = count_rows(f, s.shape[:-1], s.shape[-1], labels, sample_weight, ignore_index)
    scale = divide(f, reduction, counted.total, s.shape[-1])
    limit = pool.limit(threads, f"{f}: threads")
    grad = _gradient(f, student, s, return_grad, grad_out, t, labels, sample_weight)
    losses = np.empty(len(counted.weight))
    v = s.shape[-1]
    out = None if grad is None else grad.reshape(-1, v) if grad.ndim != 2 else grad
    run_rows(arrays.rows(s), _prepared(arrays.rows(t), teacher_kind), counted, how, scale, losses, out, limit)
    loss = reduce(reduction, losses, scale, s.shape[:-1])
    return loss if grad is None else (loss, grad)


class Counted(NamedTuple):
    """Which rows count, and how much."""

    labels: npt.NDArray[np.int64] | None
    weight: Float64  # [M], 0 for rows that are ignored
    total: float  # the sum of the weights


def _float(obj: Any, where: str) -> Array:
    """float32 or float16; float64 is converted to float32."""
    a = arrays.to_numpy(obj, where)
    return a if a.dtype == np.float16 and a.dtype.isnative else arrays.to_float32(a, where)


def objective(*options: Any) -> Objective:
    """The checked options of a loss, see `_objective`; a training loop has the same ones at every step."""
    with contextlib.suppress(TypeError):  # not hashable, or of a wrong type: what follows says which
        return _known_objective(*options)
    return _objective(*options)


def _objective(
    f: str,
    labelled: bool,
    temperature: Any,
    alpha: Any,
    kind: Any,
    beta: Any,
    smoothing: Any,
    teacher_kind: Any,
    scale_by_t2: Any,
) -> Objective:
    """The checked options of a loss. `f` begins the message of an error."""
    one_of(f"{f}: kind", kind, KINDS)
    one_of(f"{f}: teacher_kind", teacher_kind, TEACHER_KINDS)
    if kind == "mse" and teacher_kind != "logits":
        raise ValueError(f'{f}: kind="mse" compares logits, teacher_kind is {teacher_kind!r}')
    t = number(f"{f}: temperature", temperature, "a float in 1e-6..1e6", lambda v: 1e-6 <= v <= 1e6)
    beta = number(f"{f}: beta", beta, "a float between 0 and 1 (at the ends use kl and reverse_kl)", lambda v: 0 < v < 1)
    smoothing = number(f"{f}: label_smoothing", smoothing, "a float in 0..1", lambda v: 0 <= v <= 1)
    if alpha is None:
        if labelled:
            raise ValueError(f"{f}: alpha has to be chosen with labels: alpha * T^2 * KD + (1 - alpha) * CE")
        alpha = 1.0
    alpha = number(f"{f}: alpha", alpha, "a float in 0..1", lambda v: 0 <= v <= 1)
    if not labelled and alpha != 1:
        raise ValueError(f"{f}: alpha is {alpha!r}, which wants labels")
    if not labelled and smoothing:
        raise ValueError(f"{f}: label_smoothing is {smoothing!r}, which wants labels")
    flag(f"{f}: scale_by_t2", scale_by_t2)
    weight = alpha * (t * t if scale_by_t2 else 1.0)
    return Objective(kind if weight else "kl", t, t if teacher_kind == "logits" else 1.0, weight, 1 - alpha, beta, smoothing)


_known_objective = functools.lru_cache(maxsize=64, typed=True)(_objective)
_ONES = np.ones(1024)
_ONES.flags.writeable = False


def count_rows(f: str, lead: tuple[int, ...], classes: int, labels: Any, sample_weight: Any, ignore_index: Any) -> Counted:
    """Labels and weights, checked, of rows of shape `lead`."""
    ignore, m = whole(ignore_index), math.prod(lead)
    if ignore is None:
        raise TypeError(f"{f}: ignore_index is a {type(ignore_index).__name__}, wanted an int")
    weight, total = _ONES[:m] if m <= len(_ONES) else np.ones(m), float(m)
    if sample_weight is not None:
        given = arrays.to_numpy(sample_weight, f"{f}: sample_weight")
        if given.dtype.kind != "f":
            raise TypeError(f"{f}: sample_weight has dtype {given.dtype}, wanted a float dtype")
        if given.shape != lead:
            raise ValueError(f"{f}: sample_weight has shape {given.shape}, wanted {lead}")
        weight = given.astype(np.float64).reshape(-1)
        total = float(weight.sum())
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(f"{f}: sample_weight has a value that is negative or not finite")
    if labels is None:
        return Counted(None, weight, total)
    given = arrays.to_numpy(labels, f"{f}: labels")
    if given.dtype.kind not in "iu":
        raise TypeError(f"{f}: labels has dtype {given.dtype}, wanted integers")
    if given.shape != lead:
        raise ValueError(f"{f}: labels has shape {given.shape}, wanted {lead}")
    wanted = np.ascontiguousarray(given, np.int64).reshape(-1)
    if m and not 0 <= ignore < classes and np.maximum.reduce(wanted.view(np.uint64)) < classes:
        return Counted(wanted, weight, total)  # all are classes
    flat = given.reshape(-1)  # not wanted: large uint64 would be negative there
    ignored = flat == ignore
    bad = ~ignored & ((flat < 0) | (flat >= classes))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"{f}: labels has {flat[at]} in row {at}, wanted 0..{classes - 1} or ignore_index ({ignore_index})")
    weight = np.where(ignored, 0.0, weight)
    return Counted(wanted, weight, float(weight.sum()))


def divide(f: str, reduction: Any, total: float, classes: int) -> float:
    """What the sum over the rows is multiplied with: 0 where the divisor is 0. total: of the rows' weights."""
    one_of(f"{f}: reduction", reduction, REDUCTIONS)
    if reduction in ("sum", "none"):
        return 1.0
    divisor = total * (classes if reduction == "mean" else 1)
    return 1 / divisor if divisor else 0.0


def reduce(reduction: str, losses: Float64, scale: float, lead: tuple[int, ...]) -> Any:
    if reduction == "none":
        return losses.reshape(lead)
    return float(np.add.reduce(losses)) * scale if scale else math.nan


def _gradient(f: str, student: Any, s: Array, return_grad: Any, grad_out: Any, t: Array, *others: Any) -> Float32 | None:
    """Where the gradient goes: fresh, or the checked grad_out, which may be the student's own buffer."""
    flag(f"{f}: return_grad", return_grad)
    if not return_grad:
        if grad_out is not None:
            raise ValueError(f"{f}: grad_out is given, but return_grad is False")
        return None
    if grad_out is None:
        return np.empty(s.shape, np.float32)
    inputs = [t, *(arrays.to_numpy(o, f) for o in others if o is not None)]
    given = arrays.to_numpy(student, f)
    if grad_out is not given and not (
        isinstance(grad_out, np.ndarray)
        and np.may_share_memory(grad_out, given)
        and grad_out.__array_interface__["data"] == given.__array_interface__["data"]
        and (grad_out.dtype, grad_out.shape, grad_out.strides) == (given.dtype, given.shape, given.strides)
    ):
        inputs.append(given)
    return arrays.check_out(grad_out, s.shape, np.dtype(np.float32), f"{f}: grad_out", *inputs)


def _prepared(teacher: Array, kind: str) -> Callable[[slice], Float32] | Float32:
    """The teacher as the kernels take it: float32 logits or log-probabilities; or how to make them of some rows."""
    if kind != "probs":
        return teacher

    def logarithm(rows: slice) -> Float32:
        with np.errstate(all="ignore"):
            return np.log(teacher[rows].astype(np.float32))

    return logarithm


def teacher_rows(teacher: Any, kind: str, where: str) -> tuple[Array, Callable[[slice], Float32]]:
    """A teacher [M, V], and its rows as the kernels take them: float32 logits or log-probabilities."""
    a = _float(teacher, where)
    if a.ndim != 2:
        raise ValueError(f"{where} has shape {a.shape}, wanted [M, V]")
    a = arrays.rows(a)
    made = _prepared(a, kind)
    return a, (lambda rows: a[rows].astype(np.float32, copy=False)) if isinstance(made, np.ndarray) else made


def run_rows(
    student: Array,
    teacher: Callable[[slice], Float32] | Array,
    counted: Counted,
    how: Objective,
    scale: float,
    losses: Float64,
    grad: Float32 | None,
    limit: int,
) -> None:
    """The backend's kd_loss over [M, V]: at once if both are float32, else chunk by chunk through converted copies."""
    m, v = student.shape
    op = backend.current().kd_loss
    labels, weight, _total = counted
    if isinstance(teacher, np.ndarray) and student.dtype == teacher.dtype == np.float32:
        if m:
            op(student, teacher, labels, weight, how, scale, losses, grad, limit)
        return
    step = max(1, _CHUNK // v)
    for i in range(0, m, step):
        part = slice(i, min(i + step, m))
        t = teacher[part].astype(np.float32, copy=False) if isinstance(teacher, np.ndarray) else teacher(part)
        op(
            student[part].astype(np.float32, copy=False), t, None if labels is None else labels[part], weight[part], how, scale,
            losses[part], None if grad is None else grad[part], limit,
        )  # fmt: skip
