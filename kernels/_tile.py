"""The microkernel that gemm_s8c and gemm_f32 share: some rows of x times some weight panels, the sums held in registers.

Both read 4 bytes per row and 64 bytes per panel at a step (4 int8 inputs of a quad, or one float32). They differ in how these are
multiplied, and in what becomes of the sums.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from edgecomp.kernels import _simd
from edgecomp.kernels._simd import BYTES, I32, I64, Isa, const

COLUMNS = 48  # of the widest tile

_STRETCH = 16  # steps between two rounds of prefetching
_NEAR = 3  # stretches before the end: when the lines of y are asked for

Multiply = Callable[[Any, Any, Any, Any], Any]
"""(builder, sum, x, w) -> sum + x * w, of vectors."""
Finish = Callable[[Any, int, list[Any], list[Any], list[Any]], list[Any]]
"""(builder, column in bytes, the sums of all rows there, their addresses in y, the `more` arguments) -> what to store."""


def intrinsic_of(isa: Isa, element: Any, multiply: Multiply, finish: Finish, more: int) -> Any:
    """Signature and code generator of `tile(mr, nv, steps, x, w, panel, y, ldy, ahead, lines, *more)`, all int64.

    y[mr][16 nv] = finish(x * w), summed over `steps` steps: x is [steps][mr][4 bytes], w nv panels of [steps][64 bytes], `panel`
    bytes apart; rows of y are ldy bytes apart. `ahead` are the weights of the tile after, of which `lines` cache lines per panel
    and stretch are asked for meanwhile. mr is at most isa.rows, and nv isa.panels, or 1 if mr is below 4.
    """

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        after = b.append_basic_block("tiled")
        choice = b.switch(b.add(b.mul(args[0], const(4)), args[1]), after)
        for mr in range(1, isa.rows + 1):
            for nv in range(1, isa.panels + 1 if mr > 3 else 2):
                kind = ir.FunctionType(ir.VoidType(), [I64] * len(args[2:]))
                function = ir.Function(b.module, kind, f"tile_{mr}x{nv}")
                function.linkage = "internal"
                function.attributes.add("noinline")
                body = ir.IRBuilder(function.append_basic_block())
                _emit(body, isa, mr, nv, element, multiply, finish, *function.args)
                body.ret_void()
                case = b.append_basic_block()
                choice.add_case(const(4 * mr + nv), case)
                with b.goto_block(case):
                    b.call(function, args[2:])
                    b.branch(after)
        b.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * (10 + more)), emit


def _emit(b: Any, isa: Isa, mr: int, nv: int, element: Any, multiply: Multiply, finish: Finish, *args: Any) -> None:
    steps, x, w, panel, y, ldy, ahead, lines, *more = args
    x, w, y, ahead = (b.inttoptr(p, BYTES) for p in (x, w, y, ahead))
    vector = ir.VectorType(element, isa.lanes)
    width, halves = 4 * isa.lanes, 16 // isa.lanes  # bytes of a vector, vectors in a panel
    columns = nv * halves
    size = mr * columns
    # Small tiles sum several steps apart, so that they have as many independent sums as the latency of a product asks for.
    most = min(12, isa.rows * isa.panels * halves)
    apart = next(u for u in (8, 4, 2, 1) if u == 1 or u * size <= most)

    def step(x: Any, w: Any, u: int, acc: list[Any]) -> list[Any]:
        """Step u of those ahead: adds to each of the sums [mr][columns]."""
        weights = [
            _simd.load(b, vector, _simd.at(b, w, b.add(b.mul(panel, const(v)), const(64 * u + width * h))))
            for v in range(nv)
            for h in range(halves)
        ]
        out = []
        for i in range(mr):
            row = _simd.splat(b, _simd.load(b, element, _simd.at(b, x, const(4 * (mr * u + i)))), isa.lanes)
            out += [multiply(b, acc[columns * i + j], row, weights[j]) for j in range(columns)]
        return out

    def some(_: Any, carried: list[Any]) -> list[Any]:
        """`apart` steps, each to its own sums."""
        x, w, *acc = carried
        new = [a for u in range(apart) for a in step(x, w, u, acc[u * size : (u + 1) * size])]
        return [_simd.at(b, x, const(4 * mr * apart)), _simd.at(b, w, const(64 * apart)), *new]

    def ask(_: Any, carried: list[Any]) -> list[Any]:
        for v in range(nv):
            _simd.prefetch(b, _simd.at(b, carried[0], b.mul(panel, const(v))), write=False, locality=2)
        return [_simd.at(b, carried[0], const(64))]

    whole = b.sdiv(steps, const(_STRETCH))
    near = b.sub(whole, b.select(b.icmp_signed("<", whole, const(_NEAR)), whole, const(_NEAR)))

    def stretch(i: Any, carried: list[Any]) -> list[Any]:
        x, w, ahead, *acc = carried
        # Stores that miss L1 stall what follows, and lines that came much earlier are gone again.
        with b.if_then(b.icmp_signed("==", i, near)):
            for r in range(mr):
                for v in range(nv):
                    _simd.prefetch(b, _simd.at(b, y, b.add(b.mul(ldy, const(r)), const(64 * v))), write=True, locality=3)
        (ahead,) = _simd.repeat(b, lines, [ahead], ask)
        x, w, *acc = _simd.repeat(b, const(_STRETCH // apart), [x, w, *acc], some)
        return [x, w, ahead, *acc]

    def one(_: Any, carried: list[Any]) -> list[Any]:
        x, w, *acc = carried
        return [_simd.at(b, x, const(4 * mr)), _simd.at(b, w, const(64)), *step(x, w, 0, acc)]

    zeros = [ir.Constant(vector, None)] * (size * apart)
    x, w, _, *acc = _simd.repeat(b, whole, [x, w, ahead, *zeros], stretch)
    add = b.add if element == I32 else b.fadd
    for u in range(1, apart):
        acc[:size] = [add(a, other) for a, other in zip(acc[:size], acc[u * size : (u + 1) * size], strict=True)]
    _, _, *acc = _simd.repeat(b, b.srem(steps, const(_STRETCH)), [x, w, *acc[:size]], one)
    for j in range(columns):
        targets = [_simd.at(b, y, b.add(b.mul(ldy, const(i)), const(width * j))) for i in range(mr)]
        for value, target in zip(finish(b, width * j, acc[j::columns], targets, more), targets, strict=True):
            _simd.store(b, value, target)
