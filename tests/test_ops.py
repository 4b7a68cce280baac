"""Arguments that are refused: by name, with what came and what was wanted, and before anything is written."""

import re

import numpy as np
import pytest
from cases import assert_bits, problem
from guard import filled

import edgecomp as ec

X, W, BIAS = problem(4, 17, 33)
INT8, PACKED = ec.quantize(W), ec.pack(W)
A = np.zeros((4, 33), np.int8)
WEIGHTS = {"int8": INT8, "packed": PACKED, "float32": W}


def refused(error, message, call, out):
    """call(out) raises error(message...) and leaves out as it is."""
    before = out.copy()
    with pytest.raises(error, match="^" + re.escape(message)):
        call(out)
    assert_bits(out, before)


@pytest.fixture(params=WEIGHTS)
def weight(request):
    return WEIGHTS[request.param]


@pytest.mark.parametrize("shape", [(), (0,), (32,), (34,), (4, 32), (33, 4), (4, 33, 1), (4, 0), (0, 32)])
def test_shape_of_x(weight, shape):
    x = np.ones(shape, np.float32)
    message = f"linear: x has shape {shape}, weight takes [..., 33]"
    refused(ValueError, message, lambda out: ec.linear(x, weight, out=out), filled((4, 17)))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        ec.explain(x, weight)
    if shape and weight is INT8:
        refused(ValueError, message, lambda out: ec.linear(ec.quantize_rows(x), weight, out=out), filled((4, 17)))
    message = f"matmul_int8: a has shape {shape}, weight takes [..., 33]"
    refused(ValueError, message, lambda out: ec.matmul_int8(x.astype(np.int8), INT8, out=out), filled((4, 17), np.int32))


@pytest.mark.parametrize("size", [0, 8, 24, -16, 32.0, True, 66336, 1 << 40, 1 << 62, (1 << 63) - 16, 1 << 64])
def test_group_size_of_quantize_rows(size):
    with pytest.raises(ValueError, match=rf"quantize_rows: group_size is {size}, wanted None or a multiple of 16 up to 66320"):
        ec.quantize_rows(X, group_size=size)
    wide = ec.quantize_rows(X, group_size=np.int64(66320))
    assert (wide.group_size, type(wide.group_size)) == (66320, int)


def test_rank_of_quantize_rows():
    with pytest.raises(ValueError, match=re.escape("quantize_rows: x has shape (), wanted [..., K]")):
        ec.quantize_rows(np.float32(1))


@pytest.mark.parametrize("shape", [(), (33,), (1, 17, 33)])
def test_rank_of_w(shape):
    w = np.ones(shape, np.float32)
    message = f"linear: w has shape {shape}, wanted [out_features, in_features]"
    refused(ValueError, message, lambda out: ec.linear(X, w, out=out), filled((4, 17)))


@pytest.mark.parametrize("shape", [(), (0,), (16,), (18,), (17, 1), (1, 17)])
def test_shape_of_bias(weight, shape):
    bias = np.ones(shape, np.float32)
    message = f"linear: bias has shape {shape}, wanted (17,)"
    refused(ValueError, message, lambda out: ec.linear(X, weight, bias, out=out), filled((4, 17)))


def test_kinds_of_w():
    for w in (ec.quantize_rows(X), [[1.0]], ec):
        message = f"linear: w is a {type(w).__name__} that NumPy cannot view"
        refused(TypeError, message, lambda out, w=w: ec.linear(X, w, out=out), filled((4, 17)))
    for w in (PACKED, W, W.astype(np.int8), None):
        message = f"matmul_int8: w is a {type(w).__name__}, wanted Int8Weight"
        refused(TypeError, message, lambda out, w=w: ec.matmul_int8(A, w, out=out), filled((4, 17), np.int32))


@pytest.mark.parametrize("name", ["Relu", "", "swish", "relu ", 3, b"relu", ["relu"], {}, np.array("relu")])
def test_activation(weight, name):
    message = f"linear: activation is {name!r}, wanted None or one of relu, relu6, leaky_relu,"
    refused(ValueError, message, lambda out: ec.linear(X, weight, activation=name, out=out), filled((4, 17)))


@pytest.mark.parametrize("name", ["int4", "", "INT8", 8, ["int8"], np.float32])
def test_compute(weight, name):
    message = f'linear: compute is {name!r}, wanted "int8" or "float32"'
    refused(ValueError, message, lambda out: ec.linear(X, weight, compute=name, out=out), filled((4, 17)))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        ec.explain(X, weight, compute=name)


def test_compute_that_the_weights_cannot():
    for w in (W, PACKED):
        message = 'linear: compute="int8" wants quantized weights (edgecomp.quantize), w is float32'
        refused(ValueError, message, lambda out, w=w: ec.linear(X, w, compute="int8", out=out), filled((4, 17)))
    for w, compute in ((W, None), (PACKED, "float32"), (INT8, "float32")):
        message = 'linear: x is QuantizedRows, which wants quantized weights and compute="int8"'
        refused(ValueError, message, lambda out, w=w, c=compute: ec.linear(ec.quantize_rows(X), w, compute=c, out=out), filled((4, 17)))
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            ec.explain(ec.quantize_rows(X), w, compute=compute)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**6, 10**30, np.int64(0)])
def test_number_of_threads(threads):
    calls(ValueError, f"is {threads}, wanted 1..1024", threads)


@pytest.mark.parametrize("threads", [True, False, 1.5, 2.0, "2", b"2", [2], (), np.float32(2), np.bool_(True), np.array([2])])
def test_kind_of_threads(threads):
    calls(TypeError, f"is a {type(threads).__name__}, wanted None or an int in 1..1024", threads)


def calls(error, message, threads):
    """Everything that takes a number of threads refuses this one."""
    refused(error, f"linear: threads {message}", lambda out: ec.linear(X, INT8, threads=threads, out=out), filled((4, 17)))
    refused(error, f"linear: threads {message}", lambda out: ec.linear(X, W, threads=threads, out=out), filled((4, 17)))
    refused(
        error, f"matmul_int8: threads {message}", lambda out: ec.matmul_int8(A, INT8, threads=threads, out=out), filled((4, 17), np.int32)
    )
    before = ec.get_num_threads()
    for where, call in (
        ("quantize_rows: threads", lambda: ec.quantize_rows(X, threads=threads)),
        ("linear: threads", lambda: ec.explain(X, INT8, threads=threads)),
        ("set_num_threads: n", lambda: ec.set_num_threads(threads)),
        ("threads: n", lambda: ec.threads(threads)),
    ):
        with pytest.raises(error, match="^" + re.escape(f"{where} {message}")):
            call()
    assert ec.get_num_threads() == before


def test_threads_that_are_taken(impl):
    for threads in (None, 1, 1024, np.int32(2), np.uint8(255)):
        assert_bits(ec.linear(X, INT8, threads=threads), ec.linear(X, INT8))
    ec.set_num_threads(np.int64(3))
    with ec.threads(np.int16(2)):
        assert_bits(ec.linear(X, INT8), ec.linear(X, INT8, threads=2))


@pytest.mark.parametrize("name", ["float16", "uint8", "", None, np.int8, ["int8"]])
def test_out_dtype(weight, name):
    message = f'linear: out_dtype is {name!r}, wanted "float32" or "int8"'
    refused(ValueError, message, lambda out: ec.linear(X, weight, out_dtype=name, out_scale=1.0, out=out), filled((4, 17), np.int8))


SCALES = [None, 0, 0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 1e39, 1e-50, 10**400, True, "1", [1.0], np.ones(1), np.array(1.0), 1j]
SCALES += [np.float16(0), np.float16(-1), np.float16(np.inf), np.float64(1e39)]


@pytest.mark.parametrize("scale", SCALES, ids=[repr(s)[:20] for s in SCALES])
def test_out_scale(weight, scale):
    message = f"linear: out_scale is {scale!r}, wanted a positive float"
    refused(ValueError, message, lambda out: ec.linear(X, weight, out_dtype="int8", out_scale=scale, out=out), filled((4, 17), np.int8))


@pytest.mark.parametrize("zero", [128, -129, 10**30, 1.0, True, "0", None, np.float32(3), np.array([1, 2])])
def test_out_zero(weight, zero):
    message = f"linear: out_zero is {zero!r}, wanted an int in -128..127"

    def call(out):
        ec.linear(X, weight, out_dtype="int8", out_scale=1.0, out_zero=zero, out=out)

    refused(ValueError, message, call, filled((4, 17), np.int8))


def test_int8_output_options(impl, weight):
    message = 'linear: out_scale and out_zero are for out_dtype="int8"'
    for options in ({"out_scale": 1.0}, {"out_zero": 1}, {"out_scale": 1.0, "out_dtype": "float32"}):
        refused(ValueError, message, lambda out, o=options: ec.linear(X, weight, out=out, **o), filled((4, 17)))
    out8 = filled((4, 17), np.int8)
    message = "linear: out has dtype int8, wanted float32"
    refused(TypeError, message, lambda out: ec.linear(X, weight, out=out), out8)
    message = "linear: out has dtype float32, wanted int8"
    refused(TypeError, message, lambda out: ec.linear(X, weight, out=out, out_dtype="int8", out_scale=1.0), filled((4, 17)))
    message = "linear: bias has NaN or Inf, which int8 output cannot express"
    bad = BIAS.copy()
    bad[3] = np.nan
    refused(ValueError, message, lambda out: ec.linear(X, weight, bad, out=out, out_dtype="int8", out_scale=1.0), out8)
    for scale in (np.float32(0.5), np.float16(0.5), np.longdouble(0.5)):
        taken = {"out_dtype": "int8", "out_scale": scale, "out_zero": np.int8(-3)}
        assert_bits(ec.linear(X, weight, **taken), ec.linear(X, weight, out_dtype="int8", out_scale=0.5, out_zero=-3))


def test_empty_shapes(impl):
    """No rows, no outputs and no inputs are shapes like any other."""
    for m, n, k in ((0, 17, 33), (4, 0, 33), (4, 17, 0), (0, 0, 0), (4, 0, 0), (0, 17, 0)):
        x, w, bias = problem(m, n, k)
        wanted = np.broadcast_to(bias, (m, n)).astype(np.float32) if k == 0 else np.empty((m, n), np.float32)
        for weight in (w, ec.pack(w), ec.quantize(w)):
            assert_bits(ec.linear(x, weight, bias), wanted)
            assert ec.linear(x, weight, bias, activation="sigmoid", compute="float32").shape == (m, n)
        assert_bits(ec.matmul_int8(np.zeros((m, k), np.int8), ec.quantize(w)), np.zeros((m, n), np.int32))
        rows = ec.quantize_rows(x)
        assert rows.shape == (m, k)
        assert_bits(ec.linear(rows, ec.quantize(w), bias), wanted)
        assert ec.explain(x, w).threads == 1


def test_the_result_is_new(impl, weight):
    """Without out= nothing of the caller's is returned, not even for no rows."""
    for x in (X, X[:0], X.reshape(2, 2, 33)):
        y = ec.linear(x, weight, BIAS)
        assert y.flags.owndata
        assert y.flags.writeable
        assert y.flags.c_contiguous
