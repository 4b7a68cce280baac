"""A checkpoint as another: weights dequantised on the way out."""

import json
import os
from typing import Any

import numpy as np

from edgecomp._zip_writer import check_replaceable
from edgecomp.readers.checkpoint import Path, require
from edgecomp.weights import Weight


def export_safetensors(tensors: Any, path: Path) -> None:
    """Writes arrays as they are, and weights dequantised to float32, as a safetensors file that any other library reads.

    Metadata that are not strings are written as JSON.

    Raises:
        ImportError: the safetensors package is not installed.
        OSError: the file cannot be written.
        ValueError: an array of a dtype that safetensors files do not have.
    """
    save = require("safetensors.numpy", "safetensors").save_file
    path = os.fspath(path)
    check_replaceable(path)
    arrays = {}
    for name, value in tensors.items():
        a = np.asarray(value.dequantize() if isinstance(value, Weight) else value, order="C")
        if a.dtype.name != "bfloat16" and (a.dtype.kind not in "biufc" or a.dtype.itemsize > 8):
            raise ValueError(f"{path}: {name}: dtype {a.dtype} is none of safetensors'")
        arrays[name] = a
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tensors.metadata.items()}
    try:
        save(arrays, path, metadata=metadata or None)
    except require("safetensors", "safetensors").SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
