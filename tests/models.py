"""Tensors of every kind that a model file holds, from integers alone: the same on every machine. `python tests/models.py` writes the
golden files; those that are there are never to change."""

import sys
from pathlib import Path

import numpy as np

import edgecomp as ec

GOLDEN = Path(__file__).resolve().parent / "golden"


def ramp(n: int, k: int, low: int, high: int) -> np.ndarray:
    """int8 or uint8 [n, k], values low..high in no simple order."""
    return (np.arange(n * k) * 37 % (high - low + 1) + low).astype(np.uint8 if low == 0 else np.int8).reshape(n, k)


def scales(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Powers of two and sums of them: exact in float16 too."""
    return ((np.arange(np.prod(shape)) % 7 + 1) * 2.0**-6).astype(dtype).reshape(shape)


def sparse(n: int, k: int) -> np.ndarray:
    """float32 [n, k] with one value in five."""
    w = ramp(n, k, -40, 40).astype(np.float32) / 8
    w[np.arange(n * k).reshape(n, k) % 5 != 1] = 0
    return w


def weights(n: int = 35, k: int = 70) -> dict[str, dict[str, object]]:
    """Kind -> name -> weight."""
    groups = -(-k // 32)
    csr = ec.to_csr(sparse(n, k))
    codes = (csr.data * 8).astype(np.int8)
    row, column = np.arange(n)[:, None], np.arange(k)
    values = ramp(n, k, 1, 100).astype(np.float32) / 16
    own = values * ((column % 4 == row % 2) | (column % 4 == 2 + row // 2 % 2))
    nm = {"own": ec.to_nm(own, "2:4", block=1), "shared": ec.to_nm(values * (column % 8 == row // 16 * 3 % 8), "1:8", block=16)}
    order = (np.arange(k) * 3 % k if k % 3 else np.arange(k)[::-1]).astype(np.int32)
    return {
        "dense": {"w": ec.pack(ramp(n, k, -100, 100).astype(np.float32) / 16)},
        "int8": {"w": ec.Int8Weight.from_arrays(ramp(n, k, -127, 127), scales(n))},
        "int4": {
            "half": ec.Int4Weight.from_arrays(ramp(n, k, -8, 7), scales(n, groups, dtype="float16")),
            "float": ec.Int4Weight.from_arrays(ramp(n, k, -8, 7), scales(n, groups)),
            "zero": ec.Int4Weight.from_arrays(ramp(n, k, 0, 15), scales(n, groups), ramp(n, groups, 0, 16)),
            "offset": ec.Int4Weight.from_arrays(ramp(n, k, 0, 15), scales(n, groups), offset=-scales(n, groups)),
            "order": ec.Int4Weight.from_arrays(ramp(n, k, -8, 7), scales(n, groups), permutation=order),
            "one group": ec.Int4Weight.from_arrays(ramp(n, k, -8, 7), scales(n), group_size=None),
        },
        "int8_grouped": {
            "half": ec.GroupedInt8Weight.from_arrays(ramp(n, k, -128, 127), scales(n, groups, dtype="float16")),
            "zero": ec.GroupedInt8Weight.from_arrays(ramp(n, k, 0, 255), scales(n, groups), ramp(n, groups, 0, 255)),
        },
        "csr": {"w": csr},
        "csr_int8": {"w": ec.CSRWeight.from_arrays(codes, csr.indices, csr.indptr, csr.shape, scales(n))},
        "nm": nm,
        "nm_int8": {
            name: ec.NMWeight.from_arrays(ramp(n, w.kept, -127, 127), w.places(), w.pattern, (n, k), block=w.block, scale=scales(n))
            for name, w in nm.items()
        },
    }


def same(a: object, b: object) -> bool:
    """Whether two weights are of one class, and hold the same bits in the same dtypes and shapes."""
    if type(a) is not type(b) or a.shape != b.shape or a.layout != b.layout or a.group_size != b.group_size:
        return False
    x, y = a.arrays(), b.arrays()
    return x.keys() == y.keys() and all(
        x[p].dtype == y[p].dtype and x[p].shape == y[p].shape and x[p].tobytes() == y[p].tobytes() for p in x
    )


def golden() -> dict[str, tuple[dict[str, object], dict[str, object]]]:
    """File -> its tensors and metadata."""
    files = {kind: (made, {"kind": kind, "N": 35, "K": 70}) for kind, made in weights().items()}
    arrays = {dtype: np.arange(6).reshape(2, 3).astype(dtype) for dtype in ("bool", "int8", "uint16", "int64", "float16", "complex128")}
    arrays |= {"scalar": np.array(1.5, np.float32), "nothing": np.zeros((0, 4)), "../tmp/äß %": np.ones(1, np.uint8)}
    return {**files, "array": (arrays, {"nested": {"list": [1, 2.5, None, True, "text"]}})}


if __name__ == "__main__":
    for name, (tensors, metadata) in golden().items():
        path = GOLDEN / f"{name}.npz"
        if path.exists():
            sys.exit(f"{path} is there: files that were written once have to be read for ever. Name a new one.")
        ec.save(path, tensors, metadata)
