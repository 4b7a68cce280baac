"""Rows of a sparse weight's block form times x with tokens in lanes, and the turning of x and y for that.

A block of the weight is some row groups, of `shared` outputs that have their inputs in common, and some inputs. The sums of a row group
stay in registers over its entries of the block; between blocks of inputs they live in the L2 cache.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecomp.kernels import _simd, _tile_f32, _tile_s8c
from edgecomp.kernels._simd import BYTES, F32, I8, I16, I32, I64, const

SHARED = (1, 4)
"""Outputs of a row group: CSR's, and those of N:M weights in blocks."""
LANES = _tile_f32.ISA.lanes
MOST = {1: 64, 4: 64 if LANES == 16 else 16}
"""float32 tokens whose sums fit the registers, by what is shared. Fewer come in sixteens."""
LANES8 = _tile_s8c.ISA.lanes
TOKENS8 = 4 * LANES8
"""int8 tokens of a group; the last may have 16."""
FEW8 = 16 if LANES8 <= 8 or "avx512vl" in _simd.features() else TOKENS8

_Cases = dict[int, Callable[..., None]]


def _switch(context: Any, b: Any, name: str, args: Any, cases: _Cases) -> Any:
    """Calls a function that the case of args[0] has written, with the other arguments."""
    after = b.append_basic_block("done")
    choice = b.switch(args[0], after)
    for value, emit in cases.items():
        function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [I64] * len(args[1:])), f"{name}_{value}")
        function.linkage = "internal"
        function.attributes.add("noinline")
        body = ir.IRBuilder(function.append_basic_block())
        emit(body, *function.args)
        body.ret_void()
        case = b.append_basic_block()
        choice.add_case(const(value), case)
        with b.goto_block(case):
            b.call(function, args[1:])
            b.branch(after)
    b.position_at_end(after)
    return context.get_dummy_value()


def _rows(
    b: Any, shared: int, tokens: int, vector: Any, each: int, apart: int,
    step: Callable[[Any, Any, Any, list[Any]], list[Any]], add: Any, *args: Any,
) -> None:  # fmt: skip
    """The loops over row groups and their entries. step(local, value, x, sums) is one turn: `each` entries, added to [shared][vectors]
    sums; `apart` turns go to sums of their own where those are fewer than products under way."""
    rows, count, local, value, x, sums, first = args
    count, local, value, x, sums = (b.inttoptr(p, BYTES) for p in (count, local, value, x, sums))
    is_first, zero = b.icmp_signed("!=", first, const(0)), ir.Constant(vector, None)
    bytes_of, size = 4 * vector.count, shared * tokens // vector.count
    local_bytes, value_bytes = 2 * each, shared * (4 if vector.element == F32 else each)

    def row(i: Any, carried: list[Any]) -> list[Any]:
        local, value = carried
        left = b.zext(_simd.load(b, I16, _simd.at(b, count, b.mul(i, const(2)))), I64)
        own = _simd.at(b, sums, b.mul(i, const(size * bytes_of)))
        acc = [b.select(is_first, zero, _simd.load(b, vector, _simd.at(b, own, const(bytes_of * j)))) for j in range(size)]

        def turns(wide: int) -> Callable[[Any, list[Any]], list[Any]]:
            def some(_: Any, carried: list[Any]) -> list[Any]:
                local, value, *acc = carried
                for u in range(wide):
                    at = _simd.at(b, local, const(local_bytes * u)), _simd.at(b, value, const(value_bytes * u))
                    acc[u * size : (u + 1) * size] = step(*at, x, acc[u * size : (u + 1) * size])
                return [_simd.at(b, local, const(local_bytes * wide)), _simd.at(b, value, const(value_bytes * wide)), *acc]

            return some

        if apart == 1:
            local, value, *acc = _simd.repeat(b, left, [local, value, *acc], turns(1))
        else:
            whole = [*acc, *[zero] * (size * (apart - 1))]
            local, value, *whole = _simd.repeat(b, b.sdiv(left, const(apart)), [local, value, *whole], turns(apart))
            for u in range(1, apart):
                whole[:size] = [add(a, other) for a, other in zip(whole[:size], whole[u * size : (u + 1) * size], strict=True)]
            local, value, *acc = _simd.repeat(b, b.srem(left, const(apart)), [local, value, *whole[:size]], turns(1))
        for j, total in enumerate(acc):
            _simd.store(b, total, _simd.at(b, own, const(bytes_of * j)))
        return [local, value]

    _simd.repeat(b, rows, [local, value], row)


def _rows_f32(shared: int, tokens: int) -> Callable[..., None]:
    vector, vectors = ir.VectorType(F32, LANES), tokens // LANES

    def emit(b: Any, *args: Any) -> None:
        def step(local: Any, value: Any, x: Any, acc: list[Any]) -> list[Any]:
            own = _simd.at(b, x, b.mul(b.zext(_simd.load(b, I16, local), I64), const(4 * tokens)))
            inputs = [_simd.load(b, vector, _simd.at(b, own, const(4 * LANES * j))) for j in range(vectors)]
            out = []
            for s in range(shared):
                w = _simd.splat(b, _simd.load(b, F32, _simd.at(b, value, const(4 * s))), LANES)
                own_sums = acc[s * vectors : (s + 1) * vectors]
                out += [_tile_f32.multiply_add(b, a, v, w) for a, v in zip(own_sums, inputs, strict=True)]
            return out

        apart = max(1, 8 // (shared * vectors)) if LANES == 16 else 1
        _rows(b, shared, tokens, vector, 1, apart, step, b.fadd, *args)

    return emit


def _rows_s8(shared: int, lanes: int) -> Callable[..., None]:
    codes, ints, pairs = (ir.VectorType(kind, lanes * by) for kind, by in ((I8, 4), (I32, 1), (I16, 2)))

    def unpack(b: Any, kind: Any, one: Any, other: Any) -> tuple[Any, Any]:
        """The lower, and the upper halves of 128 bits, element by element in turn."""
        half, whole = 64 // kind.element.width, 128 // kind.element.width
        one, other = b.bitcast(one, kind), b.bitcast(other, kind)
        low = [g + i + other_one for g in range(0, kind.count, whole) for i in range(half) for other_one in (0, kind.count)]
        order = ir.VectorType(I32, kind.count)
        return tuple(b.shuffle_vector(one, other, ir.Constant(order, [h + i for i in low])) for h in (0, half))  # type: ignore[return-value]

    def emit(b: Any, *args: Any) -> None:
        def step(local: Any, value: Any, x: Any, acc: list[Any]) -> list[Any]:
            rows = []
            for e in range(4):
                offset = b.mul(b.zext(_simd.load(b, I16, _simd.at(b, local, const(2 * e))), I64), const(4 * lanes))
                rows.append(_simd.load(b, codes, _simd.at(b, x, offset)))
            low, high = zip(unpack(b, codes, rows[0], rows[1]), unpack(b, codes, rows[2], rows[3]), strict=True)
            inputs = [*unpack(b, pairs, *low), *unpack(b, pairs, *high)]
            out = []
            for s in range(shared):
                w = _simd.splat(b, _simd.load(b, I32, _simd.at(b, value, const(4 * s))), lanes)
                own = acc[4 * s : 4 * s + 4]
                out += [_tile_s8c.multiply_add(b, a, b.bitcast(v, ints), w) for a, v in zip(own, inputs, strict=True)]
            return out

        _rows(b, shared, 4 * lanes, ints, 4, 1, step, b.add, *args)

    return emit


@intrinsic  # type: ignore[misc]
def rows_f32(
    typing: Any, kind: Any, rows: Any, count: Any, local: Any, value: Any, x: Any, sums: Any, first: Any
) -> Any:  # fmt: skip
    """sums [rows][shared][tokens] of a block += its products with x [inputs][tokens], or = those if first. All int64; kind: 100 * shared +
    tokens. count: uint16 entries of each row; local uint16 and value [shared]: of each entry, row after row."""
    cases = {100 * s + t: _rows_f32(s, t) for s in SHARED for t in range(16, MOST[s] + 1, 16)}
    return types.void(*[types.int64] * 8), lambda context, b, signature, args: _switch(context, b, "csr", args, cases)


@intrinsic  # type: ignore[misc]
def rows_s8(
    typing: Any, kind: Any, rows: Any, count: Any, local: Any, value: Any, x: Any, sums: Any, first: Any
) -> Any:  # fmt: skip
    """The same of uint8 x, whose tokens are in the order of `turned`, and int8 values; entries come in fours: count is theirs, value
    [shared][4]."""
    cases = {100 * s + t: _rows_s8(s, t // 4) for s in SHARED for t in {FEW8, TOKENS8}}
    return types.void(*[types.int64] * 8), lambda context, b, signature, args: _switch(context, b, "csr8", args, cases)


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """16 vectors of 16: interleaving those with those eight further, four times."""
    kind = rows[0].type
    halves = [ir.Constant(ir.VectorType(I32, 16), [first + i + o for i in range(8) for o in (0, 16)]) for first in (0, 8)]
    for _ in range(4):
        rows = [b.shuffle_vector(rows[i], rows[i + 8], order) for i in range(8) for order in halves]
    assert rows[0].type == kind
    return rows


def _turn(element: Any) -> Any:
    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        source, near, far, out, stride = args
        source, out = b.inttoptr(source, BYTES), b.inttoptr(out, BYTES)
        kind = ir.VectorType(element, 16)
        rows = [_simd.load(b, kind, _simd.at(b, source, b.add(b.mul(far, const(i // 4)), b.mul(near, const(i % 4))))) for i in range(16)]
        for i, row in enumerate(_transposed(b, rows)):
            _simd.store(b, row, _simd.at(b, out, b.mul(stride, const(i))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


@intrinsic  # type: ignore[misc]
def turn_f32(typing: Any, source: Any, near: Any, far: Any, out: Any, stride: Any) -> Any:
    """out [16] of 16 floats, `stride` bytes apart, = 16 floats of 16 rows: fours of rows `near` bytes apart, every `far` bytes."""
    return _turn(F32)


@intrinsic  # type: ignore[misc]
def turn_u8(typing: Any, source: Any, near: Any, far: Any, out: Any, stride: Any) -> Any:
    """The same of bytes."""
    return _turn(I8)


def _finished(element: Any, lanes: int, finish: Any) -> Any:
    """What intrinsics do that turn sums [16 outputs][stride bytes] of 16 tokens, and finish them as y [16 tokens][ldy bytes]."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        sums, stride, y, ldy, *more = args
        sums, y = b.inttoptr(sums, BYTES), b.inttoptr(y, BYTES)
        kind = ir.VectorType(element, 16)
        rows = _transposed(b, [_simd.load(b, kind, _simd.at(b, sums, b.mul(stride, const(i)))) for i in range(16)])
        for first in range(0, 16, lanes):
            part = ir.Constant(ir.VectorType(I32, lanes), list(range(first, first + lanes)))
            targets = [_simd.at(b, y, b.add(b.mul(ldy, const(i)), const(4 * first))) for i in range(16)]
            own = [b.shuffle_vector(row, row, part) for row in rows] if lanes < 16 else rows
            for value, target in zip(finish(b, 4 * first, own, targets, more), targets, strict=True):
                _simd.store(b, value, target)
        return context.get_dummy_value()

    return emit


@intrinsic  # type: ignore[misc]
def finish_f32(typing: Any, sums: Any, stride: Any, y: Any, ldy: Any, first: Any, relu: Any, bias: Any) -> Any:
    """y [16 tokens] of 16 outputs = sums [16 outputs] of 16 tokens + bias; rows `stride` and `ldy` bytes apart. See _tile_f32.finish."""
    return types.void(*[types.int64] * 7), _finished(F32, LANES, _tile_f32.finish)


@intrinsic  # type: ignore[misc]
def finish_s8(
    typing: Any, sums: Any, stride: Any, y: Any, ldy: Any, kind: Any, zero: Any, sx: Any, wsum: Any, sw: Any, bias: Any
) -> Any:  # fmt: skip
    """The same of int32 sums. See _tile_s8c.finish."""
    return types.void(*[types.int64] * 10), _finished(I32, LANES8, _tile_s8c.finish)
