"""Making the weights: one implementation for all backends."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays
from edgecomp.arguments import flag, integer, one_of
from edgecomp.grouped import GroupedInt8Weight, Int4Weight, as_scale, check_group_size, fits_half, scale_name
from edgecomp.weights import DenseWeight, Int8Weight

_SCALE_MAX = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))
"""The largest scale with 127 * scale below Inf: the largest floats divided by 127 round up."""


def weight_array(w: Any, where: str) -> arrays.Float32:
    """Finite float32 [N, K], or TypeError / ValueError."""
    a = arrays.to_float32(w, f"{where}: w")
    if a.ndim != 2:
        raise ValueError(f"{where}: w has shape {a.shape}, wanted [out_features, in_features]")
    finite = np.isfinite(a)
    if not finite.all():
        row, col = np.argwhere(~finite)[0]
        raise ValueError(f"{where}: w[{row}, {col}] is {a[row, col]}, wanted finite values")
    return a


def pack(w: Any) -> DenseWeight:
    """float32 weights packed once for `linear`: saves the packing that a plain array costs at each call.

    Args:
        w: float32 [N, K] (out_features, in_features), finite.

    Raises:
        TypeError, ValueError: not a finite float matrix.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> ec.pack(np.ones((4, 3), np.float32))
        DenseWeight(4x3, 32 bits, n16, 192 bytes)
    """
    return DenseWeight.from_array(weight_array(w, "pack"))


def quantize(
    w: Any,
    bits: int = 8,
    *,
    group_size: int | str | None = "default",
    symmetric: bool = True,
    method: str = "absmax",
    scale_dtype: npt.DTypeLike | None = None,
) -> Int8Weight | Int4Weight | GroupedInt8Weight:
    """Weights to int8 or int4, with one scale per output feature or per group of its inputs.

    Args:
        w: float32 [N, K] (out_features, in_features), finite.
        bits: 8 or 4.
        group_size: inputs that share a scale: a multiple of 16 up to 256, or None for all K. Default: None for 8 bits, 32 for 4.
        symmetric: zero is the middle code; else every group gets a zero point of its own.
        method: "absmax" covers the largest value; "mse" tries smaller ranges too and keeps the one with the least squared error.
        scale_dtype: "float16" or "float32" (or NumPy's dtype): the scales of groups. Default: float16, or float32 where a float16 scale
            would leave its normal range.

    Returns:
        Int8Weight (8 bits, no groups), GroupedInt8Weight (8 bits) or Int4Weight. A row or group whose scale would be below 2**-126
        becomes zeros with scale 1.

    Raises:
        TypeError, ValueError: not a finite float matrix, a combination that does not exist, float16 scales out of range.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> w = ec.quantize(np.array([[1.27, -0.64, 0.0]], np.float32))
        >>> w.q
        array([[127, -64,   0]], dtype=int8)
        >>> ec.quantize(np.ones((64, 256), np.float32), bits=4, group_size=128)
        Int4Weight(64x256, 4 bits, n32g128, 8448 bytes)
    """
    bits = integer("quantize: bits", bits, (4, 8), "8 or 4")
    one_of("quantize: method", method, ("absmax", "mse"))
    flag("quantize: symmetric", symmetric)
    kind = scale_name(scale_dtype, "quantize")
    a = weight_array(w, "quantize")
    if isinstance(group_size, str) and group_size == "default":
        group_size = 32 if bits == 4 else None
    if bits == 8 and group_size is None:
        if not symmetric or method != "absmax" or kind == "float16":
            raise ValueError("quantize: 8 bits per output are symmetric, absmax, with float32 scales; give a group_size for more")
        return Int8Weight.from_arrays(*codes_per_output(a))
    group = check_group_size(group_size, a.shape[1], "quantize")
    return _grouped(a, bits, group, group_size is None, symmetric, method, kind)


def codes_per_output(a: arrays.Float32) -> tuple[npt.NDArray[np.int8], arrays.Float32]:
    """int8 [N, K] in -127..127 and its scales float32 [N]."""
    scale = np.minimum(np.abs(a).max(axis=1, initial=0) / np.float32(127), _SCALE_MAX)
    used = scale >= np.float32(2.0**-126)
    scale = np.where(used, scale, np.float32(1))
    q = np.clip(np.rint(np.where(used[:, None], a, np.float32(0)) / scale[:, None]), -127, 127).astype(np.int8)
    return q, scale


_SHRINK = np.linspace(1, 0.6, 17)
"""Shares of the full range that method "mse" tries."""


def _grouped(
    a: arrays.Float32, bits: int, group: int, single: bool, symmetric: bool, method: str, scale_dtype: str | None
) -> Int4Weight | GroupedInt8Weight:
    n, k = a.shape
    groups = -(-k // group)
    whole = np.zeros((n, groups * group))
    whole[:, :k] = a
    x = whole.reshape(n, groups, group)
    low, high = np.minimum(x.min(axis=2, initial=0), 0), np.maximum(x.max(axis=2, initial=0), 0)
    half, top = (1 << (bits - 1)) - 1, (1 << bits) - 1
    full = np.maximum(-low, high) / half if symmetric else (high - low) / top
    kind = scale_dtype or ("float16" if fits_half(full[full >= 2.0**-126]) and (full[full > 0] >= 2.0**-126).all() else "float32")

    least = 2.0**-14 if kind == "float16" else 2.0**-126  # scales below leave the normal range

    def candidate(share: float) -> tuple[Any, Any, Any]:
        """Scale, zero point and codes: the codes from the scale as it is stored."""
        size = np.where(full * share >= least, full * share, full)
        used = size >= 2.0**-126
        scale = as_scale(np.where(used, size, 1.0).astype(np.float32), kind, "quantize: scale")
        step = scale.astype(np.float64)
        zero = np.full(step.shape, half + 1.0) if symmetric else np.clip(np.rint(-low * (size / np.where(used, full, 1.0)) / step), 0, top)
        if kind == "float32":  # the largest weight, rounded up, is not to become Inf
            most = np.finfo(np.float32).max / (half if symmetric else np.maximum(zero, top - zero))
            scale = np.minimum(scale, np.nextafter(most.astype(np.float32), np.float32(0)))
            step = scale.astype(np.float64)
        floor = 1 if symmetric else 0  # centred codes are used from -half on, so that q and -q both exist
        codes = np.where(used[..., None], np.clip(np.rint(x / step[..., None]) + zero[..., None], floor, top), zero[..., None])
        return scale, zero, codes

    best = candidate(1.0)
    if method == "mse":
        error = _error(x, best)
        for share in _SHRINK[1:]:
            other = candidate(float(share))
            worse = _error(x, other)
            better = worse < error
            error = np.where(better, worse, error)
            best = tuple(np.where(better if v.ndim == 2 else better[..., None], v, u) for u, v in zip(best, other, strict=True))  # type: ignore[assignment]
    scale, zero, codes = best
    flat = codes.reshape(n, groups * group)[:, :k]
    weight = Int4Weight if bits == 4 else GroupedInt8Weight
    size = None if single else group
    if symmetric:
        return weight.from_arrays((flat - (half + 1)).astype(np.int8), scale, group_size=size)
    return weight.from_arrays(flat.astype(np.uint8), scale, zero.astype(np.uint8), group_size=size)


def _error(x: Any, candidate: tuple[Any, Any, Any]) -> Any:
    scale, zero, codes = candidate
    return (((codes - zero[..., None]) * scale.astype(np.float64)[..., None] - x) ** 2).sum(axis=2)
