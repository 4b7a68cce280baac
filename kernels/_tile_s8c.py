"""The int8 tile: sums of uint8 * int8 products in int32, then ((float(sum) * sx) * sw) + bias. No fused multiply-add: every bit is
promised."""

import math
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.extending import intrinsic

from edgecomp.kernels import _simd
from edgecomp.kernels._simd import BYTES, F32, I8, I16, I32, Isa, const
from edgecomp.kernels._tile import intrinsic_of

ISA = _simd.best(
    (
        Isa("avx512vnni", "avx512f avx512vnni", lanes=16, rows=8, panels=3, macs_per_ns=200),
        Isa("avxvnni", "avx2 avxvnni", lanes=8, rows=6, panels=1, macs_per_ns=100),
        Isa("avx512", "avx512f avx512bw", lanes=16, rows=8, panels=2, macs_per_ns=60),
        Isa("avx2", "avx2", lanes=8, rows=4, panels=1, macs_per_ns=30),
        Isa("neon", "neon", lanes=4, rows=4, panels=1, macs_per_ns=10),
        Isa("generic", "", lanes=4, rows=2, panels=1, macs_per_ns=10),
    )
)

FLOAT, RELU, INT32 = range(3)
"""What becomes of a sum: a float32, the same clamped at 0, or sum - zero * wsum as it is."""

_INTS, _FLOATS = ir.VectorType(I32, ISA.lanes), ir.VectorType(F32, ISA.lanes)


def _dot(b: Any, acc: Any, x: Any, w: Any) -> Any:
    """vpdpbusd: adds four products of an unsigned and a signed byte to every int32. Up to LLVM 21 it takes them as int32."""
    lanes = acc.type.count
    if llvmlite.binding.llvm_version_info >= (22,):
        x, w = (b.bitcast(v, ir.VectorType(I8, 4 * lanes)) for v in (x, w))
    return _simd.call(b, f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", acc.type, acc, x, w)


def _products(b: Any, acc: Any, x: Any, w: Any) -> Any:
    """The same from what every CPU has: bytes 0 and 2, then 1 and 3 of each quad as int16, multiplied and added in pairs."""
    pairs = ir.VectorType(I16, 2 * acc.type.count)
    eight, low = (ir.Constant(pairs, [value] * pairs.count) for value in (8, 255))
    x, w = b.bitcast(x, pairs), b.bitcast(w, pairs)
    for unsigned, signed in (b.and_(x, low), b.ashr(b.shl(w, eight), eight)), (b.lshr(x, eight), b.ashr(w, eight)):
        products = b.mul(*(b.sext(v, ir.VectorType(I32, pairs.count)) for v in (unsigned, signed)))
        for first in (0, 1):
            every_other = ir.Constant(acc.type, list(range(first, pairs.count, 2)))
            acc = b.add(acc, b.shuffle_vector(products, products, every_other))
    return acc


def finish(b: Any, column: int, sums: list[Any], targets: list[Any], more: list[Any]) -> list[Any]:
    """relu is a limit of 0 or -Inf from below; NaN becomes 0x7FC00000."""
    kind, (zero, sx, wsum, sw, bias) = more[0], (b.inttoptr(p, BYTES) for p in more[1:])

    def of_columns(vector: Any, base: Any) -> Any:
        return _simd.load(b, vector, _simd.at(b, base, const(column)))

    def of_row(element: Any, base: Any, i: int) -> Any:
        return _simd.splat(b, _simd.load(b, element, _simd.at(b, base, const(4 * i))), ISA.lanes)

    weights, scale, shift = of_columns(_INTS, wsum), of_columns(_FLOATS, sw), of_columns(_FLOATS, bias)
    is_relu, is_sum = (b.icmp_signed("==", kind, const(k)) for k in (RELU, INT32))
    limit = _simd.splat(b, b.select(is_relu, ir.Constant(F32, 0.0), ir.Constant(F32, -math.inf)), ISA.lanes)
    nan = ir.Constant(_FLOATS, [math.nan] * ISA.lanes)
    out = []
    for i, acc in enumerate(sums):
        total = b.sub(acc, b.mul(of_row(I32, zero, i), weights))
        v = b.fadd(b.fmul(b.fmul(b.sitofp(total, _FLOATS), of_row(F32, sx, i)), scale), shift)
        v = b.select(b.fcmp_ordered("<=", v, limit), limit, v)
        v = b.select(b.fcmp_unordered("uno", v, v), nan, v)
        out.append(b.select(is_sum, total, b.bitcast(v, _INTS)))
    return out


multiply_add = _dot if ISA.name.endswith("vnni") else _products
"""(builder, int32 sums, uint8 x, int8 w) -> sums + products of quads; vectors of the ISA's width, or of 128 bits."""


@intrinsic  # type: ignore[misc]
def tile(
    typing: Any, mr: Any, nv: Any, quads: Any, x: Any, w: Any, panel: Any, y: Any, ldy: Any, ahead: Any, lines: Any,
    kind: Any, zero: Any, sx: Any, wsum: Any, sw: Any, bias: Any,
) -> Any:  # fmt: skip
    """See _tile.py. zero int32 and sx [mr]; wsum int32, sw and bias [16 nv], a bias of -0.0 changing nothing."""
    return intrinsic_of(ISA, I32, multiply_add, finish, more=6)
