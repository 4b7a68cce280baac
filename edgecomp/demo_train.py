"""What `edgecomp demo` compresses: a small network, trained in plain NumPy on the handwritten digits that ship with the package."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecomp.distillation import distillation_loss
from edgecomp.ops import linear

Float32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

DATA = Path(__file__).parent / "data" / "digits.npz"
# The other 500 are the test. A random choice of 500 has the same writers in both parts, and looks easier: 98 % instead of 94 %.
TRAINED_ON = 1297
BATCH, RATE = 64, 1e-3
FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8  # Adam's moments
TEMPERATURE = 4.0  # of the distillation


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 values in 0..1, and what they show."""

    train: Float32
    train_labels: Labels
    test: Float32
    test_labels: Labels


class Layer(NamedTuple):
    """act(x @ w.T + bias): w is a float32 array [N, K], or any weight of edgecomp."""

    w: Any
    bias: Float32


def load_digits() -> Digits:
    """The digits, split into the images to train on and those to test with."""
    with np.load(DATA) as file:
        images, labels = file["images"].astype(np.float32) / np.float32(16), file["labels"]
    return Digits(images[:TRAINED_ON], labels[:TRAINED_ON], images[TRAINED_ON:], labels[TRAINED_ON:])


def logits(layers: Sequence[Layer], x: Float32) -> Float32:
    """What the network makes of images [..., 64]: plain NumPy for layers that are plain arrays."""
    for i, (w, bias) in enumerate(layers):
        hidden = i + 1 < len(layers)
        if not isinstance(w, np.ndarray):
            x = linear(x, w, bias, activation="relu" if hidden else None)
            continue
        x = x @ w.T
        x += bias
        if hidden:
            np.maximum(x, 0, out=x)
    return x


def train(
    digits: Digits,
    *,
    seed: int,
    hidden: int,
    epochs: int,
    teacher: Float32 | None = None,
    start: Sequence[Layer] = (),
    after_epoch: Callable[[], object] | None = None,
) -> list[Layer]:
    """A 64-hidden-hidden-10 network with ReLU: cross-entropy, Adam, a rate that falls to zero along half a cosine.

    teacher: logits of the training images; the network then minimises their `distillation_loss`, without labels.
    start: a network to go on from, of any sizes, instead of a random one; what is zero in its weights stays zero.
    The same arguments give the same bits on the same machine, if NumPy's matmul has the same threads.
    """
    rng = np.random.default_rng(seed)
    sizes = (digits.train.shape[1], hidden, hidden, 10)
    layers = [Layer(w.copy(), bias.copy()) for w, bias in start] or [
        Layer(rng.standard_normal((n, k), dtype=np.float32) * np.float32((2 / k) ** 0.5), np.zeros(n, np.float32))
        for k, n in itertools.pairwise(sizes)
    ]
    parameters = [p for layer in layers for p in layer]
    kept = [p != 0 if start and p.ndim == 2 else None for p in parameters]
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    steps, step = epochs * -(-len(digits.train) // BATCH), 0
    for _ in range(epochs):
        order = rng.permutation(len(digits.train))
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            gradients = _gradients(layers, digits.train[batch], digits.train_labels[batch], None if teacher is None else teacher[batch])
            rate = RATE * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            rate *= (1 - SECOND**step) ** 0.5 / (1 - FIRST**step)
            for p, g, m, v, keep in zip(parameters, gradients, first, second, kept, strict=True):
                if keep is not None:
                    g *= keep
                m += np.float32(1 - FIRST) * (g - m)
                v += np.float32(1 - SECOND) * (g * g - v)
                p -= np.float32(rate) * m / (np.sqrt(v) + np.float32(FLOOR))
        if after_epoch:
            after_epoch()
    return layers


def _gradients(layers: list[Layer], x: Float32, labels: Labels, teacher: Float32 | None = None) -> list[Float32]:
    """Of the mean loss, by the parameters: w and bias of each layer in turn."""
    inputs = [x]
    for w, bias in layers[:-1]:
        inputs.append(np.maximum(inputs[-1] @ w.T + bias, 0))
    logits = inputs[-1] @ layers[-1].w.T + layers[-1].bias
    if teacher is None:
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(x)), labels] -= 1
        error /= np.float32(len(x))
    else:
        _, error = distillation_loss(logits, teacher, temperature=TEMPERATURE, grad_out=logits)
    found: list[Float32] = []
    for layer, seen in zip(reversed(layers), reversed(inputs), strict=True):
        found = [error.T @ seen, error.sum(axis=0), *found]
        error = (error @ layer.w) * (seen > 0)
    return found
