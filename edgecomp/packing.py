"""One function per packed layout, and its inverse. Every ISA reads the same panels; csrc/README.md has the larger pictures."""

import functools
import mmap
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays

PANEL = 16
"""Output features in a panel: one 512-bit vector of 32-bit sums, two of 256, four of 128."""


HUGE_PAGE = 2 << 20


def _fresh(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes of memory that nobody used: what the C library hands out again keeps the small pages that it had."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages = arrays.Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            return np.frombuffer(pages, np.uint8)
        except OSError:  # a kernel without huge pages, or no memory: then NumPy says so
            pass
    return np.empty(size, np.uint8)


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised array that begins at a cache line (64 bytes); from 4 MiB on it lies in huge pages, and its last page is one too
    where that leaves less than an eighth of it unused."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    step = 64 if size < 2 * HUGE_PAGE else HUGE_PAGE
    rest = -size % step
    room = size + step + (rest if rest < size // 8 else 0)
    raw = np.empty(room, np.uint8) if step == 64 else _fresh(room)
    start = -raw.ctypes.data % step
    return raw[start : start + size].view(dtype).reshape(shape)


class _Slab:
    """Memory that small arrays share, so that they lie in huge pages: a core that reads 100 MB of weights for every token otherwise waits
    for its page tables. It is freed with the last of its arrays."""

    SIZE = 16 << 20
    lock = threading.Lock()
    room = np.empty(0, np.uint8)


def beside_others(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """As aligned_empty, for weights that are made and kept together, those of a file: whoever keeps one may keep its neighbours' 16 MiB."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    if size >= _Slab.SIZE // 4:
        return aligned_empty(shape, dtype)  # in huge pages of its own
    with _Slab.lock:
        if size > len(_Slab.room):
            _Slab.room = aligned_empty((_Slab.SIZE,), np.uint8)
        taken, _Slab.room = _Slab.room[:size], _Slab.room[-(-size // 64) * 64 :]
    return taken.view(dtype).reshape(shape)


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


def unpack_panels_n16k4(panels: npt.NDArray[np.int8], outputs: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.int8]:
    """The inverse of panels_n16k4 for some outputs: [len(outputs), K]."""
    quads = panels[outputs // PANEL, :, outputs % PANEL]
    return np.ascontiguousarray(quads.reshape(len(outputs), panels.shape[1] * 4)[:, :k])


STRIP = 32
"""Output features in a record of grouped weights: two 512-bit vectors of 32-bit sums."""


@functools.lru_cache(64)
def record_dtype(bits: int, group_size: int, scale_dtype: npt.DTypeLike, zero: str | None) -> np.dtype[np.void]:
    """One record of grouped weights: 32 outputs, one group of inputs. A multiple of 64 bytes; the codes begin at one.

    zero: None (codes are centred), "point" (uint8 `zero`) or "offset" (`offset`, of the scales' dtype).

        scale[32] | zero[32] or offset[32] | nothing up to 64 | codes[group/4][32][4] bytes, of int4 [group/8][32][4]
    """
    scale = np.dtype(scale_dtype)
    fields: list[tuple[str, Any, int]] = [("scale", (scale, STRIP), 0)]
    header = STRIP * scale.itemsize
    if zero is not None:
        kind = np.dtype(np.uint8) if zero == "point" else scale
        fields.append(("zero" if zero == "point" else "offset", (kind, STRIP), header))
        header += STRIP * kind.itemsize
    header = -(-header // 64) * 64
    rows = -(-group_size // (8 if bits == 4 else 4))
    fields.append(("codes", (np.uint8, (rows, STRIP, 4)), header))
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": header + rows * STRIP * 4})


def records(
    codes: npt.NDArray[np.uint8],
    scale: npt.NDArray[Any],
    zero: npt.NDArray[np.uint8] | None,
    offset: npt.NDArray[Any] | None,
    bits: int,
    group_size: int,
) -> npt.NDArray[np.void]:
    """Codes [N, K], scale (and zero point or offset) [N, groups] to records [ceil(N/32)][groups]. Padding is zeros.

    Four inputs of an output are neighbours, as in n16k4. In int4 a byte holds two codes, four inputs apart:

        byte    0 .. 3           | 4 .. 7           | ...  | 124 .. 127
        output  32s              | 32s+1            | ...  | 32s+31
        low     inputs 8j .. 8j+3, high nibble  8j+4 .. 8j+7
    """
    n, k = codes.shape
    groups = scale.shape[1]
    strips = -(-n // STRIP)
    kind = "point" if zero is not None else "offset" if offset is not None else None
    out = aligned_empty((strips, groups), record_dtype(bits, group_size, scale.dtype, kind))
    out.view(np.uint8)[...] = 0
    for name, values in (("scale", scale), ("zero", zero), ("offset", offset)):
        if values is not None:
            whole = np.zeros((strips * STRIP, groups), values.dtype)
            whole[:n] = values
            out[name] = whole.reshape(strips, STRIP, groups).transpose(0, 2, 1)
    padded_group = -(-group_size // 8) * 8
    full = k // group_size
    if n % STRIP or k % group_size or group_size % 8:
        whole = np.zeros((strips * STRIP, groups, padded_group), np.uint8)
        whole[:n, :full, :group_size] = codes[:, : full * group_size].reshape(n, full, group_size)
        if full < groups:
            whole[:n, full, : k - full * group_size] = codes[:, full * group_size :]
        codes = whole
    quads = np.ascontiguousarray(codes).view(np.uint32).reshape(strips, STRIP, groups, padded_group // 4)  # 4 bytes move as one
    if bits == 4:
        quads = quads[..., 0::2] | quads[..., 1::2] << np.uint32(4)  # no code has a bit that would reach the next byte
    out["codes"].view(np.uint32)[..., 0] = quads.transpose(0, 2, 3, 1)
    return out


def unpack_records(
    packed: npt.NDArray[np.void], bits: int, group_size: int, outputs: npt.NDArray[np.intp], k: int
) -> npt.NDArray[np.uint8]:
    """The codes [len(outputs), K] of some outputs in records."""
    groups = packed.shape[1]
    c = packed["codes"][outputs // STRIP, :, :, outputs % STRIP]  # output, group, eight or quad, input
    if bits == 4:
        c = np.stack([c & 15, c >> 4], axis=-2)
    return np.ascontiguousarray(c.reshape(len(outputs), groups * group_size)[:, :k])


def unpack_columns(packed: npt.NDArray[np.void], name: str, outputs: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """A per-group field of records ("scale", "zero" or "offset") of some outputs as [len(outputs), groups]."""
    return np.ascontiguousarray(packed[name][outputs // STRIP, :, outputs % STRIP])
