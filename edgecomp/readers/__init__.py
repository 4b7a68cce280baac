"""Readers of the checkpoints that people have: each gives a Checkpoint, name -> NumPy array or weight. docs/readers.md has the rules."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgecomp.arguments import file_path
from edgecomp.errors import FormatError

if TYPE_CHECKING:  # loaded when they are used: importing edgecomp stays light
    from edgecomp.readers.checkpoint import Checkpoint, Path
    from edgecomp.readers.gguf import read_gguf
    from edgecomp.readers.npz import read_npz
    from edgecomp.readers.onnx import read_onnx
    from edgecomp.readers.pth import read_pth
    from edgecomp.readers.safetensors import read_safetensors

__all__ = ["Checkpoint", "import_weights", "kind_of", "read_gguf", "read_npz", "read_onnx", "read_pth", "read_safetensors"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"edgecomp.readers.{name.lower().removeprefix('read_')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def import_weights(path: "Path", **options: Any) -> "Checkpoint":
    """The tensors of a checkpoint, by the reader that its content asks for; the name's ending plays no part.

    Args:
        path: a GGUF, safetensors, ONNX, .npz or torch.save file; or a folder of safetensors files.
        options: those of the reader: `other` of read_gguf and read_onnx, `config` of read_safetensors.

    Raises:
        FormatError: none of these formats, or a malformed file.
        ImportError: the format's parser is not installed.
        OSError: the file cannot be read.
        TypeError, ValueError: a path that is none, an option that the reader does not have.

    Example:
        >>> import numpy as np, edgecomp as ec, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "weights")
        >>> with open(path, "wb") as f:
        ...     np.savez(f, w=np.eye(2, dtype=np.float32))
        >>> ec.import_weights(path)["w"].shape
        (2, 2)
    """
    path = file_path("import_weights: path", path)
    kind = kind_of(path)
    if kind == "model":
        raise FormatError(f"{path}: a model file of edgecomp: edgecomp.load opens it")
    return getattr(import_module(f"edgecomp.readers.{kind}"), f"read_{kind}")(path, **options)  # type: ignore[no-any-return]


def kind_of(path: "Path") -> str:
    """Which reader takes a file, by its content: "gguf", "npz", "onnx", "pth" or "safetensors"; "model": edgecomp.load does. FormatError if
    nothing does."""
    if os.path.isdir(path):
        return "safetensors"
    size = os.path.getsize(path)
    if not os.path.isfile(path):  # to open a pipe would wait for its writer
        raise FormatError(f"{os.fspath(path)}: is no regular file")
    with open(path, "rb") as file:
        head = file.read(16)
    if head[:4] == b"GGUF":
        return "gguf"
    if head[:2] == b"PK":
        return _archive(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "pth"
    if head[:1] == b"\x08" and size > 2:  # ir_version, a model's first field
        return "onnx"
    raise FormatError(f"{os.fspath(path)}: neither GGUF, safetensors, ONNX, .npz nor a checkpoint of torch.save")


def _archive(path: "Path") -> str:
    import zipfile

    from edgecomp.readers.checkpoint import reading

    with reading(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "pth"
    if "edgecomp.json" in names:
        return "model"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    raise FormatError(f"{os.fspath(path)}: a ZIP file that is neither .npz nor a checkpoint of torch.save")
