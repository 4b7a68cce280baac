"""Distillation of a model's last layer: the loss by its input and weights, without ever holding the logits of all rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, backend, pool
from edgecomp.arguments import POSITIVE, flag, integer
from edgecomp.distillation import count_rows, divide, objective, reduce, run_rows, teacher_rows

Float32 = npt.NDArray[np.float32]

_CHUNK = 11 << 20  # logits at a time: 44 MiB. Each chunk packs the weights anew
_TILE = 12  # rows of the tiles of the products
_COLUMNS = 1024  # classes whose part of the gradients is added at a time: bounds the workspace of the products


def _matrix(obj: Any, columns: int | None, where: str) -> Float32:
    a = arrays.to_float32(obj, where)
    if a.ndim != 2 or 0 in a.shape[1:] or (columns is not None and a.shape[1] != columns):
        raise ValueError(f"{where} has shape {a.shape}, wanted [..., {'K' if columns is None else columns}] in two dimensions")
    return arrays.rows(a)


def linear_distillation_loss(
    hidden: Any,
    weight: Any,
    teacher_logits: Any = None,
    labels: Any = None,
    *,
    teacher_hidden: Any = None,
    teacher_weight: Any = None,
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
    chunk: int | None = None,
    threads: int | None = None,
) -> Any:
    """`distillation_loss` of the logits hidden @ weight.T, and its gradient by both, with the logits of some rows at a time.

    Args:
        hidden: float32 [M, K].
        weight: float32 [V, K].
        teacher_logits: [M, V], as `teacher_kind` says; or instead of it
        teacher_hidden, teacher_weight: float32 [M, K2] and [V, K2], whose product is the teacher's logits.
        labels, temperature, alpha, kind, beta, reduction, ignore_index, label_smoothing, sample_weight, teacher_kind, scale_by_t2,
            return_grad: as there; labels and sample_weight are [M].
        chunk: rows at a time; None: so many that their logits (both sides') take 44 MiB at most. Beside the results nothing of the size of
            M * V or V * K is allocated.
        threads: limit for this call, 1..1024.

    Returns:
        (loss, grad_hidden, grad_weight), or the loss alone: a Python float (float64 [M] with "none"), float32 [M, K] and [V, K].

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> hidden, weight = np.ones((1, 1), np.float32), np.zeros((2, 1), np.float32)
        >>> loss, by_hidden, by_weight = ec.linear_distillation_loss(hidden, weight, np.log(np.array([[1.0, 3.0]], np.float32)))
        >>> round(loss, 4), by_hidden, by_weight
        (0.1308, array([[0.]], dtype=float32), array([[ 0.25],
               [-0.25]], dtype=float32))
    """
    f = "linear_distillation_loss"
    x = _matrix(hidden, None, f"{f}: hidden")
    w = _matrix(weight, x.shape[1], f"{f}: weight")
    m, v = len(x), len(w)
    if v == 0:
        raise ValueError(f"{f}: weight has shape {w.shape}, wanted at least one class")
    made = teacher_hidden is not None and teacher_weight is not None
    if (teacher_logits is None) != made or (teacher_hidden is None) != (teacher_weight is None):
        raise ValueError(f"{f}: wanted either teacher_logits, or teacher_hidden and teacher_weight")
    how = objective(f, labels is not None, temperature, alpha, kind, beta, label_smoothing, teacher_kind, scale_by_t2)
    flag(f"{f}: return_grad", return_grad)
    if made and teacher_kind != "logits":
        raise ValueError(f"{f}: teacher_hidden and teacher_weight make logits, teacher_kind is {teacher_kind!r}")
    if made:
        tx = _matrix(teacher_hidden, None, f"{f}: teacher_hidden")
        tw = _matrix(teacher_weight, tx.shape[1], f"{f}: teacher_weight")
        shape: tuple[int, ...] = (len(tx), len(tw))
        given = None
    else:
        given, prepared = teacher_rows(teacher_logits, teacher_kind, f"{f}: teacher_logits")
        shape = given.shape
    if shape != (m, v):
        raise ValueError(f"{f}: the teacher's logits have shape {shape}, the student's {(m, v)}")
    counted = count_rows(f, (m,), v, labels, sample_weight, ignore_index)
    scale = divide(f, reduction, counted.total, v)
    limit = pool.limit(threads, f"{f}: threads")
    if chunk is not None:
        chunk = integer(f"{f}: chunk", chunk, POSITIVE, "None or a positive int")
    fitting = max(1, _CHUNK // (v * (1 + made)))
    step = min(chunk or max(fitting // _TILE * _TILE, min(fitting, _TILE)), max(m, 1))

    use, losses = backend.current(), np.empty(m)
    grads = (np.zeros(x.shape, np.float32), np.zeros(w.shape, np.float32)) if return_grad else None
    logits = np.empty((step, v), np.float32)
    other = np.empty((step, v), np.float32) if made else logits
    for i in range(0, m, step):
        part = slice(i, min(i + step, m))
        n = part.stop - i
        s = logits[:n]
        use.gemm_f32(x[part], w, None, None, s, limit)
        if made:
            use.gemm_f32(tx[part], tw, None, None, other[:n], limit)
        t = other[:n] if given is None else prepared(part)
        known = counted._replace(labels=None if counted.labels is None else counted.labels[part], weight=counted.weight[part])
        run_rows(s, t, known, how, scale, losses[part], s if grads else None, limit)
        if grads is None:
            continue
        for j in range(0, v, _COLUMNS):
            columns = slice(j, min(j + _COLUMNS, v))
            use.gemm_f32_add(s[:, columns], w[columns], grads[0][part], limit)
            use.gemm_f32_add(s[:, columns].T, x[part], grads[1][columns], limit)
    loss = reduce(reduction, losses, scale, (m,))
    return loss if grads is None else (loss, *grads)
