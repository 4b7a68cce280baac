"""What every reader returns, and what readers share."""

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp.arguments import one_of
from edgecomp.errors import FormatError

Array = npt.NDArray[Any]
Path = str | os.PathLike[str]


class Checkpoint(dict[str, Any]):
    """Name -> NumPy array or weight, in the file's order; `metadata` is what else the file says, as JSON can hold it."""

    def __init__(self, tensors: Any = (), metadata: dict[str, Any] | None = None) -> None:
        super().__init__(tensors)
        self.metadata: dict[str, Any] = metadata or {}

    def add(self, name: str, value: Any, path: Path) -> None:
        """Refuses a name that is there already."""
        if name in self:
            raise FormatError(f"{os.fspath(path)}: {name}: there are two tensors of this name")
        self[name] = value


def require(module: str, extra: str) -> Any:
    """An optional parser, imported; an ImportError that says how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed: pip install "edgecomp[{extra}]"') from error


def check_other(other: str, where: str) -> None:
    one_of(f"{where}: other", other, ("dequantize", "refuse"))


@contextmanager
def reading(path: Path, tensor: str = "") -> Iterator[None]:
    """Whatever a parser raises on a malformed file becomes a FormatError that names the file and the tensor."""
    where = f"{os.fspath(path)}: {tensor}: " if tensor else f"{os.fspath(path)}: "
    try:
        yield
    except (FormatError, ImportError, KeyboardInterrupt):
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:  # which is what seeking to a negative offset gives
            raise FormatError(f"{where}an offset that lies") from error
        if type(error) is OSError and error.errno is None:  # bz2 on what is none
            raise FormatError(f"{where}{error}") from error
        raise
    except MemoryError as error:
        raise FormatError(f"{where}says it needs more memory than there is") from error
    except Exception as error:  # parsers have exceptions of their own
        raise FormatError(f"{where}{type(error).__name__}: {error}") from error


def json_value(value: Any) -> Any:
    """A value for `metadata`: Inf and NaN, for which JSON has no numbers, as text."""
    if isinstance(value, list):
        return [json_value(v) for v in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def bfloat16_to_float32(words: Array) -> Array:
    """bfloat16, as uint16 of any shape, exactly."""
    return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
