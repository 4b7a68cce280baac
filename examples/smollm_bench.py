"""What `smollm.py --bench` does: tokens a second, beside what reading the weights once a token allows."""

from __future__ import annotations

import statistics
import time
from typing import Any

from smollm import Cache, Llama

from edgecomp import measure
from edgecomp.measure import report

PROMPTS, GENERATED, ROUNDS = (128, 512), 64, 5  # tokens; medians over rounds, in which all take turns


def bench(model: Llama, threads: int) -> dict[str, Any]:
    nbytes = sum(w.nbytes for w in model.weights)
    read = measure.Probe("read", threads, nbytes // threads)  # as many bytes, again and again: from memory, if no cache holds them
    rates: dict[str, list[float]] = {f"prompt of {tokens}": [] for tokens in PROMPTS} | {"generation": [], "reading": []}
    for _ in range(ROUNDS):
        for tokens in PROMPTS:
            start = time.perf_counter()
            model.logits(model.forward(range(1000, 1000 + tokens), Cache(model, tokens))[-1:])
            rates[f"prompt of {tokens}"].append(tokens / (time.perf_counter() - start))
        cache = Cache(model, 2 * GENERATED)
        states = model.forward(range(1000, 1000 + GENERATED), cache)
        before, start = read(), time.perf_counter()
        for _ in range(GENERATED):
            states = model.forward([int(model.logits(states[-1:]).argmax())], cache)
        rates["generation"].append(GENERATED / (time.perf_counter() - start))
        rates["reading"].append((before + read()) / 2 / nbytes)
    return {"tokens_per_second": {name: statistics.median(all_) for name, all_ in rates.items()}, "weight_bytes_a_token": nbytes}


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The lines of a table."""
    rates, nbytes = found["tokens_per_second"], found["weight_bytes_a_token"]
    share = report.percent(rates["generation"] / rates["reading"])
    lines = [[name, f"{rate:.1f} tokens/s"] for name, rate in rates.items() if name != "reading"]
    roof = f"{rates['reading']:.1f} tokens/s, of which {share} reached"
    return [*lines, ["weights, read for each token", f"{nbytes / 1e6:.1f} MB"], ["reading them alone allows", roof]]
