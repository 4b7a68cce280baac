"""The `edgecomp` command: output, JSON, exit codes, with and without a terminal, rich and the C library."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgecomp as ec
from edgecomp import backend, cli, measure
from edgecomp.measure import roof, shapes

needs_c = pytest.mark.skipif(backend.load_c() is None, reason="the C library was not built")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that last no time: what they find is not looked at here."""
    monkeypatch.setattr(roof, "dram_bytes", lambda threads: 1 << 20)
    monkeypatch.setattr(measure, "measure_roof", functools.partial(_roof, measure.measure_roof))
    monkeypatch.setattr(shapes, "QUICK", (measure.Shape(2, 16, 32),))
    monkeypatch.setattr(shapes, "ALL", (measure.Shape(2, 16, 32), measure.Shape(3, 16, 32)))


def _roof(original, threads, *, slices, after_slice):
    return original(threads, slices=slices, seconds=1e-4, after_slice=after_slice)


def test_info_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for text in (ec.__version__, "numpy", "threads", *ec.info()["ops"]):
        assert text in out
    assert "\x1b" not in out  # no terminal, no colours


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ec.info()


def test_info_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {**ec.info(), "missing": [{"what": "the moon", "why": "it is night", "fix": "wait"}]}
    monkeypatch.setattr(ec, "info", lambda: lacking)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "missing: the moon (it is night)" in out
    assert "wait" in out


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "edgecomp", "info", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["version"] == ec.__version__


def test_a_reader_that_leaves_early_is_no_error_message() -> None:
    done = subprocess.run(f"{sys.executable} -m edgecomp info | true", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_without_standard_output_or_error(closed: str, tmp_path: Path) -> None:
    script = f"cd {tmp_path}; {sys.executable} -c 'import numpy; numpy.savez(\"in.npz\", w=numpy.ones(3))'"
    script += f"; {sys.executable} -m edgecomp info {closed} && {sys.executable} -m edgecomp import in.npz out.npz {closed}"
    done = subprocess.run(script, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    assert list(ec.load(tmp_path / "out.npz")) == ["w"]


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ec, "info", interrupt)
    assert cli.main(["info"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_bad_environment_fails_clearly() -> None:
    run = "import os; os.environ['EDGECOMP_BACKEND'] = 'abacus'; from edgecomp.cli import main; raise SystemExit(main(['info']))"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EDGECOMP_BACKEND" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "frobnicate"),
        (["bench", "--shape", "1,2"], "M,N,K"),
        (["bench", "--shape", "1,2,0"], "1 or more"),
        (["bench", "--threads", "0"], "from 1 to 1024"),
        (["bench", "--threads", "1,two"], "from 1 to 1024"),
        (["bench", "--threads", ""], "from 1 to 1024"),
        (["bench", "--int4000"], "--int4000"),
        (["info", "extra"], "extra"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["bench", "--help"], ["--version"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    assert "edgecomp" in capsys.readouterr().out


@needs_c
@pytest.mark.usefixtures("brief")
def test_bench_without_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench"]) == 0
    out, err = capsys.readouterr()
    assert "Peaks of this machine" in out
    assert "linear_int8" in out
    assert "linear_f32" in out
    assert "\x1b" not in out
    assert err == ""


@needs_c
@pytest.mark.usefixtures("brief")
def test_bench_json_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--roof", "--int8", "--quick", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"machine", "roof", "speed"}
    assert {p["threads"] for p in document["roof"]} == {1}
    assert [row["op"] for row in document["speed"]] == ["linear_int8"]


@needs_c
@pytest.mark.usefixtures("brief")
def test_bench_json_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    assert cli.main(["bench", "--f32", "--quick", "--shape", "4,8,8", "--shape", "1,8,8", "--threads", "1", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert document["roof"] == []
    assert [(row["op"], row["m"]) for row in document["speed"]] == [("linear_f32", 4), ("linear_f32", 1)]
    out = capsys.readouterr().out
    assert "(4,8,8)" in out
    assert "Peaks" not in out


@needs_c
def test_bench_own_shape_means_int8_and_f32(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--quick", "--shape", "2,16,32", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in document["speed"]] == ["linear_int8", "linear_f32"]
    assert document["roof"] == []


@needs_c
def test_bench_refuses_a_folder_for_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--int8", "--quick", "--shape", "2,16,32", "--threads", "1", "--json", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@needs_c
def test_bench_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "compare", interrupt)
    assert cli.main(["bench", "--int8", "--quick", "--threads", "1", "--json", str(tmp_path / "speed.json")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_bench_without_c_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_c", lambda: None)
    assert cli.main(["bench", "--roof"]) == 1
    err = capsys.readouterr().err
    assert "EDGECOMP_REQUIRE_C=1" in err
    assert "Traceback" not in err
