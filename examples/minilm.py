"""A sentence encoder, all-MiniLM-L6-v2, on edgecomp: six transformer layers whose weights are any of FORMS.

    pip install ".[examples]"
    python examples/minilm.py "A cat sits on the mat." "The kitten rests." "Stocks fell."
    python examples/minilm.py --evaluate           # against people's judgement, and against float32
    python examples/minilm.py --evaluate --weights csr --sparsity 0.5
    python examples/minilm.py --bench --threads 2  # against NumPy and, where installed, onnxruntime; --evaluate adds what it costs

    python examples/minilm.py --weights int4 --save minilm.npz && python examples/minilm.py --model minilm.npz "A cat." "A kitten."

The model is downloaded once by examples/fetch.py, or given: --model DIR, with model.safetensors and tokenizer.json; or a model file that
--save has written: it is mapped, and the kernels read it where it is.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import fetch
import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp.measure import report

Float32 = npt.NDArray[np.float32]

SPARSITY = 0.9  # of csr and csr8


def csr(w: Float32, bits: int | None = None, sparsity: float = SPARSITY) -> ec.CSRWeight:
    """The largest weights, wherever they are; pruned at once, without the training that would repair it."""
    return ec.to_csr(ec.prune(w, sparsity), bits)


def nm(w: Float32, block: int = 1, bits: int | None = None) -> ec.NMWeight:
    """The two largest of every four; the same two for a block of outputs."""
    return ec.to_nm(ec.prune(w, pattern="2:4", block=block), "2:4", block, bits)


FORMS: dict[str, Callable[..., Any]] = {  # what a float32 matrix [N, K] becomes
    "numpy": np.ascontiguousarray,  # NumPy's matmul: the baseline
    "float32": ec.pack,
    "int8": functools.partial(ec.quantize, bits=8),
    "int4": functools.partial(ec.quantize, bits=4, group_size=32, method="mse"),
    "csr": csr,
    "csr8": functools.partial(csr, bits=8),
    "nm": nm,
    "nm8": functools.partial(nm, bits=8),
    "nm16": functools.partial(nm, block=16),
}
LAYERS, HEADS, MOST_TOKENS = 6, 12, 256
TOGETHER = 1024  # tokens that go through the layers at once


class Layer(NamedTuple):
    """A transformer layer. q, k and v are one matrix: x is read, and for int8 quantised, once for all three."""

    qkv: tuple[Any, Float32]  # weight and bias
    out: tuple[Any, Float32]
    norm: tuple[Float32, Float32]
    up: tuple[Any, Float32]
    down: tuple[Any, Float32]
    norm2: tuple[Float32, Float32]


class Encoder:
    """Sentences to unit vectors of 384 float32. Sentences do not influence each other: there is no padding."""

    def __init__(self, folder: Path, weights: str = "int8", threads: int | None = None, sparsity: float = SPARSITY) -> None:
        from safetensors.numpy import load_file
        from threadpoolctl import ThreadpoolController
        from tokenizers import Tokenizer

        try:
            saved = ec.load(folder) if folder.is_file() else None
            self.tokenizer = Tokenizer.from_str(saved.metadata["tokenizer"] if saved else (folder / "tokenizer.json").read_text("utf-8"))
            t = saved or load_file(folder / "model.safetensors")
        except Exception as error:  # of classes that the two packages do not name
            raise fetch.Unavailable(f"cannot read the model in {folder}: {error}") from None
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)
        self.form = saved.metadata["weights"] if saved else weights
        self.threads = threads or ec.get_num_threads()
        self.blas_threads = self.threads if self.form == "numpy" else 1  # an idle thread of OpenBLAS spins, in the way of others
        self.scores = np.empty((0, 0, 0, 0), np.float32)  # of the last sentence, for the next
        self.blas = ThreadpoolController()
        self.helpers = ThreadPoolExecutor(max(1, self.threads - 1))
        if saved:
            self.words, self.places, self.norm = t["words"], t["places"], (t["norm.weight"], t["norm.bias"])
            self.layers = [Layer(*((t[f"{i}.{name}.weight"], t[f"{i}.{name}.bias"]) for name in Layer._fields)) for i in range(LAYERS)]
            return
        self.words = t["embeddings.word_embeddings.weight"]
        self.places = t["embeddings.position_embeddings.weight"] + t["embeddings.token_type_embeddings.weight"][0]
        self.norm = t["embeddings.LayerNorm.weight"], t["embeddings.LayerNorm.bias"]
        form = functools.partial(FORMS[weights], sparsity=sparsity) if weights in ("csr", "csr8") else FORMS[weights]
        self.layers = [self._layer(t, f"encoder.layer.{i}.", form) for i in range(LAYERS)]

    @staticmethod
    def _layer(t: dict[str, Float32], at: str, form: Callable[[Float32], Any]) -> Layer:
        def pair(name: str) -> tuple[Float32, Float32]:
            return t[f"{at}{name}.weight"], t[f"{at}{name}.bias"]

        (q, q_bias), (k, k_bias), (v, v_bias) = (pair(f"attention.self.{name}") for name in ("query", "key", "value"))
        scale = np.float32((q.shape[1] // HEADS) ** -0.5)  # of the scores, here once
        qkv = np.concatenate([q * scale, k, v]), np.concatenate([q_bias * scale, k_bias, v_bias])
        matrices = [qkv, *(pair(name) for name in ("attention.output.dense", "intermediate.dense", "output.dense"))]
        qkv, out, up, down = ((form(w), bias) for w, bias in matrices)
        return Layer(qkv, out, pair("attention.output.LayerNorm"), up, down, pair("output.LayerNorm"))

    def save(self, path: Path) -> None:
        """Writes a model file, tokenizer included."""
        pairs = {"norm": self.norm} | {f"{i}.{name}": pair for i, layer in enumerate(self.layers) for name, pair in layer._asdict().items()}
        tensors = {f"{name}.{part}": a for name, pair in pairs.items() for part, a in zip(("weight", "bias"), pair, strict=True)}
        metadata = {"weights": self.form, "tokenizer": self.tokenizer.to_str()}
        ec.save(path, {"words": self.words, "places": self.places, **tensors}, metadata)

    def embed(self, texts: Sequence[str]) -> Float32:
        """Unit vectors, one row a text."""
        return self.embed_ids([e.ids for e in self.tokenizer.encode_batch(list(texts))])

    def embed_ids(self, sentences: Sequence[Sequence[int]]) -> Float32:
        """The same from tokens' numbers."""
        vectors = np.empty((len(sentences), self.words.shape[1]), np.float32)
        with ec.threads(self.threads), self.blas.limit(limits=self.blas_threads, user_api="blas"):
            for first, last in _batches([len(ids) for ids in sentences]):
                self._forward(sentences[first:last], vectors[first:last])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _forward(self, sentences: Sequence[Sequence[int]], vectors: Float32) -> None:
        ends = np.cumsum([len(ids) for ids in sentences])
        parts = [slice(end - len(ids), end) for ids, end in zip(sentences, ends, strict=True)]
        x = self.words[np.concatenate(sentences)]
        for part in parts:
            x[part] += self.places[: part.stop - part.start]
        layer_norm(x, *self.norm)
        # Written again by every layer: fresh arrays would cost page faults.
        qkv, mixed, y, up = (np.empty((len(x), n * x.shape[1]), np.float32) for n in (3, 1, 1, 4))
        for layer in self.layers:
            self._linear(x, *layer.qkv, out=qkv)
            for part in parts:
                self._attend(qkv[part], mixed[part])
            x += self._linear(mixed, *layer.out, out=y)
            layer_norm(x, *layer.norm)
            self._linear(x, *layer.up, out=up, activation="gelu")
            x += self._linear(up, *layer.down, out=y)
            layer_norm(x, *layer.norm2)
        for part, vector in zip(parts, vectors, strict=True):
            x[part].mean(axis=0, out=vector)

    def _linear(self, x: Float32, w: Any, bias: Float32, out: Float32, activation: str | None = None) -> Float32:
        if not isinstance(w, np.ndarray):
            return ec.linear(x, w, bias, activation=activation, out=out)
        np.matmul(x, w.T, out=out)
        out += bias
        if activation:
            self._share(lambda rows, _: gelu(out[rows]), len(out), step=32)
        return out

    def _attend(self, qkv: Float32, mixed: Float32) -> None:
        """softmax(q k') v of one sentence, head by head: the scores of a few heads stay in the cache."""
        tokens, width = mixed.shape
        q, k, v = qkv.reshape(tokens, 3, HEADS, width // HEADS).transpose(1, 2, 0, 3)  # views [head, token, feature]
        y = mixed.reshape(tokens, HEADS, width // HEADS).transpose(1, 0, 2)

        ones = np.ones((tokens, 1), np.float32)
        step = max(1, min(HEADS, 65536 // tokens**2))
        if self.scores.shape[1:] != (step, tokens, tokens):
            self.scores = np.empty((self.threads, step, tokens, tokens), np.float32)

        def some(h: slice, thread: int) -> None:
            scores = np.matmul(q[h], k[h].transpose(0, 2, 1), out=self.scores[thread, : h.stop - h.start])
            scores -= scores.max(axis=2, keepdims=True)
            np.exp(scores, out=scores)
            np.matmul(scores, v[h], out=y[h])
            y[h] /= scores @ ones  # sums: four times as fast as .sum()

        self._share(some, HEADS, step)

    def _share(self, work: Callable[[slice, int], None], count: int, step: int) -> None:
        """work(slice, thread) over range(count) in steps, by all threads if there are steps enough."""
        steps = [slice(i, min(i + step, count)) for i in range(0, count, step)]
        shares = [steps[i :: self.threads] for i in range(min(self.threads, len(steps)))]

        def several(thread: int) -> None:
            for part in shares[thread]:
                work(part, thread)

        helped = [self.helpers.submit(several, thread) for thread in range(1, len(shares))]
        several(0)
        for future in helped:
            future.result()


def _batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of sentences with about TOGETHER tokens."""
    first = tokens = 0
    for i, n in enumerate(lengths):
        if tokens and tokens + n > TOGETHER:
            yield first, i
            first, tokens = i, 0
        tokens += n
    if lengths:
        yield first, len(lengths)


def layer_norm(x: Float32, weight: Float32, bias: Float32) -> None:
    """In place, row by row."""
    x -= x.mean(axis=1, keepdims=True)
    spread = np.einsum("ij,ij->i", x, x)
    spread /= x.shape[1]
    spread += np.float32(1e-12)
    x /= np.sqrt(spread, out=spread)[:, None]
    x *= weight
    x += bias


def gelu(x: Float32) -> None:
    """In place, relu(x) - |x|/2 erfc(|x| / sqrt 2): Abramowitz and Stegun 7.1.26, off by 4e-7. Three times as fast as scipy's erf."""
    size = np.abs(x)
    t = size * np.float32(0.3275911 * 0.5**0.5)
    t += 1
    np.reciprocal(t, out=t)
    tail = t * np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(c)
        tail *= t
    tail *= size
    np.multiply(size, size, out=t)
    t *= np.float32(-0.5)
    tail *= np.exp(t, out=t)
    tail *= np.float32(0.5)
    np.maximum(x, 0, out=x)
    x -= tail


def evaluate(encoder: Encoder, reference: Encoder) -> dict[str, float]:
    """Correlation with people's judgement of the 1225 pairs of 50 news items; cosines to the reference's vectors."""
    folder = fetch.fetch(fetch.LEE)
    texts = (folder / "lee.cor").read_text("latin-1").splitlines()
    pairs = np.triu_indices(len(texts), 1)
    people = np.loadtxt(folder / "similarities0-1.txt")[pairs]
    vectors, wanted = encoder.embed(texts), reference.embed(texts)
    cosines = (vectors * wanted).sum(axis=1)
    pearson = [float(np.corrcoef((v @ v.T)[pairs], people)[0, 1]) for v in (vectors, wanted)]
    names = "pearson", "float32_pearson", "mean_cosine", "least_cosine"
    return dict(zip(names, [*pearson, float(cosines.mean()), float(cosines.min())], strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Sentence vectors by all-MiniLM-L6-v2 on edgecomp.")
    parser.add_argument("text", nargs="*", help="sentences to compare")
    parser.add_argument("--weights", choices=FORMS, default="int8", help="form of the weights (int8)")
    parser.add_argument("--sparsity", type=float, default=SPARSITY, help=f"share of zeros of csr and csr8 ({SPARSITY})")
    parser.add_argument("--model", type=Path, metavar="DIR", help="folder with model.safetensors and tokenizer.json, or a file of --save")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a model file of edgecomp, with the weights in their form")
    parser.add_argument("--threads", type=int, default=ec.get_num_threads(), help="1..1024 (what edgecomp uses by default)")
    parser.add_argument("--evaluate", action="store_true", help="correlation with people's judgement, cosine to float32")
    parser.add_argument("--bench", action="store_true", help="time a sentence in all forms, and in onnxruntime")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args(argv)
    if not (given.text or given.evaluate or given.bench or given.save):
        parser.error("give sentences, --evaluate, --bench or --save")
    if not 1 <= given.threads <= 1024:
        parser.error(f"--threads is {given.threads}, wanted 1..1024")
    if not 0 <= given.sparsity <= 1:
        parser.error(f"--sparsity is {given.sparsity}, wanted 0..1")
    try:
        document = run(given)
    except fetch.Unavailable as error:
        sys.exit(f"minilm: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f'minilm: {error.name} is not installed: pip install ".[examples]"')
    if given.json:
        print(json.dumps(document, indent=2))


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Does and shows what the command line asks for."""
    folder, table = model(given.model), report.print_table
    if given.json:
        table = lambda *_: None  # noqa: E731
    encoder = Encoder(folder, given.weights, given.threads, given.sparsity)
    if given.save:
        encoder.save(given.save)
    if folder.is_file() and (given.evaluate or given.bench):  # other forms come from the model itself
        folder = model(None)
    document: dict[str, Any] = {"weights": encoder.form, "threads": given.threads}
    if given.text:
        similarity = (vectors := encoder.embed(given.text)) @ vectors.T
        document["similarity"] = similarity.tolist()
        rows = [[str(i), text[:60], *(f"{s:.3f}" for s in row)] for i, text, row in zip(count(1), given.text, similarity, strict=False)]
        table(f"Cosine similarity, {encoder.form} weights", ["", "text", *(row[0] for row in rows)], rows)
    reference = Encoder(folder, "float32", given.threads) if given.evaluate else encoder
    if given.evaluate:
        found = document["evaluation"] = evaluate(encoder, reference)
        rows = [[name.replace("_", " "), f"{value:.4f}"] for name, value in found.items()]
        table(f"50 news items, {encoder.form} weights", ["", ""], rows)
    if given.bench:
        import minilm_bench

        times = document["seconds"] = minilm_bench.bench(folder, given.threads, given.sparsity)
        rows = [[name, *(f"{1e3 * t:.2f} ms ({times['numpy'][n] / t:.2f}x)" for n, t in of.items())] for name, of in times.items()]
        header = ["engine", *(f"{n} tokens" for n in times["numpy"])]
        if given.evaluate:  # of every form, beside its speed
            encoders = {form: Encoder(folder, form, given.threads, given.sparsity) for form in FORMS}
            costs = document["accuracy"] = {form: evaluate(encoder, reference) for form, encoder in encoders.items()}
            shown = {form: [f"{cost['mean_cosine']:.3f}", f"{cost['pearson']:.3f}"] for form, cost in costs.items()}
            header, rows = [*header, "cosine", "Pearson"], [[*row, *shown.get(row[0], ["-", "-"])] for row in rows]
        table(f"One sentence, --threads {given.threads}", header, rows)
    return document


def model(given: Path | None) -> Path:
    """The folder of the model: the given one, or the downloaded one."""
    if given is None:
        try:
            return fetch.fetch(fetch.MINILM)
        except fetch.Unavailable as error:
            advice = f"Run `python examples/fetch.py` where there is a network, or give the files: {MODEL}"
            raise fetch.Unavailable(f"{error}\n{advice}") from None
    if given.is_file():
        return given
    if missing := [name for name in fetch.MINILM.files if not (given / name).is_file()]:
        raise fetch.Unavailable(f"{given} has no {' and no '.join(missing)}; wanted {MODEL}")
    return given


MODEL = f"--model DIR, a folder with {' and '.join(fetch.MINILM.files)}"

if __name__ == "__main__":
    main()
