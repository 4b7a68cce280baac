"""The cffi build: reads the public header, finds the sources. setup.py names `ffi` in cffi_modules."""

import os
import re
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent
ROOT = CSRC.parent
# -g0: Python's own flags ask for debug information, nine tenths of the library's bytes. -falign-functions: a kernel may lose a tenth
# where the linker happens to put it.
FLAGS = ["-std=c11", "-g0", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden",
         "-falign-functions=64"]  # fmt: skip

header = (CSRC / "edgecomp.h").read_text()
cdef = re.search(r"/\* cdef \*/(.*)/\* end cdef \*/", header, re.S)
assert cdef, "edgecomp.h has lost its cdef markers"

ffi = FFI()
ffi.cdef(cdef.group(1))
ffi.set_source(
    "edgecomp._edgecomp_c",
    '#include "edgecomp.h"',
    sources=sorted(str(p.relative_to(ROOT)) for p in CSRC.rglob("*.c")),
    depends=sorted(str(p.relative_to(ROOT)) for p in CSRC.rglob("*.h")),
    include_dirs=["csrc"],
    define_macros=[("NDEBUG", None)],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    libraries=["m"],
    # Without a compiler the package still installs, and runs on NumPy. Wheels and CI must not get there unnoticed.
    optional=os.environ.get("EDGECOMP_REQUIRE_C", "0") != "1",
)
