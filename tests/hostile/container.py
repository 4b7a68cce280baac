"""The ZIP file: truncated, lying, overlapping, compressed, encrypted, with names that climb."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from craft import Case, Member, archive, members_of, model

ARRAY = {"a": np.arange(100, dtype=np.float32), "b": np.ones(50, np.int8)}
A, B = r"member 'a@values\.npy': ", r"member 'b@values\.npy': "


def files() -> Iterator[Case]:
    good, manifest = members_of(ARRAY)
    whole = model(good, manifest)

    yield "empty", "has 0 bytes", b""
    yield "text", "no ZIP file", b"this is no ZIP file, it is a text of more than 22 bytes"
    yield "pickle", "no ZIP file", b"\x80\x04\x95" + bytes(100)
    yield "end record alone, 1000 members", r"0 bytes|directory", struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1000, 1000, 0, 0, 0)
    yield "no members", "no member edgecomp.json", archive([])
    for cut in sorted({*range(0, len(whole), 97), len(whole) - 1, len(whole) - 21, len(whole) - 22, len(whole) - 23}):
        yield f"cut at {cut}", "cut off|has .* bytes", whole[:cut]
    yield "bytes in front", "does not end at byte", b"#!/bin/sh\n" + whole
    yield "bytes behind", "no end record", whole + b"more"
    yield "comment that is too short", "no end record", archive(good, comment=b"abc")[:-1]

    def lie(**fields: object) -> bytes:
        return model([Member("a@values.npy", good[0].data, **fields), good[1]], manifest)

    n = len(good[0].data)
    yield "deflated", A + "is compressed", lie(local={"method": 8}, central={"method": 8})
    yield "deflated in the local header", A + "its local header and the directory differ", lie(local={"method": 8})
    yield "encrypted", A + "has flags", lie(local={"flags": 1}, central={"flags": 1})
    yield "data descriptor", A + "has flags", lie(local={"flags": 8}, central={"flags": 8})
    yield "size that lies", A + "its local header|reach beyond|overlaps", lie(central={"size": n + 64, "packed": n + 64})
    sizes = {"size": n + 64, "packed": n + 64}
    yield "size that reaches into the next", A + "overlaps|" + B + "overlaps", lie(central=sizes, local=sizes)
    yield "size beyond the file", A + ".* reach beyond", lie(central={"size": 0xFFFFFF00, "packed": 0xFFFFFF00})
    yield "size that was not packed", A + "has .* without compression", lie(central={"size": 4 * n})
    yield "offset beyond the file", A + ".* reach beyond", lie(central={"offset": 0xFFFFFF00})
    yield "offset amid data", "overlaps", lie(central={"offset": 64})
    yield "two members at one place", "overlaps", model([good[0], Member("b@values.npy", good[1].data, central={"offset": 0})], manifest)
    yield "local header of another name", A + "the local header .* has another name", lie(local={"name": b"c@values.npy"})
    yield "local header with a long name", A + "has no local header", lie(local={"n_name": 60000})
    yield "local header with a long extra field", A + "has no local header", lie(local={"n_extra": 0xFFFF})
    yield "extra field that moves the data", A + "overlaps", lie(local={"n_extra": 64})
    yield "CRC that differs in the local header", A + "its local header", lie(local={"crc": 1})
    yield "another disk", A + "begins on another disk", lie(central={"disk": 3})
    yield "several disks", "several disks", archive(good, disk=1)
    yield "fewer members than said", "3 members in a directory", archive(good, here=3, count=3)
    yield "more members than said", "bytes follow|does not end", archive(good, here=1, count=1)
    yield "65535 members said", "members in a directory", archive(good, here=65535, count=65535)
    yield "a directory that is shorter", "does not end|reaches beyond", archive(good, size=60)
    yield "a directory elsewhere", "does not end at byte", archive(good, start=0)
    yield "a directory beyond the file", "does not end at byte", archive(good, start=0xFFFFFFF0)
    yield "a name longer than the directory", "reaches beyond its end", lie(central={"n_name": 0xFFFF})
    yield "a comment longer than the directory", "no end record|reaches beyond", whole[:-2] + b"\xff\xff"

    for name in ("../evil.npy", "a/../../evil", "/etc/passwd", "a//b", "./a", "a\\b", "C:\\evil", "a\0b", "ä", "", "a b", "x\n"):
        yield f"name {name.encode().hex()}", "the name is empty, absolute", model([*good, Member(name, b"evil")], manifest)
    yield "one name twice", A + "comes twice", model([good[0], *good], manifest)
    yield "manifest twice", "'edgecomp.json': comes twice", archive([Member("edgecomp.json", b"{}"), Member("edgecomp.json", b"{}")])
    yield "65535 bytes of a name", "no member", archive([Member("n" * 65535, b"")])

    wide = 0xFFFFFFFF
    yield "ZIP64 size without its field", A + "its ZIP64 field is missing", lie(central={"size": wide, "packed": wide})
    short = struct.pack("<HHI", 1, 4, 7)
    yield "ZIP64 field too short", A + "its ZIP64 field is too short", lie(central={"size": wide, "packed": wide, "extra": short})
    cut = struct.pack("<HHQ", 1, 16, 7)
    yield "ZIP64 field cut off", A + "its ZIP64 field is missing", lie(central={"size": wide, "packed": wide, "extra": cut})
    huge = struct.pack("<HHQQ", 1, 16, 2**63, 2**63)
    yield "ZIP64 size of 2**63", A + ".* reach beyond", lie(central={"size": wide, "packed": wide, "extra": huge})
    over = struct.pack("<HHQQQ", 1, 24, n, n, 2**64 - 64)
    yield "ZIP64 offset that wraps", A + ".* reach beyond", lie(central={"size": wide, "packed": wide, "offset": wide, "extra": over})
    yield "ZIP64 in the local header only", A + "its local header|local header: its ZIP64", lie(local={"size": wide, "packed": wide})
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
    yield "ZIP64 locator to nowhere", "ZIP64 record", archive(good, zip64=locator)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 2**50, 0)
    at = len(archive(good)) - 22
    both = record + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    yield "ZIP64 directory of 2**50 bytes", "does not end at byte", archive(good, zip64=both)
    both = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 2**63, 45, 45, 0, 0, 2, 2, 0, 0) + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    yield "ZIP64 record of 2**63 bytes", "ZIP64 record is malformed", archive(good, zip64=both)

    def deflated(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("a@values.npy", bytes(1 << 20))

    def savez(path: Path) -> None:
        np.savez(path, a=np.ones(3))

    yield "a ZIP bomb", A + "is compressed", deflated
    yield "an .npz that is no model", "no member edgecomp.json", savez
    yield "many members", "no member edgecomp.json", archive([Member(f"m{i}", b"") for i in range(60000)])
    comment = b"PK\5\6" * 16000
    yield "end records in the comment", "no end record|no member|several", archive(good, comment=comment)[: -len(comment)] + comment
