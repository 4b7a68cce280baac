"""The tile of int8 N:M weights whose outputs have places of their own: vpermb picks the bytes of each output from 64 inputs of a row."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgecomp.kernels import _simd, _tile_s8c
from edgecomp.kernels._simd import BYTES, I8, I32, const

CAN = "avx512vbmi" in _simd.features() and _tile_s8c.ISA.name == "avx512vnni"
ROWS, OUTPUTS, WINDOW = 8, 32, 64

_CODES, _INTS = ir.VectorType(I8, 64), ir.VectorType(I32, 16)


@intrinsic  # type: ignore[misc]
def tile(
    typing: Any, windows: Any, steps: Any, x: Any, w: Any, y: Any, ldy: Any, kind: Any, zero: Any, sx: Any, wsum: Any, sw: Any, bias: Any
) -> Any:  # fmt: skip
    """y [ROWS] of OUTPUTS: x is [windows][ROWS][WINDOW] bytes, w what `edgecomp.nm.NMWeight.as_windows` says, `steps` in a window. The
    rest: _tile_s8c.finish."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if not CAN:  # nobody calls it, but warmup compiles it
            return context.get_dummy_value()
        windows, steps, x, w, y, ldy, *more = args
        x, w, y = (b.inttoptr(p, BYTES) for p in (x, w, y))

        def window(_: Any, carried: list[Any]) -> list[Any]:
            x, w, *acc = carried
            rows = [_simd.load(b, _CODES, _simd.at(b, x, const(WINDOW * i))) for i in range(ROWS)]

            def step(_: Any, carried: list[Any]) -> list[Any]:
                w, *acc = carried
                places, values = ([_simd.load(b, _CODES, _simd.at(b, w, const(64 * v))) for v in pair] for pair in ((0, 1), (2, 3)))
                out = []
                for i, row in enumerate(rows):
                    for v in range(2):
                        picked = _simd.call(b, "llvm.x86.avx512.permvar.qi.512", _CODES, row, places[v])
                        out.append(_tile_s8c.multiply_add(b, acc[2 * i + v], picked, values[v]))
                return [_simd.at(b, w, const(4 * 64)), *out]

            return [_simd.at(b, x, const(WINDOW * ROWS)), *_simd.repeat(b, steps, [w, *acc], step)]

        _, _, *acc = _simd.repeat(b, windows, [x, w, *[ir.Constant(_INTS, None)] * (2 * ROWS)], window)
        for v in range(2):
            targets = [_simd.at(b, y, b.add(b.mul(ldy, const(i)), const(64 * v))) for i in range(ROWS)]
            for value, target in zip(_tile_s8c.finish(b, 64 * v, acc[v::2], targets, more), targets, strict=True):
                _simd.store(b, value, target)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), emit
