"""What int4 weights gain over int8 and float32 ones of the same shape on this machine: one table for bench/README.md.

    python bench/int4.py [--threads 1 2] [--size 4096 4096]

Calls in turn, medians in ms. One row: weights from memory (rotating over copies), then the same weight again and again; then many rows.
"""

import argparse
import functools
from typing import Any

import numpy as np

import edgecomp as ec
from edgecomp.measure.timing import Candidate, cold_copies, interleave, rotating

COLUMNS: dict[str, dict[str, Any]] = {
    "int8": {"bits": 8},
    "int4 g32": {"bits": 4, "group_size": 32},
    "int4 g128": {"bits": 4, "group_size": 128},
    'int4 g32, `compute="float32"`': {"bits": 4, "group_size": 32},
    "float32": {},
}


def copies(column: str, w: Any) -> list[Any]:
    """Enough weights of this form that each is cold when its turn comes."""

    def make() -> Any:
        return ec.quantize(w, **COLUMNS[column]) if COLUMNS[column] else ec.pack(w)

    first = make()
    return [first, *(make() for _ in range(cold_copies(first.nbytes) - 1))]


def candidate(column: str, weights: list[Any], x: Any, out: Any, threads: int) -> Candidate:
    def call(weight: Any) -> Any:
        if "compute" in column:
            return ec.linear(x, weight, compute="float32", out=out, threads=threads)
        return ec.linear(x, weight, out=out, threads=threads)

    return Candidate(column, rotating([functools.partial(call, weight) for weight in weights]), work=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 4096), metavar=("N", "K"))
    parser.add_argument("--rows", type=int, default=512, help="of the last lines")
    args = parser.parse_args()
    n, k = args.size
    rng = np.random.default_rng(0)
    w = rng.standard_normal((n, k), dtype=np.float32)
    weights = {column: copies(column, w) for column in COLUMNS}
    print("| (M,N,K) | threads | " + " | ".join(COLUMNS) + " | int8 / g32 |\n|" + " --- |" * (len(COLUMNS) + 3), flush=True)
    for m, cold in ((1, True), (1, False), (args.rows, False)):
        x, out = rng.standard_normal((m, k), dtype=np.float32), np.empty((m, n), np.float32)
        for threads in args.threads:
            timings = interleave([candidate(column, ws if cold else ws[:1], x, out, threads) for column, ws in weights.items()])
            ms = [1e3 * t.median for t in timings]
            where = ", cold" if cold else ", hot" if m == 1 else ""
            print(f"| ({m},{n},{k}){where} | {threads} | " + " | ".join(f"{v:.3f}" for v in ms) + f" | {ms[0] / ms[1]:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
