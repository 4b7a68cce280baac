"""The container, written: one member after the other into a temporary file, which takes the place of the old file in one step."""

import contextlib
import errno
import os
import struct
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from edgecomp import pool
from edgecomp._zip import CENTRAL, END, END64, LOCAL, LOCATOR64, LONG, MAX_DIRECTORY, MAX_MEMBERS, SHORT
from edgecomp.crc import crc32

ALIGN = 64
BESIDE = 1 << 18
"""Bytes from which on a thread more pays."""
RESERVED = 1 << 22
"""Bytes from which on room is reserved: below it costs more than it saves."""
BLOCK = 1 << 21
"""What is written begins and ends where a huge page does: then the page cache takes huge pages, and whoever maps the file waits less for
page tables."""
PIECE = 2 * BLOCK
"""Bytes written in one go, whose CRC is taken beside it. File systems are a third slower with 1/16 of it."""
DATE = 33
"""1980-01-01, the first day ZIP knows: the same tensors give the same bytes at any time."""


class Writer:
    """Writes members to a temporary file beside `path`. `commit` makes it the file at `path`, `abort` removes it."""

    def __init__(self, path: str) -> None:
        check_replaceable(path)  # whose slash at the end is lost next
        self.path = os.path.realpath(path)  # a symbolic link stays, what it names is replaced
        folder, name = os.path.split(self.path)
        self._temporary = os.path.join(folder, f".{name[:200]}.{os.urandom(8).hex()}.tmp")
        with naming(self.path):
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._discard = weakref.finalize(self, _remove, self._fd, self._temporary, os.getpid())
        self._entries: list[tuple[bytes, int, int, int]] = []
        self._directory = 0
        from concurrent.futures import ThreadPoolExecutor

        self._beside = ThreadPoolExecutor(1) if pool.get_num_threads() > 1 else None
        """Where the CRC of a chunk is taken while it is written."""
        self._at = 0
        self._staged = bytearray()
        """The end of what was added, less than a block, which is not written yet."""

    def add(self, name: str, prefix: bytes, chunks: Iterable[Any], size: int) -> None:
        """A member that consists of `prefix` and `size` bytes in `chunks`, contiguous buffers; what follows the prefix is aligned."""
        raw = name.encode("ascii")
        offset, total = self._at, len(prefix) + size
        wide = struct.pack("<HHQQ", 1, 16, total, total) if total >= LONG else b""
        fixed = LOCAL.size + len(raw) + len(wide) + 6
        padding = -(offset + fixed + len(prefix)) % ALIGN
        extra = wide + struct.pack("<HHH", 0xD935, 2 + padding, ALIGN) + bytes(padding)
        shown = LONG if wide else total
        needs = 45 if wide else 20
        self._directory += CENTRAL.size + len(raw) + 28
        if len(self._entries) == MAX_MEMBERS or self._directory > MAX_DIRECTORY:
            raise ValueError(f"at most {MAX_MEMBERS} arrays fit a model file, and names of {MAX_DIRECTORY} bytes")
        self._write(LOCAL.pack(b"PK\3\4", needs, 0, 0, 0, DATE, 0, shown, shown, len(raw), len(extra)) + raw + extra + prefix)
        _reserve(self._fd, self._at, size)
        crc, left = crc32(prefix), size
        for chunk in chunks:
            for piece in self._pieces(memoryview(chunk)):
                if len(piece) < BESIDE or self._beside is None:
                    crc = crc32(piece, crc)
                    self._write(piece)
                else:
                    later = self._beside.submit(crc32, piece, crc)
                    self._write(piece)
                    crc = later.result()
                left -= len(piece)
        assert left == 0, (name, size, left)
        self._correct(offset + 14, struct.pack("<I", crc))  # known only now
        self._entries.append((raw, offset, total, crc))

    def _pieces(self, data: memoryview) -> Iterator[memoryview]:
        """Cut where blocks of the file end."""
        start = 0
        while start < len(data):
            end = start + PIECE - self._at % PIECE
            yield data[start:end]
            start = end

    def _write(self, data: Any) -> None:
        view = memoryview(data)
        self._at += len(view)
        whole = len(view) - self._at % BLOCK
        if whole < 0:
            self._staged += view
        else:
            self._put(self._staged, view[:whole])
            self._staged = bytearray(view[whole:])

    def _put(self, *data: Any) -> None:
        """Writes to the file, in one go if the system does."""
        views = [memoryview(d) for d in data if len(d)]
        while views:
            done = os.writev(self._fd, views)
            while views and done >= len(views[0]):
                done -= len(views.pop(0))
            if done:
                views[0] = views[0][done:]

    def _correct(self, at: int, data: bytes) -> None:
        """Changes what was added already."""
        written = self._at - len(self._staged)
        first = min(max(written - at, 0), len(data))
        if first:
            os.pwrite(self._fd, data[:first], at)
        if first < len(data):
            at -= written
            self._staged[at + first : at + len(data)] = data[first:]

    def commit(self) -> None:
        """Writes the directory; the file is complete on the disk before it takes the place of the old one."""
        try:
            start = self._at
            for raw, offset, size, crc in self._entries:
                wide = [value for value in (size, size, offset) if value >= LONG]
                extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
                needs = 45 if wide else 20
                sizes = min(size, LONG)
                fields = needs, needs, 0, 0, 0, DATE, crc, sizes, sizes, len(raw), len(extra), 0, 0, 0, 0, min(offset, LONG)
                self._write(CENTRAL.pack(b"PK\1\2", *fields) + raw + extra)
            count, size, end = len(self._entries), self._at - start, self._at
            if count >= SHORT or start >= LONG or size >= LONG:
                self._write(END64.pack(b"PK\6\6", END64.size - 12, 45, 45, 0, 0, count, count, size, start))
                self._write(LOCATOR64.pack(b"PK\6\7", 0, end, 1))
            few = min(count, SHORT)
            self._write(END.pack(b"PK\5\6", 0, 0, few, few, min(size, LONG), min(start, LONG), 0))
            self._put(self._staged)
            self._end_beside()
            os.fsync(self._fd)
            os.replace(self._temporary, self.path)
        except BaseException:
            self.abort()
            raise
        self._discard.detach()
        os.close(self._fd)
        _sync_folder(os.path.dirname(self.path))

    def abort(self) -> None:
        """Leaves nothing behind but the file that was there before. Does nothing after `commit`."""
        self._end_beside()
        self._discard()

    def _end_beside(self) -> None:
        if self._beside is not None:
            self._beside.shutdown()


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """The system's errors name the file that was to be written, not its temporary one or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def check_replaceable(path: str) -> None:
    """Refuses the name of a folder, a pipe or a device: a file would take its place."""
    if os.path.isdir(path) or os.path.basename(path) in ("", ".", ".."):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "is no regular file", path)


def _reserve(fd: int, at: int, size: int) -> None:
    """Has the file system find room at once, which writes a third faster, and tells a full disk early. Not every one can."""
    if size < RESERVED or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(fd, at, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _remove(fd: int, temporary: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child's exit is none of the writer's business
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        os.close(fd)


def _sync_folder(path: str) -> None:
    """The new name reaches the disk too. Not every file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
