"""The int8 arithmetic once more, value by value: promise 1 of the design as a slow twin that shares no code with the package."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
f = np.float32
NAN = np.array(0x7FC00000, np.uint32).view(np.float32)[()]


def quantize_row(x: Array) -> tuple[list[int], np.float32, int]:
    """One row to its codes, scale and zero point."""
    if not all(np.isfinite(v) for v in x):
        return [0] * len(x), NAN, 0
    lo, hi = min([f(0), *x]), max([f(0), *x])
    scale = hi / f(255) - lo / f(255)
    if scale < f(2.0**-126):
        return [0] * len(x), f(1), 0
    inv = f(1) / scale
    zero = min(max(np.rint(-lo * inv), f(0)), f(255))
    return [int(min(max(np.rint(v * inv) + zero, f(0)), f(255))) for v in x], scale, int(zero)


def linear_int8(x: Array, q: npt.NDArray[np.int8], scale: Array, bias: Array | None = None) -> Array:
    """((float(sum (code - zero) * q) * row scale) * weight scale) + bias."""
    weights = q.tolist()
    y = np.empty((len(x), len(q)), np.float32)
    with np.errstate(all="ignore"):
        for i, row in enumerate(x):
            codes, row_scale, zero = quantize_row(row)
            for j, column in enumerate(weights):
                total = sum((a - zero) * b for a, b in zip(codes, column, strict=True))
                v = f(total) * row_scale * scale[j]
                if bias is not None:
                    v = v + bias[j]
                y[i, j] = NAN if np.isnan(v) else v
    return y


def quantize_weights(w: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric int8 [N, K] with one scale per row."""
    q, scale = np.zeros(w.shape, np.int8), np.ones(len(w), np.float32)
    for j, row in enumerate(w):
        s = max([f(0), *np.abs(row)]) / f(127)
        with np.errstate(over="ignore"):
            s = np.nextafter(s, f(0)) if np.isinf(f(127) * s) else s
        if s >= f(2.0**-126):
            scale[j] = s
            q[j] = [int(min(max(np.rint(v / s), f(-127)), f(127))) for v in row]
    return q, scale
