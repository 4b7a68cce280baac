"""`edgecomp demo`: train a small network on real digits, compress it, and measure what that gains, there and in large layers.

    from edgecomp import demo
    result = demo.run(seed=0, threads=2)
    print(result.networks[-1].accuracy, result.to_json())

Every form of the weights is one line of `FORMS`: its accuracy, bytes and speed are measured by that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp import demo_train, measure
from edgecomp.demo_train import Digits, Float32, Layer
from edgecomp.measure import report
from edgecomp.measure.candidates import NUMPY_SETTLE, limits_numpy
from edgecomp.measure.shapes import temperatures

HIDDEN, EPOCHS, SLICES = 512, 30, 5
LAYERS = {  # real layers, in which there is something to gain
    measure.Shape(128, 3072, 768): "128 tokens through BERT-base's feed-forward layer",
    measure.Shape(1, 4096, 4096): "one token through a large model's layer",
}


@dataclass(frozen=True)
class Form:
    """A form that weights can have.

    name: for tables.
    make: gives it from a float32 array [N, K].
    op: its name in edgecomp.measure.OPS, which times it in large layers.
    """

    name: str
    make: Callable[[Float32], Any]
    op: str


FORMS = (  # the first two are what the others are compared with
    Form("NumPy float32", np.ascontiguousarray, "numpy_f32"),
    Form("float32 packed", ec.pack, "linear_f32"),
    Form("int8", functools.partial(ec.quantize, bits=8), "linear_int8"),
)


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
    digits: Digits
    networks: tuple[Network, ...]
    call_seconds: float  # a layer with one weight: what every call costs
    calls: int  # layers of the network
    layers: tuple[tuple[str, report.Row], ...]  # form and figures
    lacking: str  # why there are no layers, if there are none

    def to_json(self) -> dict[str, Any]:
        """For the json module; without the images and what was read in them."""
        numpy = self.networks[0]
        return {
            "machine": report.fingerprint(),
            "seed": self.seed,
            "threads": self.threads,
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
            "conclusion": conclusion(self),
        }


def logits(layers: Sequence[Layer], x: Float32) -> Float32:
    """What the network makes of images [..., 64]: plain NumPy for layers that are plain arrays."""
    for i, (w, bias) in enumerate(layers):
        hidden = i + 1 < len(layers)
        if not isinstance(w, np.ndarray):
            x = ec.linear(x, w, bias, activation="relu" if hidden else None)
            continue
        x = x @ w.T
        x += bias
        if hidden:
            np.maximum(x, 0, out=x)
    return x


def run(*, seed: int = 0, threads: int | None = None) -> Result:
    """Trains, compresses, tests, measures: under a minute. Prints nothing but a progress bar on standard error, if that is a terminal.

    Without the compiled kernels it still does, but for the large layers, which only they can measure.
    """
    threads = threads or ec.get_num_threads()
    digits = demo_train.load_digits()
    with report.Progress(EPOCHS, "training") as progress, measure.numpy_threads(1):  # one thread: the same bits for every `threads`
        trained = demo_train.train(digits, seed=seed, hidden=HIDDEN, epochs=EPOCHS, after_epoch=progress.advance)
    try:
        measure.Probe("fma_f32")
        shapes, lacking = tuple(LAYERS), ""
    except measure.NoCompiledKernels as error:
        shapes, lacking = (), str(error)
    steps = SLICES * (2 * len(FORMS) + 1 + len(shapes) * len(FORMS))
    with report.Progress(steps) as progress, ec.threads(threads), measure.numpy_threads(threads):
        networks, call = _networks(trained, digits, progress.advance)
        layers = [pair for shape in shapes for pair in _layer(shape, threads, progress.advance)]
    return Result(seed, threads, digits, networks, call, len(trained), tuple(layers), lacking)


def _networks(trained: Sequence[Layer], digits: Digits, after_slice: Callable[[], object]) -> tuple[tuple[Network, ...], float]:
    """The network in every form, and the seconds that a call costs."""
    made = [[Layer(form.make(layer.w), layer.bias) for layer in trained] for form in FORMS]
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
    """One large layer in every form. NumPy is held against the peak of the packed float32 form: it does the same work."""
    (cold,) = temperatures(shape)[-1:]
    candidates = [measure.candidate(form.op, shape, threads, cold=cold) for form in FORMS]
    timings = measure.interleave(candidates, slices=SLICES, after_slice=after_slice)
    numpy, packed = timings[:2]
    if packed.share is not None:
        timings[0] = dataclasses.replace(numpy, peak=packed.peak, share=packed.share * packed.median / numpy.median)
    against = [candidates[1].against, *(c.against for c in candidates[1:])]
    return [
        (form.name, report.Row(form.op, shape, threads, cold, a, timing, numpy))
        for form, a, timing in zip(FORMS, against, timings, strict=True)
    ]


def conclusion(result: Result) -> list[str]:
    """What the figures say, a sentence each."""
    numpy, packed, *compressed = result.networks
    images = len(result.digits.test)
    sentences = []
    for n in compressed:
        sentences.append(
            f"{n.form}: weights {numpy.nbytes / n.nbytes:.1f}x smaller; {round(n.agreement * images)} of {images} images read as with "
            f"float32, accuracy {100 * (n.accuracy - numpy.accuracy):+.1f} points."
        )
        here = packed.one.median / n.one.median
        there = [(row, _float32(result, row).median / row.timing.median) for form, row in result.layers if form == n.form]
        text = f"{n.form} against packed float32: {here:.1f}x as fast for one image, {packed.batch.median / n.batch.median:.1f}x for {images}"
        text += "".join(f", {gain:.1f}x in {row.shape}" for row, gain in there) + "."
        fixed = result.calls * result.call_seconds / n.one.median
        if there and here < max(gain for _, gain in there):
            text += (
                f" This network is too small to gain as much: the fixed cost of its {result.calls} calls is {fixed:.0%} of one image's "
                f"{report.duration(n.one.median)}, and its weights fit in a cache."
            )
        sentences.append(text)
    slower = [f"{n.form} for one image" for n in result.networks[1:] if n.one.median > numpy.one.median]
    slower += [f"{n.form} for {images}" for n in result.networks[1:] if n.batch.median > numpy.batch.median]
    slower += [f"{form} in {row.shape}" for form, row in result.layers if row.speedup < 1]
    if slower:
        sentences.append(f"Slower than NumPy on this machine: {', '.join(slower)}.")
    return sentences


def _float32(result: Result, row: report.Row) -> measure.Timing:
    """The packed float32 form's timing in the layer of a row."""
    return next(other.timing for form, other in result.layers if (form, other.shape) == (FORMS[1].name, row.shape))


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
    for shape, what in LAYERS.items():
        rows = [(form, row) for form, row in result.layers if row.shape == shape]
        if rows:
            header, lines = report.speed_table([row for _, row in rows])
            lines = [[form, *line[1:]] for (form, _), line in zip(rows, lines, strict=True)]
            cold = ", weights from memory" if rows[0][1].cold else ""
            report.print_table(f"{shape}: {what}{cold}, {threads}", ["form", *header[1:]], lines)
    for sentence in conclusion(result):
        print(sentence)
    if result.layers:
        print('"of roof": share of what this machine was measured to do, of its arithmetic or of reading memory, whichever bounds it.')
    else:
        print(f"No large layers: {result.lacking}")
    if not limits_numpy():
        print("NumPy used as many threads as it likes; pip install threadpoolctl, and it will use as many as edgecomp.")
