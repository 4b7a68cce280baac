"""`edgecomp demo`: train a small network on real digits, compress it, distil it, and measure what that gains, there and in large layers.

    from edgecomp import demo
    result = demo.run(seed=0, threads=2)
    print(result.networks[-1].accuracy, result.to_json())

Every form of the weights is one line of edgecomp.demo_forms.FORMS.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp import demo_distill, demo_prune, demo_train, measure
from edgecomp.demo_conclusion import conclusion
from edgecomp.demo_forms import FORMS, LARGE
from edgecomp.demo_train import Digits, Layer, logits
from edgecomp.measure import report
from edgecomp.measure.candidates import NUMPY_SETTLE, limits_numpy
from edgecomp.measure.shapes import temperatures

HIDDEN, EPOCHS, SLICES = 512, 30, 5
FURTHER = 12  # epochs, after pruning
MEMORY = 3 << 30  # bytes that a machine should have for cold weights in all forms at once
LAYERS = {  # real layers, in which there is something to gain
    measure.Shape(128, 3072, 768): "128 tokens through BERT-base's feed-forward layer",
    measure.Shape(1, 4096, 4096): "one token through a large model's layer",
}


@dataclass(frozen=True)
class Network:
    """The digits' network in one form."""

    form: str
    predictions: npt.NDArray[np.intp]  # of the test images
    accuracy: float
    agreement: float  # share of the test images that are read as with float32
    nbytes: int  # of the weights; the biases stay float32
    one: measure.Timing  # one image
    batch: measure.Timing  # all test images at once


@dataclass(frozen=True)
class Result:
    """What the demo found."""

    seed: int
    threads: int
    backend: str  # that the ops ran on, as ec.info() names it
    digits: Digits
    networks: tuple[Network, ...]
    call_seconds: float  # a layer with one weight: what every call costs
    calls: int  # layers of the network
    layers: tuple[tuple[str, report.Row], ...]  # form and figures
    lacking: tuple[str, ...]  # what could not be measured, and why
    others: float | None  # CPUs that other processes kept busy meanwhile; None where the system does not say
    students: demo_distill.Students | None = None
    pruned: tuple[demo_prune.Pruned, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the json module; without the images and what was read in them."""
        numpy = self.networks[0]
        return {
            "machine": report.fingerprint(),
            "seed": self.seed,
            "threads": self.threads,
            "backend": self.backend,
            "test_images": len(self.digits.test),
            "forms": [
                {
                    "form": n.form,
                    "accuracy": n.accuracy,
                    "agreement": n.agreement,
                    "weight_bytes": n.nbytes,
                    "smaller": numpy.nbytes / n.nbytes,
                    "one_image": {**n.one.to_json(), "speedup": numpy.one.median / n.one.median},
                    "all_images": {**n.batch.to_json(), "speedup": numpy.batch.median / n.batch.median},
                }
                for n in self.networks
            ],
            "call_s": self.call_seconds,
            "layers": [{"form": form, **row.to_json()} for form, row in self.layers],
            "pruning": [p.to_json() for p in self.pruned],
            "distillation": self.students and self.students.to_json(),
            "cpus_busy_with_others": self.others,
            "conclusion": conclusion(self),
        }


def run(*, seed: int = 0, threads: int | None = None) -> Result:
    """Trains, compresses, tests, measures: under a minute. Prints nothing but a progress bar on standard error, if that is a terminal.

    Without the compiled kernels it still does, but for the large layers, which only they can measure.
    """
    if threads is None:
        threads = ec.get_num_threads()
    digits = demo_train.load_digits()
    epochs = EPOCHS + FURTHER * len(demo_prune.WAYS)
    with report.Progress(epochs, "training") as progress, measure.numpy_threads(1):  # one thread: the same bits for every `threads`
        trained = demo_train.train(digits, seed=seed, hidden=HIDDEN, epochs=EPOCHS, after_epoch=progress.advance)
        pruned = demo_prune.prune(trained, digits, seed=seed, epochs=FURTHER, after_epoch=progress.advance)
        students = demo_distill.students(trained, digits, seed=seed, epochs=2 * EPOCHS, logits=logits)
    shapes, lacking = _measurable()
    steps = SLICES * (2 * len(FORMS) + 1 + len(shapes) * len(LARGE))
    with report.Progress(steps) as progress, ec.threads(threads), measure.numpy_threads(threads):
        before = _clocks()
        networks, call = _networks(trained, pruned, digits, progress.advance)
        layers = [pair for shape in shapes for pair in _layer(shape, threads, progress.advance)]
        after = _clocks()
    others = None
    if before and after:
        own, everyone, wall = (then - now for now, then in zip(before, after, strict=True))
        others = max(0.0, everyone - own) / wall
    backend = ec.info()["backend"]
    return Result(seed, threads, backend, digits, networks, call, len(trained), tuple(layers), lacking, others, students, pruned)


def _measurable() -> tuple[list[measure.Shape], tuple[str, ...]]:
    """The large layers that this installation and this machine can measure; why not the others."""
    try:
        measure.Probe("fma_f32")
    except measure.NoCompiledKernels as error:
        return [], (f"No large layers: {error}",)
    large = [shape for shape in LAYERS if temperatures(shape)[-1]]
    if large and os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < MEMORY:
        names = ", ".join(map(str, large))
        return [shape for shape in LAYERS if shape not in large], (f"Without {names}: timing it wants 3 GiB of memory.",)
    return list(LAYERS), ()


def _clocks() -> tuple[float, float, float] | None:
    """CPU seconds of this process, CPU seconds of everyone, and the time; None where there is no /proc/stat."""
    try:
        with open("/proc/stat", encoding="ascii") as f:
            ticks = [int(field) for field in f.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = sum(ticks[3:5])  # idle, and waiting for a disk
    return time.process_time(), (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), time.monotonic()


def _networks(
    trained: Sequence[Layer], pruned: Sequence[demo_prune.Pruned], digits: Digits, after_slice: Callable[[], object]
) -> tuple[tuple[Network, ...], float]:
    """The network in every form, and the seconds that a call costs."""
    ways = {"": trained, **{p.way: p.layers for p in pruned}}
    made = [[Layer(form.make(layer.w), layer.bias) for layer in ways[form.pruned]] for form in FORMS]
    unit, image = ec.quantize(np.ones((1, 1), np.float32)), digits.test[:1]
    bias, x = np.zeros(1, np.float32), np.ones((1, 1), np.float32)
    runs = [measure.Candidate("call", lambda: ec.linear(x, unit, bias, activation="relu"), 1)]
    for form, layers in zip(FORMS, made, strict=True):
        for images in (image, digits.test):
            settle = NUMPY_SETTLE if form.op == "numpy_f32" else 0.0
            runs.append(measure.Candidate(form.name, functools.partial(logits, layers, images), len(images), settle=settle))
    call, *timings = measure.interleave(runs, slices=SLICES, after_slice=after_slice)
    read = [logits(layers, digits.test).argmax(axis=1) for layers in made]
    networks = tuple(
        Network(
            form.name,
            predictions,
            accuracy=float((predictions == digits.test_labels).mean()),
            agreement=float((predictions == read[0]).mean()),
            nbytes=sum(layer.w.nbytes for layer in layers),
            one=timings[2 * i],
            batch=timings[2 * i + 1],
        )
        for i, (form, layers, predictions) in enumerate(zip(FORMS, made, read, strict=True))
    )
    return networks, call.median


def _layer(shape: measure.Shape, threads: int, after_slice: Callable[[], object]) -> list[tuple[str, report.Row]]:
    """One large layer in every form. NumPy is held against the peak beside the packed float32 form, which does the same work."""
    cold = temperatures(shape)[-1]
    candidates = [measure.candidate(form.op, shape, threads, cold=cold) for form in LARGE]
    numpy, packed, *others = measure.interleave(candidates, slices=SLICES, after_slice=after_slice)
    if packed.share is not None:
        numpy = dataclasses.replace(numpy, peak=packed.peak, share=packed.share * packed.median / numpy.median)
    against = [candidates[1].against, *(candidate.against for candidate in candidates[1:])]
    return [
        (form.name, report.Row(form.op, shape, threads, cold, peak, timing, numpy))
        for form, peak, timing in zip(LARGE, against, [numpy, packed, *others], strict=True)
    ]


def show(result: Result) -> None:
    """Prints the tables and the conclusion."""
    numpy, images = result.networks[0], len(result.digits.test)
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    header = ["form", "accuracy", "weights", "smaller", "1 image", "faster", f"all {images}", "faster"]
    lines = [
        [
            n.form,
            report.percent(n.accuracy),
            f"{n.nbytes / 1000:.0f} kB",
            f"{numpy.nbytes / n.nbytes:.2f}x",
            report.duration(n.one.median),
            f"{numpy.one.median / n.one.median:.2f}x",
            report.duration(n.batch.median),
            f"{numpy.batch.median / n.batch.median:.2f}x",
        ]
        for n in result.networks
    ]
    report.print_table(f"A 64-{HIDDEN}-{HIDDEN}-10 network reads {images} handwritten digits it has not seen, {threads}", header, lines)
    if result.pruned:
        header, lines = demo_prune.table(numpy.accuracy, f"64-{HIDDEN}-{HIDDEN}-10", result.pruned)
        report.print_table("Accuracy after pruning, at once and trained further, zeros kept (as above)", header, lines)
    for shape, what in LAYERS.items():
        rows = [(form, row) for form, row in result.layers if row.shape == shape]
        if rows:
            header, lines = report.speed_table([row for _, row in rows])
            lines = [[form, *line[1:]] for (form, _), line in zip(rows, lines, strict=True)]
            cold = ", weights from memory" if rows[0][1].cold else ""
            report.print_table(f"{shape}: {what}{cold}, {threads}", ["form", *header[1:]], lines)
    sentences = conclusion(result)
    if result.layers:
        sentences.append('"of roof": share of what this machine was measured to do, in arithmetic or in reading memory, whichever bounds.')
    if not limits_numpy():
        sentences.append("NumPy used as many threads as it likes; pip install threadpoolctl, and it will use as many as edgecomp.")
    width = min(shutil.get_terminal_size().columns, 120) - 1
    for sentence in sentences:
        print(textwrap.fill(sentence, width, subsequent_indent="  ", break_on_hyphens=False))
