"""gemm_f32: linear with float32 weights, plain or packed, and with int8 weights under compute="float32"."""

import numpy as np
import pytest
from cases import KS, LAYOUTS, MS, NS, assert_bits, float_bound, problem, problems
from guard import filled, guarded, padded_output

import edgecomp as ec

WEIGHTS = {"plain": lambda w: w, "packed": ec.pack, "int8": ec.quantize}
pytestmark = pytest.mark.parametrize("kind", WEIGHTS)


def values(weight):
    return weight if isinstance(weight, np.ndarray) else weight.dequantize()


def check(y, x, weight, bias=None):
    """y against float64, within what float32 rounding may do in any order of summation."""
    w = values(weight)
    exact = x.astype(np.float64) @ w.T.astype(np.float64) + (0 if bias is None else bias)
    assert y.dtype == np.float32
    assert y.shape == exact.shape
    assert not (np.abs(y - exact) > float_bound(x, w, bias)).any(), (x.shape, w.shape)
    assert not np.isnan(y).any(), (x.shape, w.shape)


def linear(x, weight, bias=None, **options):
    return ec.linear(x, weight, bias, compute="float32", **options)


@pytest.mark.parametrize("m", MS)
def test_edge_shapes(impl, kind, m):
    for x, w, bias in problems(m):
        y, weight = filled((m, len(w))), WEIGHTS[kind](w)
        assert linear(x, weight, bias, out=y) is y
        check(y, x, weight, bias)


@pytest.mark.parametrize("k", [1023, 1024, 1025, 2050, 5000])
def test_blocks_of_k(impl, kind, k):
    for m, n in ((1, 17), (4, 49), (9, 5)):
        x, w, bias = problem(m, n, k)
        weight = WEIGHTS[kind](w)
        check(linear(x, weight, bias), x, weight, bias)
        check(linear(x, weight), x, weight)


def test_whole_numbers_are_exact(impl, kind):
    """Sums of integers below 2**24 have one result, whatever the order: a misplaced element shows."""
    rng = np.random.default_rng(3)
    for m, n, k in ((1, 97, 130), (9, 49, 1025), (17, 33, 64)):
        w = rng.integers(-9, 10, (n, k)).astype(np.float32)
        weight = ec.Int8Weight.from_arrays(w.astype(np.int8), np.ones(n, np.float32)) if kind == "int8" else WEIGHTS[kind](w)
        x, bias = rng.integers(-9, 10, (m, k)).astype(np.float32), rng.integers(-9, 10, n).astype(np.float32)
        np.testing.assert_array_equal(linear(x, weight, bias), x @ w.T + bias)
        np.testing.assert_array_equal(linear(x, weight, bias, activation="relu"), np.maximum(x @ w.T + bias, 0))


def test_non_finite_values_follow_ieee(impl, kind):
    for m, n, k in ((1, 5, 3), (9, 49, 33)):
        x, w, bias = (a.copy() for a in problem(m, n, k))
        x[0, 0], bias[1] = np.inf, np.nan
        x[-1, 1] = -np.inf if m > 1 else x[-1, 1]
        if m > 3:
            x[3, -1] = np.nan
        w[2, 0] = 0  # 0 * Inf
        weight = WEIGHTS[kind](w)
        with np.errstate(all="ignore"):
            wanted = x @ values(weight).T + bias
        got = linear(x, weight, bias)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
        np.testing.assert_array_equal(got[np.isinf(wanted)], wanted[np.isinf(wanted)])
        np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
        relu = linear(x, weight, bias, activation="relu")
        np.testing.assert_array_equal(np.isnan(relu), np.isnan(wanted))
        assert (relu[~np.isnan(relu)] >= 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(impl, kind, layout):
    for m, n, k in ((9, 17, 33), (1, 5, 4), (3, 2, 0)):
        x, w, bias = problem(m, n, k)
        weight = WEIGHTS[kind](w)
        y = linear(x, weight, bias)
        assert_bits(linear(LAYOUTS[layout](x), weight, bias), y)
        assert_bits(linear(x, WEIGHTS[kind](LAYOUTS[layout](w)), bias), y)
        assert_bits(linear(x, weight, LAYOUTS[layout](bias[None])[0]), y)


@pytest.mark.parametrize("side", ["left", "right"])
def test_touches_nothing_beside_its_arrays(impl, kind, side):
    for m in (1, 3, 6, 9):
        for n in (1, 15, 17, 49):
            for k in KS:
                x, w, bias = problem(m, n, k)
                if kind == "plain":
                    weight = guarded(w, side)
                else:
                    rebuild, (cls, shape, arrays) = WEIGHTS[kind](w).__reduce__()
                    weight = rebuild(cls, shape, {name: guarded(a, side) for name, a in arrays.items()})
                y = guarded(filled((m, n)), side)
                linear(guarded(x, side), weight, guarded(bias, side), out=y)
                check(y, x, weight, bias)


@pytest.mark.parametrize("m", [1, 5, 9])
def test_writes_its_columns_only(impl, kind, m):
    for n in NS:
        for k in (17, 1025):
            x, w, bias = problem(m, n, k)
            y, intact = padded_output(m, n)
            weight = WEIGHTS[kind](w)
            linear(x, weight, bias, out=y)
            check(y, x, weight, bias)
            assert intact()


def test_leading_dimensions(impl, kind):
    x, w, bias = problem(6, 17, 33)
    weight = WEIGHTS[kind](w)
    y = linear(x, weight, bias)
    for shape in ((6, 33), (2, 3, 33), (1, 6, 1, 33)):
        assert_bits(linear(x.reshape(shape), weight, bias), y.reshape(*shape[:-1], 17))
    check(linear(x[0], weight, bias)[None], x[:1], weight, bias)


def test_int8_output(impl, kind):
    """As if float32 was written and quantised afterwards."""
    x, w, bias = problem(9, 33, 65)
    weight = WEIGHTS[kind](w)
    for activation in (None, "relu", "tanh"):
        y = linear(x, weight, bias, activation=activation)
        wanted = np.clip(np.rint(y / np.float32(0.02)) + 7, -128, 127).astype(np.int8)
        got, intact = padded_output(9, 33, np.int8)
        linear(x, weight, bias, activation=activation, out=got, out_dtype="int8", out_scale=0.02, out_zero=7)
        assert_bits(got, wanted)
        assert intact()
