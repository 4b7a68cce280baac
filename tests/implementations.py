"""What the `impl` fixture runs: "reference", "c:<isa>" for every ISA of this CPU, and "numba" where it is installed."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import edgecomp as ec
from edgecomp import backend

REQUIRE_C = os.environ.get("EDGECOMP_REQUIRE_C") == "1"

_AVX2 = {"avx2", "fma", "pclmulqdq"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
CPU_FLAGS = {
    "scalar": set(),
    "avx2": _AVX2,
    "avxvnni": _AVX2 | {"avx_vnni"},
    "avxvnni_evex": _AVX512 | {"avx512_vnni"},
    "avx512": _AVX512,
    "avx512vnni": _AVX512 | {"avx512_vnni"},
    "avx512vbmi": _AVX512 | {"avx512_vnni", "avx512vbmi"},
    "avx512fp16": _AVX512 | {"avx512_fp16"},
    "amx": _AVX512 | {"avx512_fp16", "amx_tile", "amx_int8"},
    "neon": {"asimd"},
    "neondot": {"asimd", "asimddp"},
    "i8mm": {"asimd", "asimddp", "i8mm"},
}
"""What /proc/cpuinfo says of a CPU that has the ISA: it is asked, not the library, so that a failing detection is seen."""


def cpu_isas() -> list[str]:
    """The ISAs of this CPU as the kernel reports them."""
    with open("/proc/cpuinfo") as file:
        flags = next((set(line.split(":", 1)[1].split()) for line in file if line.startswith(("flags", "Features"))), set())
    return [isa for isa, needed in CPU_FLAGS.items() if needed <= flags]


def detected_isas() -> list[str]:
    c = backend.load_c()
    return [] if c is None else [name for i, name in enumerate(c.ISAS) if c.lib.ec_isa_detected(i)]


def names() -> list[str]:
    """Without the C library only the reference; but all there should be if EDGECOMP_REQUIRE_C=1, so that what is missing fails."""
    found = detected_isas()
    wanted = [*found, *(isa for isa in cpu_isas() if isa not in found)] if REQUIRE_C else found
    jit = ["numba"] if "numba" in backend.BACKENDS and importlib.util.find_spec("numba") else []
    return ["reference", *jit, *(f"c:{isa}" for isa in wanted)]


ALL = names()


@contextmanager
def use(impl: str) -> Iterator[None]:
    """Selects an implementation, and "auto" again afterwards."""
    name, _, isa = impl.partition(":")
    assert not isa or isa in detected_isas(), f"{impl} is missing: the C library is not installed, or does not detect the ISA"
    ec.set_backend(name, isa=isa or None)
    try:
        yield
    finally:
        ec.set_backend("auto")
