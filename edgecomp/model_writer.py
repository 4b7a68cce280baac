"""Saving: `save` and ModelWriter, which takes tensors one by one."""

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecomp import _kinds, _manifest, _npy, arrays
from edgecomp._zip_writer import Writer, naming
from edgecomp.arguments import file_path
from edgecomp.weights import Weight

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 1 << 22
"""Bytes of an array that are brought into the file's dtype and order at a time."""


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a model file: docs/format.md says what is in it, `load` opens it, np.load too.

    Args:
        path: takes the place of a file that is there, in one step: others see the old file or the whole new one.
        tensors: name -> any weight of edgecomp, or an array of a numeric dtype (bfloat16 of ml_dtypes too), in the file's order. Names
            are any text but "".
        metadata: what JSON can hold; tuples come back as lists.

    Raises:
        TypeError: a tensor or metadata of a kind that the file does not hold, a path that is none.
        ValueError: a name that is empty, or longer than 4096 bytes as docs/format.md spells it; metadata beyond 64 MiB, with NaN, or nested
            in itself.
        OSError: the file cannot be written. What was there before is still there, and nothing else.

    Example:
        >>> import numpy as np, edgecomp as ec, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> w = ec.quantize(np.eye(3, dtype=np.float32))
        >>> ec.save(path, {"fc.weight": w, "fc.bias": np.ones(3, np.float32)}, metadata={"epochs": 3})
        >>> with ec.load(path) as model:
        ...     ec.linear(np.ones((1, 3), np.float32), model["fc.weight"], model["fc.bias"])
        array([[2., 2., 2.]], dtype=float32)
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"save: tensors is a {type(tensors).__name__}, wanted a mapping of names to weights and arrays")
    with ModelWriter(path, metadata) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)


class ModelWriter:
    """Writes a model file tensor by tensor: only the one that is being written has to be in memory, and no copy of it is made.

    The file appears under its name when the `with` block ends, complete and synced to the disk; if the block raises, what was there
    before stays and nothing else is left. Without `with`, call `close()` or `abort()`. Raises what `save` raises.

    Example:
        >>> import numpy as np, edgecomp as ec, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
        >>> with ec.ModelWriter(path, {"layers": 2}) as writer:
        ...     for i in range(2):
        ...         writer.add(f"layer{i}", ec.quantize(np.eye(4, dtype=np.float32), bits=4, group_size=16))
        >>> list(ec.load(path))
        ['layer0', 'layer1']
    """

    def __init__(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        self._metadata = _manifest.check_metadata({} if metadata is None else metadata)
        self._tensors: dict[str, _manifest.Keys] = {}
        self._open = True
        self._writer = Writer(file_path("save: path", path))

    def add(self, name: str, tensor: Any) -> None:
        """Writes a tensor: a weight, or an array.

        Raises:
            TypeError, ValueError: as `save`; a name that is there already. The writer goes on, without the tensor.
            OSError: the file cannot be written; the writer has given up.
        """
        if not self._open:
            raise ValueError("ModelWriter: is closed")
        if not isinstance(name, str):
            raise TypeError(f"save: the name {name!r} is no text")
        if name in self._tensors:
            raise ValueError(f"save: {name!r} comes twice")
        keys, parts = _describe(name, tensor)
        try:
            members = {part: _manifest.member(name, part) for part in parts}
        except ValueError as error:
            raise ValueError(f"save: {name[:80]!r}: {error}") from None
        try:
            with naming(self._writer.path):
                for part, (dtype, array) in parts.items():
                    self._writer.add(members[part], _npy.header(dtype, array.shape), _chunks(array, dtype), array.nbytes)
        except BaseException:
            self.abort()
            raise
        self._tensors[name] = {**keys, "parts": members}

    def close(self) -> None:
        """Completes the file and puts it in its place. Does nothing the second time."""
        if not self._open:
            return
        self._open = False
        try:
            manifest = _manifest.dumps(self._tensors, self._metadata)
            with naming(self._writer.path):
                self._writer.add(_manifest.MEMBER, b"", [manifest], len(manifest))
                self._writer.commit()
        finally:
            self._writer.abort()  # nothing is left to do after a commit

    def abort(self) -> None:
        """Gives up: no file is written."""
        self._open = False
        self._writer.abort()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _describe(name: str, tensor: Any) -> tuple[_manifest.Keys, dict[str, tuple[np.dtype[Any], npt.NDArray[Any]]]]:
    """A tensor's keys in the manifest, and its parts: the dtype in the file, little-endian, and the array."""
    if isinstance(tensor, Weight):
        kind = _kinds.kind_of(tensor)
        parts = {part: (a.dtype.newbyteorder("<"), a) for part, a in tensor.arrays().items()}
        return {"kind": kind.name, "shape": list(tensor.shape), **kind.keys(tensor)}, parts
    array = arrays.to_numpy(tensor, f"save: {name!r}")
    dtype = _manifest.array_name(array.dtype)
    if dtype is None:
        raise TypeError(f"save: {name!r} has dtype {array.dtype}, wanted a weight of edgecomp or an array of numbers")
    if dtype == "bfloat16":
        array = array.view(np.uint16)
    return {"kind": "array", "shape": list(array.shape), "dtype": dtype}, {"values": (_manifest.array_dtype(dtype), array)}


def _chunks(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> Iterator[Any]:
    """The bytes of an array in C order, in its dtype in the file, piece by piece."""
    if array.dtype == dtype and array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8).data
    elif array.size:
        count = max(1, CHUNK // dtype.itemsize)
        with np.nditer(
            [array], ["external_loop", "buffered"], [["readonly"]], [dtype], order="C", casting="equiv", buffersize=count
        ) as pieces:
            for piece in pieces:
                yield np.ascontiguousarray(piece).view(np.uint8).data
