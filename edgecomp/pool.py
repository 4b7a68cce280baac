"""How many threads an op may use: the process's default, a context of this Python thread, one call. And threadpoolctl."""

import os
import re
import sys
import threading
from types import TracebackType
from typing import Any

from edgecomp import backend
from edgecomp.arguments import whole

MAX_THREADS = 1024


class _Local(threading.local):
    limit = 0
    outer: tuple[int, ...] = ()
    """The limits around the contexts that this thread is in: one `threads` may be entered by several."""


_local = _Local()
_default = 0  # without the C library, which otherwise keeps it; 0: not set


def check(n: Any, where: str) -> int:
    """n as a thread limit: an int in 1..1024 (TypeError, ValueError)."""
    count = whole(n)
    if count is None:
        raise TypeError(f"{where} is a {type(n).__name__}, wanted None or an int in 1..{MAX_THREADS}")
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"{where} is {count}, wanted 1..{MAX_THREADS}")
    return count


def limit(n: int | None, where: str) -> int:
    """What a call hands to its backend: its own limit, else that of the `threads` context, else 0 for the default."""
    if n is None:
        return _local.limit
    return n if type(n) is int and 1 <= n <= MAX_THREADS else check(n, where)


def set_num_threads(n: int | None) -> None:
    """Sets the default thread limit of the process, 1..1024; None goes back to EDGECOMP_NUM_THREADS, OMP_NUM_THREADS or the CPUs
    this process may use.

    Example:
        >>> import edgecomp as ec
        >>> ec.set_num_threads(2); ec.get_num_threads()
        2
        >>> ec.set_num_threads(None)
    """
    global _default
    n = 0 if n is None else check(n, "set_num_threads: n")
    backend.current()
    c = backend.load_c()
    if c is not None:
        c.lib.edgecomp_set_num_threads(n)
    else:
        _default = n


def get_num_threads() -> int:
    """The thread limit that a call without `threads=` has now, in this Python thread."""
    if _local.limit:
        return _local.limit
    backend.current()
    return default()


def default() -> int:
    """The limit of a call that names none, outside of any context."""
    global _default
    c = backend.load_c()
    if c is not None:
        return int(c.lib.edgecomp_get_num_threads())
    if not _default:
        values = (os.environ.get(name, "") for name in ("EDGECOMP_NUM_THREADS", "OMP_NUM_THREADS"))  # OMP's may be a list
        found = (re.match(r"\s*(\d+)", value) for value in values)
        _default = next((min(int(n[1]), MAX_THREADS) for n in found if n and int(n[1])), 0) or cpu_count()
    return _default


def cpu_count() -> int:
    """The cores that this process may use: by its affinity and its cgroup's quota, a core with several CPUs counting once."""
    c = backend.load_c()
    if c is not None:
        return int(c.lib.ec_cpu_count())
    if not hasattr(os, "sched_getaffinity"):
        return min(os.cpu_count() or 1, MAX_THREADS)
    cpus = os.sched_getaffinity(0)
    cores = 0
    for cpu in cpus:
        siblings = re.match(r"\d+", _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
        cores += siblings is None or int(siblings[0]) == cpu or int(siblings[0]) not in cpus
    quota = re.match(r"(\d+) (\d+)", _read("/sys/fs/cgroup/cpu.max"))  # "max 100000" without one
    if quota:
        cores = min(cores, -(-int(quota[1]) // int(quota[2])))
    return max(min(cores, MAX_THREADS), 1)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class threads:
    """`with ec.threads(n):` limits the calls that this Python thread makes inside.

    Example:
        >>> import edgecomp as ec
        >>> with ec.threads(1):
        ...     ec.get_num_threads()
        1
    """

    def __init__(self, n: int) -> None:
        self._n = check(n, "threads: n")

    def __enter__(self) -> "threads":
        _local.outer = (*_local.outer, _local.limit)
        _local.limit = self._n
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        *outer, _local.limit = _local.outer
        _local.outer = tuple(outer)


def register_threadpoolctl() -> None:
    """Makes the pool visible to threadpoolctl: `threadpool_limits` and `threadpool_info` then know it (user_api "edgecomp").

    Done by itself when threadpoolctl is imported before edgecomp; call it otherwise. Raises ImportError without threadpoolctl.
    """
    import threadpoolctl

    class EdgecompController(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = "edgecomp"
        internal_api = "edgecomp"
        filename_prefixes = ("_edgecomp_c",)
        check_symbols = ("edgecomp_get_num_threads", "edgecomp_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.edgecomp_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.edgecomp_set_num_threads(num_threads)

        def get_version(self) -> str:
            import ctypes

            self.dynlib.ec_version.restype = ctypes.c_char_p
            return str(self.dynlib.ec_version().decode())

    threadpoolctl.register(EdgecompController)
    backend.load_c()  # threadpoolctl sees the libraries that are loaded; ours is not before the first op


if "threadpoolctl" in sys.modules:
    register_threadpoolctl()
