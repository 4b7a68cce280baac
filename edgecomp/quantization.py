"""Making the weights: one implementation for all backends."""

from typing import Any

import numpy as np

from edgecomp import arrays
from edgecomp.weights import DenseWeight, Int8Weight

_SCALE_MAX = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))
"""The largest scale with 127 * scale below Inf: the largest floats divided by 127 round up."""


def _weight_array(w: Any, where: str) -> arrays.Float32:
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
    return DenseWeight.from_array(_weight_array(w, "pack"))


def quantize(w: Any, bits: int = 8) -> Int8Weight:
    """Weights to int8, symmetric, one scale per output feature: scale = max|row| / 127, q = rint(row / scale).

    Args:
        w: float32 [N, K] (out_features, in_features), finite.
        bits: 8.

    Returns:
        Int8Weight. A row whose scale would be below 2**-126 becomes zeros with scale 1.

    Raises:
        TypeError, ValueError: not a finite float matrix, or bits other than 8.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> w = ec.quantize(np.array([[1.27, -0.64, 0.0]], np.float32))
        >>> w.q
        array([[127, -64,   0]], dtype=int8)
    """
    if bits != 8:
        raise ValueError(f"quantize: bits is {bits!r}, wanted 8")
    a = _weight_array(w, "quantize")
    scale = np.minimum(np.abs(a).max(axis=1, initial=0) / np.float32(127), _SCALE_MAX)
    used = scale >= np.float32(2.0**-126)
    scale = np.where(used, scale, np.float32(1))
    q = np.clip(np.rint(np.where(used[:, None], a, np.float32(0)) / scale[:, None]), -127, 127).astype(np.int8)
    return Int8Weight.from_arrays(q, scale)
