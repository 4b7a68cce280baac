"""gemm_s4g, gemm_s8g and quantize_groups: linear with a scale per group of inputs. Every bit is promised."""

import numpy as np
import pytest
from cases import EXACT, SPECIAL, assert_bits, bits
from guard import filled

import edgecomp as ec
from edgecomp import reference

f = np.float32
rng = np.random.default_rng(4)
SHAPES = [(0, 5, 40), (1, 1, 1), (1, 33, 64), (2, 5, 0), (3, 0, 7), (3, 32, 65), (5, 70, 100), (8, 31, 256), (9, 64, 130), (17, 129, 300)]
KINDS = ["middle", "point", "offset"]
WEIGHTS = {4: ec.Int4Weight, 8: ec.GroupedInt8Weight}


def weight(n, k, group, size_bits=4, kind="middle", dtype=np.float32, permuted=False):
    groups = -(-k // group) if group else (1 if k else 0)
    scale = (rng.standard_normal((n, groups)) * 0.1).astype(dtype)
    order = rng.permutation(k) if permuted else None
    if kind == "middle":
        half = 1 << (size_bits - 1)
        q = rng.integers(-half, half, (n, k)).astype(np.int8)
        return WEIGHTS[size_bits].from_arrays(q, scale, group_size=group, permutation=order)
    q = rng.integers(0, 1 << size_bits, (n, k)).astype(np.uint8)
    if kind == "point":
        zero = rng.integers(0, min(1 << size_bits, 255) + 1, (n, groups))
        return WEIGHTS[size_bits].from_arrays(q, scale, zero, group_size=group, permutation=order)
    offset = rng.standard_normal((n, groups)).astype(dtype)
    return WEIGHTS[size_bits].from_arrays(q, scale, offset=offset, group_size=group, permutation=order)


def slow(x, w, bias=None):
    """Plain loops, after docs/numerics.md."""
    m, (n, k), group = len(x), w.shape, w.group_size
    codes, sw, zero, offset = w.codes.astype(np.int64), w.scale.astype(f), w.zero, w.offset
    x = x if w.permutation is None else x[:, w.permutation]
    y = np.zeros((m, n), f)
    with np.errstate(all="ignore"):
        for i in range(m):
            for g in range(-(-k // group)):
                at = slice(g * group, min((g + 1) * group, k))
                part = x[i, at]
                s, finite = np.abs(part).max() / f(127), np.isfinite(part).all()
                used = bool(finite and s >= f(2.0**-126))
                q = np.rint(part * (f(1) / s)).astype(np.int64) if used else np.zeros(len(part), np.int64)
                sx = f(s) if used else f(1) if finite else f(np.nan)
                for j in range(n):
                    centre = 0 if offset is not None else zero[j, g] if zero is not None else 1 << (w.bits - 1)
                    y[i, j] = y[i, j] + f(((codes[j, at] - int(centre)) * q).sum()) * (sx * sw[j, g])
                    if offset is not None:
                        y[i, j] = y[i, j] + f(q.sum()) * (sx * offset.astype(f)[j, g])
        if bias is not None:
            y = y + bias
    y[np.isnan(y)] = np.nan
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_bits", [4, 8])
def test_slow_twin(impl, kind, size_bits):
    for m, n, k in ((1, 3, 16), (2, 33, 70), (4, 5, 129)):
        x, bias = rng.standard_normal((m, k)).astype(f), rng.standard_normal(n).astype(f)
        for group in (16, 32, 64):
            w = weight(n, k, group, size_bits, kind, np.float16, permuted=group == 64)
            assert_bits(ec.linear(x, w, bias), slow(x, w, bias), (m, n, k, group))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_bits", [4, 8])
@pytest.mark.parametrize("group", [16, 32, 48, 128, 256, None])
def test_shapes(impl, kind, size_bits, group):
    for m, n, k in SHAPES:
        x, bias = rng.standard_normal((m, k)).astype(f), rng.standard_normal(n).astype(f)
        w = weight(n, k, group, size_bits, kind)
        wanted, y = filled((m, n)), filled((m, n))
        getattr(reference, w.op)(x, w, bias, None, wanted)
        assert ec.linear(x, w, bias, out=y) is y
        assert_bits(y, wanted, (m, n, k))


def test_a_row_alone_and_in_a_batch(impl):
    x, w = rng.standard_normal((19, 200)).astype(f), weight(70, 200, 32)
    whole = ec.linear(x, w)
    for threads in (1, 2, 3):
        assert_bits(ec.linear(x, w, threads=threads), whole)
    for i in range(len(x)):
        assert_bits(ec.linear(x[i], w), whole[i])


@pytest.mark.parametrize("activation", EXACT)
def test_activations_that_are_exact(impl, activation):
    x, w, bias = rng.standard_normal((9, 130)).astype(f), weight(33, 130, 32), rng.standard_normal(33).astype(f)
    wanted = filled((9, 33))
    reference.gemm_s4g(x, w, bias, activation, wanted)
    assert_bits(ec.linear(x, w, bias, activation=activation), wanted)


def test_scales_and_rows_of_every_kind(impl):
    """Zero, negative, tiny and huge scales are kept bit for bit; NaN and Inf in x reach every output of their row."""
    scale = np.array([s for s in SPECIAL if np.isfinite(s)], f)
    w = ec.Int4Weight.from_arrays(rng.integers(-8, 8, (len(scale), 40)).astype(np.int8), np.stack([scale, scale[::-1]], 1))
    assert_bits(w.scale[:, 0], scale)
    x = rng.standard_normal((len(SPECIAL), 40)).astype(f)
    x[:, 35] = SPECIAL
    x[0] = 0
    y = ec.linear(x, w)
    assert_bits(y, slow(x, w))
    bad = ~np.isfinite(x).all(axis=1)
    assert (bits(y[bad]) == 0x7FC00000).all()


def test_quantized_rows(impl):
    x = rng.standard_normal((2, 3, 100)).astype(f)
    x[1, 2, 50] = np.inf
    for group in (16, 32, 64):
        xq = ec.quantize_rows(x, group_size=group)
        q, scale = np.empty((6, 100), np.int8), np.empty((6, -(-100 // group)), f)
        reference.quantize_groups(x.reshape(6, 100), group, q, scale)
        np.testing.assert_array_equal(xq.q.reshape(6, 100), q)
        assert_bits(xq.scale.reshape(6, -1), scale)
        w = weight(21, 100, group)
        assert_bits(ec.linear(xq, w), ec.linear(x, w))


def test_float32_compute(impl):
    for size_bits in (4, 8):
        for kind in KINDS:
            w = weight(37, 130, 32, size_bits, kind, np.float16, permuted=True)
            x, bias = rng.standard_normal((5, 130)).astype(f), rng.standard_normal(37).astype(f)
            wanted = x.astype(np.float64) @ w.dequantize().astype(np.float64).T + bias
            np.testing.assert_allclose(ec.linear(x, w, bias, compute="float32"), wanted, rtol=1e-5, atol=1e-4)


def test_one_token_has_the_identity_of_the_weights(impl):
    """compute="float32" multiplies by the very values of dequantize()."""
    for kind in KINDS:
        w = weight(40, 48, 16, 4, kind, np.float16, permuted=True)
        assert_bits(ec.linear(np.eye(48, dtype=f), w, compute="float32") + f(0), w.dequantize().T + f(0))


def test_int8_output(impl):
    x, w = rng.standard_normal((4, 64)).astype(f), weight(20, 64, 32)
    y = ec.linear(x, w)
    np.testing.assert_array_equal(
        ec.linear(x, w, out_dtype="int8", out_scale=0.05, out_zero=3), np.clip(np.rint(y / f(0.05)) + 3, -128, 127).astype(np.int8)
    )
    x[2, 5] = np.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        ec.linear(x, w, out_dtype="int8", out_scale=0.05)


def test_refused_rows():
    x = rng.standard_normal((2, 64)).astype(f)
    with pytest.raises(ValueError, match=r"group_size=None, w has 32.*quantize_rows\(x, group_size=32\)"):
        ec.linear(ec.quantize_rows(x), weight(4, 64, 32))
    with pytest.raises(ValueError, match="group_size=64, w has None"):
        ec.linear(ec.quantize_rows(x, group_size=64), ec.quantize(np.ones((4, 64), f)))
    with pytest.raises(ValueError, match="act-order"):
        ec.linear(ec.quantize_rows(x, group_size=32), weight(4, 64, 32, permuted=True))
    for size in (0, 8, 17, True, 2.0):
        with pytest.raises(ValueError, match="group_size is"):
            ec.quantize_rows(x, group_size=size)


def test_explain():
    e = ec.explain(np.zeros((4, 64), f), weight(4, 64, 32, permuted=True))
    assert e.op == "gemm_s4g"
    assert "int8 per row and group of 32" in str(e)
    assert "permuted" in str(e)
    assert ec.explain(np.zeros((4, 64), f), weight(4, 64, 32, 8), compute="float32").op == "gemm_sg_f32"
