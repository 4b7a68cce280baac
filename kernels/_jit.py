"""How the kernels are compiled and kept: `kernel` for those that Python calls, `helper` for what they share."""

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from edgecomp.kernels._simd import I64, const

OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
helper = njit(**OPTIONS)

SOURCES = zlib.crc32(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))
"""Changes when any file of this folder does."""


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's, which looks at the kernel's own file only, and raises what the disk raises. Here a kernel is compiled anew when a
    file beside it changes, and if the cache cannot be read or written."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), SOURCES)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            with contextlib.suppress(Exception):
                self.flush()  # or a broken index would stay: saving reads it too
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            self.disable()


def kernel(*arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compiles a function of these argument types, or loads it: once, for arrays of any layout, when its module is imported."""

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        dispatcher = njit(**OPTIONS)(function)
        with contextlib.suppress(OSError, RuntimeError):  # there may be no folder to write to
            dispatcher._cache = _Cache(function)
        dispatcher.compile(types.void(*arguments))
        dispatcher.disable_compile()
        return dispatcher  # type: ignore[no-any-return]

    return compiled


def rows_of(element: Any, writable: bool = False) -> Any:
    """The type of a matrix whose rows are contiguous and some distance apart."""
    return types.Array(element, 2, "A", readonly=not writable)


def flat(element: Any, writable: bool = False, dimensions: int = 1) -> Any:
    """The type of a contiguous array."""
    return types.Array(element, dimensions, "C", readonly=not writable)


def _first(context: Any, b: Any, array: Any, value: Any, i: Any) -> tuple[Any, Any]:
    """The array's structure, and the address of its element i, counted as if it were contiguous."""
    structure = context.make_array(array)(context, b, value)
    size = context.get_abi_sizeof(context.get_data_type(array.dtype))
    return structure, b.add(b.ptrtoint(structure.data, I64), b.mul(i, const(size)))


# Intrinsics: a helper would be compiled for each of the many types of arrays, which was a tenth of all the compilation.


@intrinsic  # type: ignore[misc]
def address(typing: Any, a: Any, i: Any) -> Any:
    """Of element i of a contiguous array, counted through all dimensions; signed, because Numba makes a float of a mixture."""
    return types.int64(a, types.int64), lambda context, b, signature, args: _first(context, b, signature.args[0], *args)[1]


@intrinsic  # type: ignore[misc]
def run(typing: Any, a: Any, i: Any, first: Any, count: Any, dtype: Any) -> Any:
    """a[i, first : first + count] of a matrix of contiguous rows as a contiguous array, its bytes read as dtype."""
    view = types.Array(dtype.dtype, 1, "C")

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        value, i, first, count, _ = args
        structure, start = _first(context, b, signature.args[0], value, first)
        start = b.add(start, b.mul(i, cgutils.unpack_tuple(b, structure.strides)[0]))
        element = context.get_data_type(view.dtype)
        size, out = const(context.get_abi_sizeof(element)), context.make_array(view)(context, b)
        populate_array(out, b.inttoptr(start, element.as_pointer()), [count], [size], size, None)  # the memory is not Numba's
        return out._getvalue()

    return view(a, types.int64, types.int64, types.int64, dtype), emit


@helper
def aligned(count: int, dtype: Any) -> Any:
    """`count` uninitialised elements of 4 bytes that begin at a cache line: a vector across two takes twice as long."""
    a = np.empty(count + 16, dtype)
    first = -address(a, 0) // 4 % 16
    return a[first : first + count]


@helper
def part(total: int, parts: int, i: int) -> int:
    """[0, total) cut into nearly equal ranges: where range i begins."""
    return total // parts * i + min(total % parts, i)
