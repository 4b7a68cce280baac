"""Importing edgecomp: always possible, light, and the one that is installed."""

import os
from pathlib import Path

import pytest
from child import run_python

import edgecomp as ec

CHECKOUT = Path(__file__).resolve().parents[1]


def test_what_is_tested_is_what_is_installed():
    """A checkout in front of the installed package would hide what a wheel lacks. An editable install is for development."""
    if os.environ.get("EDGECOMP_REQUIRE_C") != "1" or os.environ.get("CI") != "true":
        pytest.skip("for CI, with EDGECOMP_REQUIRE_C=1")
    assert CHECKOUT not in Path(ec.__file__).resolve().parents


def test_leaves_optional_packages_alone():
    code = """
    import sys
    import numpy
    before = set(sys.modules)
    import edgecomp as ec
    heavy = {"numba", "scipy", "rich", "matplotlib", "threadpoolctl", "torch", "jax", "hypothesis", "pytest", "argparse",
             "edgecomp.cli", "edgecomp.measure", "edgecomp.kernels", "importlib.metadata", "multiprocessing", "concurrent.futures"}
    print(sorted((set(sys.modules) - before) & heavy))
    import numpy as np
    ec.linear(np.ones((2, 4)), ec.quantize(np.ones((3, 4))), threads=2)
    print(sorted((set(sys.modules) - before) & (heavy - {"importlib.metadata"})))
    """
    assert run_python(code).split("\n") == ["[]", "[]"]


def test_public_names():
    assert sorted(ec.__all__) == ec.__all__
    assert all(hasattr(ec, name) for name in ec.__all__)
    public = {name for name, value in vars(ec).items() if not name.startswith("_") and type(value).__name__ != "module"}
    assert public <= set(ec.__all__)
    header = Path(ec.get_include()) / "edgecomp.h"
    assert f'#define EC_VERSION "{ec.__version__}"' in header.read_text()


WITHOUT_C = """
    import sys
    {blocked}
    import numpy as np, edgecomp as ec
    info = ec.info()
    x, w = np.ones((2, 4), np.float32), ec.quantize(np.ones((3, 4), np.float32))
    print(info["backend"], [m["what"] for m in info["missing"] if m["what"] == "C library"], ec.linear(x, w).tolist())
    print(ec.explain(x, w))
    try:
        ec.set_backend("c")
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("blocked", ["edgecomp._edgecomp_c", "_cffi_backend", "edgecomp._c_backend"])
def test_without_the_c_library(blocked):
    """Not built, or cffi is broken: NumPy takes over, and info says what is missing."""
    if blocked == "_cffi_backend":
        pytest.importorskip("_cffi_backend")
    lines = run_python(WITHOUT_C.format(blocked=f"sys.modules[{blocked!r}] = sys.modules['numba'] = None")).splitlines()
    assert lines[0] == f"reference ['C library'] {[[4.0] * 3] * 2}"
    assert lines[1] == "gemm_s8c on reference:numpy, 1 thread"
    assert lines[-1].startswith("set_backend: the C library was not built when edgecomp was installed: install a C compiler")


def test_a_backend_that_the_environment_wants_and_is_not_there():
    code = """
    import sys
    sys.modules["edgecomp._c_backend"] = None
    import edgecomp as ec
    try:
        ec.info()
    except (RuntimeError, ValueError) as error:
        print(error)
    """
    message = run_python(code, EDGECOMP_BACKEND="c")
    assert "the C library was not built" in message


def test_the_reference_needs_no_backend():
    """edgecomp.reference is public: the specification to read and to compare with."""
    code = """
    import numpy as np
    from edgecomp import reference
    q, scale, zero = np.empty((1, 3), np.uint8), np.empty(1, np.float32), np.empty(1, np.uint8)
    reference.quantize_rows(np.array([[-1.0, 0.0, 1.55]], np.float32), q, scale, zero)
    print(q.tolist(), zero.tolist())
    """
    assert run_python(code, EDGECOMP_BACKEND="nonsense") == "[[0, 100, 255]] [100]"


def test_type_information_is_installed():
    assert (Path(ec.__file__).parent / "py.typed").exists()
