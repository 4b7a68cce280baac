"""gemm_s8c: linear and matmul_int8 with int8 weights. Every bit is promised."""

import functools

import naive
import numpy as np
import pytest
from cases import EXACT, KS, MS, NS, SPECIAL, assert_bits, bits, problem, problems
from guard import filled, guarded, padded_output

import edgecomp as ec
from edgecomp import reference

f = np.float32
LINEAR_K_MAX = 66311  # 255 * 127 * 66311 < 2**31: up to here one int32 sum
rng = np.random.default_rng(8)


@functools.cache
def expected(m, n, k, activation=None):
    x, w, bias = problem(m, n, k)
    y = filled((m, n))
    reference.gemm_s8c(x, ec.quantize(w), bias, activation, y)
    return y


def random_weight(n, k, scale=1.0):
    return ec.Int8Weight.from_arrays(rng.integers(-127, 128, (n, k)).astype(np.int8), np.full(n, scale, np.float32))


@pytest.mark.parametrize("m", [0, 1, 2, 5, 9])
def test_slow_twin(impl, m):
    for n, k in ((0, 5), (1, 1), (3, 0), (15, 4), (16, 17), (17, 31), (49, 6)):
        x, w, bias = problem(m, n, k)
        q, scale = naive.quantize_weights(w)
        weight = ec.Int8Weight.from_arrays(q, scale)
        assert_bits(ec.linear(x, weight, bias), naive.linear_int8(x, q, scale, bias), (m, n, k))
        assert_bits(ec.linear(x, weight), naive.linear_int8(x, q, scale), (m, n, k))


@pytest.mark.parametrize("m", MS)
def test_edge_shapes(impl, m):
    for x, w, bias in problems(m):
        y = filled((m, len(w)))
        assert ec.linear(x, ec.quantize(w), bias, out=y) is y
        assert_bits(y, expected(m, *w.shape), w.shape)


@pytest.mark.parametrize("activation", EXACT)
def test_activations_that_are_exact(impl, activation):
    for m, n, k in ((1, 17, 5), (8, 48, 64), (9, 33, 130)):
        x, w, bias = problem(m, n, k)
        assert_bits(ec.linear(x, ec.quantize(w), bias, activation=activation), expected(m, n, k, activation), (m, n, k))


def test_scales_and_biases_of_every_kind(impl):
    """Zero, negative, tiny and huge scales are kept bit for bit, -0.0 and overflow included."""
    scale = np.array([s for s in SPECIAL if np.isfinite(s)], np.float32)
    q = rng.integers(-127, 128, (len(scale), 9)).astype(np.int8)
    q[:, 0] = 0
    w = ec.Int8Weight.from_arrays(q, scale)
    assert_bits(w.scale, scale)
    x = rng.standard_normal((len(SPECIAL), 9)).astype(np.float32) * f(1e30)
    x[:, 4] = SPECIAL
    x[0] = 0
    assert_bits(ec.linear(x, w), naive.linear_int8(x, q, scale))
    for value in SPECIAL:
        bias = np.full(len(scale), value, np.float32)
        assert_bits(ec.linear(x, w, bias), naive.linear_int8(x, q, scale, bias), value)
        for activation in EXACT:
            y = filled((len(x), len(q)))
            reference.gemm_s8c(x, w, bias, activation, y)
            assert_bits(ec.linear(x, w, bias, activation=activation), y, (value, activation))


def test_relu(impl):
    w = ec.Int8Weight.from_arrays(np.array([[1], [-1], [0]], np.int8), np.array([1, 1, -1], np.float32))
    x = np.array([[255], [np.nan], [0]], np.float32)
    wanted = np.array([[255, 0, 0], [naive.NAN] * 3, [0, 0, 0]], np.float32)  # +0.0 everywhere
    assert_bits(ec.linear(x, w, activation="relu"), wanted)


def test_rows_that_are_not_finite_give_nan_and_no_other_row_does(impl):
    for m, n, k in ((1, 1, 1), (9, 49, 33), (17, 16, 64)):
        x, w, bias = problem(m, n, k)
        bad = x.copy()
        bad[::3, k // 2] = [np.nan, np.inf, -np.inf][m % 3]
        y = ec.linear(bad, ec.quantize(w), bias)
        assert (bits(y[::3]) == 0x7FC00000).all()
        others = np.arange(m) % 3 != 0
        assert_bits(y[others], expected(m, n, k)[others])


@pytest.mark.parametrize("k", [1, 4, 63, 4096, LINEAR_K_MAX, LINEAR_K_MAX + 1, 2 * 65536 + 3, 140_001])
def test_no_sum_saturates(impl, k):
    """The largest codes times the largest weights, and beyond int32 exact blocks."""
    signs = np.array([127, -127, 127], np.int8)
    q = np.repeat(signs[:, None], k, axis=1)
    q[2, 1::2] = -127
    w = ec.Int8Weight.from_arrays(q, np.ones(3, np.float32))
    x = np.array([[255], [-255], [255], [128]], np.float32).repeat(k, axis=1)
    x[2, 1::2] = -255
    codes = ec.quantize_rows(x)
    exact = (codes.q.astype(np.int64) - codes.zero[:, None]) @ q.T.astype(np.int64)
    assert np.abs(exact).max() == 255 * 127 * k
    assert_bits(ec.linear(x, w), exact.astype(np.float32) * codes.scale[:, None])
    assert_bits(ec.linear(x, w, activation="relu"), np.maximum(exact, 0).astype(np.float32) * codes.scale[:, None])


def test_quantized_rows(impl):
    for m in MS:
        for x, w, bias in problems(m):
            assert_bits(ec.linear(ec.quantize_rows(x), ec.quantize(w), bias), expected(m, *w.shape), w.shape)
    x = problem(6, 17, 33).x.reshape(2, 3, 33)
    w, bias = ec.quantize(problem(6, 17, 33).w), problem(6, 17, 33).bias
    assert_bits(ec.linear(ec.quantize_rows(x), w, bias), expected(6, 17, 33).reshape(2, 3, 17))


def test_leading_dimensions(impl):
    for shape in ((33,), (2, 3, 33), (1, 6, 1, 33), (2, 0, 33)):
        m = int(np.prod(shape[:-1]))
        x, w, bias = problem(m, 17, 33)
        out = filled((*shape[:-1], 17))
        assert ec.linear(x.reshape(shape), ec.quantize(w), bias, out=out) is out
        assert_bits(out.reshape(m, 17), expected(m, 17, 33))


@pytest.mark.parametrize("side", ["left", "right"])
def test_touches_nothing_beside_its_arrays(impl, side):
    for m in (1, 3, 8, 9):
        for n in (1, 15, 17, 48, 97):
            for k in KS:
                x, w, bias = problem(m, n, k)
                rebuild, (cls, shape, arrays) = ec.quantize(w).__reduce__()
                weight = rebuild(cls, shape, {name: guarded(a, side) for name, a in arrays.items()})
                y = guarded(filled((m, n)), side)
                ec.linear(guarded(x, side), weight, guarded(bias, side), out=y)
                assert_bits(y, expected(m, n, k))


@pytest.mark.parametrize("m", MS)
def test_writes_its_columns_only(impl, m):
    for n in NS:
        x, w, bias = problem(m, n, 17)
        y, intact = padded_output(m, n)
        ec.linear(x, ec.quantize(w), bias, out=y)
        assert_bits(y, expected(m, n, 17))
        assert intact()


def test_int8_output(impl):
    for m, n, k in ((1, 1, 1), (9, 49, 33), (8, 16, 64), (3, 7, 0)):
        x, w, bias = problem(m, n, k)
        for activation in (None, *EXACT):
            for scale, zero in ((0.05, 3), (1e-6, -128), (1e30, 127), (float(f(1e-40)), 0)):
                y, intact = padded_output(m, n, np.int8)
                ec.linear(x, ec.quantize(w), bias, activation=activation, out=y, out_dtype="int8", out_scale=scale, out_zero=zero)
                with np.errstate(all="ignore"):
                    wanted = np.clip(np.rint(expected(m, n, k, activation) / f(scale)) + f(zero), -128, 127)
                assert_bits(y, np.where(np.isnan(wanted), zero, wanted).astype(np.int8), (m, n, k, activation, scale, zero))
                assert intact()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_output_refuses_what_is_not_finite(impl, value):
    for m, k in ((1, 1), (9, 33), (40, 64)):
        x, w, _ = problem(m, 17, k)
        x = x.copy()
        x[-1, -1] = value
        for given, compute in ((x, "int8"), (ec.quantize_rows(x), "int8"), (x, "float32")):
            out = filled((m, 17), np.int8)
            with pytest.raises(ValueError, match="x has a row with NaN or Inf, which int8 output cannot express"):
                ec.linear(given, ec.quantize(w), compute=compute, out=out, out_dtype="int8", out_scale=1.0)
            assert_bits(out, filled((m, 17), np.int8))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_matmul_int8_edge_shapes(impl, dtype):
    limits = np.iinfo(dtype)
    for m in MS:
        for n in NS:
            for k in KS:
                a, w = rng.integers(limits.min, limits.max + 1, (m, k)).astype(dtype), random_weight(n, k)
                y, intact = padded_output(m, n, np.int32)
                assert ec.matmul_int8(a, w, out=y) is y
                assert_bits(y, (a.astype(np.int64) @ w.q.T.astype(np.int64)).astype(np.int32), (m, n, k))
                assert intact()


@pytest.mark.parametrize(("dtype", "longest"), [(np.uint8, 66311), (np.int8, 132104)])
def test_matmul_int8_longest_sums(impl, dtype, longest):
    limits = np.iinfo(dtype)
    for k in (longest, 65536, 4099):
        q = np.full((2, k), 127, np.int8)
        q[1] = -127
        w = ec.Int8Weight.from_arrays(q, np.ones(2, np.float32))
        for value in (limits.min, limits.max):
            a = np.full((4, k), value, dtype)
            assert_bits(ec.matmul_int8(a, w), np.array([[value * 127 * k, -value * 127 * k]] * 4, np.int32), (k, value))
    w = ec.Int8Weight.from_arrays(np.zeros((1, longest + 1), np.int8), np.ones(1, np.float32))
    with pytest.raises(ValueError, match=rf"^matmul_int8: K is {longest + 1}, {np.dtype(dtype)} sums fit int32 up to {longest}$"):
        ec.matmul_int8(np.zeros((1, longest + 1), dtype), w)


@pytest.mark.parametrize("side", ["left", "right"])
def test_matmul_int8_touches_nothing_beside_its_arrays(impl, side):
    for m in (1, 3, 8, 9):
        for n in (1, 17, 48):
            for k in KS:
                a, w = rng.integers(-128, 128, (m, k)).astype(np.int8), random_weight(n, k)
                y = guarded(filled((m, n), np.int32), side)
                ec.matmul_int8(guarded(a, side), w, out=y)
                assert_bits(y, (a.astype(np.int64) @ w.q.T.astype(np.int64)).astype(np.int32), (m, n, k))
