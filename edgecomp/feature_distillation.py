"""Losses between the hidden features of a student and its teacher, and their gradient by the student's."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays
from edgecomp.arguments import flag, one_of

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FEATURE_KINDS = ("mse", "l1", "cosine", "attention")
_CHUNK = 1 << 17  # values in float64 at a time
_SMALLEST = 1e-12


def feature_loss(
    a: Any, b: Any, kind: str = "mse", *, return_grad: bool = True, grad_out: npt.NDArray[np.float32] | None = None
) -> float | tuple[float, Float32]:
    """How far the student's features a are from the teacher's b, and the gradient by a. In NumPy, float64 inside, a chunk at a time.

        mse        mean of (a - b)^2 over all values (FitNets: Romero et al. 2015)
        l1         mean of |a - b|; its derivative where they are equal is 0
        cosine     mean over the rows of 1 - a b / (|a| |b|)
        attention  mean of (f(a) - f(b))^2 over all positions: f is the mean over the channels of the squares, each sample's divided by
                   its norm (Zagoruyko and Komodakis 2017)

    Args:
        a: float32 [..., D] (float16 and float64 are converted); for "attention" [N, C, ...].
        b: of a's shape; for "attention" it may have another number of channels.
        kind: one of the above.
        return_grad: False returns the loss alone.
        grad_out: float32 array of a's shape for the gradient; may be a itself, but overlap b nowhere. Returned.

    Returns:
        (loss, grad), or the loss alone. Norms below 1e-12 count as 1e-12. NaN and Inf propagate. Without values the loss is NaN.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or value. Nothing is written.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> ec.feature_loss(np.array([[1.0, 2.0]], np.float32), np.array([[1.0, 4.0]], np.float32))
        (2.0, array([[ 0., -2.]], dtype=float32))
    """
    one_of("feature_loss: kind", kind, FEATURE_KINDS)
    flag("feature_loss: return_grad", return_grad)
    x, y = arrays.to_float32(a, "feature_loss: a"), arrays.to_float32(b, "feature_loss: b")
    if x.ndim < (2 if kind == "attention" else 1):
        raise ValueError(f"feature_loss: a has shape {x.shape}, wanted {'[N, C, ...]' if kind == 'attention' else '[..., D]'}")
    fits = x.shape == y.shape or (kind == "attention" and x.shape[:1] == y.shape[:1] and x.ndim == y.ndim and x.shape[2:] == y.shape[2:])
    if not fits:
        raise ValueError(f"feature_loss: b has shape {y.shape}, a has {x.shape}")
    if not return_grad and grad_out is not None:
        raise ValueError("feature_loss: grad_out is given, but return_grad is False")
    grad = None
    if grad_out is not None:
        same = grad_out is a
        grad = arrays.check_out(grad_out, x.shape, np.dtype(np.float32), "feature_loss: grad_out", y, None if same else x)
    elif return_grad:
        grad = np.empty(x.shape, np.float32)
    if x.size == 0 or y.size == 0:
        if grad is not None:
            grad[...] = 0
        return math.nan if grad is None else (math.nan, grad)
    if kind == "attention":
        x, y = x.reshape(*x.shape[:2], -1), y.reshape(*y.shape[:2], -1)
        out = None if grad is None else grad.reshape(x.shape)
        divisor = x.shape[0] * x.shape[2]
    else:
        x, y = arrays.rows(x), arrays.rows(y)
        out = None if grad is None else grad if grad.ndim == 2 else grad.reshape(x.shape)
        divisor = len(x) if kind == "cosine" else x.size
    step, total = max(1, _CHUNK // max(x[0].size, y[0].size)), 0.0
    with np.errstate(all="ignore"):
        for i in range(0, len(x), step):
            part = slice(i, i + step)
            loss, slope = _FEATURES[kind](x[part].astype(np.float64), y[part].astype(np.float64))
            total += loss
            if out is not None:
                out[part] = slope / divisor
    return total / divisor if grad is None else (total / divisor, grad)


def _mse(a: Float64, b: Float64) -> tuple[float, Float64]:
    d = a - b
    return float((d * d).sum()), 2 * d


def _l1(a: Float64, b: Float64) -> tuple[float, Float64]:
    d = a - b
    return float(np.abs(d).sum()), np.sign(d)


def _norm(a: Float64) -> Float64:
    norm: Float64 = np.maximum(np.sqrt((a * a).sum(axis=1, keepdims=True)), _SMALLEST)
    return norm


def _cosine(a: Float64, b: Float64) -> tuple[float, Float64]:
    na, nb = _norm(a), _norm(b)
    cosine = (a * b).sum(axis=1, keepdims=True) / (na * nb)
    turned = np.where(na > _SMALLEST, cosine * a / (na * na), 0)
    return float((1 - cosine).sum()), turned - b / (na * nb)


def _attention(a: Float64, b: Float64) -> tuple[float, Float64]:
    fa, fb = (a * a).mean(axis=1), (b * b).mean(axis=1)
    na, nb = _norm(fa), _norm(fb)
    d = fa / na - fb / nb
    slope = 2 * d / na  # by fa; its norm changes with it
    slope = slope - np.where(na > _SMALLEST, fa * (slope * fa).sum(axis=1, keepdims=True) / (na * na), 0)
    return float((d * d).sum()), slope[:, None, :] * 2 * a / a.shape[1]


_FEATURES = {"mse": _mse, "l1": _l1, "cosine": _cosine, "attention": _attention}
