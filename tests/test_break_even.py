"""edgecomp bench --break-even: where a form starts to win, tables, picture, command. No test depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecomp as ec
from edgecomp import cli, measure
from edgecomp.measure import break_even, forms, picture, timing

FORMS = ["csr", "csr8", "nm", "nm8", "nm b16", "nm8 b16"]


def points(*times: tuple[float, float], form: str = "csr", m: int = 1) -> list[break_even.Point]:
    """Of (sparsity, seconds) where dense float32 takes a second and int8 half of one."""
    return [break_even.Point(form, f"{s:.0%}", s, m, 1, seconds, 1.0, 0.5) for s, seconds in times]


@pytest.mark.parametrize(
    ("times", "float32", "int8"),
    [
        ([(0.3, 1.4), (0.5, 1.0), (0.9, 0.2)], 0.5, 0.75),
        ([(0.5, 1.2), (0.9, 0.4)], 0.6, 0.85),
        ([(0.5, 0.9), (0.9, 0.4)], 0.5, 0.82),  # at the least that was measured, or below
        ([(0.5, 3.0), (0.9, 1.0)], None, None),
        ([(0.5, 0.8), (0.7, 1.2), (0.9, 0.7)], 0.78, None),  # wins, loses, wins for good
        ([(0.5, 0.4), (0.9, 0.6)], 0.5, None),  # not at the highest: no point from which on
        ([(0.9, 0.3)], 0.9, 0.9),
        ([], None, None),
    ],
)
def test_wins_from(times: list[tuple[float, float]], float32: float | None, int8: float | None) -> None:
    assert break_even.wins_from(points(*times)) == (float32 if float32 is None else pytest.approx(float32))
    assert break_even.wins_from(points(*times), "int8") == (int8 if int8 is None else pytest.approx(int8))


def made_up() -> break_even.BreakEven:
    csr = points((0.9, 0.2), (0.5, 1.2), m=1) + points((0.9, 0.1), (0.5, 0.9), m=128)
    nm8 = points((0.5, 0.6), form="nm8 b16", m=1) + points((0.5, 0.4), form="nm8 b16", m=128)
    return break_even.BreakEven((64, 32), tuple(csr + nm8))


def test_tables() -> None:
    header, lines = break_even.speed_table(made_up(), 1)
    assert header == ["form", "zeros", "M=1 cold", "M=128"]
    assert lines == [
        ["float32", "-", "1.00 s", "1.00 s"],
        ["int8", "-", "2.00x", "2.00x"],
        ["csr", "50%", "0.83x", "1.11x"],
        ["csr", "90%", "5.00x", "10.00x"],
        ["nm8 b16", "50%", "1.67x", "2.50x"],
    ]
    header, lines = break_even.wins_table(made_up(), 1)
    assert header == ["form", "against", "M=1 cold", "M=128"]
    assert lines == [["csr", "float32", "58 %", "<50 %"], ["nm8 b16", "float32", "<50 %", "<50 %"], ["nm8 b16", "int8", "never", "<50 %"]]


def test_json() -> None:
    document = json.loads(json.dumps(made_up().to_json()))
    assert (document["n"], document["k"], len(document["points"])) == (64, 32, 6)
    assert document["points"][0]["speedup"] == 5.0
    found = {(w["form"], w["m"], w["against"]): w["sparsity"] for w in document["wins_from"]}
    assert len(found) == 2 * 2 * 2
    assert found["csr", 1, "float32"] == pytest.approx(0.58)
    assert found["nm8 b16", 1, "int8"] is None


def test_weights_have_the_zeros_they_are_said_to_have() -> None:
    w = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    seen = []
    for name, zeros, sparsity, form, pruned in break_even.weights(w, (0.25, 0.75), ("2:4", "1:16")):
        assert np.count_nonzero(pruned) == round((1 - sparsity) * w.size)
        made = form.make(pruned)
        assert made.bits == (8 if "8" in name.partition(" ")[0] else 32)
        assert getattr(made, "pattern", zeros) == zeros
        assert getattr(made, "block", 1) == (16 if "b16" in name else 1)
        seen.append(name)
    assert list(dict.fromkeys(seen)) == FORMS


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that last no time."""
    monkeypatch.setattr(timing, "COLD_BYTES", 100)
    monkeypatch.setattr(forms, "COLD_SLICES", 1)
    monkeypatch.setattr(forms, "SLICES", 1)
    monkeypatch.setattr(
        forms, "interleave", lambda c, *, slices, after_slice: timing.interleave(c, slices=slices, seconds=1e-5, after_slice=after_slice)
    )
    monkeypatch.setattr(break_even, "QUICK_SPARSITIES", (0.5, 0.9))
    monkeypatch.setattr(break_even, "QUICK_PATTERNS", ("2:4", "1:4"))


BRIEF = ["bench", "--break-even", "--quick", "--shape", "32,48", "--batch", "1,9"]


@pytest.mark.usefixtures("brief")
def test_measures_each_form(c: None) -> None:
    seen: list[None] = []
    arguments = {"sparsities": (0.5, 0.9), "patterns": ("2:4", "1:4")}
    found = break_even.measure_break_even((32, 48), (1, 9), (1, 2), **arguments, after_slice=lambda: seen.append(None))
    assert found.forms == FORMS
    assert (found.batches, found.threads) == ([1, 9], [1, 2])
    assert len(found.points) == 6 * 2 * 2 * 2
    assert all(min(p.seconds, p.float32, p.int8) > 0 for p in found.points)
    assert len(seen) == break_even.steps((1, 9), (1, 2), *arguments.values())


@pytest.mark.usefixtures("brief")
def test_command(c: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*BRIEF, "--threads", "1,2"]) == 0
    out, err = capsys.readouterr()
    assert all(out.count(f"\n  {form} ") for form in FORMS)
    assert "Speed against dense float32, (32,48), 2 threads" in out
    assert "Faster than the dense weight from so many zeros on, (32,48), 1 thread" in out
    assert max(map(len, out.splitlines())) <= 80
    assert err == ""


@pytest.mark.usefixtures("brief")
def test_command_json_and_picture(c: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main([*BRIEF, "--threads", "1", "--json", "--plot", str(tmp_path / "even.svg")]) == 0
    out, err = capsys.readouterr()
    assert {p["form"] for p in json.loads(out)["break_even"]["points"]} == set(FORMS)
    assert (tmp_path / "even.svg").read_text().startswith("<?xml")
    assert f"written: {tmp_path / 'even.svg'}" in err


@pytest.mark.parametrize("fastest", [1.4, 3.0])
def test_picture_labels_its_speeds(fastest: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    drawn: list[Any] = []
    save = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *rest, **named: (drawn.append(self), save(self, *rest, **named)))
    measured = [p for m in (1, 8) for p in points((0.5, 1.1), (0.9, 1 / fastest), m=m)]
    found = break_even.BreakEven((64, 32), tuple(replace(p, int8=0.9) for p in measured))
    break_even.draw(found, str(tmp_path / "even.png"))
    axes = drawn[0].axes[0]
    low, high = axes.get_ylim()
    labels = [label.get_text() for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True) if low <= at <= high]
    assert labels == ["0.5x", "1x", "2x"]
    assert low <= 0.5 < 2 <= high
    assert high > fastest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--break-even", "--int8"], "--break-even goes alone"),
        (["--break-even", "--shape", "1,2,3"], "wanted N,K, once"),
        (["--break-even", "--shape", "2,3", "--shape", "2,3"], "wanted N,K, once"),
        (["--break-even", "--batch", "0"], "wanted numbers of rows"),
        (["--break-even", "--batch", ""], "wanted numbers of rows"),
        (["--break-even", "--batch", "8,99999999999"], "argument --batch: shape '99999999999,"),
        (["--batch", "8"], "are for --break-even"),
        (["--int8", "--plot", "a.png"], "are for --break-even"),
        (["--int8", "--shape", "2,3"], "M,N,K"),
        (["--break-even", "--shape", "2,0"], "1 or more"),
        (["--break-even", "--shape", "99999999999,99999999999"], "argument --shape: shape '1,99999999999,99999999999': its largest matrix"),
        (["--break-even", "--shape", "3000000,3000000"], "takes 33528 GiB, this machine has"),
        (["--shape", "1,3000000,3000000"], "takes 33528 GiB, this machine has"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_fails_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(break_even, "measure_break_even", lambda *_, **__: pytest.fail("the work started"))
    for option in ("--plot", "--json"):
        assert cli.main([*BRIEF, option, str(tmp_path / "nowhere" / "a.png")]) == 1
        assert option in capsys.readouterr().err
    monkeypatch.setattr(picture, "refuse", lambda path: "no matplotlib")
    assert cli.main([*BRIEF, "--plot", str(tmp_path / "a.png")]) == 1
    assert "no matplotlib" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_reference_is_refused() -> None:
    ec.set_backend("reference")
    with pytest.raises(measure.NoCompiledKernels, match="break-even: the backend is NumPy"):
        break_even.measure_break_even((4, 4))
