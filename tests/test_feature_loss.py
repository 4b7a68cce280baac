"""Losses between features: their definition, their gradient by finite differences, what is refused."""

import math

import numpy as np
import pytest
from cases import LAYOUTS

import edgecomp as ec
from edgecomp.feature_distillation import _FEATURES, FEATURE_KINDS

f = np.float32
SHAPES = {"mse": (6, 5), "l1": (6, 5), "cosine": (6, 5), "attention": (3, 4, 2, 5)}


def features(kind, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(SHAPES[kind]).astype(f), rng.standard_normal(SHAPES[kind]).astype(f)


def plainly(a, b, kind):
    a, b = a.astype(float), b.astype(float)
    if kind == "mse":
        return np.mean((a - b) ** 2)
    if kind == "l1":
        return np.mean(np.abs(a - b))
    if kind == "cosine":
        return np.mean([1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)])
    maps = [np.array([(s**2).mean(axis=0).ravel() / np.linalg.norm((s**2).mean(axis=0)) for s in side]) for side in (a, b)]
    return np.mean((maps[0] - maps[1]) ** 2)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_loss_and_gradient(kind):
    a, b = features(kind)
    loss, grad = ec.feature_loss(a, b, kind)
    assert loss == pytest.approx(plainly(a, b, kind), rel=1e-12)
    assert ec.feature_loss(a, b, kind, return_grad=False) == loss
    assert grad.dtype == f
    x = a.astype(float)
    for at in np.ndindex(*a.shape):
        step = np.zeros(a.shape)
        step[at] = 1e-6
        slope = (plainly(x + step, b, kind) - plainly(x - step, b, kind)) / 2e-6
        assert grad[at] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_in_place_dtypes_and_layouts(kind):
    a, b = features(kind)
    loss, grad = ec.feature_loss(a, b, kind)
    own = a.copy()
    again, out = ec.feature_loss(own, b, kind, grad_out=own)
    assert out is own
    assert again == loss
    np.testing.assert_array_equal(out, grad)
    half = ec.feature_loss(a.astype("f2"), b.astype("f2"), kind)
    assert half[0] == ec.feature_loss(a.astype("f2").astype(f), b.astype("f2").astype(f), kind)[0]
    assert half[1].dtype == f
    if a.ndim == 2:
        for layout in LAYOUTS.values():
            np.testing.assert_array_equal(ec.feature_loss(layout(a), layout(b), kind)[1], grad)
        deep = ec.feature_loss(a.reshape(2, 3, 5), b.reshape(2, 3, 5), kind)
        np.testing.assert_array_equal(deep[1].reshape(6, 5), grad)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_many_rows(kind):
    """More than one chunk."""
    rng = np.random.default_rng(1)
    shape = (700, 4, 300) if kind == "attention" else (9000, 50)
    a, b = rng.standard_normal(shape).astype(f), rng.standard_normal(shape).astype(f)
    assert ec.feature_loss(a, b, kind, return_grad=False) == pytest.approx(plainly(a, b, kind), rel=1e-10)


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_edges(kind):
    a, b = features(kind)
    assert ec.feature_loss(a, a.copy(), kind)[0] == pytest.approx(0, abs=1e-15)
    loss, grad = ec.feature_loss(np.zeros_like(a), b, kind)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()
    empty = np.zeros((0, *a.shape[1:]), f)
    loss, grad = ec.feature_loss(empty, empty, kind)
    assert math.isnan(loss)
    assert grad.shape == empty.shape
    a.flat[3] = np.nan
    assert math.isnan(ec.feature_loss(a, b, kind)[0])


def test_attention_of_other_channels():
    a = features("attention")[0]
    b = np.repeat(a, 2, axis=1)
    assert ec.feature_loss(a, b, "attention")[0] == pytest.approx(0, abs=1e-15)


def test_the_table_is_complete():
    assert tuple(_FEATURES) == FEATURE_KINDS


A, B = features("mse")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"kind": "cos"}, ValueError, "kind is 'cos', wanted one of mse, l1, cosine, attention"),
        ({"b": B[:2]}, ValueError, r"b has shape \(2, 5\), a has \(6, 5\)"),
        ({"a": A.astype(int)}, TypeError, "a has dtype int64"),
        ({"a": A[0], "b": B[0], "kind": "attention"}, ValueError, r"a has shape \(5,\), wanted \[N, C"),
        ({"grad_out": B}, ValueError, "grad_out overlaps an input"),
        ({"grad_out": np.empty((6, 4), f)}, ValueError, "grad_out has shape"),
        ({"grad_out": A, "return_grad": False}, ValueError, "grad_out is given"),
    ],
)
def test_bad_calls(call, error, message):
    kept = B.copy()
    arguments = {"a": A, "b": B} | call
    with pytest.raises(error, match=f"^feature_loss: {message}"):
        ec.feature_loss(arguments.pop("a"), arguments.pop("b"), **arguments)
    np.testing.assert_array_equal(B, kept)
