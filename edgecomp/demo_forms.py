"""The forms that `edgecomp demo` compares: one line of FORMS each, by which its accuracy, bytes and speed are measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import edgecomp as ec
from edgecomp.demo_train import Float32


@dataclass(frozen=True)
class Form:
    """A form that weights can have.

    name: for tables.
    make: gives it from a float32 array [N, K].
    op: its name in edgecomp.measure.OPS, which times it in large layers; "" if those cannot have it.
    pruned: how the network was pruned before, a name of edgecomp.demo_prune.WAYS; "" for not at all.
    """

    name: str
    make: Callable[[Float32], Any]
    op: str
    pruned: str = ""


FORMS = (  # the first two are what the others are compared with
    Form("NumPy float32", np.ascontiguousarray, "numpy_f32"),
    Form("float32 packed", ec.pack, "linear_f32"),
    Form("int8", functools.partial(ec.quantize, bits=8), "linear_int8"),
    Form("int4", functools.partial(ec.quantize, bits=4, group_size=32), "linear_int4"),
    Form("CSR 90 %", ec.to_csr, "linear_csr", "90 % zeros"),
    Form("CSR 90 % int8", functools.partial(ec.to_csr, bits=8), "linear_csr8", "90 % zeros"),
    Form("2:4", functools.partial(ec.to_nm, pattern="2:4", block=1), "linear_nm", "2:4"),
    Form("2:4 int8", functools.partial(ec.to_nm, pattern="2:4", block=1, bits=8), "linear_nm8", "2:4"),
    Form("2:4 block 16", functools.partial(ec.to_nm, pattern="2:4", block=16), "linear_nm_b16", "2:4, blocks of 16"),
    Form("half as wide", ec.pack, "", "half the neurons"),  # last: large layers have one bar less
)
LARGE = tuple(form for form in FORMS if form.op)
