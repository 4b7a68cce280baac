"""Sparse weights: CSR with float32 values, or int8 values and one scale per output."""

import copy
import operator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgecomp import arrays
from edgecomp.arguments import integer
from edgecomp.quantization import codes_per_output, weight_array
from edgecomp.weights import Float32, Weight

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgecomp.csr_blocks import Blocks

INT32_MAX = 2**31 - 1


class CSRWeight(Weight):
    """The stored entries of a sparse matrix, row by row: float32 `data`, or int8 `data` with one scale per output.

    Made by `edgecomp.to_csr(w)`, `CSRWeight.from_arrays(data, indices, indptr, shape)` or `CSRWeight.from_scipy(a)`. Within a row the
    indices ascend and none comes twice. They are uint16 where K is at most 65536 (an entry takes 6 bytes, with int8 values 3), else int32
    (8 and 5); a row takes 4 bytes (int8: 8) more. The compiled kernels derive a second form when a weight meets many rows of x for the
    first time (C and Numba each their own): 6 bytes more for an entry, with int8 values 3 (filled up to fours), and 4 for each row of a
    block of inputs; in C with AVX-512 up to 6, and 5, when one that has 15 % of the weights meets more than 32 rows; a bit for each
    weight when one that has two fifths of them meets one row, or with AVX-512 15 %, with int8 values a sixteenth, and meets a few, and
    another bit and the int8 values once more when it meets more (without VBMI2 a byte for each weight, of a quarter of them and more); and
    with AVX-512 the entries once more when a weight with fewer and at most 65536 inputs (with AVX512-FP16 any number) meets one row or two.
    compute="float32" derives the float32 values of int8 entries, 4 bytes each, and the form of these. From then on `nbytes` counts them;
    `explain` tells which one a call reads.
    """

    __slots__ = ("data", "derived", "indices", "indptr", "scale")
    data: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    indptr: npt.NDArray[np.int32]
    scale: Float32 | None
    derived: "dict[int | str, npt.NDArray[Any] | Blocks | CSRWeight] | None"
    """What was derived from the arrays, by its kind: C's are arrays of bytes, Numba's `Blocks`; "floats" is the weight with the values of
    int8 data. None if nothing may be."""
    layout: ClassVar[str] = "csr"
    _made_by = "edgecomp.to_csr, CSRWeight.from_arrays or CSRWeight.from_scipy"

    @property
    def bits(self) -> int:  # type: ignore[override]  # one class for both kinds of values
        """32 or 8."""
        return 8 * self.data.itemsize

    @property
    def op(self) -> str:  # type: ignore[override]
        """The op that serves the weight."""
        return "spmm_csr" if self.scale is None else "spmm_csr8"

    @classmethod
    def from_arrays(cls, data: Any, indices: Any, indptr: Any, shape: tuple[int, int], scale: Any = None) -> "Self":
        """From the three arrays of CSR: row j holds the entries indptr[j] to indptr[j + 1].

        Args:
            data: finite float32 [nnz] (float16 and float64 are converted); or int8 [nnz] in -127..127, together with a scale.
            indices: integers [nnz] in 0..K-1: the input of each entry. Sorted within each row on a copy; the values of an index that
                comes twice in a row are added up (float) or refused (int8). Zeros that are stored stay stored.
            indptr: integers [N + 1], from 0 to nnz, never falling.
            shape: (N, K) = (out_features, in_features), below 2**31 each, as is nnz.
            scale: finite float32 [N] for int8 data.

        Raises:
            TypeError, ValueError: wrong dtypes, lengths or values, by name.

        Example:
            >>> import numpy as np, edgecomp as ec
            >>> w = ec.CSRWeight.from_arrays(np.array([1.5, -2], np.float32), [2, 0], [0, 1, 2], (2, 3))
            >>> w.dequantize()
            array([[ 0. ,  0. ,  1.5],
                   [-2. ,  0. ,  0. ]], dtype=float32)
        """
        return cls._checked(data, indices, indptr, shape, scale, f"{cls.__name__}.from_arrays")

    @classmethod
    def _checked(cls, data: Any, indices: Any, indptr: Any, shape: Any, scale: Any, where: str) -> "Self":
        n, k = read_shape(shape, where)
        values = arrays.to_numpy(data, f"{where}: data")
        if values.ndim != 1:
            raise ValueError(f"{where}: data has shape {values.shape}, wanted [nnz]")
        if len(values) > INT32_MAX:
            raise ValueError(f"{where}: data has {len(values)} entries, at most {INT32_MAX} are supported")
        if values.dtype == np.int8:
            if scale is None:
                raise TypeError(f"{where}: data is int8, which wants a scale for each output (float32 [N])")
            scale = np.array(arrays.vector(scale, n, f"{where}: scale"))
            if not np.isfinite(scale).all():
                raise ValueError(f"{where}: scale[{np.argmin(np.isfinite(scale))}] is not finite")
        else:
            if scale is not None:
                raise TypeError(f"{where}: scale is for int8 data, data has dtype {values.dtype}")
            values = arrays.to_float32(values, f"{where}: data")
        columns, starts = _lines(len(values), indices, indptr, n, k, where)
        _check_values(values, where)
        columns, values, starts = _in_order(columns.astype(np.uint16 if k <= 65536 else np.int32), values, starts, where)
        if scale is None:
            _check_values(values, where)  # sums of duplicates may overflow
        return cls._build(shape=(n, k), data=np.array(values), indices=np.array(columns), indptr=starts, scale=scale, derived={})

    @classmethod
    def from_scipy(cls, a: Any, scale: Any = None) -> "Self":
        """From a SciPy sparse matrix or array of any format (CSR, CSC, COO, BSR, ...).

        Args:
            a: floats [N, K] (float64 is converted to float32), or int8 together with a scale. Duplicates are added up.
            scale: finite float32 [N] for int8 values.

        Raises:
            TypeError: not sparse; bool, integer or complex values.
            ValueError: not two-dimensional; parts that do not fit each other; what `from_arrays` refuses.
        """
        where = f"{cls.__name__}.from_scipy"
        if not hasattr(a, "tocsr"):
            raise TypeError(f"{where}: a is a {type(a).__name__}, wanted a SciPy sparse matrix or array")
        if len(a.shape) != 2:
            raise ValueError(f"{where}: a has shape {a.shape}, wanted [N, K]")
        if a.dtype.kind != "f" and a.dtype != np.int8:
            raise TypeError(f"{where}: a has dtype {a.dtype}, wanted floats (a.astype(np.float32)), or int8 with a scale")
        csr = a if getattr(a, "format", "") == "csr" else _converted(a, where)
        return cls._checked(csr.data, csr.indices, csr.indptr, csr.shape, scale, where)

    def to_scipy(self) -> Any:
        """A scipy.sparse.csr_array of the dequantised values, float32, whose arrays are its own.

        Raises:
            ImportError: SciPy is not installed.
        """
        try:
            from scipy.sparse import csr_array
        except ImportError as error:
            raise ImportError('CSRWeight.to_scipy: SciPy is not installed: pip install "edgecomp[sparse]"') from error
        return csr_array((np.array(self._values()), self.indices.astype(np.int32), np.array(self.indptr)), shape=self.shape)

    def _values(self) -> Float32:
        """The entries as float32."""
        if self.scale is None:
            return self.data
        with np.errstate(over="ignore"):  # imported scales may be huge
            return self.data * np.repeat(self.scale, np.diff(self.indptr))

    def as_float32(self) -> "CSRWeight":
        """The same weight with the dequantised values, sharing the indices: of int8 values kept, and counted by `nbytes`."""
        if self.scale is None:
            return self
        assert self.derived is not None
        floats = self.derived.get("floats")
        if floats is None:  # what one thread made stays
            floats = self.derived.setdefault("floats", self.with_floats(self._values()))
        assert isinstance(floats, CSRWeight)
        return floats

    def with_floats(self, values: Float32) -> "CSRWeight":
        """The same entries with other values."""
        parts = {"data": values, "indices": self.indices, "indptr": self.indptr}
        return self._build(shape=self.shape, scale=None, derived={}, **parts)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        parts = {"data": self.data, "indices": self.indices, "indptr": self.indptr}
        return parts if self.scale is None else {**parts, "scale": self.scale}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.shape, self.data, self.indices, self.indptr, self.scale)

    def dequantize(self, rows: Any = None) -> Float32:
        """The logical values, float32 [N, K]; or those of `rows` (a slice or an index array) only."""
        outputs, values = self._outputs(rows), self._values()
        w = np.zeros((outputs.size, self.shape[1]), np.float32)
        for row, j in zip(w, outputs.reshape(-1), strict=True):
            part = slice(self.indptr[j], self.indptr[j + 1])
            row[self.indices[part]] = values[part]
        return w.reshape(*outputs.shape, self.shape[1])

    @property
    def nnz(self) -> int:
        """Stored entries, zeros among them."""
        return len(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes held: the entries, and what the kernels derived from them, if they did."""
        derived = dict(self.derived or {})  # copied: a first call in another thread may add to it
        shared = self.indices.nbytes + self.indptr.nbytes if "floats" in derived else 0
        return super().nbytes + sum(part.nbytes for part in derived.values()) - shared


def borrowed(a: Any) -> CSRWeight | None:
    """A SciPy CSR matrix's own arrays, for a product with few vectors: checked, neither copied nor sorted. None if they would not do."""
    where = "spmm: a"
    if getattr(a, "format", "") != "csr" or len(a.shape) != 2 or a.data.ndim != 1 or len(a.data) > INT32_MAX:
        return None
    parts = a.data, a.indices, a.indptr
    if [part.dtype for part in parts] != [np.float32, np.int32, np.int32] or not all(part.flags.c_contiguous for part in parts):
        return None
    (n, k), (data, indices, indptr) = read_shape(a.shape, where), parts
    columns, starts = _lines(len(data), indices, indptr, n, k, where)
    _check_values(data, where)
    return CSRWeight._build(shape=(n, k), data=data, indices=columns, indptr=starts, scale=None, derived=None)


def _rebuild(cls: type[CSRWeight], shape: tuple[int, int], data: Any, indices: Any, indptr: Any, scale: Any) -> CSRWeight:
    return cls._build(shape=shape, data=data, indices=indices, indptr=indptr, scale=scale, derived={})


def read_shape(shape: Any, where: str, inputs: int = INT32_MAX) -> tuple[int, int]:
    """(N, K), K up to `inputs`."""
    try:
        n, k = map(operator.index, shape)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: shape is {shape!r}, wanted two ints (N, K)") from error
    if not (0 <= n <= INT32_MAX and 0 <= k <= inputs):
        raise ValueError(f"{where}: shape is ({n}, {k}), wanted N in 0..{INT32_MAX} and K in 0..{inputs}")
    return n, k


def _integers(values: Any, name: str, where: str) -> npt.NDArray[Any]:
    """A vector of integers of any width; a plain list will do."""
    a = arrays.of_numbers(values, f"{where}: {name}")
    if a.dtype.kind not in "iu":
        raise TypeError(f"{where}: {name} has dtype {a.dtype}, wanted integers")
    if a.ndim != 1:
        raise ValueError(f"{where}: {name} has shape {a.shape}, wanted one dimension")
    return a


def _inside(values: npt.NDArray[Any], limit: int, name: str, where: str) -> None:
    """Refuses indices that are not in 0..limit - 1."""
    plain = values.view(np.uint32) if values.dtype == np.int32 else values  # negative ones are large
    if len(values) and (plain.max() >= limit or (plain.dtype.kind == "i" and plain.min() < 0)):
        at = int(np.argmax((values < 0) | (values >= limit)))
        raise ValueError(f"{where}: {name}[{at}] is {values[at]}, wanted 0..{limit - 1}")


def _lines(
    nnz: int, indices: Any, indptr: Any, n: int, k: int, where: str, what: str = "rows"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Checked indices and starts of nnz entries in n rows (or columns, `what`) of k places."""
    places = _integers(indices, "indices", where)
    if len(places) != nnz:
        raise ValueError(f"{where}: indices has {len(places)} entries, data {nnz}")
    starts = _indptr(indptr, n, nnz, where, what)
    _inside(places, k, "indices", where)
    return places, starts


def _converted(a: Any, where: str) -> Any:
    """A SciPy matrix of another format than CSR as CSR. Checked before: SciPy's loops read and write wherever indices point."""
    (n, k), kind = read_shape(a.shape, where), getattr(a, "format", "")
    if kind in ("csc", "coo") and a.data.ndim != 1:
        raise ValueError(f"{where}: data has shape {a.data.shape}, wanted [nnz]")
    if kind == "csc":
        _lines(len(a.data), a.indices, a.indptr, k, n, where, "columns")
    elif kind == "bsr":
        r, c = a.data.shape[1:] if a.data.ndim == 3 else (0, 0)
        if r == 0 or c == 0 or n % r or k % c:
            raise ValueError(f"{where}: data has shape {a.data.shape}, wanted blocks [nnz, R, C] that fill ({n}, {k})")
        _lines(len(a.data), a.indices, a.indptr, n // r, k // c, where, "rows of blocks")
    elif kind == "coo":
        for name, size in (("row", n), ("col", k)):
            places = _integers(getattr(a, name), name, where)
            if len(places) != len(a.data):
                raise ValueError(f"{where}: {name} has {len(places)} entries, data {len(a.data)}")
            _inside(places, size, name, where)
    elif kind == "dia" and (a.data.ndim != 2 or a.offsets.shape != a.data.shape[:1]):
        raise ValueError(f"{where}: offsets has {a.offsets.size} entries, data has shape {a.data.shape}")
    elif kind == "lil":
        if not len(a.rows) == len(a.data) == n:
            raise ValueError(f"{where}: {len(a.rows)} rows of indices and {len(a.data)} of values, wanted {n}")
        for row, (places, values) in enumerate(zip(a.rows, a.data, strict=True)):
            if len(places) != len(values):
                raise ValueError(f"{where}: row {row} has {len(places)} indices and {len(values)} values")
    if kind == "coo" and a.dtype == np.int8:
        a = copy.copy(a)  # the arrays are shared
        a.has_canonical_format = True  # or SciPy adds up duplicates, modulo 256
    try:
        return (a.astype(np.float32) if a.dtype == np.float16 else a).tocsr()
    except (LookupError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: SciPy does not convert a ({kind}) to CSR: {error}") from error


def _indptr(indptr: Any, n: int, nnz: int, where: str, what: str) -> npt.NDArray[np.int32]:
    a = _integers(indptr, "indptr", where)
    if len(a) != n + 1:
        raise ValueError(f"{where}: indptr has {len(a)} entries, wanted {n + 1} (one more than {what})")
    if a[0] != 0 or a[-1] != nnz:
        raise ValueError(f"{where}: indptr goes from {a[0]} to {a[-1]}, wanted 0 to {nnz}, the number of entries")
    falls = a[1:] < a[:-1]
    if falls.any():
        at = int(np.argmax(falls))
        raise ValueError(f"{where}: indptr[{at + 1}] is {a[at + 1]}, less than indptr[{at}], which is {a[at]}")
    return a.astype(np.int32)


def _check_values(values: npt.NDArray[Any], where: str) -> None:
    wrong = values == -128 if values.dtype == np.int8 else ~np.isfinite(values)
    if wrong.any():
        at = int(np.argmax(wrong))
        wanted = "-127..127" if values.dtype == np.int8 else "finite values"
        raise ValueError(f"{where}: data[{at}] is {values[at]}, wanted {wanted}")


def _in_order(
    columns: npt.NDArray[Any], values: npt.NDArray[Any], starts: npt.NDArray[np.int32], where: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int32]]:
    """Indices ascending within each row, each once."""
    begins = np.zeros(len(columns) + 1, bool)
    begins[starts] = True
    if (begins[1:-1] | (columns[1:] > columns[:-1])).all():
        return columns, values, starts
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((columns, rows))  # stable: duplicates are added in the order they came
    columns, values = columns[order], values[order]
    first = np.ones(len(columns), bool)
    first[1:] = (columns[1:] != columns[:-1]) | (rows[1:] != rows[:-1])
    if first.all():
        return columns, values, starts
    if values.dtype == np.int8:
        at = int(np.argmin(first))
        raise ValueError(f"{where}: row {rows[at]} has index {columns[at]} twice; int8 values cannot be added up")
    with np.errstate(over="ignore"):
        values = np.add.reduceat(values, np.flatnonzero(first))
    counts = np.bincount(rows[first], minlength=len(starts) - 1)
    return columns[first], values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def to_csr(w: Any, bits: int | None = None) -> CSRWeight:
    """The non-zeros of a matrix as CSR.

    Args:
        w: float32 [N, K] (out_features, in_features), finite, pruned.
        bits: None or 32 keeps float32 values; 8 quantises them as `quantize` does: symmetric, one scale per output. Values that round
            to zero are not stored.

    Raises:
        TypeError, ValueError: not a finite float matrix; more than 2**31 - 1 non-zeros.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> ec.to_csr(np.eye(4, dtype=np.float32))
        CSRWeight(4x4, 32 bits, csr, 44 bytes)
        >>> ec.to_csr(np.eye(4, dtype=np.float32), bits=8).data
        array([127, 127, 127, 127], dtype=int8)
    """
    bits = 32 if bits is None else integer("to_csr: bits", bits, (8, 32), "None (float32 values) or 8")
    a = weight_array(w, "to_csr")
    values: npt.NDArray[Any] = a
    scale = None
    if bits == 8:
        values, scale = codes_per_output(a)
    rows, columns = np.nonzero(values)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(a)))])
    return CSRWeight._checked(values[rows, columns], columns, indptr, a.shape, scale, "to_csr")
