"""read_onnx: the weights give what onnxruntime gives for the same graph."""

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import readers

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

f = np.float32
rng = np.random.default_rng(32)
K, N = 64, 40
X = rng.standard_normal((5, K)).astype(f)
q = rng.integers(-127, 128, (K, N)).astype(np.int8)
scale = (rng.random(N) * 0.01 + 0.001).astype(f)


def node(op, inputs, outputs, **attributes):
    domain = attributes.pop("domain", "")
    return helper.make_node(op, inputs, outputs, domain=domain, **attributes)


def write(path, nodes, **arrays):
    """x [5, K] -> y."""
    initializers = [a if isinstance(a, onnx.TensorProto) else numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    x, y = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, K]), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def run(path):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the optimised graph quantises x where it may
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


def agrees(path, name="w", off=1e-5):
    w = ec.import_weights(path, other="refuse")[name]
    dense = w.dequantize() if hasattr(w, "dequantize") else w
    wanted = run(path)
    assert np.abs(X @ dense.T - wanted).max() <= off * np.abs(wanted).max()
    return w


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
def test_matmulnbits(bits, points, tmp_path):
    b = rng.integers(0, 256, (N, K // 32, 4 * bits)).astype(np.uint8)
    arrays = {"w": b, "s": (rng.random((N, K // 32)) * 0.01).astype(f)}
    if points:
        arrays["z"] = rng.integers(0, 256, (N, K // 32 * bits // 8)).astype(np.uint8)
    made = node("MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=32)
    w = agrees(write(tmp_path / "m", [made], **arrays), off=2e-3)
    assert w.bits == bits
    assert isinstance(w, ec.Int4Weight if bits == 4 else ec.GroupedInt8Weight)


@pytest.mark.parametrize("how", ["matmul", "gemm", "gemm_t", "transpose"])
@pytest.mark.parametrize("kind", ["tensor", "output", "zero", "uint8", "lowest"])
def test_dequantizelinear(how, kind, tmp_path):
    turned = how in ("matmul", "gemm")
    codes, arrays = q, {}
    if kind == "uint8":
        codes = rng.integers(0, 256, (K, N)).astype(np.uint8)
        arrays = {"z": rng.integers(100, 150, N).astype(np.uint8)}
    elif kind == "zero":
        arrays = {"z": rng.integers(-9, 9, N).astype(np.int8)}
    elif kind == "lowest":
        codes = np.where(q == 1, np.int8(-128), q)
        codes[0, 0] = -128
    arrays = {"w": codes if turned else np.ascontiguousarray(codes.T), "s": f(0.01) if kind == "tensor" else scale, **arrays}
    nodes = [node("DequantizeLinear", list(arrays), ["d"], axis=1 if turned else 0)]
    if how == "transpose":
        nodes += [node("Transpose", ["d"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])]
    else:
        nodes += [node("MatMul", ["x", "d"], ["y"]) if how == "matmul" else node("Gemm", ["x", "d"], ["y"], transB=int(how == "gemm_t"))]
    path = write(tmp_path / "m", nodes, **arrays)
    w = agrees(path)
    got = ec.import_weights(path)
    assert isinstance(w, ec.Int8Weight if kind in ("tensor", "output") else ec.GroupedInt8Weight)
    assert (w.shape, list(got), got.metadata["transposed"]) == ((N, K), ["w"], ["w"] if turned else [])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("points", [False, True])
def test_blocks_of_int4(turned, signed, points, tmp_path):
    codes = rng.integers(-8 if signed else 0, 8 if signed else 16, (K, N))
    s, z = (rng.random((K // 32, N)) * 0.01).astype(f), rng.integers(-8 if signed else 0, 8 if signed else 16, (K // 32, N))
    kind = TensorProto.INT4 if signed else TensorProto.UINT4
    of = lambda a: a if turned else np.ascontiguousarray(a.T)  # noqa: E731
    make = lambda name, a: helper.make_tensor(name, kind, a.shape, a.reshape(-1))  # noqa: E731
    arrays = {"w": make("w", of(codes)), "s": of(s)} | ({"z": make("z", of(z))} if points else {})
    nodes = [node("DequantizeLinear", list(arrays), ["d"], axis=0 if turned else 1, block_size=32)]
    nodes += [node("MatMul", ["x", "d"], ["y"])] if turned else [node("Gemm", ["x", "d"], ["y"], transB=1)]
    path = write(tmp_path / "m", nodes, **arrays)
    w = readers.read_onnx(path)["w"]
    assert isinstance(w, ec.Int4Weight)
    exact = (codes - (np.repeat(z, 32, axis=0) if points else 0)) * np.repeat(s.astype(np.float64), 32, axis=0)
    np.testing.assert_array_equal(w.dequantize(), exact.astype(f).T)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("per_output", [False, True])
def test_matmulinteger(points, per_output, tmp_path):
    codes = rng.integers(0, 256, (K, N)).astype(np.uint8) if points else q // np.int8(2)  # without VNNI it saturates above 7 bits
    arrays = {"w": codes, "z": np.uint8(120) if points else np.int8(0), "s": scale if per_output else f(0.01)}
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "w", "xz", "z"], ["i"]),
        node("Cast", ["i"], ["c"], to=TensorProto.FLOAT),
        node("Mul", ["xs", "s"], ["ss"]),
        node("Mul", ["c", "ss"], ["y"]),
    ]
    path = write(tmp_path / "m", nodes, **arrays)
    w = agrees(path, off=0.02)  # x is quantised there
    exact = (codes.astype(np.float64) - float(arrays["z"])) * np.asarray(arrays["s"], np.float64)
    np.testing.assert_array_equal(w.dequantize(), exact.astype(f).T)


STATIC = {"xs": f(0.03), "xz": np.uint8(128)}


@pytest.mark.parametrize(
    ("static", "muls"),
    [
        (False, [("s xs", "p"), ("c p", "y")]),
        (False, [("c xs", "d"), ("d s", "y")]),
        (False, [("c s", "d"), ("xs d", "y")]),
        (False, [("xs s", "p"), ("p c", "d"), ("d one", "y")]),
        (True, [("xs s", "p"), ("c p", "y")]),
        (True, [("s xs", "p"), ("c p", "y")]),
        (True, [("c xs", "d"), ("d s", "y")]),
        (True, [("c s", "d"), ("d xs", "y")]),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_matmulinteger_and_the_scale_of_x(static, muls, constant, tmp_path):
    arrays = {"w": q // np.int8(2), "one": f(1), **(STATIC if static else {}), **({} if constant else {"s": scale})}
    nodes = [node("Constant", [], ["s"], value_floats=scale.tolist())] if constant else []
    nodes += [node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]) if static else node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"])]
    nodes += [node("MatMulInteger", ["xq", "w", "xz"], ["i"]), node("Cast", ["i"], ["c"], to=TensorProto.FLOAT)]
    w = agrees(write(tmp_path / "m", nodes + [node("Mul", a.split(), [b]) for a, b in muls], **arrays), off=0.02)
    assert isinstance(w, ec.Int8Weight)
    assert_bits(w.scale, scale)


@pytest.mark.parametrize("muls", [[("c p", "y")], [("c p", "d"), ("d one", "y")]])
def test_matmulinteger_whose_scales_are_one_number(muls, tmp_path):
    nodes = [node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), node("MatMulInteger", ["xq", "w", "xz"], ["i"], name="fc")]
    nodes += [node("Cast", ["i"], ["c"], to=TensorProto.FLOAT), *(node("Mul", a.split(), [b]) for a, b in muls)]
    path = write(tmp_path / "m", nodes, w=q, p=scale * STATIC["xs"], one=f(1), **STATIC)
    np.testing.assert_array_equal(ec.import_weights(path)["w"], q)
    with pytest.raises(ec.FormatError, match=r"m: w: .*MatMulInteger 'fc': no initializer is clearly the scale"):
        ec.import_weights(path, other="refuse")


def test_matmulintegers_of_the_same_codes(tmp_path):
    nodes = [node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]), node("Add", ["y0", "y1"], ["y"])]
    for i, s in enumerate("st"):
        nodes += [node("MatMulInteger", ["xq", "w", "xz"], [f"i{i}"]), node("Cast", [f"i{i}"], [f"c{i}"], to=TensorProto.FLOAT)]
        nodes += [node("Mul", ["xs", s], [f"p{i}"]), node("Mul", [f"c{i}", f"p{i}"], [f"y{i}"])]
    with pytest.raises(ec.FormatError, match=r"w: .*two layers share these codes"):
        ec.import_weights(write(tmp_path / "m", nodes, w=q, s=scale, t=f(0.5)))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_what_onnxruntime_quantizes(per_channel, signed, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    w = rng.standard_normal((N, K)).astype(f) * np.linspace(0.1, 3, N, dtype=f)[:, None]
    write(tmp_path / "m", [node("Gemm", ["x", "w"], ["y"], transB=1)], w=w)
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8
    quantization.quantize_dynamic(tmp_path / "m", tmp_path / "q", weight_type=kind, per_channel=per_channel, reduce_range=True)
    got = agrees(tmp_path / "q", "w_Transposed_quantized", off=0.02).dequantize()
    step = np.abs(w).max(axis=1 if per_channel else None) / 60  # of 7 bits
    assert (np.abs(got - w).max(axis=1) <= step).all()


@pytest.mark.parametrize("sub", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_cast_and_mul(sub, first, turned, tmp_path):
    arrays = {"w": q if turned else np.ascontiguousarray(q.T), "s": scale if turned else scale[:, None]}
    nodes, out = [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)], "c"
    if sub:
        arrays["z"] = np.asarray(rng.integers(-9, 9, N) if turned else rng.integers(-9, 9, (N, 1)), f)
        nodes, out = [*nodes, node("Sub", ["c", "z"], ["e"])], "e"
    nodes += [node("Mul", ["s", out] if first else [out, "s"], ["d"])]
    nodes += [node("MatMul", ["x", "d"], ["y"])] if turned else [node("Gemm", ["x", "d"], ["y"], transB=1)]
    path = write(tmp_path / "m", nodes, **arrays)
    assert agrees(path).shape == (N, K)
    assert list(ec.import_weights(path)) == ["w"]


@pytest.mark.parametrize("zero", [0.25, -3.0, 40000.0])
def test_zero_points_that_no_code_can_be(zero, tmp_path):
    nodes = [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("Sub", ["c", "z"], ["d"]), node("Mul", ["d", "s"], ["e"])]
    path = write(tmp_path / "m", [*nodes, node("MatMul", ["x", "e"], ["y"])], w=q.view(np.uint8), s=scale, z=np.full(N, zero, f))
    wanted = ((q.view(np.uint8) - np.float64(zero)) * scale).astype(f).T
    np.testing.assert_array_equal(ec.import_weights(path)["w"], wanted)
    with pytest.raises(ec.FormatError, match=r"m: w: .*is no weight"):
        ec.import_weights(path, other="refuse")


def test_float_matrices_are_turned(tmp_path):
    arrays = {"w": rng.standard_normal((K, N)).astype(f), "b": np.ones(N, f), "e": np.eye(N, dtype=f)}
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"]),
        node("Gemm", ["h", "e"], ["y"], transB=1),
    ]
    path = write(tmp_path / "m", nodes, **arrays)
    got = ec.import_weights(path)
    np.testing.assert_array_equal(got["w"], arrays["w"].T)
    assert (got.metadata["transposed"], list(got)) == (["w"], ["w", "b", "e"])
    np.testing.assert_allclose((X @ got["w"].T + got["b"]) @ got["e"].T, run(path), rtol=1e-4, atol=1e-5)


def test_what_no_weight_holds(tmp_path):
    along = (rng.random(K) + 0.5).astype(f)
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"], axis=0), node("MatMul", ["x", "d"], ["y"])]
    path = write(tmp_path / "m", nodes, w=q, s=along)
    got = ec.import_weights(path)["w"]
    np.testing.assert_array_equal(got, (q * along.astype(np.float64)[:, None]).astype(f).T)
    with pytest.raises(ec.FormatError, match=r"m: w: .*is no weight"):
        ec.import_weights(path, other="refuse")
    nodes = [node("DequantizeLinear", ["w", s], [d], axis=1) for s, d in (("s", "d"), ("t", "e"))]
    nodes += [node("MatMul", ["x", "d"], ["g"]), node("MatMul", ["x", "e"], ["h"]), node("Add", ["g", "h"], ["y"])]
    with pytest.raises(ec.FormatError, match=r"w: .*two layers share these codes"):
        ec.import_weights(write(tmp_path / "m", nodes, w=q, s=scale, t=scale * 2))


def test_strings_are_left_out(tmp_path):
    words = helper.make_tensor("s", TensorProto.STRING, [1], [b"a"])
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("Constant", [], ["c"], value=words)]
    assert list(ec.import_weights(write(tmp_path / "m", nodes, w=np.ones((K, N), f), s=words))) == ["w"]


def test_initializers_that_numpy_has_no_dtype_for(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    for kind in ("FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"):
        a = helper.make_tensor("a", getattr(TensorProto, kind), [2], b"\x38\x38", raw=True)
        with pytest.raises(ec.FormatError, match=r"m: a: .*dtype float8_.* is not supported"):
            ec.import_weights(write(tmp_path / "m", nodes, w=np.ones((K, N), f), a=a))
    model = onnx.load(str(write(tmp_path / "m", nodes, w=np.ones((K, N), f))))
    parts = helper.make_tensor("few", TensorProto.FLOAT, [1], [3.0]), helper.make_tensor("i", TensorProto.INT64, [1], [2])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(*parts, [8, 4]))
    onnx.save(model, str(tmp_path / "m"))
    with pytest.raises(ec.FormatError, match=r"m: few: .*sparse"):
        ec.import_weights(tmp_path / "m")


@pytest.mark.parametrize(
    ("inputs", "arrays"),
    [
        (["w", "s"], {"w": q, "s": scale[:-1]}),
        (["w", "x"], {"w": q}),
        (["w", "s", "z"], {"w": q, "s": scale, "z": np.zeros(7, np.int8)}),
    ],
)
def test_parts_that_do_not_fit(inputs, arrays, tmp_path):
    path = write(tmp_path / "m", [node("DequantizeLinear", inputs, ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])], **arrays)
    with pytest.raises(ec.FormatError, match="m: w: "):
        ec.import_weights(path)


def test_what_would_take_more_memory_than_the_file(tmp_path):
    """Blocks of 2**40, scales that broadcast codes, and 2**20 outputs of no inputs."""
    matmul = node("MatMul", ["x", "d"], ["y"])
    blocks = lambda size: [node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=size), matmul]  # noqa: E731
    got = ec.import_weights(write(tmp_path / "m", blocks(1 << 40), w=q, s=scale[None]))["w"]
    np.testing.assert_array_equal(got, (q * scale.astype(np.float64)).astype(f).T)
    with pytest.raises(ec.FormatError, match=r"m: w: .*blocks of 32 .*shape \(3, 40\), wanted \(2, 40\)"):
        ec.import_weights(write(tmp_path / "m", blocks(32), w=q, s=np.ones((3, N), f)))
    made = [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("Mul", ["c", "s"], ["d"])]
    with pytest.raises(ec.FormatError, match=r"m: w: "):
        ec.import_weights(write(tmp_path / "m", [*made, matmul], w=q[:, :1], s=scale[None, None]))
    empty = onnx.TensorProto(name="w", data_type=TensorProto.INT8, dims=[0, 1 << 20], raw_data=b"")
    got = ec.import_weights(write(tmp_path / "m", [*made, matmul], w=empty, s=f(1)))["w"]
    assert isinstance(got, np.ndarray)
    assert got.shape == (1 << 20, 0)


def test_matmulnbits_that_does_not_fit(tmp_path):
    for n, bits, block in ((N, 4, 16), (2**40, 4, 32), (N, 3, 32), (N, 4, 0)):
        made = node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=K, N=n, bits=bits, block_size=block)
        path = write(tmp_path / "m", [made], w=np.zeros((N, 2, 16), np.uint8), s=np.ones((N, 2), f))
        with pytest.raises(ec.FormatError, match="m: w: "):
            ec.import_weights(path)


def test_ways_through_a_graph_are_few(tmp_path):
    """Whose number would be the product of these numbers."""
    nodes = [node("MatMulInteger", ["x", "w"], ["i"]), *[node("Cast", ["i"], ["c"], to=TensorProto.FLOAT)] * 1000]
    nodes += [node("Mul", ["c", "d"], ["p"])] * 1000 + [node("Mul", ["p", "d"], ["y"])] * 1000
    with pytest.raises(ec.FormatError, match=r"m: .*two nodes make 'c'"):
        ec.import_weights(write(tmp_path / "m", nodes, w=q))
    nodes = [node("MatMulInteger", ["x", "w"], [""])] * 1000 + [node("Cast", [""], [""], to=TensorProto.FLOAT)] * 1000
    np.testing.assert_array_equal(ec.import_weights(write(tmp_path / "m", nodes, w=q))["w"], q)


def test_broken_files(tmp_path):
    data = write(tmp_path / "m", [node("MatMul", ["x", "w"], ["y"])], w=np.ones((K, N), f)).read_bytes()
    for size in range(0, len(data) - 1, 997):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(ec.FormatError):
            readers.read_onnx(tmp_path / "cut")
    short = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=b"1234")
    with pytest.raises(ec.FormatError, match="w: "):
        ec.import_weights(write(tmp_path / "m", [node("MatMul", ["x", "w"], ["y"])], w=short))
    outside = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../../../../../etc/passwd")
    with pytest.raises(ec.FormatError):
        ec.import_weights(write(tmp_path / "m", [node("MatMul", ["x", "w"], ["y"])], w=outside))
    constant = node("Constant", [], ["made"], value_float=1.0)
    model = onnx.load(str(write(tmp_path / "m", [node("MatMul", ["x", "w"], ["y"]), constant], w=np.ones((K, N), f), name=np.ones(3, f))))
    model.metadata_props.add(key="some", value="text")
    for text in (b"name", b"made", b"some", b"text"):
        (tmp_path / "m").write_bytes(model.SerializeToString().replace(text, b"nam\xae"))
        with pytest.raises(ec.FormatError, match=r"m: .*no UTF-8"):
            ec.import_weights(tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        readers.read_onnx(tmp_path / "absent")
