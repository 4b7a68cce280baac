"""The picture of `edgecomp demo`: accuracy against bytes, speed, and some of the digits. Drawn with matplotlib, if it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import edgecomp as ec
from edgecomp.measure.picture import COLOURS, INK, PALE, STYLE, kind
from edgecomp.measure.report import duration

if TYPE_CHECKING:
    from edgecomp.demo import Result

DEFAULT = "edgecomp-demo.png"
WRONG = "#c62f2f"
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a text that a line would cross
SHOWN, MISREAD = 18, 6  # digits; how many misread ones among them at most
DIGITS = 2.5  # inches that they take


def draw(result: Result, path: str) -> None:
    """Writes the picture; its type by the file's name."""
    import matplotlib
    from matplotlib.figure import Figure

    groups = _groups(result)
    charts = max(3.2, 0.19 * len(groups) * (len(result.networks) + 1))  # inches
    with matplotlib.rc_context(STYLE):
        figure: Any = Figure(figsize=(11, charts + DIGITS + 1.0), dpi=130, layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        figure.suptitle(_title(result), x=0.012, ha="left", fontsize=11)
        upper, lower = figure.subfigures(2, 1, height_ratios=(charts, DIGITS))
        left, right = upper.subplots(1, 2, width_ratios=(2, 3))
        _accuracy(left, result)
        _speed(right, result, groups)
        _digits(lower, result)
        figure.savefig(path, format=kind(path))


def _title(result: Result) -> str:
    found = ec.info()
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    return f"edgecomp {found['version']} on {found['machine']['cpu']}, {threads}: a network that reads digits, and two large layers"


def _accuracy(axes: Any, result: Result) -> None:
    images = len(result.digits.test)
    for i, n in enumerate(result.networks):
        noise = 100 * (n.accuracy * (1 - n.accuracy) / images) ** 0.5
        look = {"color": COLOURS[i % len(COLOURS)], "ms": 13 - 3 * min(i, 2)}  # forms that coincide stay visible
        axes.errorbar(n.nbytes / 1000, 100 * n.accuracy, yerr=noise, fmt="o", lw=1.5, label=n.form, **look)
    best, worst = (100 * f(n.accuracy for n in result.networks) for f in (max, min))
    axes.set_ylim(worst - 3, min(best + 3, 100.5))
    axes.set_xlim(0, 1.15 * max(n.nbytes for n in result.networks) / 1000)
    axes.set_title("Accuracy against bytes")
    axes.set_xlabel("weights, kB")
    axes.set_ylabel(f"% of {images} test digits read right")
    axes.grid(color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right", title="lines: one standard error", title_fontsize=9, alignment="left")


def _groups(result: Result) -> list[tuple[str, list[tuple[float, float]]]]:
    """What was timed, and for each form its seconds and how many times NumPy's speed that is."""
    numpy, forms = result.networks[0], result.networks
    groups = [
        ("digits,\none image", [(n.one.median, numpy.one.median / n.one.median) for n in forms]),
        (f"digits,\n{len(result.digits.test)} at once", [(n.batch.median, numpy.batch.median / n.batch.median) for n in forms]),
    ]
    for shape in dict.fromkeys(row.shape for _, row in result.layers):
        rows = [row for _, row in result.layers if row.shape == shape]
        what = f"{shape.m} tokens" if shape.m > 1 else "one token"
        groups.append((f"{what},\n{shape.n} x {shape.k} layer", [(row.timing.median, row.speedup) for row in rows]))
    return groups


def _speed(axes: Any, result: Result, groups: list[tuple[str, list[tuple[float, float]]]]) -> None:
    forms = len(result.networks)
    height = 0.84 / forms
    for i in range(forms):
        having = [g for g, (_, found) in enumerate(groups) if i < len(found)]  # large layers have fewer forms
        places = [g + (i - (forms - 1) / 2) * height for g in having]
        figures = [groups[g][1][i] for g in having]
        axes.barh(places, [speed for _, speed in figures], 0.92 * height, color=COLOURS[i % len(COLOURS)])
        for place, (seconds, speed) in zip(places, figures, strict=True):
            text = f"{speed:.1f}x   {duration(seconds)}"
            axes.annotate(text, (speed, place), (5, 0), textcoords="offset points", va="center", fontsize=9, bbox=BEHIND)
    axes.axvline(1, color=INK, lw=0.8, ls=":", zorder=1.5)
    axes.set_xlim(0, 1.22 * max(speed for _, found in groups for _, speed in found))
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_title("Speed against NumPy float32")
    axes.set_xlabel("times NumPy's speed")


def _digits(figure: Any, result: Result) -> None:
    smallest = min(result.networks, key=lambda n: n.nbytes)
    labels = result.digits.test_labels
    wrong = np.flatnonzero(smallest.predictions != labels)
    misread = list({(labels[i], smallest.predictions[i]): i for i in reversed(wrong)}.values())[-MISREAD:]  # each mistake once
    right = np.flatnonzero(smallest.predictions == labels)[: SHOWN - len(misread)]
    figure.suptitle(f"Test digits, and what {smallest.form} reads in them", x=0.012, ha="left", fontsize=11.5, fontweight="bold")
    figure.subplots(2, SHOWN // 2)
    for axes in figure.axes:
        axes.axis("off")
    for axes, i in zip(figure.axes, [*right, *misread], strict=False):
        axes.imshow(result.digits.test[i].reshape(8, 8), cmap="Greys", vmin=0, vmax=1)
        good = smallest.predictions[i] == labels[i]
        text = f"{smallest.predictions[i]}" if good else f"{smallest.predictions[i]}, is {labels[i]}"
        axes.set_title(text, color=INK if good else WRONG, fontsize=10.5, loc="center", pad=3)
