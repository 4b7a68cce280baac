"""How calls are timed: in slices of many calls, several candidates in turn, each slice between two probes of the machine.

A slice is an inner loop of at least 20 ms, so that the clock's own cost and resolution vanish. Candidates take turns
(A B C A B C ...), so that a machine which slows down for a while slows all of them. The median over slices is the figure.
"""

from __future__ import annotations

import itertools
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SLICE_SECONDS = 0.02
SLICES = 7
PROBE_TOLERANCE = 0.10  # two probes further apart than this mean that the machine changed in between
MOST_REPEATS = 4  # of one slice: a machine that never comes to rest is measured all the same

Call = Callable[[], object]


def _largest_cache() -> int:
    """Bytes; 0 where Linux does not say."""
    sizes = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().rstrip("K\n")) << 10 for size in sizes), default=0)


COLD_BYTES = max(160 << 20, 2 * _largest_cache())  # what is read again after so much else comes from memory


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    name: for tables.
    run: one call.
    work: what one call does, in the probe's unit (operations, or bytes read).
    probe: gives the machine's peak for that work now, per second; None if it has no peak to compare with.
    settle: seconds to sleep after each slice; for libraries whose idle threads go on spinning.
    against: the name of that peak, for tables.
    """

    name: str
    run: Call
    work: float
    probe: Callable[[], float] | None = None
    settle: float = 0.0
    against: str = ""


@dataclass(frozen=True)
class Timing:
    """Seconds per call over all slices. `peak` (per second) and `share` of it are None for a candidate without a probe."""

    median: float
    best: float
    iqr: float
    calls: int  # per slice
    slices: int
    redone: int  # slices thrown away because the two probes around them disagreed
    peak: float | None = None
    share: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """The fields, with units in the names: seconds, and operations or bytes per second."""
        return {
            "median_s": self.median,
            "best_s": self.best,
            "iqr_s": self.iqr,
            "calls": self.calls,
            "slices": self.slices,
            "redone": self.redone,
            "peak_per_s": self.peak,
            "share": self.share,
        }


def seconds_per_call(run: Call, calls: int) -> float:
    """One slice: mean seconds of `calls` calls in a row."""
    turns = itertools.repeat(None, calls)
    start = time.perf_counter()
    for _ in turns:
        run()
    return (time.perf_counter() - start) / calls


def fitting_calls(run: Call, seconds: float = SLICE_SECONDS) -> int:
    """How many calls last `seconds` or a little longer. Warms `run` up on the way."""
    run()
    calls = 1
    while (total := seconds_per_call(run, calls) * calls) < seconds / 4:
        calls *= 2
    return max(1, math.ceil(calls * seconds / total))


def interleave(
    candidates: Sequence[Candidate],
    *,
    slices: int = SLICES,
    seconds: float = SLICE_SECONDS,
    after_slice: Callable[[], object] | None = None,
) -> list[Timing]:
    """Times the candidates in turn, `slices` slices of `seconds` each, and returns one Timing per candidate.

    A slice whose probes before and after differ by more than 10 % is done again, at most four times. `after_slice` is
    called once for every slice kept, between measurements: room for a progress bar.
    """
    calls = [fitting_calls(c.run, seconds) for c in candidates]
    kept: list[list[tuple[float, float]]] = [[] for _ in candidates]
    redone = [0] * len(candidates)
    for _ in range(slices):
        for i, candidate in enumerate(candidates):
            taken, peak, again = _slice(candidate, calls[i])
            kept[i].append((taken, peak))
            redone[i] += again
            if after_slice:
                after_slice()
    return [_summary(c, n, k, r) for c, n, k, r in zip(candidates, calls, kept, redone, strict=True)]


def rotating(runs: Sequence[Call]) -> Call:
    """One call that runs the next of `runs` each time: with enough copies of a weight, each call finds its own cold."""
    following = itertools.cycle(runs).__next__
    return lambda: following()()


def cold_copies(nbytes: int) -> int:
    """Copies of `nbytes` each that together exceed what caches hold (`COLD_BYTES`); at least 2."""
    return max(2, COLD_BYTES // nbytes + 1)


def _slice(candidate: Candidate, calls: int) -> tuple[float, float, int]:
    """One slice: seconds per call, the peak around it (0 without a probe), and how often it had to be repeated."""
    probe = candidate.probe
    again = 0
    while True:
        before = probe() if probe else 0.0
        candidate.run()  # the probe may have pushed its data out of the caches
        taken = seconds_per_call(candidate.run, calls)
        after = probe() if probe else 0.0
        time.sleep(candidate.settle)
        if max(before, after) <= (1 + PROBE_TOLERANCE) * min(before, after) or again == MOST_REPEATS:
            return taken, (before + after) / 2, again
        again += 1


def _summary(candidate: Candidate, calls: int, kept: Sequence[tuple[float, float]], redone: int) -> Timing:
    taken = [t for t, _ in kept]
    low, _, high = statistics.quantiles(taken, n=4, method="inclusive") if len(taken) > 1 else taken * 3
    peak = share = None
    if candidate.probe:
        peak = statistics.median(p for _, p in kept)
        share = statistics.median(candidate.work / t / p for t, p in kept)
    return Timing(statistics.median(taken), min(taken), high - low, calls, len(taken), redone, peak, share)
