"""CRC-32 as ZIP has it: by the C library where there is one, else by Python's zlib."""

import binascii
from typing import Any


def crc32(data: Any, value: int = 0) -> int:
    """The CRC-32 of the bytes of `data` (a contiguous buffer), continuing from `value`."""
    return binascii.crc32(data, value)
