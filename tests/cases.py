"""Shapes at the edges of tiles and vectors, data to put into them, layouts to store it in, and comparison of bits."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecomp.reference import ACTIVATIONS

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

MS = (0, 1, 2, 3, 4, 6, 7, 8, 9, 17)
"""Rows: tiles take 3, 6 or 8."""
NS = (0, 1, 15, 16, 17, 31, 33, 47, 48, 49, 97)
"""Outputs: panels of 16, up to three in a tile."""
KS = (0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 130)
"""Inputs: quads, vectors of 8 and 16, loops of 32 and 64."""

EXACT = ("relu", "relu6", "leaky_relu", "hardswish", "hardsigmoid")
TRANSCENDENTAL = tuple(name for name in ACTIVATIONS if name not in EXACT)

SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.1754944e-38, -1.1754942e-38, 1e-30, 3.4028235e38, -3.4028235e38, np.nan, np.inf, -np.inf)


class Problem(NamedTuple):
    x: Float32
    w: Float32
    bias: Float32


@functools.cache
def problem(m: int, n: int, k: int) -> Problem:
    """Rows of all signs: mixed, all positive, all negative, zeros; of any magnitude."""
    rng = np.random.default_rng((m, n, k))
    x = rng.standard_normal((m, k)).astype(np.float32) * np.float32(10) ** rng.integers(-3, 4, (m, 1)).astype(np.float32)
    x[1::5], x[2::5] = np.abs(x[1::5]), -np.abs(x[2::5])
    x[6::7] = 0
    w = rng.standard_normal((n, k)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    for a in (x, w, bias):
        a.flags.writeable = False
    return Problem(x, w, bias)


def problems(m: int) -> Iterator[Problem]:
    """Every edge shape with m rows."""
    return (problem(m, n, k) for n, k in itertools.product(NS, KS))


def bits(a: Array) -> Array:
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}") if a.dtype.kind == "f" else a


def assert_bits(got: Array, wanted: Array, what: object = "") -> None:
    """The same dtype, shape and bits: NaN payloads and signs of zero too."""
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if not np.array_equal(bits(got), bits(wanted)):
        at = tuple(np.argwhere(bits(got) != bits(wanted))[0])
        raise AssertionError(f"{what}: at {at} of {got.shape} got {got[at]!r}, wanted {wanted[at]!r}")


def _unaligned(a: Array) -> Array:
    raw = np.empty(a.nbytes + 1, np.uint8)
    b = raw[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def _sliced(a: Array) -> Array:
    b = np.full((2 * a.shape[0], 3 * a.shape[1] + 2), 77, a.dtype)
    b[::2, 1:-1:3] = a
    return b[::2, 1:-1:3]


def _padded(a: Array) -> Array:
    b = np.full((a.shape[0], a.shape[1] + 3), 77, a.dtype)
    b[:, :-3] = a
    return b[:, :-3]


def _read_only(a: Array) -> Array:
    b = a.copy()
    b.flags.writeable = False
    return b


LAYOUTS = {
    "contiguous": lambda a: a.copy(),
    "fortran": lambda a: np.asfortranarray(a),
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "columns backwards": lambda a: a[:, ::-1].copy()[:, ::-1],
    "every other": _sliced,
    "rows apart": _padded,
    "unaligned": _unaligned,
    "unaligned rows apart": lambda a: _unaligned(np.pad(a, ((0, 0), (0, 3))))[:, : a.shape[1]],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": _read_only,
}
"""Ways to store a matrix. None changes its values."""


def float_bound(x: Float32, w: Float32, bias: Float32 | None) -> npt.NDArray[np.float64]:
    """How far any order of float32 summation may be from the exact result: K roundings of sums of that magnitude."""
    size = np.abs(x.astype(np.float64)) @ np.abs(w.T.astype(np.float64)) + (0 if bias is None else np.abs(bias))
    return (x.shape[1] + 3) * 2.0**-24 * size + 1e-44
