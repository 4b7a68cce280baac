"""CSR against dense float32 at (4096, 4096), in one process: `python bench/sparse.py [tokens] [threads]`. Medians of seven calls."""

import functools
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

import edgecomp as ec

SIZE, DENSITIES = 4096, (0.5, 0.3, 0.2, 0.1, 0.05, 0.01)


def milliseconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main(tokens: int = 128, threads: int = 1) -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((SIZE, SIZE)).astype(np.float32), rng.standard_normal((tokens, SIZE)).astype(np.float32)
    out, packed = np.zeros((tokens, SIZE), np.float32), ec.pack(w)
    print("density  dense ms  csr ms  csr8 ms")
    for density in DENSITIES:
        pruned = ec.prune(w, 1 - density)
        weights = packed, ec.to_csr(pruned), ec.to_csr(pruned, 8)
        dense, csr, csr8 = (milliseconds(functools.partial(ec.linear, x, a, out=out, threads=threads)) for a in weights)
        print(f"{density:7} {dense:9.2f} {csr:7.2f} {csr8:8.2f}   {dense / csr:.2f}x {dense / csr8:.2f}x", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
