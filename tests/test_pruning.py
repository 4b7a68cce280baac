"""prune and prune_channels."""

import numpy as np
import pytest
from cases import assert_bits
from hypothesis import given
from hypothesis import strategies as st

import edgecomp as ec

f = np.float32
rng = np.random.default_rng(6)


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1), st.sampled_from(["tensor", "row"]), st.integers(1, 4))
def test_slow_twin(n, k, sparsity, scope, values):
    """Few different values: among equal ones the first go."""
    w = rng.integers(1, values + 1, (n, k)).astype(f) * rng.choice([-1, 1], (n, k)).astype(f)
    wanted = w.copy()
    for part in [wanted.reshape(-1)] if scope == "tensor" else wanted:
        for at in sorted(range(len(part)), key=lambda i: (abs(part[i]), i))[: int(np.floor(sparsity * len(part) + 0.5))]:
            part[at] = -99
    wanted[wanted == -99] = 0
    before = w.copy()
    assert_bits(ec.prune(w, sparsity, scope=scope), wanted)
    assert_bits(w, before)


def test_scores():
    w = np.array([[1, 2], [3, 4]], f)
    assert_bits(ec.prune(w, 0.5, scores=np.array([[4, 3], [2, 1]])), np.array([[1, 2], [0, 0]], f))
    assert_bits(ec.prune(w, 0.5, scores=np.array([[np.inf, 3], [-np.inf, 1]]), scope="row"), np.array([[1, 0], [0, 4]], f))


def test_refused():
    w = np.ones((2, 3), f)
    for sparsity in (-0.1, 1.1, np.nan, True, "0.5", None):
        with pytest.raises(ValueError, match="prune: sparsity is"):
            ec.prune(w, sparsity)
    with pytest.raises(ValueError, match="prune: scope is"):
        ec.prune(w, 0.5, scope="column")
    with pytest.raises(ValueError, match=r"scores has shape \(3, 2\), w \(2, 3\)"):
        ec.prune(w, 0.5, scores=w.T)
    with pytest.raises(ValueError, match="scores has NaN"):
        ec.prune(w, 0.5, scores=np.full((2, 3), np.nan))
    with pytest.raises(TypeError, match="scores has dtype bool"):
        ec.prune(w, 0.5, scores=w > 0)
    with pytest.raises(ValueError, match=r"prune: w\[0, 0\] is inf"):
        ec.prune(w * f(np.inf), 0.5)


def test_channels_that_do_nothing_can_go():
    """Channels with zero weights and biases: the network without them computes the same."""
    a, b, c = (rng.standard_normal(s).astype(f) for s in ((8, 5), (6, 16), (3, 6)))
    bias = rng.standard_normal(8).astype(f)
    a[[1, 4, 5]] = bias[[1, 4, 5]] = 0
    b[[0, 2]] = 0
    layers = {"a": a, "a.bias": bias, "b": b, "c": c, "other": 7}
    small = ec.prune_channels(layers, ["a", "b", "c"], 0.35)
    assert [small[name].shape for name in ("a", "a.bias", "b", "c")] == [(5, 5), (5,), (4, 10), (3, 4)]
    assert small["other"] == 7

    def run(net, x):
        h = np.maximum(ec.linear(x, net["a"], net["a.bias"]), 0)
        return ec.linear(ec.linear(np.repeat(h, 2, axis=1), net["b"]), net["c"])

    x = rng.standard_normal((4, 5)).astype(f)
    np.testing.assert_allclose(run(small, x), run(layers, x), rtol=1e-5, atol=1e-5)
    assert layers["a"] is a


def test_channels_by_score_and_one_stays():
    layers = {"a": np.eye(3, dtype=f), "b": np.ones((2, 3), f)}
    assert_bits(ec.prune_channels(layers, ["a", "b"], 0.7, scores={"a": np.array([3, 1, 2], f)})["a"], np.eye(3, dtype=f)[:1])
    assert ec.prune_channels(layers, ["a", "b"], 1)["b"].shape == (2, 1)
    assert ec.prune_channels(layers, ["a", "b"], 0)["b"].shape == (2, 3)


def test_channels_refused():
    layers = {"a": np.ones((3, 4), f), "b": np.ones((2, 4), f)}
    for chain in ("ab", ["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="prune_channels: chain is"):
            ec.prune_channels(layers, chain, 0.5)
    with pytest.raises(KeyError, match="names 'z', which is no layer"):
        ec.prune_channels(layers, ["a", "z"], 0.5)
    with pytest.raises(ValueError, match="'a' has 3 outputs, 'b' 4 inputs"):
        ec.prune_channels(layers, ["a", "b"], 0.5)
    with pytest.raises(ValueError, match=r"scores\['b'\] has NaN"):
        ec.prune_channels(layers | {"c": np.ones((1, 2), f)}, ["b", "c"], 0.5, scores={"b": np.array([1, np.nan], f)})
