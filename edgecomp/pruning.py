"""Making zeros: single weights, and whole channels along a chain of layers."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecomp import arrays
from edgecomp.arguments import integer, one_of
from edgecomp.quantization import weight_array
from edgecomp.weights import Float32


def _share(sparsity: Any, where: str) -> float:
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float, np.floating)) or not 0 <= sparsity <= 1:
        raise ValueError(f"{where}: sparsity is {sparsity!r}, wanted a share in 0..1")
    return float(sparsity)


def _count(share: float, size: int) -> int:
    """That share of size, to the nearest whole number."""
    return int(np.floor(share * size + 0.5))


def _smallest(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    """Which `count` of a vector of scores are the smallest; among equal ones those that come first."""
    if count == 0:
        return np.zeros(scores.shape, bool)
    limit = np.partition(scores, count - 1)[count - 1]
    chosen = scores < limit
    equal = np.flatnonzero(scores == limit)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return np.asarray(chosen, bool)


def read_pattern(pattern: Any, where: str) -> tuple[int, int]:
    """(n, m) of "n:m", 1 <= n <= m <= 16."""
    parts = pattern.split(":") if isinstance(pattern, str) else []
    if len(parts) == 2 and all(part.isascii() and part.isdecimal() and len(part) <= 2 for part in parts):
        n, m = int(parts[0]), int(parts[1])
        if 1 <= n <= m <= 16:
            return n, m
    raise ValueError(f'{where}: pattern is {pattern!r}, wanted "n:m" with 1 <= n <= m <= 16')


BLOCKS = (1, 16, 32, 64)
"""Neighbouring outputs that may share a pattern."""


def check_block(block: Any, where: str) -> int:
    return integer(f"{where}: block", block, BLOCKS, "1, 16, 32 or 64")


def _outside_pattern(ranks: npt.NDArray[Any], pattern: str, block: int) -> npt.NDArray[np.bool_]:
    """Which weights a pattern leaves out: in each group all but the n whose ranks, added up over the rows of a block, are largest."""
    n, m = read_pattern(pattern, "prune")
    rows, k = ranks.shape
    starts = np.arange(0, rows, block)
    with np.errstate(over="ignore", invalid="ignore"):
        parts = ranks.astype(np.float64) / block  # a power of two: sums that do not overflow, ranked as they were
        shared = np.add.reduceat(parts, starts, axis=0) if rows else np.zeros((0, k))
    if np.isnan(shared).any():
        at, column = np.argwhere(np.isnan(shared))[0]
        last = min(starts[at] + block, rows) - 1
        raise ValueError(f"prune: scores has inf and -inf for input {column} in rows {starts[at]}..{last}, which share a pattern")
    outside = np.zeros(shared.shape, bool)
    whole = k // m * m
    for part, size in ((slice(0, whole), m), (slice(whole, k), k - whole)):
        if size > n:  # a short last group may have room for all
            groups = shared[:, part].reshape(-1, size)
            least = np.argsort(groups, axis=1, kind="stable")[:, : size - n]
            chosen = np.zeros(groups.shape, bool)
            np.put_along_axis(chosen, least, True, axis=1)
            outside[:, part] = chosen.reshape(len(shared), part.stop - part.start)
    return np.repeat(outside, np.diff(np.append(starts, rows)), axis=0)


def prune(
    w: Any, sparsity: float | None = None, *, pattern: str | None = None, block: int = 1, scores: Any = None, scope: str = "tensor"
) -> Float32:
    """A copy of w in which the least important weights are zeros: a share of them, or all but n of each m neighbouring inputs.

    Args:
        w: float32 [N, K] (out_features, in_features), finite.
        sparsity: share of the weights that become zeros, 0..1; rounded to whole weights.
        pattern: instead of a sparsity: "n:m" with 1 <= n <= m <= 16 keeps n of each m inputs of an output. Where m does not divide K the
            last group is short and keeps n too, or all that it has.
        block: 1, 16, 32 or 64 neighbouring outputs keep the same inputs, those whose scores are the largest when added up. The last block
            is short where N is no multiple. For a pattern only.
        scores: importance of each weight, real numbers [N, K] without NaN, and with a block without both inf and -inf for an input; by
            default the magnitude. Among equal scores the first go.
        scope: "tensor" ranks all weights together; "row" those of each output by themselves, so that all outputs keep the same number.
            For a sparsity only.

    Returns:
        float32 [N, K].

    Raises:
        TypeError, ValueError: not a finite float matrix; scores of another shape or with NaN; a sparsity outside 0..1; a pattern that is
            none, a block of another size; both sparsity and pattern, or neither.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> ec.prune(np.array([[1, -5], [3, 2]], np.float32), 0.5)
        array([[ 0., -5.],
               [ 3.,  0.]], dtype=float32)
        >>> ec.prune(np.array([[1, -5, 3, 2]], np.float32), pattern="2:4")
        array([[ 0., -5.,  3.,  0.]], dtype=float32)
    """
    a = weight_array(w, "prune")
    if sparsity is not None and pattern is not None:
        raise TypeError("prune: wanted a sparsity or a pattern, not both")
    one_of("prune: scope", scope, ("tensor", "row"))
    block = check_block(block, "prune")
    if pattern is None and block != 1:
        raise ValueError(f"prune: block is {block!r}, which is for a pattern")
    if pattern is not None and scope != "tensor":
        raise ValueError(f"prune: scope is {scope!r}, which is for a sparsity")
    ranks: npt.NDArray[Any] = np.abs(a)
    if scores is not None:
        ranks = arrays.to_numpy(scores, "prune: scores")
        if ranks.dtype.kind not in "fiu":
            raise TypeError(f"prune: scores has dtype {ranks.dtype}, wanted real numbers")
        if ranks.shape != a.shape:
            raise ValueError(f"prune: scores has shape {ranks.shape}, w {a.shape}")
        if np.isnan(ranks).any():
            raise ValueError("prune: scores has NaN")
    out = np.array(a, order="C")
    if pattern is not None:
        out[_outside_pattern(ranks, pattern, block)] = 0
        return out
    share = _share(sparsity, "prune")
    if scope == "tensor":
        out.reshape(-1)[_smallest(ranks.reshape(-1), _count(share, a.size))] = 0
        return out
    count = _count(share, a.shape[1])
    for row, rank in zip(out, ranks, strict=True):
        row[_smallest(rank, count)] = 0
    return out


def prune_channels(
    layers: Mapping[str, Any], chain: Sequence[str], sparsity: float, *, scores: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Removes whole output channels (neurons), so that arrays get smaller: the next layer's inputs follow.

    Args:
        layers: arrays by name: weights float32 [N, K] under the names in `chain`, the bias of "fc1" as "fc1.bias" if it has one (or
            None), and so that of "fc1.weight", as in a state dict. Others pass through. Weights of a convolution come as
            [N, C * height * width].
        chain: names of layers in the order they run, each reading the outputs of the one before. Each but the last loses channels. A
            layer may read r inputs for each output of the one before (K = r * N, a flattened image): they go together.
        sparsity: share of the channels to remove in each, 0..1; at least one stays.
        scores: importance of the channels, name -> real numbers [N] without NaN; for some of the layers that lose channels, or all. By
            default the Euclidean length of a channel's weights. Among equal scores the first go.

    Returns:
        A new dict of the same names.

    Raises:
        KeyError: a name in `chain` that is no layer, or in `scores` that loses no channels.
        TypeError, ValueError: arrays that do not fit each other or are not finite; a layer that is twice in the chain; "fc1.bias"
            beside both "fc1" and "fc1.weight"; a sparsity outside 0..1.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> layers = {"a": np.array([[1, 1], [9, 9]], np.float32), "a.bias": np.zeros(2, np.float32), "b": np.ones((3, 2), np.float32)}
        >>> small = ec.prune_channels(layers, ["a", "b"], 0.5)
        >>> small["a"], small["a.bias"].shape, small["b"].shape
        (array([[9., 9.]], dtype=float32), (1,), (3, 1))
    """
    where = "prune_channels"
    share = _share(sparsity, where)
    if not isinstance(layers, Mapping):
        raise TypeError(f"{where}: layers is a {type(layers).__name__}, wanted a mapping of names to arrays")
    names = isinstance(chain, Sequence) and not isinstance(chain, str) and all(isinstance(name, str) for name in chain)
    if not names or len(chain) < 2 or len(set(chain)) != len(chain):
        raise ValueError(f"{where}: chain is {chain!r}, wanted at least two different names of layers")
    for name in chain:
        if name not in layers:
            raise KeyError(f"{where}: chain names {name!r}, which is no layer")
    if scores is not None and not isinstance(scores, Mapping):
        raise TypeError(f"{where}: scores is a {type(scores).__name__}, wanted a mapping of names to arrays")
    for name in scores or ():
        if name not in chain[:-1]:
            raise KeyError(f"{where}: scores names {name!r}, which loses no channels")
    out = dict(layers)
    out.update({name: weight_array(layers[name], f"{where}: {name}") for name in chain})
    for name, following in itertools.pairwise(chain):
        a, b = out[name], out[following]
        n, k = len(a), b.shape[1]
        if n == 0 or k % n:
            raise ValueError(f"{where}: {name!r} has {n} outputs, {following!r} {k} inputs, wanted a multiple")
        ranks = np.linalg.norm(a.astype(np.float64), axis=1)
        if scores is not None and name in scores:
            ranks = _channel_scores(scores[name], n, f"{where}: scores[{name!r}]")
        keep = ~_smallest(ranks, min(_count(share, n), n - 1))
        out[name] = a[keep]
        bias = _bias_name(name, layers)
        if layers.get(bias) is not None:
            out[bias] = arrays.vector(layers[bias], n, f"{where}: {bias}")[keep]
        out[following] = b[:, np.repeat(keep, k // n)]
    return out


def _bias_name(name: str, layers: Mapping[str, Any]) -> str:
    """What the bias of a layer is called, if it has one: "fc1.bias", of "fc1" and of "fc1.weight"."""
    own, layer = f"{name}.bias", name.removesuffix(".weight")
    bias = f"{layer}.bias"
    if bias not in layers or bias == own:
        return own
    for other in (layer, own):
        if other in layers:
            raise ValueError(f"prune_channels: {bias!r} is not clearly the bias of {name!r}: there is {other!r} too")
    return bias


def _channel_scores(scores: Any, n: int, where: str) -> npt.NDArray[Any]:
    a = arrays.of_numbers(scores, where)
    if a.dtype.kind not in "fiu":
        raise TypeError(f"{where} has dtype {a.dtype}, wanted real numbers")
    if a.shape != (n,):
        raise ValueError(f"{where} has shape {a.shape}, wanted ({n},)")
    if np.isnan(a).any():
        raise ValueError(f"{where} has NaN")
    return a
