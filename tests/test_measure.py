"""edgecomp.measure: what it computes, and that it runs. No test here depends on how fast anything is."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Callable

import numpy as np
import pytest

import edgecomp as ec
from edgecomp import backend, measure
from edgecomp.measure import candidates, report, roof, shapes, timing

needs_c = pytest.mark.skipif(backend.load_c() is None, reason="the C library was not built")
QUICK = 1e-4  # seconds of a slice


# ---- shapes


def test_shape_parse() -> None:
    shape = measure.Shape.parse("512, 4096,64")
    assert (shape.m, shape.n, shape.k) == (512, 4096, 64)
    assert shape.operations == 2 * 512 * 4096 * 64
    assert measure.Shape.parse(str(shape)[1:-1]) == shape


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1,2,0", "-1,2,3", "1.5,2,3"])
def test_shape_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"shape '.*': "):
        measure.Shape.parse(text)


def test_shape_parse_refuses_what_memory_cannot_hold() -> None:
    for text in ("1,99999999999,99999999999", "99999999999,99999999999,1", "99999999999,1,99999999999"):
        with pytest.raises(ValueError, match=rf"shape '{text}': its largest matrix, float32, takes \d+ GiB, this machine has [\d.]+"):
            measure.Shape.parse(text)
    assert measure.Shape.parse("1,99999999,1").n == 99999999


def test_bars_are_distinct_and_known() -> None:
    assert len({bar.name for bar in shapes.BARS}) == len(shapes.BARS)
    assert all(bar.op in candidates.OPS for bar in (*shapes.BARS, *shapes.NUMBA, shapes.SCALING))


# ---- timing


class Recorder:
    """Calls that write down their name."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        return lambda: self.seen.append(name)


def test_fitting_calls_last_long_enough() -> None:
    recorder = Recorder()
    calls = timing.fitting_calls(recorder.call("a"), seconds=0.001)
    assert calls >= 1
    assert timing.seconds_per_call(recorder.call("a"), calls) > 0


def test_interleave_takes_turns() -> None:
    recorder, steps = Recorder(), Recorder()
    two = [measure.Candidate(name, recorder.call(name), work=1.0) for name in "ab"]
    timings = measure.interleave(two, slices=3, seconds=QUICK, after_slice=steps.call("step"))
    assert [name for name, _ in itertools.groupby(recorder.seen)] == ["a", "b"] * 4  # sizing, then three rounds
    assert len(steps.seen) == 6
    for t in timings:
        assert t.slices == 3
        assert 0 < t.best <= t.median
        assert t.iqr >= 0
        assert t.peak is None
        assert t.share is None
    json.dumps(timings[0].to_json())


def test_interleave_share_of_the_peak() -> None:
    (t,) = measure.interleave([measure.Candidate("a", lambda: None, work=3.0, probe=lambda: 1e6)], slices=1, seconds=QUICK)
    assert t.peak == 1e6
    assert t.share == pytest.approx(3.0 / t.median / 1e6)
    assert t.redone == 0


def test_interleave_redoes_what_an_unsteady_machine_spoiled() -> None:
    rates = itertools.chain([100.0, 111.0, 100.0, 109.0], itertools.repeat(1.0))
    (t,) = measure.interleave([measure.Candidate("a", lambda: None, work=1.0, probe=lambda: next(rates))], slices=1, seconds=QUICK)
    assert (t.redone, t.peak) == (1, 104.5)


def test_interleave_gives_up_redoing() -> None:
    rates = itertools.cycle([1.0, 2.0])
    (t,) = measure.interleave([measure.Candidate("a", lambda: None, work=1.0, probe=lambda: next(rates))], slices=2, seconds=QUICK)
    assert t.redone == 2 * timing.MOST_REPEATS
    assert t.slices == 2


def test_rotating() -> None:
    recorder = Recorder()
    run = measure.rotating([recorder.call(name) for name in "abc"])
    for _ in range(5):
        run()
    assert recorder.seen == list("abcab")


@pytest.mark.parametrize("nbytes", [1, 16 << 20, 160 << 20, 1 << 30])
def test_cold_copies_exceed_the_caches(nbytes: int) -> None:
    assert timing.cold_copies(nbytes) >= 2
    assert timing.cold_copies(nbytes) * nbytes > timing.COLD_BYTES >= 160 << 20


# ---- roof


def test_arena_is_aligned_touched_and_grows() -> None:
    arena = roof._Arena()
    small = arena.floats(1)
    assert small.ctypes.data % roof.HUGE_PAGE == 0
    assert (small == 1).all()
    assert arena.floats(1) is small
    assert arena.floats(small.nbytes + 1).nbytes > small.nbytes


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_dram_bytes(threads: int) -> None:
    assert roof.dram_bytes(threads) % roof.PAGE == 0
    assert 0 < roof.dram_bytes(threads) * threads <= roof.DRAM_TOTAL


@needs_c
@pytest.mark.parametrize("loop", roof.UNITS)
def test_probe(loop: str) -> None:
    probe = measure.Probe(loop, threads=2, nbytes=5000, seconds=QUICK)
    assert probe.nbytes == 8192
    assert (probe() > 0) == probe.exists
    assert probe.exists or loop in ("tile_s8", "dot_s8", "chain_s8")


@needs_c
def test_measure_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "dram_bytes", lambda threads: 1 << 20)
    found = measure.measure_roof((1, 2), slices=2, seconds=QUICK)
    names = {p.name for p in found.peaks}
    assert {"fma_f32", "read L1", "read L2", "read L3", "read DRAM", "copy DRAM"} <= names
    assert all(0 < p.median <= p.best for p in found.peaks)
    assert found.get("read L2", 2).nbytes == 512 << 10
    assert found.get("read L9", 1) is None
    assert json.loads(json.dumps(found.to_json()))[0]["unit"]
    header, lines = report.roof_table(found)
    assert len(lines) == len(names)
    assert {len(line) for line in lines} == {len(header)}


def test_probe_without_c_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_c", lambda: None)
    with pytest.raises(measure.NoCompiledKernels, match="EDGECOMP_REQUIRE_C=1"):
        measure.Probe("fma_f32")


# ---- candidates


@needs_c
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("op", candidates.OPS)
def test_candidate_runs(op: str, cold: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "COLD_BYTES", 100)
    call = measure.candidate(op, measure.Shape(3, 5, 8), 1, cold=cold, against="time")
    first = np.array(call.run())
    assert first.shape == (3, 5)
    assert call.work == 240 * candidates.LEFT.get(op, 1)
    np.testing.assert_array_equal(first, call.run())  # every copy of the weight is the same
    assert np.unique(first).size > 1


@needs_c
def test_peaks() -> None:
    shape = measure.Shape(4, 64, 128)
    assert candidates.peak("time", shape, 100, 1) == (None, shape.operations)
    probe, work = candidates.peak("cache", shape, 9000, 2)
    assert probe is not None
    assert (probe.loop, probe.nbytes, work) == ("read", 8192, 9000)
    probe, work = candidates.peak("fma_f32", shape, 100, 1)
    assert probe is not None
    assert (probe.loop, work) == ("fma_f32", shape.operations)


@needs_c
def test_bound_is_the_slower_of_arithmetic_and_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "dram_bytes", lambda threads: 1 << 20)
    assert candidates.bound("linear_f32", measure.Shape(1, 64, 64), 1 << 40, 1, cold=True) == "DRAM"
    assert candidates.bound("linear_csr8", measure.Shape(1, 64, 64), 1 << 40, 1, cold=True) == "DRAM"
    assert candidates.bound("linear_nm", measure.Shape(1 << 20, 64, 64), 64, 1, cold=False) == "fma_f32"
    assert candidates.bound("linear_f32", measure.Shape(1 << 20, 64, 64), 64, 1, cold=False) == "fma_f32"


@needs_c
def test_peaks_follow_the_cap() -> None:
    shape = measure.Shape(8, 16, 32)
    free = measure.candidate("linear_f32", shape, 1, against="fma_f32")
    ec.set_backend("c", isa="scalar")
    try:
        capped = measure.candidate("linear_int8", shape, 1)
        assert (capped.against, capped.probe) == ("chain_s8", None)  # portable C has no int8 peak: no share
        assert measure.candidate("linear_f32", shape, 1, against="fma_f32").probe is not free.probe
        (t,) = measure.interleave([capped], slices=1, seconds=QUICK)
        assert t.share is None
    finally:
        ec.set_backend("auto")


@needs_c
def test_compare() -> None:
    ours, t, numpy = measure.compare("linear_int8", measure.Shape(2, 16, 32), 1, slices=1)
    row = report.Row("linear_int8", measure.Shape(2, 16, 32), 1, False, ours.against, t, numpy)
    assert row.gops > 0
    assert row.speedup > 0
    assert json.loads(json.dumps(row.to_json()))["n"] == 16
    header, lines = report.speed_table([row])
    assert len(lines[0]) == len(header)


def test_rows_of_sparse_ops_count_what_zeros_leave() -> None:
    second = measure.Timing(1.0, 1.0, 0.0, 1, 1, 0)
    dense, sparse = (report.Row(op, measure.Shape(2, 16, 32), 1, False, "cache", second, second) for op in ("linear_f32", "linear_nm"))
    assert sparse.gops == dense.gops / 2
    assert (dense.bound, sparse.bound) == ("read 2 KiB", "reading")


@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_threads(threads: int) -> None:
    with measure.numpy_threads(threads):
        assert (np.ones((2, 3)) @ np.ones((3, 2)) == 3).all()


# ---- report


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2.00 s"), (0.0182, "18.2 ms"), (1e-3, "1.00 ms"), (2.413e-6, "2.41 us"), (999e-6, "999 us"), (0.0, "0.00 us")],
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_percent_and_size() -> None:
    assert (report.percent(0.9534), report.percent(None)) == ("95.3%", "-")
    assert [report.size(n) for n in (0, 300, 16 << 10, 4 << 20)] == ["", "300 B", "16 KiB", "4 MiB"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_table_is_plain_where_no_terminal_reads_it() -> None:
    out = io.StringIO()
    report.print_table("Title", ["a", "bc"], [["1", "2"], ["333", ""]], out)
    assert out.getvalue() == "Title\n  a    bc\n  ---  --\n  1    2\n  333\n\n"


def test_table_without_header() -> None:
    out = io.StringIO()
    report.print_table("Title", ["", ""], [["1", "2"]], out)
    assert out.getvalue() == "Title\n  1  2\n\n"


def test_table_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    out = Terminal()
    report.print_table("Title", ["a"], [["1"]], out)
    assert out.getvalue() == "Title\n  a\n  -\n  1\n\n"


def test_table_with_rich() -> None:
    pytest.importorskip("rich")
    out = Terminal()
    report.print_table("Title", ["a"], [["[bold]"], ["block:fire:weight"]], out)
    assert "Title" in out.getvalue()
    assert "block:fire:weight" in out.getvalue()  # no emoji
    assert "[bold]" in out.getvalue()  # as it is, not as rich's markup


@pytest.mark.parametrize("rich", [True, False])
def test_progress_on_a_terminal(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with report.Progress(3) as progress:
        for _ in range(3):
            progress.advance()
    assert "measuring" in terminal.getvalue()


def test_progress_elsewhere_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with report.Progress(2) as progress:
        progress.advance()
    assert capsys.readouterr().err == ""


def test_fingerprint_is_json() -> None:
    found = json.loads(json.dumps(report.fingerprint()))
    assert {"machine", "isa", "versions", "threads", "transparent_huge_pages", "numpy_blas"} <= set(found)
