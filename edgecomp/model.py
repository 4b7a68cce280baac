"""The model file, opened: `load`, Model and `inspect`. docs/format.md is the specification."""

import copy
import math
import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecomp import _kinds, _manifest, _npy, pool
from edgecomp._zip import Archive, Member, Source, shown
from edgecomp.arguments import file_path, flag, one_of
from edgecomp.crc import crc32
from edgecomp.errors import FormatError

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]
_Part = tuple[int, int, np.dtype[Any], tuple[int, ...]]
"""Where a part's values begin, their bytes, dtype and shape."""


def load(path: str | os.PathLike[str], *, mmap: bool = True, verify: str = "structure") -> "Model":
    """Opens a model file.

    Args:
        path: a file that `save` or ModelWriter has written, perhaps packed anew (but not compressed) by another ZIP tool.
        mmap: the tensors are views of the mapped file: it opens in milliseconds, kernels read its pages, and processes share them. The
            file may be replaced or deleted, but not changed in place, which would change the weights; truncating it would end the
            process. False reads all of it into memory: for files that others write to.
        verify: "structure" checks directory, manifest, headers and sizes, and when a tensor is first taken its values that kernels rely
            on: indices, finite scales, and those of sparse weights. "full" checks those of all tensors now, that dense weights are
            finite, and every CRC-32.

    Raises:
        FormatError: the file breaks a rule; the message names file, tensor and rule.
        OSError: it cannot be read.
        TypeError, ValueError: a path that is none, another word for verify, an mmap that is no bool.

    Example:
        >>> import numpy as np, edgecomp as ec, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> ec.save(path, {"fc": ec.quantize(np.eye(3, dtype=np.float32)), "norm": np.ones(2)}, metadata={"name": "a model"})
        >>> model = ec.load(path, verify="full")
        >>> model["fc"], model.metadata
        (Int8Weight(3x3, 8 bits, n16k4, 192 bytes), {'name': 'a model'})
    """
    one_of("load: verify", verify, ("structure", "full"))
    flag("load: mmap", mmap)
    source = Source(file_path("load: path", path), mmap)
    try:
        return Model(source, verify == "full")
    finally:
        source.close()


class Model(Mapping[str, Any]):
    """The tensors of a model file by name, read-only: weights, and arrays that cannot be written to. Made by `edgecomp.load`.

    A tensor is checked and made when it is first taken, and the same object from then on. `close()`, or the end of a `with` block, drops
    what the model holds; tensors that were taken stay usable, and keep the file mapped.
    """

    def __init__(self, source: Source, full: bool) -> None:
        self.path = source.path
        archive = Archive(source)
        self._manifest = _read_manifest(archive)
        self._bytes: npt.NDArray[np.uint8] | None = source.bytes
        self._file_bytes = source.size
        self._taken: dict[str, Any] = {}
        self._parts: dict[str, dict[str, _Part]] = {}
        for name, keys in self._manifest["tensors"].items():
            try:
                self._parts[name] = _locate(archive, name, keys)
            except FormatError:
                raise
            except ValueError as error:
                raise self._error(name, error) from None
        for m in archive.members.values():
            archive.start(m)
        if full:
            self._verify(archive)

    def __getitem__(self, name: str) -> Any:
        """The tensor. KeyError if there is none, FormatError if its values break a rule, ValueError after `close()`."""
        taken = self._taken.get(name)
        if taken is None:
            if self._bytes is None:
                raise ValueError(f"the model of {self.path} is closed")
            taken = self._taken.setdefault(name, self._make(name, self._bytes))
        return taken

    def _make(self, name: str, data: npt.NDArray[np.uint8], full: bool = False) -> Any:
        keys = self._manifest["tensors"][name]
        try:
            parts = {p: _npy.view(data[at : at + size], dtype, shape) for p, (at, size, dtype, shape) in self._parts[name].items()}
            if keys["kind"] != "array":
                kind = _kinds.KINDS[keys["kind"]]
                weight = kind.build(keys, parts)
                if full:
                    kind.verify(weight)
                return weight
        except ValueError as error:
            raise self._error(name, error) from None
        values = parts["values"]
        if keys["dtype"] == "bfloat16":
            try:
                import ml_dtypes
            except ImportError as error:
                raise ImportError(f"{self.path}: tensor {shown(name)}: is bfloat16, which NumPy lacks: pip install ml_dtypes") from error
            values = values.view(ml_dtypes.bfloat16)
        values.flags.writeable = False
        return values

    def _error(self, name: str, rule: object) -> FormatError:
        return FormatError(f"{self.path}: tensor {shown(name)}: {rule}")

    def _verify(self, archive: Archive) -> None:
        """Every CRC, and the values of every tensor: at once, while its bytes are in the cache."""
        from concurrent.futures import ThreadPoolExecutor

        data, others = archive.source.bytes, dict(archive.members)
        jobs: list[tuple[str | None, list[Member]]] = []
        for name, keys in self._manifest["tensors"].items():
            jobs.append((name, [others.pop(member) for member in keys["parts"].values()]))
        jobs.append((None, list(others.values())))

        def check(job: tuple[str | None, list[Member]]) -> None:
            name, members = job
            for m in members:
                start = archive.start(m)
                crc = crc32(data[start : start + m.size])
                if crc != m.crc:
                    raise FormatError(f"{self.path}: member {shown(m.name)}: its CRC-32 is {crc:08x}, the directory says {m.crc:08x}")
            if name is not None:
                self._make(name, data, full=True)

        if pool.get_num_threads() == 1:
            for job in jobs:
                check(job)
            return
        jobs.sort(key=lambda job: -sum(m.size for m in job[1]))
        with ThreadPoolExecutor(pool.get_num_threads()) as threads:
            for _ in threads.map(check, jobs):
                pass

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    @property
    def metadata(self) -> dict[str, Any]:
        """What `save` was given, a copy."""
        return copy.deepcopy(self._manifest["metadata"])  # type: ignore[no-any-return]

    @property
    def manifest(self) -> dict[str, Any]:
        """All that the manifest says, a copy: keys that this version of edgecomp does not know among it."""
        return copy.deepcopy(self._manifest)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: what is mapped, or would be read."""
        return sum(size for parts in self._parts.values() for _, size, _, _ in parts.values())

    def close(self) -> None:
        """Drops the file and the tensors. What was taken stays usable, and keeps the file mapped."""
        self._bytes = None
        self._taken = {}

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._bytes is None else f"{self.nbytes} bytes"
        return f"Model({self.path!r}, {len(self)} tensors, {state})"


def _read_manifest(archive: Archive) -> _manifest.Keys:
    source, member = archive.source, archive.members.get(_manifest.MEMBER)
    if member is None:
        source.fail(f"has no member {_manifest.MEMBER}: no model file of edgecomp")
    if member.size > _manifest.MAX_BYTES:
        source.fail(f"{_manifest.MEMBER}: has {member.size} bytes, at most {_manifest.MAX_BYTES} are read")
    data = source.read(archive.start(member), member.size)
    try:
        return _manifest.loads(data)
    except ValueError as error:
        source.fail(f"{_manifest.MEMBER}: {error}")


def _locate(archive: Archive, name: str, keys: _manifest.Keys) -> dict[str, _Part]:
    """Where the parts of a tensor are. Everything that the manifest says of them has to be so."""
    wanted = _manifest.wanted(keys)
    if set(wanted) != set(keys["parts"]):
        raise ValueError(f"has the parts {', '.join(map(shown, sorted(keys['parts'])))[:200]}, wanted {', '.join(wanted)}")
    found: dict[str, _Part] = {}
    for part, (dtypes, shape) in wanted.items():
        told, is_so = keys["parts"][part], _manifest.member(name, part)
        if told != is_so:
            raise ValueError(f"{part} is said to be in {shown(str(told))}, wanted {shown(is_so)}")
        member = archive.members.get(is_so)
        if member is None:
            raise ValueError(f"the member {shown(is_so)} is missing")
        start, header = _header(archive, member)
        dtype = next((d for d in dtypes if _npy.descr(d) == header.descr), None)
        if dtype is None or header.shape != shape:
            has = f"{header.descr} {header.shape}"
            raise ValueError(f"{part} is {has[:200]}, wanted {' or '.join(map(_npy.descr, dtypes))} {shape}")
        size = math.prod(shape, start=dtype.itemsize)
        if math.prod((d for d in shape if d), start=dtype.itemsize) >= 2**63:
            raise ValueError(f"{part} has a shape {str(shape)[:200]} that is too large for any memory")
        if header.length + size != member.size:
            raise ValueError(f"{part} takes {size} bytes after its header, the member has {member.size - header.length}")
        found[part] = start + header.length, size, dtype, shape
    return found


def _header(archive: Archive, member: Member) -> tuple[int, _npy.Header]:
    """Where a .npy member begins, and its header."""
    start, head = archive.data(member)
    try:
        if member.size < 12:
            raise ValueError("is no .npy array")
        if len(head) < 12:
            head = archive.source.read(start, 12)
        length = _npy.header_length(head)
        if length > member.size:
            raise ValueError("ends within its .npy header")
        if length > len(head):
            head = archive.source.read(start, length)
        return start, _npy.parse(head[:length])
    except FormatError:
        raise
    except ValueError as error:
        archive.source.fail(f"member {shown(member.name)}: {error}")


def inspect(path: str | os.PathLike[str], *, verify: str = "structure") -> dict[str, Any]:
    """What a model file holds, as a dict that JSON can hold. No tensor is read, unless verify is "full".

    Returns:
        path, file_bytes, version, metadata, bytes (of all tensors) and tensors: for each name, kind, shape, bits (of a value), density
        (share of the values that are stored), bytes, layout; for weights with groups group_size, scale_dtype and zero, for CSR nnz, for
        arrays dtype.

    Raises:
        FormatError, OSError, TypeError, ValueError: as `load`.

    Example:
        >>> import numpy as np, edgecomp as ec, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> ec.save(path, {"fc": ec.to_csr(np.eye(4, dtype=np.float32))})
        >>> tensor = ec.inspect(path)["tensors"]["fc"]
        >>> tensor["kind"], tensor["shape"], tensor["density"], tensor["bytes"]
        ('csr', [4, 4], 0.25, 44)
    """
    with load(path, verify=verify) as model:
        found = {name: _describe(keys, model._parts[name]) for name, keys in model._manifest["tensors"].items()}
        return {
            "path": model.path,
            "file_bytes": model._file_bytes,
            "version": ".".join(map(str, model._manifest["version"])),
            "metadata": model.metadata,
            "bytes": model.nbytes,
            "tensors": found,
        }


def _describe(keys: _manifest.Keys, parts: Mapping[str, _Part]) -> dict[str, Any]:
    told: dict[str, Any] = {key: keys[key] for key in ("dtype", "group_size", "scale_dtype", "zero", "nnz") if key in keys}
    if keys["kind"] == "array":
        bits, density, layout = 8 * parts["values"][2].itemsize, 1.0, "C"
    else:
        kind = _kinds.KINDS[keys["kind"]]
        bits, density, layout = kind.bits, kind.density(keys), keys["layout"]
    size = sum(size for _, size, _, _ in parts.values())
    return {"kind": keys["kind"], "shape": keys["shape"], "bits": bits, "density": density, "bytes": size, "layout": layout, **told}
