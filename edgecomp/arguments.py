"""What a caller may hand in beside arrays: integers, numbers, words, flags and paths. Once for all functions; `where` ("linear: compute")
begins the message of an error."""

import math
import numbers
import os
from collections.abc import Callable, Container
from typing import Any

import numpy as np

POSITIVE, NATURAL = range(1, 2**63), range(2**63)


def whole(value: Any) -> int | None:
    """value as an int, NumPy's integers too; None if it is none: a bool, a float, an array."""
    if type(value) is int:
        return value
    return None if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)


def integer(where: str, value: Any, allowed: Container[int], wanted: str) -> int:
    """value as one of the ints that are allowed: 16.0 equals one, and so does an array of one."""
    found = whole(value)
    if found is None or found not in allowed:
        raise ValueError(f"{where} is {value!r}, wanted {wanted}")
    return found


def number(where: str, value: Any, wanted: str, fits: Callable[[float], bool]) -> float:
    """value as a float for which `fits` holds: TypeError, ValueError."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{where} is a {type(value).__name__}, wanted {wanted}")
    try:
        found = float(value)
    except OverflowError:  # an int
        found = math.inf
    if not fits(found):
        raise ValueError(f"{where} is {value!r}, wanted {wanted}")
    return found


def one_of(where: str, value: Any, names: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{where} is {value!r}, wanted one of {', '.join(names)}")


def flag(where: str, value: Any) -> None:
    """Refuses what is true or false without saying so: "no", None, an array."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{where} is {value!r}, wanted True or False")


def file_path(where: str, value: Any) -> str:
    """A path as text. What the system says of one that is none names no argument, and a number is an open file to it."""
    try:
        text = os.fsdecode(value)
        fits = b"\0" not in os.fsencode(text)
    except TypeError:
        raise TypeError(f"{where} is a {type(value).__name__}, wanted a path: text, bytes or an os.PathLike") from None
    except UnicodeError:
        fits = False
    if not fits:
        raise ValueError(f"{where} is {value!r}, which is the name of no file")
    return text
