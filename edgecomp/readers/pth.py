"""PyTorch's checkpoints without PyTorch: pickles of which a fixed list of names is understood, and none is imported or called."""

import io
import itertools
import math
import mmap
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.readers.checkpoint import Array, Checkpoint, Path, bfloat16_to_float32, json_value, reading

STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16", "ByteStorage": "u1",
    "CharStorage": "i1", "ShortStorage": "<i2", "IntStorage": "<i4", "LongStorage": "<i8", "BoolStorage": "?",
}  # fmt: skip
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DEPTH = 32
"""Dictionaries inside each other."""
ENTRIES = 1_000_000
"""Of all dictionaries: one may contain another many times."""
NAME = 500
"""Characters of a name: that of a dictionary begins those of all that is in it."""
NUMBERS = 16
"""Items of a list that count as an entry: they are looked at fast, but a list too may be in many places."""


class Storage(NamedTuple):
    """What a persistent id stands for."""

    key: str
    dtype: str
    elements: int


class Tensor(NamedTuple):
    """A view of a storage whose bytes may come later."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, metadata: Any = None) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if metadata:  # the values are not those of the storage
        raise ValueError("a tensor with metadata, as one that is to be negated (neg) or conjugated (conj), is not supported")
    return Tensor(storage, int(offset), tuple(int(s) for s in _size(shape)), tuple(int(s) for s in _size(strides)))


def _size(lengths: Any) -> tuple[Any, ...]:
    if len(lengths) > 32:  # a long list may be copied many times
        raise ValueError(f"a tensor of {len(lengths)} dimensions")
    return tuple(lengths)


def _allowed() -> dict[tuple[str, str], Any]:
    """New functions at each call: a pickle can set attributes of what it is given."""
    return {
        ("collections", "OrderedDict"): lambda: OrderedDict(),
        ("torch", "Size"): lambda lengths: _size(lengths),
        ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _tensor(*arguments),
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        **{("torch", name): dtype for name, dtype in STORAGES.items()},
    }


def _keys_checked(step: Any, keys: slice) -> Any:
    """A step that puts keys into a dictionary or set. To hash a tuple takes forever if it holds one twice that holds one twice, and so on,
    and a long one, or a long integer, may be a key many times."""

    def checked(unpickler: Any) -> None:
        for key in unpickler.stack[keys]:
            for part in key if type(key) is tuple and len(key) <= 8 else (key,):
                if not isinstance(part, (str, bytes, float, type(None))) and not (isinstance(part, int) and part.bit_length() <= 64):
                    raise ValueError(f"a key is or holds a {type(part).__name__}, wanted text, numbers or short tuples of them")
        step(unpickler)

    return checked


class _Unpickler(pickle._Unpickler):
    """The one in Python: its steps can be changed, and the number of an object in a pickle allocates nothing."""

    _steps: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch
    dispatch: ClassVar[dict[int, Any]] = {
        **_steps,
        pickle.SETITEM[0]: _keys_checked(_steps[pickle.SETITEM[0]], slice(-2, -1)),
        pickle.SETITEMS[0]: _keys_checked(_steps[pickle.SETITEMS[0]], slice(0, None, 2)),
        pickle.DICT[0]: _keys_checked(_steps[pickle.DICT[0]], slice(0, None, 2)),
        pickle.ADDITEMS[0]: _keys_checked(_steps[pickle.ADDITEMS[0]], slice(0, None)),
        pickle.FROZENSET[0]: _keys_checked(_steps[pickle.FROZENSET[0]], slice(0, None)),
        pickle.BUILD[0]: lambda unpickler: unpickler.stack.pop(),  # attributes, as the _metadata of a state_dict
    }
    del dispatch[pickle.BYTEARRAY8[0]]  # which would be allocated before it is read

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise ValueError(f"the pickle asks for {module}.{name}, which is not on the list of what a checkpoint needs")
        return self.allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], str) and isinstance(pid[2], str)):
            raise ValueError("a persistent id that is no storage")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a storage that views another is not supported")
        return Storage(pid[2], pid[1], int(pid[4]))


def read_pth(path: Path) -> Checkpoint:
    """The tensors of a checkpoint that torch.save wrote (.pth, .pt, .bin; of any version), by name.

    A dictionary inside another has its key and a dot before its names, a tensor or dictionary in a list its place. bfloat16 becomes
    float32; numbers, strings and booleans in dictionaries are `metadata`. Names beyond a short list (tensors, storages, OrderedDict) are
    refused: nothing that the file names is imported or run.

    Raises:
        FormatError: not a well-formed checkpoint; a whole pickled module; a name that is not on the list.
        OSError: the file cannot be read.
    """
    result = Checkpoint()
    with reading(path):
        if zipfile.is_zipfile(path):
            content, storages = _read_zip(path)
        else:
            content, storages = _read_legacy(path)
        _collect(content, "", storages, result, path, 0, itertools.count())
    return result


def _read_zip(path: Path) -> tuple[Any, Any]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FormatError(f"{os.fspath(path)}: a ZIP file with {len(pickles)} data.pkl, wanted one")
        if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members.values()):
            raise FormatError(f"{os.fspath(path)}: compressed members, which torch.save does not write")
        if sum(member.file_size for member in members.values()) > os.path.getsize(path):
            raise FormatError(f"{os.fspath(path)}: its members overlap")
        prefix = pickles[0][: -len("data.pkl")]
        order = archive.read(members[f"{prefix}byteorder"]) if f"{prefix}byteorder" in members else b"little"
        if order != b"little":
            raise FormatError(f"{os.fspath(path)}: byte order {order[:16]!r} is not supported")
        unpickler = _Unpickler(io.BytesIO(archive.read(members[pickles[0]])))
        content = unpickler.load()
        found = {name.removeprefix(f"{prefix}data/"): archive.read(name) for name in members if name.startswith(f"{prefix}data/")}
    return content, {key: np.frombuffer(data, np.uint8) for key, data in found.items()}


def _read_legacy(path: Path) -> tuple[Any, Any]:
    """Pickles one after the other: magic number, version, system, content, keys; then each key's number of elements and bytes."""
    kinds: dict[str, str] = {}

    class Unpickler(_Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            storage = super().persistent_load(pid)
            kinds[storage.key] = storage.dtype
            return storage

    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:  # reads no more than there is
        size = len(file)
        if _Unpickler(file).load() != LEGACY_MAGIC or _Unpickler(file).load() != 1001:
            raise ValueError("no checkpoint of torch.save")
        system = _Unpickler(file).load()
        if not (isinstance(system, dict) and system.get("little_endian", True)):
            raise ValueError("a checkpoint of a big-endian machine is not supported")
        content = Unpickler(file).load()
        storages = {}
        for key in _Unpickler(file).load():
            if not isinstance(key, str) or key not in kinds:
                raise ValueError("the keys of the storages are not those of the tensors")
            elements = int.from_bytes(file.read(8), "little")
            count = elements * _itemsize(kinds[key])
            if count > size - file.tell():
                raise ValueError(f"storage {key} has {count} bytes, more than are left in the file")
            storages[key] = np.frombuffer(file.read(count), np.uint8)
    return content, storages


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _collect(value: Any, name: str, storages: dict[Any, Array], result: Checkpoint, path: Path, depth: int, entries: Iterator[int]) -> None:
    if isinstance(value, dict):
        if depth > DEPTH:
            raise FormatError(f"{os.fspath(path)}: {name[:200]}: more than {DEPTH} dictionaries inside each other")
        for key, inner in value.items():
            if next(entries) >= ENTRIES:
                raise FormatError(f"{os.fspath(path)}: more than {ENTRIES} entries")
            inner_name = f"{name}.{key}" if name else str(key)
            if len(inner_name) > NAME:
                raise FormatError(f"{os.fspath(path)}: {inner_name[:200]}: a name of more than {NAME} characters")
            _collect(inner, inner_name, storages, result, path, depth + 1, entries)
    elif isinstance(value, Tensor):
        with reading(path, name):
            array = _array(value, storages)
        result.add(name, array, path)
    elif isinstance(value, (str, int, float, bool)):
        result.metadata[name] = json_value(value)
    elif name and type(value) in (list, tuple):
        inside = {i: inner for i, inner in enumerate(value) if isinstance(inner, (dict, list, tuple))}  # a Tensor is a tuple
        list(itertools.islice(entries, len(value) // NUMBERS))
        _collect(inside, name, storages, result, path, depth, entries)
    elif not name:
        raise FormatError(f"{os.fspath(path)}: holds a {type(value).__name__}, wanted a dictionary of tensors")


def _array(t: Tensor, storages: dict[Any, Array]) -> Array:
    size = _itemsize(t.storage.dtype)
    data = storages[t.storage.key]
    if len(t.shape) != len(t.strides) or min((*t.shape, *t.strides, t.offset)) < 0:
        raise ValueError(f"shape {t.shape}, strides {t.strides}, offset {t.offset} make no tensor")
    elements = len(data) // size
    last = t.offset + sum((n - 1) * s for n, s in zip(t.shape, t.strides, strict=True))
    if 0 in t.shape:
        return np.zeros(t.shape, np.float32 if t.storage.dtype == "bfloat16" else t.storage.dtype)
    if last >= elements:
        raise ValueError(f"shape {t.shape}, strides {t.strides}, offset {t.offset} reach beyond the storage's {elements} elements")
    if math.prod(t.shape) > elements:  # a few bytes would become any number of them
        raise ValueError(f"shape {t.shape} repeats the storage's {elements} elements: save an expanded tensor as its .contiguous()")
    if t.storage.dtype == "bfloat16":  # once, however many tensors view it
        key = t.storage.key, "float32"
        if key not in storages:
            storages[key] = bfloat16_to_float32(data[: elements * size].view("<u2"))
        flat = storages[key]
    else:
        flat = data[: elements * size].view(t.storage.dtype)
    return np.lib.stride_tricks.as_strided(flat[t.offset :], t.shape, tuple(s * flat.itemsize for s in t.strides), writeable=False)
