"""The manifest of a model file: which tensors there are, of which kind, in which members. JSON, read as something a stranger wrote."""

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecomp import _kinds
from edgecomp._zip import shown

MEMBER = "edgecomp.json"
FORMAT, VERSION = "edgecomp", (1, 0)
"""What this edgecomp writes. It reads every file of this major version and of those before."""
FEATURES: tuple[str, ...] = ()
"""What a file may require of its reader, in `requires`, beyond its version."""
MAX_BYTES = 1 << 26
MAX_NAME = 4096

Keys = dict[str, Any]


def member(name: str, part: str) -> str:
    """The member that holds a part of a tensor. ValueError if the name cannot be one."""
    return f"{_escaped(name)}@{part}.npy"


@functools.lru_cache(4)  # one part after the other
def _escaped(name: str) -> str:
    if not name:
        raise ValueError("the name is empty")
    try:
        text = re.sub(r"[^A-Za-z0-9_.:/-]", _escape, name)
    except UnicodeEncodeError:
        raise ValueError("the name is no Unicode text: it has half of a surrogate pair") from None
    text = re.sub(r"\.{2,}|(?<![^/])\.(?![^/])|(?<![^/])/|\.(?=npy\Z)", _escape, text)
    if len(text) > MAX_NAME:
        raise ValueError(f"the name has {len(text)} bytes, at most {MAX_NAME} are possible")
    return text


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def array_dtype(name: Any) -> np.dtype[Any]:
    """The dtype in which an array is stored, little-endian, from its name in the manifest. ValueError for others."""
    if name == "bfloat16":
        return np.dtype("<u2")
    if name in LONG_DOUBLES:
        return np.dtype("longdouble" if name[0] == "l" else "clongdouble")
    if not isinstance(name, str) or name not in _ARRAYS:
        raise ValueError(f"dtype is {str(name)[:80]!r}, wanted {', '.join((*_ARRAYS, 'bfloat16', *LONG_DOUBLES))}")
    return np.dtype(name).newbyteorder("<")


_ARRAYS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
LONG_DOUBLES = tuple(f"{kind}longdouble{np.finfo(np.longdouble).nmant}" for kind in ("", "c"))
"""Named by the bits of their mantissa: machines differ in what they are."""


def array_name(dtype: np.dtype[Any]) -> str | None:
    """The name of an array's dtype in the manifest; None for what a file does not hold."""
    native = dtype.newbyteorder("=")
    if native in (np.dtype(np.longdouble), np.dtype(np.clongdouble)) and native.itemsize not in (8, 16 if native.kind == "c" else 8):
        return LONG_DOUBLES[native.kind == "c"]
    return native.name if native.name in (*_ARRAYS, "bfloat16") else None


def dumps(tensors: Mapping[str, Keys], metadata: Any) -> bytes:
    """The manifest's text. ValueError for metadata that JSON cannot hold, and this module not read."""
    document = {"format": FORMAT, "version": list(VERSION), "tensors": tensors, "metadata": metadata}
    data = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    loads(data)
    return data


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Metadata as a file can hold it: lists for tuples; a TypeError for keys that are not text and values that JSON does not know."""
    if not isinstance(metadata, Mapping):
        raise TypeError(f"save: metadata is a {type(metadata).__name__}, wanted a mapping")
    try:
        plain: dict[str, Any] = _plain(metadata)
        dumps({}, plain)
    except RecursionError:
        raise ValueError("save: metadata is nested too deeply, or in itself") from None
    except UnicodeEncodeError:
        raise ValueError("save: metadata has text that is no Unicode: half of a surrogate pair") from None
    except ValueError as error:
        raise ValueError(f"save: metadata: {error}") from None
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("save: metadata has keys that are not text")
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise TypeError(f"save: metadata has a {type(value).__name__}, wanted what JSON knows: text, numbers, bool, None, lists, mappings")
    return value


def loads(data: bytes) -> Keys:
    """The manifest as a dict with format, version, tensors and metadata, every key checked that all kinds share. ValueError says what is
    wrong with it."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=_pairs, parse_int=_int, parse_float=_float, parse_constant=_refuse_constant
        )  # bytes would be searched for UTF-16
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'is no JSON object with "format": "{FORMAT}"')
    version = document.get("version")
    if not isinstance(version, list) or len(version) != 2 or not all(type(v) is int and v >= 0 for v in version) or version[0] < 1:
        raise ValueError(f"version is {str(version)[:80]}, wanted [major, minor]")
    if version[0] > VERSION[0]:
        raise ValueError(f"the file has version {version[0]}.{version[1]}, this edgecomp reads versions up to {VERSION[0]}: upgrade it")
    _features(document, "the file")
    tensors = document.get("tensors")
    if not isinstance(tensors, dict) or not isinstance(document.setdefault("metadata", {}), dict):
        raise ValueError("tensors or metadata is no JSON object")
    for name, keys in tensors.items():
        if not isinstance(keys, dict) or not isinstance(keys.get("kind"), str) or not isinstance(keys.get("parts"), dict):
            raise ValueError(f"tensor {shown(name)}: wanted an object with kind, shape and parts")
        _features(keys, f"tensor {shown(name)}")
    return document


def _features(keys: Keys, who: str) -> None:
    needed = keys.get("requires", [])
    unknown = [f for f in needed if f not in FEATURES] if isinstance(needed, list) else [needed]
    if unknown:
        raise ValueError(f"{who} requires {str(unknown[0])[:80]!r}, which this edgecomp does not know: upgrade it")


def wanted(keys: Keys) -> _kinds.Parts:
    """The parts that a tensor has to have: their dtypes and shapes. ValueError for a kind or keys that are unknown or wrong."""
    kind = keys["kind"]
    if kind == "array":
        return {"values": ((array_dtype(keys.get("dtype")),), _kinds.dims(keys))}
    if kind not in _kinds.KINDS:
        raise ValueError(f"kind is {kind[:80]!r}, wanted array or {', '.join(_kinds.KINDS)}")
    return _kinds.KINDS[kind].parts(keys)


def _pairs(pairs: list[tuple[str, Any]]) -> Keys:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {shown(twice)} twice in an object")
    return made


def _int(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError(f"has a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"has {digits[:80]}, which no float64 holds")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"has {name}, which is no JSON")
