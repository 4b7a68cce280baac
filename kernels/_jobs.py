"""Several threads in one call of a kernel. Each thread runs the kernel with the same arguments; `job`, an int64 array of zeros that
they share, hands out the work: indices of phase 0, then of phase 1.

Who comes after `close` finds the gate closed and does nothing: nobody has to wait for a thread that starts late.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from edgecomp.kernels._jit import flat, helper, kernel

GATE, NEXT, DONE, LENGTH = 0, 8, 16, 40  # a cache line each; phase p's counters are 16 p further
_CLOSED = 1 << 32
_SPINS = 4096

JOB = flat(types.int64, writable=True)

_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@intrinsic  # type: ignore[misc]
def _add(typing: Any, job: Any, at: Any, value: Any) -> Any:
    """Atomically adds to job[at]; returns what was there. Everything written before is seen by who reads the sum."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, b, args[0]).data
        return b.atomic_rmw("add", b.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(job, types.int64, types.int64), emit


@intrinsic  # type: ignore[misc]
def _set_float_mode(typing: Any, mode: Any) -> Any:
    """Sets MXCSR or FPCR and returns what it was. Results must not depend on who called."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        i32, i64, byte_pointer = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()

        def call(name: str, result: Any, *values: Any) -> Any:
            function = ir.FunctionType(result, [v.type for v in values])
            return b.call(cgutils.get_or_insert_function(b.module, function, name), values)

        if platform.machine() == "x86_64":
            cell = cgutils.alloca_once(b, i32)
            call("llvm.x86.sse.stmxcsr", ir.VoidType(), b.bitcast(cell, byte_pointer))
            was = b.zext(b.load(cell), i64)
            b.store(b.trunc(args[0], i32), cell)
            call("llvm.x86.sse.ldmxcsr", ir.VoidType(), b.bitcast(cell, byte_pointer))
            return was
        if platform.machine() == "aarch64":
            was = call("llvm.aarch64.get.fpcr", i64)
            call("llvm.aarch64.set.fpcr", ir.VoidType(), args[0])
            return was
        return args[0]

    return types.int64(types.int64), emit


_DEFAULT_MODE = 0x1F80 if platform.machine() == "x86_64" else 0  # round to nearest, denormals kept, exceptions masked


@helper
def enter(job: Any) -> int:
    """Begins a thread's part of a kernel: returns what `leave` wants, or -1 if there is nothing left to do."""
    if _add(job, GATE, 1) >= _CLOSED:
        _add(job, GATE, -1)
        return -1
    return _set_float_mode(_DEFAULT_MODE)


@helper
def leave(job: Any, mode: int) -> None:
    _set_float_mode(mode)
    _add(job, GATE, -1)


@helper
def take(job: Any, phase: int) -> int:
    """The next index of a phase: 0, 1, 2 ..."""
    return _add(job, NEXT + 16 * phase, 1)


@helper
def done(job: Any, phase: int) -> None:
    """Says that an index taken before is finished."""
    _add(job, DONE + 16 * phase, 1)


@helper
def wait(job: Any, phase: int, count: int) -> None:
    """Waits until all `count` indices of a phase are finished: call it when none is left to take."""
    spins = 0
    while _add(job, DONE + 16 * phase, 0) < count:
        spins += 1
        if spins > _SPINS:
            _sched_yield()


@kernel(JOB)
def close(job: Any) -> None:
    """Lets no more threads in and waits for those inside."""
    _add(job, GATE, _CLOSED)
    spins = 0
    while _add(job, GATE, 0) > _CLOSED:
        spins += 1
        if spins > _SPINS:
            _sched_yield()
