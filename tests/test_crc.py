"""CRC-32 against zlib's. tests/c has every variant against the bare division."""

import zlib

import numpy as np
import pytest

import edgecomp as ec
from edgecomp import backend, crc

DATA = np.random.default_rng(0).integers(0, 256, 70_000, dtype=np.uint8)


def test_any_length_and_start(impl: str) -> None:
    for size in (*range(200), 255, 256, 4095, 4096, 4097, len(DATA) - 3):
        for at in (0, 3):
            part = DATA[at : at + size]
            assert crc.crc32(part) == zlib.crc32(part)
            assert crc.crc32(part, 0x9ABCDEF0) == zlib.crc32(part, 0x9ABCDEF0)
    assert crc.crc32(DATA[1000:], crc.crc32(DATA[:1000])) == crc.crc32(DATA) == zlib.crc32(DATA)


def test_what_it_takes() -> None:
    words = np.arange(100, dtype=np.float64)
    for data in (words, words.data, words.tobytes(), bytearray(b"abc"), b"", memoryview(b"xyz"), np.empty(0)):
        assert crc.crc32(data) == zlib.crc32(data)


@pytest.mark.skipif(backend.load_c() is None, reason="the C library was not built")
def test_c_scalar() -> None:
    """Which Python's zlib stands in for; the other lines end with it."""
    c = backend.load_c()
    ec.set_backend("c", isa="scalar")
    try:
        for size in (0, 1, 7, 8, 9, 64, 1003):
            data = DATA[:size].tobytes()
            assert c.lib.ec_crc32(5, data, size) == zlib.crc32(data, 5)
    finally:
        ec.set_backend("auto")
