"""spmm_csr, spmm_csr8: linear with CSR weights, and spmm. Every bit of the int8 form is promised."""

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import EXACT, LAYOUTS, SPECIAL, assert_bits, bits
from guard import filled, padded_output
from implementations import ALL, use
from naive import linear_int8

import edgecomp as ec
from edgecomp import reference

f = np.float32
rng = np.random.default_rng(7)
SHAPES = [
    (0, 5, 40), (1, 1, 1), (1, 33, 64), (2, 5, 0), (3, 0, 7), (3, 32, 65), (5, 70, 100), (8, 31, 256), (9, 64, 130), (17, 129, 300),
    (65, 40, 1200), (130, 600, 33),
]  # fmt: skip
DENSITIES = [0.0, 0.02, 0.3, 1.0]


def matrix(n, k, density):
    """Some rows empty, some full."""
    w = rng.standard_normal((n, k)).astype(f)
    w[rng.random((n, k)) >= density] = 0
    w[2::7] = 0
    w[3::11] = 1
    return w


def close(y, x, w, bias=None):
    wide, size = x.astype(np.float64), np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T
    wanted = wide @ w.astype(np.float64).T
    if bias is not None:
        wanted, size = wanted + bias, size + np.abs(bias)
    assert (np.abs(y - wanted) <= (x.shape[1] + 3) * 2.0**-24 * size + 1e-44).all()


@pytest.mark.parametrize("density", DENSITIES)
def test_shapes(impl, density):
    for m, n, k in SHAPES:
        x, bias, w = rng.standard_normal((m, k)).astype(f), rng.standard_normal(n).astype(f), matrix(n, k, density)
        y, untouched = padded_output(m, n)
        assert ec.linear(x, ec.to_csr(w), bias, out=y) is y
        close(y, x, w, bias)
        assert untouched()
        w8, wanted, y = ec.to_csr(w, bits=8), filled((m, n)), filled((m, n))
        reference.spmm_csr8(x, w8, bias, None, wanted)
        ec.linear(x, w8, bias, out=y)
        assert_bits(y, wanted, (m, n, k))


@pytest.mark.parametrize(("n", "k"), [(37, 130), (64, 192)])
@pytest.mark.parametrize("density", [0.07, 0.15, 0.3, 0.6])
def test_a_few_tokens(impl, density, n, k):
    """However many come together: the bits of each in a pair, as long as the form is the same; in int8 of each alone, and the rows may come
    quantised. What is not finite stays where it is, and plays no part where there is no entry."""
    w, x = matrix(n, k, density), rng.standard_normal((26, k)).astype(f)
    w[:, 5] = 0
    x[5] *= 1000
    x[9, 5], x[11, 5], x[13, 7] = np.inf, np.nan, -np.inf
    for a in (ec.to_csr(w), ec.to_csr(w, bits=8)):
        together = 1 if a.scale is not None else 2
        wanted = np.concatenate([ec.linear(x[[i] * together], a, activation="relu")[:1] for i in range(len(x))])
        with np.errstate(invalid="ignore"):
            given = [x] if a.scale is None else [x, ec.quantize_rows(x)]
        for m in range(2, 17 if a.scale is None else 27):
            if a.scale is None and ec.explain(x[:m], a).notes != ec.explain(x[:2], a).notes:
                break
            for rows in given:
                part = rows[:m] if rows is x else ec.QuantizedRows(rows.q[:m], rows.scale[:m], rows.zero[:m])
                y, untouched = padded_output(m, n)
                assert_bits(np.ascontiguousarray(ec.linear(part, a, activation="relu", out=y)), wanted[:m], m)
                assert untouched()


def test_int8_is_dense_int8():
    """The zeros add nothing: the bits of Int8Weight, and of the loops that share no code with the package."""
    for m, n, k in SHAPES:
        x, w = rng.standard_normal((m, k)).astype(f), matrix(n, k, 0.3)
        assert_bits(ec.linear(x, ec.to_csr(w, bits=8)), ec.linear(x, ec.quantize(w)))
    x, w = rng.standard_normal((3, 30)).astype(f), ec.quantize(matrix(20, 30, 0.3))
    assert_bits(ec.linear(x, ec.to_csr(w.dequantize(), bits=8)), linear_int8(x, w.q, w.scale))


@pytest.mark.parametrize("bits", [None, 8])
def test_threads_give_the_same_bits(impl, bits):
    x, w = rng.standard_normal((70, 500)).astype(f), ec.to_csr(matrix(700, 500, 0.1), bits)
    wanted = ec.linear(x, w, threads=1)
    for threads in (2, 3, 5):
        assert_bits(ec.linear(x, w, threads=threads), wanted)


def test_int8_row_alone_and_in_a_batch(impl):
    x, w = rng.standard_normal((70, 200)).astype(f), ec.to_csr(matrix(70, 200, 0.2), 8)
    whole = ec.linear(x, w)
    for i in range(len(x)):
        assert_bits(ec.linear(x[i], w), whole[i])
    assert_bits(ec.linear(ec.quantize_rows(x), w), whole)
    assert_bits(ec.linear(ec.quantize_rows(x[:1]), w), whole[:1])


def test_int8_groups_of_rows(impl):
    """Groups of every width, and a last one that is narrower or not full."""
    x, w, bias = rng.standard_normal((130, 1100)).astype(f), ec.to_csr(matrix(150, 1100, 0.05), 8), rng.standard_normal(150).astype(f)
    wanted = filled((130, 150))
    reference.spmm_csr8(x, w, bias, "relu", wanted)
    for m in (2, 15, 16, 17, 32, 33, 64, 70, 80, 81, 96, 100, 128, 130):
        for rows in (x[:m], ec.quantize_rows(x[:m])):
            assert_bits(ec.linear(rows, w, bias, activation="relu", threads=1 + m % 2), wanted[:m])


@pytest.mark.parametrize(("n", "k", "density"), [(1, 3, 1.0), (16, 64, 0.5), (47, 130, 0.2), (200, 515, 0.3), (33, 1030, 0.12)])
def test_int8_made_dense(impl, n, k, density):
    """Weights made dense for several tokens: panels and quads that are not full, rows without entries, several blocks of tokens."""
    x, w, bias = rng.standard_normal((600, k)).astype(f), matrix(n, k, density), rng.standard_normal(n).astype(f)
    w[n // 2], wanted = 0, filled((600, n))
    w8 = ec.to_csr(w, 8)
    reference.spmm_csr8(x, w8, bias, "relu", wanted)
    for m in (2, 5, 9, 16, 33, 600):
        for threads in (1, 2, 3):
            y, untouched = padded_output(m, n)
            assert_bits(np.ascontiguousarray(ec.linear(x[:m], w8, bias, activation="relu", threads=threads, out=y)), wanted[:m])
            assert untouched()
    assert_bits(ec.linear(ec.quantize_rows(x), w8, bias, activation="relu"), wanted)


@pytest.mark.parametrize("impl", [name for name in ALL if name.startswith("c:")])
def test_which_int8_weights_become_dense(impl):
    """The rule, for every line of the C kernels: the most tokens of each density; fewer read masks, more blocks."""
    line, codes = impl.removeprefix("c:"), np.arange(1, 1001) % 100 + np.zeros((64, 1), f)
    weights = {d: ec.to_csr(codes * (codes <= 100 * d), 8) for d in (0.05, 0.12, 0.2, 0.3, 0.5)}
    if line in ("avxvnni", "avxvnni_evex", "avx512"):
        line = "avxvnni" if "c:avxvnni" in ALL else "avx2"  # not every CPU with the later two has the first
    most = {
        "amx": {0.12: 32, 0.2: 999, 0.3: 999, 0.5: 999},
        "avxvnni": {0.3: 8, 0.5: 999},
        "avx2": {0.3: 8, 0.5: 8},
    }.get(line, {0.2: 16, 0.3: 32, 0.5: 999} if line.startswith("avx512") else {})
    with use(impl):
        masks = "mask" in str(ec.explain(np.zeros((1, 1000), f), weights[0.5]))  # AVX-512 VNNI and VBMI2
        served = set()
        for density, w in weights.items():
            for m in (1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 999):
                fewest = 2 if not masks else 9 if density >= 0.15 and line != "amx" else 5
                dense = fewest <= m <= most.get(density, 0) and (masks or density > 0.25)
                e = ec.explain(np.zeros((m, 1000), f), w, threads=4)
                served.add(e.variant)
                how = "made dense from a bit" if masks else "made dense, derived"
                assert ("made dense" in str(e), how in str(e)) == (dense, dense), (density, m, e)
                if dense:
                    as_dense = ec.explain(np.zeros((m, 1000), f), ec.quantize(w.dequantize()), threads=4)
                    assert (e.variant, e.threads) == (as_dense.variant, as_dense.threads)
        assert ec.info()["ops"]["spmm_csr8"]["variant"] == max(served, key=ec.info()["isa"]["compiled"].index)


def test_int8_workspace_of_many_inputs():
    """More inputs than weights are made dense of: no room for these, which for each thread is that of 48 rows."""
    backend = pytest.importorskip("edgecomp._c_backend")
    assert backend.lib.ec_spmm_csr8_workspace(2, 10_000_000, 64) < 2e9


@pytest.mark.parametrize("activation", EXACT)
def test_activations_that_are_exact(impl, activation):
    for m in (1, 20):
        x, w, bias = rng.standard_normal((m, 130)).astype(f), matrix(33, 130, 0.2), rng.standard_normal(33).astype(f)
        wanted = filled((m, 33))
        reference.spmm_csr8(x, ec.to_csr(w, 8), bias, activation, wanted)
        assert_bits(ec.linear(x, ec.to_csr(w, 8), bias, activation=activation), wanted)
        plain = ec.linear(x, ec.to_csr(w), bias)
        assert_bits(ec.linear(x, ec.to_csr(w), bias, activation=activation), reference.ACTIVATIONS[activation](plain))


def test_non_finite_rows(impl):
    """int8: the row is NaN. float32: only what is stored counts, as in SciPy."""
    w = np.zeros((3, 40), f)
    w[0, 5], w[1, 6] = 2, 3
    for m in (1, 9):
        for bad in (np.nan, np.inf, -np.inf):
            x = rng.standard_normal((m, 40)).astype(f)
            x[m - 1, 5] = bad
            y8, y = ec.linear(x, ec.to_csr(w, 8)), ec.linear(x, ec.to_csr(w))
            assert (bits(y8[m - 1]) == 0x7FC00000).all()
            assert np.isfinite(y8[: m - 1]).all()
            np.testing.assert_array_equal(y[m - 1, 0], f(bad) * 2)
            np.testing.assert_array_equal(y[:, 1], x[:, 6] * 3)
            np.testing.assert_array_equal(y[:, 2], 0)


def test_scales_of_every_kind(impl):
    scale = np.array([s for s in SPECIAL if np.isfinite(s)], f)
    q = rng.integers(-127, 128, (len(scale), 40)).astype(np.int8)
    n = len(scale)
    w = ec.CSRWeight.from_arrays(q.reshape(-1), np.tile(np.arange(40), n), np.arange(n + 1) * 40, (n, 40), scale)
    for m in (1, 3, 20):
        x = rng.standard_normal((m, 40)).astype(f)
        assert_bits(ec.linear(x, w), linear_int8(x, q, scale))


def test_sums_beyond_int32(impl):
    k = 70_000
    w = ec.CSRWeight.from_arrays(np.full(k, 127, np.int8), np.arange(k), [0, k], (1, k), np.ones(1, f))
    for m in (1, 17):
        x = np.full((m, k), 255, f)
        assert_bits(ec.linear(x, w), np.full((m, 1), f(255 * 127 * k)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(impl, layout):
    x, w = rng.standard_normal((19, 65)).astype(f), matrix(33, 65, 0.2)
    for bits_ in (None, 8):
        assert_bits(ec.linear(LAYOUTS[layout](x), ec.to_csr(w, bits_)), ec.linear(x, ec.to_csr(w, bits_)))


def test_power_law_rows(impl):
    """One row holds half of the entries."""
    w = matrix(300, 2000, 0.01)
    w[17] = rng.standard_normal(2000)
    for m in (1, 5, 40):
        x = rng.standard_normal((m, 2000)).astype(f)
        close(ec.linear(x, ec.to_csr(w)), x, w)


def test_float32_compute_and_int8_output(impl):
    x, w = rng.standard_normal((4, 64)).astype(f), ec.to_csr(matrix(20, 64, 0.4), 8)
    close(ec.linear(x, w, compute="float32"), x, w.dequantize())
    y = ec.linear(x, w)
    wanted = np.clip(np.rint(y / f(0.05)) + 3, -128, 127).astype(np.int8)
    np.testing.assert_array_equal(ec.linear(x, w, out_dtype="int8", out_scale=0.05, out_zero=3), wanted)
    with pytest.raises(ValueError, match="wants quantized weights"):
        ec.linear(x, ec.to_csr(matrix(20, 64, 0.4)), compute="int8")
    with pytest.raises(ValueError, match="group_size=32, w has None"):
        ec.linear(ec.quantize_rows(x, group_size=32), w)


def test_spmm(impl):
    sparse = pytest.importorskip("scipy.sparse")
    a, b = matrix(20, 30, 0.2), rng.standard_normal((30, 19)).astype(f)
    w = ec.to_csr(a)
    y = ec.spmm(w, b)
    assert y.flags.c_contiguous
    close(y.T, b.T, a)
    assert_bits(ec.spmm(sparse.csr_array(a), b), y)
    assert_bits(ec.spmm(sparse.coo_array(a), b.astype(np.float64)), y)
    out = filled((20, 19))
    assert ec.spmm(w, b, out=out, threads=1) is out
    assert_bits(out, y)
    assert ec.spmm(w, b[:, 0]).shape == (20,)
    assert_bits(ec.spmm(ec.to_csr(a, 8), b), np.ascontiguousarray(ec.linear(b.T, ec.to_csr(a, 8)).T))
    assert ec.spmm(w, b[:, :0]).shape == (20, 0)


@pytest.mark.parametrize("bits_", [None, 8])
def test_spmm_has_the_bits_of_linear(impl, bits_):
    for m, density in ((1, 0.3), (2, 0.1), (9, 0.5), (33, 0.3), (70, 0.02), (130, 0.5), (200, 0.1)):
        a, wide = ec.to_csr(matrix(90, 300, density), bits_), rng.standard_normal((300, m + 3)).astype(f)
        b = wide[:, 2 : 2 + m]
        wanted = np.ascontiguousarray(ec.linear(b.T, a).T)
        for given in (b, np.ascontiguousarray(b), np.asfortranarray(b), wide[::-1][::-1, 2 : 2 + m]):
            for threads in (1, 3):
                assert_bits(ec.spmm(a, given, threads=threads), wanted)
        y, untouched = padded_output(90, m)
        assert ec.spmm(a, b, out=y) is y
        assert_bits(np.ascontiguousarray(y), wanted)
        assert untouched()


def test_spmm_of_a_scipy_matrix_with_one_vector(impl):
    """Runs on its own arrays: indices in any order, duplicates too, and whatever is dense enough for masks."""
    sparse = pytest.importorskip("scipy.sparse")
    for density in (0.2, 0.9):
        a, b = matrix(20, 70, density), rng.standard_normal(70).astype(f)
        own = sparse.csr_array(a)
        for j in range(20):
            part = slice(own.indptr[j], own.indptr[j + 1])
            own.data[part], own.indices[part] = own.data[part][::-1].copy(), own.indices[part][::-1].copy()
        before = own.data.copy(), own.indices.copy()
        for vector in (b, b[:, None]):
            y = ec.spmm(own, vector)
            assert y.shape == (20, *vector.shape[1:])
            close(y.reshape(1, 20), b[None], a)
        assert_bits(own.data, before[0])
        assert_bits(own.indices, before[1])
        for columns in (2, 16, 17):  # the last: copied and sorted
            close(ec.spmm(own, np.stack([b] * columns, 1)).T, np.stack([b] * columns), a)
    twice = sparse.csr_array((np.array([1, 2], f), [0, 0], [0, 2]), shape=(1, 1))
    assert ec.spmm(twice, np.ones(1, f)).tolist() == [3]
    assert ec.spmm(sparse.csr_array((3, 0), dtype=f), np.ones(0, f)).tolist() == [0, 0, 0]


def test_a_scipy_matrix_stays_the_callers():
    """Writable, whether the product was made or refused."""
    sparse = pytest.importorskip("scipy.sparse")
    a = sparse.csr_array(np.eye(3, dtype=f))
    for b in (np.ones(3, f), np.ones((3, 2), f), np.ones((3, 17), f)):
        assert_bits(ec.spmm(a, b), b)
    with pytest.raises(ValueError, match="b has shape"):
        ec.spmm(a, np.ones(4, f))
    assert all(part.flags.writeable for part in (a.data, a.indices, a.indptr))
    a.data *= 2
    assert ec.spmm(a, np.ones(3, f)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("columns", [(), (1,), (2,)])
def test_spmm_writes_over_no_part_of_a_scipy_matrix(part, columns):
    sparse = pytest.importorskip("scipy.sparse")
    a = sparse.csr_array((np.arange(1, 10, dtype=f), np.arange(9, dtype=np.int32) % 3, np.array([0, 3, 6, 9], np.int32)), shape=(3, 3))
    room, given = np.zeros(20, np.int32), getattr(a, part)
    own = room[: given.size].view(given.dtype)
    own[:] = given
    setattr(a, part, own)
    out = room[given.size - 1 :][: int(np.prod((3, *columns)))]
    before = room.copy()
    with pytest.raises(ValueError, match=r"^spmm: out overlaps an input in memory$"):
        ec.spmm(a, np.ones((3, *columns), f), out=out.view(f).reshape(3, *columns))
    assert_bits(room, before)


def test_a_broken_scipy_matrix_reaches_no_kernel():
    sparse = pytest.importorskip("scipy.sparse")
    for at, wrong, match in ((0, 3, r"indices\[0\] is 3, wanted 0\.\.2"), (1, -1, r"indices\[1\] is -1, wanted 0\.\.2")):
        a = sparse.csr_array(np.eye(3, dtype=f))
        a.indices[at] = wrong
        for b in (np.ones(3, f), np.ones((3, 2), f)):
            with pytest.raises(ValueError, match=match):
                ec.spmm(a, b)
    a = sparse.csr_array(np.eye(3, dtype=f))
    a.indptr[1] = 3
    with pytest.raises(ValueError, match=r"indptr\[2\] is 2, less than indptr\[1\]"):
        ec.spmm(a, np.ones(3, f))
    a = sparse.csr_array(np.eye(3, dtype=f))
    a.data[2] = np.nan
    with pytest.raises(ValueError, match=r"data\[2\] is nan"):
        ec.spmm(a, np.ones(3, f))


def test_what_is_derived_is_counted():
    compiled = str(ec.info()["backend"]) != "reference"
    for bits_, m, density in ((None, 1, 0.3), (None, 1, 0.9), (None, 2, 0.3), (8, 1, 0.9), (8, 2, 0.3)):
        w = ec.to_csr(matrix(40, 300, density), bits_)
        stored = sum(part.nbytes for part in w.arrays().values())
        assert w.nbytes == stored
        x = np.ones((m, 300), f)
        told = "derived at the first call" in str(ec.explain(x, w))  # for one token on some ISAs only
        ec.linear(x, w)
        derived = list(w.derived.values())
        assert len(derived) == told
        assert told or m == 1 or not compiled
        assert w.nbytes == stored + sum(part.nbytes for part in derived)


def test_float32_values_of_int8_are_kept(impl):
    """Once, whoever comes first; told by explain, which derives nothing; in no copy or pickle."""
    dense = matrix(40, 130, 0.4)
    for m in (1, 2, 40):
        w, x = ec.to_csr(dense, 8), rng.standard_normal((m, 130)).astype(f)
        stored, told = w.nbytes, str(ec.explain(x, w, compute="float32"))
        assert "w: its values converted to float32, derived at the first call" in told
        assert (w.nbytes, w.derived) == (stored, {})
        with ThreadPoolExecutor(4) as executor:
            wanted, *others = executor.map(lambda _, x=x, w=w: ec.linear(x, w, compute="float32"), range(8))
        for y in others:
            assert_bits(y, wanted)
        values = w.as_float32()
        assert_bits(ec.linear(x, values), wanted)
        assert w.as_float32() is values is values.as_float32()
        assert np.shares_memory(values.indices, w.indices)
        assert w.nbytes == stored + 4 * w.nnz + sum(part.nbytes for part in values.derived.values())
        assert str(ec.explain(x, w, compute="float32")) == told
        for other in (copy.copy(w), copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
            assert (other.nbytes, other.derived) == (stored, {})


def test_bytes_of_an_entry():
    """At 90 % zeros the int8 form is less than 0.32 of dense int8, indices and all."""
    w = np.zeros((64, 4000), f)
    w[:, ::10] = rng.standard_normal((64, 400))
    w8 = ec.to_csr(w, 8)
    assert w8.nbytes < 0.32 * ec.quantize(w).nbytes
    assert w8.nbytes == 3 * w8.nnz + 8 * 64 + 4


def test_spmm_refused():
    a = ec.to_csr(np.eye(3, dtype=f))
    with pytest.raises(TypeError, match="spmm: a is a ndarray, wanted a CSRWeight"):
        ec.spmm(np.eye(3, dtype=f), np.ones((3, 2), f))
    with pytest.raises(ValueError, match=r"spmm: b has shape \(2, 2\), a takes \[3, M\]"):
        ec.spmm(a, np.ones((2, 2), f))
    with pytest.raises(ValueError, match="spmm: out has shape"):
        ec.spmm(a, np.ones((3, 2), f), out=np.ones((2, 3), f))
    square = np.ones((3, 3), f)
    with pytest.raises(ValueError, match="spmm: out overlaps an input"):
        ec.spmm(a, square, out=square)
    with pytest.raises(ValueError, match="spmm: threads"):
        ec.spmm(a, square, threads=0)


def test_explain():
    x, w = np.zeros((4, 64), f), matrix(4, 64, 0.5)
    assert ec.explain(x, ec.to_csr(w)).op == "spmm_csr"
    in_c = str(ec.info()["backend"]).startswith("c")
    blocks = "blocks of rows"
    for rows, how in ((1, "mask|as it is stored"), (4, f"mask|{blocks}"), (20, blocks), (40, f"blocks of inputs of pairs|{blocks}")):
        notes = str(ec.explain(np.zeros((rows, 64), f), ec.to_csr(w)))
        assert re.search(how if in_c else "row by row, as it is stored", notes), notes
    e = ec.explain(x, ec.to_csr(w, 8))
    assert e.op == "spmm_csr8"
    assert "x: quantised to uint8 per row" in e.notes
    e = ec.explain(x, ec.to_csr(w, 8), compute="float32")
    assert e.op == "spmm_csr"
    assert "converted to float32, derived at the first call" in str(e)
    sparse = pytest.importorskip("scipy.sparse")
    assert "does it once" in str(ec.explain(x, sparse.csr_array(w)))


def test_pairs_of_rows(impl):
    """More than 32 rows of x: widths of every kind, odd numbers of rows, rows alike and rows without anything in common."""
    for m, n, k, density in ((33, 1, 70, 1.0), (49, 7, 130, 0.5), (96, 131, 57, 0.3), (129, 260, 200, 0.2), (200, 64, 65, 0.9)):
        x, bias, w = rng.standard_normal((m, k)).astype(f), rng.standard_normal(n).astype(f), matrix(n, k, density)
        w[: n // 2 : 2, ::2] = 0
        w[1 : n // 2 : 2, 1::2] = 0
        y, untouched = padded_output(m, n)
        ec.linear(x, ec.to_csr(w), bias, out=y)
        close(y, x, w, bias)
        assert untouched()
        for threads in (1, 3):
            assert_bits(ec.linear(x, ec.to_csr(w), bias, threads=threads), np.ascontiguousarray(y))
        assert_bits(ec.linear(x, ec.to_csr(w), bias, activation="relu"), np.where((y > 0), y, f(0)))


def test_a_weight_keeps_what_every_isa_derived():
    """Another ISA reads another form: both stay beside the weight, and give what they gave."""
    dense, x = matrix(80, 200, 0.4), rng.standard_normal((70, 200)).astype(f)
    w, w8, wanted, found = ec.to_csr(dense), ec.to_csr(dense, 8), filled((70, 80)), {}
    reference.spmm_csr8(x, w8, None, None, wanted)
    for name in 2 * [name for name in ALL if name.startswith("c:")]:
        with use(name):
            y = ec.linear(x, w)
            assert_bits(y, found.setdefault(name, y))
            assert_bits(ec.linear(x, w8), wanted)


@pytest.mark.parametrize("impl", [name for name in ALL if name.startswith("c:")])
def test_threads_that_meet_at_the_first_call(impl, monkeypatch):
    """One makes what C reads of a weight while another does, and derives: both find what was derived, and so do later calls."""
    from edgecomp import _c_backend

    vector = _c_backend._vector
    for m in (1, 2, 5, 40):
        dense, x = matrix(80, 200, 0.4), rng.standard_normal((m, 200)).astype(f)
        w = ec.to_csr(dense)

        def meet(a, w=w, x=x):
            monkeypatch.setattr(_c_backend, "_vector", vector)
            with ThreadPoolExecutor(1) as executor:
                executor.submit(ec.linear, x, w).result()
            return vector(a)

        with use(impl):
            wanted = ec.linear(x, ec.to_csr(dense))
            monkeypatch.setattr(_c_backend, "_vector", meet)
            for _ in range(2):
                assert_bits(ec.linear(x, w), wanted)
                assert_bits(ec.spmm(w, np.ascontiguousarray(x.T)), np.ascontiguousarray(wanted.T))
