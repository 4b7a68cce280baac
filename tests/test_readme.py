"""The README's table of op x ISA is what the library says. `python tests/test_readme.py` writes it anew."""

import re
from pathlib import Path

import pytest

import edgecomp as ec
from edgecomp import backend

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- ops table -->\n).*?(<!-- end ops table -->)", re.S)


def table() -> str:
    """Op x ISA: a cross where the op has code of its own; elsewhere the next line to the left serves."""
    c = backend.load_c()
    assert c is not None, "the table is read off the C library"
    own: dict[str, list[str]] = {op: [] for op in backend.OPS}
    for isa in c.ISAS:
        ec.set_backend("c", isa=isa)
        for op in backend.OPS:
            own[op].append("x" if c.variant(op) == isa else "")
    ec.set_backend("auto")
    head = ["op", "NumPy", "Numba", *(f"C {isa}" for isa in c.ISAS)]
    numba = backend.load_numba()
    jit = {op: "" if numba.variant(op) == "numpy" else "x" for op in backend.OPS}
    rows = [head, ["---"] * len(head), *([f"`{op}`", "x", jit[op], *marks] for op, marks in own.items())]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def test_ops_table() -> None:
    pytest.importorskip("numba")
    c = backend.load_c()
    if c is None or ec.info()["isa"]["detected"] != list(c.ISAS):
        pytest.skip("this CPU cannot show every column")
    match = BLOCK.search(README.read_text())
    assert match, "README.md has lost its table's markers"
    assert match.group(0) == match.group(1) + table() + match.group(2)


if __name__ == "__main__":
    README.write_text(BLOCK.sub(lambda m: m.group(1) + table() + m.group(2), README.read_text()))
