"""The container: ZIP files whose members are stored, not deflated. A strict reader of the directory; the writer is _zip_writer."""

import contextlib
import mmap
import os
import re
import stat
import struct
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from edgecomp.errors import FormatError
from edgecomp.packing import aligned_empty

LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
END64, LOCATOR64 = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
SHORT, LONG = 0xFFFF, 0xFFFFFFFF
"""What a field of 16 or 32 bits holds if the value stands in a ZIP64 record."""
MAX_MEMBERS, MAX_DIRECTORY = 1 << 18, 1 << 26
FLAGS = 0x0806
"""Flags that change nothing for us: UTF-8 names, and how hard a compressor has tried."""

_NAME = re.compile(r"(?!/)(?!.*(?:\.\.|//))(?!(?:.*/)?\.(?:/|\Z))[A-Za-z0-9_.:/%@-]+\Z", re.ASCII)


class Source:
    """A file's bytes: mapped, or all read into memory."""

    def __init__(self, path: str, mapped: bool) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # the opening of a named pipe must not wait
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                self.fail("is no regular file")
            self.size = status.st_size
            if self.size < END.size:
                self.fail(f"has {self.size} bytes, too few for a ZIP file")
            self.mapped = mapped
            self.bytes: npt.NDArray[np.uint8]
            if mapped:
                whole = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
                with contextlib.suppress(AttributeError, OSError):
                    whole.madvise(mmap.MADV_HUGEPAGE)  # what comes from the disk: a core that reads 100 MB waits for its page tables
                self.bytes = np.frombuffer(whole, np.uint8)
            else:
                self.bytes = self._read_all()
        except BaseException:
            os.close(self._fd)
            raise

    def _read_all(self) -> npt.NDArray[np.uint8]:
        data = aligned_empty((self.size,), np.uint8)
        room = data.data
        at = 0
        while at < self.size:
            done = os.preadv(self._fd, [room[at : at + (1 << 30)]], at)
            if done == 0:
                self.fail(f"ends after {at} bytes; it had {self.size} when it was opened")
            at += done
        data.flags.writeable = False
        return data

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, which are there. Not through the map: the pages do not become this process's."""
        if self.mapped:
            data = os.pread(self._fd, size, offset)
            if len(data) != size:
                self.fail(f"ends before byte {offset + size}; it had {self.size} bytes when it was opened")
            return data
        return self.bytes[offset : offset + size].tobytes()

    def close(self) -> None:
        """Nothing more is to be read; the map stays as long as a view of it."""
        os.close(self._fd)

    def fail(self, rule: str) -> NoReturn:
        raise FormatError(f"{self.path}: {rule}")


class Member(NamedTuple):
    """A member of the archive: where it stands, and what the directory says of it."""

    name: str
    offset: int
    """Of its local header."""
    size: int
    crc: int


def shown(name: str) -> str:
    """A name from a file, in a message."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


class Archive:
    """The directory of a file: its members by name. FormatError if it is not that of an archive of stored members."""

    AHEAD = 448
    """Bytes read with a local header: most have their .npy header in these."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.members: dict[str, Member] = {}
        self._starts: dict[str, int] = {}
        start = self._read_directory()
        self._next: dict[str, int] = {}
        """Where the bytes end that a member may have."""
        end, before = 0, ""
        for m in sorted(self.members.values(), key=lambda m: m.offset):
            if m.offset < end:
                source.fail(f"member {shown(m.name)}: overlaps {shown(before)}")
            self._next[before] = m.offset
            end, before = m.offset + LOCAL.size + len(m.name) + m.size, m.name
        self._next[before] = start

    def _read_directory(self) -> int:
        source = self.source
        start, size, count = _end(source)
        data = source.read(start, size)
        at = 0
        for i in range(count):
            if at + CENTRAL.size > size or data[at : at + 4] != b"PK\1\2":
                source.fail(f"directory: entry {i} of {count} is missing")
            fields = CENTRAL.unpack_from(data, at)
            flags, method, crc, packed, unpacked, n_name, n_extra, n_comment, disk, offset = (*fields[3:5], *fields[7:14], fields[16])
            at += CENTRAL.size
            after = at + n_name + n_extra + n_comment
            if after > size:
                source.fail(f"directory: entry {i} of {count} reaches beyond its end")
            name = data[at : at + n_name].decode("latin-1")
            rule = ""
            if LONG in (packed, unpacked, offset):
                try:
                    unpacked, packed, offset = _wide(data[at + n_name : at + n_name + n_extra], unpacked, packed, offset)
                except ValueError as error:
                    rule = str(error)
            rule = rule or _refuse(name, flags, method, packed, unpacked, disk)
            if name in self.members:
                rule = "comes twice"
            elif offset + LOCAL.size + n_name + unpacked > start:
                rule = rule or f"{unpacked} bytes from byte {offset} on reach beyond the directory, which begins at byte {start}"
            if rule:
                source.fail(f"member {shown(name)}: {rule}")
            self.members[name] = Member(name, offset, unpacked, crc)
            at = after
        if at != size:
            source.fail(f"directory: {size - at} bytes follow its {count} entries")
        return start

    def data(self, m: Member) -> tuple[int, bytes]:
        """The byte at which the data of a member begin, and the first of them. Its local header has to say what the directory says."""
        source = self.source
        ahead = min(self.AHEAD, source.size - m.offset)
        head = source.read(m.offset, ahead)
        _, _, flags, method, _, _, crc, packed, unpacked, n_name, n_extra = LOCAL.unpack_from(head)
        skip = LOCAL.size + n_name + n_extra
        start, end = m.offset + skip, self._next[m.name]
        if head[:4] != b"PK\3\4" or start > end:
            source.fail(f"member {shown(m.name)}: has no local header at byte {m.offset}")
        if skip > ahead:
            head = source.read(m.offset, skip)
        if head[LOCAL.size : LOCAL.size + n_name] != m.name.encode("latin-1"):
            source.fail(f"member {shown(m.name)}: the local header at byte {m.offset} has another name")
        if LONG in (packed, unpacked):
            try:
                unpacked, packed, _ = _wide(head[LOCAL.size + n_name : skip], unpacked, packed, 0)
            except ValueError as error:
                source.fail(f"member {shown(m.name)}: local header: {error}")
        if flags & ~FLAGS or method or (packed, unpacked, crc) != (m.size, m.size, m.crc):
            source.fail(f"member {shown(m.name)}: its local header and the directory differ")
        if start + m.size > end:
            source.fail(f"member {shown(m.name)}: overlaps what follows it")
        self._starts[m.name] = start
        return start, head[skip : skip + m.size]

    def start(self, m: Member) -> int:
        """The byte at which the data of a member begin."""
        at = self._starts.get(m.name)
        return self.data(m)[0] if at is None else at


def _refuse(name: str, flags: int, method: int, packed: int, unpacked: int, disk: int) -> str:
    """Why such a member is not taken, "" if it is."""
    if not _NAME.match(name):
        return "the name is empty, absolute, has . or .. for a folder, or characters other than A-Z a-z 0-9 _ . : / % @ -"
    if method:
        return f"is compressed (method {method}), wanted stored members"
    if flags & ~FLAGS:
        return f"has flags {flags:#06x}: encrypted, patched or with a data descriptor"
    if packed != unpacked:
        return f"has {packed} bytes in the file and {unpacked} without compression, wanted the same"
    return "begins on another disk" if disk else ""


def _end(source: Source) -> tuple[int, int, int]:
    """Where the directory begins, its bytes, its entries."""
    before = min(source.size, LOCATOR64.size + END.size + SHORT)
    tail = source.read(source.size - before, before)
    at = tail.rfind(b"PK\5\6")
    while at >= 0 and (at + END.size > len(tail) or at + END.size + END.unpack_from(tail, at)[7] != len(tail)):
        at = tail.rfind(b"PK\5\6", 0, at)
    if at < 0:
        source.fail("is no ZIP file, or is cut off: it has no end record")
    _, disk, first_disk, here, count, size, start, _ = END.unpack_from(tail, at)
    end = source.size - len(tail) + at
    locator = at - LOCATOR64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        end -= LOCATOR64.size + END64.size
        if LOCATOR64.unpack_from(tail, locator)[2] != end or end < 0:
            source.fail("end record: the ZIP64 record is not in front of its locator")
        fields = END64.unpack(source.read(end, END64.size))
        if fields[0] != b"PK\6\6" or fields[1] != END64.size - 12:
            source.fail("end record: the ZIP64 record is malformed")
        disk, first_disk, here, count, size, start = fields[4:]
    if disk or first_disk or here != count:
        source.fail("end record: the archive is spread over several disks")
    if start + size != end:
        source.fail(f"end record: a directory of {size} bytes from byte {start} on does not end at byte {end}, where the end record is")
    if size > MAX_DIRECTORY or count > MAX_MEMBERS or count * CENTRAL.size > size:
        source.fail(f"end record: {count} members in a directory of {size} bytes; at most {MAX_MEMBERS} in {MAX_DIRECTORY} are read")
    return start, size, count


def _wide(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The sizes and the offset, those that are 0xFFFFFFFF from the ZIP64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1 and at + length <= len(extra):
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at))
            try:
                unpacked, packed, offset = (next(wide) if field == LONG else field for field in (unpacked, packed, offset))
            except (StopIteration, RuntimeError):
                raise ValueError("its ZIP64 field is too short") from None
            return unpacked, packed, offset
        at += length
    raise ValueError("its ZIP64 field is missing or cut off")
