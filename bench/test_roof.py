"""pytest-benchmark over the peaks of this machine: `pytest bench/test_roof.py`. `edgecomp bench --roof` shows the same as a table."""

from __future__ import annotations

import pytest

from edgecomp.measure.roof import Probe, loops

LOOPS = {name: (loop, nbytes) for name, loop, nbytes in loops(1)}


@pytest.mark.parametrize("name", LOOPS)
def test_peak(benchmark, name: str) -> None:
    loop, nbytes = LOOPS[name]
    probe = Probe(loop, 1, nbytes)
    if not probe.exists:
        pytest.skip(f"this CPU, or the cap in force, has no {name}")
    rate = benchmark.pedantic(probe, rounds=9, warmup_rounds=1)
    benchmark.extra_info["rate"] = f"{rate / 1e9:.1f} G/s"
