"""Writes the seeds of the corpus: small files of every kind and format. `python fuzz/seeds.py`"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests"), str(Path(__file__).resolve().parents[1] / "tests" / "hostile")]

import craft
import gguf
import models
import onnx
import test_readers_pth as pth
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import edgecomp as ec

CORPUS = Path(__file__).resolve().parent / "corpus"
ROW = np.arange(32, dtype=np.float32).reshape(1, 32)


def model_files() -> None:
    for kind, tensor in craft.small().items():
        ec.save(CORPUS / f"model-{kind}", {"w": tensor}, {"m": [1, 2.5]})
    for name, w in models.weights(2, 20)["int4"].items():
        ec.save(CORPUS / f"model-int4-{name.replace(' ', '-')}", {"w": w})


def gguf_files() -> None:
    for kind in ("Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q6_K", "F16", "BF16"):
        writer = gguf.GGUFWriter(str(CORPUS / f"gguf-{kind}"), "llama")
        writer.add_array("tokens", ["a", "b"])
        quant = gguf.GGMLQuantizationType[kind]
        values, size = gguf.GGML_QUANT_SIZES[quant]
        data = np.zeros((2, 256 // values * size), np.uint8)
        writer.add_tensor("w", data if kind != "F16" else data.view(np.float16), raw_dtype=quant)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def safetensors_files() -> None:
    words, halves = np.zeros((4, 16), np.int32), np.ones((1, 16), np.float16)
    gptq = {"l.qweight": words, "l.qzeros": np.zeros((1, 2), np.int32), "l.scales": halves, "l.g_idx": np.zeros(32, np.int32)}
    awq = {"l.qweight": np.zeros((32, 2), np.int32), "l.qzeros": np.zeros((1, 2), np.int32), "l.scales": halves}
    packed = {
        "l.weight_packed": np.zeros((16, 4), np.int32),
        "l.weight_scale": np.ones((16, 1), np.float32),
        "l.weight_shape": np.array([16, 32]),
    }
    int8 = {"l.weight": np.ones((16, 32), np.int8), "l.weight_scale": np.ones((16, 1), np.float32), "l.bias": np.ones(16, np.float32)}
    for name, tensors in {"gptq": gptq, "awq": awq, "packed": packed, "int8": int8}.items():
        save_file(tensors, CORPUS / f"safetensors-{name}", {"format": "pt"})
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (CORPUS / "safetensors-bf16").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def onnx_files() -> None:
    def write(name: str, nodes: list[object], **arrays: np.ndarray) -> None:
        inits = [numpy_helper.from_array(a, key) for key, a in arrays.items()]
        x, y = (helper.make_tensor_value_info(v, TensorProto.FLOAT, None) for v in "xy")
        onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], inits)), str(CORPUS / f"onnx-{name}"))

    w, scale = np.ones((32, 2), np.int8), np.ones(2, np.float32)
    product = helper.make_node("MatMul", ["x", "d"], ["y"])
    dequantize = helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1)
    write("qdq", [dequantize, product], w=w, s=scale)
    nbits = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", N=2, K=32, bits=4, block_size=32)
    write("matmulnbits", [nbits], w=np.ones((2, 1, 16), np.uint8), s=scale)
    cast = [
        helper.make_node("Cast", ["w"], ["c"], to=1),
        helper.make_node("Mul", ["c", "s"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    write("cast", cast, w=w, s=scale)
    integer = [
        helper.make_node("MatMulInteger", ["x", "w"], ["i"]),
        helper.make_node("Cast", ["i"], ["c"], to=1),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    ]
    write("integer", integer, w=w, s=scale)


def numpy_files() -> None:
    with (CORPUS / "npz").open("wb") as f:
        np.savez(f, a=ROW, b=np.int8(3))
    with (CORPUS / "npz-deflated").open("wb") as f:
        np.savez_compressed(f, a=ROW)
    for write in (pth.zipped, pth.legacy):
        write(CORPUS / f"pth-{write.__name__}", {"m": {"w": pth.tensor()}, "epoch": 1})


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    model_files()
    gguf_files()
    safetensors_files()
    onnx_files()
    numpy_files()
