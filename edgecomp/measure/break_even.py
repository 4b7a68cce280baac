"""From which sparsity on does leaving out zeros pay, on this machine? What `edgecomp bench --break-even` measures.

Every sparse weight is timed beside the dense float32 and the dense int8 weight of the same shape, the three in turn, as
`edgecomp.best_format` times them.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import edgecomp as ec
from edgecomp import backend
from edgecomp.measure import forms
from edgecomp.measure.forms import Float32, Form
from edgecomp.measure.report import duration
from edgecomp.measure.roof import NoCompiledKernels

SHAPE, BATCHES = (4096, 4096), (1, 8, 128)
SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
PATTERNS = ("3:4", "2:4", "1:4", "1:8", "1:16")
QUICK_SHAPE, QUICK_SPARSITIES, QUICK_PATTERNS = (1024, 1024), (0.3, 0.6, 0.8, 0.95), ("3:4", "1:4", "1:16")
AGAINST = ("float32", "int8")


@dataclass(frozen=True)
class Point:
    """One sparse weight, with m rows of x: its seconds, and those of dense float32 and int8 beside it."""

    form: str  # "csr", "csr8", "nm", "nm b16", "nm8", "nm8 b16"
    zeros: str  # "50 %" or a pattern
    sparsity: float
    m: int
    threads: int
    seconds: float
    float32: float
    int8: float

    def speedup(self, against: str = "float32") -> float:
        """How many times the speed of the dense weight."""
        return float(getattr(self, against)) / self.seconds


@dataclass(frozen=True)
class BreakEven:
    """What was measured at one shape, and where each form starts to win."""

    shape: tuple[int, int]
    points: tuple[Point, ...]

    def series(self, form: str, m: int, threads: int) -> list[Point]:
        """The points of one form, from few zeros to many."""
        return sorted((p for p in self.points if (p.form, p.m, p.threads) == (form, m, threads)), key=lambda p: p.sparsity)

    @property
    def forms(self) -> list[str]:
        return list(dict.fromkeys(p.form for p in self.points))

    @property
    def batches(self) -> list[int]:
        return list(dict.fromkeys(p.m for p in self.points))

    @property
    def threads(self) -> list[int]:
        return list(dict.fromkeys(p.threads for p in self.points))

    def int8(self, m: int, threads: int) -> float:
        """The speed of dense int8 in dense float32's."""
        return statistics.median(p.float32 / p.int8 for p in self.points if (p.m, p.threads) == (m, threads))

    def to_json(self) -> dict[str, Any]:
        """For the json module; seconds."""
        return {
            "n": self.shape[0],
            "k": self.shape[1],
            "points": [{**asdict(p), "speedup": p.speedup()} for p in self.points],
            "wins_from": [
                {"form": form, "against": against, "m": m, "threads": t, "sparsity": wins_from(self.series(form, m, t), against)}
                for form, m, t, against in itertools.product(self.forms, self.batches, self.threads, AGAINST)
            ],
        }


def wins_from(points: Sequence[Point], against: str = "float32") -> float | None:
    """The sparsity from which on a form is faster than a dense weight; None if it is not at the highest that was measured.

    Between two points a form's time is taken to fall evenly with the zeros. The least sparsity measured, if the form wins there already.
    """
    ratios = [(p.sparsity, 1 / p.speedup(against)) for p in points]
    if not ratios or ratios[-1][1] >= 1:
        return None
    for (before, slow), (after, fast) in reversed(list(itertools.pairwise(ratios))):
        if slow >= 1:
            return before + (after - before) * (slow - 1) / (slow - fast)
    return ratios[0][0]


def weights(w: Float32, sparsities: Sequence[float], patterns: Sequence[str]) -> Iterator[tuple[str, str, float, Form, Float32]]:
    """(form, zeros, sparsity, how to make it, pruned matrix): CSR with uniform zeros, N:M alone and in blocks of 16."""
    for sparsity in sparsities:
        pruned = ec.prune(w, sparsity)
        for form in (forms.CSR, forms.CSR8):
            yield form.name, f"{100 * sparsity:.4g} %", sparsity, form, pruned
    for block, bits, pattern in itertools.product((1, 16), (None, 8), patterns):
        n, m = map(int, pattern.split(":"))
        form = forms.nm(pattern, block, bits)
        yield form.name.replace(f" {pattern}", ""), pattern, 1 - n / m, form, ec.prune(w, pattern=pattern, block=block)


def steps(batches: Sequence[int], threads: Sequence[int], sparsities: Sequence[float], patterns: Sequence[str]) -> int:
    """How often `measure_break_even` calls `after_slice`."""
    slices = sum(forms.COLD_SLICES if m <= forms.COLD_ROWS else forms.SLICES for m in batches)
    return 3 * slices * len(threads) * (2 * len(sparsities) + 4 * len(patterns))


def measure_break_even(
    shape: tuple[int, int] = SHAPE,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] = (1,),
    *,
    sparsities: Sequence[float] = SPARSITIES,
    patterns: Sequence[str] = PATTERNS,
    after_slice: Callable[[], object] | None = None,
) -> BreakEven:
    """Times every sparse form with each number of zeros, rows and threads. Some minutes at (4096, 4096).

    Raises:
        NoCompiledKernels: the backend is NumPy.
    """
    if backend.name_of(backend.current()) == "reference":
        raise NoCompiledKernels("break-even: the backend is NumPy, which is not made for speed: build the C library, or install Numba")
    n, k = shape
    w = np.random.default_rng(0).standard_normal((n, k), dtype=np.float32)
    dense = [form.make(w) for form in (forms.DENSE, forms.INT8)]
    small = [form.make(w[: forms.TWIN]) for form in (forms.DENSE, forms.INT8)]
    sweeps = {t: forms.sweeper(t) for t in threads} if min(batches) <= forms.COLD_ROWS else {}
    points = []
    for name, zeros, sparsity, form, pruned in weights(w, sparsities, patterns):
        three, twins = [*dense, form.make(pruned)], [*small, form.make(pruned[: forms.TWIN])]
        for m, t in itertools.product(batches, threads):
            float32, int8, taken = forms.seconds(three, twins, m, t, sweep=sweeps.get(t), after_slice=after_slice)
            points.append(Point(name, zeros, sparsity, m, t, taken, float32, int8))
    return BreakEven(shape, tuple(points))


def _columns(batches: Sequence[int]) -> list[str]:
    return [f"M={m}{' cold' if m <= forms.COLD_ROWS else ''}" for m in batches]


def speed_table(found: BreakEven, threads: int) -> tuple[list[str], list[list[str]]]:
    """Header and lines: speed in dense float32's, a line for each form and number of zeros; dense int8 first."""
    dense = [[p for p in found.points if (p.m, p.threads) == (m, threads)] for m in found.batches]
    lines = [
        ["float32", "-", *(duration(statistics.median(p.float32 for p in points)) for points in dense)],
        ["int8", "-", *(f"{found.int8(m, threads):.2f}x" for m in found.batches)],
    ]
    for form in found.forms:
        columns = [found.series(form, m, threads) for m in found.batches]
        lines += [[form, row[0].zeros, *(f"{p.speedup():.2f}x" for p in row)] for row in zip(*columns, strict=True)]
    return ["form", "zeros", *_columns(found.batches)], lines


def wins_table(found: BreakEven, threads: int) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the sparsity from which each form is faster than dense float32; those of int8 values, than dense int8 too."""
    lines = []
    for form in found.forms:
        for against in AGAINST if "8" in form.partition(" ")[0] else AGAINST[:1]:
            cells = []
            for m in found.batches:
                series = found.series(form, m, threads)
                at = wins_from(series, against)
                cells.append("never" if at is None else f"{'<' if at == series[0].sparsity else ''}{100 * at:.0f} %")
            lines.append([form, against, *cells])
    return ["form", "against", *_columns(found.batches)], lines


def draw(found: BreakEven, path: str) -> None:
    """The picture: speed against sparsity, a chart for each number of rows and threads; a circle where a form starts to win."""
    import matplotlib
    from matplotlib.figure import Figure

    from edgecomp.measure.picture import COLOURS, INK, PALE, STYLE, kind

    rows, columns = len(found.threads), len(found.batches)
    with matplotlib.rc_context(STYLE):
        figure: Any = Figure(figsize=(4.2 * columns + 1.8, 3.8 * rows + 0.5), dpi=130, layout="constrained", facecolor="white")
        cpu, (n, k) = ec.info()["machine"]["cpu"], found.shape
        title = f"edgecomp {ec.__version__} on {cpu}: {n} x {k} layer, speed against dense float32"
        figure.suptitle(title, x=0.012, ha="left", fontsize=11)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for (t, m), axes in zip(itertools.product(found.threads, found.batches), grid.flat, strict=True):
            axes.axhline(1, color=INK, lw=0.8)
            axes.axhline(found.int8(m, t), color=INK, lw=1, ls="--", label="int8, dense")
            for form, colour in zip(found.forms, COLOURS[1:], strict=False):
                series = found.series(form, m, t)
                shown = {"color": colour, "marker": "o" if form.startswith("csr") else "s", "ms": 3.5, "lw": 1.4}
                axes.plot([100 * p.sparsity for p in series], [p.speedup() for p in series], label=form, **shown)
                if (at := wins_from(series)) not in (None, series[0].sparsity):
                    axes.plot([100 * at], [1], "o", ms=9, mfc="none", mec=colour, mew=1.5)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}x")
            axes.grid(color=PALE, lw=0.6)
            axes.set_axisbelow(True)
            axes.set_title(f"{_columns([m])[0]}, {t} thread{'s' if t > 1 else ''}")
            axes.set_xlabel("% zeros")
        low, high = grid[0, 0].get_ylim()
        grid[0, 0].set_ylim(min(low, 0.5), max(high, 2))  # shared; three labels at least
        grid[0, -1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="circle: starts to win", title_fontsize=9)
        figure.savefig(path, format=kind(path))
