"""GGUF files, on the parser of the gguf package."""

import os
import struct
import sys
from typing import Any

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.grouped import GroupedInt8Weight, Int4Weight
from edgecomp.readers.checkpoint import Checkpoint, Path, bfloat16_to_float32, check_other, json_value, reading, require

NATIVE = {"Q4_0": Int4Weight.from_gguf_q4_0, "Q4_1": Int4Weight.from_gguf_q4_1, "Q8_0": GroupedInt8Weight.from_gguf_q8_0}
PLAIN = ("F32", "F16", "F64", "I8", "I16", "I32", "I64")
STRING, ARRAY = 8, 9


def read_gguf(path: Path, *, other: str = "dequantize") -> Checkpoint:
    """The tensors of a GGUF file, or of all parts of a split one. Q4_0, Q4_1 (int4) and Q8_0 (int8) matrices become weights without loss,
    F32, F16, F64 and integers arrays that view the mapped file, BF16 float32.

    Args:
        path: the file; of a model in parts the first, `*-00001-of-<parts>.gguf`. The others have to lie beside it.
        other: what happens to the other types (Q5_0, Q4_K, Q6_K, ...), and to quantised tensors that are no matrices: "dequantize"
            makes them the float32 arrays that the gguf package makes, "refuse" raises.

    Returns:
        Checkpoint: tensors by name, shapes as NumPy counts them ([out, in]); `metadata` has the (first) file's fields.

    Raises:
        FormatError: not a well-formed GGUF file, a scale that is not finite, a type that is refused or that gguf cannot decode; a part
            that is not the first, or one that is missing.
        ImportError: the gguf package is not installed.
        OSError: the file cannot be read.
    """
    check_other(other, "read_gguf")
    parser = require("gguf", "gguf")
    first = _open(parser, path)
    count = _parts(path, first.values)
    metadata = {name: json_value(value) for name, value in first.values.items() if not name.startswith("GGUF.")}
    result = Checkpoint(metadata=metadata)
    _add(parser, first, path, other, result)
    for number in range(1, count):
        part = f"{os.fspath(path).removesuffix(_ending(0, count))}{_ending(number, count)}"
        if not os.path.isfile(part):
            raise _error(part, f"is not there, part {number + 1} of {count}")
        reader = _open(parser, part)
        if (told := _split(reader.values)) != (number, count):
            raise _error(part, f"split.no is {told[0]!r}, split.count {told[1]!r}, wanted {number} and {count}")
        _add(parser, reader, part, other, result)
    if count > 1 and first.values.get("split.tensors.count", len(result)) != len(result):
        raise _error(path, f"has {len(result)} tensors in its parts, split.tensors.count says {first.values['split.tensors.count']!r}")
    return result


def _open(parser: Any, path: Path) -> Any:
    if not os.path.getsize(path):
        raise _error(path, "the file is empty")
    with reading(path):
        return _reader(parser)(path)


def _split(fields: dict[str, Any]) -> tuple[Any, Any]:
    """Which part of a model this is, from 0, and of how many."""
    return fields.get("split.no", 0), fields.get("split.count", 0)


def _ending(number: int, count: int) -> str:
    """What llama.cpp ends the names of parts in."""
    return f"-{number + 1:05d}-of-{count:05d}.gguf"


def _parts(path: Path, fields: dict[str, Any]) -> int:
    """How many files the model has, of which this has to be the first."""
    number, count = _split(fields)
    if type(number) is not int or type(count) is not int:
        raise _error(path, f"split.no is {str(number)[:80]!r}, split.count {str(count)[:80]!r}, wanted integers")
    if count > 1 and number:
        raise _error(path, f"is part {number + 1} of {count} of a model: wanted the first, *{_ending(0, count)}, which takes all of them")
    if count > 1 and not os.fspath(path).endswith(_ending(0, count)):
        raise _error(path, f"is part 1 of {count} of a model: wanted a name that ends in {_ending(0, count)}, as the others follow from it")
    return count


def _add(parser: Any, reader: Any, path: Path, other: str, result: Checkpoint) -> None:
    big = (reader.byte_order == "S") == (sys.byteorder == "little")  # S: swapped
    for tensor in reader.tensors:
        with reading(path, tensor.name):
            value = _tensor(parser, tensor, path, other, big)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        result.add(tensor.name, value, path)


def _tensor(parser: Any, tensor: Any, path: Path, other: str, big: bool) -> Any:
    shape, kind = tuple(int(s) for s in tensor.shape[::-1]), tensor.tensor_type.name
    data = tensor.data.view(np.ndarray)
    if big:  # the bytes of a block have no dtype that would show it
        if kind not in PLAIN:
            raise _error(path, f"{tensor.name}: big-endian {kind} is not supported")
        data = data.astype(data.dtype.newbyteorder("="), copy=False)
    if kind in NATIVE and len(shape) == 2:
        return NATIVE[kind](np.ascontiguousarray(data).reshape(-1), shape)
    if kind in PLAIN:
        return data.reshape(shape)
    if kind == "BF16":
        return bfloat16_to_float32(np.ascontiguousarray(data).view(np.uint16)).reshape(shape)
    if other == "refuse":
        raise _error(path, f"{tensor.name}: type {kind}, shape {shape}: neither int4 nor int8 of ours; other='dequantize' makes it float32")
    try:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(parser.quants.dequantize(data, tensor.tensor_type), np.float32).reshape(shape)
    except NotImplementedError:
        raise _error(path, f"{tensor.name}: type {kind}, which the gguf package cannot decode") from None


def _error(path: Path, text: str) -> FormatError:
    return FormatError(f"{os.fspath(path)}: {text}")


def _reader(parser: Any) -> Any:
    """gguf.GGUFReader with bounds, and with arrays (a tokenizer has some 100,000 strings) read as one: 0.1 s instead of 4."""

    class Reader(parser.GGUFReader):  # type: ignore[misc]
        def __init__(self, path: Path) -> None:
            self.values: dict[str, Any] = {}
            self.last: Any = None
            super().__init__(path, "r")

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            size = np.dtype(dtype).itemsize * int(count)
            if int(offset) < 0 or int(offset) + size > self.data.size:
                raise ValueError(f"{size} bytes at {int(offset)} are wanted, the file has {self.data.size}: it is cut short or lies")
            return super()._get(offset, dtype, count, override_order)

        def _push_field(self, field: Any, skip_sum: bool = False) -> int:
            self.values[field.name] = self.last if field.types and field.types[0] == ARRAY else field.contents() if field.types else None
            return int(super()._push_field(field, skip_sum))

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            item, length = int(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
            start = orig_offs + 12
            if item == STRING:
                self.last, end = self._strings(start, length)
            elif parser.GGUFValueType(item) in self.gguf_scalar_to_np:
                values = self._get(start, self.gguf_scalar_to_np[parser.GGUFValueType(item)], length)
                self.last, end = values.tolist(), start + values.nbytes
            else:
                raise ValueError(f"an array of GGUF type {item} is not supported")
            return end - orig_offs, [], [], [parser.GGUFValueType.ARRAY, parser.GGUFValueType(item)]

        def _strings(self, at: int, length: int) -> tuple[list[str], int]:
            number, data = struct.Struct(">Q" if self.byte_order == "S" else "<Q"), memoryview(self.data)
            if length > (len(data) - at) // 8:
                raise ValueError(f"an array of {length} strings, more than the file has bytes for")
            found = []
            for _ in range(length):
                size = number.unpack_from(data, at)[0]
                at += 8 + size
                if at > len(data):
                    raise ValueError(f"a string of {size} bytes, more than the file has")
                found.append(str(data[at - size : at], "utf-8"))
            return found, at

        def _build_tensor_info(self, offs: int, count: int) -> Any:
            if int(count) > self.data.size // 24:
                raise ValueError(f"{count} tensors, more than the file has bytes for")
            return super()._build_tensor_info(offs, count)

        def _build_tensors(self, start_offs: int, fields: Any) -> None:
            total = 0
            for field in fields:
                dims, raw = field.parts[3].tolist(), field.parts[4]
                elements = 1
                for d in dims:
                    elements *= d  # the parser's product wraps
                block, size = parser.GGML_QUANT_SIZES[parser.GGMLQuantizationType(int(raw[0]))]
                total += elements // block * size  # tensors that overlap would be more than the file
                if len(dims) > 4 or (dims and dims[0] % block) or total > self.data.size:
                    raise ValueError(f"{field.name}: shape {dims[::-1]} does not fit its type or the file")
            super()._build_tensors(start_offs, fields)

    return Reader
