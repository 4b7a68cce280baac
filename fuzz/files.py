"""What must hold for any bytes that come as a file: FormatError, or tensors that kernels can run. No other exception, no crash, no hang."""

import os
import tempfile
from pathlib import Path

import numpy as np

import edgecomp as ec
from edgecomp import readers
from edgecomp.weights import Weight

MOST = 1 << 20
"""Values of a weight that is run, inputs and outputs of it: larger ones take time and show nothing new."""

_path = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)) / "file"


def check(data: bytes) -> bool:
    """Opens the bytes as a model file and as any checkpoint; whether one of them took them."""
    _path.write_bytes(data)
    taken = False
    try:
        for verify in ("full", "structure"):
            with ec.load(_path, mmap=verify == "full", verify=verify) as model:
                run(dict(model))
                assert model.nbytes <= len(data)
                taken = True
    except ec.FormatError:
        pass
    for other in ("dequantize", "refuse"):
        try:
            options = {"other": other} if readers.kind_of(_path) in ("gguf", "onnx") else {}
            run(ec.import_weights(_path, **options))
            taken = True
        except ec.FormatError:
            pass
    return taken


def run(tensors: dict[str, object]) -> None:
    """What a caller would do next."""
    for tensor in tensors.values():
        if not isinstance(tensor, Weight):
            np.asarray(tensor).tobytes()
        elif max(*tensor.shape, tensor.shape[0] * tensor.shape[1]) <= MOST:
            assert tensor.dequantize().shape == tensor.shape
            y = ec.linear(np.ones((2, tensor.shape[1]), np.float32), tensor, threads=1)
            assert y.shape == (2, tensor.shape[0])
