"""Weights with a scale per output and group of inputs: int4 and int8, in the records of edgecomp.packing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, formats, packing
from edgecomp.arguments import integer
from edgecomp.weights import Float32, Weight

if TYPE_CHECKING:
    from typing_extensions import Self

GROUP_SIZES = range(16, 257, 16)
K_MAX_GROUP = 2**31 // (255 * 127)
"""Longest group: the sum of code * q has to fit int32."""


def check_group_size(group_size: Any, k: int, where: str) -> int:
    """The inputs of a group: a multiple of 16 up to 256, or None for one group of all K (rounded up to 16)."""
    if group_size is None:
        if k > K_MAX_GROUP:
            raise ValueError(f"{where}: one group of {k} inputs, at most {K_MAX_GROUP} are supported: give a group_size")
        return max(-(-k // 16) * 16, 16)
    return integer(f"{where}: group_size", group_size, GROUP_SIZES, "None or a multiple of 16 from 16 to 256")


def rounded_once(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Float32:
    """a + b rounded once to float32: the float64 sum is rounded to odd first (Boldo and Melquiond, 2008)."""
    s = a + b
    c = s - a
    error = (a - (s - c)) + (b - c)
    even = s.view(np.int64) & 1 == 0
    away = np.nextafter(s, np.where(error > 0, np.inf, -np.inf))
    with np.errstate(over="ignore"):
        return np.where((error != 0) & even, away, s).astype(np.float32)


class GroupedWeight(Weight):
    """What int4 and grouped int8 weights share: w is about scale * (code - zero), or scale * code + offset."""

    __slots__ = ("group_size", "permutation", "records")
    records: npt.NDArray[np.void]
    permutation: npt.NDArray[np.int32] | None
    group_size: int  # type: ignore[misc]  # an instance's own here

    @classmethod
    def _from_codes(
        cls, codes: npt.NDArray[np.uint8], scale: Any, zero: Any, offset: Any, group_size: int | None, permutation: Any, where: str
    ) -> "Self":
        """Checks everything that a kernel relies on. codes are uint8 in range already."""
        n, k = codes.shape
        group = check_group_size(group_size, k, where)
        groups = -(-k // group)
        scale = _per_group(scale, n, groups, f"{where}: scale")
        if scale.dtype != np.float16:
            scale = scale.astype(np.float32, copy=False)
        if zero is not None and offset is not None:
            raise ValueError(f"{where}: zero and offset are both given")
        if zero is not None:
            zero = _points(zero, n, groups, cls.bits, where)
        if offset is not None:
            offset = _per_group(offset, n, groups, f"{where}: offset")
            if offset.dtype != scale.dtype:
                raise TypeError(f"{where}: offset has dtype {offset.dtype}, scale {scale.dtype}: wanted the same")
        if permutation is not None:
            permutation = _permutation(permutation, k, where)
        packed = packing.records(codes, scale, zero, offset, cls.bits, group)
        return cls._build(shape=(n, k), records=packed, group_size=group, permutation=permutation)

    @classmethod
    def _from_parts(cls, p: formats.Parts, where: str) -> "Self":
        codes = integers(p.q, cls.bits, p.zero is not None or p.offset is not None, where)
        group_size = None if len(p.scale.T) == 1 else p.group_size  # one group may have any length
        return cls._from_codes(codes, p.scale, p.zero, p.offset, group_size, p.permutation, where)

    @classmethod
    def _from_gguf(cls, blocks: Any, shape: Any, offset: bool, where: str) -> "Self":
        records, n, k = formats.gguf_records(blocks, shape, cls.bits, offset, where)
        return cls._build(shape=(n, k), records=records, group_size=32, permutation=None)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"records": self.records} if self.permutation is None else {"records": self.records, "permutation": self.permutation}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.shape, self.group_size, self.records, self.permutation)

    @property
    def codes(self) -> npt.NDArray[np.uint8]:
        """The stored codes, uint8 [N, K], in the order of the groups (unpacked at each call)."""
        return packing.unpack_records(self.records, self.bits, self.group_size, self._outputs(None), self.shape[1])

    @property
    def scale(self) -> npt.NDArray[Any]:
        """float16 or float32 [N, groups]."""
        return packing.unpack_columns(self.records, "scale", self._outputs(None))

    @property
    def zero(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]  # others have none
        """Zero points, uint8 [N, groups]; None if the codes are centred or there are offsets."""
        return packing.unpack_columns(self.records, "zero", self._outputs(None)) if "zero" in (self.records.dtype.names or ()) else None

    @property
    def offset(self) -> npt.NDArray[Any] | None:
        """What is added to scale * code, [N, groups]; None if there is none."""
        return packing.unpack_columns(self.records, "offset", self._outputs(None)) if "offset" in (self.records.dtype.names or ()) else None

    @property
    def density(self) -> float:
        n = self.shape[0] * self.shape[1]
        return float(np.count_nonzero(self.dequantize())) / n if n else 1.0

    def dequantize(self, rows: Any = None) -> Float32:
        """The logical values, float32 [N, K], or those of `rows` only: each the exact value rounded once."""
        outputs = self._outputs(rows)
        flat, k, names = outputs.reshape(-1), self.shape[1], self.records.dtype.names or ()
        codes = packing.unpack_records(self.records, self.bits, self.group_size, flat, k)

        def wide(name: str) -> npt.NDArray[np.float64]:
            values = packing.unpack_columns(self.records, name, flat).astype(np.float64)
            return np.repeat(values, self.group_size, axis=1)[:, :k]

        if "offset" in names:
            w = rounded_once(codes * wide("scale"), wide("offset"))
        else:
            centre = wide("zero") if "zero" in names else float(1 << (self.bits - 1))
            with np.errstate(over="ignore"):
                w = ((codes - centre) * wide("scale")).astype(np.float32)  # 9 + 24 bits: the product is exact in float64
        if self.permutation is not None:
            plain = np.empty_like(w)
            plain[:, self.permutation] = w
            w = plain
        return w.reshape(*outputs.shape, k)


def _told(group_size: Any, where: str) -> tuple[int, ...]:
    return () if group_size is None else (check_group_size(group_size, 0, where),)


def _rebuild(cls: type[GroupedWeight], shape: tuple[int, int], group_size: int, records: Any, permutation: Any) -> GroupedWeight:
    if records.ctypes.data % 64:
        moved = packing.aligned_empty(records.shape, records.dtype)
        moved.view(np.uint8)[...] = records.view(np.uint8)  # the bytes between the fields too: they are zeros
        records = moved
    return cls._build(shape=shape, group_size=group_size, records=records, permutation=permutation)


def _per_group(values: Any, n: int, groups: int, where: str) -> npt.NDArray[Any]:
    """Finite floats [N, groups] (or [N], if there is one group): float16 stays."""
    a = arrays.to_numpy(values, where)
    a = a.astype(np.float16, copy=False) if a.dtype == np.float16 else arrays.to_float32(a, where)
    if a.shape == (n,) and groups == 1:
        a = a[:, None]
    if a.shape != (n, groups):
        raise ValueError(f"{where} has shape {a.shape}, wanted ({n}, {groups})")
    finite = np.isfinite(a)
    if not finite.all():
        row, group = np.argwhere(~finite)[0]
        raise ValueError(f"{where}[{row}, {group}] is {a[row, group]}, wanted finite values")
    return a


def _points(zero: Any, n: int, groups: int, bits: int, where: str) -> npt.NDArray[np.uint8]:
    a = arrays.to_numpy(zero, f"{where}: zero")
    if a.dtype.kind not in "iu":
        raise TypeError(f"{where}: zero has dtype {a.dtype}, wanted integers (offsets are a float argument of their own)")
    if a.shape == (n,) and groups == 1:
        a = a[:, None]
    if a.shape != (n, groups):
        raise ValueError(f"{where}: zero has shape {a.shape}, wanted ({n}, {groups})")
    most = min(1 << bits, 255)  # GPTQ stores the zero point less one: 16 is a legal one
    if a.size and (a.min() < 0 or a.max() > most):
        row, group = np.argwhere((a < 0) | (a > most))[0]
        raise ValueError(f"{where}: zero[{row}, {group}] is {a[row, group]}, wanted 0..{most}")
    return a.astype(np.uint8)


def _permutation(order: Any, k: int, where: str) -> npt.NDArray[np.int32]:
    a = arrays.to_numpy(order, f"{where}: permutation")
    if a.dtype.kind not in "iu" or a.shape != (k,) or not np.array_equal(np.sort(a), np.arange(k)):
        raise ValueError(f"{where}: permutation is no permutation of 0..{k - 1}")
    return np.array(a, np.int32)


def integers(q: Any, bits: int, zero: bool, where: str) -> npt.NDArray[np.uint8]:
    """Integers [N, K] as codes: with zero points (or offsets) 0 .. 2**bits - 1 as they are, else -2**(bits-1) .. centred."""
    a = arrays.to_numpy(q, f"{where}: q")
    if a.dtype not in (np.int8, np.uint8):
        raise TypeError(f"{where}: q has dtype {a.dtype}, wanted int8{' or uint8' if zero else ''}")
    if a.ndim != 2:
        raise ValueError(f"{where}: q has shape {a.shape}, wanted [N, K]")
    low, high = (0, (1 << bits) - 1) if zero else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if a.size and (a.min() < low or a.max() > high):
        row, col = np.argwhere((a < low) | (a > high))[0]
        raise ValueError(f"{where}: q[{row}, {col}] is {a[row, col]}, wanted {low}..{high}")
    return a.astype(np.uint8) + np.uint8(-low)  # modulo 256


class Int4Weight(GroupedWeight):
    """int4 weights with a scale per output and group of inputs, and a zero point or an offset where there are any.

    Made by `edgecomp.quantize(w, bits=4)`, `Int4Weight.from_arrays(q, scale)`, or from another format's arrays. Layout "n32g<group>":
    records [ceil(N/32)][groups], see edgecomp.packing.records.
    """

    __slots__ = ()
    bits = 4
    op: ClassVar[str] = "gemm_s4g"
    _made_by = "edgecomp.quantize or Int4Weight.from_arrays"

    @property
    def layout(self) -> str:  # type: ignore[override]  # others have one
        return f"n32g{self.group_size}"

    @classmethod
    def from_arrays(
        cls,
        q: Any,
        scale: Any,
        zero: Any = None,
        *,
        offset: Any = None,
        group_size: int | None = 32,
        scale_dtype: npt.DTypeLike | None = None,
        permutation: Any = None,
    ) -> "Int4Weight":
        """From integers that exist already: w is scale * q, scale * (q - zero) or scale * q + offset.

        Args:
            q: int8 [N, K] in -8..7; with zero or offset int8 or uint8 in 0..15.
            scale: float16 or float32 [N, groups], groups = ceil(K / group_size); [N] if there is one group. Finite; zero and negative
                scales are kept as they are.
            zero: integers 0..16 [N, groups].
            offset: floats [N, groups] of the scales' dtype.
            group_size: a multiple of 16 up to 256, or None: one group. The last one may be short.
            scale_dtype: "float16" or "float32" (or NumPy's dtype) to convert scales and offsets; None keeps what came.
            permutation: int [K]: column i of q belongs to input permutation[i].

        Raises:
            TypeError, ValueError: wrong dtypes, shapes or values; scales that float16 cannot hold.

        Example:
            >>> import numpy as np, edgecomp as ec
            >>> w = ec.Int4Weight.from_arrays(np.array([[1, -2, 7]], np.int8), np.array([0.5], np.float32), group_size=None)
            >>> w.dequantize()
            array([[ 0.5, -1. ,  3.5]], dtype=float32)
        """
        where = "Int4Weight.from_arrays"
        codes = integers(q, 4, zero is not None or offset is not None, where)
        kind = scale_name(scale_dtype, where)
        scale, offset = (as_scale(v, kind, f"{where}: {name}") for v, name in ((scale, "scale"), (offset, "offset")))
        return cls._from_codes(codes, scale, zero, offset, group_size, permutation, where)

    @classmethod
    def from_gguf_q4_0(cls, blocks: Any, shape: tuple[int, int]) -> "Int4Weight":
        """GGUF's Q4_0 blocks, uint8 of N * K/32 * 18 bytes: a float16 scale d, then 32 nibbles; w = d * (q - 8).

        Raises:
            TypeError, ValueError: not as many bytes as the shape takes, K no multiple of 32, scales that are not finite.
        """
        return cls._from_gguf(blocks, shape, False, "Int4Weight.from_gguf_q4_0")

    @classmethod
    def from_gguf_q4_1(cls, blocks: Any, shape: tuple[int, int]) -> "Int4Weight":
        """GGUF's Q4_1 blocks, uint8 of N * K/32 * 20 bytes: float16 d and m, then 32 nibbles; w = d * q + m. Raises as from_gguf_q4_0."""
        return cls._from_gguf(blocks, shape, True, "Int4Weight.from_gguf_q4_1")

    @classmethod
    def from_gptq(
        cls, qweight: Any, qzeros: Any, scales: Any, g_idx: Any = None, *, zero_plus_one: bool = True, group_size: int | None = None
    ) -> "Int4Weight":
        """A GPTQ layer: qweight int32 [K/8, N], qzeros int32 [groups, N/8], scales float16 [groups, N], g_idx int [K].

        Args:
            g_idx: the group of each input. Act-order is kept as a permutation that x passes while it is quantised.
            zero_plus_one: zero points are stored less one (checkpoint_format "gptq"); False for "gptq_v2".
            group_size: the checkpoint's. None: that of g_idx, else K / groups; where that is no whole number, the only one that fits.

        Raises:
            TypeError, ValueError: dtypes or shapes that do not fit, a g_idx that does not fill the groups, groups that may be of
                several sizes.
        """
        where = "Int4Weight.from_gptq"
        told = _told(group_size, where)
        return cls._from_parts(formats.gptq(qweight, qzeros, scales, g_idx, 4, zero_plus_one, told, where), where)

    @classmethod
    def from_awq(
        cls, qweight: Any, qzeros: Any, scales: Any, *, order: Sequence[int] = formats.AWQ_ORDER, group_size: int | None = None
    ) -> "Int4Weight":
        """An AWQ layer ("gemm"): qweight int32 [K, N/8], qzeros int32 [groups, N/8], scales float16 [groups, N].

        Args:
            order: which output each nibble of a word is, lowest first.
            group_size: as in from_gptq.

        Raises:
            TypeError, ValueError: dtypes or shapes that do not fit, an order that is no permutation of 0..7, groups that may be of
                several sizes.
        """
        where = "Int4Weight.from_awq"
        return cls._from_parts(formats.awq(qweight, qzeros, scales, order, _told(group_size, where), where), where)

    @classmethod
    def from_matmulnbits(
        cls, b: Any, scales: Any, zero_points: Any = None, g_idx: Any = None, *, n: int, k: int, block_size: int
    ) -> "Int4Weight":
        """The inputs of ONNX Runtime's MatMulNBits with bits=4: b uint8 [N, groups, block_size/2], scales float [N, groups]; or flat.

        Args:
            zero_points: None (8), packed uint8 [N, ceil(groups/2)], or floats [N, groups], which have to be whole, or exact in float32
                as offsets.

        Raises:
            TypeError, ValueError: dtypes or shapes that do not fit; g_idx, which MatMulNBits has deprecated.
        """
        where = "Int4Weight.from_matmulnbits"
        return cls._from_parts(formats.matmulnbits(b, scales, zero_points, g_idx, n, k, 4, block_size, where), where)

    @property
    def q(self) -> npt.NDArray[Any]:
        """The integers [N, K]: int8 -8..7, or uint8 0..15 with zero points or offsets."""
        centred = self.zero is None and self.offset is None
        return (self.codes.astype(np.int8) - 8).astype(np.int8) if centred else self.codes


class GroupedInt8Weight(GroupedWeight):
    """int8 weights with a scale per output and group of inputs, made by `edgecomp.quantize(w, bits=8, group_size=...)`.

    Layout "n32g<group>b8": the records of Int4Weight with bytes for codes.
    """

    __slots__ = ()
    bits = 8
    op: ClassVar[str] = "gemm_s8g"
    _made_by = "edgecomp.quantize or GroupedInt8Weight.from_arrays"

    @property
    def layout(self) -> str:  # type: ignore[override]
        return f"n32g{self.group_size}b8"

    @classmethod
    def from_arrays(
        cls, q: Any, scale: Any, zero: Any = None, *, offset: Any = None, group_size: int | None = 32, permutation: Any = None
    ) -> "GroupedInt8Weight":
        """As Int4Weight.from_arrays: q int8 -128..127, or with zero (0..255) or offset uint8 0..255.

        Example:
            >>> import numpy as np, edgecomp as ec
            >>> w = ec.GroupedInt8Weight.from_arrays(np.array([[1, -128]], np.int8), np.array([0.5], np.float32))
            >>> w.dequantize()
            array([[  0.5, -64. ]], dtype=float32)
        """
        where = "GroupedInt8Weight.from_arrays"
        codes = integers(q, 8, zero is not None or offset is not None, where)
        return cls._from_codes(codes, scale, zero, offset, group_size, permutation, where)

    @classmethod
    def from_gguf_q8_0(cls, blocks: Any, shape: tuple[int, int]) -> "GroupedInt8Weight":
        """GGUF's Q8_0 blocks, uint8 of N * K/32 * 34 bytes: a float16 scale d, then 32 int8; w = d * q.

        Raises:
            TypeError, ValueError: not as many bytes as the shape takes, K no multiple of 32, scales that are not finite.
        """
        return cls._from_gguf(blocks, shape, False, "GroupedInt8Weight.from_gguf_q8_0")

    @classmethod
    def from_matmulnbits(cls, b: Any, scales: Any, zero_points: Any = None, *, n: int, k: int, block_size: int) -> "GroupedInt8Weight":
        """The inputs of ONNX Runtime's MatMulNBits with bits=8, as Int4Weight.from_matmulnbits."""
        where = "GroupedInt8Weight.from_matmulnbits"
        return cls._from_parts(formats.matmulnbits(b, scales, zero_points, None, n, k, 8, block_size, where), where)

    @property
    def q(self) -> npt.NDArray[Any]:
        """The integers [N, K]: int8, or uint8 with zero points or offsets."""
        centred = self.zero is None and self.offset is None
        return (self.codes ^ np.uint8(128)).view(np.int8) if centred else self.codes


def scale_name(dtype: npt.DTypeLike | None, where: str) -> str | None:
    """What `scale_dtype=` means: "float16" or "float32" (any spelling that NumPy knows), or None."""
    if dtype is None:
        return None
    try:
        name = np.dtype(dtype).name
    except (TypeError, ValueError):
        name = ""
    if name not in ("float16", "float32"):
        raise ValueError(f'{where}: scale_dtype is {dtype!r}, wanted "float16" or "float32"')
    return name


def as_scale(values: Any, dtype: str | None, where: str) -> Any:
    """values as float16 or float32; a ValueError where float16 would lose a scale to 0, a subnormal or Inf."""
    if values is None or dtype is None:
        return values
    a = arrays.to_numpy(values, where)
    single = arrays.to_float32(a, where)
    if dtype == "float32" or a.dtype == np.float16:
        return single if dtype == "float32" else a
    if np.isfinite(single).all() and not fits_half(a):  # what is not finite is told where it stands, later
        raise ValueError(f'{where} has values beyond float16\'s normal range (6.1e-5 to 65504): use scale_dtype="float32"')
    with np.errstate(over="ignore"):
        return a.astype(np.float16)


def fits_half(a: npt.NDArray[Any]) -> bool:
    """Whether all values that are not zero are normal float16 numbers, rounded."""
    size = np.abs(a[a != 0])
    return bool(size.size == 0 or (size.min() >= 2.0**-14 and size.max() < 65520))
