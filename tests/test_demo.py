"""`edgecomp demo`: what it trains and finds, what it prints and draws, and how it fails. No test here depends on how fast anything is."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import edgecomp as ec
from edgecomp import backend, cli, demo, demo_distill, demo_prune, demo_train, measure
from edgecomp.measure import candidates, picture, timing

needs_c = pytest.mark.skipif(backend.load_c() is None, reason="the C library was not built")
WARM, COLD = measure.Shape(3, 32, 16), measure.Shape(1, 96, 96)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network, hardly trained, and measurements that last no time."""
    monkeypatch.setattr(demo, "HIDDEN", 32)
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "FURTHER", 1)
    monkeypatch.setattr(demo, "SLICES", 1)
    monkeypatch.setattr(demo, "LAYERS", {WARM: "some tokens", COLD: "one token"})
    monkeypatch.setattr(demo, "temperatures", lambda shape: (False, True) if shape == COLD else (False,))
    monkeypatch.setattr(measure, "interleave", functools.partial(timing.interleave, seconds=1e-4))
    monkeypatch.setattr(timing, "COLD_BYTES", 100)
    monkeypatch.setattr(candidates, "dram_bytes", lambda threads: 1 << 20)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work must not start."""
    monkeypatch.setattr(demo, "run", lambda **_: pytest.fail("the work started"))


# ---- the data and the network


def test_digits() -> None:
    digits = demo_train.load_digits()
    assert digits.train.shape == (1297, 64)
    assert digits.test.shape == (500, 64)
    both = np.concatenate([digits.train, digits.test])
    assert both.dtype == np.float32
    assert (both.min(), both.max()) == (0, 1)
    assert np.array_equal(both * 16, np.rint(both * 16))
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (demo_train.DATA.parent / "README.md").is_file()  # the licence wants it beside the data


def train(seed: int, hidden: int = 16, epochs: int = 1) -> list[demo_train.Layer]:
    with measure.numpy_threads(1):
        return demo_train.train(demo_train.load_digits(), seed=seed, hidden=hidden, epochs=epochs)


def test_training_is_reproducible() -> None:
    first, again, other = train(3), train(3), train(4)
    assert [layer.w.shape for layer in first] == [(16, 64), (16, 16), (10, 16)]
    for a, b, c in zip(first, again, other, strict=True):
        assert a.w.dtype == a.bias.dtype == np.float32
        np.testing.assert_array_equal(a.w, b.w)
        np.testing.assert_array_equal(a.bias, b.bias)
        assert not np.array_equal(a.w, c.w)


def test_gradients() -> None:
    """Against differences of the loss, in float64."""
    rng = np.random.default_rng(0)
    layers = [demo_train.Layer(rng.standard_normal((n, k)), rng.standard_normal(n)) for k, n in ((6, 5), (5, 4), (4, 10))]
    x, labels = rng.standard_normal((7, 6)), rng.integers(0, 10, 7)

    def loss() -> float:
        z = demo.logits(layers, x)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(7), labels]).mean())

    parameters = [p for layer in layers for p in layer]
    for p, g in zip(parameters, demo_train._gradients(layers, x, labels), strict=True):
        for i in np.ndindex(p.shape):
            kept = p[i]
            p[i] = kept + 1e-5
            above = loss()
            p[i] = kept - 1e-5
            assert g[i] == pytest.approx((above - loss()) / 2e-5, abs=1e-6)
            p[i] = kept


def test_quantized_networks_read_as_well_as_float32() -> None:
    digits, trained = demo_train.load_digits(), train(0, hidden=128, epochs=25)
    accuracy = {}
    for form in demo.FORMS[:4]:
        made = [demo_train.Layer(form.make(layer.w), layer.bias) for layer in trained]
        accuracy[form.name] = (demo.logits(made, digits.test).argmax(axis=1) == digits.test_labels).mean()
    assert accuracy["NumPy float32"] > 0.9
    assert all(abs(found - accuracy["NumPy float32"]) <= 0.01 for found in accuracy.values())


def test_pruning() -> None:
    """Zeros stay zeros while the network is trained further, which repairs most of what pruning breaks. Neurons are gone for good."""
    digits, trained = demo_train.load_digits(), train(0, hidden=128, epochs=12)
    before, epochs = [layer.w.copy() for layer in trained], []
    with measure.numpy_threads(1):
        found = {p.way: p for p in demo_prune.prune(trained, digits, seed=0, epochs=4, after_epoch=lambda: epochs.append(1))}
    assert list(found) == list(demo_prune.WAYS)
    assert len(epochs) == 4 * len(found)
    for layer, w in zip(trained, before, strict=True):
        np.testing.assert_array_equal(layer.w, w)
    for p in found.values():
        assert p.tuned > (0.6 if "90" in p.way else 0.85)
        assert p.tuned >= p.at_once
        assert p.tuned == demo_prune.accuracy(p.layers, digits)
    assert found["90 % zeros"].left == pytest.approx(0.1, abs=0.001)
    assert [np.count_nonzero(layer.w) for layer in found["90 % zeros"].layers] == [819, 1638, 128]
    assert found["90 % zeros"].tuned > found["90 % zeros"].at_once + 0.05
    assert [ec.to_nm(layer.w, "2:4").block for layer in found["2:4, blocks of 16"].layers] == [16, 16, 64]  # 10 outputs are one block
    assert [layer.w.shape for layer in found["half the neurons"].layers] == [(64, 64), (64, 64), (10, 64)]
    assert demo_prune.sizes(found["half the neurons"].layers) == "64-64-64-10"
    header, lines = demo_prune.table(0.9, "64-128-128-10", list(found.values()))
    assert lines[0] == ["nothing", "64-128-128-10", "100 %", "90.0%", ""]
    assert {len(line) for line in lines} == {len(header)}


# ---- the whole


@pytest.mark.usefixtures("brief")
def test_run() -> None:
    result = demo.run(seed=1, threads=1)
    assert [n.form for n in result.networks] == [form.name for form in demo.FORMS]
    numpy, packed, int8, int4, csr, csr8, *_, narrow = result.networks
    assert numpy.nbytes == 4 * (64 * 32 + 32 * 32 + 32 * 10)
    assert int8.nbytes < packed.nbytes
    assert int4.nbytes < packed.nbytes
    assert narrow.nbytes == 4 * (64 * 16 + 16 * 16 + 16 * 16)  # panels of 16 outputs
    assert csr8.nbytes < csr.nbytes
    assert csr.nbytes < packed.nbytes
    for n in result.networks:
        assert n.accuracy == (n.predictions == result.digits.test_labels).mean()
        assert n.agreement == (n.predictions == numpy.predictions).mean()
        assert min(n.one.median, n.batch.median) > 0
    document = json.loads(json.dumps(result.to_json()))
    assert (document["seed"], document["threads"], document["test_images"]) == (1, 1, 500)
    assert [f["form"] for f in document["forms"]] == [form.name for form in demo.FORMS]
    assert document["conclusion"] == demo.conclusion(result)
    assert [p["way"] for p in document["pruning"]] == list(demo_prune.WAYS)
    again = demo.run(seed=1, threads=2)
    assert [n.accuracy for n in again.networks] == [n.accuracy for n in result.networks]


@needs_c
@pytest.mark.usefixtures("brief")
def test_large_layers() -> None:
    result = demo.run(threads=1)
    assert [(form, row.shape) for form, row in result.layers] == [(form.name, shape) for shape in (WARM, COLD) for form in demo.LARGE]
    assert all(row.timing.share for _, row in result.layers)
    assert {row.against for _, row in result.layers if row.cold} <= {"DRAM", "fma_f32", "tile_s8", "dot_s8", "chain_s8"}
    assert [row.cold for _, row in result.layers] == [False] * len(demo.LARGE) + [True] * len(demo.LARGE)
    assert result.lacking == ()


@needs_c
@pytest.mark.usefixtures("brief")
def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MEMORY", 1 << 60)
    result = demo.run(threads=1)
    assert {row.shape for _, row in result.layers} == {WARM}
    assert "3 GiB" in demo.conclusion(result)[-1]


@pytest.mark.usefixtures("brief")
def test_without_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(backend, "load_c", lambda: None)
    ec.set_backend("reference")
    assert cli.main(["demo", "--no-picture"]) == 0
    out = capsys.readouterr().out
    assert "int8" in out
    assert "No large layers" in out
    assert "not made for speed" in " ".join(out.split())
    assert "EDGECOMP_REQUIRE_C=1" in " ".join(out.split())


# ---- what it says


def timed(seconds: float) -> measure.Timing:
    return measure.Timing(seconds, seconds, 0.0, 1, 1, 0, 1e9, 0.5)


def made_up(int8_one: float, int8_large: float, *, others: float | None = 0.0) -> demo.Result:
    """A result in which NumPy and packed float32 take a second for everything."""
    read = np.zeros(500, np.intp)
    seconds = {"NumPy float32": (1.0, 1.0), "float32 packed": (1.0, 1.0), "int8": (int8_one, int8_large)}
    networks = tuple(
        demo.Network(name, read, 0.9 + 0.01 * i, 0.98, 400 // (1 + i), timed(one), timed(0.5))
        for i, (name, (one, _)) in enumerate(seconds.items())
    )
    layers = tuple(
        (name, demo.report.Row("linear_int8", COLD, 1, True, "DRAM", timed(large), timed(1.0))) for name, (_, large) in seconds.items()
    )
    return demo.Result(0, 1, "c", demo_train.load_digits(), networks, 0.1, 3, layers, (), others)


def test_conclusion_of_a_small_network() -> None:
    text = "\n".join(demo.conclusion(made_up(0.5, 0.25)))
    assert "490 of 500 images" in text
    assert "accuracy +2.0 points" in text
    assert "2.0x for one image, 1.0x for 500, 4.0x in (1,96,96)" in text
    assert "too small to gain as much" in text
    assert "60% are what 3 calls cost" in text
    assert "float32 packed for one image (1.00x)" in text
    assert "int8 for one image" not in text
    assert "Other processes" not in text


def test_conclusion_of_one_that_gains_as_much() -> None:
    assert "too small" not in "\n".join(demo.conclusion(made_up(0.25, 0.25)))


def test_conclusion_where_int8_is_slower() -> None:
    text = "\n".join(demo.conclusion(made_up(2.0, 4.0)))
    assert "int8 for one image (0.50x)" in text
    assert "int8 in (1,96,96) (0.25x)" in text


def test_conclusion_of_a_pruned_network() -> None:
    result = made_up(0.5, 0.25)
    for n, said in ((400, "weights 1.0x smaller"), (800, "weights 2.0x larger")):
        other = dataclasses.replace(result.networks[2], form="2:4", nbytes=n)
        text = "\n".join(demo.conclusion(dataclasses.replace(result, networks=(*result.networks[:2], other))))
        assert f"2:4: {said}, accuracy +2.0 points; speed against packed float32: 2.0x for one image, 1.0x for 500." in text


@pytest.mark.parametrize(("others", "said"), [(None, False), (0.0, False), (1e6, True)])
def test_conclusion_on_a_busy_machine(others: float | None, said: bool) -> None:
    assert ("Other processes" in demo.conclusion(made_up(0.5, 0.25, others=others))[-1]) == said


def test_students() -> None:
    """A student of the teacher's logits reads more than one of a few labels; the seed decides all."""
    digits = demo_train.load_digits()
    teacher = demo_train.train(digits, seed=0, hidden=128, epochs=15)
    found = [demo_distill.students(teacher, digits, seed=0, epochs=20, logits=demo.logits) for _ in range(2)]
    assert found[0] == found[1]
    assert 0.7 < found[0].alone < found[0].distilled <= found[0].teacher + 0.02
    assert f"{found[0].distilled:.1%}" in found[0].sentence()


# ---- the command


@pytest.mark.usefixtures("brief")
def test_prints_tables(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--threads", "1", "--no-picture"]) == 0
    out, err = capsys.readouterr()
    assert all(form.name in out for form in demo.FORMS)
    assert "accuracy" in out
    assert "A 64-32-32-10 network" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out  # no terminal: no colours, no progress
    assert err == ""
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("brief", "here")
def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["demo", "--threads", "1", "--no-picture"]) == 0
    assert "training" in err.getvalue()
    assert "measuring" in err.getvalue()
    assert "int8" in out.getvalue()


@pytest.mark.usefixtures("brief")
def test_json_alone_on_stdout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--threads", "1", "--seed", "5", "--no-picture", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("brief")
def test_json_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--threads", "1", "--no-picture", "--json", "found.json"]) == 0
    assert json.loads((here / "found.json").read_text())["seed"] == 0
    assert "int8" in capsys.readouterr().out


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("options", "name", "magic"),
    [([], "edgecomp-demo.png", b"\x89PNG"), (["--picture", "a.svg"], "a.svg", b"<?xml"), (["--picture", "plain"], "plain", b"\x89PNG")],
)
def test_picture(options: list[str], name: str, magic: bytes, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--threads", "1", *options]) == 0
    assert (here / name).read_bytes().startswith(magic)
    assert f"written: {here / name}" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == [name]


# ---- how it fails


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "from 1 to 1024"),
        (["--threads", "1,2"], "from 1 to 1024"),
        (["--threads", "many"], "from 1 to 1024"),
        (["--seed", "-1"], "from 0 on"),
        (["--seed", "1.5"], "from 0 on"),
        (["--picture", "a.png", "--no-picture"], "not allowed with"),
        (["--picture"], "--picture"),
        (["--quick"], "--quick"),
    ],
)
@pytest.mark.usefixtures("never")
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_without_matplotlib(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert cli.main(["demo", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "int8" in out
    assert "no picture" in err
    assert "pip install matplotlib" in err
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("never", "here")
def test_a_picture_asked_for_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    assert cli.main(["demo", "--picture", "a.png"]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.usefixtures("never")
def test_unknown_type_of_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--picture", "a.docx"]) == 1
    err = capsys.readouterr().err
    assert "'docx'" in err
    assert "png" in err
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("option", ["--picture", "--json"])
def test_unwritable(option: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(picture, "refuse", lambda path: "")
    (here / "file").write_text("kept")
    for path in (here, here / "nowhere" / "a.png", here / "file" / "a.png"):
        assert cli.main(["demo", *(["--no-picture"] if option == "--json" else []), option, str(path)]) == 1
        err = capsys.readouterr().err
        assert f"cannot write {path}" in err
        assert option in err
        assert "Traceback" not in err
    assert [path.read_text() for path in here.iterdir()] == ["kept"]


@pytest.mark.usefixtures("never", "here")
def test_unwritable_current_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(picture, "refuse", lambda path: "")
    monkeypatch.setattr("builtins.open", refuse)  # root may write anywhere
    assert cli.main(["demo"]) == 1
    err = capsys.readouterr().err
    assert "edgecomp-demo.png (Permission denied)" in err
    assert "--no-picture" in err
