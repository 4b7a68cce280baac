"""Values that a kernel would trust: indices out of range, rows that end before they begin, scales that are NaN; and flipped bits."""

import io
from collections.abc import Callable, Iterator

import models
import numpy as np
from craft import Case, Member, members_of, model, npy

INF, NAN = np.inf, np.nan


def files() -> Iterator[Case]:
    kinds = models.weights(40, 70)

    def change(kind: str, name: str, part: str, how: Callable[[np.ndarray], object]) -> bytes:
        members, manifest = members_of({kind: kinds[kind][name]})
        made = []
        for m in members:
            if m.name == f"{kind}@{part}.npy":
                a = np.load(io.BytesIO(m.data))
                how(a)
                made.append(Member(m.name, npy(a)))
            else:
                made.append(m)
        return model(made, manifest)

    def put(at: object, value: object, field: str | None = None) -> Callable[[np.ndarray], object]:
        def how(a: np.ndarray) -> None:
            (a if field is None else a[field])[at] = value

        return how

    for value in (NAN, INF, -INF):
        dense = change("dense", "w", "panels", put((1, 2, 3), value))
        yield f"dense value {value}, looked at in full", r"tensor 'dense': panels\[\d+\] is", dense
        yield f"int8 scale {value}", r"tensor 'int8': scales\[39\] is (nan|-?inf)", change("int8", "w", "scales", put(39, value))
        yield f"csr_int8 scale {value}", r"tensor 'csr_int8': scale\[0\] is", change("csr_int8", "w", "scale", put(0, value))
        for name in ("half", "float", "zero", "offset", "order", "one group"):
            yield f"int4 {name} scale {value}", r"tensor 'int4': scale\[", change("int4", name, "records", put((1, 0, 3), value, "scale"))
        yield f"int4 offset {value}", r"tensor 'int4': offset\[", change("int4", "offset", "records", put((0, 2, 31), value, "offset"))
        grouped = change("int8_grouped", "half", "records", put((0, 0, 0), value, "scale"))
        yield f"int8_grouped scale {value}", r"tensor 'int8_grouped': scale\[0\]", grouped
    yield "int4 zero point 17", r"tensor 'int4': zero\[.* is 17", change("int4", "zero", "records", put((1, 1, 5), 17, "zero"))
    for value in (70, -1, 2**31 - 1, -(2**31)):
        yield f"permutation of {value}", r"tensor 'int4': permutation\[4\] is", change("int4", "order", "permutation", put(4, value))
    twice = change("int4", "order", "permutation", lambda a: put(4, a[5])(a))
    yield "permutation with one twice", "tensor 'int4': permutation lacks", twice
    yield "int8 sums beyond what 70 inputs can have", r"tensor 'int8': sums\[7\] is", change("int8", "w", "sums", put(7, 127 * 70 + 1))
    yield "int8 sums of the least int32", r"tensor 'int8': sums\[7\] is", change("int8", "w", "sums", put(7, -(2**31)))

    for kind in ("csr", "csr_int8"):
        where = f"tensor '{kind}': "
        for value in (70, 65535):
            yield f"{kind} index {value}", where + r"indices\[3\] is", change(kind, "w", "indices", put(3, value))
        yield f"{kind} index that falls", where + r"indices\[1\] is 0", change(kind, "w", "indices", put(1, 0))
        yield f"{kind} index twice", where + r"indices\[1\] is", change(kind, "w", "indices", lambda a: put(1, a[0])(a))
        for at, value in ((0, 1), (0, -1), (-1, 0), (-1, 10**6), (-1, -1)):
            yield f"{kind} indptr[{at}] = {value}", where + "indptr goes from", change(kind, "w", "indptr", put(at, value))
        for at, value in ((5, 0), (5, 10**9), (5, -(2**31)), (39, 10**6)):
            yield f"{kind} indptr[{at}] = {value}", where + r"indptr\[\d+\] is", change(kind, "w", "indptr", put(at, value))
        for value in (NAN, INF, -INF) if kind == "csr" else (-128,):
            yield f"{kind} value {value}", where + rf"data\[11\] is {value}, wanted", change(kind, "w", "data", put(11, value))
    wide = ec_wide()
    for value in (70001, -1, 2**31 - 1):
        members, manifest = members_of({"w": wide})
        a = np.load(io.BytesIO(members[1].data))
        a[0] = value
        made = [members[0], Member(members[1].name, npy(a)), members[2]]
        yield f"index {value} of 70001", r"tensor 'w': indices\[0\] is", model(made, manifest)

    def put_place(at: int, value: int, bits: int) -> Callable[[np.ndarray], object]:
        """Into row 1 of packed places: entry 4 i + c of a word is in its byte c, from bit bits * i on."""

        def how(a: np.ndarray) -> None:
            word, entry = divmod(at, 32 // bits)
            where, shift = ((1, word) if a.ndim == 2 else (0, word, 1)), entry % 4 * 8 + entry // 4 * bits
            a[where] = int(a[where]) & ~(((1 << bits) - 1) << shift) | value << shift

        return how

    for kind in ("nm", "nm_int8"):  # 2:4 of 70 inputs, places of 2 bits, the last group has two inputs; 1:8 of 4 bits, it has six
        where = f"tensor '{kind}': "
        for value in (9, 15):
            rule = where + rf"packed\[1, 3\] is {value}, wanted 0\.\.7"
            yield f"{kind} place {value} of 8", rule, change(kind, "shared", "packed", put_place(3, value, 4))
        rule = where + r"packed\[1, 8\] is 7, wanted 0\.\.5"
        yield f"{kind} place 7 of a last group of 6", rule, change(kind, "shared", "packed", put_place(8, 7, 4))
        rule = where + r"packed\[1, 35\] is 3, wanted 0\.\.1"
        yield f"{kind} place 3 of a last group of 2", rule, change(kind, "own", "packed", put_place(35, 3, 2))
        twice = change(kind, "own", "packed", lambda a: (put_place(4, 2, 2)(a), put_place(5, 2, 2)(a)))
        yield f"{kind} a place twice", where + r"group 2 of packed\[1\] has 2 twice", twice
        falls = change(kind, "own", "packed", lambda a: (put_place(4, 3, 2)(a), put_place(5, 1, 2)(a)))
        yield f"{kind} places that fall", where + r"group 2 of packed\[1\] has 1 after 3", falls
        beyond = change(kind, "own", "packed", put_place(47, 1, 2))
        yield f"{kind} bits beyond the places", where + r"packed\[0:\d+\] has bits beyond its places", beyond
    for name in ("own", "shared"):
        for value in (NAN, INF, -INF):
            made = change("nm", name, "values", put((1, 2, 3), value))
            yield f"nm {name} value {value}", rf"tensor 'nm': values\[\d+\] is {value}, wanted", made
        made = change("nm_int8", name, "values", put((1, 2, 3, 1), -128))
        yield f"nm_int8 {name} value -128", r"tensor 'nm_int8': values\[\d+\] is -128, wanted -127\.\.127", made
    for value in (NAN, INF, -INF):
        yield f"nm_int8 scale {value}", r"tensor 'nm_int8': scales\[3\] is", change("nm_int8", "own", "scales", put(3, value))
    sums = change("nm_int8", "own", "sums", put(7, -127 * 36 - 1))
    yield "nm_int8 sums beyond what 36 inputs can have", r"tensor 'nm_int8': sums\[7\] is", sums

    for kind, made in kinds.items():
        members, manifest = members_of({kind: next(iter(made.values()))})
        for m in members:
            whole = bytearray(model(members, manifest))
            at = whole.index(m.data) + len(m.data) - 1
            whole[at] ^= 1
            yield f"flipped bit in {m.name}", rf"CRC-32 is|tensor '{kind}'", bytes(whole)
    whole = bytearray(model(*members_of({"a": np.ones(3)})))
    at = whole.index(b'"metadata"') + 1
    whole[at] ^= 1
    yield "flipped bit in the manifest", "edgecomp.json", bytes(whole)


def ec_wide() -> object:
    """A CSR weight whose indices take 32 bits."""
    import edgecomp as ec

    return ec.CSRWeight.from_arrays(np.ones(2, np.float32), [70000, 3], [0, 1, 2], (2, 70001))
