"""What the demo prunes: its network with zeros, or with half its neurons gone, and then trained a little further."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import edgecomp as ec
from edgecomp import demo_train
from edgecomp.demo_train import Digits, Layer, logits

SPARSITY = 0.9


def _zeros(layers: Sequence[Layer], **how: Any) -> list[Layer]:
    return [Layer(ec.prune(w, **how), bias) for w, bias in layers]


def _narrow(layers: Sequence[Layer]) -> list[Layer]:
    """Half the neurons of each hidden layer: those whose weights are longest."""
    names = [f"fc{i}" for i in range(len(layers))]
    arrays = {name: layer.w for name, layer in zip(names, layers, strict=True)}
    biases = {f"{name}.bias": layer.bias for name, layer in zip(names, layers, strict=True)}
    small = ec.prune_channels(arrays | biases, names, 0.5)
    return [Layer(small[name], small[f"{name}.bias"]) for name in names]


WAYS: dict[str, Callable[[Sequence[Layer]], list[Layer]]] = {
    "90 % zeros": functools.partial(_zeros, sparsity=SPARSITY),
    "2:4": functools.partial(_zeros, pattern="2:4"),
    "2:4, blocks of 16": functools.partial(_zeros, pattern="2:4", block=16),
    "half the neurons": _narrow,
}


@dataclass(frozen=True)
class Pruned:
    """The network pruned in one of the WAYS, and what that costs."""

    way: str
    layers: tuple[Layer, ...]  # trained further
    left: float  # share of the weights that are not zero, or gone
    at_once: float  # accuracy before it was trained further
    tuned: float  # and after

    def to_json(self) -> dict[str, Any]:
        return {"way": self.way, "weights_left": self.left, "accuracy_at_once": self.at_once, "accuracy": self.tuned}


def accuracy(layers: Sequence[Layer], digits: Digits) -> float:
    """Share of the test images that are read right."""
    return float((logits(layers, digits.test).argmax(axis=1) == digits.test_labels).mean())


def prune(trained: Sequence[Layer], digits: Digits, *, seed: int, epochs: int, after_epoch: Callable[[], object]) -> tuple[Pruned, ...]:
    """Prunes in every way, and trains `epochs` further; zeros stay zeros."""
    found = []
    for way, make in WAYS.items():
        cut = make(trained)
        tuned = demo_train.train(digits, seed=seed, hidden=1, epochs=epochs, start=cut, after_epoch=after_epoch)
        left = sum((layer.w != 0).sum() for layer in cut) / sum(layer.w.size for layer in trained)
        found.append(Pruned(way, tuple(tuned), float(left), accuracy(cut, digits), accuracy(tuned, digits)))
    return tuple(found)


def sizes(layers: Sequence[Layer]) -> str:
    """ "64-512-512-10"."""
    return "-".join(str(n) for n in (layers[0].w.shape[1], *(len(layer.w) for layer in layers)))


def table(trained_accuracy: float, trained: str, pruned: Sequence[Pruned]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: what pruning costs."""
    lines = [["nothing", trained, "100 %", f"{trained_accuracy:.1%}", ""]]
    lines += [[p.way, sizes(p.layers), f"{p.left:.0%}".replace("%", " %"), f"{p.at_once:.1%}", f"{p.tuned:.1%}"] for p in pruned]
    return ["pruned", "network", "weights left", "at once", "trained further"], lines
