"""The shapes that are timed, and what each one has to reach. Shapes are (M, N, K): rows of activations, outputs, inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple


class Shape(NamedTuple):
    """y[m, n] = x[m, k] · wᵀ, w[n, k]."""

    m: int
    n: int
    k: int

    @property
    def operations(self) -> int:
        """A multiply and an add count two."""
        return 2 * self.m * self.n * self.k

    def __str__(self) -> str:
        return f"({self.m},{self.n},{self.k})"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From "M,N,K". ValueError unless these are three whole numbers from 1 on."""
        try:
            shape = cls(*map(int, text.split(",")))
        except (TypeError, ValueError):
            raise ValueError(f"shape {text!r}: wanted three whole numbers M,N,K, for example 512,4096,4096") from None
        if min(shape) < 1:
            raise ValueError(f"shape {text!r}: M, N and K must be 1 or more")
        m, n, k = shape
        largest, memory = 4 * max(m * n, m * k, n * k), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if largest > memory:
            sizes = f"takes {largest / 2**30:.0f} GiB, this machine has {memory / 2**30:.1f}"
            raise ValueError(f"shape {text!r}: its largest matrix, float32, {sizes}")
        return shape


# One token and a few, a small transformer's layers, square matrices, a classifier's last layer.
ALL = tuple(
    Shape(*s)
    for s in (
        (1, 384, 384),
        (1, 4096, 4096),
        (1, 11008, 4096),
        (8, 4096, 4096),
        (32, 1536, 384),
        (64, 10, 784),
        (128, 768, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (1024, 1024, 1024),
        (2048, 2048, 2048),
        (512, 4096, 4096),
    )
)
QUICK = tuple(Shape(*s) for s in ((1, 4096, 4096), (128, 768, 3072), (512, 4096, 4096)))


COLD_WEIGHTS = 1 << 22  # elements: smaller weights stay in some cache in real models too


def temperatures(shape: Shape) -> tuple[bool, ...]:
    """Whether to time a shape with cold weights: one row of activations meets each weight once, and large ones in memory."""
    return (False, True) if shape.m == 1 and shape.n * shape.k >= COLD_WEIGHTS else (False,)


@dataclass(frozen=True)
class Bar:
    """What an op has to reach at a shape.

    op: a function of edgecomp.measure.candidates.
    against: the peak: "dot_s8", "chain_s8", "fma_f32" (operations), "DRAM" (bytes of weights, each call finds them in
        memory), "cache" (bytes of weights that the last call left in the cache), or "time".
    wanted: the share of that peak with 1 and with 2 threads; for "time" the most seconds of a call.
    isa: cap on the instruction sets, as EDGECOMP_ISA; "" for none.
    """

    op: str
    shape: Shape
    against: str
    wanted: tuple[float, ...]
    isa: str = ""

    @property
    def name(self) -> str:
        """For example "linear_int8 (1,4096,4096) DRAM"; unique, and what `--only` searches."""
        return f"{self.op} {self.shape} {self.against}{' ' + self.isa if self.isa else ''}"


BARS = tuple(
    Bar(op, Shape(*shape), against, wanted, isa)
    for op, shape, against, wanted, isa in (
        ("matmul_int8", (512, 4096, 4096), "dot_s8", (0.96, 0.95), ""),
        ("matmul_int8", (2048, 2048, 2048), "dot_s8", (0.96, 0.95), ""),
        ("matmul_int8", (1024, 1024, 1024), "dot_s8", (0.96, 0.95), ""),
        ("linear_int8", (512, 4096, 4096), "dot_s8", (0.955, 0.95), ""),
        ("linear_int8", (2048, 2048, 2048), "dot_s8", (0.95, 0.94), ""),
        ("linear_int8", (1024, 1024, 1024), "dot_s8", (0.935, 0.92), ""),
        ("linear_int8", (128, 768, 3072), "dot_s8", (0.95, 0.93), ""),
        ("linear_int8", (128, 3072, 768), "dot_s8", (0.945, 0.935), ""),
        ("linear_int8", (128, 768, 768), "dot_s8", (0.94, 0.90), ""),
        ("linear_int8", (32, 1536, 384), "dot_s8", (0.86, 0.72), ""),
        ("linear_int8", (8, 4096, 4096), "dot_s8", (0.90, 0.84), ""),
        ("linear_int8", (1, 4096, 4096), "DRAM", (0.95, 0.92), ""),
        ("linear_int8", (1, 11008, 4096), "DRAM", (0.95, 0.92), ""),
        ("linear_int8", (1, 4096, 4096), "cache", (0.80, 0.85), ""),
        ("linear_int8", (1, 384, 384), "time", (4e-6,), ""),
        ("linear_int8", (64, 10, 784), "time", (9e-6,), ""),
        ("linear_int8", (1, 64, 64), "time", (2.5e-6,), ""),
        ("linear_int4", (512, 4096, 4096), "dot_s8", (0.75, 0.73), ""),
        ("linear_int4", (2048, 2048, 2048), "dot_s8", (0.75, 0.73), ""),
        ("linear_int4", (128, 768, 3072), "dot_s8", (0.72, 0.66), ""),
        ("linear_int4", (128, 3072, 768), "dot_s8", (0.72, 0.66), ""),
        ("linear_int4", (128, 768, 768), "dot_s8", (0.69, 0.61), ""),
        ("linear_int4", (32, 1536, 384), "dot_s8", (0.66, 0.66), ""),
        ("linear_int4", (8, 4096, 4096), "dot_s8", (0.70, 0.66), ""),
        ("linear_int4", (1, 4096, 4096), "DRAM", (0.95, 0.93), ""),
        ("linear_int4", (1, 11008, 4096), "DRAM", (0.95, 0.93), ""),
        ("linear_int4", (1, 4096, 4096), "cache", (0.75, 0.65), ""),
        ("linear_int4", (1, 384, 384), "time", (3e-6,), ""),
        ("linear_int4_g128", (512, 4096, 4096), "dot_s8", (0.88, 0.86), ""),
        ("linear_int4_g128", (1, 4096, 4096), "cache", (0.80, 0.80), ""),
        ("linear_int8_g32", (512, 4096, 4096), "dot_s8", (0.74, 0.72), ""),
        ("linear_int8_g32", (1, 4096, 4096), "DRAM", (0.90, 0.90), ""),
        ("linear_int4", (512, 4096, 4096), "chain_s8", (0.85, 0.85), "avx2"),
        ("linear_int4_g128", (512, 4096, 4096), "chain_s8", (0.85, 0.85), "avx2"),
        ("linear_f32", (512, 4096, 4096), "fma_f32", (0.95, 0.93), ""),
        ("linear_f32", (1024, 1024, 1024), "fma_f32", (0.95, 0.93), ""),
        ("linear_f32", (128, 768, 3072), "fma_f32", (0.95, 0.93), ""),
        ("linear_f32", (1, 4096, 4096), "DRAM", (0.92, 0.92), ""),
        ("linear_int8", (512, 4096, 4096), "chain_s8", (0.85, 0.85), "avx2"),
        ("linear_f32", (512, 4096, 4096), "fma_f32", (0.90, 0.90), "avx2"),
    )
)
SCALING = Bar("linear_int8", Shape(512, 4096, 4096), "scaling", (1.93,))  # seconds with 1 thread / with 2
IMPORT_SECONDS = 0.040  # `import edgecomp` beyond `import numpy`

NUMBA = (  # of the speed that C reaches there
    Bar("linear_int8", Shape(512, 4096, 4096), "C by Numba", (0.85, 0.85)),
    Bar("linear_int8", Shape(128, 768, 768), "C by Numba", (0.70, 0.70)),
    Bar("linear_int4", Shape(512, 4096, 4096), "C by Numba", (0.65, 0.65)),
    Bar("linear_f32", Shape(512, 4096, 4096), "C by Numba", (0.80, 0.80)),
    Bar("linear_f32", Shape(128, 768, 768), "C by Numba", (0.70, 0.70)),
)
FIRST_CALL_SECONDS = 1.5  # of a process that imports everything and finds Numba's cache filled
