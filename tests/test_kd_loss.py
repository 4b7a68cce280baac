"""The distillation loss: its definition by finite differences and torch, its numerics, and every implementation beside the reference."""

import math

import numpy as np
import pytest
from cases import LAYOUTS
from guard import guarded

import edgecomp as ec
from edgecomp import reference
from edgecomp.distillation import KINDS, REDUCTIONS

f = np.float32
CLASSES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 129, 300, 1023, 1024, 1025, 2500)
T = {"temperature": 3.0, "alpha": 0.7}


def logits(m, v, seed=0, spread=3.0):
    rng = np.random.default_rng((m, v, seed))
    labels = rng.integers(0, v, m)
    return (rng.standard_normal((m, v)) * spread).astype(f), (rng.standard_normal((m, v)) * spread).astype(f), labels


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def options(kind="kl", t=1.0, kd=1.0, ce=0.0, beta=0.5, smoothing=0.0):
    return reference.Objective(kind, t, t, kd, ce, beta, smoothing)


def in_double(student, teacher, labels=None, *, kind="kl", temperature=1.0, alpha=1.0, beta=0.5, smoothing=0.0):
    """Loss and gradient of each row in float64."""
    how = options(kind, temperature, alpha * temperature**2, 1 - alpha, beta, smoothing)
    return reference.kd_rows(student.astype(float), teacher.astype(float), labels, how)


def assert_close(student, teacher, labels=None, *, kind="kl", temperature=1.0, alpha=1.0, beta=0.5, label_smoothing=0.0, **more):
    """The bars: loss within 2e-6 of sum p |log p - log q| + CE, gradient within 1e-5 of the row's max(p, q), both times the factor.

    Of a class that one side masks |p - q| counts; what is infinite is so exactly."""
    loss, grad = ec.distillation_loss(
        student, teacher, labels, kind=kind, temperature=temperature, alpha=alpha, beta=beta, label_smoothing=label_smoothing,
        reduction="none", **more,
    )  # fmt: skip
    s, t = student.astype(float), teacher.astype(float)
    wanted, slope = in_double(s, t, labels, kind=kind, temperature=temperature, alpha=alpha, beta=beta, smoothing=label_smoothing)
    lp, lq = log_softmax(t / temperature), log_softmax(s / temperature)
    with np.errstate(invalid="ignore"):
        apart = np.where((lp > -np.inf) & (lq > -np.inf), np.abs(lp - lq), 0)
    size = (np.exp(lp) * apart).sum(axis=1)
    if kind in ("reverse_kl", "jsd"):
        size = np.maximum(size, (np.exp(lq) * apart).sum(axis=1))
    size += np.where((lp > -np.inf) != (lq > -np.inf), np.exp(lp) + np.exp(lq), 0).sum(axis=1)
    ce = in_double(s, t, labels, alpha=0.0, smoothing=label_smoothing)[0] if alpha < 1 else 0
    top = np.maximum(np.exp(lp).max(axis=1), np.exp(lq).max(axis=1))
    factor = alpha * temperature + (1 - alpha)
    if kind == "mse":
        size = wanted / temperature**2
        top = top + np.abs(s - t).max(axis=1)
    if kind in ("reverse_kl", "jsd"):
        factor = factor * (1 + apart.max(axis=1))
    bound = 2e-6 * (alpha * temperature**2 * size + (1 - alpha) * ce) + 1e-15 * temperature**2  # what float64 itself can tell
    off = np.abs(np.subtract(loss, wanted, where=loss != wanted, out=np.zeros(len(loss)))) / bound
    assert (off <= 1).all(), off.max()
    rounding = 2.0**-24 * np.abs(slope).max(axis=1)  # of the label's entry, which is near 1 however small the probabilities
    off = np.abs(grad - slope).max(axis=1) / (1e-5 * top * factor + rounding)
    assert (off <= 1).all(), off.max()
    return loss, grad


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_has_the_derivative_of_its_loss(kind, smoothing):
    """Central differences in float64."""
    s, t, labels = logits(3, 11)
    how = options(kind, 2.5, 0.8, 0.4, 0.3, smoothing)
    s, t = s.astype(float), t.astype(float)
    slope = reference.kd_rows(s, t, labels, how)[1]
    for j in range(11):
        step = np.zeros(11)
        step[j] = 1e-6
        ends = [reference.kd_rows(s + d, t, labels, how)[0] for d in (step, -step)]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope[:, j], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1.0, 4.0])
def test_against_torch(kind, t):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    s, teacher, labels = logits(5, 37)
    x = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(teacher, dtype=torch.float64)
    lq, lp = functional.log_softmax(x / t, -1), functional.log_softmax(y / t, -1)
    middle = ((lp.exp() + lq.exp()) / 2).log()

    def kl(a, b):
        return functional.kl_div(b, a, log_target=True, reduction="batchmean")

    kd = {
        "kl": lambda: kl(lp, lq),
        "reverse_kl": lambda: kl(lq, lp),
        "jsd": lambda: (kl(lp, middle) + kl(lq, middle)) / 2,
        "tvd": lambda: (lp.exp() - lq.exp()).abs().sum() / 10,
        "mse": lambda: functional.mse_loss(x / t, y / t, reduction="sum") / 5,
    }[kind]()
    wanted = 0.7 * t * t * kd + 0.3 * functional.cross_entropy(x, torch.tensor(labels), label_smoothing=0.1)
    wanted.backward()
    loss, grad = ec.distillation_loss(s, teacher, labels, temperature=t, alpha=0.7, kind=kind, label_smoothing=0.1)
    assert loss == pytest.approx(wanted.item(), rel=1e-6)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 4.0, 0.7, 8.0])
def test_shapes(impl, kind, temperature):
    for v in CLASSES:
        for m, spread in ((1, 0.3), (3, 6.0)):
            s, t, labels = logits(m, v, spread=spread)
            assert_close(s, t, kind=kind, temperature=temperature)
            assert_close(s, t, labels, kind=kind, temperature=temperature, alpha=0.6)
            assert_close(s, t, labels, kind=kind, temperature=temperature, alpha=0.0, label_smoothing=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_nearly_equal_rows(impl, kind, temperature):
    """Equal: never below 0. Noise of 1e-3: the loss is of second order, and right to 2e-6 of the first."""
    for v in (2, 10, 1000, 3000):
        t = logits(4, v)[1]
        loss, grad = ec.distillation_loss(t, t.copy(), kind=kind, temperature=temperature, reduction="none")
        assert ((loss >= 0) & (loss <= 1e-15)).all()
        assert np.abs(grad).max() <= 1e-5 * temperature
        noise = np.random.default_rng(v).standard_normal(t.shape)
        for size in (1e-3, 1e-2, 0.1):
            near, _ = assert_close((t + size * noise).astype(f), t, kind=kind, temperature=temperature)
            assert (near > 0).all()
        assert (ec.distillation_loss((t + f(1)), t, kind="kl", temperature=temperature, reduction="none")[0] >= 0).all()


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd", "tvd"])
@pytest.mark.parametrize("temperature", [1.0, 1.7, 3.0])
def test_close_but_for_a_class(impl, kind, temperature):
    """One class that stands out on one side, which moves that side's largest logit, or that the student masks: losses next to 0."""
    for v in (10, 100, 129, 1000, 3000, 30000):
        rng = np.random.default_rng(v)
        t = (rng.standard_normal((3, v)) * 0.01).astype(f)
        s = (t + rng.standard_normal((3, v)) * 1e-4).astype(f)
        out = f(temperature * math.log(max(v / 500, 1.3)))
        for of_s, of_t in ((out, None), (None, out), (-np.inf, None), (-np.inf, out)):
            a, b = s.copy(), t.copy()
            a[:, 0], b[:, 0] = s[:, 0] if of_s is None else of_s, t[:, 0] if of_t is None else of_t
            if kind != "tvd":
                assert_close(a, b, kind=kind, temperature=temperature)
                continue
            loss = ec.distillation_loss(a, b, kind=kind, temperature=temperature, reduction="none", return_grad=False)
            wanted = in_double(a, b, kind=kind, temperature=temperature, alpha=1.0)[0]
            np.testing.assert_allclose(loss, wanted, rtol=3e-6)  # its derivative has the signs of q - p, where these are all but equal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 100.0])
def test_extreme_logits(impl, kind, temperature):
    rng = np.random.default_rng(3)
    for v in (2, 40, 1500):
        wild = (rng.uniform(-1e4, 1e4, (4, v))).astype(f)
        other = (rng.uniform(-1e4, 1e4, (4, v))).astype(f)
        same = np.full((2, v), -1e4, f)
        for s, t in ((wild, other), (wild, wild[::-1]), (same, same), (same, same + f(2e4)), (logits(4, v)[0], wild)):
            if len(s) != len(t):
                continue
            assert_close(s, t, kind=kind, temperature=temperature)
            assert_close(s, t, np.zeros(len(s), int), kind=kind, temperature=temperature, alpha=0.5)


@pytest.mark.parametrize("v", [1, 5, 1030])
@pytest.mark.parametrize("kind", KINDS)
def test_masks(impl, kind, v):
    """A class that both mask has no part in anything; one masked by one side gives the documented infinity or a finite loss."""
    s, t, _ = logits(2, v)
    wide_s, wide_t = np.full((2, 3 * v + 1100), -np.inf, f), np.full((2, 3 * v + 1100), -np.inf, f)
    columns = np.arange(v) * 3 + 1050
    wide_s[:, columns], wide_t[:, columns] = s, t
    loss, grad = ec.distillation_loss(wide_s, wide_t, columns[[0, v - 1]], kind=kind, reduction="none", **T)
    wanted, slope = in_double(s, t, np.array([0, v - 1]), kind=kind, temperature=3.0, alpha=0.7)
    np.testing.assert_allclose(loss, wanted, rtol=3e-6, atol=1e-7)
    np.testing.assert_allclose(grad[:, columns], slope, atol=3e-5 * (1 + np.abs(slope).max()))
    assert (np.delete(grad, columns, axis=1) == 0).all()
    if v == 1:
        return
    for masked in ("student", "teacher"):
        a, b = s.copy(), t.copy()
        (a if masked == "student" else b)[0, 1] = -np.inf
        with np.errstate(all="ignore"):
            wanted, slope = in_double(a, b, kind=kind, temperature=3.0)
            loss, grad = ec.distillation_loss(a, b, kind=kind, temperature=3.0, reduction="none")
        infinite = kind == "mse" or (kind, masked) in (("kl", "student"), ("reverse_kl", "teacher"))
        assert np.isinf(loss[0]) == infinite
        np.testing.assert_allclose(loss, wanted, rtol=3e-6)
        np.testing.assert_allclose(grad, slope, atol=3e-5 * (1 + np.abs(slope[1]).max()))
    assert ec.distillation_loss(a, t, np.array([1, 0]), alpha=0.5, kind="kl", reduction="sum", return_grad=False) < np.inf


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd", "tvd"])
@pytest.mark.parametrize("v", [10, 1030])
def test_the_lowest_float_masks_too(impl, kind, v):
    """Which differences may overflow with: what is infinite of a class of probability 0 is no NaN."""
    low = np.finfo(f).min
    s, t, _ = logits(2, v)
    t = log_softmax(t / 4).astype(f)
    for of_s, of_t in ((low, low), (None, low), (-np.inf, low), (low, -np.inf)):
        a, b = s.copy(), t.copy()
        a[:, 2], b[:, 2] = s[:, 2] if of_s is None else of_s, of_t
        for temperature in (4.0, 0.5):
            how = options(kind, temperature)._replace(teacher_temperature=1.0)
            wanted, slope = reference.kd_rows(a.astype(float), b.astype(float), None, how)
            if kind == "reverse_kl" and of_s is None:
                continue  # 1e38 of loss
            loss, grad = ec.distillation_loss(
                a, b, kind=kind, temperature=temperature, teacher_kind="log_probs", scale_by_t2=False, reduction="none"
            )
            np.testing.assert_allclose(loss, wanted, rtol=3e-6)
            np.testing.assert_allclose(grad, slope, atol=3e-5 * (1 + np.abs(np.nan_to_num(slope)).max()))
    wide = s * f(3e38 / np.abs(s).max())
    assert not np.isnan(ec.distillation_loss(wide, -wide, kind=kind, temperature=0.5, return_grad=False))


@pytest.mark.parametrize("kind", KINDS)
def test_broken_rows(impl, kind):
    """NaN wherever it stands, and rows without a softmax, make NaN of their row and of no other."""
    for v in (3, 20, 1500):
        for at in (0, v // 2, v - 1):
            for side in (0, 1):
                for bad in (np.nan, np.inf):
                    if kind == "mse" and bad == np.inf and side == 1:
                        continue
                    pair = [logits(3, v)[0], logits(3, v)[1]]
                    pair[side][1, at] = bad
                    loss, grad = ec.distillation_loss(*pair, kind=kind, reduction="none")
                    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
                    np.testing.assert_array_equal(np.isnan(grad).all(axis=1), [False, True, False])
                    np.testing.assert_array_equal(np.isnan(grad).any(axis=1), [False, True, False])
        if kind != "mse":
            s, t, _ = logits(2, v)
            s[0] = -np.inf
            loss, grad = ec.distillation_loss(s, t, kind=kind, reduction="none")
            assert np.isnan(loss[0])
            assert np.isnan(grad[0]).all()
            assert np.isfinite(grad[1]).all()


def test_no_infinity_of_a_term_without_weight(impl):
    s, t, labels = logits(2, 9)
    s[0, (labels[0] + 1) % 9] = -np.inf
    for kind in KINDS:
        loss, grad = ec.distillation_loss(s, t, labels, alpha=0.0, kind=kind)
        assert np.isfinite(loss)
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions(impl, reduction):
    s, t, labels = logits(6, 19)
    labels[2] = -100
    weight = np.array([1, 2, 5, 0, 0.5, 1])
    s[2], t[3] = np.nan, np.nan  # neither counts
    loss, grad = ec.distillation_loss(s, t, labels, reduction=reduction, sample_weight=weight, **T)
    used = np.array([1, 2, 0, 0, 0.5, 1])
    rows, slope = in_double(np.nan_to_num(s), np.nan_to_num(t), np.maximum(labels, 0), temperature=3.0, alpha=0.7)
    divisor = {"batchmean": 4.5, "mean": 4.5 * 19, "sum": 1, "none": 1}[reduction]
    wanted = rows * used / divisor
    np.testing.assert_allclose(loss, wanted if reduction == "none" else wanted.sum(), rtol=2e-6)
    np.testing.assert_allclose(grad, slope * used[:, None] / divisor, atol=1e-5)
    assert (grad[[2, 3]] == 0).all()
    assert type(loss) is (np.ndarray if reduction == "none" else float)
    alone = ec.distillation_loss(s, t, labels, reduction=reduction, sample_weight=weight, return_grad=False, **T)
    np.testing.assert_array_equal(alone, loss)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nothing_counts(impl, reduction):
    for s, labels in ((np.ones((0, 5), f), np.ones(0, int)), (np.ones((2, 5), f), np.full(2, -100))):
        loss, grad = ec.distillation_loss(s, s.copy(), labels, reduction=reduction, **T)
        assert grad.shape == s.shape
        assert (grad == 0).all()
        if reduction == "none":
            np.testing.assert_array_equal(loss, np.zeros(len(s)))
        else:
            assert math.isnan(loss) if "mean" in reduction else loss == 0


def test_t2_and_teacher_kinds(impl):
    s, t, labels = logits(4, 50)
    loss, grad = ec.distillation_loss(s, t, temperature=2.0)
    plain, shrunk = ec.distillation_loss(s, t, temperature=2.0, scale_by_t2=False)
    assert loss == pytest.approx(4 * plain, rel=1e-6)
    np.testing.assert_allclose(grad, 4 * shrunk, rtol=1e-5, atol=1e-9)
    softened = log_softmax(t.astype(float) / 2).astype(f)
    for kind in ("kl", "reverse_kl", "jsd", "tvd"):
        wanted, slope = ec.distillation_loss(s, t, labels, temperature=2.0, kind=kind, alpha=0.5)
        for name, given in (("log_probs", softened), ("probs", np.exp(softened)), ("probs", 3 * np.exp(softened))):
            loss, grad = ec.distillation_loss(s, given, labels, temperature=2.0, kind=kind, alpha=0.5, teacher_kind=name)
            assert loss == pytest.approx(wanted, rel=1e-5)
            np.testing.assert_allclose(grad, slope, atol=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(impl, layout):
    s, t, labels = logits(5, 70)
    wanted, slope = ec.distillation_loss(s, t, labels, **T)
    given = LAYOUTS[layout](s)
    loss, grad = ec.distillation_loss(given, LAYOUTS[layout](t), labels, **T)
    assert loss == wanted
    np.testing.assert_array_equal(grad, slope)
    np.testing.assert_array_equal(given, s)


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_guarded_and_threads(impl, kind):
    """The same bits in the student's buffer, beside forbidden pages, in rows apart and with any number of threads."""
    for m, v in ((3, 1), (5, 37), (40, 700), (3, 5000)):
        s, t, labels = logits(m, v)
        wanted, slope = ec.distillation_loss(s, t, labels, kind=kind, threads=1, **T)
        for side in ("left", "right"):
            a = guarded(s, side)
            loss, grad = ec.distillation_loss(a, guarded(t, side), labels, kind=kind, grad_out=a, threads=3, **T)
            assert grad is a
            assert loss == wanted
            np.testing.assert_array_equal(a, slope)
        apart = np.full((m, v + 5), 77, f)
        ec.distillation_loss(s, t, labels, kind=kind, grad_out=apart[:, 2:-3], threads=2, **T)
        np.testing.assert_array_equal(apart[:, 2:-3], slope)
        assert (apart[:, :2] == 77).all()
        assert (apart[:, -3:] == 77).all()


def test_large_gradients_are_the_same(impl):
    """Beyond the caches the gradient is written past them."""
    v = 32001
    s, t, labels = logits(70, v)
    out = np.full((70, v + 3), 77, f)
    loss, grad = ec.distillation_loss(s, t, labels, grad_out=out[:, 1 : v + 1], threads=2, **T)
    _, slope = ec.distillation_loss(s[:2], t[:2], labels[:2], reduction="sum", **T)
    np.testing.assert_allclose(grad[:2] * 70, slope, rtol=1e-5, atol=1e-9)
    assert (out[:, 0] == 77).all()
    assert (out[:, v + 1 :] == 77).all()
    again, fresh = ec.distillation_loss(s, t, labels, threads=1, **T)
    assert loss == again
    np.testing.assert_array_equal(grad, fresh)


def test_dtypes_and_dimensions(impl):
    s, t, labels = logits(6, 33)
    half, other = s.astype("f2"), t.astype("f2")
    wanted, slope = ec.distillation_loss(half.astype(f), other.astype(f), labels, **T)
    loss, grad = ec.distillation_loss(half.reshape(2, 3, 33), other.reshape(2, 3, 33), labels.reshape(2, 3).astype(np.uint8), **T)
    assert (loss, grad.dtype, grad.shape) == (wanted, f, (2, 3, 33))
    np.testing.assert_array_equal(grad.reshape(6, 33), slope)
    one, row = ec.distillation_loss(s[0], t[0], np.array(labels[0]), **T)
    assert row.shape == (33,)
    assert one == ec.distillation_loss(s[:1], t[:1], labels[:1], return_grad=False, **T)
    assert ec.distillation_loss(s.astype(float), t, labels, return_grad=False, **T) == pytest.approx(
        ec.distillation_loss(s, t, labels, return_grad=False, **T)
    )


S, TEACHER, LABELS = logits(4, 6)
BAD = {
    "student: dtype": ({"student": S.astype(int)}, TypeError, "student has dtype int64"),
    "student: list": ({"student": [[1.0]]}, TypeError, "student is a list"),
    "student: no classes": ({"student": S[:, :0], "teacher": S[:, :0]}, ValueError, r"student has shape \(4, 0\)"),
    "teacher: shape": ({"teacher": S[:2]}, ValueError, r"teacher has shape \(2, 6\), student has \(4, 6\)"),
    "labels: dtype": ({"labels": LABELS.astype(f)}, TypeError, "labels has dtype float32"),
    "labels: bool": ({"labels": LABELS > 2}, TypeError, "labels has dtype bool"),
    "labels: shape": ({"labels": LABELS[:3]}, ValueError, r"labels has shape \(3,\), wanted \(4,\)"),
    "labels: range": ({"labels": np.array([0, 1, 6, 2])}, ValueError, r"labels has 6 in row 2, wanted 0..5 or ignore_index \(-100\)"),
    "labels: negative": ({"labels": np.array([0, -1, 3, 2])}, ValueError, "labels has -1 in row 1"),
    "labels: wrapping": ({"labels": np.array([0, 2**64 - 100, 3, 2], np.uint64)}, ValueError, "labels has 18446744073709551516 in row 1"),
    "temperature": ({"temperature": 0.0}, ValueError, "temperature is 0.0"),
    "temperature: int": ({"temperature": 10**400}, ValueError, "temperature is 1000"),
    "temperature: nan": ({"temperature": math.nan}, ValueError, "temperature is nan"),
    "temperature: kind": ({"temperature": "4"}, TypeError, "temperature is a str"),
    "alpha": ({"alpha": 1.5}, ValueError, "alpha is 1.5, wanted a float in 0..1"),
    "alpha: missing": ({"alpha": None}, ValueError, "alpha has to be chosen with labels"),
    "alpha: no labels": ({"labels": None}, ValueError, "alpha is 0.7, which wants labels"),
    "smoothing": ({"label_smoothing": -0.1}, ValueError, "label_smoothing is -0.1"),
    "smoothing: no labels": ({"labels": None, "alpha": None, "label_smoothing": 0.1}, ValueError, "label_smoothing is 0.1, which wants"),
    "kind": ({"kind": "cosine"}, ValueError, "kind is 'cosine', wanted one of kl, reverse_kl"),
    "beta": ({"kind": "jsd", "beta": 1}, ValueError, "beta is 1, wanted a float between 0 and 1"),
    "reduction": ({"reduction": "tokenmean"}, ValueError, "reduction is 'tokenmean', wanted one of batchmean, sum, none, mean"),
    "teacher_kind": ({"teacher_kind": "prob"}, ValueError, "teacher_kind is 'prob'"),
    "mse": ({"kind": "mse", "teacher_kind": "probs"}, ValueError, 'kind="mse" compares logits'),
    "weight: shape": ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight has shape \(3,\)"),
    "weight: sign": ({"sample_weight": -np.ones(4)}, ValueError, "sample_weight has a value that is negative"),
    "weight: dtype": ({"sample_weight": np.ones(4, int)}, TypeError, "sample_weight has dtype int64"),
    "ignore_index": ({"ignore_index": 1.0}, TypeError, "ignore_index is a float"),
    "scale_by_t2": ({"scale_by_t2": "yes"}, TypeError, "scale_by_t2 is 'yes', wanted True or False"),
    "threads": ({"threads": 0}, ValueError, "threads is 0"),
    "grad_out: kind": ({"grad_out": [1]}, TypeError, "grad_out is a list"),
    "grad_out: dtype": ({"grad_out": np.ones((4, 6))}, TypeError, "grad_out has dtype float64"),
    "grad_out: shape": ({"grad_out": np.ones((4, 5), f)}, ValueError, "grad_out has shape"),
    "grad_out: teacher": ({"grad_out": TEACHER}, ValueError, "grad_out overlaps an input"),
    "grad_out: no grad": ({"grad_out": S, "return_grad": False}, ValueError, "grad_out is given, but return_grad is False"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls_are_refused_and_write_nothing(case):
    arguments, error, message = BAD[case]
    kept = S.copy(), TEACHER.copy()
    call = {"student": S, "teacher": TEACHER, "labels": LABELS, "alpha": 0.7, "grad_out": S} | arguments
    with pytest.raises(error, match=f"^distillation_loss: .*{message}"):
        ec.distillation_loss(call.pop("student"), call.pop("teacher"), call.pop("labels"), **call)
    np.testing.assert_array_equal(S, kept[0])
    np.testing.assert_array_equal(TEACHER, kept[1])


def test_a_part_of_the_students_buffer_is_no_place_for_the_gradient():
    both = np.zeros((5, 6), f)
    with pytest.raises(ValueError, match="grad_out overlaps an input"):
        ec.distillation_loss(both[:4], TEACHER, grad_out=both[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_long_rows(impl, kind):
    """Rows fewer than threads: the same bits with any number of them, a mask and the largest logit in other parts."""
    s, t, labels = logits(2, 100_003)
    s[0, 99_999], t[1, 50_000] = 30, 40
    labels[1] = 33_000
    assert_close(s, t, labels, kind=kind, threads=3, **T)
    s[1, 70_000:70_010] = t[1, 70_000:70_010] = -np.inf
    wanted, slope = ec.distillation_loss(s, t, labels, kind=kind, threads=1, **T)
    for threads in (2, 3):
        loss, grad = ec.distillation_loss(s, t, labels, kind=kind, threads=threads, **T)
        assert loss == wanted
        np.testing.assert_array_equal(grad, slope)


def test_short_rows_beside_others(impl):
    """Rows side by side do not notice each other, wherever they stand: those that are ignored, masked or broken neither."""
    for v in (1, 2, 3, 7, 8, 9, 10, 16, 17, 63, 128):
        s, t, labels = logits(37, v)
        labels[[4, 20]] = -100
        s[3, 0] = np.nan
        t[9] = s[9]
        if v > 2:
            s[11, (labels[11] + 1) % v] = t[11, (labels[11] + 1) % v] = -np.inf
        apart = np.full((37, v + 3), 77, f)
        loss, grad = ec.distillation_loss(s, t, labels, reduction="none", grad_out=apart[:, 1 : v + 1], threads=2, **T)
        assert (apart[:, 0] == 77).all()
        assert (apart[:, v + 1 :] == 77).all()
        assert np.isnan(loss[3])
        for i in range(37):
            alone, slope = ec.distillation_loss(s[i : i + 1], t[i : i + 1], labels[i : i + 1], reduction="none", **T)
            np.testing.assert_array_equal(alone, loss[i : i + 1])
            np.testing.assert_array_equal(slope[0], grad[i])
        assert_close(np.delete(s, 3, axis=0), np.delete(t, 3, axis=0), np.maximum(np.delete(labels, 3), 0), **T)
        again = s.copy()
        ec.distillation_loss(again, t, labels, reduction="none", grad_out=again, **T)
        np.testing.assert_array_equal(again, grad)
