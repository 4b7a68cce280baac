"""The inner loops of the microkernels: see check_asm.py."""

import importlib.util
import platform
import shutil
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("check_asm", Path(__file__).with_name("check_asm.py"))
assert spec
assert spec.loader
check_asm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_asm)

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 code"),
    pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("objdump")), reason="needs gcc and objdump"),
    pytest.mark.skipif(not check_asm.CSRC.exists(), reason="needs the sources"),
]


@pytest.mark.parametrize(("source", "op", "isa"), check_asm.kernels(), ids=lambda v: v.stem if isinstance(v, Path) else "")
def test_inner_loops_stay_in_registers(source, op, isa):
    assert check_asm.check(source, op, isa).problem == ""


def test_every_tile_is_read():
    assert {("gemm_s8c", "avx512vnni"), ("gemm_f32", "avx512")} <= {(op, isa) for _, op, isa in check_asm.kernels()}
