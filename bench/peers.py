"""Other libraries beside ours on one machine: int4 and CSR products, each engine in a process of its own, the others stopped meanwhile.

    pip install ".[bench]" onnx onnxruntime openvino mkl scipy && pip install --no-deps aoclda
    python bench/peers.py int4 [--threads 2] [--match "(1,"]
    python bench/peers.py csr

float32 in and out; weights are prepared beforehand, activations quantised in the call. What an engine has to be told it has been told:
onnxruntime multiplies in int8 (accuracy_level 4), OpenVINO quantises x per group, MKL and AOCL-Sparse have had their hints and analysed the
matrix. These two want x transposed and give y transposed: turning them is not timed. Every result is compared with float64 first. Cold
cases rotate over copies of the weight. Engines that are not installed are left out. DeepSparse (1.8, the last one) wants NumPy 1 and
Python 3.11 or older, an environment of its own: pip install deepsparse==1.8.0 onnx==1.14.1 mkl scipy ".[bench]".
"""

import argparse
import ctypes
import importlib.metadata
import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp.measure.timing import cold_copies, fitting_calls, rotating, seconds_per_call

SLICES = 7
Call = Callable[[], Any]  # returns y


@dataclass(frozen=True)
class Case:
    """x [m, k] times w [n, k]: int4 in groups, or sparse with this share of non-zeros."""

    m: int
    n: int
    k: int
    group: int = 0
    density: float = 1.0
    cold: bool = False

    def __str__(self) -> str:
        kind = f"g{self.group}" if self.group else f"density {self.density:g}"
        return f"({self.m},{self.n},{self.k}) {kind}{', cold' if self.cold else ''}"

    def x(self) -> npt.NDArray[np.float32]:
        return np.random.default_rng(0).standard_normal((self.m, self.k), dtype=np.float32)

    def codes(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """int4 codes -8..7 [n, k] and scales [n, k / group] that a float16 holds."""
        rng = np.random.default_rng(1)
        scale = rng.uniform(0.005, 0.02, (self.n, self.k // self.group)).astype(np.float16)
        return rng.integers(-8, 8, (self.n, self.k), np.int8), scale.astype(np.float32)

    def csr(self) -> Any:
        """float32, zeros anywhere."""
        import scipy.sparse

        rng = np.random.default_rng(1)
        if self.n * self.k > 1 << 28:  # more than should stand there as a dense array
            columns = np.sort(rng.integers(0, self.k, (self.n, round(self.density * self.k)), np.int32), axis=1)
            data = rng.standard_normal(columns.size, dtype=np.float32)
            w = scipy.sparse.csr_array((data, columns.ravel(), np.arange(self.n + 1) * columns.shape[1]), shape=(self.n, self.k))
            w.sum_duplicates()
        else:
            dense = rng.standard_normal((self.n, self.k), dtype=np.float32)
            w = scipy.sparse.csr_array(np.where(rng.random((self.n, self.k), dtype=np.float32) < self.density, dense, 0))
        w.indptr, w.indices = w.indptr.astype(np.int32), w.indices.astype(np.int32)
        return w

    def truth(self) -> npt.NDArray[np.float64]:
        if not self.group:
            return np.asarray((self.csr().astype(np.float64) @ self.x().T.astype(np.float64)).T)
        q, scale = self.codes()
        return self.x().astype(np.float64) @ (q * np.repeat(scale, self.group, axis=1).astype(np.float64)).T

    def weight_bytes(self) -> int:
        return self.n * self.k // 2 if self.group else int(6 * self.density * self.n * self.k)


INT4 = [
    *(Case(m, n, k, group=32) for m, n, k in ((512, 4096, 4096), (128, 768, 3072), (128, 3072, 768), (8, 4096, 4096), (1, 4096, 4096))),
    *(Case(m, 4096, 4096, group=128) for m in (512, 8, 1)),
    *(Case(1, n, 4096, group=group, cold=True) for n, group in ((4096, 32), (11008, 32), (4096, 128))),
]
CSR = [
    *(Case(128, 4096, 4096, density=d) for d in (0.5, 0.3, 0.2, 0.1, 0.05, 0.01)),
    *(Case(32, 1024, 1024, density=d) for d in (0.5, 0.3, 0.2, 0.1, 0.05, 0.01)),
    *(Case(1, 4096, 4096, density=d, cold=True) for d in (0.5, 0.1)),
    *(Case(1, 4096, 4096, density=d) for d in (0.2, 0.1, 0.05)),
    Case(1, 100_000, 100_000, density=1e-4),
]


# ---- engines: each gives a function that makes a call with a weight of its own ----


def edgecomp(case: Case, threads: int, bits: int | None = None) -> Callable[[], Call]:
    import edgecomp as ec

    x, y = case.x(), np.ones((case.m, case.n), np.float32)

    def make() -> Call:
        if case.group:
            w: Any = ec.Int4Weight.from_arrays(*case.codes(), group_size=case.group, scale_dtype="float16")
        else:
            w = ec.CSRWeight.from_scipy(case.csr()) if bits is None else ec.to_csr(case.csr().toarray(), bits=bits)
        return lambda: ec.linear(x, w, out=y, threads=threads)

    return make


def edgecomp_csr8(case: Case, threads: int) -> Callable[[], Call]:
    return edgecomp(case, threads, bits=8)


def onnxruntime(case: Case, threads: int) -> Callable[[], Call]:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    if threads > 1:
        ort.set_global_thread_pool_sizes(threads, 1)  # one pool for all copies of a cold weight
    x, (q, scale) = case.x(), case.codes()
    nibbles = (q + 8).astype(np.uint8).reshape(case.n, -1, case.group // 2, 2)
    weights = {"w": nibbles[..., 0] | nibbles[..., 1] << 4, "s": scale.ravel()}
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=case.k, N=case.n, bits=4, block_size=case.group, accuracy_level=4
    )
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", floats, [case.m, case.k])],
        [helper.make_tensor_value_info("y", floats, [case.m, case.n])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

    def make() -> Call:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.use_per_session_threads = threads, threads == 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding, y = session.io_binding(), np.empty((case.m, case.n), np.float32)
        out = ort.OrtValue.ortvalue_from_numpy(y)
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", out)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return out

        return call

    return make


def openvino(case: Case, threads: int) -> Callable[[], Call]:
    import openvino as ov
    from openvino import opset13 as op

    x, (q, scale) = case.x(), case.codes()
    nibbles = (q & 15).astype(np.uint8).reshape(case.n, case.k // 2, 2)
    packed = np.ascontiguousarray(nibbles[..., 0] | nibbles[..., 1] << 4)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(case.group)}

    def make() -> Call:
        codes = ov.Tensor(packed, ov.Shape([case.n, case.k // case.group, case.group]), ov.Type.i4)
        values = op.multiply(op.convert(op.constant(codes), "f32"), op.constant(scale[:, :, None]))
        w = op.reshape(values, op.constant(np.array([case.n, case.k])), False)
        parameter = op.parameter(x.shape, np.float32)
        model = ov.Model([op.matmul(parameter, w, False, True)], [parameter])
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        y = request.get_output_tensor(0).data

        def call() -> Any:
            request.infer()
            return y

        return call

    return make


def scipy(case: Case, threads: int) -> Callable[[], Call]:
    xt = np.ascontiguousarray(case.x().T)

    def make() -> Call:
        w = case.csr()
        return lambda: (w @ xt).T

    return make


def library(package: str, start: str) -> ctypes.CDLL:
    """The shared library of an installed package whose name starts so."""
    found = next((f for f in importlib.metadata.files(package) or () if f.name.startswith(start)), None)
    if found is None:
        raise RuntimeError(f"{package} has no {start}")
    return ctypes.CDLL(str(found.locate()), mode=ctypes.RTLD_GLOBAL)


def pointer(a: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


class _Description(ctypes.Structure):
    """struct matrix_descr: of a general matrix."""

    _fields_ = (("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int))


def mkl(case: Case, threads: int) -> Callable[[], Call]:
    os.environ["MKL_INTERFACE_LAYER"] = "LP64"
    lib = library("mkl", "libmkl_rt.so")
    lib.MKL_Set_Num_Threads(threads)
    as_is, row_major, aggressively, many, general = 10, 101, 51, 10_000, _Description(20, 0, 50)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    xt = np.ascontiguousarray(case.x().T)

    def make() -> Call:
        w, handle, y = case.csr(), ctypes.c_void_p(), np.empty((case.n, case.m), np.float32)
        ends = w.indptr[1:]
        arrays = [pointer(a) for a in (w.indptr, ends, w.indices, w.data)]
        status = lib.mkl_sparse_s_create_csr(ctypes.byref(handle), 0, case.n, case.k, *arrays)
        if case.m == 1:
            status |= lib.mkl_sparse_set_mv_hint(handle, as_is, general, many)
        else:
            status |= lib.mkl_sparse_set_mm_hint(handle, as_is, general, row_major, case.m, many)
        lib.mkl_sparse_set_memory_hint(handle, aggressively)
        if status or lib.mkl_sparse_optimize(handle):
            raise RuntimeError("MKL has refused the matrix")
        px, py = pointer(xt), pointer(y)

        def call(w: Any = w) -> Any:  # whose arrays MKL reads
            if case.m == 1:
                lib.mkl_sparse_s_mv(as_is, one, handle, general, px, zero, py)
            else:
                lib.mkl_sparse_s_mm(as_is, one, handle, general, row_major, px, case.m, case.m, zero, py, case.m)
            return y.T

        return call

    return make


def aocl(case: Case, threads: int) -> Callable[[], Call]:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    for needed in ("libquadmath", "libomp", "libflangrti", "libpgmath", "libflang-", "libamdlibm", "libaoclutils", "libblis", "libflame"):
        library("aoclda", needed)  # they do not find each other
    lib = library("aoclda", "libaoclsparse")
    as_is, row_major, many = 111, 0, 10_000
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    xt = np.ascontiguousarray(case.x().T)

    def make() -> Call:
        # zeros: y is read even where it is multiplied by 0
        w, y, handle, general = case.csr(), np.zeros((case.n, case.m), np.float32), ctypes.c_void_p(), ctypes.c_void_p()
        arrays = [pointer(a) for a in (w.indptr, w.indices, w.data)]
        status = lib.aoclsparse_create_scsr(ctypes.byref(handle), 0, case.n, case.k, w.nnz, *arrays)
        status |= lib.aoclsparse_create_mat_descr(ctypes.byref(general))
        hint = lib.aoclsparse_set_mv_hint if case.m == 1 else lib.aoclsparse_set_mm_hint
        hint(handle, as_is, general, many)
        if status or lib.aoclsparse_optimize(handle):
            raise RuntimeError("AOCL-Sparse has refused the matrix")
        px, py = pointer(xt), pointer(y)

        def call(w: Any = w) -> Any:  # whose arrays AOCL reads
            if case.m == 1:
                lib.aoclsparse_smv(as_is, ctypes.byref(one), handle, general, px, ctypes.byref(zero), py)
            else:
                lib.aoclsparse_scsrmm(as_is, one, handle, general, row_major, px, case.m, case.m, zero, py, case.m)
            return y.T

        return call

    return make


def deepsparse(case: Case, threads: int) -> Callable[[], Call]:
    import tempfile

    import deepsparse as engine
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if case.n * case.k > 1 << 28:
        raise ValueError("takes dense weights")
    x, w = case.x(), np.ascontiguousarray(case.csr().toarray().T)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [case.m, case.n])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def make() -> Call:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            onnx.save(model, file.name)
            compiled = engine.compile_model(file.name, batch_size=case.m, num_cores=threads)
        return lambda: compiled._eng_net.execute_list_out([x])[0]  # without the checks of run()

    return make


FAMILIES: dict[str, tuple[Sequence[Case], Sequence[Callable[[Case, int], Callable[[], Call]]]]] = {
    "int4": (INT4, (edgecomp, onnxruntime, openvino)),
    "csr": (CSR, (edgecomp, edgecomp_csr8, mkl, aocl, deepsparse, scipy)),
}


# ---- one process for each engine ----


def work(pipe: Connection, family: str, engine: int, number: int, threads: int) -> None:
    """Prepares the case and answers: None and why not, or the seconds of a slice each time it is asked."""
    cases, engines = FAMILIES[family]
    case = cases[number]
    if threads == 1:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    try:
        make = engines[engine](case, threads)
        first = make()
        y, wanted = first(), case.truth()
        y = np.asarray(y.numpy() if hasattr(y, "numpy") else y).reshape(wanted.shape)
        error = np.linalg.norm(y - wanted) / np.linalg.norm(wanted)
        if not error < 0.02:
            raise RuntimeError(f"wrong: relative error {error:.2g}")
        copies = [first, *(make() for _ in range(cold_copies(case.weight_bytes()) - 1))] if case.cold else [first]
        for call in copies:  # what is derived at a first call is not timed
            call()
        run = rotating(copies)
        calls = fitting_calls(run)
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"[:100]))
        return
    pipe.send((calls, ""))
    while pipe.recv():
        run()
        pipe.send(seconds_per_call(run, calls))


class Worker:
    """An engine's process, which is stopped unless it is asked something."""

    def __init__(self, family: str, engine: int, number: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, family, engine, number, threads), daemon=True)
        self.process.start()
        other.close()
        try:
            calls, self.why = self.pipe.recv()
        except EOFError:
            calls, self.why = None, "its process has ended"
        self.slices: list[float] = []
        self.alive = calls is not None
        if self.alive:
            self._signal(signal.SIGSTOP)

    def slice(self) -> None:
        self._signal(signal.SIGCONT)
        self.pipe.send(True)
        self.slices.append(self.pipe.recv())
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def _signal(self, number: int) -> None:
        os.kill(self.process.pid or 0, number)


def timings(family: str, number: int, threads: int) -> Iterator[tuple[str, float | None, str]]:
    """Of each engine its name, and median seconds or why there are none."""
    engines = FAMILIES[family][1]
    workers = [Worker(family, engine, number, threads) for engine in range(len(engines))]
    try:
        for _ in range(SLICES):
            for worker in workers:
                if worker.alive:
                    worker.slice()
    finally:
        for worker in workers:
            worker.end()
    for engine, worker in zip(engines, workers, strict=True):
        yield engine.__name__, statistics.median(worker.slices) if worker.slices else None, worker.why


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--match", default="", help="only cases whose name has this in it")
    options = parser.parse_args()
    cases, engines = FAMILIES[options.family]
    names = " | ".join(engine.__name__ for engine in engines)
    print(f"| {options.threads} thread{'s' * (options.threads > 1)}, us | {names} | best other / edgecomp |")
    print("| --- " * (len(engines) + 2) + "|")
    for number, case in enumerate(cases):
        if options.match not in str(case):
            continue
        found = list(timings(options.family, number, options.threads))
        ours, *others = [seconds for _, seconds, _ in found]
        best = min((s for s, (name, _, _) in zip(others, found[1:], strict=True) if s and not name.startswith("edgecomp")), default=None)
        gain = f"{best / ours:.2f}x" if best and ours else ""
        print(f"| {case} | {' | '.join(f'{1e6 * s:.0f}' if s else why for _, s, why in found)} | {gain} |", flush=True)


if __name__ == "__main__":
    main()
