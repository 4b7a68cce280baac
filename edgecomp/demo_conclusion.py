"""What the figures of `edgecomp demo` say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgecomp.demo_forms import FORMS
from edgecomp.measure import report
from edgecomp.measure.shapes import Shape

if TYPE_CHECKING:
    from edgecomp.demo import Result

CROWDED = 0.1  # CPUs that others may take before it is said
EVEN = 1.03  # what is not faster by more than this is not called faster
PRUNED = [form.name for form in FORMS if form.pruned]


def conclusion(result: Result) -> list[str]:
    """What the figures say, a sentence or two each."""
    numpy, packed, *compressed = result.networks
    images, sentences = len(result.digits.test), []
    for n in compressed:
        same, points = round(n.agreement * images), 100 * (n.accuracy - numpy.accuracy)
        one, batch = packed.one.median / n.one.median, packed.batch.median / n.batch.median
        large = {row.shape: _packed(result, row.shape) / row.timing.median for form, row in result.layers if form == n.form}
        gains = [f"{one:.1f}x for one image", f"{batch:.1f}x for {images}", *(f"{gain:.1f}x in {shape}" for shape, gain in large.items())]
        cost = f"accuracy {points:+.1f} points" if points else "the same accuracy"
        ratio = numpy.nbytes / n.nbytes
        smaller = f"weights {ratio:.1f}x smaller" if ratio >= 1 else f"weights {1 / ratio:.1f}x larger"
        if n.form in PRUNED:
            sentences.append(f"{n.form}: {smaller}, {cost}; speed against packed float32: {', '.join(gains)}.")
            continue
        sentences.append(f"{n.form}: {smaller}; {same} of {images} images read as float32 reads them, {cost}.")
        text = f"Speed of {n.form} against packed float32: {', '.join(gains)}."
        if large and max(large.values()) > EVEN * max(one, 1):
            fixed = result.calls * result.call_seconds / n.one.median
            text += f" The digits' network is too small to gain as much: of the {report.duration(n.one.median)} of one image, "
            text += f"{fixed:.0%} are what {result.calls} calls cost whatever they compute."
        sentences.append(text)
    even = [(f"{n.form} for one image", numpy.one.median / n.one.median) for n in result.networks[1:]]
    even += [(f"{n.form} for {images}", numpy.batch.median / n.batch.median) for n in result.networks[1:]]
    even += [(f"{form} in {row.shape}", row.speedup) for form, row in result.layers if form != numpy.form]
    if slow := [f"{what} ({gain:.2f}x)" for what, gain in even if gain < EVEN]:
        sentences.append(f"No faster than NumPy here: {', '.join(slow)}.")
    if result.students:
        sentences.append(result.students.sentence())
    if result.others is not None and result.others + result.threads > (os.cpu_count() or 1) + CROWDED:
        sentences.append(f"Other processes kept {result.others:.1f} CPUs busy meanwhile, which slows NumPy's threads most: measure again.")
    if result.backend == "reference":
        sentences.append("edgecomp's ops ran in NumPy, as its reference does them, which is not made for speed.")
    return [*sentences, *result.lacking]


def _packed(result: Result, shape: Shape) -> float:
    """Seconds of the packed float32 form in a large layer."""
    return next(row.timing.median for form, row in result.layers if (form, row.shape) == (FORMS[1].name, shape))
