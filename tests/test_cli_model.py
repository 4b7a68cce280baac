"""edgecomp inspect, import and export."""

import json
import os
from pathlib import Path

import models
import numpy as np
import pytest

import edgecomp as ec
from edgecomp import model_picture
from edgecomp.cli import main

RNG = np.random.default_rng(0)
W = RNG.standard_normal((32, 64), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.npz"
    kinds = {f"layer.{i}.{kind}": next(iter(made.values())) for i, (kind, made) in enumerate(models.weights().items())}
    ec.save(path, {**kinds, "head\x1b[31m": np.ones(7, np.float16)}, {"author": "nobody", "steps": [1] * 500, "\x1b[0m": "\a"})
    return path


def test_inspect_shows_all(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model)]) == 0
    out = capsys.readouterr().out
    for name, t in ec.inspect(model)["tensors"].items():
        line = next(line for line in out.splitlines() if line.startswith(f"  {name[:12]}".replace("\x1b", "\\x1b")))
        for text in (t["layout"], f"{t['bytes']:,}", "x".join(map(str, t["shape"]))):
            assert text in line.split()
    assert "csr_int8" in out
    assert "float16" in out
    density = next(t["density"] for t in ec.inspect(model)["tensors"].values() if t["kind"] == "csr")
    assert 0.1 < density < 0.3
    assert f"{100 * density:.1f}%" in out
    assert f"{ec.load(model).nbytes:,}" in out
    assert "nobody" in out
    assert "(1500 characters)" in out
    assert "\x1b" not in out  # what a file says does not steer the terminal
    assert "\a" not in out
    assert "verified" not in out


def test_inspect_verifies(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--verify"]) == 0
    assert "verified: every CRC-32" in capsys.readouterr().out
    data = bytearray(model.read_bytes())
    data[data.index(np.ones(7, np.float16).tobytes())] ^= 1
    model.write_bytes(data)
    assert main(["inspect", str(model)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(model), "--verify"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "CRC-32" in err


def test_inspect_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--json", "--verify"]) == 0
    assert json.loads(capsys.readouterr().out) == {**ec.inspect(model), "verified": True}


def test_inspect_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.npz"
    ec.save(path, {})
    pytest.importorskip("matplotlib")
    assert main(["inspect", str(path), "--plot", str(tmp_path / "empty.png")]) == 0
    assert "0 tensors" in capsys.readouterr().out


def test_inspect_plot(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "sizes.svg"
    assert main(["inspect", str(model), "--plot", str(picture)]) == 0
    assert picture.read_text().startswith("<?xml")
    assert str(picture) in capsys.readouterr().err
    assert main(["inspect", str(model), "--plot", str(tmp_path / "sizes.docx")]) == 1
    assert "docx" in capsys.readouterr().err


def test_plot_of_many_layers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tensors = {f"blk.{i}.w$_^": {"kind": "array", "dtype": "int8", "bytes": i} for i in range(100)}
    model_picture.draw({"path": "$x$", "bytes": 4950, "tensors": tensors}, str(tmp_path / "many.png"))
    assert (tmp_path / "many.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.11.mlp.up_proj.weight", "model.layers.11"),
        ("blk.0.attn_q.weight", "blk.0"),
        ("encoder/layer_3/kernel", "encoder/layer_3"),
        ("lm_head.weight", "lm_head"),
        ("bias", "bias"),
        ("7.weight", "7"),
    ],
)
def test_layer_of(name: str, layer: str) -> None:
    assert model_picture.layer_of(name) == layer


def test_inspect_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=W)
    assert main(["inspect", str(path)]) == 1
    assert "no model file of edgecomp" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing")]) == 1


@pytest.mark.parametrize(("options", "kind"), [([], "array"), (["--bits", "8"], "int8"), (["--bits", "4", "--group-size", "16"], "int4")])
def test_import(options: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, path = tmp_path / "in.npz", tmp_path / "out.npz"
    arrays = {"w": W, "narrow": W[:15].copy(), "bias": W[0].copy(), "nan": np.full((16, 16), np.nan), "ids": np.arange(256).reshape(16, 16)}
    np.savez(source, **arrays)
    assert main(["import", str(source), str(path), *options]) == 0
    err = capsys.readouterr().err
    assert "5 tensors of npz, " + ("1" if options else "0") in err
    found = ec.inspect(path, verify="full")["tensors"]
    assert {name: t["kind"] for name, t in found.items()} == {name: kind if name == "w" else "array" for name in arrays}
    with ec.load(path) as model:
        for name in list(arrays)[1:]:
            np.testing.assert_array_equal(model[name], arrays[name])
        if kind == "int4":
            assert models.same(model["w"], ec.quantize(W, bits=4, group_size=16))


def test_import_refuses(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, path = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, w=W)
    for options, message in (
        (["--group-size", "32"], "--group-size is for --bits"),
        *(
            (["--bits", "4", "--group-size", size], f"{size!r}: wanted a multiple of 16 from 16 to 256")
            for size in ("33", "0", "-16", "x", "512")
        ),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["import", str(source), str(path), *options])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
    assert main(["import", str(model), str(path)]) == 1
    assert "edgecomp.load opens it" in capsys.readouterr().err
    assert not path.exists()
    assert sorted(os.listdir(tmp_path)) == ["in.npz", "model.npz"]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.array(["a"]), [], "dtype <U1"),
        (np.zeros(3, "M8[D]"), [], "dtype datetime64"),
        (np.full((16, 16), 1e300), ["--bits", "8"], "beyond float32"),
    ],
)
def test_import_names_what_it_cannot_take(
    array: np.ndarray, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "in.npz", w=W, odd=array)
    assert main(["import", str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), *options]) == 1
    err = capsys.readouterr().err
    assert "in.npz: odd: " in err
    assert message in err
    assert os.listdir(tmp_path) == ["in.npz"]


def test_import_does_not_wait_for_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["import", str(tmp_path / "pipe"), str(tmp_path / "out.npz")]) == 1
    assert "pipe: is no regular file" in capsys.readouterr().err


def test_export_of_scalars(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    ec.save(tmp_path / "m.npz", {"scalar": np.float32(3), "turned": W.T, "none": np.zeros((0, 3))})
    assert main(["export", str(tmp_path / "m.npz"), str(tmp_path / "out.safetensors")]) == 0
    got = safetensors.load_file(tmp_path / "out.safetensors")
    assert {name: a.shape for name, a in got.items()} == {"scalar": (), "turned": (64, 32), "none": (0, 3)}
    np.testing.assert_array_equal(got["turned"], W.T)


def test_export_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    source, out = tmp_path / "m.npz", tmp_path / "out.safetensors"
    ec.save(source, {"fine": W, "odd": np.ones(3, np.complex128)})
    assert main(["export", str(source), str(out)]) == 1
    assert "out.safetensors: odd: dtype complex128 is none of safetensors'" in capsys.readouterr().err
    ec.save(source, {"fine": W})
    assert main(["export", str(source), str(tmp_path / "nowhere" / "out.safetensors")]) == 1
    assert "nowhere/out.safetensors: " in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "pipe", "is no regular file")):
        assert main(["export", str(source), str(path)]) == 1
        assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["m.npz", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_export_of_a_model(model: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    out = tmp_path / "out.safetensors"
    assert main(["export", str(model), str(out)]) == 0
    got = safetensors.load_file(out)
    for name, tensor in ec.load(model).items():
        np.testing.assert_array_equal(got[name], tensor.dequantize() if hasattr(tensor, "dequantize") else tensor)


@pytest.mark.parametrize("command", ["inspect", "import", "export"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "model file" in capsys.readouterr().out
