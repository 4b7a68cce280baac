"""The manifest: missing, no JSON, huge, deep, with keys that are wrong, and parts that are not there."""

import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from craft import Case, Member, archive, members_of, model, small

WHERE = r"edgecomp\.json: "


def tensor(kind: str) -> str:
    return f"tensor '{kind}': "


def files() -> Iterator[Case]:
    members, good = members_of(small())

    yield "missing", "has no member edgecomp.json", archive(members)
    for what, rule, text in [
        ("empty", "is not JSON", b""),
        ("cut off", "is not JSON", json.dumps(good).encode()[:-9]),
        ("not UTF-8", "is not UTF-8 at byte 2", b'{"\xff": 1}'),
        ("UTF-16", "is not", json.dumps(good).encode("utf-16")),
        ("a pickle", "is not UTF-8", b"\x80\x04]\x94."),
        ("a list", "is no JSON object", b"[]"),
        ("a number", "is no JSON object", b"1"),
        ("another format", "is no JSON object with", b'{"format": "other"}'),
        ("NaN", "has NaN", b'{"format": NaN}'),
        ("a number beyond float64", "has 1e999", b'{"format": 1e999}'),
        ("deep lists", "is nested too deeply", b"[" * 1_000_000),
        ("deep objects", "is nested too deeply", b'{"a":' * 1_000_000),
        ("a number of a million digits", "has a number of 1000000 digits", b"1" * 1_000_000),
        ("one key twice", "has the key 'format' twice", b'{"format": "edgecomp", "format": "edgecomp"}'),
        ("half a surrogate pair", "no Unicode", model_text(good, {"\ud800": good["tensors"]["array"]})),
    ]:
        yield what, "edgecomp.json|tensor" if what.startswith("half") else WHERE + rule, model(members, text)

    def zeros(path: Path) -> None:
        """A manifest of 1 GB, of which the disk holds nothing."""
        size = 1 << 30
        local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, size, size, 13, 0) + b"edgecomp.json"
        central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, size, size, 13, 0, 0, 0, 0, 0, 0) + b"edgecomp.json"
        with path.open("wb") as f:
            f.write(local)
            f.seek(size, 1)
            f.write(central + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), size + len(local), 0))

    yield "1 GB", WHERE + "has 1073741824 bytes, at most", zeros

    def top(**keys: object) -> bytes:
        return model(members, {**good, **keys})

    for version in ("1.0", [1], [1, 0, 0], [1, -1], [1, 0.5], [True, 0], [0, 1], None, {}):
        yield f"version {json.dumps(version)}", WHERE + "version is", top(version=version)
    yield "version 2.0", "version 2.0.*upgrade", top(version=[2, 0])
    yield "version 10**90", "version 1000.*upgrade", top(version=[10**90, 0])
    yield "required", "requires 'quantum'", top(requires=["quantum"])
    yield "required is no list", "requires", top(requires={"a": 1})
    for tensors in ([], None, "all", 3):
        yield f"tensors {json.dumps(tensors)}", WHERE + "tensors or metadata is no JSON object", top(tensors=tensors)
    yield "metadata is a list", WHERE + "tensors or metadata", top(metadata=[])
    yield "an empty name", "tensor '': the name is empty", top(tensors={"": good["tensors"]["array"]})
    yield "a name of a million characters", "tensor 'nnn.*at most 4096", top(tensors={"n" * 1_000_000: good["tensors"]["array"]})
    for entry in (None, [], "int8", {}, {"kind": "int8"}, {"kind": 8, "parts": {}}, {"kind": "int8", "parts": []}):
        yield f"entry {json.dumps(entry)}", "tensor 't': wanted an object with kind, shape and parts", top(tensors={"t": entry})

    def change(name: str, **keys: object) -> bytes:
        changed = copy.deepcopy(good)
        changed["tensors"][name].update(keys)
        return model(members, changed)

    yield "unknown kind", tensor("int8") + "kind is 'int7'", change("int8", kind="int7")
    yield "a kind of a million characters", tensor("int8") + "kind is 'kkk", change("int8", kind="k" * 1_000_000)
    yield "a kind that has other parts", tensor("int8") + "group_size|has the parts", change("int8", kind="int4")
    for shape in (None, 3, [2], [2, 20, 1], [2, -20], [2, 20.0], [True, 20], ["2", 20], [2**31, 20], [2**64, 2**64], [[2], 20]):
        yield f"int8 shape {json.dumps(shape)}", tensor("int8") + "shape", change("int8", shape=shape)
    for kind in ("dense", "int8", "int4", "int8_grouped", "csr", "csr_int8", "nm", "nm_int8"):
        yield f"{kind} of more outputs", tensor(kind) + ".* is .*, wanted", change(kind, shape=[200, 20])
        yield f"{kind} of 2**31 - 1 inputs", tensor(kind), change(kind, shape=[2, 2**31 - 1], nnz=2**31 - 1)
        yield f"{kind} of another layout", tensor(kind) + "layout is 'zigzag'", change(kind, layout="zigzag")
        yield f"{kind} of the layout {{}}", tensor(kind) + "layout is", change(kind, layout={})
        yield f"{kind} without parts", tensor(kind) + "has the parts", change(kind, parts={})
        parts = dict(good["tensors"][kind]["parts"])
        first = next(iter(parts))
        yield f"{kind} with a part more", tensor(kind) + "has the parts", change(kind, parts={**parts, "more": "a"})
        for told in (None, 3, "array@values.npy", "../../etc/passwd", "edgecomp.json", ["a"]):
            rule = tensor(kind) + f"{first} is said to be in"
            yield f"{kind} whose {first} is in {json.dumps(told)}", rule, change(kind, parts={**parts, first: told})
        rest = [m for m in members if m.name != parts[first]]
        yield f"{kind} whose {first} is missing", tensor(kind) + "the member .* is missing", model(rest, good)
    for group in (None, 0, -16, 8, 33, 48, 272, 2**40, 32.0, True, "32"):
        yield f"group_size {json.dumps(group)}", tensor("int4") + "group_size is|layout is", change("int4", group_size=group)
    yield "group_size of another record", tensor("int4") + "records is", change("int4", group_size=16, layout="n32g16")
    for dtype in ("int8", "float64", None, [], "f2"):
        yield f"scale_dtype {json.dumps(dtype)}", tensor("int4") + "scale_dtype is", change("int4", scale_dtype=dtype)
    yield "scale_dtype of another record", tensor("int4") + "records is", change("int4", scale_dtype="float32")
    for zero in ("both", 0, False, []):
        yield f"zero {json.dumps(zero)}", tensor("int4") + "zero is|records is", change("int4", zero=zero)
    yield "zero of another record", tensor("int4") + "records is", change("int4", zero="point")
    for nnz in (None, -1, 7, 41, 2**40, 8.0, True, "8"):
        yield f"nnz {json.dumps(nnz)}", tensor("csr") + "nnz is|data is", change("csr", nnz=nnz)
    for kind in ("nm", "nm_int8"):
        for pattern in (None, 24, "", "2", "2:4:8", "0:4", "5:4", "2:17", "-2:4", "2:999", " 2:4", "02:4", "9" * 1000, ["2:4"]):
            yield f"{kind} pattern {json.dumps(pattern)[:20]}", tensor(kind) + "pattern", change(kind, pattern=pattern)
        for pattern in ("1:4", "2:8", "4:4"):  # others than the parts are of
            changed = change(kind, pattern=pattern, layout=f"nm{pattern}")
            yield f"{kind} parts of another pattern, {pattern}", tensor(kind) + "(values|packed) is .*wanted", changed
        for block in (None, 0, 2, -16, 128, 16.0, True, "16", [16], 2**70):
            lying = change(kind, block=block, layout=f"nm2:4b{block}")
            yield f"{kind} block {json.dumps(block)}", tensor(kind) + "block is", lying
        yield f"{kind} packed for blocks", tensor(kind) + "packed is", change(kind, block=16, layout="nm2:4b16")
    for dtype in (None, "object", "O", "float128", "datetime64", "i1", "float32", {}, [], "V8", "longdouble1"):
        yield f"dtype {json.dumps(dtype)}", tensor("array") + "dtype is|values is", change("array", dtype=dtype)
    for shape in ([], [4], [3, 1], [2**62, 2**62], [0, 2**63], [2**64], [1] * 64, [1] * 65):
        yield f"array shape {str(shape)[:30]}", tensor("array") + "values is|shape ", change("array", shape=shape)
    yield "a shape of a million dimensions", tensor("array") + "shape has 1000000 dimensions", change("array", shape=[1] * 1_000_000)
    yield "an int8 shape of a million dimensions", tensor("int8") + "shape", change("int8", shape=[1] * 1_000_000)
    yield "a required feature of a tensor", "tensor 'int8' requires 'twist'", change("int8", requires=["twist"])
    many = {f"t{i}": good["tensors"]["array"] for i in range(50_000)}
    yield "50000 tensors that are not there", "tensor 't0': values is said to be in", top(tensors=many)
    wide = {f"k{i}": i for i in range(300_000)}
    yield "300000 keys and one twice", WHERE + "has the key 'k0' twice", model(members, json.dumps(wide).encode()[:-1] + b', "k0": 1}')
    yield "not the manifest of this file", "the member .* is missing", archive([Member("edgecomp.json", json.dumps(good).encode())])


def model_text(good: dict, tensors: dict) -> bytes:
    """JSON with escapes, so that it may have what UTF-8 has not."""
    return json.dumps({**good, "tensors": tensors}, ensure_ascii=True).encode()
