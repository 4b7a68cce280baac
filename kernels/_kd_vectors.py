"""The two passes of the distillation loss that most calls take, with what LLVM's loops cannot say: logits asked for ahead of time, and
a gradient stored past the caches."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecomp.kernels import _simd
from edgecomp.kernels._simd import BYTES, F32, F64, I32, const

LANES = 16
_FLOATS = ir.VectorType(F32, LANES)


_EACH = 2 if "avx512f" in _simd.features() else 1  # vectors in a turn
_TURNS = 16  # whose terms are added in float32 before their sum goes to a float64
TURN = _TURNS * _EACH * LANES
"""Elements that `forward` takes at once."""


def _all(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * LANES)


def _fused(b: Any, x: Any, y: Any, plus: Any) -> Any:
    return _simd.call(b, f"llvm.fmuladd.v{LANES}f32", _FLOATS, x, y, plus)


def _soft(b: Any, x: Any, scale: Any, least: Any) -> Any:
    """_kd_loops._soft."""
    ints = ir.VectorType(I32, LANES)
    x = b.select(b.fcmp_ordered("<", x, least), least, x)
    shifted = _fused(b, x, scale, _all(12582912.0))
    r = _fused(b, x, scale, b.fneg(b.fsub(shifted, _all(12582912.0))))
    p = _all(1.326472755e-3)
    for coefficient in (9.671512641e-3, 5.550733742e-2, 2.402224209e-1, 6.931469716e-1, 1.0):
        p = _fused(b, p, r, _all(coefficient))
    exponent = b.shl(b.bitcast(shifted, ints), ir.Constant(ints, [23] * LANES))
    return b.fmul(p, b.bitcast(b.add(exponent, ir.Constant(ints, [0x3F800000] * LANES)), _FLOATS))


def _power(b: Any, power: int, w: Any) -> Any:
    square = b.fmul(w, w)
    return (w, square, b.fmul(square, w), b.fmul(square, square))[power - 1]


def _forward(b: Any, power: int, *args: Any) -> None:
    runs, s, t, ahead_s, ahead_t, w, z, sums = args[:8]
    pointers = [b.inttoptr(p, BYTES) for p in (s, t, ahead_s, ahead_t, w, z)]
    sums = b.inttoptr(sums, BYTES)
    max_s, max_t, scale_s, least_s, scale_t, least_t, ratio = (_simd.splat(b, value, LANES) for value in args[8:])
    doubles, zero = ir.VectorType(F64, LANES), ir.Constant(_FLOATS, None)
    many = 3 if power == 1 else 4

    def turn(i: Any, carried: list[Any]) -> list[Any]:
        """Some vectors, with sums of their own: [_EACH][many]."""
        (s, t, ahead_s, ahead_t, w, z), acc, out = carried[:6], carried[6:], []
        for v in range(_EACH):
            offset = const(4 * LANES * v)
            for ahead in (ahead_s, ahead_t):
                _simd.prefetch(b, _simd.at(b, ahead, offset), write=False, locality=2)
            x = b.fsub(_simd.load(b, _FLOATS, _simd.at(b, s, offset)), max_s)
            y = b.fsub(_simd.load(b, _FLOATS, _simd.at(b, t, offset)), max_t)
            soft_s, soft_t = _soft(b, x, scale_s, least_s), _soft(b, y, scale_t, least_t)
            _simd.store(b, soft_s, _simd.at(b, w, offset))
            _simd.store(b, soft_t, _simd.at(b, z, offset))
            so_far = acc[many * v : many * (v + 1)]
            out += [b.fadd(so_far[0], soft_s), b.fadd(so_far[1], soft_t)]
            out.append(_fused(b, soft_t, _fused(b, y, ratio, b.fneg(x)), so_far[2]))
            if many == 4:
                out.append(b.fadd(so_far[3], _power(b, power, soft_s)))
        return [*(_simd.at(b, p, const(4 * LANES * _EACH)) for p in (s, t, ahead_s, ahead_t, w, z)), *out]

    def run(i: Any, carried: list[Any]) -> list[Any]:
        pointers, totals = carried[:6], carried[6:]
        out = _simd.repeat(b, const(_TURNS), [*pointers, *[zero] * (_EACH * many)], turn)
        sums = out[6 : 6 + many]
        for v in range(1, _EACH):
            sums = [b.fadd(one, other) for one, other in zip(sums, out[6 + v * many :], strict=False)]
        return [*out[:6], *(b.fadd(total, b.fpext(new, doubles)) for total, new in zip(totals, sums, strict=True))]

    out = _simd.repeat(b, runs, [*pointers, *[ir.Constant(doubles, None)] * many], run)
    for i, total in enumerate(out[6:]):
        _simd.store(b, total, _simd.at(b, sums, const(8 * LANES * i)))


def _by_case(context: Any, b: Any, choice: Any, cases: Mapping[int, Callable[[], None]]) -> Any:
    after = b.append_basic_block("done")
    switch = b.switch(choice, after)
    for value, emit in cases.items():
        case = b.append_basic_block()
        switch.add_case(const(value), case)
        b.position_at_end(case)
        emit()
        b.branch(after)
    b.position_at_end(after)
    return context.get_dummy_value()


@intrinsic  # type: ignore[misc]
def forward(
    typing: Any, power: Any, runs: Any, s: Any, t: Any, ahead_s: Any, ahead_t: Any, w: Any, z: Any, sums: Any,
    max_s: Any, max_t: Any, scale_s: Any, least_s: Any, scale_t: Any, least_t: Any, ratio: Any,
) -> Any:  # fmt: skip
    """_kd_loops.forward of `runs` times TURN elements, unmasked; and, unless power is 1, sum_plain. sums: float64
    [4][LANES]. The logits at ahead_s and ahead_t are brought to the L2 cache."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _by_case(context, b, args[0], {p: functools.partial(_forward, b, p, *args[1:]) for p in range(1, 5)})

    return types.void(*[types.int64] * 9, *[types.float32] * 7), emit


def _gradient(b: Any, power: int, stream: bool, *args: Any) -> None:
    count, w, z, grad = args[:4]
    w, z, grad = (b.inttoptr(p, BYTES) for p in (w, z, grad))
    c0, c1, c2, c3 = (_simd.splat(b, c, LANES) for c in args[4:])

    def one(i: Any, _: list[Any]) -> list[Any]:
        offset = b.mul(i, const(4 * LANES))
        x, y = (_simd.load(b, _FLOATS, _simd.at(b, base, offset)) for base in (w, z))
        g = _fused(b, c0, _power(b, power, x), _fused(b, c1, x, b.fneg(_fused(b, c2, y, c3))))
        target = b.bitcast(_simd.at(b, grad, offset), _FLOATS.as_pointer())
        stored = b.store(g, target, align=4 * LANES if stream else 1)
        if stream:
            stored.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))
        return []

    _simd.repeat(b, count, [], one)


@intrinsic  # type: ignore[misc]
def gradient(
    typing: Any, power: Any, stream: Any, count: Any, w: Any, z: Any, grad: Any, c0: Any, c1: Any, c2: Any, c3: Any
) -> Any:  # fmt: skip
    """grad = c0 w^power + c1 w - c2 z - c3 in `count` vectors of LANES floats; power 1 to 4. stream: past the caches, grad being
    aligned to vectors."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        cases = {
            2 * power + stream: functools.partial(_gradient, b, power, bool(stream), *args[2:])
            for power, stream in itertools.product(range(1, 5), (0, 1))
        }
        return _by_case(context, b, b.add(b.mul(args[0], const(2)), args[1]), cases)

    return types.void(*[types.int64] * 6, *[types.float32] * 4), emit
