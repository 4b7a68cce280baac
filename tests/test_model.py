"""The model file: what goes in comes out, bit for bit, where it is mapped."""

import gc
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import models
import numpy as np
import pytest
from child import run_python
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import edgecomp as ec
from edgecomp import _kinds, _manifest, _zip, arrays

FLAT = {f"{kind}/{name}": w for kind, made in models.weights().items() for name, w in made.items()}
DTYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", "g", "G")


def stored(w: ec.DenseWeight) -> int:
    """Bytes of a weight without the forms that kernels have derived."""
    return sum(a.nbytes for a in w.arrays().values())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("verify", ["structure", "full"])
def test_every_weight_comes_back(path: Path, mmap: bool, verify: str) -> None:
    ec.save(path, FLAT, {"a": [1, {"b": None}]})
    with ec.load(path, mmap=mmap, verify=verify) as model:
        assert list(model) == list(FLAT)
        assert len(model) == len(FLAT)
        assert model.metadata == {"a": [1, {"b": None}]}
        assert model.nbytes == sum(map(stored, FLAT.values()))
        for name, w in FLAT.items():
            assert models.same(model[name], w), name
            assert model[name] is model[name]
            assert model[name].density == w.density
            np.testing.assert_array_equal(model[name].dequantize(), w.dequantize())


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (16, 64), (33, 31), (3, 257)])
def test_any_shape(path: Path, shape: tuple[int, int]) -> None:
    w = np.ones(shape, np.float32)
    made = {
        "dense": ec.pack(w),
        "int8": ec.quantize(w),
        "int4": ec.quantize(w, bits=4, group_size=16),
        "one": ec.quantize(w, bits=4, group_size=None),
        "csr": ec.to_csr(w),
        "csr8": ec.to_csr(w, bits=8),
        "array": w,
    }
    ec.save(path, made)
    model = ec.load(path, verify="full")
    x = np.ones((2, shape[1]), np.float32)
    for name in list(made)[:-1]:
        assert models.same(model[name], made[name]), name
        np.testing.assert_array_equal(ec.linear(x, model[name]), ec.linear(x, made[name]))


def test_wide_indices(path: Path) -> None:
    w = ec.CSRWeight.from_arrays(np.ones(2, np.float32), [70000, 3], [0, 1, 2], (2, 70001))
    ec.save(path, {"w": w})
    assert models.same(ec.load(path)["w"], w)


def test_indices_of_32_bits_where_16_would_do(path: Path) -> None:
    w = ec.to_csr(models.sparse(5, 9))
    indices = w.indices.astype(np.int32)
    wide = ec.CSRWeight._build(shape=w.shape, data=w.data, indices=indices, indptr=w.indptr, scale=None, derived={})
    ec.save(path, {"w": wide})
    assert models.same(ec.load(path)["w"], w)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "<>")
def test_arrays_of_every_dtype(path: Path, dtype: str, order: str) -> None:
    a = np.arange(24).reshape(2, 3, 4).astype(np.dtype(dtype).newbyteorder(order))
    made = {"plain": a, "fortran": np.asfortranarray(a), "strided": a[:, ::2, ::-1], "scalar": a[1, 1, 1, ...], "empty": a[:0]}
    ec.save(path, made)
    model = ec.load(path, verify="full")
    for name, given_ in made.items():
        assert model[name].dtype == np.dtype(dtype)
        assert model[name].dtype.isnative
        assert not model[name].flags.writeable
        np.testing.assert_array_equal(model[name], given_)


@given(hnp.arrays(hnp.scalar_dtypes().filter(lambda d: d.kind in "biufc"), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0)))
def test_arrays_keep_their_bits(a: np.ndarray) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"edgecomp-bits-{os.getpid()}.npz"
    try:
        ec.save(path, {"a": a})
        b = ec.load(path)["a"]
        assert b.shape == a.shape
        if a.dtype.itemsize <= 8 or a.dtype == np.complex128:  # others have bytes that mean nothing
            assert b.tobytes() == a.astype(a.dtype.newbyteorder("=")).tobytes()
    finally:
        path.unlink()


def test_bfloat16(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = np.array([1, -2.5, 3e38, np.inf], np.float32).astype(ml_dtypes.bfloat16)
    ec.save(path, {"a": a})
    model = ec.load(path)
    assert model["a"].dtype == a.dtype
    assert model["a"].tobytes() == a.tobytes()
    assert np.load(path)["a@values"].dtype == np.uint16
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        ec.load(path)["a"]


def test_most_dimensions(path: Path) -> None:
    a = np.ones((1,) * (64 if int(np.__version__[0]) > 1 else 32), np.int16)
    ec.save(path, {"a": a})
    assert ec.load(path)["a"].shape == a.shape


@given(st.dictionaries(st.text(min_size=1, max_size=40), st.just(0), min_size=1, max_size=5))
def test_names_are_kept_and_harmless(names: dict[str, int]) -> None:
    try:
        members = [_manifest.member(name, "values") for name in names]
    except ValueError:
        assert any("\ud800" <= c <= "\udfff" for name in names for c in name)
        return
    assert len(set(members)) == len(names)
    for m in members:
        assert _zip._NAME.match(m), m
        folders = m.split("/")
        assert not m.startswith("/")
        assert "." not in folders
        assert ".." not in m


def test_metadata(path: Path) -> None:
    given_ = {"": {"ä": (1, 2, [3.5])}, "big": 2**200, "flag": False, "none": None, "tiny": 5e-324}
    ec.save(path, {}, given_)
    model = ec.load(path)
    assert model.metadata == {**given_, "": {"ä": [1, 2, [3.5]]}}
    model.metadata.clear()
    assert model.metadata["flag"] is False


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({1: 2}, TypeError),
        ({"a": np.float32(1)}, TypeError),
        ({"a": b"bytes"}, TypeError),
        ({"a": float("nan")}, ValueError),
        ({"a": 10**200}, ValueError),
        ({"a": 10**5000}, ValueError),
        ({"a": "x" * (1 << 26)}, ValueError),
        ({"a": "\ud800"}, ValueError),
        ([], TypeError),
    ],
)
def test_metadata_that_json_cannot_hold(path: Path, metadata: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^save: metadata"):
        ec.save(path, {}, metadata)
    assert list(path.parent.iterdir()) == []


def test_metadata_in_itself(path: Path) -> None:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    with pytest.raises(ValueError, match="nested"):
        ec.save(path, {}, loop)


@pytest.mark.parametrize(
    "tensor", [np.array([object()]), np.array(["text"]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "f4")]), "text", None]
)
def test_what_is_no_tensor(path: Path, tensor: object) -> None:
    with pytest.raises(TypeError, match="'t'"):
        ec.save(path, {"good": np.ones(1), "t": tensor})
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("name", "error"), [("", ValueError), ("x" * 5000, ValueError), ("\udc80", ValueError), (3, TypeError)])
def test_what_is_no_name(path: Path, name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="save"):
        ec.save(path, {name: np.ones(1)})
    assert list(path.parent.iterdir()) == []


def test_same_tensors_same_bytes(path: Path) -> None:
    ec.save(path, FLAT)
    first = path.read_bytes()
    os.utime(path, (0, 0))
    ec.save(path, FLAT)
    assert path.read_bytes() == first
    with ec.load(path) as model:
        ec.save(path, model)  # over the file that is mapped
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", models.golden())
def test_golden_files(name: str, path: Path) -> None:
    tensors, metadata = models.golden()[name]
    model = ec.load(models.GOLDEN / f"{name}.npz", verify="full")
    assert model.metadata == metadata
    assert list(model) == list(tensors)
    for key, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            assert model[key].dtype == tensor.dtype
            np.testing.assert_array_equal(model[key], tensor)
        else:
            assert models.same(model[key], tensor), key
    ec.save(path, tensors, metadata)
    assert path.read_bytes() == (models.GOLDEN / f"{name}.npz").read_bytes(), "the format has changed: a new minor version?"


def test_a_zip_file_to_others(path: Path) -> None:
    ec.save(path, FLAT)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
    with np.load(path, allow_pickle=False) as z:
        for name, w in FLAT.items():
            for part, a in w.arrays().items():
                got = z[_manifest.member(name, part)[:-4]]
                assert got.dtype == a.dtype
                for field in a.dtype.names or [...]:  # NumPy leaves the bytes between fields as they are
                    assert got[field].tobytes() == a[field].tobytes()
        assert json.loads(z["edgecomp.json"])["format"] == "edgecomp"


def test_packed_anew_by_others(path: Path) -> None:
    """Not aligned any more: tensors are copied."""
    ec.save(path, FLAT)
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w") as new:
        new.comment = b"PK\5\6 and more"
        for info in reversed(old.infolist()):
            with new.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as f:
                f.write(old.read(info))
        new.writestr("a/", b"")
        new.writestr("notes.txt", b"hello")
    path.write_bytes(packed.getvalue())
    model = ec.load(path, verify="full")
    x = np.ones((3, 70), np.float32)
    for name, w in FLAT.items():
        assert models.same(model[name], w), name
        assert all(a.ctypes.data % 64 == 0 for a in model[name].arrays().values())
        np.testing.assert_array_equal(ec.linear(x, model[name]), ec.linear(x, w))


def test_data_is_aligned(path: Path) -> None:
    ec.save(path, FLAT)
    for w in ec.load(path).values():
        for part in w.arrays().values():
            assert part.ctypes.data % 64 == 0
            assert part.flags.aligned


def test_loaded_tensors_are_views_of_the_map(path: Path, impl: str) -> None:
    ec.save(path, {**FLAT, "array": np.ones(5)})
    model = ec.load(path)
    assert arrays.is_mapped(model["array"])
    x = np.linspace(-1, 1, 210, dtype=np.float32).reshape(3, 70)
    for name, w in FLAT.items():
        mapped = model[name]
        assert all(arrays.is_mapped(a) for a in mapped.arrays().values()), name
        np.testing.assert_array_equal(ec.linear(x, mapped), ec.linear(x, w))
        assert "w: read where its file is mapped" in ec.explain(x, mapped).notes
        assert "mapped" not in str(ec.explain(x, w))
    assert not any(arrays.is_mapped(a) for w in ec.load(path, mmap=False).values() if hasattr(w, "arrays") for a in w.arrays().values())


def test_tensors_outlive_their_model_and_file(path: Path) -> None:
    ec.save(path, FLAT)
    x = np.ones((3, 70), np.float32)
    with ec.load(path) as model:
        taken = {name: model[name] for name in model}
        again = ec.linear(x, taken["int8/w"])
    with pytest.raises(ValueError, match="closed"):
        model["int8/w"]
    assert "closed" in repr(model)
    model.close()
    path.unlink()
    del model
    gc.collect()
    np.testing.assert_array_equal(ec.linear(x, taken["int8/w"]), again)
    for name, w in FLAT.items():
        np.testing.assert_array_equal(ec.linear(x, taken.pop(name)), ec.linear(x, w))
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_loaded_tensors_pickle_and_are_read_only(path: Path) -> None:
    ec.save(path, {**FLAT, "a": np.ones(3)})
    model = ec.load(path)
    for name, w in FLAT.items():
        assert models.same(pickle.loads(pickle.dumps(model[name])), w), name
    with pytest.raises(ValueError, match="read-only"):
        model["a"][0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        model["a"].flags.writeable = True


def test_a_model_is_a_mapping(path: Path) -> None:
    ec.save(path, {"b": np.ones(2), "a": np.zeros(1)})
    model = ec.load(path)
    assert list(model.keys()) == ["b", "a"]
    assert "a" in model
    assert "c" not in model
    assert 3 not in model
    assert model.get("c") is None
    with pytest.raises(KeyError):
        model["c"]
    assert repr(model) == f"Model({str(path)!r}, 2 tensors, 24 bytes)"


def test_inspect(path: Path) -> None:
    ec.save(path, {**FLAT, "a": np.ones((2, 3))}, {"m": 1})
    found = ec.inspect(path, verify="full")
    assert json.loads(json.dumps(found)) == found
    assert found["version"] == "1.0"
    assert found["metadata"] == {"m": 1}
    assert found["file_bytes"] == path.stat().st_size
    assert found["bytes"] == sum(map(stored, FLAT.values())) + 48
    for name, w in FLAT.items():
        told = found["tensors"][name]
        assert (told["shape"], told["bits"], told["bytes"], told["layout"]) == (list(w.shape), w.bits, stored(w), w.layout)
        assert told.get("group_size") == w.group_size
    assert found["tensors"]["csr/w"]["density"] == FLAT["csr/w"].nnz / (35 * 70)
    assert found["tensors"]["a"]["dtype"] == "float64"


def test_what_a_later_version_adds(path: Path) -> None:
    """Keys and members that nobody requires are kept; what is required, and a new major version, are refused by name."""

    def change(**keys: object) -> None:
        ec.save(path, {"w": FLAT["int8/w"]})
        with zipfile.ZipFile(path) as old:
            members = {i.filename: old.read(i) for i in old.infolist()}
        manifest = json.loads(members.pop("edgecomp.json"))
        manifest["tensors"]["w"].update(keys.pop("tensor", {}))
        manifest.update(keys)
        with zipfile.ZipFile(path, "w") as new:
            for name, data in {**members, "future@part.bin": b"?", "edgecomp.json": json.dumps(manifest)}.items():
                new.writestr(name, data)

    change(version=[1, 7], colour="blue", tensor={"note": [1]}, requires=[])
    model = ec.load(path)
    assert models.same(model["w"], FLAT["int8/w"])
    assert model.manifest["colour"] == "blue"
    assert model.manifest["tensors"]["w"]["note"] == [1]
    for keys, message in [
        ({"version": [2, 0]}, r"version 2\.0.*upgrade"),
        ({"requires": ["magic"]}, "requires 'magic'"),
        ({"requires": "magic"}, "requires 'magic'"),
        ({"tensor": {"requires": ["twist"]}}, "tensor 'w' requires 'twist'"),
        ({"version": "1.0"}, "version is"),
        ({"version": [0, 9]}, "version is"),
    ]:
        change(**keys)
        with pytest.raises(ec.FormatError, match=message):
            ec.load(path)


def test_bad_arguments(path: Path) -> None:
    ec.save(path, {})
    assert len(ec.load(path)) == 0
    with pytest.raises(ValueError, match="verify is 'all'"):
        ec.load(path, verify="all")
    with pytest.raises(FileNotFoundError):
        ec.load(path.parent / "nothing.npz")
    os.mkfifo(path.parent / "pipe")
    for other in (path.parent, path.parent / "pipe", "/dev/zero"):
        with pytest.raises(ec.FormatError, match="no regular file"):
            ec.load(other)


def test_opening_reads_no_tensor() -> None:
    """Resident memory: of 64 MiB none is touched by opening, and no more than one tensor by taking it and running it."""
    out = run_python(
        """
        import os, tempfile
        import numpy as np, edgecomp as ec
        def resident():
            with open("/proc/self/smaps_rollup") as f:
                return next(int(line.split()[1]) for line in f if line.startswith("Rss"))
        path = os.path.join(tempfile.mkdtemp(), "m.npz")
        w = ec.Int8Weight.from_arrays(np.ones((2048, 2048), np.int8), np.ones(2048, np.float32))
        x, y = np.ones((1, 2048), np.float32), np.empty((1, 2048), np.float32)
        ec.save(path, {f"layer{i}": w for i in range(16)})
        ec.linear(x, w, out=y), ec.load(path)  # everything is warm
        before = resident()
        model = ec.load(path)
        opened = resident() - before
        taken = model["layer3"]
        took = resident() - before
        ec.linear(x, taken, out=y)
        ran = resident() - before
        print(opened, took, ran)
        os.unlink(path)
        """
    )
    opened, took, ran = map(int, out.split())
    assert opened < 1024
    assert took < 2048  # scales, sums, and what the kernel maps around them
    assert 4096 <= ran < 4096 + 2048


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_not_finite_with_and_without_c(dtype, monkeypatch):
    records = np.zeros(700, [("scale", dtype, 32), ("codes", np.uint8, 96)])
    for values in (records["scale"], np.zeros(700, dtype), np.zeros((0, 32), dtype), np.zeros(0, dtype)):
        for at in (None, 0, len(values) // 2, len(values) - 1):
            if at is not None and len(values):
                values[at] = np.inf if values.ndim == 1 else [0] * 5 + [np.nan] + [1] * 26
            found = _kinds._first_nonfinite(values)
            with monkeypatch.context() as patched:
                patched.setattr(_kinds, "lib", None)
                patched.setattr(_kinds, "_STEP", 96)
                assert _kinds._first_nonfinite(values) == found
            assert found == (-1 if at is None or not len(values) else at if values.ndim == 1 else 32 * at + 5)
            values[...] = 0
