"""N:M weights: pruning to a pattern, to_nm, NMWeight."""

import copy
import pickle

import numpy as np
import pytest
from cases import assert_bits

import edgecomp as ec

f = np.float32
rng = np.random.default_rng(11)
PATTERNS = ["1:1", "1:2", "2:4", "1:4", "3:7", "4:8", "1:16", "16:16", "5:9"]
SHAPES = [(0, 5), (5, 0), (1, 1), (33, 65), (70, 7), (16, 64), (130, 100)]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("block", [1, 16, 32, 64])
def test_pruned_weights_come_back(pattern, block):
    for n, k in SHAPES:
        w = ec.prune(rng.standard_normal((n, k)).astype(f), pattern=pattern, block=block)
        for found in (ec.to_nm(w, pattern, block), ec.to_nm(w, pattern)):
            np.testing.assert_array_equal(found.dequantize(), w)
            assert found.block >= block
            assert found.dequantize(slice(1, 40, 3)).shape == w[1:40:3].shape
            np.testing.assert_array_equal(found.as_csr().dequantize(), w)
        eight = ec.to_nm(w, pattern, block, bits=8)
        np.testing.assert_array_equal(eight.dequantize(), ec.quantize(w).dequantize())
        back = ec.NMWeight.from_arrays(eight.kept_values(), eight.packed, pattern, (n, k), block=block, scale=eight.scale)
        np.testing.assert_array_equal(back.dequantize(), eight.dequantize())


def test_prune_keeps_the_largest_of_each_group():
    w = rng.standard_normal((40, 30)).astype(f)
    kept = ec.prune(w, pattern="3:7")
    for row, pruned in zip(w, kept, strict=True):
        for at in range(0, 30, 7):
            group = np.abs(row[at : at + 7])
            chosen = np.sort(np.argsort(group)[-3:])
            np.testing.assert_array_equal(np.flatnonzero(pruned[at : at + 7]), chosen)
    shared = ec.prune(w, pattern="2:4", block=16)
    for first in (0, 16, 32):
        rows = shared[first : first + 16] != 0
        np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
        size = np.abs(w[first : first + 16].astype(np.float64)).sum(axis=0)
        np.testing.assert_array_equal(np.flatnonzero(rows[0, :4]), np.sort(np.argsort(size[:4])[-2:]))


def test_prune_ties_scores_and_copies():
    np.testing.assert_array_equal(ec.prune(np.ones((1, 4), f), pattern="1:4"), [[0, 0, 0, 1]])
    w = np.ones((2, 4), f)
    np.testing.assert_array_equal(ec.prune(w, pattern="2:4", scores=np.array([[9, 1, 8, 2]] * 2)), [[1, 0, 1, 0]] * 2)
    assert (w == 1).all()
    minus = np.array([[-np.inf, 0, 1, 2, -np.inf]])
    np.testing.assert_array_equal(ec.prune(np.ones((1, 5), f), pattern="3:4", scores=minus), [[0, 1, 1, 1, 1]])


@pytest.mark.parametrize("pattern", ["2:1", "0:4", "2:4:8", "17:32", "2", "a:b", "-1:4", "2:", "", None, 24, "2: 4"])
def test_patterns_that_are_none(pattern):
    with pytest.raises((ValueError, TypeError), match="to_nm: pattern is"):
        ec.to_nm(np.zeros((2, 4), f), pattern)
    if pattern is not None:
        with pytest.raises(ValueError, match="prune: pattern is"):
            ec.prune(np.zeros((2, 4), f), pattern=pattern)


def test_prune_refused():
    w = np.zeros((2, 4), f)
    with pytest.raises(TypeError, match="a sparsity or a pattern"):
        ec.prune(w, 0.5, pattern="2:4")
    with pytest.raises(ValueError, match="sparsity is None"):
        ec.prune(w)
    for block in (0, 2, 17, True, "16"):
        with pytest.raises(ValueError, match="prune: block is"):
            ec.prune(w, pattern="2:4", block=block)
    with pytest.raises(ValueError, match="for a pattern"):
        ec.prune(w, 0.5, block=16)
    with pytest.raises(ValueError, match="for a sparsity"):
        ec.prune(w, pattern="2:4", scope="row")


def test_violations_are_named():
    w = ec.prune(rng.standard_normal((20, 21)).astype(f), pattern="2:4")
    w[7, 8:12] = [1, 0, 1, 1]
    with pytest.raises(ValueError, match=r"to_nm: w breaks 2:4: row 7, group 2 \(inputs 8..11\): 3 non-zeros"):
        ec.to_nm(w, "2:4")
    w = np.zeros((20, 6), f)
    w[16, :2], w[19, 2] = 1, 1
    with pytest.raises(ValueError, match=r"rows 16\.\.19 together, group 0 .* 3 non-zeros"):
        ec.to_nm(w, "2:4", block=16)
    assert ec.to_nm(w, "2:4").block == 1


@pytest.mark.parametrize("block", [16.0, np.float32(16), np.array([16]), np.array([16, 16]), "16", True, 17])
def test_block_is_an_int(block):
    with pytest.raises(ValueError, match=r"to_nm: block is .*, wanted 1, 16, 32 or 64"):
        ec.to_nm(np.zeros((2, 4), f), "2:4", block)
    for sparsity, pattern in ((None, "2:4"), (0.5, None)):
        with pytest.raises(ValueError, match=r"prune: block is .*, wanted 1, 16, 32 or 64"):
            ec.prune(np.zeros((2, 4), f), sparsity, pattern=pattern, block=block)
    for of in (16, np.int64(16), np.uint8(16)):
        assert_bits(ec.prune(np.ones((32, 4), f), pattern="2:4", block=of), np.tile(np.array([0, 0, 1, 1], f), (32, 1)))
        w = ec.to_nm(np.zeros((2, 4), f), "2:4", of)
        assert type(w.block) is int
        assert w.layout == "nm2:4b16"


def test_block_is_found():
    for block in (1, 16, 32, 64):
        assert ec.to_nm(ec.prune(rng.standard_normal((128, 64)).astype(f), pattern="2:4", block=block), "2:4").block == block


def test_memory():
    for block, limits in ((1, (0.54, 0.66)), (16, (0.51, 0.52))):
        w = ec.prune(rng.standard_normal((512, 512)).astype(f), pattern="2:4", block=block)
        assert ec.to_nm(w, "2:4").nbytes <= limits[0] * ec.pack(w).nbytes
        assert ec.to_nm(w, "2:4", bits=8).nbytes <= limits[1] * ec.quantize(w).nbytes


def test_weight_is_frozen_and_copies():
    w = ec.prune(rng.standard_normal((33, 50)).astype(f), pattern="2:4")
    for bits in (None, 8):
        a = ec.to_nm(w, "2:4", bits=bits)
        for b in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
            np.testing.assert_array_equal(b.dequantize(), a.dequantize())
            assert (b.shape, b.pattern, b.block, b.bits, b.layout) == ((33, 50), "2:4", 1, bits or 32, "nm2:4")
        with pytest.raises(AttributeError, match="frozen"):
            a.block = 16
        with pytest.raises(ValueError, match="read-only"):
            a.packed[0, 0, 0] = 1
        before = a.nbytes
        a.as_csr()
        assert a.nbytes == before + a.as_csr().nbytes
        if bits:
            np.testing.assert_array_equal(a.as_int8().dequantize(), a.dequantize())
            assert a.nbytes == before + a.as_csr().nbytes + a.as_int8().nbytes
        assert abs(a.density - 0.5) < 0.05
    with pytest.raises(TypeError, match="made by"):
        ec.NMWeight()


BAD = [
    (ValueError, "pattern is '3:2'", {"pattern": "3:2"}),
    (ValueError, "block is 2", {"block": 2}),
    (ValueError, "block is 16.0", {"block": 16.0}),
    (ValueError, r"block is array\(\[16\]\)", {"block": np.array([16])}),
    (ValueError, "block is None", {"block": None}),
    (TypeError, "shape is 6", {"shape": 6}),
    (ValueError, r"shape is \(1099511627776, 1099511627776\)", {"shape": (2**40, 2**40)}),
    (ValueError, r"shape is \(-2, 6\)", {"shape": (-2, 6)}),
    (ValueError, "values has shape", {"values": np.ones((3, 5), f)}),
    (TypeError, "values has dtype int32", {"values": np.ones((2, 4), np.int32)}),
    (ValueError, r"values\[1, 2\] is nan", {"values": np.array([[1] * 4, [1, 1, np.nan, 1]], f)}),
    (TypeError, "wants a scale", {"values": np.ones((2, 4), np.int8)}),
    (TypeError, "scale is for int8", {"scale": np.ones(2, f)}),
    (ValueError, r"values\[0, 0\] is -128", {"values": np.full((2, 4), -128, np.int8), "scale": np.ones(2, f)}),
    (ValueError, r"scale\[1\] is not finite", {"values": np.ones((2, 4), np.int8), "scale": np.array([1, np.inf], f)}),
    (ValueError, "indices has shape", {"indices": np.zeros((2, 3), int)}),
    (ValueError, r"indices has shape .* wanted \(2, 4\), or uint32 words \(1, 1, 16\)", {"indices": np.zeros((1, 2, 16), np.uint32)}),
    (ValueError, r"group 0 of indices\[0\] has 0 twice", {"indices": np.zeros((1, 1, 16), np.uint32)}),
    (ValueError, "indices has bits beyond its places", {"indices": np.full((1, 1, 16), 0x01000100, np.uint32)}),
    (TypeError, "indices has dtype float32", {"indices": np.zeros((2, 4), f)}),
    (ValueError, "indices is a list whose rows differ in length", {"indices": [[0, 1, 0, 1], [2, 3, 0]]}),
    (ValueError, r"indices has shape \(0,\), wanted \(2, 4\)", {"indices": []}),
    (ValueError, r"indices\[0, 1\] is 4, wanted 0\.\.3 in group 0", {"indices": [[0, 4, 0, 1], [0, 1, 0, 1]]}),
    (ValueError, r"indices\[1, 3\] is 2, wanted 0\.\.1 in group 1", {"indices": [[0, 1, 0, 1], [0, 1, 0, 2]]}),
    (ValueError, r"indices\[0, 0\] is -1", {"indices": [[-1, 1, 0, 1], [0, 1, 0, 1]]}),
    (ValueError, r"group 0 of indices\[1\] has 3 twice", {"indices": [[0, 1, 0, 1], [3, 3, 0, 1]]}),
    (ValueError, r"group 0 of indices\[1\] has 2 after 3", {"indices": [[0, 1, 0, 1], [3, 2, 0, 1]]}),
]


@pytest.mark.parametrize(("error", "message", "change"), BAD)
def test_from_arrays_refuses(error, message, change):
    good = {"values": np.ones((2, 4), f), "indices": [[0, 1, 0, 1], [2, 3, 0, 1]], "pattern": "2:4", "shape": (2, 6)}
    assert ec.NMWeight.from_arrays(**good).shape == (2, 6)
    with pytest.raises(error, match=f"NMWeight.from_arrays: .*{message}"):
        ec.NMWeight.from_arrays(**(good | change))


def test_indices_of_nothing():
    for shape in ((0, 6), (2, 0), (0, 0)):
        values = np.ones((shape[0], 4 if shape[1] else 0), f)  # 2:4 of 6 inputs
        assert ec.NMWeight.from_arrays(values, [[]] * shape[0], "2:4", shape).dequantize().shape == shape
