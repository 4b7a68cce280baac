"""GGML's blocks of 32 values straight to the records that the kernels read: bytes move, nothing is decoded. In C, or in NumPy where it was
not built: several strips at a time, so that what NumPy makes in between stays in the cache."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import packing, pool

try:
    from edgecomp._edgecomp_c import ffi, lib
except ImportError:
    lib = None

Array = npt.NDArray[Any]

CHUNK = 1 << 19
"""Bytes of blocks that are converted together."""

LOW, HIGH = np.uint32(0x0F0F0F0F), np.uint32(0xF0F0F0F0)
FOUR = np.uint32(4)


def block_dtype(bits: int, offset: bool) -> np.dtype[np.void]:
    """A block: float16 scale, float16 offset or none, then 32 nibbles (low ones first) or bytes, here as words."""
    halves: list[Any] = [("scale", "<f2"), *([("offset", "<f2")] if offset else [])]
    return np.dtype([*halves, ("codes", np.uint32, bits)])


def records(blocks: Array, bits: int, offset: bool) -> tuple[Array, bool]:
    """uint8 blocks [N, K/32, block] to records [ceil(N/32)][K/32]: those of packing.records for the same codes. And whether all scales and
    offsets are finite."""
    n, groups, _ = blocks.shape
    kind = packing.record_dtype(bits, 32, np.float16, "offset" if offset else None)
    out = packing.beside_others((-(-n // packing.STRIP), groups), kind)
    if not out.size:
        return out, True
    if lib is None or sys.byteorder == "big":
        return out, _by_numpy(blocks, bits, offset, out)
    limit = pool.limit(None, "threads")
    status = lib.ec_ggml_records(n, groups, bits, offset, ffi.from_buffer(blocks), ffi.from_buffer(out), limit)
    return out, bool(status == lib.EC_OK)


def _by_numpy(blocks: Array, bits: int, offset: bool, out: Array) -> bool:
    """Fills the records; whether all that they hold is finite."""
    n, groups, _ = blocks.shape
    whole, strips = n // packing.STRIP, len(out)
    dtype = block_dtype(bits, offset)
    rows = blocks.view(dtype)[..., 0]
    step = max(1, CHUNK // (packing.STRIP * groups * dtype.itemsize))
    for first in range(0, whole, step):
        last = min(first + step, whole)
        _convert(rows[first * packing.STRIP : last * packing.STRIP], out[first:last], bits)
    if whole < strips:
        rest = np.zeros((packing.STRIP, groups), dtype)
        rest[: n % packing.STRIP] = rows[whole * packing.STRIP :]
        _convert(rest, out[whole:], bits)
        out["codes"][whole, :, :, n % packing.STRIP :] = 0  # a padded int8 code of 0 is not the zero of the format
    return all(bool(np.isfinite(rows[name]).all()) for name in rows.dtype.names[:-1])  # type: ignore[index]


def _convert(rows: Array, out: Array, bits: int) -> None:
    """Whole strips of blocks [32 * strips, groups] to records [strips, groups]."""
    strips, groups = out.shape
    blocks = rows.reshape(strips, packing.STRIP, groups)
    for name in rows.dtype.names[:-1]:  # type: ignore[index]
        out[name] = blocks[name].transpose(0, 2, 1)
    words = np.ascontiguousarray(blocks["codes"].transpose(3, 0, 2, 1))  # word, strip, group, output
    codes = out["codes"].view(np.uint32)[..., 0]
    if bits == 8:
        words ^= np.uint32(0x80808080)
        for i, word in enumerate(words):
            codes[:, :, i] = word
        return
    even, odd = words[0::2], words[1::2]  # a word has values 4i .. 4i+3 in its low nibbles, 4i+16 .. 4i+19 in the high ones
    low = odd & LOW
    low <<= FOUR
    low |= even & LOW
    high = even >> FOUR
    high &= LOW
    high |= odd & HIGH
    for i, word in enumerate((*low, *high)):
        codes[:, :, i] = word
