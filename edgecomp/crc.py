"""CRC-32 as ZIP has it: by the C library where this CPU multiplies without carries or has an instruction for it, else by Python's zlib."""

import zlib
from typing import Any

try:
    from edgecomp._edgecomp_c import ffi, lib
except ImportError:
    lib = None


def crc32(data: Any, value: int = 0) -> int:
    """The CRC-32 of the bytes of `data` (a contiguous buffer), continuing from `value`. Other Python threads run meanwhile."""
    if lib is None or ffi.string(lib.ec_variant(b"crc32")) == b"scalar":  # zlib has larger tables
        return zlib.crc32(data, value)
    view = ffi.from_buffer(data)
    return int(lib.ec_crc32(value, view, len(view)))
