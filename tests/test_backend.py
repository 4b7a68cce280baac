"""Which code runs: set_backend, the environment, dispatch, info and explain."""

import json
import re
import sys

import numpy as np
import pytest
from cases import assert_bits, problem
from child import run_python
from implementations import REQUIRE_C, cpu_isas, detected_isas

import edgecomp as ec
from edgecomp import backend

X, W, BIAS = problem(9, 49, 33)
INT8 = ec.quantize(W)


def test_every_isa_of_this_cpu_is_found():
    """The kernel's list against the library's: what is in one and not in the other would go untested."""
    if not REQUIRE_C and not detected_isas():
        pytest.skip("the C library is not installed")
    assert sorted(detected_isas()) == sorted(cpu_isas())


def test_info(impl):
    info = ec.info()
    assert json.loads(json.dumps(info)) == info
    assert set(info) == {"version", "machine", "isa", "ops", "backend", "threads", "versions", "missing"}
    assert info["version"] == ec.__version__
    assert set(info["machine"]) == {"cpu", "arch", "cores", "os"}
    assert info["versions"]["numpy"] == np.__version__
    name, _, isa = impl.partition(":")
    assert info["backend"] == name
    assert set(info["ops"]) == set(backend.OPS)
    assert all(op["backend"] == name for op in info["ops"].values())
    if isa:
        lines = info["isa"]["compiled"]
        assert set(info["isa"]["detected"]) <= set(lines)
        assert info["isa"]["cap"] == (None if isa == info["isa"]["detected"][-1] else isa)
        assert all(lines.index(op["variant"]) <= lines.index(isa) for op in info["ops"].values())
    elif name == "reference":
        assert all(op["variant"] == "numpy" for op in info["ops"].values())


def test_dispatch_takes_the_best_that_is_allowed(c):
    """A higher cap never gives a lower line, and without one the best lines of this CPU serve."""
    used = []
    lines = ec.info()["isa"]["compiled"]
    for isa in lines:
        ec.set_backend("c", isa=isa)
        used.append([lines.index(op["variant"]) for op in ec.info()["ops"].values()])
    assert (np.diff(used, axis=0) >= 0).all()
    assert not any(used[0])
    ec.set_backend("c")
    assert [lines.index(op["variant"]) for op in ec.info()["ops"].values()] == used[-1]
    if "avx512vnni" in cpu_isas():
        assert ec.info()["ops"]["gemm_s8c"]["variant"] == ("amx" if "amx" in cpu_isas() else "avx512vnni")
        assert ec.info()["ops"]["gemm_f32"]["variant"] == "avx512"


def test_set_backend(c):
    ec.set_backend("reference")
    assert ec.info()["backend"] == "reference"
    ec.set_backend("c", isa="scalar")
    assert ec.info()["isa"]["cap"] == "scalar"
    ec.set_backend("auto")
    assert (ec.info()["backend"], ec.info()["isa"]["cap"]) == ("c", None)
    ec.set_backend(isa="scalar")
    assert (ec.info()["backend"], ec.info()["isa"]["cap"]) == ("c", "scalar")


@pytest.mark.parametrize("name", ["C", "", "numpy", "cuda", None, 3, ["c"]])
def test_set_backend_refuses_names(name):
    before = ec.info()
    with pytest.raises(ValueError, match=re.escape(f"set_backend: no backend is called {name!r}, wanted one of auto, c, numba, reference")):
        ec.set_backend(name)
    assert ec.info() == before


@pytest.mark.parametrize("isa", ["AVX2", "", "sse9", 3, b"avx2", ["avx2"]])
def test_set_backend_refuses_isas(c, isa):
    before = ec.info()
    with pytest.raises(ValueError, match=re.escape(f"set_backend: no ISA is called {isa!r} here, wanted one of scalar")):
        ec.set_backend("c", isa=isa)
    with pytest.raises(ValueError, match=r"^set_backend: isa= is for the C backend$"):
        ec.set_backend("reference", isa="scalar")
    assert ec.info() == before


FIRST_OP = """
    import numpy as np, edgecomp as ec
    calls = [ec.info, lambda: ec.linear(np.ones((1, 4)), np.ones((3, 4))), lambda: ec.quantize_rows(np.ones((1, 4))),
             ec.get_num_threads, lambda: ec.set_num_threads(1), lambda: ec.explain(np.ones((1, 4)), np.ones((3, 4)))]
    for call in 2 * calls:
        try:
            call()
            print("no error")
        except ValueError as error:
            print(error)
"""


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("EDGECOMP_BACKEND", "cuda", "EDGECOMP_BACKEND is 'cuda', wanted one of auto, c, numba, reference"),
        ("EDGECOMP_ISA", "sse9", "EDGECOMP_ISA is 'sse9', wanted one of scalar"),
        ("EDGECOMP_NUM_THREADS", "0", "EDGECOMP_NUM_THREADS is '0', wanted 1..1024"),
        ("EDGECOMP_NUM_THREADS", "1025", "EDGECOMP_NUM_THREADS is '1025', wanted 1..1024"),
        ("EDGECOMP_NUM_THREADS", "-2", "EDGECOMP_NUM_THREADS is '-2', wanted 1..1024"),
        ("EDGECOMP_NUM_THREADS", "two", "EDGECOMP_NUM_THREADS is 'two', wanted 1..1024"),
    ],
)
def test_a_bad_variable_is_refused_at_the_first_op(c, variable, value, message):
    """Not at import, and not only once."""
    lines = run_python(FIRST_OP, **{variable: value}).splitlines()
    assert len(lines) == 12
    assert all(line.startswith(message) for line in lines)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, ["c", "None"]),
        ({"EDGECOMP_BACKEND": "", "EDGECOMP_ISA": ""}, ["c", "None"]),
        ({"EDGECOMP_BACKEND": "auto"}, ["c", "None"]),
        ({"EDGECOMP_BACKEND": "c", "EDGECOMP_ISA": "scalar"}, ["c", "scalar"]),
        ({"EDGECOMP_ISA": " scalar "}, ["c", "scalar"]),
        ({"EDGECOMP_BACKEND": "reference"}, ["reference", "None"]),
        ({"EDGECOMP_BACKEND": "reference", "EDGECOMP_ISA": "scalar"}, ["reference", "None"]),
    ],
)
def test_environment(c, variables, wanted):
    assert run_python("import edgecomp as ec; i = ec.info(); print(i['backend'], i['isa']['cap'])", **variables).split() == wanted


def test_without_the_c_library(monkeypatch):
    """Without Numba too everything runs in NumPy, says so, and what asks for C is told how to get it."""
    monkeypatch.setitem(sys.modules, "edgecomp._c_backend", None)
    monkeypatch.setitem(sys.modules, "numba", None)
    ec.set_backend("auto")
    info = ec.info()
    assert (info["backend"], info["isa"]["detected"], info["isa"]["compiled"]) == ("reference", [], [])
    (missing,) = [m for m in info["missing"] if m["what"] == "C library"]
    assert "10 to 1000 times slower" in missing["why"]
    assert "apt-get install gcc" in missing["fix"]
    assert "EDGECOMP_REQUIRE_C=1 pip install" in missing["fix"]
    with pytest.raises(RuntimeError, match=r"^set_backend: the C library was not built .* install a C compiler"):
        ec.set_backend("c")
    with pytest.raises(ValueError, match=r"^set_backend: isa= is for the C backend$"):
        ec.set_backend("auto", isa="avx2")
    y = np.empty((9, 49), np.float32)
    ec.reference.gemm_s8c(X, INT8, BIAS, None, y)
    assert_bits(ec.linear(X, INT8, BIAS, threads=3), y)
    ec.set_num_threads(4)
    assert ec.get_num_threads() == 4
    ec.set_num_threads(None)
    explanation = ec.explain(X, INT8)
    assert (explanation.backend, explanation.variant, explanation.threads) == ("reference", "numpy", 1)


NOTES = {
    "int8": (lambda: (X, INT8), {}, "gemm_s8c", ["x: quantised to uint8 per row"]),
    "quantised rows": (lambda: (ec.quantize_rows(X), INT8), {}, "gemm_s8c", ["x: quantised already"]),
    "int8 as float": (lambda: (X, INT8), {"compute": "float32"}, "gemm_s8c_f32", ["w: expanded to float32 as it is read"]),
    "packed": (lambda: (X, ec.pack(W)), {}, "gemm_f32", []),
    "plain": (lambda: (X, W), {}, "gemm_f32", ["w: packed at each call; edgecomp.pack(w) does it once"]),
    "float64": (lambda: (X.astype(float), ec.pack(W)), {}, "gemm_f32", ["x: float64 converted to float32"]),
    "float16 weights": (lambda: (X, W.astype("f2")), {}, "gemm_f32", ["w: float16 converted to float32"]),
    "strided": (lambda: (X[:, ::-1], ec.pack(W)), {}, "gemm_f32", ["x: copied, its rows are not contiguous and aligned"]),
    "strided weights": (lambda: (X, W[:, ::-1]), {}, "gemm_f32", ["w: copied, its rows are not contiguous and aligned"]),
    "rows apart": (lambda: (np.ones((9, 40), "f")[:, :33], ec.pack(W)), {}, "gemm_f32", []),
}


@pytest.mark.parametrize("case", NOTES)
def test_explain(impl, case):
    arguments, options, op, notes = NOTES[case]
    x, w = arguments()
    explanation = ec.explain(x, w, threads=2, **options)
    name = impl.partition(":")[0]
    assert (explanation.op, explanation.backend) == (op, name)
    assert explanation.variant == ec.info()["ops"]["gemm_s8c" if op == "gemm_s8c" else "gemm_f32"]["variant"]
    assert set(notes) <= set(explanation.notes)
    if not notes:
        assert explanation.notes == ()
    text = str(explanation)
    assert text.startswith(f"{op} on {name}:{explanation.variant}, {explanation.threads} thread")
    assert all(note in text for note in explanation.notes)


LINES = {  # op, density or pattern, rows: the line of its kernel, of all that AMX CPUs have
    ("int8", None, 7): "avx512vnni",
    ("int8", None, 8): "amx",
    ("int4", None, 1): "avx512fp16",
    ("int4", None, 16): "amx",
    ("csr", 0.05, 1): "avx512fp16",
    ("csr", 0.5, 1): "avx512",
    ("csr", 0.05, 64): "avx512",
    ("csr8", 0.5, 1): "avx512vnni",
    ("csr8", 0.05, 64): "avx512vnni",
    ("nm", "2:4", 8): "avx512fp16",
    ("nm", "2:4", 64): "avx512fp16",
    ("nm8", "1:4", 8): "avx512fp16",
    ("nm8", "1:4", 64): "avx512fp16",
}


@pytest.mark.parametrize(("kind", "zeros", "rows"), LINES)
def test_explain_names_the_line_of_so_many_rows(kind, zeros, rows):
    detected = ec.info()["isa"]["detected"]
    if LINES[kind, zeros, rows] not in detected or "amx" not in detected:
        pytest.skip("not such a CPU")
    w = np.random.default_rng(1).standard_normal((64, 256)).astype("f")
    z = w if zeros is None else ec.prune(w, 1 - zeros) if isinstance(zeros, float) else ec.prune(w, pattern=zeros, block=16)
    bits = 8 if kind.endswith("8") else None
    made = {"int": lambda: ec.quantize(w, int(kind[-1])), "csr": lambda: ec.to_csr(z, bits), "nm": lambda: ec.to_nm(z, zeros, 16, bits)}
    e = ec.explain(np.zeros((rows, 256), "f"), made[kind.rstrip("48")]())
    assert (e.backend, e.variant) == ("c", LINES[kind, zeros, rows])
