"""What each way of quantizing costs in accuracy, in the layers of real networks on real text.

    python bench/accuracy.py [--model smollm] [--json]

Relative error of a layer's output, |y - y32| / |y32| over all its values, mean of the layers: of the weights alone
(compute="float32"), and with the activations quantised too (compute="int8", the default). minilm is the sentence encoder of
examples/minilm.py, whose weights are float32. smollm is the language model of examples/smollm.py, every tenth block; its weights
are int4 already, with an offset per group of 32: y32 is what they are, not what they were before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import fetch
import minilm
import smollm

import edgecomp as ec
from edgecomp.measure import report

Float32 = npt.NDArray[np.float32]
Layers = list[tuple[Float32, Float32]]  # weights and input of each
TOKENS = 512  # of each layer's input

METHODS: dict[str, dict[str, Any]] = {"int8 per output": {"bits": 8}, "int8 groups of 32": {"bits": 8, "group_size": 32}}
for size in (32, 64, 128, None):
    for method in ("absmax", "mse"):
        for symmetric in (True, False):
            name = f"int4 {'per output' if size is None else f'groups of {size}'}, {method}, {'symmetric' if symmetric else 'zero points'}"
            METHODS[name] = {"bits": 4, "group_size": size, "method": method, "symmetric": symmetric}


class Recorder(minilm.Encoder):
    """Keeps every layer's weights and the first rows of its input."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "numpy")
        self.seen: dict[int, tuple[Float32, Float32]] = {}

    def _linear(self, x: Float32, w: Any, bias: Float32, out: Float32, activation: str | None = None) -> Float32:
        self.seen.setdefault(id(w), (w, x[:TOKENS].copy()))
        return super()._linear(x, w, bias, out, activation)


def minilm_layers() -> Layers:
    recorder = Recorder(fetch.fetch(fetch.MINILM))
    recorder.embed((fetch.fetch(fetch.LEE) / "lee.cor").read_text("latin-1").splitlines())
    return list(recorder.seen.values())


class RecordingLlama(smollm.Llama):
    """The same for a language model."""

    def _linear(self, x: Float32, w: Any, activation: str | None = None) -> Float32:
        self.seen.setdefault(id(w), (w.dequantize(), x))
        return super()._linear(x, w, activation)


def smollm_layers() -> Layers:
    model, tokenizer = smollm.load(smollm.model_file(), "float32")
    recorder = RecordingLlama(model.config, model.embedding, model.layers[::10], model.norm, "float32")
    recorder.seen = {}
    recorder._forward(np.array(tokenizer.encode(smollm.text_of("lee")).ids[:TOKENS]), smollm.Cache(recorder, TOKENS))
    return list(recorder.seen.values())


def errors(layers: Layers, options: dict[str, Any]) -> tuple[float, float, float]:
    """Bits of a weight, scales included; mean relative error with float32 and with int8 activations."""
    found, nbytes = [], 0
    for w, x in layers:
        quantized, exact = ec.quantize(w, **options), x.astype(np.float64) @ w.T
        nbytes += quantized.nbytes
        found.append([np.linalg.norm(ec.linear(x, quantized, compute=c) - exact) / np.linalg.norm(exact) for c in ("float32", "int8")])
    weights, both = np.mean(found, axis=0)
    return 8 * nbytes / sum(w.size for w, _ in layers), float(weights), float(both)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--model", choices=("minilm", "smollm"), default="minilm", help="whose layers (minilm)")
    given = parser.parse_args()
    try:
        layers = minilm_layers() if given.model == "minilm" else smollm_layers()
    except fetch.Unavailable as error:
        parser.exit(1, f"accuracy.py: {error}\n")
    result = []
    with report.Progress(len(METHODS), "quantizing") as progress:
        for name, options in METHODS.items():
            bits, weights, both = errors(layers, options)
            result.append({"method": name, "bits_per_weight": bits, "weights": weights, "int8_compute": both})
            progress.advance()
    if given.json:
        print(json.dumps(result, indent=2))
        return 0
    header = ["weights", "bits each", "error of the weights", "with int8 activations"]
    lines = [[r["method"], f"{r['bits_per_weight']:.2f}", f"{r['weights']:.2%}", f"{r['int8_compute']:.2%}"] for r in result]
    report.print_table(f"{len(layers)} layers of {given.model}", header, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
