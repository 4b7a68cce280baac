"""NumPy's own archives."""

import os
import zipfile
import zlib

import numpy as np

from edgecomp.errors import FormatError
from edgecomp.readers.checkpoint import Checkpoint, Path, reading


def read_npz(path: Path) -> Checkpoint:
    """The arrays of a .npz file, by name. Nothing is unpickled.

    Raises:
        FormatError: not a well-formed .npz file; arrays of Python objects; a member that unpacks to more than 1000 times its size.
        OSError: the file cannot be read.
    """
    result = Checkpoint()
    with reading(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(member.compress_size for member in archive.infolist()) > os.path.getsize(path):
                    raise ValueError("its members overlap")
                for member in archive.infolist():
                    if member.file_size > 1100 * member.compress_size + 1024:  # deflate reaches 1032
                        raise ValueError(f"{member.filename} says that it unpacks to {member.file_size} bytes")
                    if not member.filename.endswith(".npy"):
                        continue
                    name = member.filename[: -len(".npy")]
                    with archive.open(member) as file, reading(path, name):
                        _check(file, member.file_size)
                    with archive.open(member) as file, reading(path, name):
                        result.add(name, np.lib.format.read_array(file, allow_pickle=False), path)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise FormatError(f"{path}: {error}") from error
    return result


def _check(file: object, size: int) -> None:
    """The header's shape takes the bytes that follow, before anything is allocated for it."""
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"an array of format version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)  # type: ignore[arg-type]
    elements = 1
    for length in shape:
        elements *= length
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which would have to be unpickled")
    if min(shape, default=0) < 0 or elements * dtype.itemsize > size:
        raise ValueError(f"shape {shape} of {dtype} takes more than the {size} bytes there are")
