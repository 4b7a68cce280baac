"""Numba where something is wrong with it: absent, broken, too old, switched off, no folder for its cache, a CPU made out to be less."""

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from child import run_python

import edgecomp as ec

# A process that has no C library, and says what the ops give. `linear` runs every kernel but requantize.
CALLS = """
    import hashlib, json, sys
    import numpy as np
    sys.modules["edgecomp._c_backend"] = None
    import edgecomp as ec

    def results():
        rng = np.random.default_rng(5)
        bits = hashlib.sha256()
        for m, n, k in ((1, 17, 30), (9, 49, 33), (13, 64, 260), (40, 33, 1100)):
            x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k), n))
            bits.update(ec.linear(x, ec.quantize(w), b, activation="relu").tobytes())
            bits.update(ec.linear(x, ec.quantize(w), b, out_dtype="int8", out_scale=0.5).tobytes())
            bits.update(ec.matmul_int8((4 * x).astype(np.int8), ec.quantize(w)).tobytes())
            for width in (4, 8):
                bits.update(ec.linear(x, ec.quantize(w, bits=width, group_size=32), b).tobytes())
            assert np.allclose(ec.linear(x, ec.pack(w), b), x @ w.T + b, rtol=1e-3, atol=1e-3)
        return bits.hexdigest()

    def sparse():
        rng = np.random.default_rng(6)
        bits = hashlib.sha256()
        for m, n, k in ((9, 49, 33), (40, 33, 600), (70, 20, 130)):
            x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
            for block in (1, 16):
                z = ec.prune(w, pattern="2:4", block=block)
                for quantized in (ec.to_csr(z, 8), ec.to_nm(z, "2:4", block, 8)):
                    bits.update(ec.linear(x, quantized).tobytes())
                for plain in (ec.to_csr(z), ec.to_nm(z, "2:4", block)):
                    assert np.allclose(ec.linear(x, plain), x @ z.T, rtol=1e-3, atol=1e-3)
        s, t = (rng.standard_normal((4, 1100)).astype(np.float32) for _ in range(2))
        loss, slope = ec.distillation_loss(s, t, np.arange(4), temperature=2.0, alpha=0.5)
        bits.update(b"%.3f %.3f" % (loss, np.abs(slope).sum()))
        return bits.hexdigest()

    def why():
        try:
            ec.set_backend("numba")
        except RuntimeError as error:
            return str(error)
"""


def run(code: str, **variables: str) -> dict:
    """What `code` leaves in `out`, after CALLS."""
    return json.loads(run_python(CALLS + code + "\n    print(json.dumps(out))", timeout=240, **variables).splitlines()[-1])


@pytest.fixture(scope="module")
def wanted() -> str:
    """The bits of the NumPy reference."""
    return run("    out = results()", EDGECOMP_BACKEND="reference")


@pytest.fixture(scope="module")
def wanted_sparse() -> str:
    return run("    out = sparse()", EDGECOMP_BACKEND="reference")


@pytest.fixture
def numba():
    return pytest.importorskip("numba")


def module(folder: Path, body: str) -> str:
    """PYTHONPATH for a numba of our own making."""
    (folder / "numba.py").write_text(body)
    return str(folder)


SAID = '    message = why(); out = [message, ec.info()["backend"], results(), [m for m in ec.info()["missing"] if m["what"] == "numba"]]'

FAKES = {
    "raises": ('raise OSError("libLLVM.so: no such file")', "cannot be used (OSError: libLLVM.so: no such file)"),
    "needs another module": ("import nowhere_to_be_found", "cannot be used (ModuleNotFoundError: No module named 'nowhere_to_be_found')"),
    "wants another NumPy": ('raise ImportError("Numba needs NumPy 1.26 or less")', "cannot be used (ImportError: Numba needs"),
    "fails to initialise": ('raise SystemError("initialization failed")', "cannot be used (SystemError"),
    "too old": ('__version__ = "0.60.0"\nclass config: DISABLE_JIT = 0', "numba 0.60.0 is too old, wanted 0.61 or later: pip install"),
    "has no version": ("", "cannot be used (AttributeError"),
    "has an odd version": ('__version__ = "unknown"', "cannot be used (ValueError"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_a_numba_that_cannot_be_used(tmp_path, wanted, fake):
    """NumPy takes over; who asks for Numba is told what is wrong and what to do, and so is who reads info."""
    body, message = FAKES[fake]
    said, backend, bits, missing = run(SAID, PYTHONPATH=module(tmp_path, body))
    assert said.startswith("set_backend: numba ")
    assert message in said
    assert "pip install" in said
    assert (backend, bits, [m["why"] + ": " + m["fix"] for m in missing]) == ("reference", wanted, [said.removeprefix("set_backend: ")])


def test_no_numba(wanted):
    said, backend, bits, missing = run('    sys.modules["numba"] = None\n' + SAID)
    assert said == 'set_backend: numba is not installed: pip install "edgecomp[jit]"'
    assert (backend, bits) == ("reference", wanted)
    assert missing == [{"what": "numba", "why": "numba is not installed", "fix": 'pip install "edgecomp[jit]"'}]


def test_a_jit_that_is_switched_off(numba, wanted):
    said, backend, bits, _ = run(SAID, NUMBA_DISABLE_JIT="1")
    assert said == "set_backend: NUMBA_DISABLE_JIT is set, which turns kernels into Python: unset it"
    assert (backend, bits) == ("reference", wanted)


def test_the_environment_may_want_numba_where_there_is_none(c, tmp_path):
    """An error, not another backend: though C is there."""
    code = """
    import edgecomp as ec
    try:
        ec.info()
    except RuntimeError as error:
        print(error)
    """
    path = module(tmp_path, 'raise OSError("broken")')
    assert "numba is installed but cannot be used" in run_python(code, EDGECOMP_BACKEND="numba", PYTHONPATH=path)


# ---- the CPU ---------------------------------------------------------------------------------------------------------

X86_LESS = {
    "no VNNI": {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
    "no AVX2": {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2,-avx,-avx2,-fma"},
    "nothing": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}
NEEDS = {"no VNNI": "avx512bw", "AVX2": "avx2", "no AVX2": "sse4_2", "nothing": ""}
TILES = {"no VNNI": ["avx512"] * 2, "AVX2": ["avx2"] * 2, "no AVX2": ["generic"] * 2, "nothing": ["generic"] * 2}


@pytest.fixture(scope="module")
def less(tmp_path_factory) -> dict[str, Future]:
    """What every such CPU gives. Each process compiles all kernels: they run beside each other."""
    flags = Path("/proc/cpuinfo").read_text().split()
    code = '    out = [results(), sparse(), ec.info()["backend"], [ec.info()["ops"][op]["variant"] for op in ("gemm_s8c", "gemm_f32")]]'
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            cpu: pool.submit(run, code, NUMBA_CACHE_DIR=str(tmp_path_factory.mktemp("cache")), **variables)
            for cpu, variables in X86_LESS.items()
            if "sse2" in flags and NEEDS[cpu] in ["", *flags]
        }


@pytest.mark.parametrize("cpu", X86_LESS)
def test_a_cpu_made_out_to_be_less(numba, wanted, wanted_sparse, less, cpu):
    """LLVM would end the process at an instruction it may not use."""
    if cpu not in less:
        pytest.skip("not a CPU of that kind")
    assert less[cpu].result() == [wanted, wanted_sparse, "numba", TILES[cpu]]


# ---- the cache -------------------------------------------------------------------------------------------------------

KEPT = """
    import threading
    from numba.core.event import install_recorder
    ec.set_backend("numba")
    ec.set_num_threads(3)
    ec.warmup()
    with install_recorder("numba:compile") as late:
        bits = results()
    from edgecomp._numba_backend import KERNELS, _kernel
    stats = [_kernel(name).stats for name in KERNELS]
    started = sum(t.name.startswith("edgecomp") for t in threading.enumerate())
    hits, misses = sum(sum(s.cache_hits.values()) for s in stats), sum(sum(s.cache_misses.values()) for s in stats)
    out = [bits, hits, misses, len(late.buffer), started]
"""
ONE = """
    ec.set_backend("numba")
    q = ec.quantize_rows(np.array([[0.0, 1 / 255]], np.float32)).q[0]
    from edgecomp._numba_backend import _kernel
    stats = _kernel("quantize_rows").stats
    out = [[int(v) for v in q // 255], sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), str(stats.cache_path)]
"""

COMPILED = 14  # signatures of all kernels


def test_warmup(numba, wanted):
    """Nothing is left to compile, and the threads are there. All kernels are kept: a second process compiles none."""
    bits, hits, misses, late, threads = run(KEPT)
    assert (bits, hits + misses, late) == (wanted, COMPILED, 0)
    assert 1 <= threads <= 2
    assert run(KEPT)[:4] == [wanted, COMPILED, 0, 0]


@pytest.fixture
def site(tmp_path):
    """The folder of a copy of the package, which may be spoilt, and which has no place for a cache, for root neither: a file is where
    its folder would be."""
    shutil.copytree(Path(ec.__file__).parent, tmp_path / "site" / "edgecomp", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (tmp_path / "site" / "edgecomp" / "kernels" / "__pycache__").write_text("")
    return tmp_path / "site"


def test_cache(numba, site, tmp_path):
    """A second process compiles nothing. Beside the kernels if that can be written, else in the user's cache; and anew after a
    change of any file that a kernel is made from."""
    home = tmp_path / "cache"
    variables = {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(home), "HOME": str(home)}
    *first, folder = run(ONE, **variables)
    assert first == [[0, 1], 0, 1]
    assert Path(folder).is_relative_to(home)
    assert run(ONE, **variables) == [[0, 1], 1, 0, folder]
    for index in home.rglob("*.nbi"):  # a disk that has forgotten half of it
        index.write_bytes(index.read_bytes()[:40])
    assert run(ONE, **variables) == [[0, 1], 0, 1, folder]
    assert run(ONE, **variables) == [[0, 1], 1, 0, folder]
    with open(site / "edgecomp" / "kernels" / "_simd.py", "a") as file:
        file.write("# changed\n")
    assert run(ONE, **variables)[:3] == [[0, 1], 0, 1]


def test_no_folder_for_the_cache(numba, site, tmp_path):
    """Everything works; it is compiled in every process."""
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "below")
    for _ in range(2):
        assert run(ONE, PYTHONPATH=str(site), XDG_CACHE_HOME=nowhere, HOME=nowhere)[:3] == [[0, 1], 0, 1]
