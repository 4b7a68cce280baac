"""The distillation loss (kl, labels, gradient; T = 4, alpha = 0.7) beside the same in plain NumPy and, where torch is installed, in
torch.compile: medians, in ms; and the loss of a last layer beside its products.

python bench/kd_loss.py [512,32000 ...]
python bench/kd_loss.py linear
python bench/kd_loss.py numba
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp.measure.roof import Probe, dram_bytes

SHAPES = ((512, 32000), (128, 128256), (4096, 1000), (65536, 10), (64, 1000))
T, ALPHA = 4.0, 0.7

Float32 = npt.NDArray[np.float32]


def softmax(x: Float32) -> tuple[Float32, Float32]:
    """Logarithm of the softmax, and the softmax."""
    x = x - x.max(axis=1, keepdims=True)
    e = np.exp(x)
    total = e.sum(axis=1, keepdims=True)
    return x - np.log(total), e / total


def plainly(student: Float32, teacher: Float32, labels: npt.NDArray[np.int64]) -> tuple[float, Float32]:
    m = len(student)
    lq, q = softmax(student / np.float32(T))
    lp, p = softmax(teacher / np.float32(T))
    l1, q1 = softmax(student)
    at = np.arange(m), labels
    loss = ALPHA * T * T * (p * (lp - lq)).sum() / m - (1 - ALPHA) * l1[at].mean()
    q1[at] -= 1
    return float(loss), np.float32(ALPHA * T / m) * (q - p) + np.float32((1 - ALPHA) / m) * q1


def compiled(threads: int) -> Callable[..., Any] | None:
    """The same as one function that torch has compiled, gradient and all; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    torch.compiler.reset()  # or it gives up after some shapes
    torch.set_num_threads(threads)
    functional = torch.nn.functional

    def both(s: Any, t: Any, labels: Any) -> Any:
        m = len(s)
        lq, lp, l1 = functional.log_softmax(s / T, -1), functional.log_softmax(t / T, -1), functional.log_softmax(s, -1)
        q, p, q1 = lq.exp(), lp.exp(), l1.exp()
        loss = ALPHA * T * T * (p * (lp - lq)).sum() / m - (1 - ALPHA) * l1.gather(1, labels[:, None]).mean()
        hot = torch.arange(s.shape[1])[None] == labels[:, None]
        return loss, ALPHA * T / m * (q - p) + (1 - ALPHA) / m * (q1 - hot.to(q1.dtype))

    return torch.compile(both, dynamic=False)  # type: ignore[no-any-return]


def by_torch(s: Float32, t: Float32, labels: npt.NDArray[np.int64], threads: int) -> float:
    """ms, or NaN without torch."""
    both = compiled(threads)
    if both is None:
        return float("nan")
    import torch

    arguments = torch.from_numpy(s), torch.from_numpy(t), torch.from_numpy(labels)
    with torch.no_grad():
        loss, grad = both(*arguments)
        wanted, slope = plainly(s, t, labels)
        assert abs(loss.item() / wanted - 1) < 1e-4
        assert np.abs(grad.numpy() - slope).max() < 1e-5
        return median(lambda: both(*arguments), 1.0)


def median(call: Callable[[], Any], seconds: float) -> float:
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def problem(m: int, v: int) -> tuple[Float32, Float32, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    s, t = (3 * rng.standard_normal((m, v), dtype=np.float32) for _ in range(2))
    return s, t, rng.integers(0, v, m)


def roof_share(m: int, v: int, threads: int, ms: float) -> float:
    """Both logits read once and the gradient written once, at the rate of copying."""
    copy = Probe("copy", threads, dram_bytes(threads) // 2)
    rate = float(np.median([copy() for _ in range(7)]))
    return 12 * m * v / rate / (ms * 1e-3)


def row(m: int, v: int) -> None:
    s, t, labels = problem(m, v)
    out = np.ones((m, v), np.float32)

    def op(threads: int, grad_out: Float32 | None) -> Any:
        return ec.distillation_loss(s, t, labels, temperature=T, alpha=ALPHA, grad_out=grad_out, threads=threads)

    slow = median(lambda: plainly(s, t, labels), 1.0)
    peers = [by_torch(s, t, labels, n) for n in (1, 2)]
    ours = [median(lambda n=n: op(n, out), 1.5) for n in (1, 2)]  # type: ignore[misc]
    fresh = median(lambda: op(1, None), 1)
    gains = " / ".join(f"{peer / own:.1f}x" for peer, own in zip(peers, ours, strict=True))
    shares = " / ".join(f"{roof_share(m, v, n, own):.0%}" for n, own in zip((1, 2), ours, strict=True))
    figures = [f"{slow:.3g}", *(" / ".join(f"{value:.3g}" for value in pair) for pair in (peers, ours)), gains, shares, f"{fresh:.3g}"]
    print(f"| ({m},{v}) | " + " | ".join(figures) + " |", flush=True)


def linear(m: int = 1024, k: int = 512, v: int = 128256) -> None:
    """The loss of a last layer, and its three products alone: each in one piece, by the same kernels."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((v, k), np.float32)
    teacher, labels = rng.standard_normal((m, v), np.float32), rng.integers(0, v, m)
    use = ec.backend.current()
    y, by_x, by_w = np.zeros((m, v), np.float32), np.zeros_like(x), np.zeros_like(w)
    products = [
        median(lambda: use.gemm_f32(x, w, None, None, y), 1),
        median(lambda: use.gemm_f32_add(y, w, by_x), 1),
        median(lambda: use.gemm_f32_add(y.T, x, by_w), 1),
    ]
    numpy = [median(lambda: x @ w.T, 1), median(lambda: y @ w, 1), median(lambda: y.T @ x, 1)]
    whole = median(lambda: ec.linear_distillation_loss(x, w, teacher, labels, temperature=T, alpha=ALPHA), 1)
    print(f"({m},{k}) x ({v},{k}): loss and gradients {whole:.0f} ms")
    for name, parts in (("edgecomp", products), ("NumPy", numpy)):
        print(f"products in {name}: {' + '.join(f'{part:.0f}' for part in parts)} = {sum(parts):.0f} ms, {whole / sum(parts):.2f}x")


def numba(m: int = 512, v: int = 32000) -> None:
    s, t, labels = problem(m, v)
    out, found = np.ones((m, v), np.float32), {}
    for threads in (1, 2):
        for backend in ("c", "numba"):
            ec.set_backend(backend)
            found[backend] = median(
                lambda n=threads: ec.distillation_loss(s, t, labels, temperature=T, alpha=ALPHA, grad_out=out, threads=n),  # type: ignore[misc]
                3,
            )
        share = found["c"] / found["numba"]
        print(f"({m},{v}), threads {threads}: C {found['c']:.3g} ms, Numba {found['numba']:.3g} ms, {share:.0%}")


def main() -> None:
    if sys.argv[1:] == ["linear"]:
        linear()
    elif sys.argv[1:] == ["numba"]:
        numba()
    else:
        columns = "(M,V)", "NumPy", "torch.compile, 1 / 2 threads", "ours, 1 / 2 threads", "torch / ours", "of the roof", "fresh gradient"
        print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
        for m, v in [tuple(map(int, a.split(","))) for a in sys.argv[1:]] or SHAPES:
            row(m, v)


if __name__ == "__main__":
    main()
