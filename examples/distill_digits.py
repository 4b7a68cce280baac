"""A student that learns handwritten digits from its teacher's logits, not from labels: what `edgecomp.distillation_loss` is for.

python examples/distill_digits.py
"""

from typing import Any

import numpy as np

import edgecomp as ec
from edgecomp.demo_train import load_digits, train

STEPS, BATCH, RATE, T, LABELLED = 2000, 64, 0.02, 4.0, 200


def forward(layers: list[Any], x: Any) -> list[Any]:
    """The inputs of all layers, and the logits."""
    seen = [x]
    for i, (w, bias) in enumerate(layers):
        y = seen[-1] @ w.T + bias
        seen.append(np.maximum(y, 0) if i + 1 < len(layers) else y)
    return seen


def learn(images: Any, labels: Any, teacher: Any, seed: int) -> list[Any]:
    """A 64-32-10 student: of the teacher's logits if there are some, else of the labels (a loss with alpha = 0)."""
    rng = np.random.default_rng(seed)
    layers = [[rng.standard_normal((n, k), "f4") * np.float32((2 / k) ** 0.5), np.zeros(n, "f4")] for n, k in ((32, 64), (10, 32))]
    speed = [[np.zeros_like(p) for p in layer] for layer in layers]
    for step in range(STEPS):
        batch = rng.integers(0, len(images), BATCH)
        seen = forward(layers, images[batch])
        if teacher is None:
            _, error = ec.distillation_loss(seen[-1], seen[-1].copy(), labels[batch], alpha=0.0)
        else:
            _, error = ec.distillation_loss(seen[-1], teacher[batch], temperature=T)
        for i in (1, 0):  # backwards, by gradient descent with momentum
            (w, bias), x = layers[i], seen[i]
            gradients, error = (error.T @ x, error.sum(axis=0)), (error @ w) * (x > 0)
            for p, v, g in zip((w, bias), speed[i], gradients, strict=True):
                v *= 0.9
                v -= np.float32(RATE * (1 - step / STEPS)) * g
                p += v
    return layers


def main() -> None:
    digits = load_digits()

    def accuracy(layers: Any) -> float:
        return float((forward(layers, digits.test)[-1].argmax(axis=1) == digits.test_labels).mean())

    teacher = train(digits, seed=0, hidden=512, epochs=30)
    logits = forward(teacher, digits.train)[-1]
    alone = [accuracy(learn(digits.train[:LABELLED], digits.train_labels[:LABELLED], None, seed)) for seed in range(5)]
    distilled = [accuracy(learn(digits.train, None, logits, seed)) for seed in range(5)]
    print(f"student, {LABELLED} labelled images  {np.mean(alone):.1%}\nstudent, distilled, no label   {np.mean(distilled):.1%}")
    print(f"teacher, all labels            {accuracy(teacher):.1%}")


if __name__ == "__main__":
    main()
