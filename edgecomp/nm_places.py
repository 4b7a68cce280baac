"""Where the kept inputs of N:M weights are: the place of each in its group, and the words that places are packed in."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays


def kept_inputs(k: int, n: int, m: int) -> int:
    """Inputs of k that an output keeps: n of each group of m, and n of a short last group, or all that it has."""
    return k // m * n + min(n, k % m)


def index_bits(m: int) -> int:
    """Bits that name an input within its group."""
    return 2 if m <= 4 else 4


def pack_places(places: npt.NDArray[np.uint8], bits: int, block: int) -> npt.NDArray[np.uint32]:
    """[blocks, kept] to words: entry 4 i + c of a word is in its byte c, from bit bits * i on. [blocks, words], and with block 1 panels
    of 16 outputs [ceil(N / 16), words, 16]."""
    each = 32 // bits
    blocks, kept = places.shape
    words = -(-kept // each)
    whole = np.zeros((-(-blocks // 16) * 16 if block == 1 else blocks, words, each // 4, 4), np.uint8)
    whole.reshape(len(whole), words * each)[:blocks, :kept] = places
    shifts = (bits * np.arange(each // 4, dtype=np.uint8))[:, None]
    packed = np.bitwise_or.reduce(whole << shifts, axis=2).view("<u4")[..., 0].astype(np.uint32, copy=False)
    return np.ascontiguousarray(packed.reshape(len(packed) // 16, 16, words).transpose(0, 2, 1)) if block == 1 else packed


def unpack_places(packed: npt.NDArray[np.uint32], bits: int, kept: int) -> npt.NDArray[np.uint8]:
    """The inverse: [blocks, kept], with block 1 a multiple of 16 of them."""
    if packed.ndim == 3:
        packed = packed.transpose(0, 2, 1).reshape(len(packed) * 16, packed.shape[1])
    whole = np.ascontiguousarray(packed, "<u4")[..., None].view(np.uint8)[:, :, None, :]
    places = whole >> np.arange(0, 8, bits, dtype=np.uint8)[:, None] & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(places.reshape(len(packed), packed.shape[1] * (32 // bits))[:, :kept])


def packed_shape(rows: int, kept: int, bits: int, block: int) -> tuple[int, ...]:
    """Of the words of `rows` outputs."""
    words = -(-kept * bits // 32)
    return (-(-rows // 16), words, 16) if block == 1 else (-(-rows // block), words)


def read_places(indices: Any, shape: tuple[int, int], nm: tuple[int, int], block: int, where: str) -> npt.NDArray[np.uint8]:
    """Checked places [blocks, kept] of indices as they were given."""
    (rows, k), (n, m) = shape, nm
    kept, bits, blocks = kept_inputs(k, n, m), index_bits(m), -(-rows // block)
    a = arrays.of_numbers(indices, f"{where}: indices")
    if a.size == blocks * kept == 0 and isinstance(indices, (list, tuple)):  # of no rows NumPy makes one dimension
        a = a.reshape(blocks, kept)
    if a.dtype.kind not in "iu":
        raise TypeError(f"{where}: indices has dtype {a.dtype}, wanted integers")
    packed = packed_shape(rows, kept, bits, block)
    words = a if a.dtype == np.uint32 and a.shape == packed != (blocks, kept) else None
    if words is not None:
        a = unpack_places(words, bits, kept)[:blocks]
    if a.shape != (blocks, kept):
        raise ValueError(f"{where}: indices has shape {a.shape}, wanted {(blocks, kept)}, or uint32 words {packed}")
    try:
        check_places(a, k, nm)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    a = a.astype(np.uint8)
    if words is not None and (pack_places(a, bits, block) != words).any():
        raise ValueError(f"{where}: indices has bits beyond its places, wanted zeros")
    return a


def check_places(a: npt.NDArray[Any], k: int, nm: tuple[int, int], name: str = "indices", first: int = 0) -> None:
    """Refuses places [blocks, kept] that leave their group or do not ascend in it. `name` and the first block's number: for the error."""
    n, m = nm
    group = np.arange(a.shape[1]) // n
    wrong = (a < 0) | (a >= np.minimum(m, k - group * m))
    if wrong.any():
        row, at = np.argwhere(wrong)[0]
        size = min(m, k - int(group[at]) * m)
        raise ValueError(f"{name}[{first + row}, {at}] is {a[row, at]}, wanted 0..{size - 1} in group {group[at]}")
    falls = (a[:, 1:] <= a[:, :-1]) & (group[1:] == group[:-1])
    if falls.any():
        row, at = np.argwhere(falls)[0]
        what = "twice" if a[row, at] == a[row, at + 1] else f"after {a[row, at]}"
        raise ValueError(f"group {group[at]} of {name}[{first + row}] has {a[row, at + 1]} {what}, wanted ascending places, each once")
