"""best_format and compare_formats: which forms there are, which may be taken, which is chosen, what is remembered. Timings are made up."""

import json
from pathlib import Path

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec
from edgecomp import format_choice, timing_cache
from edgecomp.measure import forms, timing

f = np.float32
rng = np.random.default_rng(8)
W = rng.standard_normal((64, 64)).astype(f)
SPARSE, TWO_OF_FOUR = ec.prune(W, 0.9), ec.prune(W, pattern="2:4", block=16)


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered, and what is goes where nobody else looks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(timing_cache, "_measured", {})


class Clock:
    """Stands for forms.seconds: gives each weight what `times` says of its layout and bits, and counts."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.calls: list[tuple[int, int]] = []

    def __call__(self, weights, twins, m, threads):
        self.calls.append((m, threads))
        assert all(type(w) is type(t) and t.shape == (min(w.shape[0], forms.TWIN), w.shape[1]) for w, t in zip(weights, twins, strict=True))
        return [self.times.get(kind(w), 1.0) for w in weights]


def kind(w: ec.DenseWeight) -> str:
    return f"{type(w).__name__}{w.bits}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(forms, "seconds", made)
    return made


# ---- the forms


def test_forms_of_a_matrix() -> None:
    assert [form.name for form in forms.forms(W)] == ["float32", "int8", "int4"]
    assert [form.name for form in forms.forms(SPARSE)] == ["float32", "int8", "int4", "csr", "csr8"]
    names = [form.name for form in forms.forms(TWO_OF_FOUR)]
    assert names == ["float32", "int8", "int4", "csr", "csr8", "nm 2:4 b16", "nm8 2:4 b16"]
    for form in forms.forms(TWO_OF_FOUR):
        np.testing.assert_allclose(form.make(TWO_OF_FOUR).dequantize(), TWO_OF_FOUR, atol=0 if not form.error else 0.5)


@pytest.mark.parametrize("block", [1, 16, 32, 64])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:7", "1:16", "5:9", "1:2", "3:4", "12:16"])
def test_patterns_are_found(pattern: str, block: int) -> None:
    w = rng.standard_normal((150, 126)).astype(f)
    assert forms.patterns(ec.prune(w, pattern=pattern, block=block)) == [(pattern, block)]


@pytest.mark.parametrize("pattern", ["4:5", "13:16", "7:8"])
def test_patterns_that_leave_too_much(pattern: str) -> None:
    assert forms.patterns(ec.prune(rng.standard_normal((150, 130)).astype(f), pattern=pattern)) == []


def test_patterns_of_several_blocks() -> None:
    w = np.ones((32, 64), f)
    w[:16, 2::4] = w[:16, 3::4] = w[16:, ::4] = w[16:, 1::4] = 0  # 2:4 by 16 outputs; by 32 nothing
    assert forms.patterns(w) == [("2:4", 16)]
    w = np.zeros((32, 64), f)
    w[::2, ::4] = w[1::2, 1::4] = 1  # one of four, which two neighbours do not share
    assert forms.patterns(w) == [("1:4", 1)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (16, 5), (2, 100)])
def test_patterns_of_small_matrices(shape: tuple[int, int]) -> None:
    assert forms.patterns(np.ones(shape, f)) == []
    assert forms.patterns(np.zeros(shape, f)) == []
    one = np.zeros(shape, f)
    one[:, 0] = 1
    for pattern, block in forms.patterns(one):
        assert_bits(ec.to_nm(one, pattern, block).dequantize(), one)


def test_chance_is_no_pattern() -> None:
    assert forms.patterns(ec.prune(rng.standard_normal((256, 256)).astype(f), 0.5)) == []
    assert forms.patterns(ec.prune(rng.standard_normal((256, 256)).astype(f), 0.95)) == []


# ---- the choice


def test_dense_unless_another_is_faster_by_more_than_noise(clock: Clock) -> None:
    for csr, wanted in ((2.0, "DenseWeight32"), (1.0, "DenseWeight32"), (0.98, "DenseWeight32"), (0.96, "CSRWeight32")):
        clock.times = {"CSRWeight32": csr}
        assert kind(ec.best_format(SPARSE, cache=False)) == wanted
    assert len(clock.calls) == 4


@pytest.mark.parametrize("seed", range(20))
def test_never_slower_than_dense(seed: int, clock: Clock) -> None:
    random = np.random.default_rng(seed)
    clock.times = {name: float(random.uniform(0.5, 1.5)) for name in ("DenseWeight32", "Int8Weight8", "Int4Weight4", "CSRWeight32")}
    clock.times |= {name: float(random.uniform(0.5, 1.5)) for name in ("CSRWeight8", "NMWeight32", "NMWeight8")}
    got = kind(ec.best_format(TWO_OF_FOUR, max_error=1, cache=False))
    assert clock.times[got] <= clock.times["DenseWeight32"]
    assert clock.times[got] == min(clock.times.values()) or clock.times[got] <= 1.03 * min(clock.times.values())


def test_fastest_of_all(clock: Clock) -> None:
    for wanted in ("Int8Weight8", "Int4Weight4", "CSRWeight32", "CSRWeight8", "NMWeight32", "NMWeight8"):
        clock.times = {wanted: 0.5}
        best = ec.best_format(TWO_OF_FOUR, 128, max_error=0.5, cache=False)
        assert kind(best) == wanted
        np.testing.assert_allclose(best.dequantize(), TWO_OF_FOUR, atol=0.5)


def test_without_a_bound_values_stay(clock: Clock) -> None:
    clock.times = {"Int8Weight8": 0.1, "CSRWeight8": 0.1, "NMWeight8": 0.1, "NMWeight32": 0.9}
    best = ec.best_format(TWO_OF_FOUR, cache=False)
    assert kind(best) == "NMWeight32"
    assert_bits(best.dequantize(), TWO_OF_FOUR)


def test_bound(clock: Clock) -> None:
    """The error is that of linear's output; int8 has the same in every form."""
    clock.times = {"Int8Weight8": 0.5, "Int4Weight4": 0.3, "CSRWeight8": 0.4}
    x = rng.standard_normal((7, 64)).astype(f)
    found = ec.compare_formats(SPARSE, max_error=1, x=x, cache=False)
    error = {row.form: row.error for row in found.rows}
    y, wanted = ec.linear(x, ec.quantize(SPARSE)).astype(float), ec.linear(x, SPARSE).astype(float)
    assert error["int8"] == pytest.approx(np.linalg.norm(y - wanted) / np.linalg.norm(wanted))
    assert error["csr8"] == error["int8"] < error["int4"]
    assert_bits(ec.linear(x, ec.to_csr(SPARSE, 8)), ec.linear(x, ec.quantize(SPARSE)))
    assert error["float32"] == error["csr"] == 0
    bests = {error["int4"]: "int4", 0.99 * error["int4"]: "csr8", error["int8"]: "csr8", 0.99 * error["int8"]: "float32"}
    for bound, best in bests.items():
        assert ec.compare_formats(SPARSE, max_error=bound, x=x, cache=False).best == best
    assert ec.compare_formats(SPARSE, max_error=0, x=x, cache=False).best == "float32"
    refused = ec.compare_formats(SPARSE, max_error=error["int8"], x=x, cache=False)
    assert [(row.form, row.seconds) for row in refused.rows if row.seconds is None] == [("int4", None)]
    assert "more than max_error" in str(refused)


def test_outputs_that_overflow_bound_no_error(clock: Clock) -> None:
    clock.times["Int8Weight8"] = 0.1
    for bound in (0.1, 1e30):
        found = ec.compare_formats(np.ones((64, 64), f), max_error=bound, x=np.full((2, 64), 3e38, f), cache=False)
        assert found.best == "float32"
        assert {row.error for row in found.rows[1:]} == {np.inf}
    assert "more than max_error    error inf" in str(found)


def test_weights_that_quantize_without_loss(clock: Clock) -> None:
    """No 0/0: outputs that are all zero are right or infinitely wrong."""
    found = ec.compare_formats(np.zeros((8, 32), f), max_error=0, cache=False)
    assert {row.form: row.error for row in found.rows} == dict.fromkeys(("float32", "int8", "int4", "csr", "csr8"), 0.0)


def test_batch_and_threads(clock: Clock) -> None:
    ec.best_format(SPARSE, 3, threads=2)
    ec.best_format(SPARSE, 10_000, threads=1)
    with ec.threads(3):
        ec.best_format(SPARSE, np.int64(512))
    assert clock.calls == [(3, 2), (512, 1), (512, 3)]


# ---- what is remembered


def test_measures_once(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.times = {"CSRWeight32": 0.5}
    first = ec.compare_formats(SPARSE)
    for _ in range(2):
        again = ec.compare_formats(SPARSE)
        assert (again.rows, again.best, len(clock.calls)) == (first.rows, "csr", 1)
        monkeypatch.setattr(timing_cache, "_measured", {})  # another process
    assert json.loads((tmp_path / "edgecomp" / "best_format.json").read_text())
    assert [p.name for p in (tmp_path / "edgecomp").iterdir()] == ["best_format.json"]


def test_other_cases_are_measured(clock: Clock) -> None:
    calls = [
        lambda: ec.best_format(SPARSE),
        lambda: ec.best_format(SPARSE, 2),
        lambda: ec.best_format(SPARSE, threads=2 if ec.get_num_threads() == 1 else 1),
        lambda: ec.best_format(ec.prune(W, 0.8)),
        lambda: ec.best_format(SPARSE, max_error=1),  # forms that were not timed
        lambda: ec.best_format(TWO_OF_FOUR, max_error=1),
        lambda: ec.best_format(ec.prune(W, pattern="2:4"), max_error=1),  # the same density, another pattern
    ]
    for i, call in enumerate(calls):
        call(), call()
        assert len(clock.calls) == i + 1
    ec.best_format(SPARSE)  # of which more is known by now
    other = SPARSE.copy()
    other[other == 0] = np.where(np.arange(np.count_nonzero(other == 0)) < 3, f(1), f(0))  # density .102: as good as .100
    ec.best_format(other)
    assert len(clock.calls) == len(calls)


def test_another_backend_is_another_machine(clock: Clock, c: None) -> None:
    ec.best_format(SPARSE)
    ec.set_backend("c", isa="scalar")
    ec.best_format(SPARSE)
    assert len(clock.calls) == 2


def test_cache_false(clock: Clock, tmp_path: Path) -> None:
    ec.best_format(SPARSE, cache=False)
    assert list(tmp_path.iterdir()) == []
    ec.best_format(SPARSE)
    clock.times = {"CSRWeight32": 0.5}
    assert kind(ec.best_format(SPARSE, cache=False)) == "CSRWeight32"
    assert kind(ec.best_format(SPARSE)) == "DenseWeight32"


@pytest.mark.parametrize(
    "bad",
    [b"", b"not JSON", b"[]", b"null", b'{"a": 3}', b"\xff\xfe\x00", b"[" * 100_000]
    + [b'{"machine": %s}' % v for v in (b"3", b'{"case": 1}', b'{"case": []}', b'{"case": {"float32": 1.0}}')]
    + [b'{"machine": {"case": {"float32": %s, "csr": 1.0}}}' % v for v in (b'"fast"', b"-1.0", b"0.0", b"NaN", b"null", b"true", b"1e999")],
)
def test_a_bad_file_is_as_good_as_none(bad: bytes, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ec.best_format(SPARSE)
    file = tmp_path / "edgecomp" / "best_format.json"
    ((machine, cases),) = json.loads(file.read_text()).items()
    (case,) = cases
    file.write_bytes(bad.replace(b"machine", json.dumps(machine)[1:-1].encode()).replace(b"case", case.encode()))
    monkeypatch.setattr(timing_cache, "_measured", {})
    ec.best_format(SPARSE)
    assert len(clock.calls) == 2
    assert json.loads(file.read_text())[machine][case] == {"float32": 1.0, "csr": 1.0}


@pytest.mark.parametrize("what", ["a file", "no permission", "a folder", "no home"])
def test_nowhere_to_write(what: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once in this process all the same."""
    if what == "a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        (tmp_path / "file").touch()
    elif what == "no permission":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1")
    elif what == "a folder":
        (tmp_path / "edgecomp" / "best_format.json").mkdir(parents=True)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    ec.best_format(SPARSE)
    ec.best_format(SPARSE)
    assert len(clock.calls) == 1
    assert not any(p.is_file() and p.name != "file" for p in tmp_path.rglob("*"))


# ---- with the clock


@pytest.mark.parametrize("m", [1, 20])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (10, 64), (70, 33)])
def test_small_and_odd_shapes(shape: tuple[int, int], m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "COLD_BYTES", 100)
    monkeypatch.setattr(forms, "interleave", lambda c, *, slices, after_slice: timing.interleave(c, slices=2, seconds=1e-5))
    w = ec.prune(rng.standard_normal(shape).astype(f), pattern="1:4")
    w[0] = 0
    found = ec.compare_formats(w, m, max_error=0.5, cache=False)
    assert all((row.seconds is None) == (row.error > 0.5) for row in found.rows)
    seconds = {row.form: row.seconds for row in found.rows}
    assert seconds[found.best] <= seconds["float32"]
    x = rng.standard_normal((m, shape[1])).astype(f)
    np.testing.assert_allclose(ec.linear(x, found.weight), x @ w.T, atol=0.3 * np.abs(x @ w.T).max() + 1e-6)
    assert str(found).count("\n") == len(found.rows)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_empty_weights(shape: tuple[int, int]) -> None:
    found = ec.compare_formats(np.zeros(shape, f), 4, max_error=1)
    assert kind(found.weight) == "DenseWeight32"
    assert found.weight.shape == shape
    assert "not measured" in str(found)


def test_reference_is_not_measured(clock: Clock) -> None:
    ec.set_backend("reference")
    assert kind(ec.best_format(SPARSE, max_error=1)) == "DenseWeight32"
    assert clock.calls == []


def test_weights_with_float32_values(clock: Clock) -> None:
    clock.times = {"CSRWeight32": 0.5}
    for w in (ec.pack(SPARSE), ec.to_csr(SPARSE), SPARSE.astype(np.float64)):
        assert_bits(ec.best_format(w).dequantize(), SPARSE)
    with pytest.raises(TypeError, match=r"best_format: w is a Int8Weight of 8 bits, wanted float32 values: w\.dequantize\(\)"):
        ec.best_format(ec.quantize(W))


def test_refused() -> None:
    for batch in (0, -1, 1.5, True, "1", None):
        with pytest.raises(ValueError, match="best_format: batch is"):
            ec.best_format(W, batch)
    for bound in (-0.1, np.nan, True, "small", [1]):
        with pytest.raises(ValueError, match="compare_formats: max_error is"):
            ec.compare_formats(W, max_error=bound)
    for x in (np.ones((2, 63), f), np.ones((0, 64), f), f(1)):
        with pytest.raises(ValueError, match=r"best_format: x has shape"):
            ec.best_format(W, x=x)
    with pytest.raises(ValueError, match="best_format: x has NaN or Inf"):
        ec.best_format(W, x=np.full((2, 64), np.nan, f))
    with pytest.raises(TypeError, match="best_format: x has dtype int64"):
        ec.best_format(W, x=np.ones((2, 64), int))
    with pytest.raises(ValueError, match=r"best_format: w\[0, 0\] is nan"):
        ec.best_format(W * f(np.nan))
    with pytest.raises(ValueError, match=r"best_format: w has shape \(64,\)"):
        ec.best_format(W[0])
    with pytest.raises(TypeError, match="best_format: w has dtype int64"):
        ec.best_format(np.ones((2, 2), int))
    with pytest.raises(ValueError, match="best_format: threads is 0"):
        ec.best_format(W, threads=0)


def test_gain_is_what_the_docstring_says() -> None:
    assert format_choice.GAIN == 1.03
    assert "at least 3 % faster" in str(ec.best_format.__doc__)
