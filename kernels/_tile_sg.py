"""The tile of weights with a scale per output and group of inputs: a strip of 32 outputs, group after group.

A vector of weights at a time, its groups' codes decoded into up to 8 registers while the rows pass by; y and the sums live in L1. A
code is the unsigned operand as it is and q the signed one; the zero point comes in with the sum of q. So the rows need no packing
beyond lying together group by group, and their number is a loop, not a function for each. No fused multiply-add: every bit is promised.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecomp.kernels import _simd
from edgecomp.kernels._simd import BYTES, F32, I8, I16, I32, I64, const
from edgecomp.kernels._tile_s8c import ISA, multiply_add

STRIP = 32
MIDDLE, POINT, OFFSET = range(3)
"""Where a code has its zero: at 8 or 128, at an integer per output and group, or it is added as a float."""

_LANES, _WIDTH = ISA.lanes, 4 * ISA.lanes
_INTS, _FLOATS = ir.VectorType(I32, _LANES), ir.VectorType(F32, _LANES)
_PAIRS, _CODES = ir.VectorType(I16, 2 * _LANES), ir.VectorType(I8, 4 * _LANES)
_MADDUBS = {"avx2": ("avx2.pmadd.ub.sw", "avx2.pmadd.wd"), "avx512": ("avx512.pmaddubs.w.512", "avx512.pmaddw.d.512")}
_ROW = 4 * STRIP  # bytes of codes that 32 outputs have for a quad, or for two quads of int4


_Splat = Callable[[Any, Any], Any]
_Start = Callable[[_Splat], Any]
_End = Callable[[Any, Any, _Splat], None]


def _all(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _nibbles(b: Any, v: Any) -> tuple[Any, Any]:
    mask, pairs = _all(_CODES, 15), b.bitcast(v, _PAIRS)
    high = b.bitcast(b.lshr(pairs, _all(_PAIRS, 4)), _CODES)
    return tuple(b.bitcast(b.and_(half, mask), _INTS) for half in (b.bitcast(v, _CODES), high))  # type: ignore[return-value]  # two


def _widened(b: Any, codes: list[Any], x: list[Any]) -> Any:
    """vpmaddubsw: a pair of nibbles times q is at most 2 * 15 * 127, so eight fit int16 and are widened together."""
    multiply, widen = _MADDUBS[ISA.name]
    codes, x = ([b.bitcast(v, _CODES) for v in vectors] for vectors in (codes, x))
    sums = [_simd.call(b, f"llvm.x86.{multiply}", _PAIRS, c, v) for c, v in zip(codes, x, strict=True)]
    while len(sums) > 1:
        sums = [b.add(*sums[i : i + 2]) for i in range(0, len(sums), 2)]
    return _simd.call(b, f"llvm.x86.{widen}", _INTS, sums[0], _all(_PAIRS, 1))


def _decode(b: Any, bits: int, loaded: list[Any]) -> list[Any]:
    """The registers that `_sum` wants: quads of codes, except that vpmaddubsw gets bytes as their low nibbles, then the high ones."""
    if bits == 4:
        return [nibble for v in loaded for nibble in _nibbles(b, v)]
    if ISA.name in _MADDUBS:
        halves = [_nibbles(b, v) for v in loaded]
        return [low for low, _ in halves] + [high for _, high in halves]
    return loaded


def _sum(b: Any, acc: Any, codes: list[Any], x: list[Any]) -> Any:
    """acc + the products of some quads of codes and of q."""
    if ISA.name in _MADDUBS:
        acc = b.add(acc, _widened(b, codes[: len(x)], x))
        if len(codes) > len(x):
            acc = b.add(acc, b.shl(_widened(b, codes[len(x) :], x), _all(_INTS, 4)))
        return acc
    for c, v in zip(codes, x, strict=True):
        acc = multiply_add(b, acc, c, v)
    return acc


def _two_sums(b: Any, acc: Any, other: Any, codes: list[Any], x: list[Any]) -> Any:
    """acc + other + the products: half of them each, so that fewer wait for one another."""
    half = len(codes) // 2
    if ISA.name in _MADDUBS:
        return b.add(_sum(b, acc, codes, x), other)
    return b.add(_sum(b, acc, codes[:half], x[:half]), _sum(b, other, codes[half:], x[half:]))


def _floats_of(b: Any, at: Any, half: Any) -> Any:
    """A vector of float32, or of float16 if `half`."""
    with b.if_else(half) as (yes, no):
        with yes:
            short = _simd.from_half(b, b.zext(_simd.load(b, ir.VectorType(I16, _LANES), at), _INTS))
            yes_end = b.block
        with no:
            plain = _simd.load(b, _FLOATS, at)
            no_end = b.block
    value = b.phi(_FLOATS)
    value.add_incoming(short, yes_end)
    value.add_incoming(plain, no_end)
    return value


def _emit(b: Any, bits: int, *args: Any) -> None:
    rows, groups, quads, x, sx, sums, w, record, header, half, zero, y, acc = args
    x, sx, sums, w, y, acc = (b.inttoptr(p, BYTES) for p in (x, sx, sums, w, y, acc))
    half, is_point, is_offset = (b.icmp_signed("==", *pair) for pair in ((half, const(1)), (zero, const(POINT)), (zero, const(OFFSET))))
    most = 8 if bits == 4 else 4  # quads of a block
    before = b.sdiv(b.sub(quads, const(1)), const(most))  # blocks before the last
    row_bytes = b.mul(quads, const(4))
    scale_bytes = b.select(half, const(2), const(4))
    centre = b.select(is_offset, _all(_INTS, 0), _all(_INTS, 1 << (bits - 1)))

    def each_row(body: Callable[[Any, Callable[[Any, Any], Any]], None]) -> None:
        """body(i, splat): splat(element, base) is one value per row in every lane."""

        def one(i: Any, carried: list[Any]) -> list[Any]:
            offset = b.mul(i, const(4))
            body(i, lambda element, base: _simd.splat(b, _simd.load(b, element, _simd.at(b, base, offset)), _LANES))
            return []

        _simd.repeat(b, rows, [], one)

    def group(_: Any, carried: list[Any]) -> list[Any]:
        x, sx, sums, w = carried

        def columns(h: Any, _: list[Any]) -> list[Any]:
            lane = b.mul(h, const(_LANES))
            codes = _simd.at(b, w, b.add(header, b.mul(h, const(_WIDTH))))
            tops = _simd.at(b, w, b.mul(scale_bytes, const(STRIP)))  # behind the scales
            target = _simd.at(b, y, b.mul(h, const(_WIDTH)))
            scale = _floats_of(b, _simd.at(b, w, b.mul(scale_bytes, lane)), half)
            point = b.zext(_simd.load(b, ir.VectorType(I8, _LANES), _simd.at(b, tops, lane)), _INTS)
            minus = b.neg(b.select(is_point, point, centre))

            def block(at: Any, count: int, start: _Start, finish: _End) -> None:
                """Block `at`, of `count` quads: finish(i, sum, splat); start(splat) is a part of the sum."""
                first = _simd.at(b, codes, b.mul(at, const(4 * _ROW)))
                loaded = [_simd.load(b, _INTS, _simd.at(b, first, const(_ROW * j))) for j in range(count * bits // 8)]
                ready = _decode(b, bits, loaded)
                begin = _simd.at(b, x, b.mul(at, const(4 * most)))

                def row(i: Any, splat: Callable[[Any, Any], Any]) -> None:
                    source = _simd.at(b, begin, b.mul(i, row_bytes))
                    q = [_simd.splat(b, _simd.load(b, I32, _simd.at(b, source, const(4 * j))), _LANES) for j in range(count)]
                    so_far = _simd.load(b, _INTS, _simd.at(b, acc, b.mul(i, const(_WIDTH))))
                    finish(i, _two_sums(b, so_far, start(splat), ready, q), splat)

                each_row(row)

            def clear(i: Any, splat: Any) -> None:
                _simd.store(b, ir.Constant(_INTS, None), _simd.at(b, acc, b.mul(i, const(_WIDTH))))

            def keep(i: Any, total: Any, splat: Any) -> None:
                _simd.store(b, total, _simd.at(b, acc, b.mul(i, const(_WIDTH))))

            def flush(i: Any, total: Any, splat: Any) -> None:
                add(i, total, scale, splat)

            def nothing(splat: Any) -> Any:
                return ir.Constant(_INTS, None)

            def zeros(splat: Any) -> Any:
                return b.mul(minus, splat(I32, sums))

            def add(i: Any, total: Any, factor: Any, splat: Any) -> None:
                at = _simd.at(b, target, b.mul(i, const(4 * STRIP)))
                product = b.fmul(b.sitofp(total, _FLOATS), b.fmul(splat(F32, sx), factor))
                _simd.store(b, b.fadd(_simd.load(b, _FLOATS, at), product), at)

            def middle(at: Any, _: list[Any]) -> list[Any]:
                block(at, most, nothing, keep)
                return []

            with b.if_then(b.icmp_signed(">", before, const(0))):  # acc comes as zeros, and stays so if there is one block
                each_row(clear)
                _simd.repeat(b, before, [], middle)
            if bits == 4:
                with b.if_else(b.icmp_signed("==", b.and_(quads, const(4)), const(0))) as (whole, rest):
                    with whole:
                        block(before, 8, zeros, flush)
                    with rest:
                        block(before, 4, zeros, flush)
            else:
                block(before, 4, zeros, flush)
            with b.if_then(is_offset):
                offset = _floats_of(b, _simd.at(b, tops, b.mul(scale_bytes, lane)), half)
                each_row(lambda i, splat: add(i, splat(I32, sums), offset, splat))
            return []

        _simd.repeat(b, const(STRIP // _LANES), [], columns)
        per_row = b.mul(rows, const(4))
        return [_simd.at(b, x, b.mul(rows, row_bytes)), _simd.at(b, sx, per_row), _simd.at(b, sums, per_row), _simd.at(b, w, record)]

    _simd.repeat(b, groups, [x, sx, sums, w], group)


@intrinsic  # type: ignore[misc]
def tile(
    typing: Any, bits: Any, rows: Any, groups: Any, quads: Any, x: Any, sx: Any, sums: Any,
    w: Any, record: Any, header: Any, half: Any, zero: Any, y: Any, acc: Any,
) -> Any:  # fmt: skip
    """y[rows][32] += x w^T of all groups in order; all int64.

    x: q [groups][rows][4 * quads], with sx float32 and the sums of q int32 [groups][rows]. w: records `record` bytes apart, whose codes
    begin at `header` (edgecomp.packing.records); half: their scales are float16. quads is a multiple of 4. acc: int32 zeros
    [rows][lanes].
    """

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        after = b.append_basic_block("tiled")
        choice = b.switch(args[0], after)
        for width in (4, 8):
            function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [I64] * len(args[1:])), f"tile_s{width}g")
            function.linkage = "internal"
            function.attributes.add("noinline")
            body = ir.IRBuilder(function.append_basic_block())
            _emit(body, width, *function.args)
            body.ret_void()
            case = b.append_basic_block()
            choice.add_case(const(width), case)
            with b.goto_block(case):
                b.call(function, args[1:])
                b.branch(after)
        b.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 14), emit
