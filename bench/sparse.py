"""CSR against dense float32: `python bench/sparse.py {many,few,one,power,spmv,spmm,numba} [--threads N] [--seconds S]`.

Everything in one process; the forms of a line are called in turn, so that what else the machine does meets all of them; `many` and `one`
make each call twice and take the second, which finds its weight where the first left it. Medians, ms.
"""

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

import edgecomp as ec
from edgecomp.measure.timing import cold_copies
from edgecomp.sparse import CSRWeight

DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.01)
MANY = ((4096, 4096, 128), (1024, 1024, 512), (3072, 768, 128), (1024, 1024, 32))
rng = np.random.default_rng(0)


def milliseconds(calls: Sequence[Callable[[], object]], seconds: float, hot: bool = False) -> list[float]:
    """The median of each call, all of them in turn for so long; hot: made twice, of which the second counts."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, found in zip(calls, times, strict=True):
            if hot:
                call()
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [1e3 * statistics.median(found) for found in times]


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def pruned(n: int, k: int, density: float) -> np.ndarray:
    """Uniform random zeros."""
    return np.where(rng.random((n, k), dtype=np.float32) < density, random(n, k), 0).astype(np.float32)


def linear(weights: Sequence[object], x: np.ndarray, n: int, threads: int) -> Callable[[], object]:
    """A product with the next of some weights."""
    out, turn = np.zeros((len(x), n), np.float32), iter(range(10**9))
    return lambda: ec.linear(x, weights[next(turn) % len(weights)], out=out, threads=threads)


def line(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: object) -> None:
    line(*cells)
    print("|" + "---|" * len(cells))


def compare(shapes: Sequence[tuple[int, int, int]], threads: int, seconds: float, cold: bool) -> None:
    head("(N,K), M", "density", "dense", "csr", "csr8", "dense / csr", "csr / csr8")
    for n, k, m in shapes:
        x, dense = random(m, k), ec.pack(random(n, k))
        for density in DENSITIES:
            z = pruned(n, k, density)
            calls = []
            for w in (dense, ec.to_csr(z), ec.to_csr(z, 8)):
                copies = cold_copies(w.nbytes) if cold else 1
                weights = [w, *(copy.deepcopy(w) for _ in range(copies - 1))]
                for each in weights:
                    ec.linear(x, each, threads=threads)
                calls.append(linear(weights, x, n, threads))
            d, c, c8 = milliseconds(calls, seconds, not cold)
            line(f"({n},{k}), {m}", density, f"{d:.3f}", f"{c:.3f}", f"{c8:.3f}", f"{d / c:.2f}x", f"{c / c8:.2f}x")


def power_law(n: int, k: int, nnz: int) -> CSRWeight:
    """Row r of the sorted ones has entries in proportion to 1 / r, at most all; shuffled."""
    share = 1 / np.arange(1, n + 1)
    low, high = 0.0, float(n * k)
    for _ in range(60):
        scale = (low + high) / 2
        low, high = (scale, high) if np.minimum(k, scale * share).sum() < nnz else (low, scale)
    counts = rng.permutation(np.minimum(k, low * share).astype(int))
    indices = np.concatenate([np.sort(rng.choice(k, c, replace=False)) for c in counts])
    return CSRWeight.from_arrays(random(len(indices)), indices, np.concatenate([[0], np.cumsum(counts)]), (n, k))


def power(threads: int, seconds: float) -> None:
    """Power-law rows at 5 % density: how evenly the work is shared out."""
    head("M", "uniform rows", "power-law rows", "share of the speed, per entry")
    uniform = ec.to_csr(pruned(4096, 4096, 0.05))
    law = power_law(4096, 4096, uniform.nnz)
    for m in (1, 128):
        x = random(m, 4096)
        u, p = milliseconds([linear([w], x, 4096, threads) for w in (uniform, law)], seconds)
        line(m, f"{u:.3f}", f"{p:.3f}", f"{100 * u / p * law.nnz / uniform.nnz:.0f} %")


def spmv(threads: int, seconds: float) -> None:
    n, each = 100_000, 10
    indices = np.sort(rng.integers(0, n - each, (n, each)), axis=1) + np.arange(each)
    w = CSRWeight.from_arrays(random(n * each), indices.reshape(-1), np.arange(n + 1) * each, (n, n))
    try:
        a = w.to_scipy()
    except ImportError:
        a = None
    x = random(1, n)
    calls = [linear([w], x, n, threads)]
    if a is not None:
        calls += [functools.partial(ec.spmm, a, x[0], threads=threads), lambda: a @ x[0]]
    head("100,000 x 100,000, 10 per row", "ms")
    for name, t in zip(("linear", "spmm of a SciPy matrix", "SciPy"), milliseconds(calls, seconds), strict=False):
        line(name, f"{t:.3f}")


def spmm(threads: int, seconds: float) -> None:
    """A sparse matrix times a dense one, as SciPy writes it."""
    import scipy.sparse

    head("(N,K), M, density", "spmm", "csr8", "SciPy")
    for n, k, m in ((4096, 4096, 8), (4096, 4096, 128), (4096, 4096, 512), (1024, 1024, 32)):
        for density in (0.5, 0.1, 0.01):
            z, b, out = pruned(n, k, density), random(k, m), np.zeros((n, m), np.float32)
            a = scipy.sparse.csr_array(z)
            calls = [functools.partial(ec.spmm, w, b, out=out, threads=threads) for w in (ec.to_csr(z), ec.to_csr(z, 8))]
            times = milliseconds([*calls, functools.partial(a.__matmul__, b)], seconds)
            line(f"({n},{k}), {m}, {density}", *(f"{t:.3f}" for t in times))


def numba(_: int, seconds: float) -> None:
    """Numba beside C, with one and two threads."""
    head("(4096,4096), M = 128", "1 thread: C", "Numba", "share of C's speed", "2 threads: C", "Numba", "share")
    x, weights = random(128, 4096), {}
    for density in DENSITIES:
        z = pruned(4096, 4096, density)
        weights |= {f"csr, {density}": ec.to_csr(z), f"csr8, {density}": ec.to_csr(z, 8)}
    for pattern in ("2:4", "1:4"):
        for block in (1, 16):
            z = ec.prune(random(4096, 4096), pattern=pattern, block=block)
            for bits in (32, 8):
                weights[f"{pattern}, block {block}, {'int8' if bits == 8 else 'float32'}"] = ec.to_nm(z, pattern, block, bits)
    for name, w in weights.items():
        cells = []
        for threads in (1, 2):
            found = []
            for backend in ("c", "numba"):
                ec.set_backend(backend)
                found += milliseconds([linear([w], x, 4096, threads)], seconds)
            cells += [f"{found[0]:.2f}", f"{found[1]:.2f}", f"{100 * found[0] / found[1]:.0f} %"]
        line(name, *cells)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("many", "few", "one", "power", "spmv", "spmm", "numba"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each line")
    args = parser.parse_args()
    if args.what == "many":
        compare(MANY, args.threads, args.seconds, cold=False)
    elif args.what == "few":
        compare([(4096, 4096, m) for m in (1, 2, 4, 8, 16, 32)], args.threads, args.seconds, cold=True)
    elif args.what == "one":
        compare([(4096, 4096, 1)], args.threads, args.seconds, cold=False)
    else:
        {"power": power, "spmv": spmv, "spmm": spmm, "numba": numba}[args.what](args.threads, args.seconds)


if __name__ == "__main__":
    main()
