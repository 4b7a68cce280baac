"""What `minilm.py --bench` does: every engine in a process of its own, in turn. And the same model for onnxruntime: written with its own
fused operators (Attention, SkipLayerNormalization, BiasGelu), so that it need not find them, and quantized by its quantize_dynamic.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from minilm import FORMS, Encoder

LENGTHS, ROUNDS, SLICE = (16, 128, 256), 5, 0.1  # tokens; medians over rounds of so many seconds
SETTLE = 0.05  # seconds until an engine's idle threads no longer spin
ENGINES = {"onnxruntime float32": "float32.onnx", "onnxruntime int8": "int8.onnx"}


def engine(name: str, folder: Path, scratch: Path, threads: int, sparsity: float) -> Callable[[Sequence[int]], Any]:
    """What --bench times: a function of one sentence's tokens."""
    if name in FORMS:
        encoder = Encoder(folder, name, threads, sparsity)
        return lambda ids: encoder.embed_ids([ids])
    return session(scratch, name, threads)


def serve(connection: Any, *arguments: Any) -> None:
    """Times one engine in a process of its own: seconds a sentence for each number of tokens that comes."""
    run = engine(*arguments)
    connection.send(None)
    while tokens := connection.recv():
        ids = range(2000, 2000 + tokens)
        run(ids)
        calls, start = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - start < SLICE:
            run(ids)
            calls += 1
        connection.send((time.perf_counter() - start) / calls)


def bench(folder: Path, threads: int, sparsity: float) -> dict[str, dict[int, float]]:
    """Median seconds a sentence: engine, tokens. The engines take turns."""
    spawn = multiprocessing.get_context("spawn")
    times: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch, pipes = Path(name), {}
        for name in [*FORMS, *prepare(folder, scratch)]:
            pipes[name], end = spawn.Pipe()
            spawn.Process(target=serve, args=(end, name, folder, scratch, threads, sparsity), daemon=True).start()
            pipes[name].recv()
        for tokens in LENGTHS * ROUNDS:
            for name, pipe in pipes.items():
                pipe.send(tokens)
                times.setdefault(name, {}).setdefault(tokens, []).append(pipe.recv())
                time.sleep(SETTLE)
        for pipe in pipes.values():
            pipe.send(0)
    return {name: {tokens: statistics.median(all_) for tokens, all_ in of.items()} for name, of in times.items()}


def prepare(folder: Path, scratch: Path) -> list[str]:
    """Writes the models to `scratch`; the engines that can be timed: none without onnx and onnxruntime."""
    if importlib.util.find_spec("onnx") is None or importlib.util.find_spec("onnxruntime") is None:
        return []
    from onnxruntime.quantization import quantize_dynamic

    export(folder / "model.safetensors", scratch / "float32.onnx")
    logging.disable(logging.WARNING)  # advice to preprocess
    quantize_dynamic(scratch / "float32.onnx", scratch / "int8.onnx", extra_options={"DefaultTensorType": 1})
    logging.disable(logging.NOTSET)
    return list(ENGINES)


def session(scratch: Path, name: str, threads: int) -> Callable[[Sequence[int]], Any]:
    """A function of one sentence's tokens that gives its unit vector."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    run = onnxruntime.InferenceSession(scratch / ENGINES[name], options, providers=["CPUExecutionProvider"]).run
    return lambda ids: run(None, {"ids": np.array([ids])})[0]


def export(weights: Path, path: Path) -> None:
    """The encoder as an ONNX file: ids int64 [1, tokens] -> vector float32 [1, 384]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from safetensors.numpy import load_file

    t, nodes, constants = load_file(weights), [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"y{len(nodes)}"], domain=domain, **attributes))
        return nodes[-1].output[0]

    def tensor(name: str, transpose: bool = False) -> str:
        return constant(name, t[name].T if transpose else t[name])

    def matmul(x: str, at: str) -> str:
        return node("MatMul", x, tensor(f"{at}.weight", transpose=True))

    def norm(x: str, skip: str, at: str, bias: str) -> str:
        inputs = x, skip, tensor(f"{at}.weight"), tensor(f"{at}.bias"), tensor(bias)
        return node("SkipLayerNormalization", *inputs, domain="com.microsoft", epsilon=1e-12)

    places = t["embeddings.position_embeddings.weight"] + t["embeddings.token_type_embeddings.weight"][0]
    length = node("Shape", "ids", start=1, end=2)
    place = node("Slice", constant("places", places[None]), constant("zero", np.array([0])), length, constant("one", np.array([1])))
    x = node("Add", node("Gather", tensor("embeddings.word_embeddings.weight"), "ids"), place)
    x = node("LayerNormalization", x, tensor("embeddings.LayerNorm.weight"), tensor("embeddings.LayerNorm.bias"), epsilon=1e-12)
    for i in range(6):
        at = f"encoder.layer.{i}"
        names = [f"{at}.attention.self.{name}" for name in ("query", "key", "value")]
        w = constant(f"{at}.qkv", np.concatenate([t[f"{name}.weight"].T for name in names], axis=1))
        bias = constant(f"{at}.qkv_bias", np.concatenate([t[f"{name}.bias"] for name in names]))
        mixed = node("Attention", x, w, bias, domain="com.microsoft", num_heads=12)
        out = f"{at}.attention.output"
        x = norm(matmul(mixed, f"{out}.dense"), x, f"{out}.LayerNorm", f"{out}.dense.bias")
        up = node("BiasGelu", matmul(x, f"{at}.intermediate.dense"), tensor(f"{at}.intermediate.dense.bias"), domain="com.microsoft")
        x = norm(matmul(up, f"{at}.output.dense"), x, f"{at}.output.LayerNorm", f"{at}.output.dense.bias")
    mean = node("ReduceMean", x, constant("tokens", np.array([1])), keepdims=0)
    vector = node("LpNormalization", mean, axis=1, p=2)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])
    output = helper.make_tensor_value_info(vector, TensorProto.FLOAT, [1, 384])
    graph = helper.make_graph(nodes, "minilm", [ids], [output], constants)
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)
