#!/usr/bin/env python3
"""Measures every speed that this project promises (edgecomp.measure.shapes.BARS): a markdown row each, and JSON.

    python bench/bars.py --json bars.json
    python bench/bars.py --only "linear_int8 (1," --threads 1
    python bench/bars.py --only Numba             # its share of C, and the first call of a process

Two minutes for all of them. Wants an otherwise idle machine: what else runs takes a core from the two-thread figures and from
their peaks alike. A bar whose peak shows that is measured again, and marked if that does not help. Exits with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import edgecomp as ec
from edgecomp import backend, measure
from edgecomp.measure import report, shapes, timing

IMPORT_ROUNDS, FIRST_ROUNDS = 15, 5
CALM = 0.90  # of the arithmetic that a thread has shown so far: below it, something else is running
ARITHMETIC = ("tile_s8", "dot_s8", "chain_s8", "fma_f32")  # its peak per thread stays as it is; that of memory does not
ATTEMPTS, PAUSE = 3, 3.0  # of a bar; seconds between them
HEADER = "| op | (M,N,K) | against | threads | median | +- | rate | share | wanted | |"


def run_bar(bar: shapes.Bar, threads: int, wanted: float, slices: int, seen: dict[str, float]) -> dict[str, Any]:
    """Times one bar with one number of threads, again if something else is running. seen: the best peak of a thread, per loop."""
    loop = f"{bar.against} {bar.isa}".strip()
    ec.set_backend("auto", isa=bar.isa or None)
    try:
        call = measure.candidate(bar.op, bar.shape, threads, cold=bar.against == "DRAM", against=bar.against)
        for _ in range(ATTEMPTS):
            (timing,) = measure.interleave([call], slices=slices)
            each = (timing.peak or 0.0) / threads
            seen[loop] = max(seen.get(loop, 0.0), each)
            busy = bar.against in ARITHMETIC and each < CALM * seen[loop]
            if not busy:
                break
            time.sleep(PAUSE)
    finally:
        ec.set_backend("auto")
    unit = "GB/s" if bar.against in ("DRAM", "cache") else "GOP/s"
    met = timing.median <= wanted if bar.against == "time" else (timing.share or 0.0) >= wanted
    return {
        "name": bar.name,
        "op": bar.op,
        "shape": list(bar.shape),
        "against": loop,
        "threads": threads,
        **timing.to_json(),
        "rate": call.work / timing.median / 1e9,
        "unit": unit,
        "wanted": wanted,
        "met": met,
        "busy": busy,
    }


def run_scaling(bar: shapes.Bar, slices: int) -> dict[str, Any]:
    """Two threads against one, taking turns: `share` is how many times faster."""
    one, two = measure.interleave([measure.candidate(bar.op, bar.shape, t, against="time") for t in (1, 2)], slices=slices)
    faster = one.median / two.median
    rate = bar.shape.operations / two.median / 1e9
    result = {"name": bar.name, "op": bar.op, "shape": list(bar.shape), "against": "1 thread", "threads": 2}
    return {
        **result,
        **two.to_json(),
        "share": faster,
        "rate": rate,
        "unit": "GOP/s",
        "wanted": bar.wanted[0],
        "met": faster >= bar.wanted[0],
    }


def run_import() -> dict[str, Any]:
    """Seconds that `import edgecomp` takes beyond `import numpy`: fresh processes, taking turns."""
    seconds: dict[str, list[float]] = {"numpy": [], "edgecomp": []}
    for _ in range(IMPORT_ROUNDS):
        for module, taken in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            taken.append(time.perf_counter() - start)
    more = statistics.median(seconds["edgecomp"]) - statistics.median(seconds["numpy"])
    return {
        "name": "import",
        "op": "import",
        "against": "import numpy",
        "median_s": more,
        "wanted": shapes.IMPORT_SECONDS,
        "met": more <= shapes.IMPORT_SECONDS,
    }


def run_numba(bar: shapes.Bar, threads: int, wanted: float, slices: int) -> dict[str, Any]:
    """Numba against C, which is timed right before and after each slice as the peaks are."""
    call = measure.candidate(bar.op, bar.shape, threads, against="time").run
    ec.set_backend("c")
    calls = timing.fitting_calls(call)
    ec.set_backend("numba")
    call()

    def c_rate() -> float:
        ec.set_backend("c")
        rate = bar.shape.operations / timing.seconds_per_call(call, calls)
        ec.set_backend("numba")
        call()
        return rate

    try:
        (found,) = measure.interleave([timing.Candidate(bar.op, call, bar.shape.operations, c_rate)], slices=slices)
    finally:
        ec.set_backend("auto")
    return {
        "name": bar.name,
        "op": bar.op,
        "shape": list(bar.shape),
        "against": bar.against,
        "threads": threads,
        **found.to_json(),
        "rate": bar.shape.operations / found.median / 1e9,
        "unit": "GOP/s",
        "wanted": wanted,
        "met": (found.share or 0.0) >= wanted,
    }


FIRST_CALL = """
import time
start = time.perf_counter()
import numpy as np, edgecomp as ec
ec.set_backend("numba")
ec.linear(np.ones((4, 64), np.float32), ec.quantize(np.ones((4, 64), np.float32)))
print(time.perf_counter() - start)
"""


def run_first_call() -> dict[str, Any]:
    """Seconds from the first import to the first int8 result of Numba, its cache being filled: fresh processes."""
    taken = [float(subprocess.check_output([sys.executable, "-c", FIRST_CALL])) for _ in range(1 + FIRST_ROUNDS)][1:]
    median, wanted = statistics.median(taken), shapes.FIRST_CALL_SECONDS
    return {
        "name": "Numba, first call",
        "op": "linear_int8",
        "against": "Numba, first call",
        "median_s": median,
        "wanted": wanted,
        "met": median <= wanted,
    }


def results(only: str, threads: tuple[int, ...], slices: int, seen: dict[str, float]) -> Iterator[dict[str, Any]]:
    """One result per bar and number of threads whose name holds `only`."""
    for bar in shapes.BARS:
        if only in bar.name:
            for t, wanted in zip((1, 2), bar.wanted, strict=False):
                if t in threads:
                    yield run_bar(bar, t, wanted, slices, seen)
    if only in shapes.SCALING.name and 2 in threads:
        yield run_scaling(shapes.SCALING, slices)
    if only in "import":
        yield run_import()
    try:
        backend.load_numba()
    except RuntimeError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return
    for bar in shapes.NUMBA:
        if only in bar.name:
            for t, wanted in zip((1, 2), bar.wanted, strict=True):
                if t in threads:
                    yield run_numba(bar, t, wanted, slices)
    if only in "Numba, first call":
        yield run_first_call()


def row(r: dict[str, Any]) -> str:
    """One markdown row."""
    absolute = r["against"] in ("time", "import numpy", "Numba, first call")
    factor = r["against"] == "1 thread"
    cells = [
        r["op"],
        f"({','.join(map(str, r['shape']))})" if "shape" in r else "",
        r["against"],
        str(r.get("threads", "")),
        report.duration(r["median_s"]),
        report.percent(r["iqr_s"] / r["median_s"]) if "iqr_s" in r else "",
        f"{r['rate']:.1f} {r['unit']}" if "rate" in r else "",
        "" if absolute else f"{r['share']:.2f}x" if factor else report.percent(r["share"]),
        report.duration(r["wanted"]) if absolute else f"{r['wanted']:.2f}x" if factor else report.percent(r["wanted"]),
        ("" if r["met"] else "missed") + (" (something else was running)" if r.get("busy") else ""),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="bars whose name holds TEXT")
    parser.add_argument("--threads", default="1,2", help="thread counts, of 1 and 2")
    parser.add_argument("--slices", type=int, default=9, help="timed slices per bar")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the machine's description to FILE")
    arguments = parser.parse_args()
    threads = tuple(map(int, arguments.threads.split(",")))
    roof = measure.measure_roof(threads)
    seen = {peak.name: 0.0 for peak in roof.peaks}
    for peak in roof.peaks:
        seen[peak.name] = max(seen[peak.name], 1e9 * peak.best / peak.threads)
    print(HEADER)
    print("|" + " --- |" * (HEADER.count("|") - 1), flush=True)
    found = []
    for result in results(arguments.only, threads, arguments.slices, seen):
        found.append(result)
        print(row(result), flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as f:
            json.dump({"machine": report.fingerprint(), "roof": roof.to_json(), "bars": found}, f, indent=2)
    return 0 if all(result["met"] for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
