"""quantize and pack: one implementation for all backends."""

import re

import naive
import numpy as np
import pytest
from cases import LAYOUTS, assert_bits, problem

import edgecomp as ec

MAKERS = {"quantize": ec.quantize, "pack": ec.pack}
f = np.float32


def assert_quantized(w):
    got, (q, scale) = ec.quantize(w), naive.quantize_weights(w)
    assert_bits(got.q, q)
    assert_bits(got.scale, scale)


@pytest.mark.parametrize(("n", "k"), [(0, 0), (0, 5), (3, 0), (16, 0), (1, 1), (15, 3), (16, 4), (17, 5), (33, 70)])
def test_shapes(n, k):
    w = problem(0, n, k).w
    assert_quantized(w)
    assert_bits(ec.pack(w).dequantize(), w)


def test_values_at_the_edges():
    tiny = f(127 * 2.0**-126)  # the smallest scale
    rows = [[0, 0], [-0.0, 0], [3.4028235e38, -1], [-3.4028235e38, 1], [tiny, 0], [np.nextafter(tiny, f(0)), 0], [1e-45, -1e-45]]
    assert_quantized(np.array(rows, np.float32))
    w = ec.quantize(np.array(rows, np.float32))
    np.testing.assert_array_equal(w.scale[[0, 1, 5, 6]], 1)
    np.testing.assert_array_equal(w.q[[0, 1, 5, 6]], 0)
    np.testing.assert_array_equal(w.q[:, 0][2:5], [127, -127, 127])
    assert np.isfinite(w.dequantize()).all()


def test_ties_go_to_even():
    w = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5]], np.float32)
    np.testing.assert_array_equal(ec.quantize(w).q, [[127, 0, 2, 2, 0, -2, 126]])


def test_error_is_half_a_scale():
    w = ec.quantize(problem(0, 33, 70).w)
    assert (np.abs(w.dequantize() - problem(0, 33, 70).w) <= 0.5001 * w.scale[:, None]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    w = problem(0, 17, 33).w
    assert_bits(ec.pack(LAYOUTS[layout](w)).dequantize(), w)
    assert_bits(ec.quantize(LAYOUTS[layout](w)).q, ec.quantize(w).q)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_converted(dtype):
    w = problem(0, 5, 9).w.astype(dtype)
    assert_bits(ec.pack(w).dequantize(), w.astype(np.float32))
    assert_bits(ec.quantize(w).q, ec.quantize(w.astype(np.float32)).q)


def test_every_backend_gives_the_same(impl):
    assert_quantized(problem(0, 17, 33).w)


WRONG = [
    (np.array([[1, 2], [np.nan, 1]], np.float32), ValueError, "w[1, 0] is nan, wanted finite values"),
    (np.array([[1, np.inf]], np.float32), ValueError, "w[0, 1] is inf, wanted finite values"),
    (np.array([[-np.inf]]), ValueError, "w[0, 0] is -inf, wanted finite values"),
    (np.array([[1e300]]), ValueError, "w has finite float64 values beyond float32's range"),
    (np.ones(3, np.float32), ValueError, "w has shape (3,), wanted [out_features, in_features]"),
    (np.float32(1), ValueError, "w has shape (), wanted [out_features, in_features]"),
    (np.ones((1, 2, 3), np.float32), ValueError, "w has shape (1, 2, 3), wanted [out_features, in_features]"),
    (np.ones((2, 2), np.int64), TypeError, "w has dtype int64, wanted float32"),
    (np.ones((2, 2), bool), TypeError, "w has dtype bool, wanted float32"),
    (np.ones((2, 2), complex), TypeError, "w has dtype complex128, wanted float32"),
    (np.ones((2, 2), object), TypeError, "w has dtype object, wanted float32"),
    (np.ones((2, 2), np.longdouble), TypeError, f"w has dtype {np.dtype(np.longdouble)}, wanted float32"),
    (np.ma.ones((2, 2), np.float32), TypeError, "w is a masked array"),
    ([[1.0]], TypeError, "w is a list that NumPy cannot view"),
    (None, TypeError, "w is a NoneType that NumPy cannot view"),
]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(("w", "error", "message"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_refuses(maker, w, error, message):
    with pytest.raises(error, match="^" + re.escape(f"{maker}: {message}")):
        MAKERS[maker](w)


@pytest.mark.parametrize("given", [3, 16, 0, -8, True, "8", None])
def test_refuses_other_bits(given):
    with pytest.raises(ValueError, match="^" + re.escape(f"quantize: bits is {given!r}, wanted 8")):
        ec.quantize(np.ones((2, 2), np.float32), bits=given)
