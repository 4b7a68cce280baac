"""Saving, and what happens meanwhile: killed writers, full disks, other readers; files beyond 4 GiB; pages that processes share."""

import errno
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from child import run_python

import edgecomp as ec
from edgecomp import _zip_writer, crc

OLD = {"w": ec.quantize(np.eye(40, dtype=np.float32)), "tag": np.array(1)}
NEW = {"w": ec.quantize(np.eye(70, dtype=np.float32)), "tag": np.array(2), "more": np.arange(100_000)}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL amid saving: the file is the old one or a new one, whole."""
    out = run_python(
        f"""
        import os, random, signal, sys, time
        import numpy as np, edgecomp as ec
        path, rng = {str(tmp_path / "m.npz")!r}, random.Random(0)
        models = [{{"tag": np.array(i), "a": np.full(200_000 * (i + 1), i)}} for i in range(3)]
        ec.save(path, models[0])
        found, left, turn = set(), [], 0
        while turn < 40 or len(found) < 2 or not left:  # on a busy machine few writers get far
            turn += 1
            child = os.fork()
            if child == 0:
                if turn % 4:
                    os.fsync = lambda fd: None  # so that most of the time is spent elsewhere
                while True:
                    for m in models:
                        ec.save(path, m)
            time.sleep(rng.random() * 0.001 * turn)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            with ec.load(path, verify="full") as m:
                i = int(m["tag"])
                assert (m["a"] == i).all() and len(m["a"]) == 200_000 * (i + 1)
                found.add(i)
            left = [name for name in os.listdir({str(tmp_path)!r}) if name != "m.npz"]
            assert all(name.startswith(".m.npz.") and name.endswith(".tmp") for name in left)
        print("whole")
        """
    )
    assert out == "whole"


class Full:
    """The module os, in which the disk is full from the n-th call on that writes."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in ("writev", "pwrite", "posix_fallocate", "fsync", "replace", "open"):
            return real

        def call(*arguments: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call


def test_disk_full_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.npz"
    ec.save(path, OLD)
    was = path.read_bytes()
    monkeypatch.setattr(_zip_writer, "RESERVED", 1 << 10)
    monkeypatch.setattr(_zip_writer, "BLOCK", 1 << 9)
    failed = 0
    while True:
        full = Full(failed)
        monkeypatch.setattr(_zip_writer, "os", full)
        try:
            ec.save(path, NEW)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
            assert error.filename == str(path)  # noqa: PT017
        else:
            break
        finally:
            monkeypatch.setattr(_zip_writer, "os", os)
        failed += 1
        assert path.read_bytes() == was
        assert os.listdir(tmp_path) == ["m.npz"]
    assert failed > 10
    assert int(ec.load(path, verify="full")["tag"]) == 2


def test_the_same_bytes_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ec.save(tmp_path / "m.npz", NEW)
    for block in (1, 2, 3, 64, 1000, 1 << 16):
        monkeypatch.setattr(_zip_writer, "BLOCK", block)
        monkeypatch.setattr(_zip_writer, "PIECE", 2 * block)
        ec.save(tmp_path / "n.npz", NEW)
        assert (tmp_path / "n.npz").read_bytes() == (tmp_path / "m.npz").read_bytes()


@pytest.mark.parametrize("reserved", [1 << 10, 1 << 40])
def test_file_too_large_for_its_limit(reserved: int, tmp_path: Path) -> None:
    """A real refusal by the kernel, with and without room being reserved."""
    out = run_python(
        f"""
        import os, resource
        import numpy as np, edgecomp as ec
        from edgecomp import _zip_writer, crc
        _zip_writer.RESERVED = {reserved}
        os.chdir({str(tmp_path)!r})
        ec.save("m.npz", {{"a": np.ones(10)}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            ec.save("m.npz", {{"a": np.ones(10), "b": np.ones(1 << 18)}})
        except OSError as error:
            print(os.listdir(), ec.load("m.npz", verify="full")["a"].sum())
        """
    )
    assert out == "['m.npz'] 10.0"


def test_errors_keep_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    ec.save(path, OLD)
    was = path.read_bytes()
    with pytest.raises(TypeError), ec.ModelWriter(path) as writer:
        writer.add("a", object())
    writer = ec.ModelWriter(path)
    writer.add("a", np.ones(3))
    del writer  # neither closed nor aborted
    assert path.read_bytes() == was
    assert os.listdir(tmp_path) == ["m.npz"]
    with pytest.raises(FileNotFoundError, match=r"nowhere/m.npz'"):  # not the temporary file
        ec.save(tmp_path / "nowhere" / "m.npz", OLD)
    with pytest.raises(OSError, match="directory"):
        ec.save(tmp_path, OLD)
    assert os.listdir(tmp_path) == ["m.npz"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # as a device is, whose name root could take
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"is no regular file.*pipe"):
        ec.save(pipe, OLD)
    with pytest.raises(IsADirectoryError) as caught:
        ec.ModelWriter(tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("end", ["/", "/.", "//", "/.."])
@pytest.mark.parametrize("there", [False, True])
def test_the_name_of_a_folder_is_no_file(end: str, there: bool, tmp_path: Path) -> None:
    """A slash at the end says so, whether the folder is there, a file of that name, or nothing."""
    if there:
        ec.save(tmp_path / "m.npz", OLD)
    with pytest.raises(IsADirectoryError) as caught:
        ec.save(f"{tmp_path}/m.npz{end}", NEW)
    assert caught.value.filename == f"{tmp_path}/m.npz{end}"
    assert os.listdir(tmp_path) == ["m.npz"] * there


def test_mode_and_links(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        ec.save(tmp_path / "m.npz", OLD)
    finally:
        os.umask(before)
    assert (tmp_path / "m.npz").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to("m.npz")
    ec.save(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert int(ec.load(tmp_path / "m.npz")["tag"]) == 2


def test_readers_while_a_writer_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    path = tmp_path / "m.npz"
    ec.save(path, OLD)
    seen, wrong, done = set(), [], threading.Event()

    def read(mmap: bool) -> None:
        while not done.is_set():
            try:
                with ec.load(path, mmap=mmap, verify="full") as model:
                    tag, n = int(model["tag"]), model["w"].shape[0]
                    seen.add(tag)
                    if (tag, n) not in ((1, 40), (2, 70)) or not np.array_equal(model["w"].dequantize(), np.eye(n)):
                        wrong.append((tag, n))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(i % 2 == 0,)) for i in range(4)]
    for t in threads:
        t.start()
    for i in range(100):
        ec.save(path, (OLD, NEW)[i % 2])
    done.set()
    for t in threads:
        t.join()
    assert not wrong
    assert seen == {1, 2}


def test_streaming_takes_bounded_memory(tmp_path: Path) -> None:
    out = run_python(
        f"""
        import resource
        import numpy as np, edgecomp as ec
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        one = np.ones((1024, 1024), np.float32)
        with ec.ModelWriter({str(tmp_path / "warm.npz")!r}) as writer:
            writer.add("a", ec.quantize(one)), writer.add("t", one.T)
        before = peak()
        with ec.ModelWriter({str(tmp_path / "m.npz")!r}) as writer:
            for i in range(24):
                writer.add(f"int8.{{i}}", ec.quantize(one))
                writer.add(f"turned.{{i}}", one.T)
        print(peak() - before, ec.load({str(tmp_path / "m.npz")!r}).nbytes)
        """
    )
    grown, written = map(int, out.split())
    assert written > 120e6
    assert grown < 24_000  # KiB


def test_beyond_4_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZIP64, sparse on the disk: what is zero is skipped, not written."""
    put = _zip_writer.Writer._put

    def sparse(self: _zip_writer.Writer, *data: bytes | memoryview) -> None:
        for d in data:
            if np.frombuffer(d, np.uint8).any():
                put(self, d)
            else:
                os.lseek(self._fd, len(d), os.SEEK_CUR)

    monkeypatch.setattr(_zip_writer.Writer, "_put", sparse)
    monkeypatch.setattr(_zip_writer, "RESERVED", 1 << 40)
    monkeypatch.setattr(_zip_writer, "crc32", lambda data, value=0: 0 if len(data) >= 1 << 20 else crc.crc32(data, value))
    path, size = tmp_path / "m.npz", (1 << 32) + 5
    w = ec.quantize(np.arange(300, dtype=np.float32).reshape(10, 30))
    with ec.ModelWriter(path) as writer:
        writer.add("first", w)
        writer.add("large", np.broadcast_to(np.int8(0), (size,)))
        writer.add("last", w)
    assert path.stat().st_size > 1 << 32
    assert path.stat().st_blocks * 512 < 1 << 22
    with ec.load(path) as model:
        assert model["large"].shape == (size,)
        assert model["large"][-1] == 0
        for name in ("first", "last"):
            np.testing.assert_array_equal(model[name].dequantize(), w.dequantize())
    with zipfile.ZipFile(path) as archive:  # others read it too
        assert archive.getinfo("large@values.npy").file_size > 1 << 32
        assert archive.getinfo("last@panels.npy").header_offset > 1 << 32
    with np.load(path) as z:
        np.testing.assert_array_equal(z["last@panels"], w.panels)


def test_processes_share_pages(tmp_path: Path) -> None:
    out = run_python(
        f"""
        import os
        import numpy as np, edgecomp as ec
        path = {str(tmp_path / "m.npz")!r}
        ec.save(path, {{"w": ec.Int8Weight.from_arrays(np.ones((4096, 4096), np.int8), np.ones(4096, np.float32))}})
        x = np.ones((1, 4096), np.float32)
        def share():
            "Rss, Pss and private bytes of the map in KiB, after all of it was read"
            model = ec.load(path)
            w = model["w"]
            ec.linear(x, w)
            def told():
                lines, inside = {{}}, False
                for line in open("/proc/self/smaps"):
                    if "-" in line.split()[0]:
                        inside = line.rstrip().endswith(path)
                    elif inside:
                        lines[line.split()[0]] = line.split()[1]
                return [lines[k] for k in ("Rss:", "Pss:", "Private_Dirty:")]
            return w, told
        down, up = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(down[1])  # so that it ends when we do
            kept = share()
            os.write(up[1], b"x")
            os.read(down[0], 1)
            os._exit(0)
        os.read(up[0], 1)
        w, told = share()
        print(*told())
        os.write(down[1], b"x")
        os.waitpid(child, 0)
        """
    )
    rss, pss, dirty = map(int, out.split())
    assert rss >= 16384
    assert pss < 0.6 * rss
    assert dirty == 0
