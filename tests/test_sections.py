"""Many rows of long x, whose activations are taken in sections: the bits of a row are those it has in any other call."""

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec

M, N, K = 1100, 80, 4096  # 4.5 MB of int8, 18 MB of float32
rng = np.random.default_rng(23)
X, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (N, K)))
PRUNED = ec.prune(W, pattern="2:4", block=16)

WEIGHTS = {
    "gemm_f32": lambda: ec.pack(W),
    "gemm_s8c": lambda: ec.quantize(W),
    "gemm_s4g": lambda: ec.quantize(W, bits=4, group_size=32),
    "gemm_s8g": lambda: ec.quantize(W, bits=8, group_size=32),
    "spmm_nm": lambda: ec.to_nm(PRUNED, "2:4", block=16),
    "spmm_nm8": lambda: ec.to_nm(PRUNED, "2:4", block=16, bits=8),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("op", WEIGHTS)
def test_sections_change_no_bit(op, threads):
    w = WEIGHTS[op]()
    parts = [ec.linear(X[i : i + 100], w, activation="relu", threads=1) for i in range(0, M, 100)]
    assert_bits(ec.linear(X, w, activation="relu", threads=threads), np.concatenate(parts))
