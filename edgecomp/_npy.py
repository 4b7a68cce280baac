"""Headers of .npy members: written as NumPy does, read without evaluating anything."""

import functools
import re
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93NUMPY"
MAX_HEADER = 12 + 0xFFFF
"""Bytes of a header that are looked at; the longest real one has a few hundred."""
MAX_RANK = 64 if int(np.__version__.split(".")[0]) >= 2 else 32

_TEXT = re.compile(
    r"\{'descr': ([^\n]{1,500}), 'fortran_order': (True|False), 'shape': \(((?:\d{1,19}(?:, \d{1,19})*,?)?)\), \} *\n?\Z", re.ASCII
)


class Header(NamedTuple):
    """What a .npy header says: the dtype as text, which is compared and never evaluated."""

    descr: str
    shape: tuple[int, ...]
    length: int
    """Bytes from the start of the member to the array's data."""


@functools.lru_cache(256)
def descr(dtype: np.dtype[Any]) -> str:
    """A dtype as .npy headers have it."""
    return repr(np.lib.format.dtype_to_descr(dtype))


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of an array in C order, not padded: the member before it is."""
    text = f"{{'descr': {descr(dtype)}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text


def header_length(start: bytes) -> int:
    """How many bytes the header has that begins with these (at least 12). ValueError if it is none."""
    if start[:6] != MAGIC:
        raise ValueError("is no .npy array")
    if start[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"has .npy version {start[6]}.{start[7]}, wanted 1.0, 2.0 or 3.0")
    length = 10 + struct.unpack_from("<H", start, 8)[0] if start[6] == 1 else 12 + struct.unpack_from("<I", start, 8)[0]
    if length > MAX_HEADER:
        raise ValueError(f"has a .npy header of {length} bytes, at most {MAX_HEADER} are read")
    return int(length)


@functools.lru_cache(64)  # a model has many arrays of few shapes
def parse(data: bytes) -> Header:
    """The whole header. ValueError says what is wrong with it."""
    text = data[10 if data[6] == 1 else 12 :].decode("latin-1")
    match = _TEXT.match(text)
    if not match:
        raise ValueError("has a .npy header that does not consist of descr, fortran_order and shape as NumPy writes them")
    if match[2] == "True":
        raise ValueError("is in Fortran order, wanted C order")
    shape = tuple(int(n) for n in match[3].split(",") if n.strip())
    if match[3].count(",") == 0 and shape:
        raise ValueError("has a shape that is no tuple")
    if len(shape) > MAX_RANK:
        raise ValueError(f"has {len(shape)} dimensions, at most {MAX_RANK} are possible")
    return Header(match[1], shape, len(data))


def view(data: npt.NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The bytes of an array as the array: where they are if they are aligned to 64 bytes, else copied."""
    if data.ctypes.data % 64:
        from edgecomp.packing import aligned_empty

        moved = aligned_empty(data.shape, np.uint8)
        moved[...] = data
        data = moved
    array = data.view(dtype).reshape(shape)
    native = dtype.newbyteorder("=")
    return array if native == dtype else array.astype(native)
