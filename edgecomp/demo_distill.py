"""What a small student learns from the demo's network, where most images have no label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecomp import demo_train
from edgecomp.demo_train import Digits, Float32, Layer

HIDDEN, LABELLED, SEEDS = 32, 200, 3


@dataclass(frozen=True)
class Students:
    """Accuracies of 64-hidden-hidden-10 networks: means over the students of several seeds."""

    hidden: int
    labelled: int  # images with a label that students see
    images: int  # that the teacher has seen, with their labels
    smaller: float  # the teacher's weights / a student's
    alone: float  # trained on the labelled images
    distilled: float  # trained on the teacher's logits of all images, without a label
    teacher: float

    def sentence(self) -> str:
        return (
            f"Distillation: a 64-{self.hidden}-{self.hidden}-10 student, {self.smaller:.0f}x smaller than its teacher, reads "
            f"{self.alone:.1%} of the test images when it learns from {self.labelled} labelled images alone, {self.distilled:.1%} when it "
            f"learns from its teacher's logits of all {self.images}, labels unseen; the teacher {self.teacher:.1%}."
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def students(
    teacher: Sequence[Layer], digits: Digits, *, seed: int, epochs: int, logits: Callable[[Sequence[Layer], Float32], Float32]
) -> Students:
    """Trains students alone and distilled, with as many steps. logits(layers, images) is what a network makes of images."""
    some = Digits(digits.train[:LABELLED], digits.train_labels[:LABELLED], digits.test, digits.test_labels)
    said, longer = logits(teacher, digits.train), epochs * len(digits.train) // LABELLED

    def accuracy(layers: Sequence[Layer]) -> float:
        return float((logits(layers, digits.test).argmax(axis=1) == digits.test_labels).mean())

    seeds = range(seed, seed + SEEDS)
    alone = [demo_train.train(some, seed=s, hidden=HIDDEN, epochs=longer) for s in seeds]
    distilled = [demo_train.train(digits, seed=s, hidden=HIDDEN, epochs=epochs, teacher=said) for s in seeds]
    smaller = sum(layer.w.size for layer in teacher) / sum(layer.w.size for layer in alone[0])
    means = (float(np.mean([accuracy(layers) for layers in each])) for each in (alone, distilled, [teacher]))
    return Students(HIDDEN, LABELLED, len(digits.train), smaller, *means)
