"""What a model file holds of each kind of tensor: the manifest's keys, the arrays, and what must hold before a kernel reads them.

A kind is a class without instances: `keys` is what the manifest says beyond shape and parts, `parts` the arrays that follow from it,
`build` checks the values that kernels rely on and makes the tensor. What is wrong is a ValueError, without names.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgecomp import packing
from edgecomp.grouped import GROUP_SIZES, K_MAX_GROUP, GroupedInt8Weight, GroupedWeight, Int4Weight
from edgecomp.nm import NOTHING_DERIVED, NMWeight
from edgecomp.nm_places import check_places, index_bits, kept_inputs, pack_places, packed_shape, unpack_places
from edgecomp.pruning import BLOCKS, read_pattern
from edgecomp.sparse import CSRWeight
from edgecomp.weights import K_MAX_INT8, DenseWeight, Int8Weight, Weight

try:
    from edgecomp._edgecomp_c import ffi, lib
except ImportError:
    lib = None

Array = npt.NDArray[Any]
Keys = dict[str, Any]
Parts = dict[str, tuple[tuple[np.dtype[Any], ...], tuple[int, ...]]]
"""By name: the dtypes an array may have, and its shape."""

INT32_MAX = 2**31 - 1
_STEP = 1 << 18
"""Values looked at in one go: what a check allocates is bounded, and stays in the cache."""

_F4, _I4, _I1, _U2, _U4 = (np.dtype(t) for t in ("<f4", "<i4", "i1", "<u2", "<u4"))


class _Matrix:
    """What the weights share: [N, K]."""

    name: ClassVar[str]
    bits: ClassVar[int]

    @staticmethod
    def shape(keys: Keys) -> tuple[int, int]:
        shape = dims(keys)
        if len(shape) != 2 or max(shape) > INT32_MAX:
            raise ValueError(f"shape is {list(shape)}, wanted [N, K] below 2**31")
        return shape[0], shape[1]

    @classmethod
    def keys(cls, w: Any) -> Keys:
        return {"layout": w.layout}

    @staticmethod
    def density(keys: Keys) -> float:
        """Share of the values that is stored."""
        return 1.0

    @classmethod
    def verify(cls, w: Any) -> None:
        """What full verification refuses and `build` does not, which would have to read all values."""


class Dense(_Matrix):
    """float32, packed."""

    name, bits = "dense", 32

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        n, k = cls.shape(keys)
        expect(keys, "layout", DenseWeight.layout)
        return {"panels": ((_F4,), (_up(n, 16), k, 16))}

    @classmethod
    def build(cls, keys: Keys, a: Mapping[str, Array]) -> Weight:
        return DenseWeight._build(shape=cls.shape(keys), **a)

    @classmethod
    def verify(cls, w: Any) -> None:
        finite(w.panels.reshape(-1), "panels")


class Int8(_Matrix):
    """int8, a scale per output."""

    name, bits = "int8", 8

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        n, k = cls.shape(keys)
        expect(keys, "layout", Int8Weight.layout)
        if k > K_MAX_INT8:
            raise ValueError(f"shape has {k} inputs, at most {K_MAX_INT8} are supported")
        panels = _up(n, 16)
        return {"panels": ((_I1,), (panels, _up(k, 4), 16, 4)), "scales": ((_F4,), (panels * 16,)), "sums": ((_I4,), (panels * 16,))}

    @classmethod
    def build(cls, keys: Keys, a: Mapping[str, Array]) -> Weight:
        n, k = cls.shape(keys)
        finite(a["scales"], "scales")
        within(a["sums"], -127 * k, 127 * k, "sums")
        return Int8Weight._build(shape=(n, k), **a)


class _Grouped(_Matrix):
    """A scale per output and group of inputs, in records."""

    weight: ClassVar[type[GroupedWeight]]

    @classmethod
    def keys(cls, w: GroupedWeight) -> Keys:
        names = w.records.dtype.names or ()
        zero = "point" if "zero" in names else "offset" if "offset" in names else None
        return {"layout": w.layout, "group_size": w.group_size, "scale_dtype": w.records.dtype["scale"].base.name, "zero": zero}

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        n, k = cls.shape(keys)
        group, scale, zero = keys.get("group_size"), keys.get("scale_dtype"), keys.get("zero")
        one = max(_up(k, 16) * 16, 16)
        if type(group) is not int or (group not in GROUP_SIZES and (group != one or k > K_MAX_GROUP)):
            raise ValueError(f"group_size is {group!r}, wanted a multiple of 16 from 16 to 256, or {one}: one group")
        expect(keys, "layout", f"n32g{group}" + ("b8" if cls.bits == 8 else ""))
        if scale not in ("float16", "float32"):
            raise ValueError(f'scale_dtype is {scale!r}, wanted "float16" or "float32"')
        if zero not in (None, "point", "offset"):
            raise ValueError(f'zero is {zero!r}, wanted null, "point" or "offset"')
        dtype = packing.record_dtype(cls.bits, group, np.dtype(scale).newbyteorder("<"), zero)
        parts: Parts = {"records": ((dtype,), (_up(n, 32), _up(k, group)))}
        return {**parts, "permutation": ((_I4,), (k,))} if "permutation" in keys["parts"] else parts

    @classmethod
    def build(cls, keys: Keys, a: Mapping[str, Array]) -> Weight:
        records, order = a["records"], a.get("permutation")
        for name in ("scale", "offset", "zero"):
            if name in (records.dtype.names or ()):
                field = records.reshape(-1)[name]
                if name != "zero":
                    finite(field, name)
                elif cls.bits == 4:
                    for i in range(0, len(field), _STEP // 32):
                        within(np.ascontiguousarray(field[i : i + _STEP // 32]).reshape(-1), 0, 16, "zero", 32 * i)
        if order is not None:
            within(order, 0, len(order) - 1, "permutation")
            seen = np.zeros(len(order), bool)
            seen[order] = True
            if not seen.all():
                raise ValueError(f"permutation lacks {np.argmin(seen)}, wanted each of 0..{len(order) - 1}")
        return cls.weight._build(shape=cls.shape(keys), group_size=keys["group_size"], records=records, permutation=order)


class Int4(_Grouped):
    """int4 in groups."""

    name, bits, weight = "int4", 4, Int4Weight


class Int8Grouped(_Grouped):
    """int8 in groups."""

    name, bits, weight = "int8_grouped", 8, GroupedInt8Weight


class CSR(_Matrix):
    """Sparse, float32 values."""

    name, bits = "csr", 32

    @classmethod
    def keys(cls, w: CSRWeight) -> Keys:
        return {"layout": w.layout, "nnz": w.nnz}

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        n, k = cls.shape(keys)
        expect(keys, "layout", CSRWeight.layout)
        nnz = keys.get("nnz")
        if type(nnz) is not int or not 0 <= nnz <= min(n * k, INT32_MAX):
            raise ValueError(f"nnz is {nnz!r}, wanted 0..{min(n * k, INT32_MAX)}")
        narrow = (_U2, _I4) if k <= 65536 else (_I4,)
        return {"data": ((_F4,), (nnz,)), "indices": (narrow, (nnz,)), "indptr": ((_I4,), (n + 1,))}

    @classmethod
    def build(cls, keys: Keys, a: Mapping[str, Array]) -> Weight:
        _, k = cls.shape(keys)
        data, indices, indptr, scale = a["data"], a["indices"], a["indptr"], a.get("scale")
        if indptr[0] != 0 or indptr[-1] != len(data):
            raise ValueError(f"indptr goes from {indptr[0]} to {indptr[-1]}, wanted 0 to {len(data)}, the number of entries")
        _rising(indptr, np.zeros(0, np.int32), "indptr", strictly=False)
        within(indices, 0, k - 1, "indices")
        _rising(indices, indptr, "indices", strictly=True)
        _values(data, "data")
        if scale is not None:
            finite(scale, "scale")
        indices = indices.astype(np.uint16 if k <= 65536 else np.int32, copy=False)
        return CSRWeight._build(shape=cls.shape(keys), data=data, indices=indices, indptr=indptr, scale=scale, derived={})

    @staticmethod
    def density(keys: Keys) -> float:
        n, k = keys["shape"]
        return float(keys["nnz"] / (n * k)) if n * k else 1.0


class CSRInt8(CSR):
    """Sparse, int8 values, a scale per output."""

    name, bits = "csr_int8", 8

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        return {**super().parts(keys), "data": ((_I1,), (keys["nnz"],)), "scale": ((_F4,), (keys["shape"][0],))}


class NM(_Matrix):
    """n of each m inputs kept, float32 values."""

    name, bits = "nm", 32

    @classmethod
    def keys(cls, w: NMWeight) -> Keys:
        return {"layout": w.layout, "pattern": w.pattern, "block": w.block}

    @classmethod
    def pattern(cls, keys: Keys) -> tuple[int, int, int]:
        """n, m and block."""
        pattern, block = keys.get("pattern"), keys.get("block")
        if not isinstance(pattern, str):
            raise ValueError(f'pattern is {str(pattern)[:80]!r}, wanted "n:m"')
        n, m = read_pattern(pattern[:80], "pattern")
        if type(block) is not int or block not in BLOCKS:
            raise ValueError(f"block is {str(block)[:80]!r}, wanted one of {BLOCKS}")
        expect(keys, "pattern", f"{n}:{m}")
        expect(keys, "layout", f"nm{n}:{m}" + (f"b{block}" if block > 1 else ""))
        return n, m, block

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        rows, k = cls.shape(keys)
        n, m, block = cls.pattern(keys)
        if k > K_MAX_INT8:
            raise ValueError(f"shape has {k} inputs, at most {K_MAX_INT8} are supported")
        kept = kept_inputs(k, n, m)
        packed = ((_U4,), packed_shape(rows, kept, index_bits(m), block))
        return {"values": ((_F4,), (_up(rows, 16), kept, 16)), "packed": packed}

    @classmethod
    def build(cls, keys: Keys, a: Mapping[str, Array]) -> Weight:
        rows, k = cls.shape(keys)
        n, m, block = cls.pattern(keys)
        kept, packed, scales, sums = kept_inputs(k, n, m), a["packed"], a.get("scales"), a.get("sums")
        each, bits = 16 if block == 1 else 1, index_bits(m)  # rows of places in a line of packed
        step = max(1, _STEP // max(kept * each, 1))
        for i in range(0, len(packed), step):
            places = unpack_places(packed[i : i + step], bits, kept)[: _up(rows, block) - i * each]
            check_places(places, k, (n, m), "packed", i * each)
            if (pack_places(places, bits, block) != packed[i : i + step]).any():
                raise ValueError(f"packed[{i}:{i + step}] has bits beyond its places, wanted zeros")
        _values(a["values"].reshape(-1), "values")
        if scales is not None and sums is not None:
            finite(scales, "scales")
            within(sums, -127 * kept, 127 * kept, "sums")
        fields = {"values": a["values"], "packed": packed, "scales": scales, "sums": sums, **NOTHING_DERIVED}
        return NMWeight._build(shape=(rows, k), n=n, m=m, block=block, **fields)

    @classmethod
    def density(cls, keys: Keys) -> float:  # type: ignore[override]
        n, m, _ = cls.pattern(keys)
        k = keys["shape"][1]
        return kept_inputs(k, n, m) / k if k else 1.0


class NMInt8(NM):
    """n of each m inputs kept, int8 values, a scale per output."""

    name, bits = "nm_int8", 8

    @classmethod
    def parts(cls, keys: Keys) -> Parts:
        parts = super().parts(keys)
        panels, kept, _ = parts["values"][1]
        integers: Parts = {"values": ((_I1,), (panels, _up(kept, 4), 16, 4))}
        return {**parts, **integers, "scales": ((_F4,), (panels * 16,)), "sums": ((_I4,), (panels * 16,))}


KINDS = {kind.name: kind for kind in (Dense, Int8, Int4, Int8Grouped, CSR, CSRInt8, NM, NMInt8)}


def kind_of(w: Weight) -> Any:
    """The kind of a weight object."""
    if isinstance(w, CSRWeight):
        return CSR if w.scale is None else CSRInt8
    if isinstance(w, NMWeight):
        return NM if w.scales is None else NMInt8
    return {DenseWeight: Dense, Int8Weight: Int8, Int4Weight: Int4, GroupedInt8Weight: Int8Grouped}[type(w)]


def dims(keys: Keys) -> tuple[int, ...]:
    """The shape in a manifest entry."""
    shape = keys.get("shape")
    if not isinstance(shape, list) or not all(type(d) is int and 0 <= d < 2**63 for d in shape):
        raise ValueError(f"shape is {str(shape)[:80]}, wanted a list of whole numbers from 0 on")
    if len(shape) > 64:
        raise ValueError(f"shape has {len(shape)} dimensions, at most 64 are possible")
    return tuple(shape)


def expect(keys: Keys, key: str, wanted: str) -> None:
    """Refuses another value of a key."""
    if keys.get(key) != wanted:
        raise ValueError(f"{key} is {str(keys.get(key))[:80]!r}, wanted {wanted!r}")


def _up(a: int, b: int) -> int:
    return -(-a // b)


def finite(values: Array, name: str) -> None:
    """Refuses NaN and Inf: those whose exponent is all ones, found as integers. values: a vector, or the rows of a field of records."""
    where = _first_nonfinite(values)
    if where >= 0:
        found = values[divmod(where, values.shape[1])] if values.ndim == 2 else values[where]
        raise ValueError(f"{name}[{where}] is {found}, wanted finite values")


def _values(values: Array, name: str) -> None:
    """Refuses what no sparse weight is made from: NaN and Inf, of int8 -128. They take less to read than where they are takes to check."""
    if values.dtype == np.int8:
        within(values, -127, 127, name)
    else:
        finite(values, name)


def _first_nonfinite(values: Array) -> int:
    """Counted in values; -1 if all are finite. By the C library: what lies apart takes NumPy five times as long."""
    if lib is not None and sys.byteorder == "little" and values.size:
        rows, per, stride = (*values.shape, values.strides[0]) if values.ndim == 2 else (1, len(values), 0)
        return int(lib.ec_first_nonfinite(ffi.cast("void *", values.ctypes.data), rows, per, stride, values.itemsize))
    exponent = {2: 0x7C00, 4: 0x7F800000}[values.itemsize]
    step = _STEP if values.ndim == 1 else _STEP // values.shape[1]
    for i in range(0, len(values), step):
        part = np.ascontiguousarray(values[i : i + step]).reshape(-1).view(f"u{values.itemsize}") & exponent
        if part.max(initial=0) == exponent:
            return i * (values.size // len(values)) + int(np.argmax(part == exponent))
    return -1


def within(values: Array, low: int, high: int, name: str, at: int = 0) -> None:
    """Refuses what is not in low..high."""
    for i, part in _steps(values):
        if part.min(initial=high) < low or part.max(initial=low) > high:
            where = int(np.argmax((part < low) | (part > high)))
            raise ValueError(f"{name}[{at + i + where}] is {part[where]}, wanted {low}..{high}")


def _rising(values: Array, restarts: Array, name: str, *, strictly: bool) -> None:
    """Refuses values that fall (or stay, if strictly), but for those at which they may start anew."""
    for i in range(0, max(len(values) - 1, 0), _STEP):
        part = values[i : i + _STEP + 1]
        wrong = part[1:] <= part[:-1] if strictly else part[1:] < part[:-1]
        if wrong.any():
            first, last = np.searchsorted(restarts, np.array([i + 1, i + len(part)], restarts.dtype))
            wrong[restarts[first:last] - (i + 1)] = False
        if wrong.any():
            where = i + 1 + int(np.argmax(wrong))
            raise ValueError(f"{name}[{where}] is {values[where]}, {name}[{where - 1}] is {values[where - 1]}: wanted rising values")


def _steps(values: Array) -> Iterable[tuple[int, Array]]:
    return ((i, values[i : i + _STEP]) for i in range(0, len(values), _STEP))
