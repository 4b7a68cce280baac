"""edgecomp: sparse and quantized kernels for compressed neural networks on ordinary CPUs, on plain NumPy arrays."""

from edgecomp import reference
from edgecomp.backend import info, set_backend, warmup
from edgecomp.distillation import distillation_loss
from edgecomp.errors import FormatError
from edgecomp.feature_distillation import feature_loss
from edgecomp.format_choice import FormatComparison, best_format, compare_formats
from edgecomp.grouped import GroupedInt8Weight, Int4Weight
from edgecomp.linear_distillation import linear_distillation_loss
from edgecomp.model import Model, inspect, load
from edgecomp.model_writer import ModelWriter, save
from edgecomp.nm import NMWeight, to_nm
from edgecomp.ops import Explanation, explain, linear, matmul_int8, quantize_rows, spmm
from edgecomp.pool import get_num_threads, register_threadpoolctl, set_num_threads, threads
from edgecomp.pruning import prune, prune_channels
from edgecomp.quantization import pack, quantize
from edgecomp.readers import import_weights
from edgecomp.sparse import CSRWeight, to_csr
from edgecomp.topk_distillation import TeacherTopK, load_teacher_topk, save_teacher_topk, topk_distillation_loss
from edgecomp.weights import DenseWeight, Int8Weight, QuantizedRows

__version__ = "0.1.0"

__all__ = [
    "CSRWeight",
    "DenseWeight",
    "Explanation",
    "FormatComparison",
    "FormatError",
    "GroupedInt8Weight",
    "Int4Weight",
    "Int8Weight",
    "Model",
    "ModelWriter",
    "NMWeight",
    "QuantizedRows",
    "TeacherTopK",
    "best_format",
    "compare_formats",
    "distillation_loss",
    "explain",
    "feature_loss",
    "get_include",
    "get_num_threads",
    "import_weights",
    "info",
    "inspect",
    "linear",
    "linear_distillation_loss",
    "load",
    "load_teacher_topk",
    "matmul_int8",
    "pack",
    "prune",
    "prune_channels",
    "quantize",
    "quantize_rows",
    "reference",
    "register_threadpoolctl",
    "save",
    "save_teacher_topk",
    "set_backend",
    "set_num_threads",
    "spmm",
    "threads",
    "to_csr",
    "to_nm",
    "topk_distillation_loss",
    "warmup",
]


def get_include() -> str:
    """The folder of the public C header, edgecomp.h."""
    from pathlib import Path

    return str(Path(__file__).parent / "include")
