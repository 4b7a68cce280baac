"""Model files that somebody might send: FormatError that says where, in bounded memory and time; never a crash, never half a result."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from child import run_python

import edgecomp as ec

HOSTILE = Path(__file__).resolve().parent / "hostile"

LOADER = """
    import faulthandler, re, resource, sys, time
    from pathlib import Path
    faulthandler.enable()
    sys.path.insert(0, {hostile!r})
    import craft
    import numpy as np, edgecomp as ec
    path, bad, slowest, count = Path({folder!r}) / "m.npz", [], 0.0, 0
    good = Path({folder!r}) / "good.npz"
    ec.save(good, craft.small())
    ec.load(good, verify="full")  # what threads and imports take
    all_cases = list(craft.cases())
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30) + (600 << 20),) * 2)  # the map of 1 GB, and 600 MB
    for what, rule, made in all_cases:
        craft.write(made, path)
        count += 1
        for mmap, verify in ((True, "full"), (True, "structure"), (False, "structure")):
            if not mmap and path.stat().st_size > 1 << 28:
                continue
            began = time.perf_counter()
            try:
                model = ec.load(path, mmap=mmap, verify=verify)
                for name in model:
                    model[name]
                if verify == "full" or not ("flipped" in what or what.endswith("in full")):
                    bad.append(f"{{what}}: loaded with verify={{verify}}")
            except ec.FormatError as error:
                text = str(error)
                if not text.startswith(str(path)) or not re.search(rule, text) or len(text) > 700 + len(str(path)):
                    bad.append(f"{{what}}: {{text[:300]}} (wanted {{rule}})")
            except BaseException as error:
                bad.append(f"{{what}}: {{type(error).__name__}}: {{error}}"[:300])
            slowest = max(slowest, time.perf_counter() - began)
        path.unlink()
    print(count, round(slowest, 2), *bad, sep="\\n")
"""


def test_every_hostile_file_is_a_format_error(tmp_path: Path) -> None:
    out = run_python(LOADER.format(hostile=str(HOSTILE), folder=str(tmp_path)), timeout=300)
    count, slowest, *bad = out.split("\n")
    assert not bad, "\n".join(bad)
    assert int(count) > 300
    print(f"{count} files, the slowest took {slowest} s", file=sys.stderr)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    sys.path.insert(0, str(HOSTILE))
    try:
        import craft
    finally:
        sys.path.remove(str(HOSTILE))
    ec.save(tmp_path / "m.npz", {"w": craft.small()["int8"], "a": np.arange(3.0)}, {"m": 1})
    return (tmp_path / "m.npz").read_bytes()


def test_cut_anywhere(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ec.FormatError, match=r"cut off|has \d+ bytes"):
            ec.load(path)


def test_flipped_anywhere(whole: bytes, tmp_path: Path) -> None:
    """A flipped bit is found by full verification, or it is where nothing depends on it."""
    path = tmp_path / "m.npz"
    was = {name: np.array(a) for name, a in np.load(io.BytesIO(whole)).items() if name.endswith("npy") or "@" in name}
    found = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            model = ec.load(path, verify="full")
        except ec.FormatError:
            found += 1
            continue
        assert list(model) == ["w", "a"]
        assert model.metadata == {"m": 1}
        assert model["a"].tobytes() == was["a@values"].tobytes()
        for part, a in model["w"].arrays().items():
            assert a.tobytes() == was[f"w@{part}"].tobytes()
    assert found > len(whole) // 2
