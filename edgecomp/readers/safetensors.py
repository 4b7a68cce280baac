"""safetensors files, on the parser of the safetensors package."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.readers import packed_layers
from edgecomp.readers.checkpoint import Array, Checkpoint, Path, bfloat16_to_float32, reading, require

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path, *, config: dict[str, Any] | None = None) -> Checkpoint:
    """The tensors of a safetensors file, or of all files in a folder. Layers of GPTQ, AWQ and compressed-tensors (int4, int8) become
    weights without loss; all else arrays that view the mapped file, bfloat16 as float32.

    Args:
        path: a file, or a folder whose *.safetensors hold one model.
        config: the model's config.json. None reads the one in the same folder, if there is one: its quantization_config tells how GPTQ
            stores zero points. Without it they are taken as stored less one ("gptq", not "gptq_v2").

    Returns:
        Checkpoint: a quantised layer's weight is called `<layer>.weight`. `metadata` is the file's, and "config" its config.json.

    Raises:
        FormatError: not a well-formed file; shapes that do not fit each other; a dtype (float8) or a layout without an equal here; a
            folder that lacks what its model.safetensors.index.json names.
        ImportError: the safetensors package is not installed.
        OSError: the file cannot be read.
    """
    if config is not None and not isinstance(config, dict):
        raise TypeError(f"read_safetensors: config is a {type(config).__name__}, wanted None or a dict")
    safetensors = require("safetensors", "safetensors")
    place = pathlib.Path(path)
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if not files:
        raise FormatError(f"{os.fspath(path)}: no *.safetensors in the folder")
    result = Checkpoint()
    for file in files:
        _read(safetensors, file, result)
    if place.is_dir():
        _check_index(place, result)
    if config is None:
        config = _config(files[0].parent / "config.json")
    if config:
        result.metadata["config"] = config
    quantization = (config or {}).get("quantization_config") or {}
    if not isinstance(quantization, dict):
        raise FormatError(f"{os.fspath(path)}: quantization_config is {str(quantization)[:80]!r}, wanted an object")
    return packed_layers.weights(result, quantization, path)


def _read(safetensors: Any, path: pathlib.Path, result: Checkpoint) -> None:
    with reading(path):
        with safetensors.safe_open(path, framework="numpy") as opened:  # the package checks header, offsets and shapes
            names, metadata = list(opened.keys()), opened.metadata() or {}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, "r", 8 + length).view(np.ndarray) if path.stat().st_size > 8 + length else np.empty(0, np.uint8)
    result.metadata.update(metadata)
    for name in sorted(names, key=lambda n: header[n]["data_offsets"]):
        entry = header[name]
        if entry["dtype"] not in DTYPES:
            raise FormatError(f"{path}: {name}: dtype {entry['dtype']} is not supported")
        with reading(path, name):
            begin, end = entry["data_offsets"]
            value: Array = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
            if entry["dtype"] == "BF16":
                value = bfloat16_to_float32(value)
            value.flags.writeable = False
        result.add(name, value, path)


def _check_index(folder: pathlib.Path, result: Checkpoint) -> None:
    """What an index says is in the folder has to be there: a file that was not downloaded would be a part of the model."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        with reading(index):
            found = json.loads(index.read_text("utf-8"))
            where = found.get("weight_map") if isinstance(found, dict) else None
            if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
                raise ValueError("wanted an object with a weight_map: tensor to file")
        for name, file in where.items():
            if name not in result:
                lacks = "does not hold it" if (folder / file).is_file() else "is not there"
                raise FormatError(f"{index}: {name}: names {file}, which {lacks}")


def _config(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with reading(path):
        found = json.loads(path.read_text("utf-8"), parse_constant=str)  # Infinity and NaN, for which JSON has no numbers
        if not isinstance(found, dict):
            raise ValueError("wanted an object")
    return found
