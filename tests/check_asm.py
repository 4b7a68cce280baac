"""Do the microkernels keep their sums in registers? Reads what gcc made of them.

A compiler that spills the sums of a tile costs a factor of two and changes no result, so no other test notices. This one
builds every x86 microkernel as the extension does, disassembles it, finds the innermost loops that do the arithmetic, and
wants no vector load from the stack and no vector store to it inside them.

    python tests/check_asm.py
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"
NOTHING, READS, ALL = range(3)  # what a loop may do on the stack
# What a loop of the op must contain to count; how many of it in the largest loop (the sums of the largest tile: fewer mean
# that the tile was not unrolled); and what is no spilled sum: constants and a row's scale, of which there are more than
# registers, in the AMX tile of int4 the sums that tiles store, in the AVX2 quantiser the bytes on their way to the panel, in the
# grouped AVX2 tiles the sums, by design, a few of them where AVX2 multiplies grouped weights with three rows of floats, and the
# sums in double and row ends of the distillation loss, the squares that are turned on their way to rows, the last entries of a
# weight, copied to where a whole turn may be read, and the last 16 bytes of a CRC, which gcc's order of blocks draws into what
# looks like a loop.
WORK = {
    ("gemm_s8c", "avx2"): ("vpmaddubsw", 12, NOTHING),
    ("gemm_s8c", "avxvnni"): ("vpdpbusd", 12, NOTHING),
    ("gemm_s8c", "avx512vnni"): ("vpdpbusd", 24, NOTHING),
    ("gemm_s4g", "avx2"): ("vpmaddubsw", 8, ALL),
    ("gemm_s4g", "avx512vnni"): ("vpdpbusd", 24, NOTHING),
    ("gemm_s4g", "avx512fp16"): ("vpdpbusd", 24, NOTHING),
    ("gemm_s8c", "amx"): ("tdpbusd", 4, NOTHING),
    ("gemm_s4g", "amx"): ("vcvtdq2ps", 16, READS),
    ("gemm_s8g", "avx2"): ("vpmaddubsw", 8, ALL),
    ("gemm_s8g", "avx512vnni"): ("vpdpbusd", 12, NOTHING),
    ("quantize_groups", "avx2"): ("vcvtps2dq", 2, NOTHING),
    ("quantize_groups", "avx512"): ("vcvtps2dq", 4, READS),
    ("gemm_f32", "avx2"): ("vfmadd", 12, NOTHING),
    ("gemm_f32", "avx512"): ("vfmadd", 24, NOTHING),
    ("expand_s8", "avx2"): ("vcvtdq2ps", 2, NOTHING),
    ("expand_sg", "avx2"): ("vcvtdq2ps", 1, READS),
    ("expand_sg", "avx512"): ("vcvtdq2ps", 1, NOTHING),
    ("gemv_sg", "avx2"): ("vfmadd", 32, ALL),
    ("gemv_sg", "avx512"): ("vfmadd", 48, READS),
    ("transpose_f32", "avx2"): ("vunpck", 8, NOTHING),
    ("spmm_csr", "avx2"): ("vfmadd", 8, NOTHING),
    ("spmv_csr", "avx2"): ("vfmadd", 4, NOTHING),
    ("spmm_csr", "avx512"): ("vfmadd", 8, NOTHING),
    ("spmv_csr", "avx512"): ("vfmadd", 1, ALL),
    ("spmv_csr", "avx512fp16"): ("vfmadd", 1, NOTHING),
    ("spmv_masks8", "avx512vnni"): ("vpdpbusd", 16, NOTHING),
    ("csr8_panels", "avx512vnni"): ("vpexpandb", 1, NOTHING),
    ("csr_pairs", "avx512"): ("vfmadd", 16, NOTHING),
    ("csr_turn", "avx512"): ("vshuff", 32, ALL),
    ("spmv_masks", "avx2"): ("vfmadd", 4, NOTHING),
    ("spmv_masks", "avx512"): ("vfmadd", 2, NOTHING),
    ("spmm_masks", "avx512"): ("vfmadd", 32, NOTHING),
    ("spmm_csr8", "avx2"): ("vpmaddwd", 4, NOTHING),
    ("spmm_csr8", "avxvnni"): ("vpdpbusd", 4, NOTHING),
    ("spmm_csr8", "avx512vnni"): ("vpdpbusd", 4, NOTHING),
    ("spmm_nm", "avx2"): ("vfmadd", 12, NOTHING),
    ("spmm_nm", "avx512"): ("vfmadd", 12, NOTHING),
    ("nm_lanes", "avx512fp16"): ("vfmadd", 16, NOTHING),
    ("nm_rows", "avx512"): ("vfmadd", 8, NOTHING),
    ("nm_inputs", "avx512"): ("vpsrlvd", 1, NOTHING),
    ("spmm_nm8", "avx2"): ("vpmaddubsw", 8, READS),
    ("spmm_nm8", "avx512vbmi"): ("vpdpbusd", 16, NOTHING),
    ("planes_s8", "avx512vnni"): ("vpdpbusd", 24, NOTHING),
    ("planes_s8", "avx512fp16"): ("vpdpbusd", 24, NOTHING),
    ("gather_s8", "avx2"): ("vpshufb", 4, NOTHING),
    ("quantize_rows", "avx2"): ("vcvtps2dq", 1, ALL),
    ("quantize_rows", "avx512"): ("vcvtps2dq", 8, READS),
    ("activation", "avx2"): ("vfmadd", 5, READS),
    ("activation", "avx512"): ("vfmadd", 5, READS),
    ("kd_loss", "avx2"): ("vfmadd", 16, ALL),
    ("kd_loss", "avx512"): ("vfmadd", 16, ALL),
    ("crc32", "avx2"): ("vpclmul", 8, ALL),
    ("crc32", "avx512"): ("vpclmul", 8, ALL),
    ("roof", "amx"): ("tdpbusd", 4, NOTHING),
    ("roof", "avx2"): ("vfmadd|vpmaddwd", 8, NOTHING),
    ("roof", "avxvnni"): ("vpdpbusd", 12, NOTHING),
    ("roof", "avx512"): ("vfmadd", 12, NOTHING),
    ("roof", "avx512vnni"): ("vpdpbusd", 12, NOTHING),
}


@dataclass(frozen=True)
class Instruction:
    function: str
    address: int
    name: str
    operands: str

    def stores(self) -> bool:
        """The destination is the last operand, but for a mask in braces."""
        return bool(re.search(r"\)(\{%k\d\})?$", self.operands))


@dataclass
class Report:
    """What the working loops of one file hold."""

    file: str
    wanted: int
    allowed: int
    loops: int = 0
    largest: int = 0
    work: set[Instruction] = field(default_factory=set)
    on_stack: set[Instruction] = field(default_factory=set)

    @property
    def problem(self) -> str:
        if not self.loops:
            return "no loop with the kernel's arithmetic found"
        if self.largest < self.wanted:
            return f"the largest loop has {self.largest} arithmetic instructions instead of {self.wanted}: not unrolled"
        bad = [i for i in self.on_stack if self.allowed == NOTHING or (self.allowed == READS and i.stores())]
        return f"{len(bad)} on the stack, one at {bad[0].address:x}: {bad[0].name} {bad[0].operands}" if bad else ""


def flags() -> list[str]:
    """The extension's own."""
    found = re.search(r"^FLAGS = \[(.*?)\]", (CSRC / "build_cffi.py").read_text(), re.M | re.S)
    assert found, "build_cffi.py has no FLAGS"
    return re.findall(r'"([^"]+)"', found.group(1))


def disassemble(source: Path) -> list[list[Instruction]]:
    """The functions of a compiled file."""
    with tempfile.TemporaryDirectory() as folder:
        obj = str(Path(folder, "kernel.o"))
        subprocess.run(["gcc", *flags(), "-fPIC", "-DNDEBUG", "-c", str(source), "-o", obj], check=True)
        text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", obj], check=True, capture_output=True, text=True).stdout
    functions: dict[str, list[Instruction]] = {}
    name = ""
    for line in text.splitlines():
        if found := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            name = found.group(1)
            functions[name] = []
        elif found := re.match(r"\s*([0-9a-f]+):\s+(?:\{e?vex\} +)?(\S+)\s*([^#]*)", line):
            functions[name].append(Instruction(name, int(found.group(1), 16), found.group(2), found.group(3).strip()))
    return list(functions.values())


def working_loops(function: list[Instruction], pattern: str) -> list[list[Instruction]]:
    """What lies between the target of a jump backwards and the jump, if it does the work and holds no smaller such loop."""
    loops = {}
    for jump in function:
        if jump.name.startswith("j") and (target := re.match(r"([0-9a-f]+) <", jump.operands)):
            start = int(target.group(1), 16)
            if function[0].address <= start <= jump.address:
                body = [i for i in function if start <= i.address <= jump.address]
                if any(re.match(pattern, i.name) for i in body):
                    loops[start, jump.address] = body
    return [body for (s, e), body in loops.items() if not any((s, e) != (t, f) and s <= t and f <= e for t, f in loops)]


def on_stack(loop: list[Instruction], frame_pointer: bool) -> list[Instruction]:
    """Vector instructions with an operand on the stack; %rbp is one more general register without a frame pointer."""
    stack = r"\(%(rsp|rbp)[,)]" if frame_pointer else r"\(%rsp[,)]"
    return [i for i in loop if i.name.startswith("v") and re.search(stack, i.operands)]


def check(source: Path, op: str, isa: str) -> Report:
    pattern, wanted, allowed = WORK[op, isa]
    report = Report(f"{source.parent.name}/{source.name}", wanted, allowed)
    for function in disassemble(source):
        frame_pointer = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in function)
        for loop in working_loops(function, pattern):
            work = [i for i in loop if re.match(pattern, i.name)]
            report.loops += 1
            report.largest = max(report.largest, len(work))
            report.work.update(work)
            report.on_stack.update(on_stack(loop, frame_pointer))
    return report


def kernels() -> list[tuple[Path, str, str]]:
    """Every x86 microkernel, which is a file with an x86 target region: file, op, ISA."""
    found = []
    for source in sorted(CSRC.glob("*/*.c")):
        text = source.read_text()
        if "EC_TARGET_BEGIN" in text and "#ifdef EC_X86" in text:
            name = re.fullmatch(r"(\w+?)_(avx2|avxvnni|avx512|avx512vnni|avx512vbmi|avx512fp16|amx)(_\w+)?", source.stem)
            assert name, f"{source.name}: the name does not say its op and ISA"
            found.append((source, name.group(1), name.group(2)))
    return found


def main() -> int:
    found = kernels()
    absent = WORK.keys() - {(op, isa) for _, op, isa in found}
    print(f"{'file':44} {'loops':>6} {'arithmetic':>11} {'on stack':>9}" + (f"  no file is {sorted(absent)}" if absent else ""))
    failed = len(absent)
    for source, op, isa in found:
        report = check(source, op, isa)
        print(f"{report.file:44} {report.loops:6} {len(report.work):11} {len(report.on_stack):9}  {report.problem}")
        failed += bool(report.problem)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
