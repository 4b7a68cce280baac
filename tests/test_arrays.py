"""What the ops take as arrays, how they take it, and where they write."""

import array
import re

import numpy as np
import pytest
from cases import LAYOUTS, assert_bits, problem
from guard import filled

import edgecomp as ec

X, W, BIAS = problem(4, 17, 33)
INT8 = ec.quantize(W)


class Exporter:
    """A tensor of a foreign library: DLPack and nothing else."""

    def __init__(self, a, error=None):
        self.a, self.error = a, error

    def __dlpack__(self, **options):
        if self.error:
            raise self.error
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class Interface:
    """An array that offers __array_interface__ only."""

    def __init__(self, a):
        self.a = a
        self.__array_interface__ = a.__array_interface__


class Subclass(np.ndarray):
    """Arithmetic of its own, which no op may run."""

    def __array_ufunc__(self, *args, **options):
        raise AssertionError("an op computed with the subclass")


def matrix(a):
    with pytest.warns(PendingDeprecationWarning):
        return np.matrix(a)


CONTAINERS = {
    "DLPack": Exporter,
    "array interface": Interface,
    "subclass": lambda a: a.view(Subclass),
    "np.matrix": matrix,
    "memoryview": memoryview,
    "read-only memoryview": lambda a: memoryview(a.tobytes()).cast("f", a.shape),
    "bytearray": lambda a: memoryview(bytearray(a.tobytes())).cast("f", a.shape),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("w", [INT8, W], ids=["int8", "float32"])
def test_containers(impl, container, w):
    y = ec.linear(container(X.copy()), w, BIAS)
    assert type(y) is np.ndarray
    assert_bits(y, ec.linear(X, w, BIAS))
    if isinstance(w, np.ndarray):
        assert_bits(ec.linear(X, container(W.copy()), BIAS), y)


def test_one_dimension_from_the_standard_library(impl):
    x = array.array("f", X[0].tobytes())
    assert_bits(ec.linear(x, INT8), ec.linear(X[0], INT8))
    assert_bits(ec.linear(X, INT8, array.array("f", BIAS.tobytes())), ec.linear(X, INT8, BIAS))
    assert_bits(ec.linear(array.array("d", X[0].astype(float).tobytes()), INT8), ec.linear(X[0], INT8))
    assert_bits(ec.matmul_int8(bytearray(33), INT8), np.zeros(17, np.int32))


@pytest.mark.parametrize("dtype", [">f4", np.float16, ">f2", np.float64, ">f8"])
def test_other_floats_are_converted(impl, dtype):
    x = X.astype(dtype)
    for w in (INT8, W):
        assert_bits(ec.linear(x, w, BIAS), ec.linear(x.astype(np.float32), w, BIAS))
    assert_bits(ec.linear(X, INT8, BIAS.astype(dtype)), ec.linear(X, INT8, BIAS.astype(dtype).astype(np.float32)))
    assert_bits(ec.quantize_rows(x).q, ec.quantize_rows(x.astype(np.float32)).q)


def test_float64_rounds_once_to_nearest_even():
    x = np.array([[1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e-50, -1e-50, 1e-40]])
    assert_bits(ec.pack(x).dequantize(), x.astype(np.float32))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_int8_operands(impl, layout):
    for dtype in (np.int8, np.uint8):
        a = np.random.default_rng(2).integers(0, 100, (5, 33)).astype(dtype)
        assert_bits(ec.matmul_int8(LAYOUTS[layout](a), INT8), (a.astype(int) @ INT8.q.T.astype(int)).astype(np.int32))


@pytest.mark.parametrize("w", [INT8, W, ec.pack(W)], ids=["int8", "float32", "packed"])
def test_zero_strides(impl, w):
    """Broadcast views: the same row or the same value many times."""
    for x in (np.broadcast_to(X[0], (4, 33)), np.broadcast_to(X[:, :1], (4, 33)), np.broadcast_to(np.float32(2), (4, 33))):
        assert_bits(ec.linear(x, w, np.broadcast_to(BIAS[0], (17,))), ec.linear(x.copy(), w, np.full(17, BIAS[0])))
    x = np.broadcast_to(X, (2, 3, 4, 33))
    assert_bits(ec.linear(x, w), ec.linear(x.copy(), w))


def test_float16_and_non_finite_float64_keep_their_values(impl):
    x = np.array([[np.nan, 1], [np.inf, 1], [1, 2]])
    with np.errstate(invalid="ignore"):
        wanted = x.astype(np.float32) @ np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(ec.linear(x, np.ones((1, 2))), wanted)


NO_VIEW = [
    X.tolist(),
    tuple(X.tolist()),
    1.0,
    "x",
    object(),
    Exporter(X, BufferError("Can't export tensors that require gradient, use tensor.detach()")),
    Exporter(X, RuntimeError("Unsupported dtype in DLTensor.")),
    Exporter(X, TypeError("Got unsupported ScalarType BFloat16")),
]


@pytest.mark.parametrize("argument", ["x", "w", "bias"])
@pytest.mark.parametrize("given", NO_VIEW, ids=lambda v: str(getattr(v, "error", type(v).__name__))[:20])
def test_refuses_what_numpy_cannot_view(given, argument):
    arguments = {"x": X, "w": INT8, "bias": BIAS} | {argument: given}
    message = f"linear: {argument} is a {type(given).__name__} that NumPy cannot view ("
    with pytest.raises(TypeError, match="^" + re.escape(message)) as caught:
        ec.linear(**arguments)
    assert "wanted an array with DLPack, the buffer protocol or __array_interface__" in str(caught.value)
    assert "x.detach().float()" in str(caught.value)
    assert str(getattr(given, "error", "")) in str(caught.value)


DTYPES = ["bool", "int8", "uint8", "int64", "complex64", "complex128", "longdouble", "object", "S4", "U4", "M8[s]", "m8[s]", "f4,f4"]


@pytest.mark.parametrize("name", DTYPES)
def test_refuses_other_dtypes(name):
    a = np.zeros((4, 33), name)
    calls = {
        "linear: x": lambda: ec.linear(a, INT8),
        "linear: w": lambda: ec.linear(X, a),
        "linear: bias": lambda: ec.linear(X, INT8, a[0, :17]),
        "quantize_rows: x": lambda: ec.quantize_rows(a),
        "quantize: w": lambda: ec.quantize(a),
        "pack: w": lambda: ec.pack(a),
    }
    for where, call in calls.items():
        with pytest.raises(TypeError, match="^" + re.escape(f"{where} has dtype {a.dtype}, wanted float32")):
            call()
    if name not in ("int8", "uint8"):
        with pytest.raises(TypeError, match="^" + re.escape(f"matmul_int8: a has dtype {a.dtype}, wanted int8 or uint8")):
            ec.matmul_int8(a, INT8)


def test_refuses_scipy_matrices_where_dense_ones_are_wanted():
    sparse = pytest.importorskip("scipy.sparse")
    a = sparse.csr_array(np.eye(3, dtype=np.float32))
    calls = {
        "to_csr: w": lambda: ec.to_csr(a),
        "prune: w": lambda: ec.prune(a, 0.5),
        "quantize: w": lambda: ec.quantize(a),
        "best_format: w": lambda: ec.best_format(a),
        "compare_formats: w": lambda: ec.compare_formats(a),
        "linear: x": lambda: ec.linear(a, np.eye(3, dtype=np.float32)),
    }
    for what, call in calls.items():
        with pytest.raises(TypeError, match=rf"^{what} is a csr_array: \.toarray\(\) makes it dense, .*CSRWeight\.from_scipy a weight"):
            call()


def test_refuses_masked_arrays():
    a = np.ma.array(X, mask=X > 0)
    calls = {
        "linear: x": lambda: ec.linear(a, INT8),
        "linear: w": lambda: ec.linear(X, a),
        "quantize: w": lambda: ec.quantize(a),
        "matmul_int8: a": lambda: ec.matmul_int8(np.ma.zeros((4, 33), np.int8), INT8),
    }
    for where, call in calls.items():
        with pytest.raises(TypeError, match="^" + re.escape(f"{where} is a masked array; fill it first (x.filled(value))")):
            call()


@pytest.mark.parametrize("value", [1e39, -1e300, np.finfo(np.float64).max])
def test_refuses_float64_that_overflows(value):
    x = np.array([[np.inf, np.nan, value]])
    for where, call in (("linear: x", lambda: ec.linear(x, np.ones((1, 3)))), ("linear: w", lambda: ec.linear(np.ones((1, 3)), x))):
        with pytest.raises(ValueError, match="^" + re.escape(f"{where} has finite float64 values beyond float32's range")):
            call()


def test_out_is_returned_and_written_like_a_fresh_array(impl):
    for w in (INT8, W):
        for x in (X, X[0], X.reshape(2, 2, 33), X[:0]):
            wanted = ec.linear(x, w, BIAS)
            out = filled(wanted.shape)
            assert ec.linear(x, w, BIAS, out=out) is out
            assert_bits(out, wanted)


def _read_only():
    a = filled((4, 17))
    a.flags.writeable = False
    return a


def _unaligned():
    return np.zeros(4 * 17 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 17)


def _strided(*strides):
    return np.lib.stride_tricks.as_strided(filled((68,)), (4, 17), strides)


OUTPUTS = [
    (filled((4, 17)).tolist(), TypeError, "is a list, wanted a numpy.ndarray"),
    (memoryview(filled((4, 17))), TypeError, "is a memoryview, wanted a numpy.ndarray"),
    (filled((4, 17)).view(Subclass), TypeError, "is a Subclass, wanted a numpy.ndarray"),
    (np.ma.array(filled((4, 17))), TypeError, "is a MaskedArray, wanted a numpy.ndarray"),
    (np.zeros((4, 17)), TypeError, "has dtype float64, wanted float32"),
    (np.zeros((4, 17), np.int8), TypeError, "has dtype int8, wanted float32"),
    (np.zeros((4, 17), ">f4"), TypeError, "has dtype >f4, wanted float32"),
    (filled((4, 16)), ValueError, "has shape (4, 16), wanted (4, 17)"),
    (filled((5, 17)), ValueError, "has shape (5, 17), wanted (4, 17)"),
    (filled((68,)), ValueError, "has shape (68,), wanted (4, 17)"),
    (filled((1, 4, 17)), ValueError, "has shape (1, 4, 17), wanted (4, 17)"),
    (_read_only(), ValueError, "is read-only"),
    (filled((17, 4)).T, ValueError, "has strides (4, 16), wanted an aligned C-contiguous array"),
    (filled((4, 34))[:, ::2], ValueError, "has strides (136, 8), wanted"),
    (filled((4, 17))[::-1], ValueError, "has strides (-68, 4), wanted"),
    (filled((4, 17))[:, ::-1], ValueError, "has strides (68, -4), wanted"),
    (_strided(0, 4), ValueError, "has strides (0, 4), wanted"),
    (_strided(40, 4), ValueError, "has strides (40, 4), wanted"),
    (_unaligned(), ValueError, "has strides (68, 4), wanted an aligned"),
]


@pytest.mark.parametrize(("out", "error", "message"), OUTPUTS, ids=[o[2][:30] for o in OUTPUTS])
def test_refuses_outputs(out, error, message):
    before = np.array(out)
    for w in (INT8, W):
        with pytest.raises(error, match="^" + re.escape(f"linear: out {message}")):
            ec.linear(X, w, out=out)
    assert_bits(np.array(out), before)


def test_refuses_outputs_of_matmul_int8():
    a = np.zeros((2, 33), np.int8)
    for out, error, message in (
        (filled((2, 17)), TypeError, "has dtype float32, wanted int32"),
        (filled((2, 16), np.int32), ValueError, "has shape (2, 16), wanted (2, 17)"),
    ):
        with pytest.raises(error, match="^" + re.escape(f"matmul_int8: out {message}")):
            ec.matmul_int8(a, INT8, out=out)


def test_refuses_outputs_that_overlap_an_input():
    square = np.diag(np.arange(1, 6, dtype=np.float32))[:, :4].copy()  # 5 x 4
    x, w8 = square.copy(), ec.quantize(square[:4])
    ints = np.zeros((4, 4), np.int32)
    rows = ec.QuantizedRows(np.zeros((1, 4), np.uint8), x[1, :1], np.zeros(1, np.uint8))
    calls = {
        "x itself": lambda: ec.linear(x[:4], w8, out=x[:4]),
        "x, a row further": lambda: ec.linear(x[:4], w8, out=x[1:]),
        "x, backwards": lambda: ec.linear(x[3::-1], w8, out=x[:4]),
        "w": lambda: ec.linear(square[:4], x[:4], out=x[:4]),
        "bias": lambda: ec.linear(square[:1], w8, x[1], out=x[1:2]),
        "scales of QuantizedRows": lambda: ec.linear(rows, w8, out=x[1:2]),
        "a": lambda: ec.matmul_int8(ints.view(np.int8)[:, :4], w8, out=ints),
    }
    for what, call in calls.items():
        with pytest.raises(ValueError, match=r"^(linear|matmul_int8): out overlaps an input in memory$"):
            call()
        assert_bits(x, square, what)
    assert not ints.any()


def test_outputs_beside_an_input(impl):
    """One buffer may hold both, if they share no byte: below each other or side by side."""
    whole = np.zeros((8, 50), np.float32)
    x = whole[:4, :33]
    x[...] = X
    for out in (whole[4:, 33:], whole[:4, 33:]):
        assert_bits(ec.linear(x, INT8, out=out), ec.linear(X, INT8))
    assert_bits(x, X)
    assert not whole[4:, :33].any()
    with pytest.raises(ValueError, match=r"^linear: out overlaps an input in memory$"):
        ec.linear(x, INT8, out=whole[:4, 32:49])
    assert_bits(x, X)


@pytest.mark.parametrize("dtype", ["f8", "f2", ">f4"])
def test_outputs_over_what_is_converted(impl, dtype):
    """Such an input is copied before anything is written: an output that lies over it is right."""
    square = np.diag(np.arange(1, 5)).astype(np.float32) + 0.5
    w8, csr, bias = ec.quantize(square), ec.to_csr(square), square[0].copy()
    for name, call in {
        "x": lambda a, out: ec.linear(a, w8, bias, out=out),
        "bias": lambda a, out: ec.linear(square, w8, a[0], out=out),
        "w": lambda a, out: ec.linear(square, a, bias, out=out),
        "b": lambda a, out: ec.spmm(csr, a, out=out),
        "feature_loss a": lambda a, out: ec.feature_loss(a, square * 2, grad_out=out)[1],
        "feature_loss b": lambda a, out: ec.feature_loss(square * 2, a, grad_out=out)[1],
    }.items():
        buffer = np.zeros(128, np.uint8)
        given = buffer[: 16 * np.dtype(dtype).itemsize].view(dtype).reshape(4, 4)
        given[...] = square
        assert_bits(call(given, buffer[:64].view(np.float32).reshape(4, 4)), call(square, None), name)


def test_torch():
    """The same with the real thing, where it is installed."""
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy())
    assert_bits(ec.linear(x, INT8), ec.linear(X, INT8))
    assert_bits(ec.linear(x.T.contiguous().T, INT8), ec.linear(X, INT8))
    assert_bits(ec.linear(x.double(), INT8), ec.linear(X, INT8))
    assert_bits(ec.linear(X, torch.from_numpy(W.copy())), ec.linear(X, W))
    for tensor in (x.clone().requires_grad_(), x.bfloat16(), x.to_sparse()):
        with pytest.raises(TypeError, match=r"^linear: x is a Tensor that NumPy cannot view"):
            ec.linear(tensor, INT8)
