"""quantize_rows: float32 rows to uint8 with a scale and a zero point each."""

import naive
import numpy as np
import pytest
from cases import KS, LAYOUTS, MS, SPECIAL, assert_bits, problem
from guard import guarded

import edgecomp as ec

f = np.float32


def check(x):
    """quantize_rows(x) against the slow twin, for [M, K]."""
    got = ec.quantize_rows(x)
    for i, row in enumerate(x):
        q, scale, zero = naive.quantize_row(row)
        np.testing.assert_array_equal(got.q[i], q, f"row {i}")
        assert_bits(got.scale[i : i + 1], np.array([scale]), f"scale of row {i}")
        assert got.zero[i] == zero, f"zero of row {i}"
    assert got.q.shape == got.shape == x.shape
    assert got.scale.shape == got.zero.shape == x.shape[:-1]
    assert (got.q.dtype, got.scale.dtype, got.zero.dtype) == (np.uint8, np.float32, np.uint8)


@pytest.mark.parametrize("k", KS)
def test_edge_shapes(impl, k):
    for m in MS:
        check(problem(m, 0, k).x)


@pytest.mark.parametrize("k", [1, 2, 7, 16, 17, 40])
def test_special_values(impl, k):
    rng = np.random.default_rng(k)
    x = rng.standard_normal((len(SPECIAL), k)).astype(np.float32)
    x[np.arange(len(SPECIAL)), rng.integers(0, k, len(SPECIAL))] = SPECIAL
    check(x)
    check(np.repeat(np.array(SPECIAL, np.float32)[:, None], k, axis=1))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_anywhere(impl, value):
    for k in (1, 5, 70, 131):
        x = np.ones((k, k), np.float32)
        np.fill_diagonal(x, value)
        xq = ec.quantize_rows(x)
        assert_bits(xq.scale, np.full(k, naive.NAN))
        assert not xq.q.any()
        assert not xq.zero.any()


def test_the_smallest_scale(impl):
    """Below 2**-126 a row counts as zeros."""
    edge = f(255 * 2.0**-126)
    for value in (edge, np.nextafter(edge, f(0)), np.nextafter(edge, f(1))):
        check(np.array([[value, 0], [-value, 0], [value / 2, -value / 2]], np.float32))


def test_ties_go_to_even(impl):
    check(np.array([[255, 0.5, 1.5, 2.5, 253.5, 254.5, 0], [-255, -0.5, -1.5, -2.5, -253.5, -254.5, 0]], np.float32))
    check(np.array([[a, a - 255] for a in np.arange(0, 255.5, 0.5)], np.float32))  # the zero point itself


def test_error_is_half_a_scale(impl):
    x = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32) + np.linspace(-5, 5, 200, dtype=np.float32)[:, None]
    xq = ec.quantize_rows(x)
    assert (np.abs(xq.dequantize() - x) <= xq.scale[:, None] * 0.5001).all()


def test_the_largest_floats_come_back():
    """Or as Inf, where the product with the scale rounds up; without a warning, as what is not finite."""
    largest = np.finfo(f).max
    x = np.array([[largest] * 16, [-largest, *[largest] * 15], [np.inf] * 16], f)
    for group_size in (None, 16):
        xq = ec.quantize_rows(x, group_size=group_size)
        assert (np.abs(xq.dequantize()[:2]) > largest * 0.99).all()
        assert np.isnan(xq.dequantize()[2]).all()
    assert np.isnan(ec.QuantizedRows(np.zeros((1, 2), np.uint8), np.full(1, np.inf, f), np.zeros(1, np.uint8)).dequantize()).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(impl, layout):
    for m, k in ((1, 1), (5, 33), (9, 16), (3, 0), (0, 3)):
        x = problem(m, 0, k).x
        got, wanted = ec.quantize_rows(LAYOUTS[layout](x)), ec.quantize_rows(x)
        for name in ("q", "scale", "zero"):
            assert_bits(getattr(got, name), getattr(wanted, name), name)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (1, 1, 1, 7), (2, 0, 7), (2, 3, 0), (0,)])
def test_leading_dimensions(impl, shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    xq, flat = ec.quantize_rows(x), ec.quantize_rows(x.reshape(int(np.prod(shape[:-1])), shape[-1]))
    assert xq.shape == x.shape
    assert xq.scale.shape == xq.zero.shape == x.shape[:-1]
    assert_bits(xq.q, flat.q.reshape(x.shape))
    assert_bits(xq.scale, flat.scale.reshape(x.shape[:-1]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_reads_nothing_beside_x(impl, side):
    for m in MS:
        for k in KS:
            ec.quantize_rows(guarded(problem(m, 0, k).x, side))
