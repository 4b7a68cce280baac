"""The weight objects and QuantizedRows: checked when they are built, frozen, copied, pickled."""

import copy
import pickle
import re
import weakref

import numpy as np
import pytest
from cases import LAYOUTS, assert_bits, problem

import edgecomp as ec

W = problem(0, 17, 33).w
Q = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
SCALE = np.array([0.5, -2, 0], np.float32)
MAKERS = {"dense": lambda: ec.pack(W), "int8": lambda: ec.quantize(W)}
ATTRIBUTES = ("shape", "bits", "density", "nbytes", "layout", "group_size", "scale", "zero")


@pytest.fixture(params=MAKERS)
def weight(request):
    return MAKERS[request.param]()


def same(a, b):
    assert type(a) is type(b)
    assert a.shape == b.shape
    for (name, x), (other, y) in zip(a.arrays().items(), b.arrays().items(), strict=True):
        assert name == other
        assert_bits(x, y, name)


def test_attributes():
    w = ec.quantize(W)
    assert (w.shape, w.bits, w.layout, w.group_size, w.zero) == ((17, 33), 8, "n16k4", None, None)
    assert w.nbytes == 2 * 9 * 64 + 2 * 16 * 8 == sum(a.nbytes for a in w.arrays().values())
    assert repr(w) == "Int8Weight(17x33, 8 bits, n16k4, 1408 bytes)"
    assert (w.scale.shape, w.scale.dtype, w.q.shape, w.q.dtype) == ((17,), np.float32, (17, 33), np.int8)
    d = ec.pack(W)
    assert (d.shape, d.bits, d.layout, d.group_size, d.scale, d.zero) == ((17, 33), 32, "n16", None, None, None)
    assert d.nbytes == 2 * 33 * 64
    assert repr(d) == "DenseWeight(17x33, 32 bits, n16, 4224 bytes)"


def test_density():
    w = np.zeros((3, 5), np.float32)
    w[0, 1:4] = 1
    for weight in (ec.pack(w), ec.quantize(w)):
        assert weight.density == 3 / 15
    for shape in ((0, 5), (5, 0), (0, 0)):
        assert ec.pack(np.ones(shape, np.float32)).density == 1.0


@pytest.mark.parametrize("rows", [None, slice(2, 5), [0, 16, 3], np.array([1]), slice(0, 0)])
def test_dequantize(rows):
    chosen = slice(None) if rows is None else rows
    assert_bits(ec.pack(W).dequantize(rows), W[chosen])
    w = ec.quantize(W)
    assert_bits(w.dequantize(rows), (w.q * w.scale[:, None])[chosen])


def test_is_frozen(weight):
    for name in (*ATTRIBUTES, *weight.arrays(), "pointers", "anything"):
        with pytest.raises(AttributeError):
            setattr(weight, name, None)
        with pytest.raises(AttributeError):
            delattr(weight, name)
    for name, a in weight.arrays().items():
        with pytest.raises(ValueError, match="read-only"):
            a[...] = 0
        assert not getattr(weight, name).flags.writeable
    assert weight.scale is None or not weight.scale.flags.writeable
    assert not hasattr(weight, "__dict__")


def test_is_not_made_by_calling_its_class(weight):
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError, match=f"^{type(weight).__name__} is made by edgecomp"):
            type(weight)(*arguments)


def test_is_equal_to_itself_only(weight):
    twin = copy.copy(weight)
    assert weight == weight
    assert weight != twin
    assert len({weight, twin, weight}) == 2
    assert hash(weight) == hash(weight)
    assert weakref.ref(weight)() is weight


DUPLICATE = {"copy": copy.copy, "deepcopy": copy.deepcopy} | {
    f"pickle {p}": lambda w, p=p: pickle.loads(pickle.dumps(w, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", DUPLICATE.values(), ids=DUPLICATE)
def test_copies_and_pickles(impl, weight, duplicate, used):
    x, _, bias = problem(5, 17, 33)
    y = ec.linear(x, weight, bias)
    if not used:
        weight = MAKERS["dense" if weight.bits == 32 else "int8"]()
    twin = duplicate(weight)
    same(twin, weight)
    for a in twin.arrays().values():
        assert not a.flags.writeable
    assert_bits(ec.linear(x, twin, bias), y)


def test_a_deep_copy_shares_nothing(weight):
    for a, b in zip(copy.deepcopy(weight).arrays().values(), weight.arrays().values(), strict=True):
        assert not np.shares_memory(a, b)


def test_holds_no_caller_array():
    q, scale, w = Q.copy(), SCALE.copy(), W.copy()
    int8, dense = ec.Int8Weight.from_arrays(q, scale), ec.pack(w)
    q[...], scale[...], w[...] = 0, 0, 0
    assert_bits(int8.q, Q)
    assert_bits(int8.scale, SCALE)
    assert_bits(dense.dequantize(), W)


def calls_with_callers_arrays():
    """Every constructor, with arrays that it could keep as they are: name, call, arrays."""
    f, ints = np.float32, np.int32
    w, q, scale, grouped = W.copy(), Q.copy(), SCALE.copy(), np.ones((3, 1), f)
    x, order, codes = np.ones((2, 4), f), np.arange(4, dtype=ints), Q.view(np.uint8) % 16
    csr = np.ones(3, f), np.arange(3, dtype=np.uint16), np.arange(4, dtype=ints)
    kept, places = np.ones((16, 2), f), np.tile(np.array([0, 1], np.uint8), (16, 1))
    rows, one, zero = np.zeros((2, 4), np.uint8), np.ones(2, f), np.zeros(2, np.uint8)
    out, bias, permuted = np.empty((2, 3), f), np.zeros(3, f), ec.Int4Weight.from_arrays(q, grouped, permutation=order)
    blocks = np.zeros(18, np.uint8)
    yield "pack", lambda: ec.pack(w), (w,)
    yield "quantize", lambda: (ec.quantize(w), ec.quantize(w, bits=4), ec.quantize(w, group_size=32)), (w,)
    yield "to_csr", lambda: (ec.to_csr(w), ec.to_csr(w, 8)), (w,)
    yield "to_nm", lambda: ec.to_nm(kept, "2:2"), (kept,)
    yield "Int8Weight", lambda: ec.Int8Weight.from_arrays(q, scale), (q, scale)
    yield "Int4Weight", lambda: ec.Int4Weight.from_arrays(q, grouped, permutation=order), (q, grouped, order)
    yield "Int4Weight, zero", lambda: ec.Int4Weight.from_arrays(codes, grouped, codes[:, :1]), (codes, grouped)
    yield "Int4Weight, offset", lambda: ec.Int4Weight.from_arrays(codes, grouped, offset=grouped), (codes, grouped)
    yield "Int4Weight, Q4_0", lambda: ec.Int4Weight.from_gguf_q4_0(blocks, (1, 32)), (blocks,)
    yield "GroupedInt8Weight", lambda: ec.GroupedInt8Weight.from_arrays(q, grouped, permutation=order), (q, grouped, order)
    yield "CSRWeight", lambda: ec.CSRWeight.from_arrays(*csr, (3, 3)), csr
    yield "NMWeight", lambda: ec.NMWeight.from_arrays(kept, places, "2:4", (16, 4)), (kept, places)
    yield "QuantizedRows", lambda: ec.QuantizedRows(rows, one, zero), (rows, one, zero)
    yield "linear", lambda: ec.linear(x, permuted, bias, out=out), (x, bias, out)
    yield "linear, float32", lambda: ec.linear(x, w[:3, :4], bias, out=out), (x, bias, out)


@pytest.mark.parametrize(("call", "given"), [pytest.param(*rest, id=name) for name, *rest in calls_with_callers_arrays()])
def test_the_callers_arrays_stay_writable(call, given):
    call()
    assert all(a.flags.writeable for a in given)


def test_huge_scales():
    """Imported scales are kept, even where the weights they stand for are not."""
    w = ec.Int8Weight.from_arrays(np.array([[1, 2]], np.int8), np.array([3e38]))
    np.testing.assert_array_equal(w.dequantize(), np.array([[3e38, np.inf]], np.float32))


def test_from_arrays():
    w = ec.Int8Weight.from_arrays(Q, SCALE)
    assert_bits(w.q, Q)
    assert_bits(w.scale, SCALE)
    assert_bits(w.dequantize(), Q * SCALE[:, None])  # -0.0 where the scale is zero
    same(ec.Int8Weight.from_arrays(Q, SCALE.astype(np.float64)), w)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_arrays_layouts(layout):
    w = ec.Int8Weight.from_arrays(LAYOUTS[layout](Q), LAYOUTS[layout](SCALE[None])[0])
    same(w, ec.Int8Weight.from_arrays(Q, SCALE))


WRONG = [
    (Q.astype(np.int16), SCALE, TypeError, "q has dtype int16, wanted int8"),
    (Q.astype(np.uint8), SCALE, TypeError, "q has dtype uint8, wanted int8"),
    (Q.tolist(), SCALE, TypeError, "q is a list that NumPy cannot view"),
    (np.ma.array(Q), SCALE, TypeError, "q is a masked array"),
    (Q[0], SCALE, ValueError, "q has shape (4,), wanted [N, K]"),
    (Q[None], SCALE, ValueError, "q has shape (1, 3, 4), wanted [N, K]"),
    (np.array([[0, 0], [0, -128], [0, 0]], np.int8), SCALE, ValueError, "q[1, 1] is -128, wanted -127..127"),
    (np.broadcast_to(np.int8(0), (1, 2**31 // 127 + 1)), SCALE[:1], ValueError, "q has 16909321 columns, at most 16909320"),
    (Q, SCALE[:2], ValueError, "scale has shape (2,), wanted (3,)"),
    (Q, SCALE[:, None], ValueError, "scale has shape (3, 1), wanted (3,)"),
    (Q, np.float32(1), ValueError, "scale has shape (), wanted (3,)"),
    (Q, np.ones(3, np.int32), TypeError, "scale has dtype int32, wanted float32"),
    (Q, np.array([1, np.nan, 1], np.float32), ValueError, "scale[1] is not finite"),
    (Q, np.array([1, 1, -np.inf], np.float32), ValueError, "scale[2] is not finite"),
    (Q, np.full(3, 1e39), ValueError, "scale has finite float64 values beyond float32's range"),
]


@pytest.mark.parametrize(("q", "scale", "error", "message"), WRONG, ids=[w[3][:40] for w in WRONG])
def test_from_arrays_refuses(q, scale, error, message):
    with pytest.raises(error, match="^" + re.escape(f"Int8Weight.from_arrays: {message}")):
        ec.Int8Weight.from_arrays(q, scale)


def test_quantized_rows():
    x = problem(6, 0, 9).x
    xq = ec.quantize_rows(x)
    assert_bits(xq.dequantize(), (xq.q.astype(np.float32) - xq.zero[:, None]) * xq.scale[:, None])
    assert repr(xq) == "QuantizedRows(6x9)"
    for twin in (copy.copy(xq), copy.deepcopy(xq), pickle.loads(pickle.dumps(xq)), ec.QuantizedRows(xq.q, xq.scale, xq.zero)):
        for name in ("q", "scale", "zero"):
            assert_bits(getattr(twin, name), getattr(xq, name))
    for name in ("q", "scale", "zero", "shape", "anything"):  # what C reads has the shapes that were checked
        with pytest.raises(AttributeError):
            setattr(xq, name, None)
        with pytest.raises(AttributeError):
            delattr(xq, name)


CODES, ZERO = np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("q", "scale", "zero", "error", "message"),
    [
        (CODES.astype(np.int8), np.ones(2, np.float32), ZERO, TypeError, "q has dtype int8, zero uint8, wanted uint8"),
        (CODES, np.ones(2, np.float32), ZERO.astype(np.int32), TypeError, "q has dtype uint8, zero int32, wanted uint8"),
        (CODES, np.ones(2, int), ZERO, TypeError, "scale has dtype int64, wanted float32"),
        (CODES, np.ones(3, np.float32), ZERO, ValueError, "q has shape (2, 3), scale (3,), zero (2,)"),
        (CODES, np.ones(2, np.float32), ZERO[:1], ValueError, "q has shape (2, 3), scale (2,), zero (1,)"),
        (CODES[0, 0], np.ones((), np.float32), ZERO[0], ValueError, "q has shape (), scale (), zero ()"),
        (CODES, np.ones(2, np.float32), None, TypeError, "wanted zero (one scale per row) or group_size"),
    ],
)
def test_quantized_rows_refuses(q, scale, zero, error, message):
    with pytest.raises(error, match="^" + re.escape(f"QuantizedRows: {message}")):
        ec.QuantizedRows(q, scale, zero)


@pytest.mark.parametrize(
    ("q", "scale", "size", "message"),
    [
        (CODES, np.ones((2, 1), np.float32), 16, "q has dtype uint8, wanted int8 with groups"),
        (CODES.view(np.int8), np.ones((2, 2), np.float32), 16, "q has shape (2, 3), scale (2, 2); wanted [..., K] and (2, 1)"),
        (np.full((2, 3), -128, np.int8), np.ones((2, 1), np.float32), 16, "q has -128"),
        (CODES.view(np.int8), np.ones((2, 1), np.float32), 0, "group_size is 0"),
    ],
)
def test_quantized_groups_refuse(q, scale, size, message):
    with pytest.raises((TypeError, ValueError), match="^" + re.escape(f"QuantizedRows: {message}")):
        ec.QuantizedRows(q, scale, group_size=size)


def test_quantized_groups():
    xq = ec.quantize_rows(problem(6, 0, 40).x, group_size=16)
    assert repr(xq) == "QuantizedRows(6x40, group_size=16)"
    assert xq.scale.shape == (6, 3)
    twin = pickle.loads(pickle.dumps(xq))
    assert_bits(twin.dequantize(), xq.dequantize())
    assert np.abs(xq.dequantize() - problem(6, 0, 40).x).max() <= xq.scale.max() / 2
