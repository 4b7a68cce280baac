"""One function per packed layout, and its inverse. Every ISA reads the same panels; csrc/README.md has the larger pictures."""

from typing import Any

import numpy as np
import numpy.typing as npt

PANEL = 16
"""Output features in a panel: one 512-bit vector of 32-bit sums, two of 256, four of 128."""


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised array that begins at a cache line (64 bytes)."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def padded(v: npt.NDArray[Any], panels: int) -> npt.NDArray[Any]:
    """A per-output vector [N] with zeros up to [panels * 16]."""
    out = aligned_empty((panels * PANEL,), v.dtype)
    out[: len(v)] = v
    out[len(v) :] = 0
    return out


def panels_f32(w: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Float weights [N, K] to panels [ceil(N/16)][K][16].

    Panel p, row k holds w[16p .. 16p+15, k]: what one vector register multiplies by x[k]. Rows past N are zeros.
    """
    n, k = w.shape
    p = -(-n // PANEL)
    out = aligned_empty((p, k, PANEL), np.float32)
    full = n // PANEL
    out[:full] = w[: full * PANEL].reshape(full, PANEL, k).transpose(0, 2, 1)
    if full < p:
        out[full] = 0
        out[full, :, : n % PANEL] = w[full * PANEL :].T
    return out


def unpack_panels_f32(panels: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    """The inverse of panels_f32: [N, K]."""
    p, k, _ = panels.shape
    return np.ascontiguousarray(panels.transpose(0, 2, 1).reshape(p * PANEL, k)[:n])


def panels_n16k4(q: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """int8 weights [N, K] to panels n16k4 [ceil(N/16)][ceil(K/4)][16][4].

    Panel p, quad g holds, for each of the outputs 16p .. 16p+15, its 4 weights of the inputs 4g .. 4g+3: 64 bytes, one vector of
    the dot-product instructions. Zeros past N and K.

        byte    0  1  2  3 | 4  5  6  7 | ...  | 60 .. 63
        output  16p        | 16p+1      | ...  | 16p+15
        input   4g .. 4g+3 | 4g .. 4g+3 | ...  | 4g .. 4g+3
    """
    n, k = q.shape
    p, g = -(-n // PANEL), -(-k // 4)
    if n % PANEL or k % 4:
        whole = np.zeros((p * PANEL, g * 4), np.int8)
        whole[:n, :k] = q
        q = whole
    out = aligned_empty((p, g, PANEL, 4), np.int8)
    quads = np.ascontiguousarray(q).view(np.uint32).reshape(p, PANEL, g)  # 4 bytes move as one
    out.view(np.uint32)[..., 0] = quads.transpose(0, 2, 1)
    return out


def unpack_panels_n16k4(panels: npt.NDArray[np.int8], n: int, k: int) -> npt.NDArray[np.int8]:
    """The inverse of panels_n16k4: [N, K]."""
    p, g, _, _ = panels.shape
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3).reshape(p * PANEL, g * 4)[:n, :k])
