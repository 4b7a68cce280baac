"""A checkpoint as another: weights dequantised on the way out."""

import json
import os
from typing import Any

import numpy as np

from edgecomp.readers.checkpoint import Path, require
from edgecomp.weights import Weight


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
