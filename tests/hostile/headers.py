"""The .npy headers of members: other dtypes, shapes that wrap, and code that must not run."""

import struct
from collections.abc import Iterator

import numpy as np
from craft import Case, Member, members_of, model

WHERE = r"(member 'a@values\.npy'|tensor 'a'): "


def files() -> Iterator[Case]:
    members, manifest = members_of({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    values = members[0].data[-24:]

    def raw(data: bytes) -> bytes:
        return model([Member(members[0].name, data)], manifest)

    def header(text: str, version: bytes = b"\1\0") -> bytes:
        line = text.encode("latin-1") + b"\n"
        length = struct.pack("<H" if version[0] == 1 else "<I", len(line))
        return raw(b"\x93NUMPY" + version + length + line + values)

    def fields(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)") -> str:
        return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"

    whole = members[0].data
    yield "empty", WHERE + "is no .npy array", raw(b"")
    yield "text", WHERE + "is no .npy array", raw(b"hello, this is text")
    for cut in (5, 7, 9, 11, 20, 60):
        yield f"cut at {cut}", WHERE + "is no .npy array|" + WHERE + "ends within", raw(whole[:cut])
    yield "cut in its values", WHERE + "values takes 24 bytes after its header, the member has 23", raw(whole[:-1])
    yield "with more values", WHERE + "values takes 24 bytes after its header, the member has 25", raw(whole + b"x")
    yield "version 9", WHERE + "has .npy version 9.0", header(fields(), b"\x09\0")
    yield "a header of 4 GB", WHERE + "has a .npy header of 4294967307 bytes", raw(b"\x93NUMPY\2\0\xff\xff\xff\xff" + whole[10:])
    yield "a header beyond the member", WHERE + "ends within its .npy header", raw(b"\x93NUMPY\1\0\xff\xff" + whole[10:])
    for what, text in [
        ("an expression", "__import__('os').system('touch /tmp/hacked')"),
        ("nothing", ""),
        ("a list", "[]"),
        ("deep brackets", "(" * 60000),
        ("a shape of text", fields(shape="('a', 3)")),
        ("a negative shape", fields(shape="(-2, 3)")),
        ("a shape of floats", fields(shape="(2.0, 3)")),
        ("a shape of True", fields(shape="(True, 6)")),
        ("a shape that is a number", fields(shape="6")),
        ("a shape that is no tuple", fields(shape="(6)")),
        ("a shape in a list", fields(shape="[2, 3]")),
        ("a key more", fields()[:-1] + "'more': 1, }"),
        ("a key twice", fields()[:-1] + "'shape': (1,), }"),
        ("an order that is neither", fields(order="1")),
        ("digits without end", fields(shape=f"({'9' * 5000},)")),
        ("Fortran order", fields(order="True")),
    ]:
        yield what, WHERE + "has a .npy header|" + WHERE + "has a shape|" + WHERE + "is in Fortran order", header(text)
    for descr in (
        "__import__('os').getcwd()",
        "'|O'",
        "'<f8'",
        "'>f4'",
        "'<i4'",
        "'|V4'",
        "'<U1'",
        "'<M8[s]'",
        "'|S4'",
        "[('a', '<f4')]",
        "'f4'",
    ):
        yield f"dtype {descr}", WHERE + "values is ", header(fields(descr))
    for shape in ("()", "(6,)", "(3, 2)", "(2, 3, 1)", "(4294967296, 4294967298)", "(9223372036854775807, 2)", "(0, 9999999999999999999)"):
        yield f"shape {shape}", WHERE + "values is |" + WHERE + "values has a shape", header(fields(shape=shape))
    yield "65 dimensions", WHERE + "has 65 dimensions", header(fields(shape=f"({', '.join('1' * 65)})"))

    def claimed(shape: list[int], text: str) -> bytes:
        lying = {**manifest, "tensors": {"a": {**manifest["tensors"]["a"], "shape": shape}}}
        line = fields(shape=text).encode() + b"\n"
        data = b"\x93NUMPY\1\0" + struct.pack("<H", len(line)) + line + values
        return model([Member(members[0].name, data)], lying)

    yield "a product that wraps to 24", WHERE + "values", claimed([2**62, 4, 6], "(4611686018427387904, 4, 6)")
    yield "a product that is zero and too large", WHERE + "values has a shape", claimed([0, 2**62, 2**62], f"(0, {2**62}, {2**62})")
    yield "huge", WHERE + "values takes", claimed([2**40], f"({2**40},)")
    yield "65 dimensions everywhere", WHERE + "(shape )?has 65 dimensions", claimed([1] * 65, f"({', '.join('1' * 65)})")
