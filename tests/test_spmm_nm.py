"""spmm_nm, spmm_nm8: linear with N:M weights. Every bit of the int8 form is promised."""

import itertools
import pickle
import weakref

import numpy as np
import pytest
from cases import EXACT, LAYOUTS, SPECIAL, assert_bits, bits
from guard import filled, padded_output
from naive import linear_int8

import edgecomp as ec
from edgecomp import backend, reference
from edgecomp.nm import NOTHING_DERIVED

f = np.float32
rng = np.random.default_rng(12)
SHAPES = [
    (0, 5, 40), (1, 1, 1), (1, 33, 64), (2, 5, 0), (3, 0, 7), (3, 32, 65), (5, 70, 100), (8, 31, 256), (9, 64, 130), (17, 129, 300),
    (65, 40, 1300), (40, 5, 0),
]  # fmt: skip
FORMS = [("2:4", 1), ("2:4", 16), ("1:4", 16), ("3:7", 32), ("4:8", 64), ("1:16", 1), ("1:1", 16)]


def pruned(n, k, pattern, block):
    return ec.prune(rng.standard_normal((n, k)).astype(f), pattern=pattern, block=block)


def close(y, x, w, bias=None):
    wide, size = x.astype(np.float64), np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T
    wanted = wide @ w.astype(np.float64).T
    if bias is not None:
        wanted, size = wanted + bias, size + np.abs(bias)
    assert (np.abs(y - wanted) <= (x.shape[1] + 3) * 2.0**-24 * size + 1e-44).all()


@pytest.mark.parametrize(("pattern", "block"), FORMS)
def test_shapes(impl, pattern, block):
    for m, n, k in SHAPES:
        x, bias, w = rng.standard_normal((m, k)).astype(f), rng.standard_normal(n).astype(f), pruned(n, k, pattern, block)
        y, untouched = padded_output(m, n)
        assert ec.linear(x, ec.to_nm(w, pattern, block), bias, out=y) is y
        close(y, x, w, bias)
        assert untouched()
        y, untouched = padded_output(m, n)
        ec.linear(x, ec.to_nm(w, pattern, block, 8), bias, out=y)
        wanted = filled((m, n))
        reference.gemm_s8c(x, ec.quantize(w), bias, None, wanted)
        assert_bits(y, wanted, (m, n, k))
        assert untouched()


@pytest.mark.parametrize(("pattern", "block"), [("2:4", 16), ("3:7", 64)])
def test_many_rows_of_float32(impl, pattern, block):
    """Around what tokens in the lanes come in: 32, 48, and 256 of a chunk."""
    w, bias = pruned(530, 270, pattern, block), rng.standard_normal(530).astype(f)
    form = ec.to_nm(w, pattern, block)
    for m in (29, 30, 32, 33, 48, 49, 255, 272, 273, 290):
        x = rng.standard_normal((m, 270)).astype(f)
        y, untouched = padded_output(m, 530)
        ec.linear(x, form, bias, out=y)
        close(y, x, w, bias)
        assert untouched()
        for activation in ("relu", "hardswish"):
            assert_bits(ec.linear(x, form, bias, activation=activation), reference.ACTIVATIONS[activation](ec.linear(x, form, bias)))


@pytest.mark.parametrize("block", [1, 16])
def test_int8_is_what_plain_loops_give(impl, block):
    x, w = rng.standard_normal((5, 30)).astype(f), pruned(20, 30, "2:4", block)
    q = ec.quantize(w)
    assert_bits(ec.linear(x, ec.to_nm(w, "2:4", block, 8)), linear_int8(x, q.q, q.scale))


@pytest.mark.parametrize("bits_", [None, 8])
@pytest.mark.parametrize("block", [1, 16, 64])
def test_threads_give_the_same_bits(impl, bits_, block):
    for m in (1, 70):
        x, w = rng.standard_normal((m, 1500)).astype(f), ec.to_nm(pruned(300, 1500, "2:4", block), "2:4", block, bits_)
        wanted = ec.linear(x, w, threads=1)
        for threads in (2, 3, 5):
            assert_bits(ec.linear(x, w, threads=threads), wanted)


@pytest.mark.parametrize("block", [1, 32])
def test_int8_row_alone_and_in_a_batch(impl, block):
    x, w = rng.standard_normal((40, 200)).astype(f), ec.to_nm(pruned(70, 200, "3:7", block), "3:7", block, 8)
    whole = ec.linear(x, w)
    for i in range(len(x)):
        assert_bits(ec.linear(x[i], w), whole[i])
    assert_bits(ec.linear(ec.quantize_rows(x), w), whole)
    assert_bits(ec.linear(ec.quantize_rows(x[:1]), w), whole[:1])


@pytest.mark.parametrize("activation", EXACT)
def test_activations_that_are_exact(impl, activation):
    for m in (1, 20):
        x, w, bias = rng.standard_normal((m, 130)).astype(f), pruned(40, 130, "2:4", 16), rng.standard_normal(40).astype(f)
        wanted = filled((m, 40))
        reference.spmm_nm8(x, ec.to_nm(w, "2:4", bits=8), bias, activation, wanted)
        assert_bits(ec.linear(x, ec.to_nm(w, "2:4", bits=8), bias, activation=activation), wanted)
        plain = ec.linear(x, ec.to_nm(w, "2:4"), bias)
        assert_bits(ec.linear(x, ec.to_nm(w, "2:4"), bias, activation=activation), reference.ACTIVATIONS[activation](plain))


def test_transcendental_activation(impl):
    x, w = rng.standard_normal((7, 64)).astype(f), pruned(33, 64, "2:4", 16)
    for bits_ in (None, 8):
        plain = ec.linear(x, ec.to_nm(w, "2:4", bits=bits_))
        wanted = reference.ACTIVATIONS["gelu"](plain)
        np.testing.assert_allclose(ec.linear(x, ec.to_nm(w, "2:4", bits=bits_), activation="gelu"), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 16])
def test_non_finite_rows(impl, block):
    """int8: the row is NaN. float32: only what is stored counts."""
    w = np.zeros((3, 40), f)
    w[0, 5], w[1, 8] = 2, 3
    for m in (1, 9):
        for bad in (np.nan, np.inf, -np.inf):
            x = rng.standard_normal((m, 40)).astype(f)
            x[m - 1, 7] = bad  # of a group that stores another input
            x[m - 1, 5] = bad
            y8, y = ec.linear(x, ec.to_nm(w, "1:4", block, 8)), ec.linear(x, ec.to_nm(w, "1:4", block))
            assert (bits(y8[m - 1]) == 0x7FC00000).all()
            assert np.isfinite(y8[: m - 1]).all()
            np.testing.assert_array_equal(y[m - 1, 0], f(bad) * 2)
            assert np.isfinite(y[: m - 1]).all()


@pytest.mark.parametrize("block", [1, 16])
def test_scales_of_every_kind(impl, block):
    scale = np.array([s for s in SPECIAL if np.isfinite(s)], f)
    q = rng.integers(-127, 128, (len(scale), 40)).astype(np.int8)
    w = ec.NMWeight.from_arrays(q, np.zeros((-(-len(q) // block), 40), int), "1:1", q.shape, block=block, scale=scale)
    for m in (1, 3, 20):
        x = rng.standard_normal((m, 40)).astype(f)
        assert_bits(ec.linear(x, w), linear_int8(x, q, scale))


@pytest.mark.parametrize("block", [1, 16])
def test_sums_beyond_int32(impl, block):
    k = 70_000
    w = ec.NMWeight.from_arrays(np.full((1, k), 127, np.int8), np.zeros((1, k), int), "1:1", (1, k), block=block, scale=np.ones(1, f))
    for m in (1, 7):
        x = np.full((m, k), 255, f)
        assert_bits(ec.linear(x, w), np.full((m, 1), f(255 * 127 * k)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(impl, layout):
    x, w = rng.standard_normal((19, 65)).astype(f), pruned(33, 65, "2:4", 16)
    for bits_ in (None, 8):
        assert_bits(ec.linear(LAYOUTS[layout](x), ec.to_nm(w, "2:4", bits=bits_)), ec.linear(x, ec.to_nm(w, "2:4", bits=bits_)))


def test_float32_compute_int8_output_and_spmm(impl):
    for block in (1, 16):
        x, w = rng.standard_normal((4, 64)).astype(f), ec.to_nm(pruned(20, 64, "2:4", block), "2:4", block, 8)
        close(ec.linear(x, w, compute="float32"), x, w.dequantize())
        y = ec.linear(x, w)
        wanted = np.clip(np.rint(y / f(0.05)) + 3, -128, 127).astype(np.int8)
        np.testing.assert_array_equal(ec.linear(x, w, out_dtype="int8", out_scale=0.05, out_zero=3), wanted)
        assert_bits(ec.spmm(w, x.T), np.ascontiguousarray(y.T))
        with pytest.raises(ValueError, match="group_size=32, w has None"):
            ec.linear(ec.quantize_rows(x, group_size=32), w)


AVX512 = {f"c:{isa}" for isa in ("avx512", "avx512vnni", "avx512vbmi", "avx512fp16", "amx")}


def serves(impl, m, pattern, block, bits_):
    """The op that m rows should run."""
    (n, of), own = map(int, pattern.split(":")), "spmm_nm8" if bits_ else "spmm_nm"
    if impl == "reference":
        return own
    if bits_ is None:
        kernel = m > 1 and block > 1 if impl == "numba" else block > 1 or (m <= 24 and impl in AVX512)
        return own if kernel else "spmm_csr"
    if impl != "numba":
        squares = impl == "c:amx"
        pays = not squares or 3 * n <= of or m * n <= 2 * of
        if block == 1:
            window = max(of * ((4 * q + 3) // n - 4 * q // n + 1) for q in range(n))
            reach = {"c:avx2": 16, "c:avx512vbmi": 64, "c:avx512fp16": 64, "c:amx": 64}.get(impl, 0)
            pays = window <= reach and (m * n <= 8 * of or not (squares or (2 * n >= of and impl == "c:avx512fp16")))
        if pays:
            return own
        return "gemm_s8c" if squares or (block == 1 and (m < 16 or 3 * n > of)) else "spmm_csr8"
    pays = 3 * n <= 2 * of
    if pays and (m > 32 if block > 1 else m >= 16 and 64 % of == 0 and backend.current()._module("_tile_nm8").CAN):
        return own
    return "spmm_csr8" if block == 1 and m > 32 and 3 * n <= of else "gemm_s8c"


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:4", "3:7"])
def test_explain(impl, pattern, monkeypatch):
    """What is said to run is what should, and does; nothing is derived by saying so, and what linear derives is said."""
    ran, use = [], backend.current()

    def seen(op, run):
        return lambda *arguments: (ran.append(op), run(*arguments))[1]

    for op in ("spmm_nm", "spmm_nm8", "spmm_csr", "spmm_csr8", "gemm_s8c"):
        monkeypatch.setattr(use, op, seen(op, getattr(use, op)))
    for block, bits_ in itertools.product((1, 16, 64), (None, 8)):
        p = pruned(64, 130, pattern, block)
        for m, compute in itertools.product((1, 8, 24, 25, 128), (None, "float32")):
            w, x, case = ec.to_nm(p, pattern, block, bits_), np.ones((m, 130), f), (m, block, bits_, compute)
            stored = w.nbytes
            e = ec.explain(x, w, compute=compute)
            assert w.nbytes == stored, case
            assert all(getattr(w, name) is None for name in NOTHING_DERIVED), case
            ran.clear()
            ec.linear(x, w, compute=compute)
            assert ran[0] == e.op, case
            assert e.op == serves(impl, m, pattern, block, None if compute else bits_), case
            assert (f"{pattern} run as CSR" in str(e)) == e.op.startswith("spmm_csr"), case
            assert (f"{pattern} run as dense int8" in str(e)) == (e.op == "gemm_s8c"), case
            assert ("derived at the first call" in str(e)) == (w.nbytes > stored), (case, e)
            again = ec.explain(x, w, compute=compute)
            assert (again.op, again.notes) == (e.op, e.notes), case
            assert e.threads >= 1


@pytest.mark.parametrize("block", [1, 16])
def test_float32_values_of_int8_are_kept(impl, block):
    w = ec.to_nm(pruned(40, 130, "2:4", block), "2:4", block, 8)
    stored, x = w.nbytes, rng.standard_normal((40, 130)).astype(f)
    wanted = ec.linear(x, w, compute="float32")
    held, values = w.nbytes, w.as_float32()
    assert held >= stored + values.nbytes > stored
    assert_bits(ec.linear(x, w, compute="float32"), wanted)
    assert_bits(ec.linear(x, values), wanted)
    assert (w.nbytes, w.as_float32()) == (held, values)
    assert values.as_float32() is values
    assert pickle.loads(pickle.dumps(w)).nbytes == stored


@pytest.mark.parametrize("block", [1, 16])
def test_float32_values_that_overflow(impl, block):
    """A scale may be so large: the weight is none that `from_arrays` would take, but runs."""
    q, places = np.array([[127, 1, 127]], np.int8), [[0, 0, 0]]
    w = ec.NMWeight.from_arrays(q, places, "1:2", (1, 6), block=block, scale=np.array([3e38], f))
    for m in (1, 40):
        assert (ec.linear(np.ones((m, 6), f), w, compute="float32") == np.inf).all()


def test_what_a_call_reads_is_held(c, monkeypatch):
    """Two threads at a weight's first call each add up its negative values; the sums of one stay beside the weight, both are read."""
    from edgecomp import _c_backend

    w, x = ec.to_nm(pruned(40, 130, "2:4", 16), "2:4", 16, 8), rng.standard_normal((3, 130)).astype(f)
    wanted, alive = ec.linear(x, w), []
    w = pickle.loads(pickle.dumps(w))

    class Lib:
        def __getattr__(self, name):
            return getattr(own, name)

        def ec_spmm_nm8(self, *args):
            if w.pointers is not None:
                sums = weakref.ref(w.negatives)
                for name in ("negatives", "pointers"):
                    object.__setattr__(w, name, None)
                alive.append(sums() is not None)
            return own.ec_spmm_nm8(*args)

    own = _c_backend.lib
    monkeypatch.setattr(_c_backend, "lib", Lib())
    assert_bits(ec.linear(x, w), wanted)
    assert alive == [True]
