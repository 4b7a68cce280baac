"""The activations, through a layer that hands them each value as it is."""

import functools
import math

import numpy as np
import pytest
from cases import EXACT, SPECIAL, TRANSCENDENTAL, assert_bits

import edgecomp as ec
from edgecomp.reference import ACTIVATIONS

f = np.float32

EXACTLY = {
    "relu": lambda v: v if v > 0 else f(0),
    "relu6": lambda v: min(max(v, f(0)), f(6)),
    "leaky_relu": lambda v: v if v > 0 else v * f(0.01),
    "hardswish": lambda v: v * min(max(v + f(3), f(0)), f(6)) / f(6),
    "hardsigmoid": lambda v: min(max(v + f(3), f(0)), f(6)) / f(6),
}


def exp(v: float) -> float:
    return math.exp(min(v, 700))


IN_DOUBLE = {
    "gelu": lambda v: 0.5 * v * math.erfc(-v * math.sqrt(0.5)),
    "gelu_tanh": lambda v: v / (1 + exp(-math.sqrt(8 / math.pi) * (v + 0.044715 * v**3))),
    "silu": lambda v: v / (1 + exp(-v)),
    "tanh": math.tanh,
    "sigmoid": lambda v: 1 / (1 + exp(-v)),
}


RELATIVE = {"gelu": 2e-5, "gelu_tanh": 2e-5, "silu": 2e-7, "tanh": 2e-7, "sigmoid": 2e-7}
"""The tail of gelu is exp of a large rounded number: relative to 1 it is as good as the rest."""
SMALLEST = 4e-38
"""Where e^-v leaves float32, at 88.7, the tails end: in 0."""


def apply(activation, v, cols):
    """activation(v) in columns: one input with weight 1, so that each output is one of the values."""
    rows = v.reshape(-1, 1)
    y = ec.linear(rows, ec.pack(np.ones((cols, 1), f)), activation=activation)
    for c in range(cols):
        assert_bits(y[:, c], y[:, 0], "columns differ")
    return y[:, 0]


def inputs():
    """All magnitudes, denser where the functions bend."""
    rng = np.random.default_rng(5)
    magnitudes = np.geomspace(1e-44, 3e38, 2000)
    v = np.concatenate([np.linspace(-12, 12, 5001), rng.standard_normal(2000) * 30, magnitudes, -magnitudes, np.arange(-8, 8, 0.5)])
    return v.astype(f)


def test_the_list_is_complete():
    assert set(EXACTLY) == set(EXACT)
    assert set(EXACTLY) | set(IN_DOUBLE) == set(ACTIVATIONS) == set(EXACT) | set(TRANSCENDENTAL)


@functools.cache
def exactly(activation):
    """Values, and what the activation makes of each."""
    v = np.concatenate([inputs(), np.array([s for s in SPECIAL if not np.isnan(s)], f)])
    with np.errstate(all="ignore"):
        return v, np.array([EXACTLY[activation](s) for s in v], f)


@pytest.mark.parametrize("activation", EXACT)
def test_exact(impl, activation):
    v, wanted = exactly(activation)
    np.testing.assert_array_equal(apply(activation, v, 3), wanted)


@pytest.mark.parametrize("activation", TRANSCENDENTAL)
def test_transcendental(impl, activation):
    v = inputs()
    wanted = np.array([IN_DOUBLE[activation](float(s)) for s in v])
    error, size = np.abs(apply(activation, v, 5) - wanted), np.abs(wanted)
    for bound in (RELATIVE[activation] * size + SMALLEST, 2e-7 * np.maximum(size, 1)):
        worst = np.argmax(error / bound)
        assert error[worst] <= bound[worst], f"{activation}({v[worst]})"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_limits(impl, activation):
    """NaN stays NaN; Inf and the largest values end where the function does."""
    y = apply(activation, np.array([np.nan, np.inf, 3e38, -3e38, 0, -0.0], f), 17)
    assert np.isnan(y[0])
    top = {"relu6": 6, "hardsigmoid": 1, "tanh": 1, "sigmoid": 1}.get(activation)
    if activation != "hardswish":  # 3e38 * 6 overflows
        assert y[2] == (top or f(3e38))
    assert y[1] == (top or np.inf)
    if activation != "leaky_relu":
        assert y[3] == (-1 if activation == "tanh" else 0)
    assert (y[4:] == {"sigmoid": 0.5, "hardsigmoid": 0.5}.get(activation, 0)).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weights", ["int8", "float32"])
def test_after_each_gemm(impl, activation, weights):
    """An activation in the op is the activation of the op's result, wherever a tile ends."""
    rng = np.random.default_rng(7)
    for m, n, k in ((1, 1, 5), (9, 49, 33), (7, 100, 64), (2, 16, 0)):
        x, w = rng.standard_normal((m, k)).astype(f), rng.standard_normal((n, k)).astype(f)
        bias = rng.standard_normal(n).astype(f)
        weight = ec.quantize(w) if weights == "int8" else w
        plain, y = ec.linear(x, weight, bias), ec.linear(x, weight, bias, activation=activation)
        alone = apply(activation, plain.reshape(-1), 1).reshape(m, n)
        if activation in EXACT:
            np.testing.assert_array_equal(y, alone)
        else:
            np.testing.assert_allclose(y, alone, rtol=1e-6, atol=1e-7)
