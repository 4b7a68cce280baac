"""Int4Weight and GroupedInt8Weight: records, quantize, and other libraries' arrays without loss."""

import copy
import fractions
import pickle
import re

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import ggml_records, packing

f = np.float32
rng = np.random.default_rng(9)


def codes(n, k, bits=4):
    return rng.integers(0, 1 << bits, (n, k)).astype(np.uint8)


def halves(*shape):
    """float16 values of every size and sign, subnormal and zero too."""
    h = rng.integers(0, 1 << 16, shape).astype(np.uint16).view(np.float16)
    return np.where(np.isfinite(h), h, np.float16(0.5))


# ---- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [16, 32, 48, 256])
def test_records_round_trip(bits, group):
    for n, k in ((1, 1), (32, group), (33, group + 1), (70, 3 * group - 7)):
        groups = -(-k // group)
        c, scale, zero = codes(n, k, bits), halves(n, groups), codes(n, groups)
        packed = packing.records(c, scale, zero, None, bits, group)
        assert packed.dtype.itemsize % 64 == 0
        assert packed.ctypes.data % 64 == 0
        np.testing.assert_array_equal(packing.unpack_records(packed, bits, group, np.arange(n), k), c)
        assert packing.unpack_columns(packed, "scale", np.arange(n)).tobytes() == scale.tobytes()
        assert packing.unpack_columns(packed, "zero", np.arange(n)).tobytes() == zero.tobytes()


def test_where_a_code_stands():
    c = codes(40, 48)
    w = ec.Int4Weight.from_arrays(c, np.ones((40, 3), f), offset=np.zeros((40, 3), f), group_size=16)
    for j, i in ((0, 0), (3, 5), (31, 16), (32, 47), (39, 20)):
        at = i % 16
        byte = w.records[j // 32, i // 16]["codes"][at // 8, j % 32, at % 4]
        assert byte >> (4 if at & 4 else 0) & 15 == c[j, i]


def test_properties():
    w = ec.Int4Weight.from_arrays(codes(40, 70), halves(40, 3), codes(40, 3))
    assert (w.bits, w.group_size, w.layout, w.shape, w.scale.dtype, w.zero.dtype) == (4, 32, "n32g32", (40, 70), np.float16, np.uint8)
    assert w.nbytes == 2 * 3 * (128 + 512)
    for twin in (pickle.loads(pickle.dumps(w)), copy.copy(w), copy.deepcopy(w)):
        assert_bits(twin.dequantize(), w.dequantize())
        assert twin.records.ctypes.data % 64 == 0
    for rows in (slice(3, 5), [39, 0, -1], np.array([[1, 2], [33, 4]]), 7, np.arange(40) > 30, []):
        assert_bits(w.dequantize(rows), w.dequantize()[rows])
    with pytest.raises(IndexError):
        w.dequantize([40])
    with pytest.raises(AttributeError, match="frozen"):
        w.group_size = 3
    with pytest.raises(ValueError, match="read-only"):
        w.records["codes"][...] = 0


def test_values_are_rounded_once():
    """Offsets in float32: scale * code + offset, as exact fractions, rounded to float32."""
    c = codes(8, 64)
    scale, offset = (rng.standard_normal((8, 2)) * 10.0 ** rng.integers(-9, 9, (8, 2))).astype(f), rng.standard_normal((8, 2)).astype(f)
    got = ec.Int4Weight.from_arrays(c, scale, offset=offset).dequantize()
    for j in range(8):
        for i in range(64):
            exact = fractions.Fraction(float(scale[j, i // 32])) * int(c[j, i]) + fractions.Fraction(float(offset[j, i // 32]))
            near = [np.nextafter(got[j, i], f(s)) for s in (-np.inf, np.inf)]
            assert all(abs(fractions.Fraction(float(got[j, i])) - exact) <= abs(fractions.Fraction(float(v)) - exact) for v in near)


# ---- quantize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [16, 32, 128, None])
def test_error_is_at_most_half_a_step(bits, symmetric, group):
    if bits == 8 and group is None:
        return
    a = rng.standard_normal((40, 300)).astype(f)
    for dtype in ("float16", "float32"):
        w = ec.quantize(a, bits=bits, group_size=group, symmetric=symmetric, scale_dtype=dtype)
        step = np.repeat(w.scale.astype(f), w.group_size, axis=1)[:, :300]
        slack = 1.2 if dtype == "float16" or not symmetric else 1.0001  # a scale rounded down clips; a zero point is rounded too
        assert (np.abs(w.dequantize() - a) <= step * 0.5 * slack + 8 * step * 2**-11).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_better_on_heavy_tails(symmetric):
    a = rng.standard_t(3, (64, 512)).astype(f)
    error = [((ec.quantize(a, bits=4, symmetric=symmetric, method=m).dequantize() - a) ** 2).sum() for m in ("absmax", "mse")]
    assert error[1] < 0.97 * error[0]


def test_scales_fall_back_to_float32():
    big = np.full((2, 32), 1e6, f)
    assert ec.quantize(big, bits=4).scale.dtype == np.float32
    assert ec.quantize(big / f(1e6), bits=4).scale.dtype == np.float16
    with pytest.raises(ValueError, match="float16's normal range"):
        ec.quantize(big, bits=4, scale_dtype="float16")
    with pytest.raises(ValueError, match="float16's normal range"):
        ec.quantize(big * f(1e-12), bits=4, scale_dtype="float16")


@pytest.mark.parametrize("dtype", ["float16", np.float16, np.dtype(np.float16), "float32", np.float32])
def test_scale_dtype_is_any_name_numpy_knows(dtype):
    w = ec.quantize(np.ones((2, 64), f), bits=4, scale_dtype=dtype)
    assert w.scale.dtype == np.dtype(dtype)
    assert ec.Int4Weight.from_arrays(w.q, w.scale.astype(f), scale_dtype=dtype).scale.dtype == np.dtype(dtype)


def test_groups_of_zeros_have_scale_one():
    w = ec.quantize(np.zeros((3, 64), f), bits=4)
    assert (w.scale == 1).all()
    assert not w.dequantize().any()


# ---- other libraries' arrays --------------------------------------------------------------------------------------------


def exact(product, offset=None):
    """float64 arrays that hold the exact value of float16 arithmetic, rounded once."""
    return (product if offset is None else product + offset).astype(f)


def test_gguf():
    n, k = 5, 96
    d, m, nibbles = halves(n, 3), halves(n, 3), codes(n, k)
    raw = nibbles.reshape(n, 3, 2, 16)
    packed = raw[:, :, 0] | raw[:, :, 1] << 4
    wide = np.repeat(d.astype(np.float64), 32, 1)
    q4_0 = np.concatenate([d[..., None].view(np.uint8), packed], axis=2)
    assert_bits(ec.Int4Weight.from_gguf_q4_0(q4_0, (n, k)).dequantize(), exact((nibbles.astype(np.float64) - 8) * wide))
    q4_1 = np.concatenate([d[..., None].view(np.uint8), m[..., None].view(np.uint8), packed], axis=2)
    wanted = exact(nibbles * wide, np.repeat(m.astype(np.float64), 32, 1))
    np.testing.assert_array_equal(ec.Int4Weight.from_gguf_q4_1(q4_1.reshape(-1), (n, k)).dequantize(), wanted)
    bytes_ = rng.integers(-128, 128, (n, k)).astype(np.int8)
    q8_0 = np.concatenate([d[..., None].view(np.uint8), bytes_.reshape(n, 3, 32).view(np.uint8)], axis=2)
    assert_bits(ec.GroupedInt8Weight.from_gguf_q8_0(q8_0, (n, k)).dequantize(), exact(bytes_ * wide))


def pack_words(c):
    """uint8 codes [A, 8] to int32 words, lowest first."""
    return (c.astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)).sum(axis=-1, dtype=np.uint32).view(np.int32)


@pytest.mark.skipif(ggml_records.lib is None, reason="the C library was not built")
@pytest.mark.parametrize(("bits", "offset"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize(("n", "groups"), [(1, 1), (31, 3), (32, 2), (33, 5), (100, 1)])
def test_gguf_records_without_c(bits, offset, n, groups, monkeypatch):
    """NumPy's records are those of C, whose test is in tests/c."""
    size = ggml_records.block_dtype(bits, offset).itemsize
    blocks = rng.integers(0, 256, (n, groups, size)).astype(np.uint8)
    blocks[..., [1, 3] if offset else [1]] &= 0xBB  # no exponent of Inf or NaN
    for finite in (True, False):
        if not finite:
            blocks[n - 1, groups // 2, 3 if offset else 1] = 0x7C
        by_c = ggml_records.records(blocks, bits, offset)
        with monkeypatch.context() as patched:
            patched.setattr(ggml_records, "lib", None)
            by_numpy = ggml_records.records(blocks, bits, offset)
        assert by_c[0].tobytes() == by_numpy[0].tobytes()
        assert by_c[1] == by_numpy[1] == finite


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("plus_one", [False, True])
def test_gptq(act_order, plus_one):
    k, n, group = 128, 16, 32
    q, z, s = codes(k, n), codes(4, n), halves(4, n)
    g_idx = rng.permutation(np.arange(k) // group).astype(np.int32) if act_order else np.arange(k) // group
    qweight = pack_words(q.reshape(k // 8, 8, n).transpose(0, 2, 1))
    qzeros = pack_words(z.reshape(4, n // 8, 8))
    w = ec.Int4Weight.from_gptq(qweight, qzeros, s, g_idx, zero_plus_one=plus_one)
    wanted = exact((q.astype(np.float64) - (z[g_idx].astype(np.float64) + plus_one)) * s[g_idx])
    np.testing.assert_array_equal(w.dequantize(), wanted.T)
    assert (w.permutation is not None) == act_order
    x = rng.standard_normal((3, k)).astype(f)
    tidy = np.abs(s.astype(f)).max() < 1e3
    np.testing.assert_allclose(ec.linear(x, w, compute="float32"), x @ wanted, rtol=1e-3, atol=1 if tidy else 1e3)


@pytest.mark.parametrize(("k", "group"), [(192, 96), (192, 128), (176, 96), (96, 48), (96, 80)])
def test_group_size(k, group):
    """A last group that is short does not tell how long the others are: g_idx or group_size does, else K / groups."""
    groups, n = -(-k // group), 8
    s, zeros, g_idx = halves(groups, n), np.zeros((groups, 1), np.int32), np.arange(k) // group
    wanted = exact(np.repeat(s.astype(np.float64), group, axis=0)[:k] * -1).T
    gptq, awq = (np.zeros((k // 8, n), np.int32), zeros, s), (np.zeros((k, 1), np.int32), zeros + np.int32(0x11111111), s)
    for w in (
        W4.from_gptq(*gptq, g_idx),
        W4.from_gptq(*gptq, rng.permutation(g_idx)),
        W4.from_gptq(*gptq, group_size=group),
        W4.from_awq(*awq, group_size=group),
    ):
        assert w.group_size == group
        if w.permutation is None:
            assert_bits(w.dequantize(), wanted)
    if k % (16 * groups) == 0:
        assert W4.from_awq(*awq).group_size == k // groups
    else:
        with pytest.raises(ValueError, match=rf"{groups} groups for K = {k} are groups of .*{group}.*: give a group_size"):
            W4.from_awq(*awq)


def test_awq():
    k, n = 64, 24
    q, z, s = codes(k, n), codes(2, n), halves(2, n)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    qweight, qzeros = (pack_words(a.reshape(len(a), n // 8, 8)[..., order]) for a in (q, z))
    w = ec.Int4Weight.from_awq(qweight, qzeros, s)
    zero, scale = (np.repeat(a.astype(np.float64), 32, axis=0) for a in (z, s))
    np.testing.assert_array_equal(w.dequantize(), exact((q - zero) * scale).T)
    plain = ec.Int4Weight.from_awq(pack_words(q.reshape(k, 3, 8)), pack_words(z.reshape(2, 3, 8)), s, order=tuple(range(8)))
    assert_bits(plain.dequantize(), w.dequantize())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", ["none", "packed", "whole floats", "floats"])
def test_matmulnbits(bits, points):
    n, k, block = 6, 80, 32
    groups = 3
    q, s, z = codes(n, 96, bits), halves(n, groups), codes(n, groups, bits)
    blob = q if bits == 8 else q[:, ::2] | q[:, 1::2] << 4
    zero, given = z.astype(np.float64), None
    if points == "none":
        zero[...] = 1 << (bits - 1)
    elif points == "packed":
        odd = np.concatenate([z, np.zeros((n, 1), np.uint8)], axis=1)
        given = z if bits == 8 else odd[:, ::2] | odd[:, 1::2] << 4
    elif points == "whole floats":
        given = z.astype(np.float16)
    else:
        s = (rng.integers(1, 64, (n, groups)) / 64).astype(f)
        zero += 0.5
        given = zero.astype(f)
    weight = ec.Int4Weight if bits == 4 else ec.GroupedInt8Weight
    w = weight.from_matmulnbits(blob.reshape(n, groups, -1), s, given, n=n, k=k, block_size=block)
    wanted = exact((q - np.repeat(zero, 32, 1)) * np.repeat(s.astype(np.float64), 32, 1))[:, :k]
    np.testing.assert_array_equal(w.dequantize(), wanted)


def test_matmulnbits_of_half_scales():
    """A float zero point times a float16 scale is exact in float32 only."""
    s, z = np.full((2, 3), 0.3, np.float16), np.full((2, 3), 7.3, np.float16)
    w = W4.from_matmulnbits(np.zeros((2, 3, 16), np.uint8), s, z, n=2, k=96, block_size=32)
    assert_bits(w.dequantize(), np.full((2, 96), exact(-z.astype(np.float64) * s.astype(np.float64))[0, 0]))


@pytest.mark.parametrize("k", [300, 512])
def test_matmulnbits_of_one_long_block(k):
    q, s = codes(2, 512), halves(2, 1)
    w = W4.from_matmulnbits((q[:, ::2] | q[:, 1::2] << 4).reshape(2, 1, 256), s, n=2, k=k, block_size=512)
    assert_bits(w.dequantize(), exact((q[:, :k] - 8.0) * s.astype(np.float64)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_the_largest_weights_stay_finite(bits, symmetric, method):
    largest = np.finfo(f).max
    w = np.stack([np.full(32, largest), np.full(32, -largest), np.tile([largest, -largest], 16), np.full(32, f(1e38))]).astype(f)
    back = ec.quantize(w, bits, group_size=32, symmetric=symmetric, method=method).dequantize()
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back, w, rtol=0.15 if bits == 4 else 0.01)


def test_mse_goes_on_where_float16_cannot_shrink_the_scale_of_one_group():
    a = rng.standard_t(3, (8, 64)).astype(f)
    small = np.r_[a, np.full((1, 64), 7 * 6.2e-5, f)]  # its scale is barely a normal float16
    assert_bits(ec.quantize(small, 4, method="mse").dequantize()[:8], ec.quantize(a, 4, method="mse").dequantize())


# ---- what is refused -----------------------------------------------------------------------------------------------------

Q, S = np.zeros((2, 64), np.int8), np.ones((2, 2), f)
W4, W8 = ec.Int4Weight, ec.GroupedInt8Weight
PACKED, ZEROS = np.zeros((8, 8), np.int32), np.zeros((2, 1), np.int32)  # GPTQ: 64 inputs, 8 outputs, groups of 32
NBITS = np.zeros((2, 1, 16), np.uint8)


def gguf_block(*floats: float) -> np.ndarray:
    """A block of Q4_0 (its scale) or Q4_1 (scale and minimum), all codes 0."""
    return np.concatenate([np.array(floats, np.float16).view(np.uint8), np.zeros(16, np.uint8)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: W4.from_arrays(Q, S, group_size=0), "group_size is 0, wanted None or a multiple of 16 from 16 to 256"),
        (lambda: W4.from_arrays(Q, S, group_size=24), "group_size is 24"),
        (lambda: W4.from_arrays(Q, S, group_size=512), "group_size is 512"),
        (lambda: W4.from_arrays(Q, S, group_size=True), "group_size is True"),
        (lambda: W4.from_arrays(Q, np.ones((2, 3), f)), r"scale has shape \(2, 3\), wanted \(2, 2\)"),
        (lambda: W4.from_arrays(Q, np.full((2, 2), np.nan, f)), r"scale\[0, 0\] is nan"),
        (lambda: W4.from_arrays(Q, np.full((2, 2), np.inf, np.float16)), r"scale\[0, 0\] is inf"),
        (lambda: W4.from_arrays(Q.view(np.uint8), S, offset=np.full((2, 2), np.nan, f)), r"offset\[0, 0\] is nan"),
        (lambda: W4.from_arrays(Q, S.astype(np.float16), offset=S), "offset has dtype float32, scale float16"),
        (lambda: W4.from_arrays(Q + np.int8(9), S), r"q\[0, 0\] is 9, wanted -8..7"),
        (lambda: W4.from_arrays(Q - np.int8(1), S, np.ones((2, 2), int)), r"q\[0, 0\] is -1, wanted 0..15"),
        (lambda: W4.from_arrays(Q, S, np.full((2, 2), 17)), r"zero\[0, 0\] is 17, wanted 0..16"),
        (lambda: W4.from_arrays(Q, S, np.full((2, 2), -1)), r"zero\[0, 0\] is -1"),
        (lambda: W4.from_arrays(Q, S, S), "zero has dtype float32, wanted integers"),
        (lambda: W4.from_arrays(Q, S, np.ones((2, 2), int), offset=S), "zero and offset are both given"),
        (lambda: W4.from_arrays(Q.astype(f), S), "q has dtype float32, wanted int8"),
        (lambda: W4.from_arrays(Q[0], S), "q has shape"),
        (lambda: W4.from_arrays(Q, S, permutation=np.zeros(64, int)), r"permutation is no permutation of 0..63"),
        (lambda: W4.from_arrays(Q, S * f(1e9), scale_dtype="float16"), "float16's normal range"),
        (lambda: W4.from_arrays(Q, S * f(1e-9), scale_dtype="float16"), "float16's normal range"),
        (lambda: W4.from_arrays(Q, S, scale_dtype="float8"), "scale_dtype is 'float8', wanted"),
        (lambda: W4.from_arrays(Q, S, scale_dtype=np.float64), "scale_dtype is <class 'numpy.float64'>, wanted"),
        (lambda: ec.quantize(np.ones((2, 4), f), bits=4, scale_dtype=int), "scale_dtype is <class 'int'>, wanted"),
        (lambda: W4.from_gguf_q4_0(np.zeros(35, np.uint8), (2, 32)), "blocks has 35 bytes, .* takes 36"),
        (lambda: W4.from_gguf_q4_0(np.zeros(36, np.int8), (2, 32)), "blocks has dtype int8"),
        (lambda: W4.from_gguf_q4_1(np.zeros(40, np.uint8), (2, 33)), "K has to be a multiple of 32"),
        (lambda: W8.from_gguf_q8_0(np.full(34, 255, np.uint8), (1, 32)), r"scale\[0, 0\] is nan"),
        (lambda: W4.from_gguf_q4_0(gguf_block(-np.inf), (1, 32)), r"from_gguf_q4_0: scale\[0, 0\] is -inf"),
        (lambda: W4.from_gguf_q4_1(gguf_block(np.nan, 0), (1, 32)), r"scale\[0, 0\] is nan"),
        (lambda: W4.from_gguf_q4_1(gguf_block(1, np.inf), (1, 32)), r"offset\[0, 0\] is inf"),
        (lambda: W4.from_gptq(PACKED, ZEROS, np.full((2, 8), np.inf, np.float16)), r"from_gptq: scale\[0, 0\] is inf"),
        (lambda: W4.from_awq(np.zeros((64, 1), np.int32), ZEROS, np.full((2, 8), np.nan, f)), r"from_awq: scale\[0, 0\] is nan"),
        (lambda: W4.from_awq(np.zeros((64, 1), np.int32), ZEROS, np.ones((2, 9), f)), "scales has shape"),
        (lambda: W4.from_arrays(Q, S, group_size=-32), "group_size is -32"),
        (lambda: W4.from_arrays(Q, S, group_size=32.0), "group_size is 32.0"),
        (lambda: W4.from_arrays(Q, S, np.ones((2, 3), int)), r"zero has shape \(2, 3\)"),
        (lambda: W4.from_arrays(Q.view(np.uint8), S, offset=np.ones((2, 3), f)), r"offset has shape \(2, 3\)"),
        (lambda: W4.from_arrays(Q.view(np.uint8), S, offset=np.full((2, 2), -np.inf, f)), r"offset\[0, 0\] is -inf"),
        (lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), S[:, :1] * f(np.nan), n=2, k=32, block_size=32), r"scale\[0, 0\] is nan"),
        (
            lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), S[:, :1], np.full((2, 1), np.nan, f), n=2, k=32, block_size=32),
            r"zero_points\[0, 0\] is nan",
        ),
        (lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), np.ones(3, f), n=2, k=32, block_size=32), r"scales has .* shape \(3,\)"),
        (lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), S[:, :1], n=2, k=65, block_size=32), r"wanted uint8 \[2, 3, 16\]"),
        (lambda: W4.from_gptq(np.zeros((8, 8), np.int64), np.zeros((2, 1), np.int32), np.ones((2, 8), f)), "qweight has dtype int64"),
        (lambda: W4.from_gptq(np.zeros((8, 8), np.int32), np.zeros((3, 1), np.int32), np.ones((2, 8), f)), "qzeros has shape"),
        (lambda: W4.from_gptq(np.zeros((8, 8), np.int32), np.zeros((2, 1), np.int32), np.ones((2, 9), f)), "scales has shape"),
        (
            lambda: W4.from_gptq(np.zeros((8, 8), np.int32), np.zeros((2, 1), np.int32), np.ones((2, 8), f), np.zeros(64, int)),
            "g_idx does not deal 64 inputs to 2 groups of 32",
        ),
        (lambda: W4.from_awq(np.zeros((64, 1), np.int32), np.zeros((2, 1), np.int32), np.ones((2, 8), f), order=(0,) * 8), "order is"),
        (lambda: W4.from_awq(np.zeros((64, 1), np.int32), np.zeros((1, 1), np.int32), np.ones((2, 8), f)), "qzeros has shape"),
        (lambda: W4.from_matmulnbits(np.zeros(31, np.uint8), S, n=2, k=32, block_size=32), r"b has dtype uint8 and shape \(31,\)"),
        (lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), S, n=2, k=32, block_size=24), "block_size is 24"),
        (lambda: W4.from_matmulnbits(np.zeros(32, np.uint8), S[:, :1], np.full((2, 1), 1 / 3, f), n=2, k=32, block_size=32), None),
        (lambda: ec.quantize(np.ones((2, 4), f), bits=5), "bits is 5, wanted 8 or 4"),
        (lambda: ec.quantize(np.ones((2, 4), f), bits=4, method="max"), "method is 'max'"),
        (lambda: ec.quantize(np.ones((2, 4), f), symmetric=False), "8 bits per output are symmetric"),
        (lambda: W4(1), "made by edgecomp.quantize"),
        (lambda: ec.quantize(np.ones((2, 4), f), bits=4.0), "bits is 4.0, wanted 8 or 4"),
        (lambda: ec.quantize(np.ones((2, 4), f), np.array([4, 4])), r"bits is array\(\[4, 4\]\)"),
        (lambda: ec.quantize(np.ones((2, 4), f), 4, symmetric="asymmetric"), "symmetric is 'asymmetric', wanted True or False"),
        (lambda: ec.quantize(np.ones((2, 4), f), 4, method=np.array(["mse", "absmax"])), r"method is array"),
        (lambda: W4.from_arrays(Q, S.astype(int), scale_dtype="float16"), "scale has dtype int64, wanted float32"),
        (lambda: W4.from_arrays(Q, S * f(np.nan), scale_dtype="float16"), r"scale\[0, 0\] is nan"),
        (lambda: W4.from_gguf_q4_0(np.zeros(36, np.uint8), (2.7, 32.9)), r"shape is \(2.7, 32.9\), wanted \(N, K\)"),
        (lambda: W4.from_gguf_q4_0(np.zeros(36, np.uint8), (np.inf, 32)), r"shape is \(inf, 32\)"),
        (lambda: W4.from_gptq(PACKED, ZEROS, np.ones((2, 8), f), zero_plus_one="no"), "zero_plus_one is 'no'"),
        (lambda: W4.from_gptq(PACKED, ZEROS, np.ones((2, 8), f), group_size=48.0), "group_size is 48.0"),
        (lambda: W4.from_gptq(PACKED, ZEROS, np.ones((2, 8), f), group_size=64), "2 groups of scales do not fit K = 64 in groups of 64"),
        (lambda: W4.from_gptq(np.zeros((8, 12), np.int32), ZEROS, np.ones((2, 12), f)), "qweight has 12 columns, wanted a multiple of 8"),
        (lambda: W4.from_gptq(np.zeros((0, 8), np.int32), ZEROS, np.ones((2, 8), f)), "2 groups of scales do not fit K = 0"),
        (lambda: W4.from_gptq(PACKED, np.zeros((7, 1), np.int32), np.ones((7, 8), f)), "7 groups of scales do not fit K = 64"),
        (lambda: W4.from_awq(np.zeros((64, 1), np.int32), ZEROS, np.ones((2, 8), f), order=None), "order is None"),
        (lambda: W4.from_matmulnbits(NBITS, S.T[:1], n=2, k=32, block_size=32), r"scales has dtype float32 and shape \(1, 2\)"),
        (lambda: W4.from_matmulnbits(NBITS, S[:, :1], n=2.0, k=32, block_size=32), "n is 2.0, wanted an int"),
        (lambda: W4.from_matmulnbits(NBITS, S[:, :1], n=-2, k=-32, block_size=32), "n is -2, wanted an int"),
        (lambda: W4.from_matmulnbits(NBITS, S[:, :1], n=2, k=513, block_size=512), "block_size is 512"),
    ],
)
def test_refused(call, message):
    if message is None:
        assert_bits(call().dequantize(), np.full((2, 32), -1 / 3, f))  # scale 1: exact
        return
    with pytest.raises((TypeError, ValueError), match=message) as error:
        call()
    assert re.match(r"Int4Weight|GroupedInt8Weight|quantize|from_gguf", str(error.value))


def test_scales_that_are_zero_or_negative():
    """Half of all Q4_0 scales are negative; Q4_1 stores a constant block as scale 0 and its value as the minimum."""
    ones = Q + np.int8(1)
    assert_bits(W4.from_arrays(ones, S * f(-0.5)).dequantize(), np.full((2, 64), -0.5, f))
    assert_bits(W4.from_arrays(ones, S * f(0)).dequantize(), np.zeros((2, 64), f))
    assert_bits(W4.from_arrays(ones, S * f(-0.0)).dequantize(), np.full((2, 64), -0.0, f))
    assert_bits(W4.from_gguf_q4_1(gguf_block(0, 3), (1, 32)).dequantize(), np.full((1, 32), 3, f))


def test_a_group_of_everything():
    q = rng.integers(-8, 8, (3, 1000)).astype(np.int8)
    w = ec.Int4Weight.from_arrays(q, np.ones(3, f), group_size=None)
    assert w.scale.shape == (3, 1)
    np.testing.assert_array_equal(w.q, q)
