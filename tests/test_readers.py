"""edgecomp.readers: every layout against a decoding of its own or the ecosystem's; nothing that a file says is believed unchecked."""

import json
import struct

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import readers

f = np.float32
rng = np.random.default_rng(31)

gguf = pytest.importorskip("gguf")
safetensors_numpy = pytest.importorskip("safetensors.numpy")
onnx = pytest.importorskip("onnx")


def halves(*shape):
    return (rng.standard_normal(shape) * 0.1).astype(np.float16)


# ---- GGUF


BLOCK = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "Q5_0": 22, "Q5_1": 24, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210, "Q2_K": 84, "IQ4_NL": 18}


def blocks(kind, n, k):
    """Random blocks whose scales are finite float16."""
    quant = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[quant]
    assert size == BLOCK[kind]
    raw = rng.integers(0, 256, (n, k // values, size)).astype(np.uint8)
    halves_at = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "Q2_K": (80, 82), "Q4_1": (0, 2), "Q5_1": (0, 2)}.get(kind, (0,))
    for at in halves_at:
        raw[..., at + 1] &= 0xBB  # no exponent of Inf or NaN
    return raw.reshape(n, -1)


def write_gguf(path, tensors):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string("general.name", "ein Größtes")
    writer.add_array("tokenizer.ggml.tokens", ["a", "Ġb", ""])
    writer.add_array("numbers", [1.5, -2.0])
    writer.add_bool("yes", True)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", BLOCK)
@pytest.mark.parametrize("n", [1, 32, 75])
def test_gguf_types(kind, n, tmp_path):
    k = 512
    data = blocks(kind, n, k)
    path = write_gguf(tmp_path / "m", {"w": (data, kind)})
    wanted = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    native = kind in ("Q4_0", "Q4_1", "Q8_0")
    got = ec.import_weights(path)["w"]
    assert isinstance(got, {"Q4_0": ec.Int4Weight, "Q4_1": ec.Int4Weight, "Q8_0": ec.GroupedInt8Weight}.get(kind, np.ndarray))
    values = got.dequantize() if native else got
    # -0.0 of -1 * 0.0 is 0 in either
    np.testing.assert_array_equal(values, wanted)
    assert values.dtype == f
    if native:
        readers.read_gguf(path, other="refuse")
    else:
        with pytest.raises(ec.FormatError, match=rf"m: w: type {kind}.*other='dequantize'"):
            readers.read_gguf(path, other="refuse")


def test_gguf_plain_types_and_metadata(tmp_path):
    a, words = rng.standard_normal((3, 5, 32)).astype(f), rng.integers(0, 1 << 16, (4, 32)).astype(np.uint16)
    words &= 0xBFFF  # finite
    tensors = {
        "a": (a, None),
        "half": (a.astype(np.float16), None),
        "brain": (words.view(np.uint8), "BF16"),
        "i": (np.arange(7, dtype=np.int32), None),
        "experts": (blocks("Q8_0", 6, 64).reshape(2, 3, -1), "Q8_0"),
    }
    got = readers.read_gguf(write_gguf(tmp_path / "m", tensors))
    assert_bits(got["a"], a)
    assert_bits(got["half"], a.astype(np.float16))
    assert_bits(got["brain"], (words.astype(np.uint32) << 16).view(f))
    assert_bits(got["i"], np.arange(7, dtype=np.int32))
    wanted = gguf.quants.dequantize(tensors["experts"][0], gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(got["experts"], wanted)
    meta = got.metadata
    assert meta["general.name"] == "ein Größtes"
    assert (meta["tokenizer.ggml.tokens"], meta["numbers"], meta["yes"]) == (["a", "Ġb", ""], [1.5, -2.0], True)
    assert not any(v.flags.writeable for v in got.values())


def write_split(folder, **options):
    """w0 .. w4 in parts of two tensors."""
    writer = gguf.GGUFWriter(str(folder / "m.gguf"), "llama", split_max_tensors=2, **options)
    writer.add_string("general.name", "five")
    for i in range(5):
        writer.add_tensor(f"w{i}", np.full((2, 32), i, f))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return sorted(folder.iterdir())


@pytest.mark.parametrize("small", [False, True])
def test_gguf_in_parts(small, tmp_path):
    first, *others = write_split(tmp_path, small_first_shard=small)
    got = ec.import_weights(first)
    assert [(name, a[0, 0]) for name, a in got.items()] == [(f"w{i}", i) for i in range(5)]
    assert got.metadata["general.name"] == "five"
    count = 1 + len(others)
    for i, part in enumerate(others, 2):
        with pytest.raises(ec.FormatError, match=rf"{part.name}: is part {i} of {count}.*wanted the first, .*-00001-of-0000{count}\.gguf"):
            ec.import_weights(part)


def test_gguf_in_parts_that_do_not_fit(tmp_path):
    first, second, third = write_split(tmp_path)
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(first.read_bytes())
    with pytest.raises(ec.FormatError, match=r"alone\.gguf: is part 1 of 3.*wanted a name that ends in -00001-of-00003\.gguf"):
        ec.import_weights(alone)
    data = third.read_bytes()
    wrong_parts = {"split.no is 1": second.read_bytes(), "split.no is 0": alone.read_bytes(), "w3: .*two": data.replace(b"w4", b"w3")}
    for said, wrong in wrong_parts.items():
        third.write_bytes(wrong)
        with pytest.raises(ec.FormatError, match=rf"{third.name}: {said}"):
            ec.import_weights(first)
    third.unlink()
    with pytest.raises(ec.FormatError, match=rf"{third.name}: is not there, part 3 of 3"):
        ec.import_weights(first)
    third.write_bytes(data)
    key = b"split.tensors.count" + struct.pack("<I", 5)
    first.write_bytes(alone.read_bytes().replace(key + struct.pack("<i", 5), key + struct.pack("<i", 6)))
    with pytest.raises(ec.FormatError, match=r"has 5 tensors in its parts, split\.tensors\.count says 6"):
        ec.import_weights(first)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q6_K", "BF16"])
def test_gguf_of_a_big_endian_machine(kind, tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "m"), "llama", endianess=gguf.GGUFEndian.BIG)
    a = rng.standard_normal((2, 256)).astype(f)
    writer.add_tensor("a", a.copy())
    if kind != "BF16":
        writer.add_tensor("w", blocks(kind, 2, 256), raw_dtype=gguf.GGMLQuantizationType[kind])
    else:
        writer.add_tensor("w", np.zeros((2, 512), np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(ec.FormatError, match=f"m: w: big-endian {kind} is not supported"):
        ec.import_weights(tmp_path / "m")


def test_gguf_truncated_anywhere(tmp_path):
    data = write_gguf(tmp_path / "m", {"a": (np.ones((2, 32), f), None), "w": (blocks("Q4_1", 2, 64), "Q4_1")}).read_bytes()
    for size in (*range(0, len(data) - 160, 3), len(data) - 140):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(ec.FormatError):
            readers.read_gguf(tmp_path / "cut")


def gguf_bytes(fields=b"", count=0, tensors=b"", tensor_count=0):
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count) + fields + tensors


def key(kind, rest):
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + rest


def info(dims, kind, offset=0):
    return struct.pack("<Q", 1) + b"w" + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF" + bytes(40),
        gguf_bytes(count=2**60),
        gguf_bytes(tensor_count=2**60),
        gguf_bytes(key(9, struct.pack("<IQ", 8, 2**60)), 1),
        gguf_bytes(key(9, struct.pack("<IQ", 0, 2**62)), 1),
        gguf_bytes(key(9, struct.pack("<IQ", 9, 5)) + bytes(100), 1),
        gguf_bytes(key(8, struct.pack("<Q", 2**63)), 1),
        gguf_bytes(key(77, b""), 1),
        gguf_bytes(key(0, b"\0") * 2, 2),
        gguf_bytes(tensors=info((2**32, 2**32), 0) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((2**62, 4), 2) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((33, 2), 2) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((40,), 0) + info((40,), 0).replace(b"w", b"v") + bytes(170), tensor_count=2),
        gguf_bytes(tensors=info((4,), 0, 2**63) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((4,), 999) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((1,) * 99, 0) + bytes(100), tensor_count=1),
        gguf_bytes(tensors=info((1,), 0) * 2 + bytes(100), tensor_count=2),
        gguf_bytes(tensors=info((32, 1), 8) + b"\xff" * 100, tensor_count=1),
    ],
)
def test_gguf_lies(data, tmp_path):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ec.FormatError, match="m: "):
        ec.import_weights(tmp_path / "m")


# ---- safetensors


def words(codes, bits):
    """uint32 [..., K * bits / 32] of codes along the last axis, lowest first."""
    per = 32 // bits
    out = np.zeros((*codes.shape[:-1], codes.shape[-1] // per), np.uint32)
    for i in range(per):
        out |= codes[..., i::per].astype(np.uint32) << np.uint32(bits * i)
    return out.view(np.int32)


def saved(path, tensors, **config):
    safetensors_numpy.save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, str(path / "model.safetensors"))
    if config:
        (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    return path / "model.safetensors"


def values(codes, zero, scale, group):
    """scale * (code - zero), [N, K], [N, groups] each, rounded once."""
    wide = lambda a: np.repeat(a.astype(np.float64), group, axis=1)[:, : codes.shape[1]]  # noqa: E731
    return ((codes.astype(np.float64) - wide(zero)) * wide(scale)).astype(f)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq(bits, version, act_order, tmp_path):
    n, k, group = 40, 128, 32
    codes, scale = rng.integers(0, 1 << bits, (n, k)), halves(n, k // group)
    stored = rng.integers(0, (1 << bits) - 1, (n, k // group))
    of = rng.permutation(np.repeat(np.arange(k // group), group)) if act_order else np.arange(k) // group
    zero = stored + (version == "gptq")
    layer = {
        "l.qweight": words(codes, bits).T,  # [K * bits / 32, N]
        "l.qzeros": words(np.ascontiguousarray(stored.T), bits),
        "l.scales": scale.T,
        "l.g_idx": of.astype(np.int32),
        "l.bias": np.arange(n, dtype=f),
    }
    got = readers.read_safetensors(saved(tmp_path, layer, quant_method="gptq", checkpoint_format=version))
    wanted = ((codes - zero[:, of]) * scale.astype(np.float64)[:, of]).astype(f)
    np.testing.assert_array_equal(got["l.weight"].dequantize(), wanted)
    assert set(got) == {"l.weight", "l.bias"}
    assert got.metadata["config"]["quantization_config"]["quant_method"] == "gptq"


@pytest.mark.parametrize(("config", "group"), [({}, 96), ({"group_size": 128}, 128), ({"group_size": -1}, 96), ({"group_size": "?"}, 96)])
def test_the_configuration_tells_how_long_groups_are(config, group, tmp_path):
    """Two groups of 192 inputs: the last may be short."""
    n, k = 8, 192
    codes, scale = rng.integers(0, 16, (n, k)), halves(n, 2)
    layer = {"l.qweight": words(codes, 4).T, "l.qzeros": np.zeros((2, 1), np.int32), "l.scales": scale.T}
    w = readers.read_safetensors(saved(tmp_path, layer, quant_method="gptq", checkpoint_format="gptq_v2", **config))["l.weight"]
    np.testing.assert_array_equal(w.dequantize(), values(codes, np.zeros((n, 2)), scale, group))


def test_awq(tmp_path):
    n, k, group = 48, 128, 64
    codes, zero, scale = rng.integers(0, 16, (n, k)), rng.integers(0, 16, (n, k // group)), halves(n, k // group)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    pack = lambda a: words(np.ascontiguousarray(a.T).reshape(a.shape[1], -1, 8)[..., order].reshape(a.shape[1], -1), 4)  # noqa: E731
    path = saved(tmp_path, {"l.qweight": pack(codes), "l.qzeros": pack(zero), "l.scales": scale.T}, quant_method="awq")
    np.testing.assert_array_equal(ec.import_weights(path)["l.weight"].dequantize(), values(codes, zero, scale, group))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("group", [32, 128])
def test_compressed_tensors_packed(bits, asymmetric, group, tmp_path):
    n, k, half = 40, 128, 1 << (bits - 1)
    codes, zero, scale = rng.integers(0, 1 << bits, (n, k)), rng.integers(0, 1 << bits, (n, k // group)), halves(n, k // group)
    layer = {"l.weight_packed": words(codes, bits), "l.weight_scale": scale, "l.weight_shape": np.array([n, k])}
    if asymmetric:
        layer["l.weight_zero_point"] = words(np.ascontiguousarray(zero.T), bits).T
    got = readers.read_safetensors(saved(tmp_path, layer))["l.weight"]
    wanted = values(codes, zero if asymmetric else np.full_like(zero, half), scale, group)
    np.testing.assert_array_equal(got.dequantize(), wanted)
    assert got.bits == bits


def test_compressed_tensors_int8(tmp_path):
    n, k = 33, 64
    q, zero = rng.integers(-127, 128, (n, k)).astype(np.int8), rng.integers(-9, 9, (n, 1)).astype(np.int8)
    scale = halves(n, 1).astype(f)
    low = q.copy()
    low[0, 0] = -128
    grouped = halves(n, 2).astype(f)
    layers = {
        "a.weight": q, "a.weight_scale": scale,
        "b.weight": low, "b.weight_scale": scale, "b.weight_zero_point": zero,
        "c.weight": low, "c.weight_scale": grouped,
        "d.weight": q, "d.weight_scale": np.array([0.5], f), "d.weight_zero_point": np.zeros(1, np.int8),
    }  # fmt: skip
    got = ec.import_weights(saved(tmp_path, layers))
    assert [type(got[f"{x}.weight"]) for x in "abcd"] == [ec.Int8Weight, ec.GroupedInt8Weight, ec.GroupedInt8Weight, ec.Int8Weight]
    none = np.zeros((n, 2))
    np.testing.assert_array_equal(got["a.weight"].dequantize(), values(q, none, scale, k))
    np.testing.assert_array_equal(got["b.weight"].dequantize(), values(low, zero, scale, k))
    np.testing.assert_array_equal(got["c.weight"].dequantize(), values(low, none, grouped, 32))
    np.testing.assert_array_equal(got["d.weight"].dequantize(), q * f(0.5))


def test_safetensors_floats(tmp_path):
    bits = rng.integers(0, 1 << 16, (3, 4)).astype(np.uint16) & 0xBFFF
    body = np.arange(4, dtype=f).tobytes() + bits.tobytes()
    header = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    header |= {"b": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [16, 40]}}
    write = lambda path, h, body: path.write_bytes(struct.pack("<Q", len(h)) + h + body)  # noqa: E731
    text = json.dumps({**header, "__metadata__": {"x": "y"}}).encode()
    write(tmp_path / "m", text, body)
    got = ec.import_weights(tmp_path / "m")
    assert_bits(got["a"], np.arange(4, dtype=f).reshape(2, 2))
    assert_bits(got["b"], (bits.astype(np.uint32) << 16).view(f))
    assert got.metadata == {"x": "y"}
    for size in range(0, len(text) + 8 + len(body), 5):
        (tmp_path / "cut").write_bytes((tmp_path / "m").read_bytes()[:size])
        with pytest.raises(ec.FormatError):
            readers.read_safetensors(tmp_path / "cut")
    for change in ({"shape": [2, 3]}, {"data_offsets": [0, 999]}, {"dtype": "F99"}, {"shape": [2**40, 2**40]}, {"data_offsets": [8, 24]}):
        write(tmp_path / "bad", json.dumps({**header, "a": {**header["a"], **change}}).encode(), body)
        with pytest.raises(ec.FormatError, match="bad: "):
            readers.read_safetensors(tmp_path / "bad")
    write(tmp_path / "bad", json.dumps({"w": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}).encode(), body[:16])
    with pytest.raises(ec.FormatError, match="w: dtype F8_E4M3 is not supported"):
        readers.read_safetensors(tmp_path / "bad")


def test_a_folder_of_safetensors(tmp_path):
    for i in range(2):
        safetensors_numpy.save_file({f"w{i}": np.full(3, i, f)}, str(tmp_path / f"model-{i}.safetensors"))
    assert list(ec.import_weights(tmp_path)) == ["w0", "w1"]
    safetensors_numpy.save_file({"w0": np.ones(3, f)}, str(tmp_path / "z.safetensors"))
    with pytest.raises(ec.FormatError, match="w0: there are two"):
        ec.import_weights(tmp_path)


@pytest.mark.parametrize(("named", "said"), [("model-1", "w1: names model-1.*not there"), ("model-0", "w1: .*does not hold")])
def test_an_index_that_lies(named, said, tmp_path):
    safetensors_numpy.save_file({"w0": np.ones(3, f)}, str(tmp_path / "model-0.safetensors"))
    index = {"metadata": {}, "weight_map": {"w0": "model-0.safetensors", "w1": f"{named}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ec.FormatError, match=rf"model\.safetensors\.index\.json: {said}"):
        ec.import_weights(tmp_path)
    del index["weight_map"]["w1"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert list(ec.import_weights(tmp_path)) == ["w0"]
    for text in ("[]", '{"weight_map": 1}', '{"weight_map": {"w0": 1}}', "{"):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ec.FormatError, match=r"index\.json: "):
            ec.import_weights(tmp_path)


def test_metadata_that_json_has_no_number_for(tmp_path):
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    safetensors_numpy.save_file({"w": np.ones(3, f)}, str(tmp_path / "model.safetensors"))
    got = ec.import_weights(tmp_path)
    assert got.metadata == {"config": {"time_step_limit": [0.0, "Infinity"]}}
    ec.save(tmp_path / "m.npz", got, got.metadata)
    writer = gguf.GGUFWriter(str(tmp_path / "g"), "llama")
    writer.add_float32("least", -float("inf"))
    writer.add_array("scores", [1.5, float("nan")])
    writer.add_tensor("w", np.ones(3, f))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    got = ec.import_weights(tmp_path / "g")
    assert (got.metadata["least"], got.metadata["scores"]) == ("-Infinity", [1.5, "NaN"])
    ec.save(tmp_path / "m.npz", got, got.metadata)


def test_a_configuration_that_is_no_object(tmp_path):
    path = saved(tmp_path, {"l.weight": np.ones((4, 8), np.int8), "l.weight_scale": np.ones((4, 1), f)})
    with pytest.raises(ec.FormatError, match=r"model\.safetensors: quantization_config is 'gptq', wanted an object"):
        readers.read_safetensors(path, config={"quantization_config": "gptq"})
    with pytest.raises(TypeError, match="config is a str, wanted None or a dict"):
        readers.read_safetensors(path, config="gptq")


def test_a_layer_of_no_name(tmp_path):
    q = rng.integers(-127, 128, (4, 32)).astype(np.int8)
    got = ec.import_weights(saved(tmp_path, {"weight": q, "weight_scale": np.ones((4, 1), f), "bias": np.ones(4, f)}))
    assert sorted(got) == ["bias", "weight"]
    np.testing.assert_array_equal(got["weight"].dequantize(), q)


I32 = np.int32


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"qweight": np.zeros((4, 8), I32), "scales": np.ones((1, 8), f)}, "qzeros is missing"),
        ({"qweight": np.zeros((4, 8), I32), "scales": np.ones((1, 8), f), "qzeros": np.zeros((2, 1), I32)}, "qzeros has shape"),
        ({"qweight": np.zeros((4, 9), I32), "scales": np.ones((1, 8), f), "qzeros": np.zeros((1, 1), I32)}, "not AWQ int4"),
        ({"qweight": np.zeros((3, 32), I32), "scales": np.ones((1, 32), f), "qzeros": np.zeros((1, 3), I32)}, "not AWQ int4"),
        ({"qweight": np.zeros(4, I32), "scales": np.ones((1, 8), f), "qzeros": np.zeros((1, 1), I32)}, "two dimensions"),
        ({"qweight": np.zeros((4, 8), I32), "scales": np.full((1, 8), np.nan, f), "qzeros": np.zeros((1, 1), I32)}, "nan"),
        ({"weight_packed": np.zeros((4, 8), I32), "weight_scale": np.ones((4, 2), f)}, "weight_shape is missing"),
        (
            {"weight_packed": np.zeros((4, 8), I32), "weight_scale": np.ones((4, 2), f), "weight_shape": np.array([4, -64])},
            "weight_shape is",
        ),
        ({"weight_packed": np.zeros((4, 8), I32), "weight_scale": np.ones((5, 2), f), "weight_shape": np.array([4, 64])}, "wanted"),
        ({"weight_packed": np.zeros((4, 8), np.uint8), "weight_scale": np.ones((4, 2), f), "weight_shape": np.array([4, 16])}, "NVFP4"),
        ({"weight": np.zeros((4, 8), f), "weight_scale": np.ones((4, 1), f)}, "wanted int8"),
        ({"weight": np.zeros((1 << 20, 0), np.int8), "weight_scale": np.ones(1, f)}, r"shape \(1048576, 0\)"),
        ({"weight": np.zeros((4, 8), np.int8), "weight_scale": np.ones((3, 1), f)}, r"weight_scale has shape \(3, 1\)"),
        (
            {"weight": np.zeros((4, 8), np.int8), "weight_scale": np.ones((4, 1), f), "weight_zero_point": np.full((4, 1), 0.5, f)},
            "weight_zero_point has dtype float32",
        ),
        (
            {"weight": np.zeros((4, 8), np.int8), "weight_scale": np.ones((4, 1), f), "weight_zero_point": np.full((4, 1), 1 << 40)},
            r"weight_zero_point .*1099511627776",
        ),
        ({"weight": np.zeros((4, 8), np.int8), "weight_scale_inv": np.ones((4, 1), f)}, "not supported"),
        ({"weight": np.zeros((4, 8), np.int8), "SCB": np.ones(4, f)}, r"l\.SCB: .*not supported"),
    ],
)
def test_layers_that_do_not_fit(layer, said, tmp_path):
    with pytest.raises(ec.FormatError, match=rf"l\.weight.*{said}|{said}"):
        ec.import_weights(saved(tmp_path, {f"l.{name}": a for name, a in layer.items()}))
