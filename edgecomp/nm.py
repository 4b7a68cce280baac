"""N:M weights: n of each m neighbouring inputs of an output are kept, float32 values or int8 with one scale per output."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, packing
from edgecomp.arguments import integer
from edgecomp.csr_blocks import Blocks, to_blocks
from edgecomp.nm_places import index_bits, kept_inputs, pack_places, read_places, unpack_places
from edgecomp.pruning import BLOCKS, check_block, read_pattern
from edgecomp.quantization import codes_per_output, weight_array
from edgecomp.sparse import INT32_MAX, CSRWeight, read_shape
from edgecomp.weights import K_MAX_INT8, Float32, Int8Weight, Weight

if TYPE_CHECKING:
    from typing_extensions import Self

K_MAX_UINT8 = 66311
"""The longest sums of uint8 times int8 that fit int32: 255 * 127 * 66311 is below 2**31."""

NOTHING_DERIVED: dict[str, Any] = dict.fromkeys(("csr", "dense", "floats", "negatives", "blocks", "windows"))


class NMWeight(Weight):
    """The kept inputs of each output, n of each m: values in panels of 16 outputs, and where in its group each kept input is.

    Made by `edgecomp.to_nm(w, "n:m")` or `NMWeight.from_arrays(...)`. `block` neighbouring outputs share the places of their inputs.
    `values` are the panels of `DenseWeight` (int8: of `Int8Weight`) over the kept inputs; `packed` holds the places, b = 2 bits each for
    m <= 4 and 4 bits above, in uint32 words: entry 4 i + c of a word is in its byte c, from bit b * i on. Its shape is
    [ceil(N / block), words]; with block 1 [ceil(N / 16), words, 16]. Where a group holds fewer than n non-zeros, zeros are stored.
    What no kernel serves is multiplied as CSR, or as dense int8, compute="float32" wants int8 values as float32, and the Numba kernels read
    forms of their own (C: sums of an output's negative int8 values): derived when first needed; from then on `nbytes` counts them.
    """

    __slots__ = ("block", "blocks", "csr", "dense", "floats", "m", "n", "negatives", "packed", "scales", "sums", "values", "windows")
    values: npt.NDArray[Any]
    packed: npt.NDArray[np.uint32]
    scales: Float32 | None
    sums: npt.NDArray[np.int32] | None
    n: int
    m: int
    block: int
    csr: CSRWeight | None
    dense: Int8Weight | None
    floats: "NMWeight | None"
    negatives: npt.NDArray[np.int32] | None
    blocks: Blocks | None
    windows: npt.NDArray[np.uint8] | None
    """What is derived from the weight, None before anyone wanted it."""
    _made_by = "edgecomp.to_nm or NMWeight.from_arrays"

    @property
    def bits(self) -> int:  # type: ignore[override]  # one class for both kinds of values
        """32 or 8."""
        return 8 * self.values.itemsize

    @property
    def op(self) -> str:  # type: ignore[override]
        """The op that serves the weight."""
        return "spmm_nm" if self.scales is None else "spmm_nm8"

    @property
    def pattern(self) -> str:
        """ "n:m"."""
        return f"{self.n}:{self.m}"

    @property
    def layout(self) -> str:  # type: ignore[override]
        return f"nm{self.pattern}" + (f"b{self.block}" if self.block > 1 else "")

    @property
    def scale(self) -> Float32 | None:
        """float32 [N] of int8 values, else None."""
        return None if self.scales is None else self.scales[: self.shape[0]]

    @property
    def kept(self) -> int:
        """Inputs that each output keeps."""
        return kept_inputs(self.shape[1], self.n, self.m)

    @classmethod
    def from_arrays(cls, values: Any, indices: Any, pattern: str, shape: tuple[int, int], *, block: int = 1, scale: Any = None) -> "Self":
        """From kept values and their places.

        Args:
            values: finite float32 [N, kept] (float16 and float64 are converted), or int8 in -127..127 together with a scale. Group after
                group: kept is n for each m inputs, and for a short last group n or all that it has.
            indices: integers [ceil(N / block), kept], the place of each value in its group, 0..m-1, ascending within the group; or the
                same as the words of `packed`.
            pattern: "n:m", 1 <= n <= m <= 16.
            shape: (N, K) = (out_features, in_features).
            block: 1, 16, 32 or 64: neighbouring outputs that share their indices. The last block may be short.
            scale: finite float32 [N] for int8 values.

        Raises:
            TypeError, ValueError: wrong dtypes, lengths or values, by name.

        Example:
            >>> import numpy as np, edgecomp as ec
            >>> ec.NMWeight.from_arrays(np.array([[5.0, -2]], np.float32), [[1, 0]], "1:2", (1, 4)).dequantize()
            array([[ 0.,  5., -2.,  0.]], dtype=float32)
        """
        where = f"{cls.__name__}.from_arrays"
        n, m = read_pattern(pattern, where)
        block = check_block(block, where)
        rows, k = read_shape(shape, where, K_MAX_INT8)
        kept = kept_inputs(k, n, m)
        a = arrays.to_numpy(values, f"{where}: values")
        if a.dtype == np.int8:
            if scale is None:
                raise TypeError(f"{where}: values is int8, which wants a scale for each output (float32 [N])")
            scale = arrays.vector(scale, rows, f"{where}: scale")
            if not np.isfinite(scale).all():
                raise ValueError(f"{where}: scale[{np.argmin(np.isfinite(scale))}] is not finite")
        else:
            if scale is not None:
                raise TypeError(f"{where}: scale is for int8 values, values has dtype {a.dtype}")
            a = arrays.to_float32(a, f"{where}: values")
        if a.shape != (rows, kept):
            raise ValueError(f"{where}: values has shape {a.shape}, {n}:{m} of {k} inputs takes ({rows}, {kept})")
        wrong = a == -128 if a.dtype == np.int8 else ~np.isfinite(a)
        if wrong.any():
            row, at = np.argwhere(wrong)[0]
            wanted = "-127..127" if a.dtype == np.int8 else "finite values"
            raise ValueError(f"{where}: values[{row}, {at}] is {a[row, at]}, wanted {wanted}")
        return cls._packed(a, read_places(indices, (rows, k), (n, m), block, where), (rows, k), (n, m), block, scale)

    @classmethod
    def _packed(
        cls, values: npt.NDArray[Any], places: npt.NDArray[np.uint8], shape: tuple[int, int], nm: tuple[int, int], block: int, scale: Any
    ) -> "Self":
        """From checked values [N, kept] and places [blocks, kept]."""
        packed = pack_places(places, index_bits(nm[1]), block)
        fields = {"shape": shape, "n": nm[0], "m": nm[1], "block": block, "packed": packed, **NOTHING_DERIVED}
        if scale is None:
            return cls._build(**fields, values=packing.panels_f32(values), scales=None, sums=None)
        panels = packing.panels_n16k4(np.ascontiguousarray(values))
        sums = panels.sum(axis=(1, 3), dtype=np.int32).reshape(-1)
        return cls._build(**fields, values=panels, scales=packing.padded(scale, len(panels)), sums=sums)

    def places(self) -> npt.NDArray[np.uint8]:
        """The place of each kept input in its group, unpacked: uint8 [ceil(N / block), kept]."""
        return unpack_places(self.packed, index_bits(self.m), self.kept)[: -(-self.shape[0] // self.block)]

    def columns(self) -> npt.NDArray[np.int32]:
        """The kept inputs, ascending: int32 [ceil(N / block), kept]."""
        return (self.places() + np.arange(self.kept) // self.n * self.m).astype(np.int32)

    def kept_values(self) -> npt.NDArray[Any]:
        """The stored values as rows: float32 or int8 [N, kept]."""
        if self.scales is None:
            return packing.unpack_panels_f32(self.values, self.shape[0])
        return packing.unpack_panels_n16k4(self.values, self._outputs(None), self.kept)

    def _floats(self) -> Float32:
        values = self.kept_values()
        if self.scale is None:
            return values
        with np.errstate(over="ignore"):  # imported scales may be huge
            return np.asarray(values * self.scale[:, None], np.float32)

    def as_float32(self) -> "NMWeight":
        """The same weight with the dequantised values: of int8 values kept, and counted by `nbytes`."""
        if self.scales is None:
            return self
        if self.floats is None:
            floats = NMWeight._packed(self._floats(), self.places(), self.shape, (self.n, self.m), self.block, None)
            object.__setattr__(self, "floats", floats)
        assert self.floats is not None
        return self.floats

    def as_csr(self) -> CSRWeight:
        """The same entries as CSR, zeros too; kept, and counted by `nbytes`."""
        if self.csr is None:
            columns = np.repeat(self.columns(), self.block, axis=0)[: self.shape[0]]
            object.__setattr__(self, "csr", self._csr(self.kept_values().reshape(-1), columns.reshape(-1)))
        assert self.csr is not None
        return self.csr

    def _csr(self, data: npt.NDArray[Any], columns: npt.NDArray[Any]) -> CSRWeight:
        """Of entries that were checked as N:M: values that no CSRWeight would be made from (Inf of a huge scale) make no call fail."""
        rows, k = self.shape
        if rows * self.kept > INT32_MAX:
            raise ValueError(f"NMWeight: {rows} outputs of {self.kept} inputs have to run as CSR here, which holds {INT32_MAX} entries")
        indices = columns.astype(np.uint16 if k <= 65536 else np.int32, copy=False)
        indptr = (np.arange(rows + 1) * self.kept).astype(np.int32)
        return CSRWeight._build(shape=self.shape, data=data, indices=indices, indptr=indptr, scale=self.scale, derived={})

    def negative_sums(self) -> npt.NDArray[np.int32]:
        """Of each output's int8 values below zero, as `sums` of all; kept, and counted by `nbytes`."""
        if self.negatives is None:
            sums = np.minimum(self.values, 0).sum(axis=(1, 3), dtype=np.int32).reshape(-1)
            object.__setattr__(self, "negatives", sums)
        assert self.negatives is not None
        return self.negatives

    def as_blocks(self) -> Blocks:
        """The form of the Numba kernels, four neighbouring outputs to a row, whose inputs they share; kept, and counted by `nbytes`."""
        if self.blocks is None:
            rows, kept = -(-self.shape[0] // 4), self.kept
            values = self.kept_values()
            whole = np.zeros((4 * rows, kept), values.dtype)
            whole[: len(values)] = values
            columns = np.repeat(self.columns(), self.block // 4, axis=0)[:rows]
            indptr, shared = np.arange(rows + 1, dtype=np.int64) * kept, whole.reshape(rows, 4, kept).transpose(0, 2, 1).reshape(-1, 4)
            object.__setattr__(self, "blocks", to_blocks(shared, columns.reshape(-1), indptr, self.shape[1]))
        assert self.blocks is not None
        return self.blocks

    def as_windows(self) -> npt.NDArray[np.uint8]:
        """The form of the Numba kernel for int8 with places of their own, where m divides 64: [ceil(N / 32), windows of 64 inputs, fours of
        kept inputs, 4, 64]. Bytes of 32 outputs by 4: in the first two rows where in the window they are, in the others the values; kept,
        and counted by `nbytes`."""
        if self.windows is None:
            n, windows, fours = self.shape[0], -(-self.shape[1] // 64), 16 * self.n // self.m
            form = np.zeros((-(-n // 32), windows, fours, 2, 128), np.uint8)
            for part, a in enumerate((self.columns() % 64, self.kept_values())):
                whole = np.zeros((len(form) * 32, windows * fours * 4), np.uint8)
                whole[:n, : self.kept] = a[:n].astype(np.uint8)
                form[:, :, :, part] = whole.reshape(-1, 32, windows, fours, 4).transpose(0, 2, 3, 1, 4).reshape(*form.shape[:3], 128)
            object.__setattr__(self, "windows", form.reshape(*form.shape[:3], 4, 64))
        assert self.windows is not None
        return self.windows

    def as_int8(self) -> Int8Weight:
        """The same int8 values with the zeros between them; kept, and counted by `nbytes`."""
        if self.dense is None:
            q = np.zeros(self.shape, np.int8)
            columns = np.repeat(self.columns(), self.block, axis=0)[: self.shape[0]]
            np.put_along_axis(q, columns.astype(np.intp), self.kept_values(), axis=1)
            object.__setattr__(self, "dense", self._int8(packing.panels_n16k4(q)))
        assert self.dense is not None
        return self.dense

    def _int8(self, panels: npt.NDArray[np.int8]) -> Int8Weight:
        """Of values that were checked as N:M: zeros change neither scales nor sums."""
        return Int8Weight._build(shape=self.shape, panels=panels, scales=self.scales, sums=self.sums)

    def served(self, m: int, compute: str, shared: bool) -> "NMWeight | CSRWeight | Int8Weight":
        """The form that code without kernels for places of each output multiplies with m rows of x: itself if it has one for outputs that
        share inputs (`shared`), else CSR; or dense int8, which few rows, and patterns of more than a third, leave nothing to gain over."""
        eight = compute == "int8"
        if shared and self.block > 1 and (not eight or self.kept <= K_MAX_UINT8):
            return self
        if eight and (not shared or (self.block == 1 and (m < 16 or 3 * self.n > self.m))):
            return self.as_int8()
        return self.as_csr()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        parts: dict[str, npt.NDArray[Any]] = {"values": self.values, "packed": self.packed}
        if self.scales is not None and self.sums is not None:
            parts |= {"scales": self.scales, "sums": self.sums}
        return parts

    def __reduce__(self) -> tuple[Any, ...]:
        places, scale = self.places(), None if self.scale is None else np.array(self.scale)
        return _rebuild, (type(self), self.kept_values(), places, self.shape, (self.n, self.m), self.block, scale)

    def dequantize(self, rows: Any = None) -> Float32:
        """The logical values, float32 [N, K]; or those of `rows` (a slice or an index array) only."""
        outputs = self._outputs(rows)
        flat = outputs.reshape(-1)
        w = np.zeros((len(flat), self.shape[1]), np.float32)
        np.put_along_axis(w, self.columns()[flat // self.block].astype(np.intp), self._floats()[flat], axis=1)
        return w.reshape(*outputs.shape, self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes held: values, places, scales, and the forms derived from them, if they were."""
        derived = self.csr, self.dense, self.floats, self.negatives, self.blocks, self.windows
        return super().nbytes + sum(w.nbytes for w in derived if w is not None)


class Outline(NMWeight):
    """An N:M weight for asking a backend what would run: the forms that it is served as have sizes and no values, and nothing is kept."""

    __slots__ = ()

    @classmethod
    def of(cls, w: NMWeight, compute: str) -> "Outline":
        fields = {name: getattr(w, name) for name in NMWeight.__slots__} | NOTHING_DERIVED
        floats = {"scales": None, "sums": None} if compute == "float32" else {}
        return cls._build(**fields | floats, shape=w.shape)

    def as_csr(self) -> CSRWeight:
        entries = self.shape[0] * self.kept
        data = np.empty(entries, np.float32 if self.scales is None else np.int8)
        return self._csr(data, np.empty(entries, np.uint16 if self.shape[1] <= 65536 else np.int32))

    def as_int8(self) -> Int8Weight:
        return self._int8(np.empty(0, np.int8))


def _rebuild(cls: type[NMWeight], values: Any, places: Any, shape: Any, nm: Any, block: int, scale: Any) -> NMWeight:
    return cls._packed(values, places, shape, nm, block, scale)


def _used(w: Float32, m: int, block: int) -> npt.NDArray[np.bool_]:
    """Which places of each group hold a value in some row of a block: [blocks, groups, m]."""
    rows, k = w.shape
    whole = np.zeros((-(-rows // block) * block, -(-k // m) * m), bool)
    whole[:rows, :k] = w != 0
    blocks, groups = len(whole) // block, whole.shape[1] // m
    return np.asarray(whole.reshape(blocks, block, groups, m).any(axis=1))


def to_nm(w: Any, pattern: str, block: int | None = None, bits: int | None = None) -> NMWeight:
    """A matrix that has at most n non-zeros in each m neighbouring inputs of an output, as N:M.

    Args:
        w: float32 [N, K] (out_features, in_features), finite; `prune(w, pattern=..., block=...)` makes one. Where m does not divide K the
            last group is short.
        pattern: "n:m", 1 <= n <= m <= 16.
        block: 1, 16, 32 or 64 neighbouring outputs share the places of their non-zeros. None: the largest that fits.
        bits: None or 32 keeps float32 values; 8 quantises them as `quantize` does: symmetric, one scale per output.

    Raises:
        TypeError, ValueError: not a finite float matrix; a pattern that is none; weights that break it, by row, group and count.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> ec.to_nm(ec.prune(np.ones((16, 64), np.float32), pattern="2:4"), "2:4")
        NMWeight(16x64, 32 bits, nm2:4b64, 2056 bytes)
    """
    n, m = read_pattern(pattern, "to_nm")
    bits = 32 if bits is None else integer("to_nm: bits", bits, (8, 32), "None (float32 values) or 8")
    if block is not None:
        block = check_block(block, "to_nm")
    a = weight_array(w, "to_nm")
    if a.shape[1] > K_MAX_INT8:
        raise ValueError(f"to_nm: w has {a.shape[1]} columns, at most {K_MAX_INT8} are supported")
    for size in (block,) if block is not None else BLOCKS[::-1]:
        used = _used(a, m, size)
        counts = used.sum(axis=2)
        if (counts <= n).all():
            break
    else:
        at, group = np.argwhere(counts > n)[0]
        rows = f"row {at}" if size == 1 else f"rows {at * size}..{min((at + 1) * size, len(a)) - 1} together"
        raise ValueError(
            f"to_nm: w breaks {pattern}: {rows}, group {group} (inputs {group * m}..{min((group + 1) * m, a.shape[1]) - 1}): "
            f"{counts[at, group]} non-zeros, at most {n} are wanted; edgecomp.prune(w, pattern={pattern!r}, block={size})"
        )
    kept = kept_inputs(a.shape[1], n, m)
    places = np.sort(np.argsort(~used, axis=2, kind="stable")[..., :n], axis=2).reshape(len(used), used.shape[1] * n)[:, :kept]
    columns = np.repeat(places + np.arange(kept) // n * m, size, axis=0)[: len(a)]
    values: npt.NDArray[Any] = a
    scale = None
    if bits == 8:
        values, scale = codes_per_output(a)
    return NMWeight._packed(np.take_along_axis(values, columns, axis=1), places.astype(np.uint8), a.shape, (n, m), size, scale)
