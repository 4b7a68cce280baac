"""What no function takes: its name and the argument's stand in the error, whatever came."""

import inspect

import numpy as np
import pytest

import edgecomp as ec
from edgecomp import readers

f = np.float32
W, X = np.arange(8, dtype=f).reshape(2, 4), np.ones((3, 4), f)
INT8, PRUNED = ec.quantize(W), ec.prune(W, pattern="2:4")
LAYERS = {"a": W, "b": np.ones((3, 2), f)}
ROWS = {"q": np.zeros((2, 3), np.uint8), "scale": np.ones(2, f), "zero": np.zeros(2, np.uint8)}
LOSS = {"labels": np.array([0, 1, 2]), "alpha": 0.5}
GROUPED = {"q": np.zeros((2, 4), np.int8), "scale": np.ones((2, 1), f)}
CALLS = {
    "ModelWriter": {"path": "m.npz"},
    "QuantizedRows": ROWS,
    "best_format": {"w": W, "cache": False},
    "compare_formats": {"w": W, "cache": False},
    "distillation_loss": {"student": X, "teacher": X, **LOSS},
    "explain": {"x": X, "w": INT8},
    "feature_loss": {"a": X, "b": X},
    "import_weights": {"path": "m.npz"},
    "inspect": {"path": "m.npz"},
    "linear": {"x": X, "w": INT8},
    "linear_distillation_loss": {"hidden": X, "weight": X, "teacher_logits": np.ones((3, 3), f), **LOSS},
    "load": {"path": "m.npz"},
    "load_teacher_topk": {"path": "t.npz"},
    "matmul_int8": {"a": np.ones((3, 4), np.int8), "w": INT8},
    "pack": {"w": W},
    "prune": {"w": W, "sparsity": 0.5},
    "prune_channels": {"layers": LAYERS, "chain": ["a", "b"], "sparsity": 0.5},
    "quantize": {"w": W},
    "quantize_rows": {"x": X},
    "save": {"path": "new.npz", "tensors": LAYERS},
    "save_teacher_topk": {"path": "new.npz", "teacher": X, "k": 2},
    "set_backend": {"name": "auto"},
    "set_num_threads": {"n": 1},
    "spmm": {"a": ec.to_csr(W), "b": X.T},
    "threads": {"n": 1},
    "to_csr": {"w": W},
    "to_nm": {"w": PRUNED, "pattern": "2:4"},
    "topk_distillation_loss": {"student": X, "teacher_values": X[:, :1] - 1, "teacher_indices": np.zeros((3, 1), int), **LOSS},
    "Int8Weight.from_arrays": {"q": GROUPED["q"], "scale": np.ones(2, f)},
    "Int4Weight.from_arrays": GROUPED,
    "Int4Weight.from_awq": {"qweight": np.zeros((16, 1), np.int32), "qzeros": np.zeros((1, 1), np.int32), "scales": np.ones((1, 8), f)},
    "Int4Weight.from_gguf_q4_0": {"blocks": np.zeros(18, np.uint8), "shape": (1, 32)},
    "Int4Weight.from_gguf_q4_1": {"blocks": np.zeros(20, np.uint8), "shape": (1, 32)},
    "Int4Weight.from_gptq": {"qweight": np.zeros((2, 8), np.int32), "qzeros": np.zeros((1, 1), np.int32), "scales": np.ones((1, 8), f)},
    "Int4Weight.from_matmulnbits": {"b": np.zeros(8, np.uint8), "scales": np.ones(1, f), "n": 1, "k": 16, "block_size": 16},
    "GroupedInt8Weight.from_arrays": GROUPED,
    "GroupedInt8Weight.from_gguf_q8_0": {"blocks": np.zeros(34, np.uint8), "shape": (1, 32)},
    "GroupedInt8Weight.from_matmulnbits": {"b": np.zeros(16, np.uint8), "scales": np.ones(1, f), "n": 1, "k": 16, "block_size": 16},
    "CSRWeight.from_arrays": {"data": np.ones(1, f), "indices": [1], "indptr": [0, 1], "shape": (1, 2)},
    "NMWeight.from_arrays": {"values": np.ones((1, 1), f), "indices": [[1]], "pattern": "1:2", "shape": (1, 2)},
}
MADE_BY_OTHERS = {"Explanation", "FormatComparison", "FormatError", "Model", "TeacherTopK"}
WITHOUT_ARGUMENTS = {"get_include", "get_num_threads", "info", "register_threadpoolctl", "warmup"}


class Incomparable:
    """What has no hash, and whose == raises."""

    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("compared")


ODD = {
    "integers": np.array([1, 2]),
    "one integer": np.array([8]),
    "texts": np.array(["int8", "full"]),
    "objects": np.array([[None, 1]]),
    "records": np.zeros(2, [("a", f)]),
    "list": [{}],
    "set": {1},
    "bytes": b"int8",
    "NaN": float("nan"),
    "complex": 1j,
    "object": object(),
    "incomparable": Incomparable(),
    "no Unicode": "\ud800",
    "NUL": "a\0b",
}


def function(name):
    found = ec
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_all_functions_are_here():
    weights = {name: value for name, value in vars(ec).items() if isinstance(value, type) and issubclass(value, ec.Int8Weight.__base__)}
    makers = {f"{name}.{m}" for name, w in weights.items() for m in dir(w) if m.startswith("from_")}
    makers -= {"DenseWeight.from_array", "CSRWeight.from_scipy"}  # for the package alone; tests/test_sparse.py
    functions = {name for name in ec.__all__ if name not in weights and callable(getattr(ec, name))}
    assert CALLS.keys() == makers | functions - MADE_BY_OTHERS - WITHOUT_ARGUMENTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    ec.save(path / "m.npz", LAYERS)
    ec.save_teacher_topk(path / "t.npz", X, 2)
    return path


def refusal(call, arguments):
    try:
        call(**arguments)
    except (TypeError, ValueError, OSError) as error:
        return error
    return None


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", CALLS)
def test_the_argument_is_named(name, odd, folder, monkeypatch):
    monkeypatch.chdir(folder)
    call, given = function(name), CALLS[name]
    for argument in inspect.signature(call).parameters.keys() - {"options"}:  # of import_weights: the reader's
        error = refusal(call, {**given, argument: ODD[odd]})
        ec.set_backend("auto")
        if isinstance(error, OSError):
            assert (argument, odd) == ("path", "bytes")  # a file that is not there
        elif error is not None:
            named = {"name": "no backend is called", "isa": "no ISA is called"}.get(argument, argument)
            assert named in str(error), (argument, error)


@pytest.mark.parametrize("value", ["no", None, 1, 0, "r", np.array(True), np.array([True, False])])
def test_flags(value, tmp_path):
    ec.save(tmp_path / "m.npz", LAYERS)
    for where, call in (
        ("load: mmap", lambda: ec.load(tmp_path / "m.npz", mmap=value)),
        ("quantize: symmetric", lambda: ec.quantize(W, symmetric=value)),
        ("best_format: cache", lambda: ec.best_format(W, cache=value)),
        ("distillation_loss: return_grad", lambda: ec.distillation_loss(X, X, return_grad=value)),
        ("distillation_loss: scale_by_t2", lambda: ec.distillation_loss(X, X, scale_by_t2=value)),
        ("feature_loss: return_grad", lambda: ec.feature_loss(X, X, return_grad=value)),
        ("linear_distillation_loss: return_grad", lambda: ec.linear_distillation_loss(X, X, X @ X.T, return_grad=value)),
        ("topk_distillation_loss: return_grad", lambda: ec.topk_distillation_loss(X, X - 9, np.tile(range(4), (3, 1)), return_grad=value)),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == f"{where} is {value!r}, wanted True or False"
    assert ec.feature_loss(X, X, return_grad=np.False_) == 0.0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64])
def test_integers_of_numpy_are_ints(dtype):
    """Not computed with in their own dtype, in which 1 << 8 is 0."""
    w = np.random.default_rng(0).standard_normal((3, 48)).astype(f)
    for bits in (4, 8):
        wanted = ec.quantize(w, bits, group_size=16)
        assert ec.quantize(w, dtype(bits), group_size=dtype(16)).q.tolist() == wanted.q.tolist()
    b, scales = np.arange(48, dtype=np.uint8), np.ones(6, f)
    wanted = ec.Int4Weight.from_matmulnbits(b, scales, n=2, k=48, block_size=16)
    assert ec.Int4Weight.from_matmulnbits(b, scales, n=dtype(2), k=dtype(48), block_size=dtype(16)).q.tolist() == wanted.q.tolist()
    rows = ec.quantize_rows(w, group_size=dtype(16))
    assert type(ec.QuantizedRows(rows.q, rows.scale, group_size=dtype(16)).group_size) is int
    assert ec.to_csr(w, bits=dtype(8)).bits == 8
    with pytest.raises(ValueError, match=r"to_csr: bits is 8\.0, wanted None \(float32 values\) or 8"):
        ec.to_csr(w, bits=8.0)


def test_a_number_is_no_path():
    """To the system it is an open file, which would be read and closed."""
    for where, call in (("import_weights", ec.import_weights), ("load", ec.load), ("load_teacher_topk", ec.load_teacher_topk)):
        with pytest.raises(TypeError, match=rf"^{where}: path is a int, wanted a path: text, bytes or an os\.PathLike$"):
            call(2)


@pytest.mark.parametrize("odd", ODD)
def test_options_of_the_readers(odd):
    for reader in (readers.read_gguf, readers.read_onnx):
        with pytest.raises(ValueError, match=rf"^{reader.__name__}: other is .*, wanted one of dequantize, refuse$"):
            reader("no file", other=ODD[odd])
    with pytest.raises(TypeError, match=r"^read_safetensors: config is a .*, wanted None or a dict$"):
        readers.read_safetensors("no file", config=ODD[odd])
