"""GGUF blocks to weights against gguf-py's dequantize, and the import of a whole model. `python bench/readers.py [FILE.gguf]`"""

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


def median(call: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def main() -> None:
    rng = np.random.default_rng(0)
    print("| type | (N,K) | ours, GB/s of blocks | gguf-py dequantize, GB/s | ratio |\n| --- | --- | --- | --- | --- |")
    for kind, (size, convert) in KINDS.items():
        for n, k in SHAPES:
            blocks = rng.integers(0, 256, (n, k // 32, size)).astype(np.uint8)
            blocks[..., [1, 3] if kind == "Q4_1" else [1]] &= 0x3B
            flat, quant = blocks.reshape(n, -1), gguf.GGMLQuantizationType[kind]
            ours = median(lambda c=convert, f=flat, s=(n, k): c(f, s), 7)  # type: ignore[misc]
            theirs = median(lambda f=flat, q=quant: gguf.quants.dequantize(f, q), 3)  # type: ignore[misc]
            rates = [flat.nbytes / t / 1e9 for t in (ours, theirs)]
            print(f"| {kind} | ({n},{k}) | {rates[0]:.2f} | {rates[1]:.3f} | {theirs / ours:.1f}x |")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch.fetch(fetch.SMOLLM) / next(iter(fetch.SMOLLM.files))
    seconds = median(lambda: ec.import_weights(path), 5)
    print(f"\nimport_weights of {path.name}: {seconds * 1e3:.0f} ms, {len(ec.import_weights(path))} tensors")


if __name__ == "__main__":
    main()
