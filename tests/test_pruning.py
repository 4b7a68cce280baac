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


def test_large_scores_of_a_block():
    """Their sum is beyond float64."""
    scores = np.tile([1e308, 1.7e308, -1.7e308, 1.6e308], (32, 1))
    kept = ec.prune(np.ones((32, 4), f), pattern="1:2", block=16, scores=scores)
    assert_bits(kept, np.tile(np.array([0, 1, 0, 1], f), (32, 1)))
    scores[::2, 0], scores[::2, 1] = np.inf, -np.inf
    kept = ec.prune(np.ones((32, 4), f), pattern="1:2", block=16, scores=scores)
    assert_bits(kept, np.tile(np.array([1, 0, 0, 1], f), (32, 1)))
    scores[17, 0] = -np.inf
    with pytest.raises(ValueError, match=r"prune: scores has inf and -inf for input 0 in rows 16\.\.31, which share a pattern"):
        ec.prune(np.ones((32, 4), f), pattern="1:2", block=16, scores=scores)
    kept = ec.prune(np.ones((32, 4), f), pattern="1:2", scores=scores)
    assert_bits(kept[16:18], np.array([[1, 0, 0, 1], [0, 1, 0, 1]], f))


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


def test_channels_make_arrays_smaller():
    """What is pruned is gone: own memory, ready for `pack` and `quantize`. The caller's arrays stay."""
    layers = {"a": rng.standard_normal((64, 32)).astype(f), "a.bias": np.arange(64, dtype=f), "b": rng.standard_normal((16, 64)).astype(f)}
    before = {name: a.copy() for name, a in layers.items()}
    small = ec.prune_channels(layers, ("a", "b"), 0.75)
    assert {name: a.nbytes for name, a in small.items()} == {name: a.nbytes // 4 for name, a in layers.items()}
    assert all(a.base is None or a.base.nbytes == a.nbytes for a in small.values())
    assert ec.quantize(small["a"]).nbytes == ec.quantize(layers["a"]).nbytes // 4
    kept = small["a.bias"].astype(int)  # which they are
    assert (np.diff(kept) > 0).all()
    assert set(kept) == set(np.argsort(np.linalg.norm(layers["a"], axis=1))[-16:])
    assert_bits(small["a"], layers["a"][kept])
    assert_bits(small["b"], layers["b"][:, kept])
    for name, a in layers.items():
        assert_bits(a, before[name])


def test_channels_by_the_names_of_a_state_dict():
    """The bias of "fc1.weight" is "fc1.bias"."""
    w = {"fc1": rng.standard_normal((8, 5)).astype(f), "fc2": rng.standard_normal((6, 8)).astype(f), "fc3": np.ones((3, 6), f)}
    bias = {"fc1.bias": np.arange(8, dtype=f), "fc2.bias": np.arange(6, dtype=f), "fc3.bias": np.arange(3, dtype=f)}
    wanted = ec.prune_channels(w | bias, list(w), 0.5)
    layers = {f"{name}.weight": a for name, a in w.items()} | bias
    small = ec.prune_channels(layers, [f"{name}.weight" for name in w], 0.5)
    assert list(small) == list(layers)
    for name in w:
        assert_bits(small[f"{name}.weight"], wanted[name])
        assert_bits(small[f"{name}.bias"], wanted[f"{name}.bias"])
    assert small["fc1.bias"].shape == (4,)
    named = {"a.weight": np.eye(2, dtype=f), "a.weight.bias": np.arange(2, dtype=f), "b": np.ones((1, 2), f)}
    assert ec.prune_channels(named, ["a.weight", "b"], 0.5)["a.weight.bias"].shape == (1,)


def test_no_bias_may_be_none():
    layers = {"a": np.eye(4, dtype=f), "a.bias": None, "b.weight": np.ones((2, 4), f), "b.bias": None, "c": np.ones((3, 2), f)}
    small = ec.prune_channels(layers, ["a", "b.weight", "c"], 0.5)
    assert small["a"].shape == (2, 4)
    assert small["a.bias"] is small["b.bias"] is None


@pytest.mark.parametrize("other", ["a", "a.weight.bias"])
def test_refuses_a_bias_that_two_layers_may_have_or_two_of_one(other):
    layers = {"a.weight": np.eye(4, dtype=f), "a.bias": np.ones(4, f), other: np.ones(4, f), "b": np.ones((2, 4), f)}
    with pytest.raises(ValueError, match=f"prune_channels: 'a.bias' is not clearly the bias of 'a.weight': there is {other!r} too"):
        ec.prune_channels(layers, ["a.weight", "b"], 0.5)


def test_channels_of_a_convolution():
    """Each channel of 3 x 3 inputs goes as a whole."""
    layers = {"conv": np.eye(4, 9, dtype=f), "fc": np.arange(36, dtype=f)[None]}
    small = ec.prune_channels(layers, ["conv", "fc"], 0.5, scores={"conv": [9, 1, 8, 2]})
    assert_bits(small["fc"], np.r_[0:9, 18:27].astype(f)[None])


def test_channels_refused():
    layers = {"a": np.ones((3, 4), f), "b": np.ones((2, 4), f)}
    for chain in ("ab", ["a"], ["a", "a"], 7, None, {"a", "b"}):
        with pytest.raises(ValueError, match="prune_channels: chain is"):
            ec.prune_channels(layers, chain, 0.5)
    with pytest.raises(KeyError, match="names 'z', which is no layer"):
        ec.prune_channels(layers, ["a", "z"], 0.5)
    with pytest.raises(ValueError, match="'a' has 3 outputs, 'b' 4 inputs"):
        ec.prune_channels(layers, ["a", "b"], 0.5)
    with pytest.raises(TypeError, match="layers is a list, wanted a mapping"):
        ec.prune_channels([1, 2], ["a", "b"], 0.5)
    for sparsity in (-0.1, 1.1, np.nan, True, "0.5", None):
        with pytest.raises(ValueError, match="prune_channels: sparsity is"):
            ec.prune_channels(layers, ["a", "b"], sparsity)
    layers["b"] = np.ones((2, 3), f)
    for change, error, message in (
        ({"a": np.ones((3, 4), int)}, TypeError, "prune_channels: a: w has dtype int64"),
        ({"a": np.ones((3, 2, 2), f)}, ValueError, r"prune_channels: a: w has shape \(3, 2, 2\)"),
        ({"b": np.full((2, 3), np.nan, f)}, ValueError, r"prune_channels: b: w\[0, 0\] is nan"),
        ({"a": ec.pack(np.ones((3, 4), f))}, TypeError, "prune_channels: a: w is a DenseWeight"),
        ({"a": np.ones((0, 4), f)}, ValueError, "'a' has 0 outputs"),
        ({"a.bias": np.ones(4, f)}, ValueError, r"prune_channels: a.bias has shape \(4,\), wanted \(3,\)"),
        ({"a.bias": np.ones(3, int)}, TypeError, "prune_channels: a.bias has dtype int64"),
    ):
        with pytest.raises(error, match=message):
            ec.prune_channels(layers | change, ["a", "b"], 0.5)
    for scores, error, message in (
        ({"a": np.array([1, np.nan, 2])}, ValueError, r"scores\['a'\] has NaN"),
        ({"a": [1, 2]}, ValueError, r"scores\['a'\] has shape \(2,\), wanted \(3,\)"),
        ({"a": [1, [2], 3]}, ValueError, r"scores\['a'\] is a list whose rows differ in length"),
        ([1, 2, 3], TypeError, "scores is a list, wanted a mapping of names to arrays"),
        ({"a": ["1", "2", "3"]}, TypeError, r"scores\['a'\] has dtype"),
        ({"b": [1, 2]}, KeyError, "scores names 'b', which loses no channels"),
        ({"z": [1, 2]}, KeyError, "scores names 'z', which loses no channels"),
    ):
        with pytest.raises(error, match=message):
            ec.prune_channels(layers, ["a", "b"], 0.5, scores=scores)
