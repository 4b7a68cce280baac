"""CSRWeight: what it takes, what it refuses, what it gives back."""

import copy
import pickle
import re

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import CSRWeight, arrays

sparse = pytest.importorskip("scipy.sparse")
f = np.float32
rng = np.random.default_rng(5)
DATA, INDICES, INDPTR = np.array([1, 2, 3], f), [0, 2, 1], [0, 2, 2, 3]


def matrix(n, k, density):
    w = rng.standard_normal((n, k)).astype(f)
    w[rng.random((n, k)) >= density] = 0
    return w


def test_from_arrays():
    w = CSRWeight.from_arrays(DATA, INDICES, INDPTR, (3, 4))
    wanted = np.array([[1, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 0]], f)
    assert_bits(w.dequantize(), wanted)
    assert_bits(w.dequantize([2, 0]), wanted[[2, 0]])
    assert_bits(w.dequantize(1), wanted[1])
    assert (w.shape, w.bits, w.layout, w.op, w.nnz, w.density) == ((3, 4), 32, "csr", "spmm_csr", 3, 0.25)
    assert w.nbytes == 3 * 6 + 4 * 4
    assert w.indices.dtype == np.uint16
    assert w.indptr.dtype == np.int32
    assert not any(a.flags.writeable for a in w.arrays().values())
    with pytest.raises(AttributeError, match="frozen"):
        w.data = None
    with pytest.raises(TypeError, match=r"made by edgecomp\.to_csr"):
        CSRWeight()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint64])
def test_indices_of_any_width(dtype):
    w = CSRWeight.from_arrays(DATA, np.array(INDICES, dtype), np.array(INDPTR, dtype), (3, 4))
    assert w.indices.tolist() == INDICES
    assert w.indptr.tolist() == INDPTR


@pytest.mark.parametrize(("k", "dtype"), [(65536, np.uint16), (65537, np.int32)])
def test_indices_are_stored_as_narrow_as_they_fit(k, dtype):
    w = CSRWeight.from_arrays(DATA, [0, k - 1, 1], INDPTR, (3, k))
    assert w.indices.dtype == dtype
    assert w.indices.tolist() == [0, k - 1, 1]
    assert w.to_scipy().tocoo().col.tolist() == [0, k - 1, 1]


def test_the_callers_arrays_stay_the_callers():
    data, indices, indptr = DATA.copy(), np.array(INDICES, np.int32), np.array(INDPTR, np.int32)
    w = CSRWeight.from_arrays(data, indices, indptr, (3, 4))
    before = w.dequantize()
    data[:], indices[:], indptr[:] = 9, 3, 0
    assert_bits(w.dequantize(), before)


def test_unsorted_and_duplicate_indices():
    w = CSRWeight.from_arrays(np.array([1, 2, 4, 8, 0], f), [3, 0, 3, 1, 2], [0, 3, 5], (2, 4))
    assert_bits(w.dequantize(), np.array([[2, 0, 0, 5], [0, 8, 0, 0]], f))
    assert w.indices.tolist() == [0, 3, 1, 2]  # the stored zero stays
    assert w.density == 3 / 8


def test_refused():
    def refused(error, match, data=DATA, indices=INDICES, indptr=INDPTR, shape=(3, 4), scale=None):
        with pytest.raises(error, match=match):
            CSRWeight.from_arrays(data, indices, indptr, shape, scale)

    refused(ValueError, r"indices\[1\] is 4, wanted 0\.\.3", indices=[0, 4, 1])
    refused(ValueError, r"indices\[0\] is -1", indices=[-1, 2, 1])
    refused(ValueError, r"indices\[1\] is 4294967296", indices=np.array([0, 2**32, 1]))
    refused(ValueError, "indices has 2 entries, data 3", indices=[0, 1])
    refused(TypeError, "indices has dtype float64", indices=[0.0, 1.0, 2.0])
    refused(TypeError, "indices has dtype bool", indices=np.zeros(3, bool))
    refused(ValueError, "indices has shape", indices=np.zeros((3, 1), int))
    refused(ValueError, "indices is a list whose rows differ in length", indices=[0, [1], 2])
    refused(ValueError, "indptr is a tuple whose rows differ in length", indptr=(0, (2, 2), 3, 3))
    refused(ValueError, r"indptr\[2\] is 1, less than indptr\[1\]", indptr=[0, 2, 1, 3])
    refused(ValueError, "indptr has 3 entries, wanted 4", indptr=[0, 2, 3])
    refused(ValueError, "indptr goes from 1 to 3", indptr=[1, 2, 2, 3])
    refused(ValueError, "indptr goes from 0 to 2, wanted 0 to 3", indptr=[0, 2, 2, 2])
    refused(ValueError, r"data\[1\] is nan", data=np.array([1, np.nan, 2], f))
    refused(ValueError, r"data\[0\] is inf", data=np.array([np.inf, 1, 2], f))
    refused(ValueError, "beyond float32", data=np.array([1, 1e300, 2]))
    refused(ValueError, "data has shape", data=np.ones((3, 1), f))
    refused(ValueError, "data has 2147483648 entries, at most 2147483647", data=np.broadcast_to(f(1), 2**31))
    refused(TypeError, "data has dtype int32", data=np.array([1, 2, 3], np.int32))
    refused(TypeError, "data has dtype bool", data=np.ones(3, bool))
    refused(TypeError, "data has dtype complex64", data=np.ones(3, np.complex64))
    refused(TypeError, "wants a scale", data=np.ones(3, np.int8))
    refused(TypeError, "scale is for int8 data", scale=np.ones(3, f))
    refused(ValueError, "scale has shape", data=np.ones(3, np.int8), scale=np.ones(2, f))
    refused(ValueError, r"scale\[1\] is not finite", data=np.ones(3, np.int8), scale=np.array([1, np.inf, 1], f))
    refused(ValueError, r"data\[2\] is -128, wanted -127", data=np.array([1, 2, -128], np.int8), scale=np.ones(3, f))
    refused(ValueError, "has index 2 twice", data=np.ones(3, np.int8), indices=[2, 2, 1], scale=np.ones(3, f))
    refused(ValueError, "wanted finite", data=np.array([3e38, 3e38, 1], f), indices=[2, 2, 1])
    for shape in (3, (3,), (3, 4, 5), (3.0, 4), "ab"):
        refused(TypeError, "wanted two ints", shape=shape)
    for shape in ((-1, 4), (3, 2**31), (2**40, 2**40)):
        refused(ValueError, "shape is", shape=shape)


def test_huge_and_empty_shapes():
    """What is not stored takes no memory; a product of 2**61 does not overflow."""
    w = CSRWeight.from_arrays(np.ones(1, f), [2**31 - 2], [0, 1], (1, 2**31 - 1))
    assert 0 < w.density < 1e-9
    for shape in ((0, 0), (0, 5), (5, 0)):
        w = CSRWeight.from_arrays(np.empty(0, f), [], [0] * (shape[0] + 1), shape)
        assert w.dequantize().shape == shape
        assert w.density == 1.0


def test_too_many_entries():
    """Counted, not looked at: 2**31 ones that take no memory."""
    ones, where = np.broadcast_to(f(1), 2**31), np.broadcast_to(np.int8(0), 2**31)
    with pytest.raises(ValueError, match=r"from_arrays: data has 2147483648 entries, at most 2147483647 are supported"):
        CSRWeight.from_arrays(ones, where, [0, 2**31], (1, 4))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_too_many_entries_are_counted_before_they_are_converted(dtype, monkeypatch):
    monkeypatch.setattr(arrays, "to_float32", lambda *_: pytest.fail("2**31 entries are converted"))
    ones = np.broadcast_to(dtype(1), 2**31)
    with pytest.raises(ValueError, match=r"from_arrays: data has 2147483648 entries, at most 2147483647 are supported"):
        CSRWeight.from_arrays(ones, ones, [0, 2**31], (1, 4))


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("w", [np.zeros((5, 7), f), np.ones((5, 7), f), np.diag(np.arange(3)).astype(f)])
def test_no_zeros_all_zeros_and_empty_rows(w, bits):
    sparse_w = ec.to_csr(w, bits)
    assert sparse_w.nnz == np.count_nonzero(w)
    np.testing.assert_allclose(sparse_w.dequantize(), w, rtol=1e-6)
    np.testing.assert_allclose(ec.linear(np.eye(w.shape[1], dtype=f), sparse_w), w.T, atol=1e-2)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_scipy_formats(kind):
    w = matrix(12, 8, 0.3)
    for wrap in (sparse.csr_array, sparse.csr_matrix):
        got = CSRWeight.from_scipy(wrap(w).asformat(kind))
        assert_bits(got.dequantize() + f(0), w)
        assert_bits(got.to_scipy().toarray(), w)


@pytest.mark.parametrize("bits", [None, 8])
def test_to_scipy_gives_arrays_of_its_own(bits):
    w = ec.to_csr(np.eye(3, dtype=f), bits)
    a, before = w.to_scipy(), w.dequantize()
    a *= 2
    a.data[1] = a.indices[2] = 0
    a.eliminate_zeros()
    a.sum_duplicates()
    assert a.toarray().tolist() == [[2, 0, 0], [0, 0, 0], [2, 0, 0]]
    assert all(part.flags.writeable for part in (a.data, a.indices, a.indptr))
    assert_bits(w.dequantize(), before)


def test_scipy_dtypes():
    w = matrix(6, 5, 0.5)
    assert_bits(CSRWeight.from_scipy(sparse.csr_array(w.astype(np.float64))).dequantize(), w)
    for dtype in (bool, np.int32, np.int64, np.uint8, np.complex64):
        with pytest.raises(TypeError, match="from_scipy: a has dtype"):
            CSRWeight.from_scipy(sparse.csr_array(w.astype(dtype)))
    q = np.array([[1, 0, -127], [0, 5, 0]], np.int8)
    assert_bits(CSRWeight.from_scipy(sparse.csr_array(q), scale=np.array([1, 2], f)).dequantize(), q * np.array([[1], [2]], f))
    with pytest.raises(TypeError, match="wants a scale"):
        CSRWeight.from_scipy(sparse.csr_array(q))
    with pytest.raises(TypeError, match="ndarray, wanted a SciPy sparse"):
        CSRWeight.from_scipy(w)
    half = sparse.csr_array(w)
    half.data = half.data.astype(np.float16)  # SciPy itself makes none
    assert_bits(CSRWeight.from_scipy(half).dequantize(), w.astype(np.float16).astype(f))
    if np.longdouble().itemsize > 8:
        with pytest.raises(TypeError, match=r"from_scipy: data has dtype float128"):
            CSRWeight.from_scipy(sparse.csr_array(w.astype(np.longdouble)))
    with pytest.raises(ValueError, match="from_scipy: a has shape"):
        CSRWeight.from_scipy(sparse.coo_array(w[0]))


def test_scipy_matrices_run_as_they_are_and_explain_says_what_that_costs():
    x, w = rng.standard_normal((3, 8)).astype(f), matrix(5, 8, 0.5)
    assert_bits(ec.linear(x, sparse.csc_array(w)), ec.linear(x, ec.to_csr(w)))
    notes = ec.explain(x, sparse.csr_array(w)).notes
    assert notes[0] == "w: a CSRWeight is built at each call; edgecomp.CSRWeight.from_scipy(w) does it once"
    assert ec.explain(x, ec.to_csr(w)).notes == notes[1:]
    with pytest.raises(TypeError, match="a has dtype int64"):
        ec.linear(x, sparse.csr_array(w.astype(np.int64)))


def test_scipy_matrices_that_are_not_canonical():
    a = sparse.coo_array((np.array([1, 2, 4], f), ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert_bits(CSRWeight.from_scipy(a).dequantize(), np.array([[0, 3], [4, 0]], f))
    b = sparse.csr_array(matrix(4, 4, 0.9))
    b.indices = b.indices.copy()
    b.indices[0] = 77  # SciPy does not look
    with pytest.raises(ValueError, match=r"indices\[0\] is 77"):
        CSRWeight.from_scipy(b)


def eye(kind):
    w = np.eye(6, dtype=f)
    return sparse.bsr_array(w, blocksize=(2, 2)) if kind == "bsr" else sparse.csr_array(w).asformat(kind)


def put(a, name, at, value):
    getattr(a, name)[at] = value


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("csr", lambda a: put(a, "indices", 5, 6), "indices[5] is 6, wanted 0..5"),
        ("csc", lambda a: put(a, "indices", 5, 6), "indices[5] is 6, wanted 0..5"),
        ("csc", lambda a: put(a, "indices", 5, 2_000_000_000), "indices[5] is 2000000000, wanted 0..5"),
        ("csc", lambda a: put(a, "indices", 5, -1), "indices[5] is -1, wanted 0..5"),
        ("csc", lambda a: put(a, "indptr", 2, 5), "indptr[3] is 3, less than indptr[2], which is 5"),
        ("csc", lambda a: put(a, "indptr", 2, 10**9), "indptr[3] is 3, less than indptr[2], which is 1000000000"),
        ("csc", lambda a: put(a, "indptr", 0, 1), "indptr goes from 1 to 6, wanted 0 to 6"),
        ("csc", lambda a: put(a, "indptr", 6, 7), "indptr goes from 0 to 7, wanted 0 to 6"),
        ("csc", lambda a: setattr(a, "indptr", a.indptr[1:]), "indptr has 6 entries, wanted 7 (one more than columns)"),
        ("csc", lambda a: setattr(a, "indices", a.indices[1:]), "indices has 5 entries, data 6"),
        ("csc", lambda a: setattr(a, "data", a.data[:, None]), "data has shape (6, 1), wanted [nnz]"),
        ("bsr", lambda a: put(a, "indices", 2, 3), "indices[2] is 3, wanted 0..2"),
        ("bsr", lambda a: put(a, "indptr", 1, 10**9), "indptr[2] is 2, less than indptr[1]"),
        ("bsr", lambda a: setattr(a, "indptr", a.indptr[1:]), "indptr has 3 entries, wanted 4 (one more than rows of blocks)"),
        ("bsr", lambda a: setattr(a, "data", a.data[:2]), "indices has 3 entries, data 2"),
        ("bsr", lambda a: setattr(a, "data", np.ones((3, 4, 2), f)), "data has shape (3, 4, 2), wanted blocks [nnz, R, C] that fill"),
        ("bsr", lambda a: setattr(a, "data", np.ones((3, 2, 0), f)), "data has shape (3, 2, 0), wanted blocks"),
        ("bsr", lambda a: setattr(a, "data", np.ones(3, f)), "data has shape (3,), wanted blocks"),
        ("coo", lambda a: put(a, "row", 5, 1_500_000_000), "row[5] is 1500000000, wanted 0..5"),
        ("coo", lambda a: put(a, "col", 5, -1), "col[5] is -1, wanted 0..5"),
        ("coo", lambda a: setattr(a, "data", a.data[1:]), "row has 6 entries, data 5"),
        ("coo", lambda a: setattr(a, "data", a.data[:, None]), "data has shape (6, 1), wanted [nnz]"),
        ("dia", lambda a: setattr(a, "offsets", np.array([0, 1])), "offsets has 2 entries, data has shape (1, 6)"),
        ("lil", lambda a: put(a, "rows", 0, [0, 1]), "row 0 has 2 indices and 1 values"),
        ("lil", lambda a: setattr(a, "rows", a.rows[1:]), "5 rows of indices and 6 of values, wanted 6"),
        ("lil", lambda a: put(a, "rows", 0, [77]), "indices[0] is 77, wanted 0..5"),
        ("lil", lambda a: put(a, "data", 0, ["x"]), "SciPy does not convert a (lil) to CSR: "),
    ],
)
def test_broken_scipy_matrices_are_refused_before_scipy_reads_them(kind, spoil, message):
    a = eye(kind)
    spoil(a)
    x = np.ones((20, 6), f)
    for call in (CSRWeight.from_scipy, lambda a: ec.linear(x, a), lambda a: ec.explain(x, a), lambda a: ec.spmm(a, x.T)):
        with pytest.raises(ValueError, match="^" + re.escape(f"CSRWeight.from_scipy: {message}")):
            call(a)


def test_scipy_index_arrays_that_are_no_integers():
    for kind, name in (("csc", "indices"), ("csc", "indptr"), ("bsr", "indices")):
        a = eye(kind)
        setattr(a, name, getattr(a, name).astype(f))
        with pytest.raises(TypeError, match=f"from_scipy: {name} has dtype float32, wanted integers"):
            CSRWeight.from_scipy(a)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil"])
def test_int8_values_are_never_added_up(kind):
    """SciPy would wrap them."""
    q, zeros, starts = np.array([100, 100], np.int8), np.zeros(2, np.int32), np.array([0, 2], np.int32)
    if kind == "lil":
        a = sparse.lil_array((1, 1), dtype=np.int8)
        a.rows[0], a.data[0] = [0, 0], [100, 100]
    else:
        parts = {"coo": (q, (zeros, zeros)), "bsr": (q.reshape(2, 1, 1), zeros, starts)}.get(kind, (q, zeros, starts))
        a = getattr(sparse, f"{kind}_array")(parts, shape=(1, 1))
    with pytest.raises(ValueError, match="from_scipy: row 0 has index 0 twice; int8 values cannot be added up"):
        CSRWeight.from_scipy(a, scale=np.ones(1, f))
    if kind == "coo":
        assert not a.has_canonical_format  # the caller's own


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_scipy_halves(kind):
    """SciPy makes none, and converts few."""
    w = matrix(6, 4, 0.5).astype(np.float16).astype(f)
    a = sparse.csr_array(w).asformat(kind)
    a.data = a.data.astype(np.float16)
    assert_bits(CSRWeight.from_scipy(a).dequantize() + f(0), w)
    assert a.data.dtype == np.float16


def test_to_csr():
    w = matrix(20, 33, 0.4)
    w[3] = 0
    assert_bits(ec.to_csr(w).dequantize(), w)
    assert ec.to_csr(w).nnz == np.count_nonzero(w)
    assert_bits(ec.to_csr(w, bits=32).dequantize(), w)
    w8, dense = ec.to_csr(w, bits=8), ec.quantize(w)
    assert (w8.bits, w8.op) == (8, "spmm_csr8")
    assert_bits(w8.scale, dense.scale)
    assert_bits(w8.dequantize() + f(0), dense.dequantize() + f(0))
    assert w8.nnz == np.count_nonzero(dense.q)
    assert w8.nbytes == 3 * w8.nnz + 4 * 21 + 4 * 20
    for bits in (4, True, "8"):
        with pytest.raises(ValueError, match="to_csr: bits is"):
            ec.to_csr(w, bits=bits)
    with pytest.raises(ValueError, match=r"to_csr: w\[0, 0\] is nan"):
        ec.to_csr(np.full((2, 2), np.nan, f))
    with pytest.raises(TypeError, match="to_csr: w has dtype int64"):
        ec.to_csr(np.ones((2, 2), int))


def test_bytes_are_counted_while_another_thread_derives():
    w = ec.to_csr(np.eye(3, dtype=f))

    class Part:
        @property
        def nbytes(self):
            w.derived[len(w.derived)] = np.empty(5, np.uint8)  # as a first call might, amid the sum
            return 3

    stored = w.nbytes
    w.derived[0] = Part()
    assert w.nbytes == stored + 3
    assert repr(w) == f"CSRWeight(3x3, 32 bits, csr, {stored + 3 + 5} bytes)"


@pytest.mark.parametrize("bits", [None, 8])
def test_copies_and_pickles(bits):
    w, x = ec.to_csr(matrix(9, 40, 0.3), bits), rng.standard_normal((5, 40)).astype(f)
    y = ec.linear(x, w)
    for other in (copy.copy(w), copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
        assert_bits(other.dequantize(), w.dequantize())
        assert_bits(ec.linear(x, other), y)
    assert w != copy.copy(w)
