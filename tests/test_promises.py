"""Promises 1 and 3 of the design on random cases: the same bits from every implementation, any shape, any strides, any threads."""

import ctypes
import platform

import numpy as np
import pytest
from cases import EXACT, LAYOUTS, SPECIAL, assert_bits
from hypothesis import example, given, note
from hypothesis import strategies as st
from implementations import ALL, use

import edgecomp as ec
from edgecomp import reference

sizes = st.integers(0, 20) | st.sampled_from([31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 130])
any_float = st.floats(width=32) | st.sampled_from(SPECIAL)
finite_float = st.floats(width=32, allow_nan=False, allow_infinity=False)
threads = st.sampled_from([None, 1, 2, 3, 8])
layouts = st.sampled_from(sorted(LAYOUTS))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def values(draw, shape, elements, lowest=-44):
    """Normal values of a random magnitude per row, a few of them replaced by anything in `elements`."""
    rng = np.random.default_rng(draw(seeds))
    a = rng.standard_normal(shape) * 10.0 ** rng.integers(draw(st.sampled_from([lowest, -1])), 38, (*shape[:-1], 1))
    a = a.clip(-3.4e38, 3.4e38).astype(np.float32) + np.float32(draw(st.sampled_from([0, 0, 1, -1, 1e30])))
    if a.size:
        for value in draw(st.lists(elements, max_size=4)):
            a.flat[rng.integers(a.size)] = value
    return a


@st.composite
def weights(draw, n, k):
    q = np.random.default_rng(draw(seeds)).integers(-127, 128, (n, k)).astype(np.int8)
    return ec.Int8Weight.from_arrays(q, draw(values((n,), finite_float)))


@st.composite
def layers(draw):
    """x, weight, bias or None, activation or None."""
    m, n, k = draw(sizes), draw(sizes), draw(sizes)
    bias = draw(st.none() | values((n,), any_float))
    return draw(values((m, k), any_float)), draw(weights(n, k)), bias, draw(st.none() | st.sampled_from(EXACT))


def specified(x, w, bias, activation):
    y = np.empty((len(x), w.shape[0]), np.float32)
    reference.gemm_s8c(x, w, bias, activation, y)
    return y


@given(layers(), threads, layouts)
def test_every_implementation_gives_the_bits_of_the_reference(layer, limit, layout):
    x, w, bias, activation = layer
    wanted = specified(x, w, bias, activation)
    note(f"{x.shape} x {w.shape}")
    for impl in ALL:
        with use(impl):
            rows = ec.quantize_rows(LAYOUTS[layout](x), threads=limit)
            out = np.full_like(wanted, 7)
            assert_bits(ec.linear(LAYOUTS[layout](x), w, bias, activation=activation, threads=limit), wanted, impl)
            assert_bits(ec.linear(rows, w, bias, activation=activation, threads=limit), wanted, (impl, "QuantizedRows"))
            assert_bits(ec.linear(x, w, bias, activation=activation, threads=limit, out=out), wanted, (impl, "out="))


@given(layers())
def test_a_row_alone_is_the_row_in_a_batch(layer):
    x, w, bias, activation = layer
    wanted = specified(x, w, bias, activation)
    for impl in ALL:
        with use(impl):
            for i, row in enumerate(x):
                assert_bits(ec.linear(row, w, bias, activation=activation), wanted[i], (impl, i))
            half = len(x) // 2
            assert_bits(ec.linear(x[half:], w, bias, activation=activation), wanted[half:], impl)


@given(layers(), st.floats(2.0**-149, 2.0**127, width=32), st.integers(-128, 127))
def test_int8_output(layer, scale, zero):
    x, w, bias, activation = layer
    x = np.nan_to_num(x, nan=1, posinf=2, neginf=-2)
    bias = None if bias is None else np.nan_to_num(bias, nan=1, posinf=2, neginf=-2)
    wanted = np.empty((len(x), w.shape[0]), np.int8)
    reference.gemm_s8c(x, w, bias, activation, wanted, scale, zero)
    for impl in ALL:
        with use(impl):
            y = ec.linear(x, w, bias, activation=activation, out_dtype="int8", out_scale=scale, out_zero=zero)
            assert_bits(y, wanted, impl)


@given(sizes, sizes, seeds, st.sampled_from([np.int8, np.uint8]), threads, layouts)
def test_matmul_int8_is_exact(m, k, seed, dtype, limit, layout):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    a = rng.integers(limits.min, limits.max + 1, (m, k)).astype(dtype)
    q = rng.integers(-127, 128, (rng.integers(0, 70), k)).astype(np.int8)
    w = ec.Int8Weight.from_arrays(q, np.ones(len(q), np.float32))
    for impl in ALL:
        with use(impl):
            assert_bits(ec.matmul_int8(LAYOUTS[layout](a), w, threads=limit), (a.astype(int) @ q.T.astype(int)).astype(np.int32), impl)


@given(layers())
def test_only_rows_that_are_not_finite_give_nan(layer):
    x, w, _, _ = layer
    w = ec.Int8Weight.from_arrays(w.q, w.scale.clip(-1, 1))
    finite = np.isfinite(x)
    x = np.where(finite, x.clip(-1e20, 1e20), x)  # large enough, and no product overflows
    for impl in ALL:
        with use(impl):
            y = ec.linear(x, w)
            assert np.isnan(y[~finite.all(axis=1)]).all()
            assert np.isfinite(y[finite.all(axis=1)]).all()


@pytest.mark.parametrize("compute", ["int8", "float32"])
@given(layers(), layouts, layouts, threads)
def test_strides_and_threads_change_no_bit(compute, layer, layout, other, limit):
    x, w, bias, activation = layer
    for impl in ALL:
        with use(impl):
            y = ec.linear(x, w, bias, activation=activation, compute=compute)
            assert_bits(ec.linear(LAYOUTS[layout](x), w, bias, activation=activation, compute=compute, threads=limit), y, impl)
            if compute == "float32":
                plain = w.dequantize()
                y = ec.linear(x, plain, bias, activation=activation)
                assert_bits(ec.linear(LAYOUTS[layout](x), LAYOUTS[other](plain), bias, activation=activation, threads=limit), y, impl)


@given(st.data(), st.sampled_from([(), (0,), (1,), (2,), (3, 1), (2, 0, 2), (2, 1, 3)]), sizes, sizes)
def test_leading_dimensions(data, lead, n, k):
    m = int(np.prod(lead))
    x, w = data.draw(values((m, k), any_float)), data.draw(weights(n, k))
    wanted = specified(x, w, None, None).reshape(*lead, n)
    for impl in ALL:
        with use(impl):
            assert_bits(ec.linear(x.reshape(*lead, k), w), wanted, impl)
            assert_bits(ec.linear(ec.quantize_rows(x.reshape(*lead, k)), w), wanted, impl)


@given(st.tuples(sizes, sizes).flatmap(lambda shape: values(shape, finite_float)))
@example(np.zeros((3, 4), np.float32))
@example(np.array([[3.4028235e38, 1]], np.float32))
def test_quantized_weights_round_trip(w):
    """Weights that lie on the grid come back exactly; others within half a step."""
    once = ec.quantize(w)
    step = once.scale[:, None].astype(np.float64)
    assert (np.abs(once.dequantize() - w.astype(np.float64)) <= 0.501 * step).all()
    assert np.abs(once.q).max(initial=0) <= 127
    exact = ec.Int8Weight.from_arrays(once.q, np.ones(len(w), np.float32))
    assert_bits(ec.quantize(exact.dequantize() * np.float32(0.5)).q, ec.quantize(exact.dequantize()).q)


def floating_point_modes():
    """Functions that change how this thread computes, for a caller that did so."""
    libm = ctypes.CDLL("libm.so.6")
    machine = platform.machine()
    upward, towards_zero = {"x86_64": (0x800, 0xC00), "aarch64": (0x400000, 0xC00000)}.get(machine, (0, 0))
    yield lambda: libm.fesetround(upward)
    yield lambda: libm.fesetround(towards_zero)
    if machine == "x86_64":  # fenv_t: 28 bytes of x87 state, then MXCSR
        environment = (ctypes.c_uint32 * 8)()
        libm.fegetenv(environment)
        environment[7] |= 0x8040  # denormals are zero, and flushed to zero
        yield lambda: libm.fesetenv(environment)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no name for the modes")
def test_the_floating_point_mode_of_the_caller_changes_no_bit(c):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((9, 65)).astype(np.float32), rng.standard_normal((33, 65)).astype(np.float32)
    x[::2] *= np.float32(1e-36)
    x[1, ::2] = 1e-42
    bias = rng.standard_normal(33).astype(np.float32) * np.float32(1e-38)
    w8 = ec.Int8Weight.from_arrays(ec.quantize(w).q, rng.standard_normal(33).astype(np.float32) * np.float32(1e-3))
    packed = ec.pack(w)
    calls = [
        lambda: ec.linear(x, w8, bias),
        lambda: ec.linear(ec.quantize_rows(x), w8, bias, activation="hardswish"),
        lambda: ec.linear(x, packed, bias, activation="gelu"),
        lambda: ec.linear(x, w, bias, activation="tanh", threads=2),
        lambda: ec.linear(x, w8, bias, compute="float32"),
        lambda: ec.linear(x, w8, out_dtype="int8", out_scale=1e-4),
        lambda: ec.linear(x, packed, out_dtype="int8", out_scale=0.037),
        lambda: ec.linear(x, packed, out_dtype="int8", out_scale=1e-40),
    ]
    wanted = [call() for call in calls]
    restore = (ctypes.c_byte * 64)()
    libm = ctypes.CDLL("libm.so.6")
    libm.fegetenv(restore)
    for i, change in enumerate(floating_point_modes()):
        for j, call in enumerate(calls):
            change()
            y = call()
            libm.fesetenv(restore)
            assert_bits(y, wanted[j], f"mode {i}, call {j}")
