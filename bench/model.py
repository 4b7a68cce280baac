"""The model file: opening, verifying and saving, beside NumPy, safetensors and GGUF.

    python bench/model.py [FOLDER]
    python bench/model.py --examples [FOLDER]       # opening the weights of examples/minilm.py and examples/smollm.py

FOLDER takes files of 3 GB for a minute; what is measured is the page cache above it. Nothing is synced to the disk, on either side.
"""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors
import safetensors.numpy

import edgecomp as ec
from edgecomp.crc import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import fetch

N = 4096
INT8, INT4 = 30, 56
"""Tensors of N x N: 1 GiB together."""
X, Y = np.ones((1, N), np.float32), np.empty((1, N), np.float32)


def resident() -> float:
    """MB of this process."""
    with open("/proc/self/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Rss")) * 1024 / 1e6


def median(call: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        kept = call()
        taken.append(time.perf_counter() - start)
        del kept
    return float(np.median(taken))


def write_models(folder: Path) -> None:
    """The same bytes, as near as each format comes to it."""
    rng = np.random.default_rng(0)
    w8 = ec.Int8Weight.from_arrays(rng.integers(-127, 128, (N, N), dtype=np.int8), np.ones(N, np.float32))
    w4 = ec.Int4Weight.from_arrays(rng.integers(-8, 8, (N, N), dtype=np.int8), np.ones((N, N // 32), np.float16))
    made = {f"layer{i}.int8": w8 for i in range(INT8)} | {f"layer{i}.int4": w4 for i in range(INT4)}
    ec.save(folder / "m.npz", made)
    arrays = {f"{name}.{part}": a.view(np.uint8).reshape(-1) for name, w in made.items() for part, a in w.arrays().items()}
    safetensors.numpy.save_file(arrays, folder / "m.safetensors")
    writer = gguf.GGUFWriter(str(folder / "m.gguf"), "llama")
    for name, a in arrays.items():
        writer.add_tensor(name, a.view(np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def open_model(folder: Path) -> Any:
    return ec.load(folder / "m.npz")


def open_safetensors(folder: Path) -> Any:
    return safetensors.safe_open(folder / "m.safetensors", framework="numpy")


def load_safetensors(folder: Path) -> Any:
    return safetensors.numpy.load_file(folder / "m.safetensors")


def open_gguf(folder: Path) -> Any:
    return gguf.GGUFReader(str(folder / "m.gguf"))


def take_all(path: Path) -> Any:
    """What an example does: every tensor taken, its values checked."""
    model = ec.load(path)
    return model, [model[name] for name in model]


def example(source: fetch.Source, suffix: str) -> str:
    """The downloaded file."""
    return str(next(path for path in fetch.fetch(source).iterdir() if path.name.endswith(suffix)))


OPENERS: dict[str, Callable[[Path], Any]] = {
    "edgecomp.load": open_model,
    "safetensors.safe_open": open_safetensors,
    "safetensors.numpy.load_file": load_safetensors,
    "gguf.GGUFReader": open_gguf,
}
EXAMPLES: dict[str, Callable[[Path], Any]] = {
    "MiniLM, int8: `edgecomp.load`": lambda folder: ec.load(folder / "minilm.npz"),
    "every tensor taken": lambda folder: take_all(folder / "minilm.npz"),
    "MiniLM, float32: `safetensors.numpy.load_file`": lambda _: safetensors.numpy.load_file(example(fetch.MINILM, ".safetensors")),
    "SmolLM2: `edgecomp.load`": lambda folder: ec.load(folder / "smollm.npz"),
    "every tensor of it taken": lambda folder: take_all(folder / "smollm.npz"),
    "SmolLM2, GGUF: `edgecomp.import_weights`": lambda _: ec.import_weights(example(fetch.SMOLLM, ".gguf")),
    "SmolLM2, GGUF: `gguf.GGUFReader`": lambda _: gguf.GGUFReader(example(fetch.SMOLLM, ".gguf")),
    "SmolLM2, float32: `safetensors.numpy.load_file`": lambda folder: safetensors.numpy.load_file(folder / "smollm.safetensors"),
}


def write_examples(folder: Path) -> None:
    import minilm
    import smollm

    minilm.Encoder(fetch.fetch(fetch.MINILM)).save(folder / "minilm.npz")
    _, tensors = smollm.read_model(Path(example(fetch.SMOLLM, ".gguf")))
    smollm.load(Path(example(fetch.SMOLLM, ".gguf")), save=folder / "smollm.npz")
    plain = {name: w if isinstance(w, np.ndarray) else w.dequantize() for name, w in tensors.items()}
    safetensors.numpy.save_file(plain, folder / "smollm.safetensors")


def opening(name: str, folder: Path) -> None:
    """A line of the table, in a process of its own."""
    ec.save(folder / "small.npz", {"w": ec.quantize(np.eye(16, dtype=np.float32))})
    ec.load(folder / "small.npz")  # what is imported by the first call
    ec.linear(X, np.ones((N, N), np.float32), out=Y)
    ec.info()
    gc.collect()
    before = resident()
    opener, start = {**OPENERS, **EXAMPLES}[name], time.perf_counter()
    opened = opener(folder)
    slow = time.perf_counter() - start > 0.3
    grown = resident() - before
    more = ""
    if name == "edgecomp.load":
        ec.linear(X, opened["layer3.int8"], out=Y)
        more = f"{resident() - before:.1f} after a linear of {opened['layer3.int8'].nbytes / 1e6:.1f} MB"
    del opened
    seconds = median(lambda: opener(folder), 3 if slow else 15)
    print(f"| {name} | {seconds * 1e3:.2f} ms | {grown:.1f} MB | {more} |")


def table(openers: Mapping[str, Any], folder: Path) -> None:
    print("| opening | time | resident | |\n| --- | --- | --- | --- |", flush=True)
    for name in openers:
        subprocess.run([sys.executable, __file__, str(folder), "--open", name], check=True)


def verifying(path: Path) -> None:
    """GB/s of CRC-32 and of full verification, the file in the page cache."""
    size = path.stat().st_size

    def of_map(crc: Callable[[Any], int]) -> None:
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
            crc(m)

    memory = np.fromfile(path, np.uint8, 256 << 20)
    print("\n| what | GB/s |\n| --- | --- |")
    for what, call, of in (
        ("zlib.crc32, in memory", lambda: zlib.crc32(memory), memory.nbytes),
        ("ec_crc32, in memory", lambda: crc32(memory), memory.nbytes),
        ("zlib.crc32, of the map", lambda: of_map(zlib.crc32), size),
        ("ec_crc32, of the map", lambda: of_map(crc32), size),
    ):
        print(f"| {what} | {of / median(call, 5) / 1e9:.2f} |")
    for threads in (1, 2):
        with ec.threads(threads):
            print(f"| load(verify='full'), {threads} threads | {size / median(lambda: ec.load(path, verify='full'), 5) / 1e9:.2f} |")


def saving(folder: Path) -> None:
    """np.save and edgecomp.save of the same arrays in turn, into new files."""
    os.fsync = lambda fd: None  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, 16 << 20, dtype=np.uint8) for _ in range(16)]
    taken: dict[str, list[float]] = {}

    def timed(what: str, path: Path, call: Callable[[], None]) -> None:
        start = time.perf_counter()
        call()
        taken.setdefault(what, []).append(time.perf_counter() - start)
        path.unlink()

    def by_numpy() -> None:
        with (folder / "s.npy").open("wb") as f:
            for a in arrays:
                np.save(f, a)

    for _ in range(7):
        timed("np.save", folder / "s.npy", by_numpy)
        for threads in (1, 2):
            with ec.threads(threads):
                named = {str(i): a for i, a in enumerate(arrays)}
                timed(f"edgecomp.save, {threads} threads", folder / "s.npz", lambda m=named: ec.save(folder / "s.npz", m))  # type: ignore[misc]
    total = sum(a.nbytes for a in arrays)
    print("\n| what | GB/s | of np.save |\n| --- | --- | --- |")
    for what, seconds in taken.items():
        share = np.median(taken["np.save"]) / np.median(seconds)
        print(f"| {what} | {total / np.median(seconds) / 1e9:.2f} | {100 * share:.0f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description="The model file beside others.")
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="for files of 3 GB")
    parser.add_argument("--examples", action="store_true", help="open the weights of the examples")
    parser.add_argument("--open", help=argparse.SUPPRESS)  # a line of a table
    given = parser.parse_args()
    if given.open:
        opening(given.open, Path(given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        if given.examples:
            write_examples(folder)
            table(EXAMPLES, folder)
            return
        write_models(folder)
        with ec.load(folder / "m.npz") as model:
            size, nbytes = (folder / "m.npz").stat().st_size, model.nbytes
            print(f"{len(model)} tensors, {nbytes} bytes, the file {100 * (size / nbytes - 1):.4f} % more\n")
        table(OPENERS, folder)
        verifying(folder / "m.npz")
        saving(folder)


if __name__ == "__main__":
    main()
