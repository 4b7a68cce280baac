"""Fixtures of all tests. The modules beside this file are imported by name: naive (the slow twin of the int8 ops), guard (forbidden
pages), cases (shapes and data), implementations, child (Python processes)."""

import os
from collections.abc import Iterator

import implementations
import pytest
from hypothesis import HealthCheck, settings

import edgecomp as ec

for variable in ("EDGECOMP_BACKEND", "EDGECOMP_ISA", "EDGECOMP_NUM_THREADS"):
    os.environ.pop(variable, None)  # read at the first op, which is still to come: the tests choose for themselves

settings.register_profile("edgecomp", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("edgecomp"), derandomize=True)
settings.register_profile("long", settings.get_profile("edgecomp"), max_examples=3000)  # pytest --hypothesis-profile=long
settings.load_profile("ci" if os.environ.get("CI") else "edgecomp")


@pytest.fixture(params=implementations.ALL)
def impl(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test with the reference, and with the C library under every ISA of this CPU."""
    with implementations.use(request.param):
        yield request.param


@pytest.fixture
def c() -> None:
    """For what only the C library can do."""
    if implementations.detected_isas() == []:
        assert not implementations.REQUIRE_C, "EDGECOMP_REQUIRE_C=1, but the C library is not installed"
        pytest.skip("the C library is not installed")


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Every test leaves the process as it found it."""
    yield
    ec.set_backend("auto")
    ec.set_num_threads(None)
