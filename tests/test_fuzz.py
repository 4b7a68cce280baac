"""The fuzz corpus without the fuzzer: what it has found once stays mended. fuzz/fuzz.py looks for more."""

import importlib.util
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
CORPUS = sorted((FUZZ / "corpus").iterdir())


@pytest.fixture(scope="module")
def files() -> object:
    for parser in ("gguf", "safetensors", "onnx"):
        pytest.importorskip(parser)
    spec = importlib.util.spec_from_file_location("fuzz_files", FUZZ / "files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path, files: object) -> None:
    assert files.check(path.read_bytes()) == (not path.name.startswith("bad-"))


def test_cut_and_flipped(files: object) -> None:
    for path in CORPUS:
        data = path.read_bytes()
        for at in range(0, len(data), 1 + len(data) // 16):
            files.check(data[:at])
            files.check(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
