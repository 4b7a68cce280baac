"""ONNX models, on the parser of the onnx package: initializers, and the quantised layers that the graph makes of them."""

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecomp import formats
from edgecomp.grouped import GroupedInt8Weight, Int4Weight
from edgecomp.readers.checkpoint import Array, Checkpoint, Path, bfloat16_to_float32, check_other, reading, require
from edgecomp.readers.packed_layers import KINDS
from edgecomp.weights import Int8Weight


def read_onnx(path: Path, *, other: str = "dequantize") -> Checkpoint:
    """The initializers of an ONNX model, quantised ones as weights [out, in] without loss.

    Recognised are MatMulNBits (4 and 8 bits), DequantizeLinear (per tensor, output or block), MatMulInteger with the Mul of its scale,
    and Mul(Cast(q) or Sub(Cast(q), zero), scale). A matrix that the graph multiplies as [in, out] (MatMul, Gemm without transB) is
    turned to [out, in], float ones too; `metadata["transposed"]` names them.

    Args:
        path: the file; external data are looked for in its folder.
        other: quantised initializers that no weight can hold (convolutions, a scale for each input): "dequantize" computes their float32
            values, "refuse" raises.

    Returns:
        Checkpoint: by the name of the initializer with the codes; scales and zero points are part of their weight. Strings are left out.

    Raises:
        FormatError: not a well-formed model; parts whose shapes do not fit; a quantised initializer that is refused.
        ImportError: the onnx package is not installed.
        OSError: the file cannot be read.
    """
    check_other(other, "read_onnx")
    onnx = require("onnx", "onnx")
    require("onnx.numpy_helper", "onnx")
    if not os.path.isfile(path):
        raise FileNotFoundError(2, os.strerror(2), os.fspath(path))
    with reading(path):
        model = onnx.load(os.fspath(path))
        if not model.graph.node and not model.graph.initializer:
            raise ValueError("no ONNX model: a graph without nodes and initializers")
        graph = _Graph(onnx, model.graph, path)
        for node in model.graph.node:
            name = _codes_name(node, graph)
            if name in graph.arrays:
                with reading(path, name):
                    _layer(node, name, graph, other)
        result = Checkpoint(metadata={p.key: p.value for p in model.metadata_props})
        turned = []
        for name, value in graph.arrays.items():
            if name in graph.used:
                continue
            if name in graph.weights:
                value, was_turned = graph.weights[name]
            else:
                was_turned = value.ndim == 2 and value.dtype.kind == "f" and graph.turned(name)
                value = np.ascontiguousarray(value.T) if was_turned else value
            result.add(name, value, path)
            turned += [name] if was_turned else []
        if not all(isinstance(text, str) for text in (*result, *result.metadata, *result.metadata.values())):  # else they are bytes
            raise ValueError("a name or a text of the metadata is no UTF-8")
    result.metadata["transposed"] = turned
    return result


def _layer(node: Any, name: str, graph: "_Graph", other: str) -> None:
    parts = graph.parts(node)
    first, told = graph.layers.setdefault(name, (node, parts))
    if first is node:
        _quantised(node, name, graph, other)
    elif parts != told:
        raise ValueError(f"two layers share these codes, {first.name!r} and {node.name!r}, with different scales")


class _Graph:
    """Initializers (and constants) as arrays, and who reads what."""

    def __init__(self, onnx: Any, graph: Any, path: Path) -> None:
        self.onnx = onnx
        self.arrays: dict[str, Array] = {}
        self.int4: set[str] = set()
        self.weights: dict[str, tuple[Any, bool]] = {}
        self.layers: dict[str, tuple[Any, set[str]]] = {}  # the node that shows what codes mean, and its parts
        self.used: set[str] = set()  # scales and zero points
        self.readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        self.makers: dict[str, Any] = {}
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.STRING:
                continue
            with reading(path, tensor.name):
                if tensor.name in self.arrays:
                    raise ValueError("there are two initializers of this name")
                self.arrays[tensor.name] = _array(onnx, tensor)
                if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
                    self.int4.add(tensor.name)
        for tensor in graph.sparse_initializer:
            with reading(path, tensor.values.name):
                raise ValueError("a sparse initializer is not supported")
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name:  # "" is an input that is not given, or an output that nobody wants
                    self.readers[name].append((node, place))
            for name in filter(None, node.output):
                if self.makers.setdefault(name, node) is not node:  # else the ways through a graph are too many to follow
                    raise ValueError(f"two nodes make {str(name)[:80]!r}")
            value = node.attribute[0] if node.op_type == "Constant" and node.attribute else None
            if value is None or (value.name == "value" and value.t.data_type == onnx.TensorProto.STRING):
                continue
            with reading(path, node.output[0]):
                if value.name == "value":
                    self.arrays.setdefault(node.output[0], _array(onnx, value.t))
                elif value.name in ("value_float", "value_floats"):
                    self.arrays.setdefault(node.output[0], np.asarray(onnx.helper.get_attribute_value(value), np.float32))

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        return next((self.onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)

    def take(self, node: Any, place: int) -> Array | None:
        """An input that has to be an initializer, if it is given."""
        if place >= len(node.input) or not node.input[place]:
            return None
        if node.input[place] not in self.arrays:
            raise ValueError(f"{node.op_type}: input {place} ({node.input[place]}) is no initializer")
        return self.arrays[node.input[place]]

    def parts(self, node: Any) -> set[str]:
        """The initializers that say what a node's codes mean."""
        return {name for name in (*node.input, _integer_scale(node, self)) if name in self.arrays}

    def turned(self, name: str, depth: int = 0) -> bool:
        """Whether all that read a matrix multiply it as [in, out]."""
        readers = self.readers[name]
        return bool(readers) and all(self._multiplies(node, place, depth) for node, place in readers)

    def _multiplies(self, node: Any, place: int, depth: int) -> bool:
        if node.op_type in ("Cast", "Identity") and depth < 4:
            return self.turned(node.output[0], depth + 1)
        if node.op_type == "Gemm":
            return place == 1 and not self.attribute(node, "transB", 0)
        return place == 1 and node.op_type in ("MatMul", "MatMulInteger")


def _array(onnx: Any, tensor: Any) -> Array:
    """An initializer in one of NumPy's own dtypes: int4 as int8, bfloat16 as float32."""
    kinds = onnx.TensorProto
    a: Array = onnx.numpy_helper.to_array(tensor)
    if tensor.data_type in (kinds.INT4, kinds.UINT4):
        return a.astype(np.int8 if tensor.data_type == kinds.INT4 else np.uint8)
    if tensor.data_type == kinds.BFLOAT16:
        return bfloat16_to_float32(a.view(np.uint16))
    if a.dtype.kind not in "biufc" or a.dtype.isbuiltin != 1:  # ml_dtypes call one of the float8 "f"
        raise ValueError(f"dtype {a.dtype} is not supported")
    return a


def _codes_name(node: Any, graph: _Graph) -> str:
    """The initializer with the codes that a node of a quantised layer works on; "" if it is no such node."""
    if node.op_type in ("MatMulNBits", "MatMulInteger") and len(node.input) > 1:
        return str(node.input[1])
    if node.op_type == "DequantizeLinear":
        return str(node.input[0])
    return _cast_mul(node, graph)[0] if node.op_type == "Mul" else ""


def _cast_mul(node: Any, graph: _Graph) -> tuple[str, str, str]:
    """Codes, scale and zero point of Mul(Cast(codes), scale) or Mul(Sub(Cast(codes), zero), scale); empty names if it is neither."""
    for place in (0, 1):
        source, scale, zero = graph.makers.get(node.input[place]), str(node.input[1 - place]), ""
        if source is not None and source.op_type == "Sub":
            zero = str(source.input[1])
            maker = graph.makers.get(zero)
            if zero not in graph.arrays and maker is not None and maker.op_type == "Cast":
                zero = str(maker.input[0])
            if zero not in graph.arrays:
                continue
            source = graph.makers.get(source.input[0])
        if source is not None and source.op_type == "Cast" and source.input[0] in graph.arrays and scale in graph.arrays:
            return str(source.input[0]), scale, zero
    return "", "", ""


def _quantised(node: Any, name: str, graph: _Graph, other: str) -> None:
    q = graph.arrays[name]
    if node.op_type == "MatMulNBits":
        scales, points, g_idx = graph.take(node, 2), graph.take(node, 3), graph.take(node, 4)
        n, k, bits, block = (int(graph.attribute(node, a, d)) for a, d in (("N", 0), ("K", 0), ("bits", 4), ("block_size", 0)))
        if bits not in KINDS:
            raise ValueError(f"MatMulNBits with {bits} bits is not supported")
        parts = formats.matmulnbits(q, scales, points, g_idx, n, k, bits, block, "MatMulNBits")
        graph.weights[name] = KINDS[bits]._from_parts(parts, "MatMulNBits"), False
        graph.used.update(node.input[2:5])
        return
    wide = node.op_type == "DequantizeLinear" and q.dtype == np.int32  # a bias
    if not wide and (q.dtype not in (np.int8, np.uint8) or (q.ndim != 2 and node.op_type != "DequantizeLinear")):
        return  # a Cast * Mul that is none of a layer
    scale_name, scale, zero_name, zero, axis, block, product = _scale_and_zero(node, graph)
    if scale is None:
        if other == "refuse":
            raise ValueError(f"{node.op_type} {node.name!r}: no initializer is clearly the scale of its codes")
        return
    bits = 4 if name in graph.int4 else 8
    turned = graph.turned(product)
    value = _weight(q, scale, zero, axis, block, turned, bits)
    if value is None:
        if other == "refuse":
            raise ValueError(f"{node.op_type}: shape {q.shape} with scales {scale.shape} along axis {axis} is no weight")
        value, turned = _dequantize(q, scale, zero, axis, block), turned and q.ndim == 2
        value = np.ascontiguousarray(value.T) if turned else value
    graph.weights[name] = value, turned
    graph.used.update(n for n in (scale_name, zero_name) if n)


def _scale_and_zero(node: Any, graph: _Graph) -> Any:
    """Names and arrays of scale and zero point, axis, block size, and the name whose readers show the orientation."""
    if node.op_type == "DequantizeLinear":
        zero = node.input[2] if len(node.input) > 2 else ""
        axis, block = int(graph.attribute(node, "axis", 1)), int(graph.attribute(node, "block_size", 0))
        return node.input[1], graph.take(node, 1), zero, graph.take(node, 2), axis, block, node.output[0]
    if node.op_type == "Mul":
        _, name, zero = _cast_mul(node, graph)
        return name, graph.arrays[name], zero, graph.arrays[zero] if zero else None, -1, 0, node.output[0]
    name, zero = _integer_scale(node, graph), node.input[3] if len(node.input) > 3 else ""
    return name, graph.arrays.get(name), zero, graph.take(node, 3) if name else None, 1, 0, node.input[1]


def _integer_scale(node: Any, graph: _Graph) -> str:
    """The initializer with the scale of a MatMulInteger's codes; "" if none is that for certain. The product is cast, then multiplied by
    it and by the scale of x, which may be an initializer too: at once, or by one after the other."""
    if node.op_type != "MatMulInteger":
        return ""
    source, of_x = graph.makers.get(node.input[0]), ""
    if source is not None and source.op_type in ("DynamicQuantizeLinear", "QuantizeLinear"):
        of_x = (source.input if source.op_type == "QuantizeLinear" else source.output)[1]
    for cast, _ in graph.readers[node.output[0]]:
        for product, first in _factors(cast.output[0], graph) if cast.op_type == "Cast" else ():
            for factors in (first, *(first + then for _, then in _factors(product, graph) if of_x)):
                if of_x and (len(factors) != 2 or of_x not in factors):
                    continue
                others = [factors[1 - factors.index(of_x)]] if of_x else factors
                scales = [name for name in others if name in graph.arrays]
                if len(scales) == 1:
                    return scales[0]
    return ""


def _factors(name: str, graph: _Graph) -> Iterator[tuple[str, list[str]]]:
    """Of each Mul that reads a value: its result, and what it multiplies the value by, of a product both."""
    for mul, place in graph.readers[name]:
        if mul.op_type == "Mul":
            factor = mul.input[1 - place]
            maker = graph.makers.get(factor)
            yield mul.output[0], list(maker.input) if maker is not None and maker.op_type == "Mul" else [factor]


def _spread(a: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point as an array that broadcasts against q."""
    if block:
        blocks = tuple(-(-s // block) if i == axis % len(shape) else s for i, s in enumerate(shape))
        if a.shape != blocks:  # before anything is allocated for it
            raise ValueError(f"blocks of {block} of shape {shape}: scale or zero point has shape {a.shape}, wanted {blocks}")
        return np.repeat(a, min(block, shape[axis]), axis=axis)[tuple(slice(s) for s in shape)]
    if a.ndim == 1 and a.size > 1:
        axis %= len(shape)
        return a.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return a.reshape(()) if a.size == 1 else a


def _dequantize(q: Array, scale: Array, zero: Array | None, axis: int, block: int) -> Array:
    """(q - zero) * scale, each value rounded once."""
    centred, factor = q.astype(np.float64), _spread(scale, q.shape, axis, block)
    if np.broadcast_shapes(q.shape, factor.shape) != q.shape:
        raise ValueError(f"q has shape {q.shape}, scale {scale.shape}")
    if zero is not None:
        centred -= _spread(zero, q.shape, axis, block)
    with np.errstate(over="ignore"):
        return (centred * factor).astype(np.float32)  # type: ignore[no-any-return]


def _weight(q: Array, scale: Array, zero: Array | None, axis: int, block: int, turned: bool, bits: int) -> Any:
    """A weight of ours, or None: empty, more than two dimensions, scales along the inputs, or zero points that no code can be."""
    if q.ndim != 2 or q.dtype == np.int32 or not q.size:  # [0, 2**40] takes no bytes, but its scales would
        return None
    signed, middle = q.dtype == np.int8, 1 << (bits - 1)
    low = -middle if signed else 0
    if zero is not None and not ((zero == np.rint(zero)) & (zero >= low) & (zero < low + 2 * middle)).all():
        return None
    s = _spread(scale, q.shape, axis, 0) if not block else scale
    z = None if zero is None else (_spread(zero, q.shape, axis, 0) if not block else zero)
    if block and (axis % 2 != (0 if turned else 1) or block % 16 or not 16 <= block <= 256):
        return None
    if turned:
        q, s, z = q.T, s.T, None if z is None else z.T
    n, k = q.shape
    groups = -(-k // block) if block else 1
    try:
        s = np.ascontiguousarray(np.broadcast_to(s, (n, groups)))
        z = np.zeros((n, groups), np.int16) if z is None else np.ascontiguousarray(np.broadcast_to(z, (n, groups))).astype(np.int16)
    except ValueError:
        return None
    if s.dtype not in (np.float16, np.float32):
        return None
    if signed and z.any():
        codes, zero_points = (q.astype(np.int16) + middle).astype(np.uint8), z + middle
    else:
        codes, zero_points = np.ascontiguousarray(q), z
    if signed and not z.any():
        if bits == 8 and groups == 1 and not (q == -128).any():
            return Int8Weight.from_arrays(codes, s[:, 0])
        return (Int4Weight if bits == 4 else GroupedInt8Weight).from_arrays(codes, s, group_size=block or None)
    return (Int4Weight if bits == 4 else GroupedInt8Weight).from_arrays(codes, s, zero_points, group_size=block or None)
