"""Other libraries' quantised arrays as our integers, scales and zero points, without loss. Array layouts only: no files here.

Sources: ggml-common.h (block_q4_0, block_q4_1, block_q8_0); AutoGPTQ's and AutoAWQ's packed linear layers; the ONNX Runtime operator
com.microsoft.MatMulNBits.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecomp import arrays, ggml_records, packing
from edgecomp.arguments import NATURAL, flag, integer

Array = npt.NDArray[Any]


class Parts(NamedTuple):
    """What a weight's from_arrays takes."""

    q: Array
    scale: Array
    zero: Array | None = None
    offset: Array | None = None
    group_size: int = 32
    permutation: Array | None = None


def _bytes(blocks: Any, shape: Any, block: int, where: str) -> tuple[Array, int, int]:
    """GGUF's blocks of 32 values as uint8 [N, K/32, block]."""
    a = arrays.to_numpy(blocks, f"{where}: blocks")
    if a.dtype != np.uint8:
        raise TypeError(f"{where}: blocks has dtype {a.dtype}, wanted uint8")
    try:
        n, k = (operator.index(s) for s in shape)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: shape is {shape!r}, wanted (N, K)") from None
    if n < 0 or k < 0 or k % 32:
        raise ValueError(f"{where}: shape is {(n, k)}, K has to be a multiple of 32")
    if a.size != n * (k // 32) * block:
        raise ValueError(f"{where}: blocks has {a.size} bytes, {(n, k)} takes {n * (k // 32) * block}")
    return np.ascontiguousarray(a).reshape(n, k // 32, block), n, k


def gguf_records(blocks: Any, shape: Any, bits: int, offset: bool, where: str) -> tuple[Array, int, int]:
    """GGUF's Q4_0, Q4_1 (with offset) or Q8_0 blocks as a weight's records, and N and K."""
    a, n, k = _bytes(blocks, shape, ggml_records.block_dtype(bits, offset).itemsize, where)
    records, finite = ggml_records.records(a, bits, offset)
    for name in () if finite else ("scale", "offset") if offset else ("scale",):
        for strip, group, output in np.argwhere(~np.isfinite(records[name])):
            row = strip * packing.STRIP + output
            raise ValueError(f"{where}: {name}[{row}, {group}] is {records[name][strip, group, output]}, wanted finite values")
    return records, n, k


def _words(words: Any, name: str, bits: int, where: str) -> Array:
    """int32 words [A, B] as their 32/bits codes each, lowest first: uint8 [A, B, 32/bits]."""
    a = arrays.to_numpy(words, f"{where}: {name}")
    if a.dtype not in (np.int32, np.uint32):
        raise TypeError(f"{where}: {name} has dtype {a.dtype}, wanted int32")
    if a.ndim != 2:
        raise ValueError(f"{where}: {name} has shape {a.shape}, wanted two dimensions")
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return (np.ascontiguousarray(a).view(np.uint32)[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)


def _scales(scales: Any, n: int, where: str) -> Array:
    a = arrays.to_numpy(scales, f"{where}: scales")
    if a.dtype not in (np.float16, np.float32):
        raise TypeError(f"{where}: scales has dtype {a.dtype}, wanted float16 or float32")
    if a.ndim != 2 or a.shape[1] != n:
        raise ValueError(f"{where}: scales has shape {a.shape}, wanted [groups, {n}]")
    return a


def group_of(k: int, groups: int, told: Sequence[int], where: str) -> int:
    """The inputs of a group: all, if there is one; what was told, if it fits (that nothing told does is a ValueError); else K / groups;
    else, as the last group is short, the only multiple of 16 that makes so many."""
    if k == groups == 0:
        return 32
    if groups == 1 and k:
        return k
    sizes = {size for size in told if -(-k // size) == groups}
    if told and not sizes:
        raise ValueError(f"{where}: {groups} groups of scales do not fit K = {k} in groups of {', '.join(map(str, told))}")
    if not sizes and groups and k and k % (16 * groups) == 0:
        sizes = {k // groups}
    sizes = sizes or {size for size in range(16, 257, 16) if -(-k // size) == groups}
    if len(sizes) > 1:
        raise ValueError(f"{where}: {groups} groups for K = {k} are groups of {', '.join(map(str, sorted(sizes)))}: give a group_size")
    if not sizes:
        raise ValueError(f"{where}: {groups} groups of scales do not fit K = {k}")
    return sizes.pop()


def gptq(
    qweight: Any, qzeros: Any, scales: Any, g_idx: Any, bits: int, zero_plus_one: bool, told: Sequence[int], where: str
) -> Parts:
    flag(f"{where}: zero_plus_one", zero_plus_one)
    words = _words(qweight, "qweight", bits, where)
    k, n = words.shape[0] * words.shape[2], words.shape[1]
    if n * bits % 32:
        raise ValueError(f"{where}: qweight has {n} columns, wanted a multiple of {32 // bits}")
    scale = _scales(scales, n, where)
    groups = scale.shape[0]
    zero = _words(qzeros, "qzeros", bits, where)
    if zero.shape != (groups, n * bits // 32, 32 // bits):
        raise ValueError(f"{where}: qzeros has shape {zero.shape[:2]}, wanted ({groups}, {n * bits // 32})")
    zero = zero.reshape(groups, n)
    q = words.transpose(1, 0, 2).reshape(n, k)
    group, permutation = _order(g_idx, k, groups, told, where)
    if permutation is not None:
        q = q[:, permutation]
    wide = zero.T.astype(np.int16) + (1 if zero_plus_one else 0)
    return Parts(np.ascontiguousarray(q), np.ascontiguousarray(scale.T), zero=wide, group_size=group, permutation=permutation)


def _order(g_idx: Any, k: int, groups: int, told: Sequence[int], where: str) -> tuple[int, Array | None]:
    """How many inputs the groups have, and the inputs in the order of their groups; None if that is the order they are in."""
    if g_idx is None:
        return group_of(k, groups, told, where), None
    index = arrays.to_numpy(g_idx, f"{where}: g_idx")
    if index.dtype.kind not in "iu" or index.shape != (k,):
        raise ValueError(f"{where}: g_idx has dtype {index.dtype} and shape {index.shape}, wanted integers ({k},)")
    first = int(np.count_nonzero(index == 0))  # all groups but the last are as long as the first
    if not told and first and -(-k // first) == groups:
        told = (first,)
    group = group_of(k, groups, told, where)
    order = np.argsort(index, kind="stable")
    if not np.array_equal(index[order], np.arange(k) // group):
        raise ValueError(f"{where}: g_idx does not deal {k} inputs to {groups} groups of {group}")
    return group, None if np.array_equal(order, np.arange(k)) else order


def compressed_tensors(
    packed: Any, scales: Any, zero_points: Any, g_idx: Any, shape: Any, bits: int, told: Sequence[int], where: str
) -> Parts:
    """compressed-tensors' "pack-quantized": int32 [N, ceil(K * bits / 32)] of codes (q + 2**(bits-1)), scales [N, groups], zero points
    int32 [ceil(N * bits / 32), groups] packed along N."""
    words = _words(packed, "weight_packed", bits, where)
    n, k = (int(s) for s in shape)
    if k < 1 or n < 1 or words.shape[0] != n or words.shape[1] != -(-k * bits // 32):
        raise ValueError(f"{where}: weight_packed has shape {words.shape[:2]}, weight_shape is {(n, k)}")
    scale = _scales(np.ascontiguousarray(arrays.to_numpy(scales, f"{where}: weight_scale").T), n, where).T
    groups = scale.shape[1]
    q, zero = words.reshape(n, -1)[:, :k], None
    if zero_points is not None:
        points = _words(zero_points, "weight_zero_point", bits, where)
        if points.shape[:2] != (-(-n * bits // 32), groups):
            raise ValueError(f"{where}: weight_zero_point has shape {points.shape[:2]}, wanted {(-(-n * bits // 32), groups)}")
        zero = np.ascontiguousarray(points.transpose(0, 2, 1).reshape(-1, groups)[:n])
    if g_idx is not None and (arrays.to_numpy(g_idx, f"{where}: weight_g_idx") == -1).all():
        g_idx = None  # not used
    group, permutation = _order(g_idx, k, groups, told, where)
    if permutation is not None:
        q = q[:, permutation]
    if zero is None:  # centred codes need none; the subtraction wraps
        q = (q - np.uint8(1 << (bits - 1))).view(np.int8)
    return Parts(np.ascontiguousarray(q), scale, zero, group_size=group, permutation=permutation)


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Output of each nibble of a word, lowest first, within its eight: AutoAWQ's GEMM layers."""


def awq(qweight: Any, qzeros: Any, scales: Any, order: Any, told: Sequence[int], where: str) -> Parts:
    try:
        fits = sorted(operator.index(i) for i in order) == list(range(8))
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{where}: order is {order!r}, wanted a permutation of 0..7")
    back = np.argsort(order)
    words, zeros = (_words(a, name, 4, where)[..., back] for a, name in ((qweight, "qweight"), (qzeros, "qzeros")))
    k, n = words.shape[0], words.shape[1] * 8
    scale = _scales(scales, n, where)
    if zeros.shape[:2] != (scale.shape[0], words.shape[1]):
        raise ValueError(f"{where}: qzeros has shape {zeros.shape[:2]}, wanted {(scale.shape[0], words.shape[1])}")
    zero = zeros.reshape(len(zeros), n).T
    group = group_of(k, len(scale), told, where)
    q = words.reshape(k, n).T
    return Parts(np.ascontiguousarray(q), np.ascontiguousarray(scale.T), zero=np.ascontiguousarray(zero), group_size=group)


def matmulnbits(b: Any, scales: Any, zero_points: Any, g_idx: Any, n: int, k: int, bits: int, block_size: int, where: str) -> Parts:
    sizes = {"n": n, "k": k, "block_size": block_size}
    n, k, block_size = (integer(f"{where}: {name}", size, NATURAL, "an int from 0 on") for name, size in sizes.items())
    if block_size < 16 or block_size & (block_size - 1) or 256 < block_size < k:  # one block may have any length
        raise ValueError(f"{where}: block_size is {block_size!r}, wanted a power of two from 16 to 256, or from k on")
    if g_idx is not None:
        raise ValueError(f"{where}: g_idx is not supported: MatMulNBits has deprecated it")
    groups, blob = -(-k // block_size), block_size * bits // 8
    a = _shaped(b, (n, groups, blob), "b", ("uint8",), where).reshape(n, groups * blob)
    q = np.stack([a & 15, a >> 4], axis=-1).reshape(n, 2 * a.shape[1]) if bits == 4 else a
    scale = _shaped(scales, (n, groups), "scales", ("float16", "float32"), where)
    scale, zero, offset = _nbits_zero(zero_points, scale, bits, where)
    return Parts(np.ascontiguousarray(q[:, :k]), scale, zero, offset, block_size)


def _shaped(values: Any, shape: tuple[int, ...], name: str, dtypes: tuple[str, ...], where: str) -> Array:
    """An array of this shape, or flat as older exporters write it."""
    a = arrays.to_numpy(values, f"{where}: {name}")
    if a.dtype.name not in dtypes or (a.shape != shape and a.shape != (math.prod(shape),)):
        raise ValueError(f"{where}: {name} has dtype {a.dtype} and shape {a.shape}, wanted {' or '.join(dtypes)} {list(shape)}")
    return a.reshape(shape)


def _nbits_zero(zero_points: Any, scale: Array, bits: int, where: str) -> tuple[Array, Array | None, Array | None]:
    """The scales, and integer zero points, or else offsets -zero * scale where those are exact, in float32 if float16 is too short."""
    n, groups = scale.shape
    if zero_points is None:
        return scale, np.full((n, groups), 1 << (bits - 1), np.uint8), None
    z = arrays.to_numpy(zero_points, f"{where}: zero_points")
    if z.dtype == np.uint8:
        z = _shaped(z, (n, -(-groups * bits // 8)), "zero_points", ("uint8",), where)
        return scale, (np.stack([z & 15, z >> 4], axis=-1).reshape(n, 2 * z.shape[1])[:, :groups] if bits == 4 else z), None
    z = _shaped(z, (n, groups), "zero_points", ("uint8", "float16", "float32"), where).astype(np.float64)
    if not np.isfinite(z).all():
        row, group = np.argwhere(~np.isfinite(z))[0]
        raise ValueError(f"{where}: zero_points[{row}, {group}] is {z[row, group]}, wanted finite values")
    if np.array_equal(z, np.rint(z)) and (z.size == 0 or (z.min() >= 0 and z.max() <= min(1 << bits, 255))):
        return scale, z.astype(np.uint8), None
    exact = -z * scale.astype(np.float64)
    for kind in (scale.dtype, np.dtype(np.float32)):
        with np.errstate(over="ignore"):
            offset = exact.astype(kind)
        if np.array_equal(offset, exact):
            return scale.astype(kind, copy=False), None, offset
    raise ValueError(f"{where}: zero_points times scales is not exact in float32: quantize anew")
