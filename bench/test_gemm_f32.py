"""pytest-benchmark over the dense float32 product: `pytest bench/test_gemm_f32.py`. `bench/bars.py` holds it against the machine."""

from __future__ import annotations

import pytest

from edgecomp.measure import Shape, candidate, shapes

CASES = [(shape, cold) for shape in shapes.ALL for cold in shapes.temperatures(shape)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("shape", "cold"), CASES, ids=[f"{s}{' cold' if cold else ''}" for s, cold in CASES])
@pytest.mark.parametrize("op", ["linear_f32"])
def test_gemm_f32(benchmark, op: str, shape: Shape, cold: bool, threads: int) -> None:
    call = candidate(op, shape, threads, cold=cold, against="time")
    benchmark(call.run)
    benchmark.extra_info["GOP/s"] = round(shape.operations / benchmark.stats.stats.median / 1e9, 1)
