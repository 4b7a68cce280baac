"""Weight objects: checked once when they are built, frozen, packed for the kernels. And QuantizedRows, x quantised beforehand."""

from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, packing
from edgecomp.arguments import POSITIVE, integer

Float32 = npt.NDArray[np.float32]
K_MAX_INT8 = 2**31 // 127
"""Inputs of an int8 weight: the sum of a row's weights has to fit int32."""

_W = TypeVar("_W", bound="Weight")


class Weight:
    """A linear layer's weights [N, K] = [out_features, in_features] in a form that a kernel reads as it is.

    Frozen; equal only to itself; copies and pickles. `pointers` belongs to the backend that runs the weight.
    """

    __slots__ = ("__weakref__", "pointers", "shape")
    shape: tuple[int, int]
    pointers: Any
    bits: ClassVar[int]
    layout: ClassVar[str]
    op: ClassVar[str]
    """The op that serves the weight, in every folder of this name."""
    group_size: ClassVar[int | None] = None
    zero: ClassVar[None] = None

    @classmethod
    def _build(cls: type[_W], **fields: Any) -> _W:
        w = object.__new__(cls)
        for name, value in {"pointers": None, **fields}.items():
            if isinstance(value, np.ndarray):
                value = value.view()  # the caller's may stay writable
                value.flags.writeable = False
            object.__setattr__(w, name, value)
        return w

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise TypeError(f"{type(self).__name__} is made by {self._made_by}, not by calling it")

    _made_by: ClassVar[str]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.shape, self.arrays())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the weight consists of, by name: the arrays that the kernels read."""
        raise NotImplementedError

    def dequantize(self, rows: Any = None) -> Float32:
        """The logical values, float32 [N, K]; or those of `rows` (a slice or an index array) only."""
        raise NotImplementedError

    def _outputs(self, rows: Any) -> npt.NDArray[np.intp]:
        """What `rows` of dequantize means: indices, of any shape, of rows that exist. Only these are unpacked."""
        return np.arange(self.shape[0]) if rows is None else np.asarray(np.arange(self.shape[0])[rows])

    @property
    def nbytes(self) -> int:
        """Bytes held: panels, scales and sums."""
        return sum(a.nbytes for a in self.arrays().values())

    @property
    def density(self) -> float:
        """Share of the N * K values that are not zero (1.0 for an empty weight)."""
        n = self.shape[0] * self.shape[1]
        panels = next(iter(self.arrays().values()))  # padding is zeros
        return float(np.count_nonzero(panels)) / n if n else 1.0

    def __repr__(self) -> str:
        n, k = self.shape
        return f"{type(self).__name__}({n}x{k}, {self.bits} bits, {self.layout}, {self.nbytes} bytes)"


def _rebuild(cls: type[_W], shape: tuple[int, int], fields: dict[str, npt.NDArray[Any]]) -> _W:
    return cls._build(shape=shape, **fields)


class DenseWeight(Weight):
    """float32 weights packed once, made by `edgecomp.pack`. Layout "n16": panels [ceil(N/16)][K][16]."""

    __slots__ = ("panels",)
    panels: Float32
    bits = 32
    layout = "n16"
    op = "gemm_f32"
    scale = None
    _made_by = "edgecomp.pack"

    @classmethod
    def from_array(cls, w: Float32) -> "DenseWeight":
        """From checked float32 [N, K]."""
        return cls._build(shape=w.shape, panels=packing.panels_f32(w))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"panels": self.panels}

    def dequantize(self, rows: Any = None) -> Float32:
        w = packing.unpack_panels_f32(self.panels, self.shape[0])
        return w if rows is None else w[rows]


class Int8Weight(Weight):
    """int8 weights with one scale per output, symmetric: w is about q * scale[:, None], q in -127..127.

    Made by `edgecomp.quantize(w, bits=8)` or `Int8Weight.from_arrays(q, scale)`. Layout "n16k4": panels
    [ceil(N/16)][ceil(K/4)][16][4], scales and row sums padded to whole panels.
    """

    __slots__ = ("panels", "scales", "sums")
    panels: npt.NDArray[np.int8]
    scales: Float32
    sums: npt.NDArray[np.int32]
    bits = 8
    layout = "n16k4"
    op = "gemm_s8c"
    _made_by = "edgecomp.quantize or Int8Weight.from_arrays"

    @classmethod
    def from_arrays(cls, q: Any, scale: Any) -> "Int8Weight":
        """From integers that exist already.

        Args:
            q: int8 [N, K], values -127..127.
            scale: float32 [N], finite (zero and negative scales are kept as they are).

        Raises:
            TypeError: q is not int8, scale not a float array.
            ValueError: wrong shapes, -128 in q, NaN or Inf in scale, K above 16,909,320.

        Example:
            >>> import numpy as np, edgecomp as ec
            >>> w = ec.Int8Weight.from_arrays(np.array([[1, -2, 3]], np.int8), np.array([0.5], np.float32))
            >>> w.dequantize()
            array([[ 0.5, -1. ,  1.5]], dtype=float32)
        """
        where = "Int8Weight.from_arrays"
        q = arrays.to_numpy(q, f"{where}: q")
        if q.dtype != np.int8:
            raise TypeError(f"{where}: q has dtype {q.dtype}, wanted int8")
        if q.ndim != 2:
            raise ValueError(f"{where}: q has shape {q.shape}, wanted [N, K]")
        n, k = q.shape
        if k > K_MAX_INT8:
            raise ValueError(f"{where}: q has {k} columns, at most {K_MAX_INT8} are supported (row sums must fit int32)")
        if q.size and q.min() == -128:
            row, col = np.argwhere(q == -128)[0]
            raise ValueError(f"{where}: q[{row}, {col}] is -128, wanted -127..127 (symmetric)")
        scale = arrays.vector(scale, n, f"{where}: scale")
        if not np.isfinite(scale).all():
            raise ValueError(f"{where}: scale[{np.argmin(np.isfinite(scale))}] is not finite")
        panels = packing.panels_n16k4(q)
        sums = panels.sum(axis=(1, 3), dtype=np.int32).reshape(-1)
        return cls._build(shape=(n, k), panels=panels, scales=packing.padded(scale, len(panels)), sums=sums)

    @property
    def scale(self) -> Float32:
        """float32 [N]: what one step of an output's integers is worth."""
        return self.scales[: self.shape[0]]

    @property
    def q(self) -> npt.NDArray[np.int8]:
        """The integers, int8 [N, K] (unpacked at each call)."""
        return packing.unpack_panels_n16k4(self.panels, self._outputs(None), self.shape[1])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"panels": self.panels, "scales": self.scales, "sums": self.sums}

    def dequantize(self, rows: Any = None) -> Float32:
        outputs = self._outputs(rows)
        q = packing.unpack_panels_n16k4(self.panels, outputs.reshape(-1), self.shape[1])
        with np.errstate(over="ignore"):  # imported scales may be huge
            return (q * self.scale[outputs.reshape(-1), None]).reshape(*outputs.shape, self.shape[1])


class QuantizedRows:
    """Activations quantised once for several `linear` calls, made by `edgecomp.quantize_rows`.

    Without groups x is about (q - zero) * scale, row by row: q uint8 [..., K], scale float32 [...], zero uint8 [...]. With a group_size
    it is q * scale, group by group: q int8 [..., K], scale float32 [..., ceil(K / group_size)], zero None. Frozen: the shapes that were
    checked are those that C reads.
    """

    __slots__ = ("group_size", "q", "scale", "zero")
    q: npt.NDArray[Any]
    scale: Float32
    zero: npt.NDArray[np.uint8] | None
    group_size: int | None

    def __init__(self, q: Any, scale: Any, zero: Any = None, group_size: int | None = None) -> None:
        q, scale = arrays.to_numpy(q, "QuantizedRows: q"), arrays.to_float32(scale, "QuantizedRows: scale")
        if (zero is None) == (group_size is None):
            raise TypeError("QuantizedRows: wanted zero (one scale per row) or group_size (one per group), not both")
        if group_size is not None:
            group_size = integer("QuantizedRows: group_size", group_size, POSITIVE, "a positive int")
        zero = None if zero is None else arrays.to_numpy(zero, "QuantizedRows: zero")
        if zero is not None and (q.dtype != np.uint8 or zero.dtype != np.uint8):
            raise TypeError(f"QuantizedRows: q has dtype {q.dtype}, zero {zero.dtype}, wanted uint8")
        if zero is None and q.dtype != np.int8:
            raise TypeError(f"QuantizedRows: q has dtype {q.dtype}, wanted int8 with groups")
        wanted = q.shape[:-1] if group_size is None else (*q.shape[:-1], -(-q.shape[-1] // group_size)) if q.ndim else ()
        if q.ndim < 1 or scale.shape != wanted or (zero is not None and zero.shape != wanted):
            zeros = "" if zero is None else f", zero {zero.shape}"
            raise ValueError(f"QuantizedRows: q has shape {q.shape}, scale {scale.shape}{zeros}; wanted [..., K] and {wanted}")
        if group_size is not None and q.size and q.min() == -128:
            raise ValueError("QuantizedRows: q has -128, wanted -127..127 with groups")
        for name, a in (("q", q), ("scale", scale), ("zero", zero)):
            object.__setattr__(self, name, None if a is None else np.require(a, requirements=["C", "A"]))
        object.__setattr__(self, "group_size", group_size)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("QuantizedRows is frozen")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("QuantizedRows is frozen")

    def __reduce__(self) -> tuple[Any, ...]:
        return QuantizedRows, (self.q, self.scale, self.zero, self.group_size)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.q.shape

    def dequantize(self) -> Float32:
        """The values that the integers stand for, float32 [..., K]."""
        with np.errstate(over="ignore", invalid="ignore"):  # the largest floats may round up to Inf
            if self.zero is None:
                return self.q.astype(np.float32) * np.repeat(self.scale, self.group_size or 1, axis=-1)[..., : self.q.shape[-1]]
            return (self.q.astype(np.float32) - self.zero[..., None]) * self.scale[..., None]

    def __repr__(self) -> str:
        groups = f", group_size={self.group_size}" if self.group_size else ""
        return f"QuantizedRows({'x'.join(map(str, self.shape))}{groups})"
