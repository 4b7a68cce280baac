"""The packed layouts: where each value lies, and the way back."""

import numpy as np
import pytest
from cases import KS, NS, assert_bits

import edgecomp as ec
from edgecomp import arrays, packing


def pairs():
    return [(n, k) for n in NS for k in KS]


def test_panels_n16k4():
    """Input i of output j: panel j / 16, quad i / 4, column j % 16, byte i % 4. The rest is zeros."""
    for n, k in pairs():
        q = np.random.default_rng((n, k)).integers(-127, 128, (n, k)).astype(np.int8)
        panels = packing.panels_n16k4(q)
        assert panels.shape == (-(-n // 16), -(-k // 4), 16, 4)
        j, i = np.indices((n, k))
        assert_bits(panels[j // 16, i // 4, j % 16, i % 4], q, (n, k))
        assert np.count_nonzero(panels) == np.count_nonzero(q)
        assert_bits(packing.unpack_panels_n16k4(panels, np.arange(n), k), q)


def test_panels_f32():
    """Input i of output j: panel j / 16, row i, column j % 16. The rest is zeros."""
    for n, k in pairs():
        w = np.random.default_rng((n, k)).standard_normal((n, k)).astype(np.float32)
        panels = packing.panels_f32(w)
        assert panels.shape == (-(-n // 16), k, 16)
        j, i = np.indices((n, k))
        assert_bits(panels[j // 16, i, j % 16], w, (n, k))
        assert np.count_nonzero(panels) == np.count_nonzero(w)
        assert_bits(packing.unpack_panels_f32(panels, n), w)


@pytest.mark.parametrize("n", NS)
def test_padded(n):
    v = np.arange(1, n + 1, dtype=np.float32)
    panels = -(-n // 16)
    assert_bits(packing.padded(v, panels), np.concatenate([v, np.zeros(16 * panels - n, np.float32)]))


def test_everything_begins_at_a_cache_line():
    for n, k in pairs():
        for panels in (packing.panels_n16k4(np.ones((n, k), np.int8)), packing.panels_f32(np.ones((n, k), np.float32))):
            assert panels.size == 0 or panels.ctypes.data % 64 == 0
        assert packing.padded(np.ones(n, np.float32), 7).ctypes.data % 64 == 0


def test_large_weights_have_pages_of_their_own():
    """From 4 MiB on: aligned to 2 MiB, writable, freed with the array, and not taken for a file."""
    large = packing.aligned_empty((3, 1 << 20), np.float32)
    assert large.ctypes.data % packing.HUGE_PAGE == 0
    large[:] = 1
    assert not arrays.is_mapped(large)
    weight = ec.pack(large[:, : 1 << 19])
    assert "mapped" not in str(ec.explain(np.zeros((1, 1 << 19), np.float32), weight))
