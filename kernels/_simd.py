"""What Numba cannot say: vectors, a loop that keeps its sums in registers, prefetching. A microkernel written with these is one
intrinsic: addresses and sizes go in, nothing vector-typed comes out.

The instructions must be those of the CPU that Numba compiles for, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may set: LLVM aborts
the process when asked for another.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

I8, I16, I32, I64, F32, F64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
BYTES = I8.as_pointer()


class Isa(NamedTuple):
    """A way to write a tile, and the largest tile whose sums fit the registers."""

    name: str
    needs: str  # LLVM's names of the features, separated by spaces
    lanes: int  # of 32 bits in a vector
    rows: int
    panels: int
    macs_per_ns: int  # of one thread of a slow CPU that has it: decides when threads pay


@functools.cache
def features() -> frozenset[str]:
    """What Numba lets LLVM use."""
    found = {}
    for word in cpu_target.target_context.codegen().magic_tuple()[2].split(","):
        found[word[1:]] = word[:1] == "+"
    return frozenset(name for name, on in found.items() if on)


def best(isas: Sequence[Isa]) -> Isa:
    """The first that can run here; the last needs nothing."""
    return next(isa for isa in isas if set(isa.needs.split()) <= features())


def const(value: int) -> Any:
    return ir.Constant(I64, value)


def at(b: Any, base: Any, offset: Any) -> Any:
    """The address `offset` bytes behind base."""
    return b.gep(base, [offset])


def load(b: Any, kind: Any, pointer: Any) -> Any:
    """A scalar or vector from an address of any alignment."""
    return b.load(b.bitcast(pointer, kind.as_pointer()), align=1)


def store(b: Any, value: Any, pointer: Any) -> None:
    b.store(value, b.bitcast(pointer, value.type.as_pointer()), align=1)


def splat(b: Any, value: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    kind = ir.VectorType(value.type, lanes)
    nothing = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(nothing, value, ir.Constant(I32, 0))
    return b.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def call(b: Any, name: str, result: Any, *values: Any) -> Any:
    """Calls one of LLVM's intrinsics."""
    function = ir.FunctionType(result, [v.type for v in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), values)


def prefetch(b: Any, pointer: Any, *, write: bool, locality: int) -> None:
    """Asks for a cache line: locality 3 for L1, 2 for L2."""
    options = (ir.Constant(I32, value) for value in (int(write), locality, 1))
    call(b, f"llvm.prefetch.{pointer.type.intrinsic_name}", ir.VoidType(), pointer, *options)


def repeat(b: Any, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """A loop: carried = body(i, carried) for i in 0 .. count - 1. Returns what is carried out."""
    before, head, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
    b.cbranch(b.icmp_signed(">", count, const(0)), head, after)
    b.position_at_end(head)
    i, inside = b.phi(I64), [b.phi(value.type) for value in carried]
    new = body(i, inside)
    following, end = b.add(i, const(1)), b.block
    b.cbranch(b.icmp_signed("<", following, count), head, after)
    b.position_at_end(after)
    out = [b.phi(value.type) for value in carried]
    for phi, first, later in zip([i, *inside], [const(0), *carried], [following, *new], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
    for phi, first, later in zip(out, carried, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
    return out


def from_half(b: Any, bits: Any) -> Any:
    """The float32 of finite float16 bits in an int32, scalar or vector, exactly. Not fpext: without F16C that is a call."""
    lanes = bits.type.count if isinstance(bits.type, ir.VectorType) else 0
    floats = ir.VectorType(F32, lanes) if lanes else F32

    def all_of(kind: Any, value: Any) -> Any:
        return ir.Constant(kind, [value] * lanes if lanes else value)

    size = b.shl(b.and_(bits, all_of(bits.type, 0x7FFF)), all_of(bits.type, 13))
    size = b.bitcast(b.fmul(b.bitcast(size, floats), all_of(floats, 2.0**112)), bits.type)  # the exponents differ by 112
    sign = b.shl(b.and_(bits, all_of(bits.type, 0x8000)), all_of(bits.type, 16))
    return b.bitcast(b.or_(size, sign), floats)
