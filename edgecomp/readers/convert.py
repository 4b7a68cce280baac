"""Between checkpoints: float matrices quantised on the way in, weights dequantised on the way out."""

import json
import os
from typing import Any

import numpy as np

from edgecomp.quantization import quantize
from edgecomp.readers.checkpoint import Checkpoint, Path, require
from edgecomp.weights import Weight

LEAST = 16
"""Inputs and outputs that a matrix has at least to be worth quantising."""


def quantized(tensors: Checkpoint, bits: int, group_size: int | str | None = "default") -> Checkpoint:
    """The same tensors with all finite float matrices of at least 16 x 16 made int8 or int4 by `edgecomp.quantize`; others as they are.

    Raises:
        ValueError: bits or group_size that `edgecomp.quantize` refuses.
    """
    result = Checkpoint(metadata=tensors.metadata)
    for name, value in tensors.items():
        matrix = isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind == "f" and min(value.shape) >= LEAST
        result[name] = quantize(value, bits, group_size=group_size) if matrix and np.isfinite(value).all() else value
    return result


def export_safetensors(tensors: Any, path: Path) -> None:
    """Writes arrays as they are, and weights dequantised to float32, as a safetensors file that any other library reads.

    Metadata that are not strings are written as JSON.

    Raises:
        ImportError: the safetensors package is not installed.
        OSError: the file cannot be written.
    """
    save = require("safetensors.numpy", "safetensors").save_file
    arrays = {name: np.ascontiguousarray(value.dequantize() if isinstance(value, Weight) else value) for name, value in tensors.items()}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tensors.metadata.items()}
    save(arrays, os.fspath(path), metadata=metadata or None)
