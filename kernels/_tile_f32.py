"""The float32 tile: sums with fused multiply-add where the CPU has it, added to y block of k by block of k, at last the bias and
relu."""

import math
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from edgecomp.kernels import _simd
from edgecomp.kernels._simd import BYTES, F32, Isa, const
from edgecomp.kernels._tile import intrinsic_of

ISA = _simd.best(
    (
        Isa("avx512", "avx512f", lanes=16, rows=8, panels=3, macs_per_ns=50),
        Isa("avx2", "avx2 fma", lanes=8, rows=6, panels=1, macs_per_ns=30),
        Isa("neon", "neon", lanes=4, rows=6, panels=1, macs_per_ns=10),
        Isa("generic", "", lanes=4, rows=2, panels=1, macs_per_ns=10),
    )
)

_FLOATS = ir.VectorType(F32, ISA.lanes)


def multiply_add(b: Any, acc: Any, x: Any, w: Any) -> Any:
    return _simd.call(b, f"llvm.fmuladd.v{ISA.lanes}f32", _FLOATS, x, w, acc)


def finish(b: Any, column: int, sums: list[Any], targets: list[Any], more: list[Any]) -> list[Any]:
    first, relu, bias = more
    is_first, is_relu = (b.icmp_signed("!=", flag, const(0)) for flag in (first, relu))
    shift = _simd.load(b, _FLOATS, _simd.at(b, b.inttoptr(bias, BYTES), const(column)))
    limit = _simd.splat(b, b.select(is_relu, ir.Constant(F32, 0.0), ir.Constant(F32, -math.inf)), ISA.lanes)
    out = []
    for acc, target in zip(sums, targets, strict=True):
        v = b.select(is_first, acc, b.fadd(acc, _simd.load(b, _FLOATS, target)))
        v = b.fadd(v, shift)
        out.append(b.select(b.fcmp_ordered("<=", v, limit), limit, v))
    return out


@intrinsic  # type: ignore[misc]
def tile(
    typing: Any, mr: Any, nv: Any, k: Any, x: Any, w: Any, panel: Any, y: Any, ldy: Any, ahead: Any, lines: Any,
    first: Any, relu: Any, bias: Any,
) -> Any:  # fmt: skip
    """See _tile.py. Unless first, y is added to; bias [16 nv], -0.0 changing nothing."""
    return intrinsic_of(ISA, F32, multiply_add, finish, more=3)
