"""Archives byte by byte, with any field other than it should be."""

import importlib
import io
import json
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import models  # noqa: E402

import edgecomp as ec  # noqa: E402

SCRIPTS = ("container", "manifest", "headers", "values")
File = bytes | Callable[[Path], None]
Case = tuple[str, str, File]


@dataclass
class Member:
    """A stored member. `local` and `central` override fields of the headers: name, needs, flags, method, crc, packed, size, offset, extra,
    disk, comment."""

    name: str
    data: bytes
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)


def archive(members: list[Member], *, gap: int = 0, **end: object) -> bytes:
    """The members as a ZIP file. `end` overrides fields of the end record: disk, here, count, size, start, comment; and what is before it,
    zip64."""
    out, directory = bytearray(), bytearray()
    for m in members:
        offset = len(out)
        told = {"name": m.name.encode(), "needs": 20, "flags": 0, "method": 0, "crc": zlib.crc32(m.data), "packed": len(m.data)}
        told |= {"size": len(m.data), "offset": offset, "extra": b"", "disk": 0, "comment": b""}
        a, b = told | m.local, told | m.central
        sizes = a["crc"], a["packed"], a["size"], a.get("n_name", len(a["name"])), a.get("n_extra", len(a["extra"]))
        out += struct.pack("<4s5H3I2H", b"PK\3\4", a["needs"], a["flags"], a["method"], 0, 33, *sizes) + a["name"] + a["extra"] + m.data
        sizes = b["crc"], b["packed"], b["size"], b.get("n_name", len(b["name"])), b.get("n_extra", len(b["extra"])), len(b["comment"])
        fixed = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, b["needs"], b["flags"], b["method"], 0, 33, *sizes, b["disk"], 0, 0, b["offset"])
        directory += fixed + b["name"] + b["extra"] + b["comment"]
    out += bytes(gap)
    e = {"disk": 0, "here": len(members), "count": len(members), "size": len(directory), "start": len(out), "comment": b""} | end
    last = struct.pack("<4s4H2IH", b"PK\5\6", e["disk"], e["disk"], e["here"], e["count"], e["size"], e["start"], len(e["comment"]))
    return bytes(out + directory) + e.get("zip64", b"") + last + e["comment"]


def members_of(tensors: dict[str, object]) -> tuple[list[Member], dict]:
    """The members of a good model file, without its manifest, and the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        ec.save(path, tensors)
        with zipfile.ZipFile(path) as z:
            made = [Member(i.filename, z.read(i)) for i in z.infolist()]
    return made[:-1], json.loads(made[-1].data)


def model(members: list[Member], manifest: object) -> bytes:
    """A file of these members and this manifest (text, or what becomes JSON)."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return archive([*members, Member("edgecomp.json", text)])


def npy(a: np.ndarray) -> bytes:
    """An array as NumPy writes it."""
    out = io.BytesIO()
    np.save(out, a)
    return out.getvalue()


def small() -> dict[str, object]:
    """A model of every kind, as small as may be."""
    kinds = models.weights(2, 20)
    return {**{kind: next(iter(made.values())) for kind, made in kinds.items()}, "array": np.arange(3.0)}


def cases() -> Iterator[tuple[str, str, File]]:
    """All of them: script/what, rule, file."""
    for script in SCRIPTS:
        for what, rule, made in importlib.import_module(script).files():
            yield f"{script}/{what}", rule, made


def write(made: File, path: Path) -> None:
    """Puts a case on the disk."""
    if callable(made):
        made(path)
    else:
        path.write_bytes(made)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for what, rule, made in cases():
        path = folder / (what.replace("/", "-").replace(" ", "_") + ".npz")
        write(made, path)
        print(f"{path}: {rule}")
