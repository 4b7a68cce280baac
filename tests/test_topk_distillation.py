"""Distillation against a stored top-k teacher, and the file."""

import numpy as np
import pytest

import edgecomp as ec

f = np.float32


def rows(m=5, v=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((m, v)) * 3).astype(f), (rng.standard_normal((m, v)) * 3).astype(f), rng.integers(0, v, m)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def best(t, k, temperature=1.0):
    p = softmax(t.astype(float) / temperature)
    at = np.argsort(-p, axis=1)[:, :k]
    return np.take_along_axis(p, at, axis=1), at


@pytest.mark.parametrize("tail", ["lump", "drop"])
def test_all_classes_are_the_whole_teacher(tail):
    s, t, labels = rows()
    p, at = best(t, 40, 2.0)
    loss, grad = ec.topk_distillation_loss(s, np.log(p).astype(f), at, labels, temperature=2.0, alpha=0.6, tail=tail)
    wanted, slope = ec.distillation_loss(s, t, labels, temperature=2.0, alpha=0.6)
    assert loss == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(grad, slope, atol=1e-6)


@pytest.mark.parametrize("tail", ["lump", "drop"])
@pytest.mark.parametrize("kind", ["log_probs", "probs", "logits"])
def test_definition_and_derivative(tail, kind):
    s, t, labels = rows(3, 12)
    p, at = best(t, 4, 2.0)
    if kind == "logits" and tail == "lump":
        pytest.skip("refused")
    values = {"log_probs": np.log(p), "probs": p, "logits": np.take_along_axis(t.astype(float), at, axis=1)}[kind].astype(f)

    def plainly(x):
        q = softmax(x / 2)
        inside = np.take_along_axis(q, at, axis=1)
        if tail == "drop":
            share = p / p.sum(axis=1, keepdims=True)
            kd = (share * np.log(share / inside)).sum(axis=1)
        else:
            left, rest = 1 - p.sum(axis=1), 1 - inside.sum(axis=1)
            kd = (p * np.log(p / inside)).sum(axis=1) + left * np.log(left / rest)
        return 0.7 * 4 * kd - 0.3 * np.log(softmax(x))[np.arange(3), labels]

    loss, grad = ec.topk_distillation_loss(
        s, values, at, labels, temperature=2.0, alpha=0.7, tail=tail, teacher_kind=kind, reduction="none"
    )
    x = s.astype(float)
    np.testing.assert_allclose(loss, plainly(x), rtol=1e-5)
    for j in range(12):
        step = np.zeros(12)
        step[j] = 1e-6
        np.testing.assert_allclose(grad[:, j], (plainly(x + step) - plainly(x - step)) / 2e-6, rtol=1e-4, atol=1e-5)


def test_reductions_ignored_rows_and_dimensions():
    s, t, labels = rows(6, 20)
    p, at = best(t, 5)
    labels[1] = -100
    each, slope = ec.topk_distillation_loss(s, p, at, labels, alpha=0.5, teacher_kind="probs", reduction="none")
    loss, grad = ec.topk_distillation_loss(s, p, at, labels, alpha=0.5, teacher_kind="probs")
    assert each[1] == 0
    assert loss == pytest.approx(each.sum() / 5)
    np.testing.assert_allclose(grad, slope / 5, rtol=1e-6)
    assert (grad[1] == 0).all()
    deep = ec.topk_distillation_loss(
        s.reshape(2, 3, 20), p.reshape(2, 3, 5), at.reshape(2, 3, 5), labels.reshape(2, 3), alpha=0.5, teacher_kind="probs"
    )
    assert deep[0] == loss
    np.testing.assert_array_equal(deep[1].reshape(6, 20), grad)
    s[2, 3] = np.nan
    loss, grad = ec.topk_distillation_loss(s, p, at, teacher_kind="probs", reduction="none")
    np.testing.assert_array_equal(np.isnan(loss), np.arange(6) == 2)
    np.testing.assert_array_equal(np.isnan(grad).any(axis=1), np.arange(6) == 2)


@pytest.mark.parametrize("alpha", [None, 0.0])
@pytest.mark.parametrize(
    ("kind", "bad"), [("log_probs", np.nan), ("log_probs", np.inf), ("logits", np.inf), ("probs", -0.5), ("probs", np.inf)]
)
def test_values_that_are_no_distribution(kind, bad, alpha):
    """NaN as loss and gradient, of the row that has one; and of nothing but zeros, unless what is left is a class of its own."""
    s, _, labels = rows(3, 12)
    at, given = np.tile(np.arange(4), (3, 1)), {"labels": None if alpha is None else labels, "alpha": alpha, "reduction": "none"}
    zero = 0.0 if kind == "probs" else -np.inf
    for tail in ("lump", "drop") if kind != "logits" else ("drop",):
        values = np.full((3, 4), 0.2 if kind == "probs" else np.log(0.2))
        values[1, 2] = bad
        values[2] = zero
        loss, grad = ec.topk_distillation_loss(s, values, at, tail=tail, teacher_kind=kind, **given)
        for found in (np.isnan(loss), np.isnan(grad).all(axis=1), np.isnan(grad).any(axis=1)):
            np.testing.assert_array_equal(found, [False, True, tail == "drop"])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("v", [50, 70_000])
def test_file(tmp_path, dtype, v):
    _, t, _ = rows(3, v)
    path = tmp_path / "teacher.npz"
    ec.save_teacher_topk(path, t.reshape(3, 1, v), 7, temperature=2.0, values_dtype=dtype)
    loaded = ec.load_teacher_topk(path)
    p, at = best(t, 7, 2.0)
    assert (loaded.temperature, loaded.classes, loaded.values.dtype) == (2.0, v, f)
    np.testing.assert_array_equal(loaded.indices[:, 0], at)
    np.testing.assert_allclose(loaded.values[:, 0], np.log(p), rtol=5e-4 if dtype == "float16" else 1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["teacher.npz"]
    assert ec.topk_distillation_loss(t.reshape(3, 1, v), loaded.values, loaded.indices, temperature=2.0)[0] == pytest.approx(0, abs=1e-2)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "t.npz"
    for content in (b"", b"nonsense", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^load_teacher_topk: .* is no file of save_teacher_topk"):
            ec.load_teacher_topk(path)
    np.savez(path, values=np.ones((2, 3), f))
    with pytest.raises(ValueError, match="is no file of save_teacher_topk"):
        ec.load_teacher_topk(path)
    good = {"values": np.ones((2, 3), f), "indices": np.ones((2, 3), np.uint16)}
    told = {"format": "edgecomp teacher top-k", "temperature": 1.0, "classes": 5}
    ec.save(path, good, metadata=told)
    assert ec.load_teacher_topk(path).classes == 5
    for arrays, metadata in ((good, {}), (good | {"more": np.ones(1)}, told), ({"values": good["values"]}, told)):
        ec.save(path, arrays, metadata=metadata)
        with pytest.raises(ValueError, match="is no file of save_teacher_topk"):
            ec.load_teacher_topk(path)
    for bad, metadata in (
        ({"indices": np.full((2, 3), 5, np.uint16)}, told),
        ({"indices": np.ones((2, 3), np.int64)}, told),
        ({"values": np.ones((2, 2), f)}, told),
        ({"values": ec.quantize(np.ones((2, 3), f))}, told),
        ({}, told | {"temperature": 0.0}),
        ({}, told | {"temperature": "1"}),
        ({}, told | {"classes": 5.0}),
    ):
        ec.save(path, good | bad, metadata=metadata)
        with pytest.raises(ValueError, match="has arrays that do not fit together"):
            ec.load_teacher_topk(path)
    ec.save(path, good, metadata=told)
    content = bytearray(path.read_bytes())
    at = content.index(good["values"].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no file of save_teacher_topk"):
        ec.load_teacher_topk(path)


def test_bad_calls(tmp_path):
    s, t, labels = rows(3, 12)
    p, at = best(t, 4)
    for arguments, error, message in (
        ((s, p[:2], at), ValueError, "teacher_values has shape"),
        ((s, p, at[:, :3]), ValueError, "teacher_indices has shape"),
        ((s, p, p), TypeError, "teacher_indices has dtype float64"),
        ((s, p, at + 12), ValueError, "teacher_indices has values outside 0..11"),
        ((s, p, at * 0), ValueError, "teacher_indices has a class twice"),
        ((s, p, at, labels), ValueError, "alpha has to be chosen"),
    ):
        with pytest.raises(error, match=f"^topk_distillation_loss: {message}"):
            ec.topk_distillation_loss(*arguments)
    with pytest.raises(ValueError, match='wants tail="drop"'):
        ec.topk_distillation_loss(s, p, at, teacher_kind="logits")
    with pytest.raises(ValueError, match="tail is 'keep'"):
        ec.topk_distillation_loss(s, p, at, tail="keep")
    for k, error in ((0, ValueError), (13, ValueError), (1.0, TypeError)):
        with pytest.raises(error, match=r"^save_teacher_topk: k is"):
            ec.save_teacher_topk(tmp_path / "x.npz", t, k)
    t[1] = np.nan
    with pytest.raises(ValueError, match="teacher has a row with NaN"):
        ec.save_teacher_topk(tmp_path / "x.npz", t, 2)
    assert list(tmp_path.iterdir()) == []
