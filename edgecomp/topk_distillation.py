"""A teacher of which the k most probable classes were stored: the file, and the distillation loss against it."""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays
from edgecomp.arguments import file_path, flag, number, one_of, whole
from edgecomp.distillation import count_rows, divide, objective, reduce
from edgecomp.model import load
from edgecomp.model_writer import save
from edgecomp.reference import Objective, kd_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

TAILS = ("lump", "drop")
_CHUNK = 1 << 17  # values in float64 at a time
_FORMAT = "edgecomp teacher top-k"


@dataclass(frozen=True)
class TeacherTopK:
    """What `load_teacher_topk` returns: log-probabilities at `temperature`, best first, and their classes, both [..., k]."""

    values: Float32
    indices: Indices
    temperature: float
    classes: int


def save_teacher_topk(
    path: str | os.PathLike[str], teacher: Any, k: int, *, temperature: float = 1.0, values_dtype: str = "float16"
) -> None:
    """Writes the k most probable classes of each row of the teacher's logits: a model file (docs/format.md) of 4 to 8 k bytes a row.

    Args:
        path: the file; replaced as a whole, or not at all.
        teacher: logits [..., V], float32 (float16 and float64 are converted), without NaN or +inf, not all -inf in a row.
        k: 1..V.
        temperature: what the log-probabilities that are stored are softened by.
        values_dtype: "float16" (off by at most 2^-11 of a value) or "float32".

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value. Nothing is written.
    """
    f = "save_teacher_topk"
    t = arrays.to_float32(teacher, f"{f}: teacher")
    if t.ndim == 0 or t.shape[-1] == 0:
        raise ValueError(f"{f}: teacher has shape {t.shape}, wanted [..., V] with at least one class")
    kept = whole(k)
    if kept is None:
        raise TypeError(f"{f}: k is a {type(k).__name__}, wanted an int in 1..{t.shape[-1]}")
    if not 1 <= kept <= t.shape[-1]:
        raise ValueError(f"{f}: k is {k}, wanted 1..{t.shape[-1]}")
    heat = number(f"{f}: temperature", temperature, "a float in 1e-6..1e6", lambda v: 1e-6 <= v <= 1e6)
    one_of(f"{f}: values_dtype", values_dtype, ("float16", "float32"))
    flat, shape, classes = arrays.rows(t), (*t.shape[:-1], kept), t.shape[-1]
    values = np.empty((len(flat), kept), values_dtype)
    indices = np.empty((len(flat), kept), np.uint16 if classes <= 1 << 16 else np.uint32)
    step = max(1, _CHUNK // classes)
    for i in range(0, len(flat), step):
        x = flat[i : i + step].astype(np.float64) / heat
        top = x.max(axis=1)
        if not np.isfinite(top).all():
            raise ValueError(f"{f}: teacher has a row with NaN or +inf, or with nothing but -inf")
        best = np.argpartition(-x, kept - 1, axis=1)[:, :kept]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(x, best, axis=1), axis=1, kind="stable"), axis=1)
        normaliser = top + np.log(np.exp(x - top[:, None]).sum(axis=1))
        with np.errstate(over="ignore"):
            values[i : i + step] = np.take_along_axis(x, best, axis=1) - normaliser[:, None]
        indices[i : i + step] = best
    told = {"format": _FORMAT, "temperature": heat, "classes": classes}
    save(path, {"values": values.reshape(shape), "indices": indices.reshape(shape)}, metadata=told)


def load_teacher_topk(path: str | os.PathLike[str]) -> TeacherTopK:
    """Reads a file of `save_teacher_topk`, every byte checked. ValueError: it is none."""
    path = file_path("load_teacher_topk: path", path)
    where = f"load_teacher_topk: {path}"
    try:
        with load(path, mmap=False, verify="full") as model:
            told = model.metadata
            if told.get("format") != _FORMAT or set(model) != {"values", "indices"}:
                raise ValueError("a model file of something else")
            values, indices = model["values"], model["indices"]
    except (ValueError, ImportError) as error:
        raise ValueError(f"{where} is no file of save_teacher_topk ({error})") from error
    heat: Any = told.get("temperature")
    classes: Any = told.get("classes")
    numbers_fit = type(heat) is float and 0 < heat < math.inf and type(classes) is int and classes > 0
    arrays_fit = all(type(a) is np.ndarray for a in (values, indices)) and values.dtype.kind == "f" and indices.dtype.kind == "u"
    if not (numbers_fit and arrays_fit) or values.shape != indices.shape or values.ndim == 0 or (indices >= classes).any():
        raise ValueError(f"{where} has arrays that do not fit together")
    return TeacherTopK(values.astype(np.float32), indices.astype(np.int64), float(heat), int(classes))


def topk_distillation_loss(
    student: Any,
    teacher_values: Any,
    teacher_indices: Any,
    labels: Any = None,
    *,
    tail: str = "lump",
    temperature: float = 1.0,
    alpha: float | None = None,
    reduction: str = "batchmean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    teacher_kind: str = "log_probs",
    scale_by_t2: bool = True,
    return_grad: bool = True,
) -> Any:
    """`distillation_loss` of kind "kl" against the k most probable classes of a teacher. In NumPy, float64 inside, a chunk at a time.

    Args:
        student: logits [..., V].
        teacher_values: float [..., k], as `teacher_kind` says.
        teacher_indices: integers [..., k]: their classes, none twice in a row.
        tail: "lump": all other classes are one, with what is left of the teacher's probability, and the student's sum over them;
            "drop": the k probabilities are normalised to 1.
        teacher_kind: "log_probs" or "probs" of the whole softmax at `temperature`; "logits", softened here, which want tail="drop":
            what the others have is not known.
        labels, temperature, alpha, reduction, ignore_index, label_smoothing, sample_weight, scale_by_t2, return_grad: as there.

    Returns:
        (loss, grad), or the loss alone, as there.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> values, indices = np.log(np.array([[0.5]], np.float32)), np.array([[2]])
        >>> loss, grad = ec.topk_distillation_loss(np.zeros((1, 4), np.float32), values, indices)
        >>> round(loss, 4), grad.round(4)
        (0.1438, array([[ 0.0833,  0.0833, -0.25  ,  0.0833]], dtype=float32))
    """
    f = "topk_distillation_loss"
    one_of(f"{f}: tail", tail, TAILS)
    flag(f"{f}: return_grad", return_grad)
    s, t = arrays.to_float32(student, f"{f}: student"), arrays.to_float32(teacher_values, f"{f}: teacher_values")
    if s.ndim == 0 or s.shape[-1] == 0:
        raise ValueError(f"{f}: student has shape {s.shape}, wanted [..., V] with at least one class")
    lead, classes = s.shape[:-1], s.shape[-1]
    if t.ndim != s.ndim or t.shape[:-1] != lead or not 1 <= t.shape[-1] <= classes:
        raise ValueError(f"{f}: teacher_values has shape {t.shape}, wanted {(*lead, 'k')} with k in 1..{classes}")
    given = arrays.to_numpy(teacher_indices, f"{f}: teacher_indices")
    if given.dtype.kind not in "iu":
        raise TypeError(f"{f}: teacher_indices has dtype {given.dtype}, wanted integers")
    if given.shape != t.shape:
        raise ValueError(f"{f}: teacher_indices has shape {given.shape}, teacher_values has {t.shape}")
    how = objective(f, labels is not None, temperature, alpha, "kl", 0.5, label_smoothing, teacher_kind, scale_by_t2)
    if teacher_kind == "logits" and tail == "lump":
        raise ValueError(f'{f}: teacher_kind="logits" wants tail="drop": the probability of the other classes is not known')
    counted = count_rows(f, lead, classes, labels, sample_weight, ignore_index)
    scale = divide(f, reduction, counted.total, classes)
    flat, values, at = arrays.rows(s), arrays.rows(t), given.astype(np.int64).reshape(-1, given.shape[-1])
    if at.size and (at.min() < 0 or at.max() >= classes):
        raise ValueError(f"{f}: teacher_indices has values outside 0..{classes - 1}")
    if (np.diff(np.sort(at, axis=1), axis=1) == 0).any():
        raise ValueError(f"{f}: teacher_indices has a class twice in a row")
    grad = np.empty(s.shape, np.float32) if return_grad else None
    out = None if grad is None else grad.reshape(-1, classes)
    losses, step = np.empty(len(flat)), max(1, _CHUNK // classes)
    for i in range(0, len(flat), step):
        part = slice(i, i + step)
        used, weight = counted.weight[part] > 0, counted.weight[part]
        known = None if counted.labels is None else np.where(used, counted.labels[part], 0)
        loss, slope = _rows(flat[part].astype(np.float64), values[part].astype(np.float64), at[part], known, how, tail, teacher_kind)
        with np.errstate(all="ignore"):
            losses[part] = np.where(used, weight * loss, 0)
            if out is not None:
                out[part] = np.where(used[:, None], (scale * weight)[:, None] * slope, 0)
    total = reduce(reduction, losses, scale, lead)
    return total if grad is None else (total, grad)


def _rows(
    s: Float64, values: Float64, at: Indices, labels: Indices | None, how: Objective, tail: str, teacher_kind: str
) -> tuple[Float64, Float64]:
    """The loss and its derivative of each row, unweighted."""
    hard = how._replace(kd=0.0)
    with np.errstate(all="ignore"):
        lp = values / how.teacher_temperature if teacher_kind == "logits" else np.log(values) if teacher_kind == "probs" else values
        p = np.exp(lp - (lp.max(axis=1, keepdims=True) if tail == "drop" else 0))
        if tail == "drop":
            p = p / p.sum(axis=1, keepdims=True)
        x = s / how.temperature
        e = np.exp(x - x.max(axis=1, keepdims=True))
        total = e.sum(axis=1, keepdims=True)
        q, top = e / total, np.take_along_axis(e, at, axis=1)
        lq = np.take_along_axis(x - x.max(axis=1, keepdims=True), at, axis=1) - np.log(total)
        loss = np.where(p > 0, p * (np.log(p) - lq), 0).sum(axis=1)
        slope = q.copy()
        if tail == "lump":
            np.put_along_axis(e, at, 0.0, axis=1)
            rest = e.sum(axis=1) / total[:, 0]  # not 1 - the others, which would cancel
            left = np.where(at.shape[1] < s.shape[1], np.maximum(1 - p.sum(axis=1), 0), 0)
            loss = loss + np.where(left > 0, left * (np.log(left) - np.log(rest)), 0)
            slope = slope * (1 - np.where(rest > 0, left / rest, 0))[:, None]
            mass = (p.sum(axis=1) + left)[:, None]
            np.put_along_axis(slope, at, mass * top / total - p, axis=1)
        else:
            np.put_along_axis(slope, at, top / total - p, axis=1)
        most = lp.max(axis=1)  # of nothing but -inf, "drop" makes no distribution
        none = np.isnan(most) | (most == math.inf) | ((most == -math.inf) & (tail == "drop"))
        broken = np.where(np.isnan(s).any(axis=1) | none, math.nan, 0.0)
        loss, slope = how.kd * loss, how.kd / how.temperature * slope
        if how.kd == 0:
            loss, slope = np.zeros(len(s)), np.zeros(s.shape)
        more, slopes = kd_rows(s, s, labels, hard)
        return loss + more + broken, slope + slopes + broken[:, None]
