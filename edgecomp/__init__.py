"""edgecomp: sparse and quantized kernels for compressed neural networks on ordinary CPUs, on plain NumPy arrays."""

from edgecomp import reference
from edgecomp.backend import info, set_backend, warmup
from edgecomp.grouped import GroupedInt8Weight, Int4Weight
from edgecomp.ops import Explanation, explain, linear, matmul_int8, quantize_rows
from edgecomp.pool import get_num_threads, register_threadpoolctl, set_num_threads, threads
from edgecomp.quantization import pack, quantize
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

__version__ = "0.1.0"

__all__ = [
    "DenseWeight",
    "Explanation",
    "GroupedInt8Weight",
    "Int4Weight",
    "Int8Weight",
    "QuantizedRows",
    "explain",
    "get_include",
    "get_num_threads",
    "info",
    "linear",
    "matmul_int8",
    "pack",
    "quantize",
    "quantize_rows",
    "reference",
    "register_threadpoolctl",
    "set_backend",
    "set_num_threads",
    "threads",
    "warmup",
]


def get_include() -> str:
    """The folder of the public C header, edgecomp.h."""
    from pathlib import Path

    return str(Path(__file__).parent / "include")
