"""GGUF blocks to weights against gguf-py's dequantize, both with one thread, and the import of a whole model.

    python bench/readers.py [FILE.gguf]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import edgecomp as ec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import fetch

SHAPES = (1536, 576), (4096, 4096), (49152, 576)
KINDS = {
    "Q4_0": (18, ec.Int4Weight.from_gguf_q4_0),
    "Q4_1": (20, ec.Int4Weight.from_gguf_q4_1),
    "Q8_0": (34, ec.GroupedInt8Weight.from_gguf_q8_0),
}


def medians(times: int, *calls: Callable[[], Any]) -> list[float]:
    """Seconds of each, in turn; the first round does not count."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(times + 1):
        for call, seconds in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [float(np.median(seconds[1:])) for seconds in taken]


def main() -> None:
    rng = np.random.default_rng(0)
    print("| type | (N,K) | ours, GB/s of blocks | gguf-py dequantize, GB/s | ratio |\n| --- | --- | --- | --- | --- |")
    for kind, (size, convert) in KINDS.items():
        for n, k in SHAPES:
            blocks = rng.integers(0, 256, (n, k // 32, size)).astype(np.uint8)
            blocks[..., [1, 3] if kind == "Q4_1" else [1]] &= 0x3B
            flat, quant = blocks.reshape(n, -1), gguf.GGMLQuantizationType[kind]
            with ec.threads(1):
                ours, theirs = medians(
                    15,
                    lambda c=convert, f=flat, s=(n, k): c(f, s),  # type: ignore[misc]
                    lambda f=flat, q=quant: gguf.quants.dequantize(f, q),  # type: ignore[misc]
                )
            rates = [flat.nbytes / t / 1e9 for t in (ours, theirs)]
            print(f"| {kind} | ({n},{k}) | {rates[0]:.2f} | {rates[1]:.3f} | {theirs / ours:.1f}x |")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch.fetch(fetch.SMOLLM) / next(iter(fetch.SMOLLM.files))
    for threads in (1, 2):
        with ec.threads(threads):
            (seconds,) = medians(5, lambda: ec.import_weights(path))
        print(f"\nimport_weights of {path.name}, {threads} thread{'s' * (threads > 1)}: {seconds * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
