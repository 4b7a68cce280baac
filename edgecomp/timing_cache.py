"""What `best_format` has measured on this machine: a JSON file that is read and written if it can be, and never an error."""

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path

Timings = dict[str, float]
"""Seconds of each form."""

_measured: dict[str, dict[str, Timings]] = {}
"""By this process: machine, case, timings. For where no file can be written."""


def path() -> Path:
    """$XDG_CACHE_HOME/edgecomp/best_format.json, or ~/.cache/edgecomp/best_format.json.

    Raises:
        RuntimeError: there is no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecomp" / "best_format.json"


def recall(machine: str, case: str) -> Timings:
    """What is known of a case; empty if nothing is, or if it makes no sense."""
    known = _measured.get(machine, {}).get(case) or _read().get(machine, {}).get(case, {})
    sane = isinstance(known, dict) and all(type(s) is float and 0 < s < math.inf for s in known.values())
    return dict(known) if sane else {}


def remember(machine: str, case: str, timings: Timings) -> None:
    """Keeps the timings in this process and, if it can, in the file. Of two processes at once one may lose what it wrote, never both."""
    _measured.setdefault(machine, {})[case] = timings
    everything = _read()
    everything.setdefault(machine, {})[case] = timings
    with contextlib.suppress(OSError, RuntimeError):
        file = path()
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with open(descriptor, "w", encoding="utf-8") as f:
                json.dump(everything, f, indent=1)
            os.replace(scratch, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(scratch)
            raise


def _read() -> dict[str, dict[str, Timings]]:
    """The file; what is no such thing, or inside is none, is left out."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # no file, no JSON, no home or JSON that is too deep
        return {}
    if not isinstance(found, dict):
        return {}
    return {machine: cases for machine, cases in found.items() if isinstance(cases, dict)}
