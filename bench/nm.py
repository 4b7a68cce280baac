"""What N:M weights gain over the dense kernels on this machine: python bench/nm.py [-h]. One table for bench/README.md."""

import argparse
import functools
import statistics
import time

import numpy as np

import edgecomp as ec
from edgecomp.measure.timing import COLD_BYTES


def milliseconds(call) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 128, 512])
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 4096), metavar=("N", "K"))
    parser.add_argument("--patterns", nargs="+", default=["2:4", "1:4"], metavar="N:M")
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--bits", type=int, nargs="+", choices=(32, 8), default=[32, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend")
    args = parser.parse_args()
    if args.backend:
        ec.set_backend(args.backend)
    rng = np.random.default_rng(0)
    n, k = args.size
    w = rng.standard_normal((n, k)).astype(np.float32)
    dense = {32: ec.pack(w), 8: ec.quantize(w)}
    spoiler = np.ones(COLD_BYTES // 4, np.float32)  # once they are read no weight is in a cache, nor anything to be written back
    print("medians of calls in turn\npattern block bits threads   M   dense ms   n:m ms  speedup", flush=True)
    for pattern in args.patterns:
        for block in args.blocks:
            pruned = ec.prune(w, pattern=pattern, block=block)
            for bits in args.bits:
                weight = ec.to_nm(pruned, pattern, block, bits)
                for m in args.rows:
                    x, out = rng.standard_normal((m, k)).astype(np.float32), np.empty((m, n), np.float32)
                    for threads in args.threads:
                        calls = [functools.partial(ec.linear, x, a, out=out, threads=threads) for a in (dense[bits], weight)]
                        calls[1]()  # derives what the weight wants
                        times: list[list[float]] = [[], []]
                        for _ in range(args.repeats):  # in turn, so that both see the same machine
                            for call, its in zip(calls, times, strict=True):
                                if m == 1:
                                    spoiler.max()
                                its.append(milliseconds(call))
                        a, b = map(statistics.median, times)
                        print(f"{pattern:>7} {block:5} {bits:4} {threads:7} {m:3} {a:10.3f} {b:8.3f}  {a / b:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
