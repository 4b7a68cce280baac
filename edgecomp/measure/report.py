"""How measurements are shown: tables (with rich on a terminal, else aligned text), a progress bar, JSON, the machine's fingerprint."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import numpy as np

import edgecomp as ec
from edgecomp.measure.candidates import LEFT, limits_numpy
from edgecomp.measure.roof import Roof
from edgecomp.measure.shapes import Shape
from edgecomp.measure.timing import Timing

THP = "/sys/kernel/mm/transparent_hugepage/enabled"

PEAKS = {"tile_s8": "int8 tile product", "dot_s8": "int8 dot product", "chain_s8": "int8 mul and add", "fma_f32": "float32 multiply-add"}
BOUNDS = {"tile_s8": "int8 tile", "dot_s8": "int8 dot", "chain_s8": "int8 mul", "fma_f32": "f32 fma", "DRAM": "DRAM"}


@dataclass(frozen=True)
class Row:
    """One line of a speed table: an op at a shape, and NumPy's float32 matmul beside it."""

    op: str
    shape: Shape
    threads: int
    cold: bool
    against: str
    timing: Timing
    numpy: Timing

    @property
    def gops(self) -> float:
        """10^9 operations per second, those with zeros that are left out not counted."""
        return LEFT.get(self.op, 1) * self.shape.operations / self.timing.median / 1e9

    @property
    def bound(self) -> str:
        """What bounds it, in short: arithmetic, or reading as many bytes as the weights have."""
        if self.op in LEFT:
            return BOUNDS.get(self.against, "reading")
        weight_bytes = self.shape.n * self.shape.k * (4 if self.op.endswith("_f32") else 1)
        return BOUNDS.get(self.against, f"read {size(weight_bytes)}")

    @property
    def speedup(self) -> float:
        """How many times NumPy's speed."""
        return self.numpy.median / self.timing.median

    def to_json(self) -> dict[str, object]:
        """For the json module; seconds, and operations per second."""
        return {
            "op": self.op,
            "m": self.shape.m,
            "n": self.shape.n,
            "k": self.shape.k,
            "threads": self.threads,
            "cold": self.cold,
            "against": self.against,
            "gops": self.gops,
            "speedup": self.speedup,
            **self.timing.to_json(),
            "numpy": self.numpy.to_json(),
        }


def duration(seconds: float) -> str:
    """Three digits and a unit: "2.41 us", "18.2 ms"."""
    unit, scale = next((u for u in (("s", 1.0), ("ms", 1e-3)) if seconds >= u[1]), ("us", 1e-6))
    value = seconds / scale
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def percent(share: float | None) -> str:
    """ "95.3%", or "-" for None."""
    return "-" if share is None else f"{100 * share:.1f}%"


def size(nbytes: int) -> str:
    """ "300 B", "16 KiB", "4 MiB"; "" for 0."""
    if not nbytes:
        return ""
    unit, scale = next((u for u in (("MiB", 1 << 20), ("KiB", 1 << 10)) if nbytes >= u[1]), ("B", 1))
    return f"{nbytes // scale} {unit}"


def fingerprint() -> dict[str, Any]:
    """`edgecomp.info()` and what else a figure depends on: page size, NumPy's BLAS and whether its threads were limited."""
    try:
        with open(THP, encoding="ascii") as f:
            huge_pages = f.read().partition("[")[2].partition("]")[0]
    except OSError:
        huge_pages = "unknown"
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return {
        **ec.info(),
        "kernel": platform.release(),
        "transparent_huge_pages": huge_pages,
        "numpy_blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "numpy_threads_limited": limits_numpy(),
    }


def roof_table(roof: Roof) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a line per peak, best and median for each number of threads."""
    threads = sorted({p.threads for p in roof.peaks})
    header = ["peak", "per thread", "unit", *(text for t in threads for text in (f"{t}T best", "median"))]
    lines = []
    for first in (p for p in roof.peaks if p.threads == threads[0]):
        line = [PEAKS.get(first.name, first.name), size(first.nbytes), first.unit]
        for t in threads:
            found = roof.get(first.name, t)
            line += [f"{found.best:.1f}", f"{found.median:.1f}"] if found else ["-", "-"]
        lines.append(line)
    return header, lines


def speed_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a speed table, of one op and one number of threads: narrow enough for 80 columns."""
    header = ["(M,N,K)", "time", "+-", "GOP/s", "of roof", "bound by", "vs NumPy"]
    lines = [
        [
            f"{row.shape}{' cold' if row.cold else ''}",
            duration(row.timing.median),
            percent(row.timing.iqr / row.timing.median),
            f"{row.gops:.4g}",
            percent(row.timing.share),
            row.bound,
            f"{row.speedup:.2f}x",
        ]
        for row in rows
    ]
    return header, lines


def print_table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]], file: TextIO | None = None) -> None:
    """Prints a table: by rich if it is installed and `file` (standard output) is a terminal, else as aligned text.

    A header of empty names is left out.
    """
    file = file or sys.stdout
    if _rich_on(file):
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=any(header))
        for name in header:
            table.add_column(name, no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console = Console(file=file, markup=False, emoji=False, highlight=False)
        console.print(title, style="bold")
        console.print(table, "")
        return
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    head = [header, ["-" * w for w in widths]] if any(header) else []
    print(title, file=file)
    for line in [*head, *lines]:
        print("  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip(), file=file)
    print(file=file)


class Progress:
    """Progress of `total` steps on standard error: a bar with rich, a counter without, nothing where no terminal reads it.

    Drawn only in `advance`, between measurements: a bar that redraws itself would disturb them.
    """

    def __init__(self, total: int, task: str = "measuring") -> None:
        self._total, self._done, self._shown = total, 0, sys.stderr.isatty()
        self._name = task
        self._bar: Any = None
        if _rich_on(sys.stderr):
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._task = self._bar.add_task(task, total=total)

    def advance(self) -> None:
        """One step done."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, advance=1, refresh=True)
        elif self._shown:
            print(f"\r{self._name} {min(self._done, self._total)}/{self._total}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        elif self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _rich_on(file: TextIO) -> bool:
    return file.isatty() and importlib.util.find_spec("rich") is not None
