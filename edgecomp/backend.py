"""Which backend runs, and what may be known about it: set_backend, info, warmup. A backend is a module with one function per op."""

import importlib
import importlib.util
import os
import platform
import sys
from types import ModuleType
from typing import Any

OPS = (
    "gemm_s8c", "gemm_s4g", "gemm_s8g", "gemm_f32", "spmm_csr", "spmm_csr8", "spmm_nm", "spmm_nm8", "quantize_rows", "quantize_groups",
    "activation", "kd_loss",
)  # fmt: skip
BACKENDS = ("auto", "c", "numba", "reference")
_NO_C = (
    "the C library was not built when edgecomp was installed: install a C compiler (Debian: apt-get install gcc python3-dev) and run"
    " EDGECOMP_REQUIRE_C=1 pip install --force-reinstall --no-cache-dir edgecomp"
)
_GET_NUMBA, _OLDEST_NUMBA = 'pip install "edgecomp[jit]"', (0, 61)

_current: ModuleType | None = None


def load_c() -> ModuleType | None:
    """The C backend, or None where it was not built."""
    name = "edgecomp._c_backend"
    if sys.modules.get(name, name) is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.modules[name] = None  # type: ignore[assignment]  # not searched for again
        return None


def load_numba() -> ModuleType:
    """The Numba backend. RuntimeError says why there is none and what to do."""
    try:
        numba = importlib.import_module("numba")
        version = tuple(int(part) for part in numba.__version__.split(".")[:2])
        if version >= _OLDEST_NUMBA and not numba.config.DISABLE_JIT:
            return importlib.import_module("edgecomp._numba_backend")
    except ModuleNotFoundError as error:
        if error.name == "numba":
            raise RuntimeError(f"numba is not installed: {_GET_NUMBA}") from None
        raise RuntimeError(_broken_numba(error)) from error
    except Exception as error:  # whatever a broken installation raises
        raise RuntimeError(_broken_numba(error)) from error
    if numba.config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set, which turns kernels into Python: unset it")
    raise RuntimeError(f"numba {numba.__version__} is too old, wanted 0.61 or later: {_GET_NUMBA} --upgrade")


def _broken_numba(error: Exception) -> str:
    return f"numba is installed but cannot be used ({type(error).__name__}: {error}): pip install --force-reinstall numba"


def set_backend(name: str = "auto", *, isa: str | None = None) -> None:
    """Chooses the code that runs the ops, for the whole process.

    Args:
        name: "auto" (the best there is), "c", "numba" or "reference" (NumPy).
        isa: cap on the instruction set, one of `info()["isa"]["compiled"]`; None lifts it. C only.

    Raises:
        ValueError: an unknown name, or an ISA that this architecture has not.
        RuntimeError: "c" where the C library was not built, "numba" where Numba is missing or broken.

    Example:
        >>> import edgecomp as ec
        >>> ec.set_backend("reference"); ec.info()["backend"]
        'reference'
        >>> ec.set_backend("auto")
    """
    global _current
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"set_backend: no backend is called {name!r}, wanted one of {', '.join(BACKENDS)}")
    c = load_c() if name in ("auto", "c") else None
    if name == "c" and c is None:
        raise RuntimeError(f"set_backend: {_NO_C}")
    if isa is not None and c is None:
        raise ValueError("set_backend: isa= is for the C backend")
    if c is not None:
        if isa is not None and (not isinstance(isa, str) or isa not in c.ISAS):
            raise ValueError(f"set_backend: no ISA is called {isa!r} here, wanted one of {', '.join(c.ISAS)}")
        c.lib.ec_set_isa((isa or "").encode())
        _current = c
        return
    if name != "reference":
        try:
            _current = load_numba()
            return
        except RuntimeError as error:
            if name == "numba":
                raise RuntimeError(f"set_backend: {error}") from error
    _current = importlib.import_module("edgecomp.reference")


def current() -> ModuleType:
    """The backend in use. The first call reads EDGECOMP_BACKEND, EDGECOMP_ISA and EDGECOMP_NUM_THREADS: a bad value raises
    ValueError."""
    if _current is not None:
        return _current
    env = os.environ
    threads = env.get("EDGECOMP_NUM_THREADS", "").strip()
    if threads and not (threads.isdecimal() and 1 <= int(threads) <= 1024):
        raise ValueError(f"EDGECOMP_NUM_THREADS is {threads!r}, wanted 1..1024")
    name, isa = env.get("EDGECOMP_BACKEND", "").strip() or "auto", env.get("EDGECOMP_ISA", "").strip() or None
    if name not in BACKENDS:
        raise ValueError(f"EDGECOMP_BACKEND is {name!r}, wanted one of {', '.join(BACKENDS)}")
    c = load_c()
    if isa is not None and c is not None and isa not in c.ISAS:
        raise ValueError(f"EDGECOMP_ISA is {isa!r}, wanted one of {', '.join(c.ISAS)}")
    set_backend(name, isa=isa if c is not None and name in ("auto", "c") else None)
    assert _current is not None
    return _current


def name_of(use: ModuleType) -> str:
    """What set_backend calls it."""
    return use.__name__.rsplit(".", 1)[-1].removeprefix("_").removesuffix("_backend")


def warmup() -> None:
    """Does now what the first calls would else do: compiles or loads all kernels (Numba), starts the threads (C, Numba).

    Example:
        >>> import edgecomp as ec
        >>> ec.warmup()
    """
    current().warmup()


def _version(package: str) -> str | None:
    try:
        from importlib.metadata import PackageNotFoundError, version

        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith(("model name", "Model")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _missing_numba(spare: bool) -> list[dict[str, str]]:
    """An entry for `info` if Numba cannot be used. As a spare it is not imported for that, which takes half a second."""
    why, _sep, fix = "", "", _GET_NUMBA
    try:
        if not spare:
            load_numba()
        elif importlib.util.find_spec("numba") is None:
            why = "for where the C library is not built"
    except ValueError:  # its import was blocked
        why = "for where the C library is not built"
    except RuntimeError as error:
        why, _sep, fix = str(error).rpartition(": ")
    return [{"what": "numba", "why": why, "fix": fix}] if why else []


def info() -> dict[str, Any]:
    """What this machine has, what was compiled and what runs: a nested dict of plain values.

    Keys: version, machine (cpu, arch, cores, os), isa (detected, compiled, cap), ops (op -> backend, variant), backend, threads,
    versions, missing (a list of what, why, fix).

    Raises:
        ValueError: one of the EDGECOMP_* environment variables has a bad value.
    """
    from edgecomp import __version__, pool

    use, c = current(), load_c()
    detected = [name for i, name in enumerate(c.ISAS) if c.lib.ec_isa_detected(i)] if c else []
    compiled = [name for i, name in enumerate(c.ISAS) if c.lib.ec_isa_compiled(i)] if c else []
    allowed = [name for name in detected if c and c.lib.ec_isa_allows(name.encode())]
    backend = name_of(use)
    missing = []
    if c is None:
        jit = "without it Numba compiles the ops when they are first called, which takes seconds"
        why = jit if backend == "numba" else "without it every op runs in NumPy, 10 to 1000 times slower"
        missing.append({"what": "C library", "why": why, "fix": _NO_C})
    missing += _missing_numba(c is not None)
    for package, why, extra in (("rich", "tables and progress bars", "cli"),):
        if importlib.util.find_spec(package) is None:
            missing.append({"what": package, "why": why, "fix": f'pip install "edgecomp[{extra}]"'})
    return {
        "version": __version__,
        "machine": {
            "cpu": _cpu_name(),
            "arch": platform.machine(),
            "cores": pool.cpu_count(),
            "os": platform.platform(),
        },
        "isa": {"detected": detected, "compiled": compiled, "cap": allowed[-1] if allowed != detected else None},
        "ops": {op: {"backend": backend, "variant": use.variant(op)} for op in OPS},
        "backend": backend,
        "threads": pool.get_num_threads(),
        "versions": {"python": sys.version.split()[0]} | {p: _version(p) for p in ("numpy", "cffi", "numba", "scipy")},
        "missing": missing,
    }
