"""The inner loops of the microkernels: see check_asm.py."""

import platform
import shutil
from pathlib import Path

import check_asm
import pytest

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 code"),
    pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump"),
]


@pytest.mark.parametrize(("source", "op", "isa"), check_asm.kernels(), ids=lambda v: v.stem if isinstance(v, Path) else "")
def test_sums_stay_in_registers(source: Path, op: str, isa: str) -> None:
    assert check_asm.check(source, op, isa).problem == ""


def test_the_tiles_are_among_them() -> None:
    assert {("gemm_s8c", "avx512vnni"), ("gemm_f32", "avx512")} <= {(op, isa) for _, op, isa in check_asm.kernels()}
