"""The peaks of this machine: arithmetic, and reading from each level of the memory. Measured, never assumed.

The loops are the C library's (csrc/roof). Memory is read from buffers aligned to 2 MiB and, where the system grants them,
made of huge pages. Two-thread DRAM bandwidth has two states on some machines, which last for seconds: best and median of
a peak are both kept, and `Probe` measures one peak once, to stand right beside what is compared with it.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from edgecomp import backend

FloatArray = npt.NDArray[np.float32]

HUGE_PAGE = 2 << 20
PAGE = 4096  # what the loops want a size to be a multiple of
DRAM_TOTAL = 1 << 30  # bytes, of all threads: at a quarter of it, a few per cent still come from a 32 MiB cache
LEVELS = {"L1": 16 << 10, "L2": 512 << 10, "L3": 4 << 20}  # bytes of each thread
UNITS = {"tile_s8": "GOP/s", "dot_s8": "GOP/s", "chain_s8": "GOP/s", "fma_f32": "GFLOP/s", "read": "GB/s", "copy": "GB/s"}
PROBE_SECONDS = 0.01


class NoCompiledKernels(RuntimeError):
    """The C library is not there, and with it the loops that measure the peaks."""


def c_backend() -> ModuleType:
    """The C backend, under the cap that EDGECOMP_ISA sets. NoCompiledKernels, saying what to do, if it was not built."""
    backend.current()  # reads the environment
    c = backend.load_c()
    if c is None:
        fix = next(m["fix"] for m in backend.info()["missing"] if m["what"] == "C library")
        raise NoCompiledKernels(f"measuring needs edgecomp's compiled kernels: {fix}")
    return c


def dram_bytes(threads: int) -> int:
    """Bytes for each of `threads` threads that no cache holds: 1 GiB in all, or a quarter of a smaller machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(DRAM_TOTAL, memory // 4) // threads // PAGE * PAGE


class _Arena:
    """One buffer for all loops, grown when a larger one is asked for, touched so that every page is there."""

    def __init__(self) -> None:
        self._floats: FloatArray = np.empty(0, np.float32)

    def floats(self, nbytes: int) -> FloatArray:
        """At least `nbytes` bytes of float32 ones, aligned to 2 MiB."""
        if self._floats.nbytes < nbytes:
            self._floats = np.empty(0, np.float32)  # the old one goes before the new one comes
            size = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
            pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            whole = np.frombuffer(pages, np.uint8)
            start = -whole.ctypes.data % HUGE_PAGE
            if hasattr(mmap, "MADV_HUGEPAGE"):
                pages.madvise(mmap.MADV_HUGEPAGE, start, size)
            self._floats = whole[start : start + size].view(np.float32)
            self._floats.fill(1)
        return self._floats


_arena = _Arena()


class Probe:
    """Measures one peak: each call runs one loop for about `seconds` and returns operations or bytes per second.

    loop: "tile_s8", "dot_s8", "chain_s8", "fma_f32", "read" or "copy".
    nbytes: that each thread reads (or copies: the bytes count both ways), rounded up to a multiple of 4096.
    exists: whether this CPU, under the cap in force, has the instructions; if not, every call gives 0.
    """

    def __init__(self, loop: str, threads: int = 1, nbytes: int = PAGE, seconds: float = PROBE_SECONDS) -> None:
        self.loop, self.threads, self.nbytes = loop, threads, -(-nbytes // PAGE) * PAGE
        self._run = c_backend().roof
        self._reps = 1
        taken, done = self._once()  # this one also starts the threads and brings the memory in
        self.exists = done > 0
        while self.exists and (taken := self._once()[0]) < seconds / 4:
            self._reps *= 2
        for _ in range(2):  # the second time from a run that lasted about that long
            self._reps = max(1, round(self._reps * seconds / taken))
            taken, _ = self._once()

    def _once(self) -> tuple[float, float]:
        memory = _arena.floats((2 if self.loop == "copy" else 1) * self.threads * self.nbytes)
        other = memory[-(self.threads * self.nbytes // 4) :]
        start = time.perf_counter()
        done = self._run(self.loop, self._reps, memory, other, self.nbytes, self.threads)
        return time.perf_counter() - start, done

    def __call__(self) -> float:
        taken, done = self._once()
        return float(done / taken)


@dataclass(frozen=True)
class Peak:
    """One measured peak, in `unit` (10^9 per second)."""

    name: str  # a loop, or "read" or "copy" and the level
    unit: str
    threads: int
    nbytes: int  # of each thread; 0 for arithmetic
    best: float
    median: float


@dataclass(frozen=True)
class Roof:
    """All peaks of a machine, as `measure_roof` found them."""

    peaks: tuple[Peak, ...]

    def get(self, name: str, threads: int) -> Peak | None:
        """The peak of that name, for example "read L2"; None if this CPU has none."""
        return next((p for p in self.peaks if (p.name, p.threads) == (name, threads)), None)

    def to_json(self) -> list[dict[str, object]]:
        """One object per peak, for the json module."""
        return [asdict(p) for p in self.peaks]


def loops(threads: int) -> list[tuple[str, str, int]]:
    """What there is to measure: (name, loop, bytes of each thread)."""
    dram = dram_bytes(threads)
    arithmetic = [(name, name, 0) for name in ("tile_s8", "dot_s8", "chain_s8", "fma_f32")]
    reads = [(f"read {level}", "read", nbytes) for level, nbytes in {**LEVELS, "DRAM": dram}.items()]
    return [*arithmetic, *reads, ("copy DRAM", "copy", dram // 2 // PAGE * PAGE)]


def measure_roof(
    threads: Sequence[int] = (1,),
    *,
    slices: int = 15,
    seconds: float = 0.03,
    after_slice: Callable[[], object] | None = None,
) -> Roof:
    """Measures every peak of this machine with each number of threads: best and median of `slices` slices of `seconds`.

    The peaks take turns, so that a slow second of the machine costs each one slice, not one of them all.
    `after_slice` is called after each slice, for a progress bar: len(threads) * len(loops(1)) * slices times at most.
    """
    found = [(name, Probe(loop, t, nbytes or PAGE, seconds), nbytes) for t in threads for name, loop, nbytes in loops(t)]
    found = [f for f in found if f[1].exists]
    rates: list[list[float]] = [[] for _ in found]
    for _ in range(slices):
        for kept, (_, probe, _) in zip(rates, found, strict=True):
            kept.append(probe() / 1e9)
            if after_slice:
                after_slice()
    return Roof(
        tuple(
            Peak(name, UNITS[probe.loop], probe.threads, nbytes, max(kept), statistics.median(kept))
            for (name, probe, nbytes), kept in zip(found, rates, strict=True)
        )
    )
