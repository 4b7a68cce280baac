"""The packed linear layers inside safetensors files: which arrays belong together, and the weight that they are."""

from typing import Any

import numpy as np

from edgecomp import formats
from edgecomp.errors import FormatError
from edgecomp.grouped import GroupedInt8Weight, Int4Weight
from edgecomp.readers.checkpoint import Checkpoint, Path, reading
from edgecomp.weights import Int8Weight

KINDS: dict[int, type[Int4Weight] | type[GroupedInt8Weight]] = {4: Int4Weight, 8: GroupedInt8Weight}
UNKNOWN = ("weight_global_scale", "weight_scale_inv", "bitmask", "scale_packed", "absmax", "SCB")
"""Parts of layouts that are not read: NVFP4, float8 blocks, sparse 2:4, bitsandbytes with 4 and 8 bits."""


def weights(tensors: Checkpoint, quantization: dict[str, Any], path: Path) -> Checkpoint:
    """The same tensors with every packed layer's arrays replaced by its weight."""
    result = Checkpoint(metadata=tensors.metadata)
    marks = ("qweight", "weight_packed", "weight_scale")
    layers = {name.removesuffix(part) for name in tensors if (part := name.rpartition(".")[2]) in marks}  # with their dot, "" for no name
    done: set[str] = set()
    for name, value in tensors.items():
        part = name.rpartition(".")[2]
        layer = name.removesuffix(part)
        if part in UNKNOWN and (layer in layers or layer[:-1] in tensors or f"{layer}weight" in tensors):
            raise FormatError(f"{path}: {name}: a quantised layout that is not supported")
        if layer not in layers or part not in PARTS:
            result.add(name, value, path)
        elif layer not in done:
            done.add(layer)
            with reading(path, f"{layer}weight"):
                parts = {p: tensors[f"{layer}{p}"] for p in PARTS if f"{layer}{p}" in tensors}
                weight = _weight(parts, quantization)
            result.add(f"{layer}weight", weight, path)
    return result


PARTS = (
    "qweight", "qzeros", "scales", "g_idx",
    "weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape",
)  # fmt: skip


def _weight(parts: dict[str, Any], quantization: dict[str, Any]) -> Any:
    if "qweight" in parts:
        return _gptq_or_awq(parts, quantization)
    if "weight_packed" in parts:
        return _packed(parts, quantization)
    return _int8(parts, quantization)


def _group_sizes(quantization: dict[str, Any]) -> tuple[int, ...]:
    """What a checkpoint's configuration says of groups: GPTQ's and AWQ's group_size, or those of compressed-tensors' schemes."""
    schemes = quantization.get("config_groups")
    weights = [scheme.get("weights") for scheme in schemes.values() if isinstance(scheme, dict)] if isinstance(schemes, dict) else []
    sizes = [part.get("group_size") for part in (quantization, *weights) if isinstance(part, dict)]
    return tuple(size for size in sizes if type(size) is int and size > 0)  # -1 and None: one group


def _gptq_or_awq(parts: dict[str, Any], quantization: dict[str, Any]) -> Any:
    qweight, qzeros, scales = (_need(parts, name) for name in ("qweight", "qzeros", "scales"))
    if any(a.ndim != 2 for a in (qweight, qzeros, scales)) or not scales.size:
        raise ValueError(f"qweight, qzeros, scales have shapes {qweight.shape}, {qzeros.shape}, {scales.shape}, wanted two dimensions")
    n = scales.shape[1]
    if qweight.shape[1] * 8 == n and qzeros.shape[1] * 8 == n:
        where = "Int4Weight.from_awq"
        told = _group_sizes(quantization)
        return Int4Weight._from_parts(formats.awq(qweight, qzeros, scales, formats.AWQ_ORDER, told, where), where)
    bits = qzeros.shape[1] * 32 // n
    if qweight.shape[1] != n or bits not in KINDS:
        raise ValueError(f"qweight {qweight.shape}, qzeros {qzeros.shape}, scales {scales.shape}: not AWQ int4, GPTQ int4 or int8")
    if quantization.get("quant_method", "gptq") != "gptq":
        raise ValueError(f"quant_method {quantization['quant_method']!r} with arrays of GPTQ's shapes")
    v1 = quantization.get("checkpoint_format", "gptq") != "gptq_v2"
    where = f"{KINDS[bits].__name__}.from_gptq"
    told = _group_sizes(quantization)
    return KINDS[bits]._from_parts(formats.gptq(qweight, qzeros, scales, parts.get("g_idx"), bits, v1, told, where), where)


def _packed(parts: dict[str, Any], quantization: dict[str, Any]) -> Any:
    packed, scale, shape = (_need(parts, name) for name in ("weight_packed", "weight_scale", "weight_shape"))
    if packed.dtype != np.int32:
        raise ValueError(f"weight_packed has dtype {packed.dtype}, wanted int32 (NVFP4 and MXFP4 are not supported)")
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or packed.ndim != 2:
        raise ValueError(f"weight_shape is {shape!r}, weight_packed has shape {packed.shape}, wanted two dimensions")
    fitting = [b for b in KINDS if -(-int(shape[1]) * b // 32) == packed.shape[1]]
    if len(fitting) != 1:
        raise ValueError(f"weight_packed has shape {packed.shape}, weight_shape is {shape.tolist()}: wanted int4 or int8")
    bits = fitting[0]
    zero, g_idx = parts.get("weight_zero_point"), parts.get("weight_g_idx")
    where = "compressed-tensors"
    told = _group_sizes(quantization)
    return KINDS[bits]._from_parts(formats.compressed_tensors(packed, scale, zero, g_idx, shape, bits, told, where), where)


def _int8(parts: dict[str, Any], quantization: dict[str, Any]) -> Any:
    """compressed-tensors' "int-quantized": int8 [N, K], scales [N, 1] or [N, groups] or of the whole."""
    q, scale, zero = _need(parts, "weight"), _need(parts, "weight_scale"), parts.get("weight_zero_point")
    if q.dtype != np.int8 or q.ndim != 2 or not q.size:  # [2**40, 0] takes no bytes, but its scales would
        raise ValueError(f"weight has dtype {q.dtype} and shape {q.shape} beside a weight_scale: wanted int8 [N, K]")
    if "weight_g_idx" in parts:
        raise ValueError("weight_g_idx beside unpacked int8 weights is not supported")
    if zero is not None and (zero.dtype.kind != "i" or zero.min(initial=0) < -128 or zero.max(initial=0) > 127):
        raise ValueError(f"weight_zero_point has dtype {zero.dtype} and values {zero.min()}..{zero.max()}, wanted int8")
    n = len(q)
    scale, zero = _columns(scale, n, "weight_scale"), None if zero is None else _columns(zero, n, "weight_zero_point")
    return int8(q, scale, zero if zero is not None and zero.any() else None, _group_sizes(quantization))


def int8(q: Any, scale: Any, zero: Any = None, told: tuple[int, ...] = ()) -> Any:
    """w = scale * (q - zero), q int8 [N, K], the others [N, groups]: an Int8Weight where one scale an output and no zero point serve."""
    groups = scale.shape[1]
    if groups == 1 and zero is None and not (q == -128).any():
        return Int8Weight.from_arrays(q, np.ascontiguousarray(scale[:, 0]))
    size = None if groups == 1 else formats.group_of(q.shape[1], groups, told, "int8")
    if zero is None:
        return GroupedInt8Weight.from_arrays(q, scale, group_size=size)
    codes = (q ^ np.int8(-128)).view(np.uint8)
    return GroupedInt8Weight.from_arrays(codes, scale, zero.astype(np.int16) + 128, group_size=size)


def _columns(a: Any, n: int, name: str) -> Any:
    """[N, groups] from [N, groups], [N], or one value for all."""
    if a.size == 1:
        return np.full((n, 1), a.reshape(())[()], a.dtype)
    if a.shape[:1] != (n,) or a.ndim > 2:
        raise ValueError(f"{name} has shape {a.shape}, wanted [{n}, groups]")
    return a.reshape(n, -1)


def _need(parts: dict[str, Any], name: str) -> Any:
    if name not in parts:
        raise ValueError(f"{name} is missing; the layer has {', '.join(parts)}")
    return parts[name]
