"""The loss by a last layer's input and weights, against the same in one piece."""

import os
import tracemalloc

import numpy as np
import pytest
from child import run_python

import edgecomp as ec
from edgecomp import backend

f = np.float32


def layer(m=23, v=70, k=9, k2=5):
    rng = np.random.default_rng((m, v))
    hidden, weight = rng.standard_normal((m, k)).astype(f), rng.standard_normal((v, k)).astype(f)
    return hidden, weight, rng.standard_normal((m, k2)).astype(f), rng.standard_normal((v, k2)).astype(f), rng.integers(0, v, m)


@pytest.mark.parametrize("chunk", [None, 1, 7, 100])
@pytest.mark.parametrize("kind", ["kl", "tvd", "mse"])
def test_is_the_loss_of_the_logits(impl, kind, chunk):
    hidden, weight, th, tw, labels = layer()
    labels[3] = -100
    options = {"temperature": 2.0, "alpha": 0.6, "kind": kind, "label_smoothing": 0.1}
    teacher = th @ tw.T
    wanted, slope = ec.distillation_loss(hidden @ weight.T, teacher, labels, **options)
    for call in ({"teacher_logits": teacher}, {"teacher_hidden": th, "teacher_weight": tw}):
        loss, by_hidden, by_weight = ec.linear_distillation_loss(hidden, weight, labels=labels, chunk=chunk, **call, **options)
        assert loss == pytest.approx(wanted, rel=1e-5)
        np.testing.assert_allclose(by_hidden, slope @ weight, atol=1e-5)
        np.testing.assert_allclose(by_weight, slope.T @ hidden, atol=1e-5)
        assert ec.linear_distillation_loss(
            hidden, weight, labels=labels, chunk=chunk, return_grad=False, **call, **options
        ) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("teacher_kind", ["log_probs", "probs"])
def test_teacher_kinds_and_reductions(impl, teacher_kind):
    hidden, weight, th, tw, _ = layer()
    p = np.exp(th @ tw.T)
    p /= p.sum(axis=1, keepdims=True)
    teacher = np.log(p) if teacher_kind == "log_probs" else p
    for given in (teacher, teacher.astype("f2")):
        for reduction in ("sum", "mean", "none"):
            options = {"teacher_kind": teacher_kind, "temperature": 2.0, "reduction": reduction}
            wanted = ec.distillation_loss(hidden @ weight.T, given, return_grad=False, **options)
            loss = ec.linear_distillation_loss(hidden, weight, given, chunk=5, **options)[0]
            np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_memory_is_bounded(c):
    """Beside the results and the chunk, nothing as large as the logits."""
    hidden, weight, th, tw, labels = layer(400, 20_000)
    options = {"temperature": 4.0, "alpha": 0.7, "chunk": 20}
    ec.linear_distillation_loss(hidden, weight, None, labels, teacher_hidden=th, teacher_weight=tw, **options)
    tracemalloc.start()
    try:
        ec.linear_distillation_loss(hidden, weight, None, labels, teacher_hidden=th, teacher_weight=tw, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < hidden.nbytes + weight.nbytes + 0.15 * 400 * 20_000 * 4


def test_no_rows():
    hidden, weight, th, tw, _ = layer(0)
    loss, by_hidden, by_weight = ec.linear_distillation_loss(hidden, weight, teacher_hidden=th, teacher_weight=tw, reduction="sum")
    assert (loss, by_hidden.shape) == (0, hidden.shape)
    assert (by_weight == 0).all()


def test_bad_calls():
    hidden, weight, th, tw, labels = layer()
    teacher = th @ tw.T
    for arguments, options, message in (
        ((hidden, weight[:, :3], teacher), {}, "weight has shape"),
        ((hidden[0], weight, teacher), {}, "hidden has shape"),
        ((hidden, weight, teacher[:3]), {}, "the teacher's logits have shape"),
        ((hidden, weight), {}, "wanted either teacher_logits"),
        ((hidden, weight), {"teacher_hidden": th}, "wanted either teacher_logits"),
        ((hidden, weight, teacher), {"teacher_hidden": th, "teacher_weight": tw}, "wanted either teacher_logits"),
        ((hidden, weight), {"teacher_hidden": th, "teacher_weight": tw, "teacher_kind": "probs"}, "teacher_hidden and teacher_weight make"),
        ((hidden, weight, teacher, labels), {}, "alpha has to be chosen"),
        ((hidden, weight, teacher), {"chunk": 0}, "chunk is 0"),
    ):
        with pytest.raises(ValueError, match=f"^linear_distillation_loss: {message}"):
            ec.linear_distillation_loss(*arguments, **options)


def test_adds_to_what_is_there(impl):
    """The products of gradients: x may be a transposed view, w and y columns of something wider."""
    rng = np.random.default_rng(0)
    for m, n, k in ((1, 1, 1), (5, 17, 3), (37, 40, 130), (8, 16, 1), (3, 5, 0), (0, 4, 3)):
        x, w, y = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (m, n)))
        wide, out = np.full((k, n + 3), np.nan, np.float32), np.full((m, n + 2), 7, np.float32)
        wide[:, 1 : n + 1] = w
        for given in (x, np.ascontiguousarray(x.T).T):
            out[:, 1:-1] = y
            backend.current().gemm_f32_add(given, wide[:, 1 : n + 1], out[:, 1:-1], 2)
            np.testing.assert_allclose(out[:, 1:-1], y + x.astype(float) @ w, rtol=1e-5, atol=1e-5)
            assert (out[:, [0, -1]] == 7).all()


PEAKS = """
import os
import tracemalloc
import numpy as np, edgecomp as ec

def peak(call):
    "What a call takes at most, as Python counts it and as the kernel does, its results included."
    call()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    def resident():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10
    tracemalloc.start()
    before = resident()
    kept = call()
    print(tracemalloc.get_traced_memory()[1], resident() - before)
    tracemalloc.stop()

rng = np.random.default_rng(0)
"""


def peaks(code):
    return [int(word) for word in run_python(PEAKS + code, timeout=240).split()]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not reset its peaks")
def test_peaks_of_the_loss(c):
    """Two rows of scratch a thread, and what a row's label and weight take."""
    code = """
s, t, g = (rng.standard_normal((512, 32000), np.float32) for _ in range(3))
labels = rng.integers(0, 32000, 512)
peak(lambda: ec.distillation_loss(s, t, labels, temperature=4.0, alpha=0.7, grad_out=g))
"""
    assert max(peaks(code)) <= 2e6


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel does not reset its peaks")
def test_peaks_of_the_last_layer(c):
    """A tenth of the logits beside the results."""
    code = """
x, w = rng.standard_normal((1024, 32), np.float32), rng.standard_normal((50000, 32), np.float32)
t, labels = rng.standard_normal((1024, 50000), np.float32), rng.integers(0, 50000, 1024)
peak(lambda: ec.linear_distillation_loss(x, w, t, labels, temperature=4.0, alpha=0.7, chunk=64))
print(x.nbytes + w.nbytes, t.nbytes)
"""
    traced, resident, results, logits = peaks(code)
    assert max(traced, resident) <= results + 0.1 * logits
