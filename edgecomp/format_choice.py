"""Which form of a weight is fastest on this machine: measured, not guessed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecomp import arrays, backend, pool
from edgecomp.arguments import POSITIVE, flag, integer
from edgecomp.ops import linear
from edgecomp.quantization import weight_array
from edgecomp.weights import Float32, Weight

if TYPE_CHECKING:
    from edgecomp.measure.forms import Form

GAIN = 1.03
"""How many times dense float32's speed a form has to reach to be chosen: less may be noise."""
MOST_ROWS = 512
"""Rows of x that are timed at most: more do not change which form is fastest."""
SAMPLE = 32
"""Rows of standard normal x whose output tells the error."""
BUCKET = math.log(1.05)
"""Weights whose densities are as close share what was measured."""


@dataclass(frozen=True)
class FormatRow:
    """A form in the table of `compare_formats`: `seconds` of a call, None if its `error` is too large or it was not measured."""

    form: str
    seconds: float | None
    error: float | None


@dataclass(frozen=True)
class FormatComparison:
    """What `compare_formats` found: print it, or read the fields. `weight` is in the form `best`."""

    shape: tuple[int, int]
    batch: int
    threads: int
    best: str
    rows: tuple[FormatRow, ...]
    weight: Weight

    def __str__(self) -> str:
        n, k = self.shape
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        lines = [f"{n}x{k}, {self.batch} row{'s' if self.batch > 1 else ''} of x, {threads}: {self.best}"]
        dense = self.rows[0].seconds
        for row in self.rows:
            error = "" if row.error is None else f"error {row.error:.2g}"
            if row.seconds is None or dense is None:
                speed = "more than max_error" if row.error else "not measured"
            else:
                speed = f"{1e6 * row.seconds:10.1f} us {dense / row.seconds:6.2f}x"
            lines.append(f"{row.form:<12} {speed:<22} {error}".rstrip())
        return "\n  ".join(lines)


def best_format(
    w: Any, batch: int = 1, *, max_error: float | None = None, x: Any = None, threads: int | None = None, cache: bool = True
) -> Weight:
    """The weight in the form in which `linear` is fastest on this machine: never one slower than dense float32.

    Measures `linear` with dense float32, int8 and int4 weights, with CSR from 30 % zeros on, and with the tightest N:M pattern that the
    zeros follow, for each size of block, the last two with float32 and int8 values. Dense float32 is returned unless another form was
    at least 3 % faster. This takes from a fraction of a second to some seconds, once: what was measured is kept in
    $XDG_CACHE_HOME/edgecomp (~/.cache/edgecomp) for this CPU, backend, version, shape, batch, thread limit and density.
    `compare_formats` shows the figures.

    Args:
        w: float32 [N, K] (out_features, in_features), finite, pruned or not; or a weight with float32 values (32 `bits`).
        batch: rows of x in a call. Up to 8 rows find the weights in memory when they are timed, as in a pass through a model; more find
            them where the call before has left them. More than 512 are timed as 512.
        max_error: the largest error that a quantized form may have: |y - y32| / |y32| of the output of `linear`, Euclidean norms over all
            rows. None: forms that keep the values as they are, whose results differ by float32 rounding only.
        x: float32 [..., K], activations whose outputs tell the error; by default 32 rows of standard normal numbers.
        threads: limit of the calls that are timed, 1..1024; by default that of any call.
        cache: False measures anew, and keeps nothing.

    Returns:
        DenseWeight, Int8Weight, Int4Weight, CSRWeight or NMWeight. With the NumPy backend, which is not made for speed, DenseWeight.

    Raises:
        TypeError, ValueError: not a finite float matrix; a batch, error or x that is none.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> w = ec.prune(np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32), pattern="1:4")
        >>> best = ec.best_format(w, batch=32, max_error=0.02, cache=False)
        >>> np.allclose(best.dequantize(), w, atol=0.02)
        True
        >>> ec.best_format(np.ones((64, 256), np.float32), cache=False)  # neither zeros nor a bound: nothing to choose from
        DenseWeight(64x256, 32 bits, n16, 65536 bytes)
    """
    return _compare(w, batch, max_error, x, threads, cache, "best_format").weight


def compare_formats(
    w: Any, batch: int = 1, *, max_error: float | None = None, x: Any = None, threads: int | None = None, cache: bool = True
) -> FormatComparison:
    """What `best_format` measures and chooses from, as a table. Takes and raises the same.

    Example:
        >>> import numpy as np, edgecomp as ec
        >>> found = ec.compare_formats(np.tile(np.eye(1, 16, dtype=np.float32), (2, 2)), batch=16, cache=False)
        >>> [row.form for row in found.rows]
        ['float32', 'int8', 'int4', 'csr', 'csr8', 'nm 1:16 b64', 'nm8 1:16 b64']
        >>> found.rows[1]                                        # max_error is None: float32 values only
        FormatRow(form='int8', seconds=None, error=None)
    """
    return _compare(w, batch, max_error, x, threads, cache, "compare_formats")


def _compare(w: Any, batch: Any, max_error: Any, x: Any, threads: int | None, cache: bool, where: str) -> FormatComparison:
    if isinstance(w, Weight):
        if w.bits != 32:
            raise TypeError(f"{where}: w is a {type(w).__name__} of {w.bits} bits, wanted float32 values: w.dequantize() gives them")
        w = w.dequantize()
    a = weight_array(w, where)
    batch = integer(f"{where}: batch", batch, POSITIVE, "a number of rows from 1 on")
    flag(f"{where}: cache", cache)
    number = isinstance(max_error, (int, float, np.floating)) and not isinstance(max_error, bool)
    if max_error is not None and not (number and max_error >= 0):
        raise ValueError(f"{where}: max_error is {max_error!r}, wanted None or a relative error from 0 on")
    sample = _sample(x, a.shape[1], where)
    limit = pool.limit(threads, f"{where}: threads") or pool.get_num_threads()
    made, errors, available = _made(a, sample, max_error)
    allowed = [f for f in available if not f.error or (max_error is not None and errors[f.error] <= max_error)]
    timings: Mapping[str, float] = {}
    if len(allowed) > 1:
        timings = _timings(a, made, allowed, min(batch, MOST_ROWS), limit, cache)
    best = choose(allowed, timings)
    rows = tuple(FormatRow(f.name, timings.get(f.name) if f in allowed else None, errors.get(f.error)) for f in available)
    weight: Weight = made.get(best.name) or best.make(a)
    return FormatComparison(a.shape, batch, limit, best.name, rows, weight)


def choose(allowed: "Sequence[Form]", timings: Mapping[str, float]) -> "Form":
    """The fastest of the forms, or the first, dense float32, unless another is GAIN times as fast."""
    dense, *others = allowed
    best = min(others, key=lambda f: timings[f.name], default=dense)
    return best if best is not dense and timings[best.name] * GAIN <= timings[dense.name] else dense


def _sample(x: Any, k: int, where: str) -> Float32 | None:
    if x is None:
        return None
    rows = arrays.to_float32(x, f"{where}: x")
    if not rows.ndim or rows.shape[-1] != k or rows.size == 0:
        raise ValueError(f"{where}: x has shape {rows.shape}, wanted rows [..., {k}]")
    if not np.isfinite(rows).all():
        raise ValueError(f"{where}: x has NaN or Inf, which tells no error")
    return rows


def _made(a: Float32, sample: Float32 | None, max_error: float | None) -> "tuple[dict[str, Weight], dict[str, float], list[Form]]":
    """Forms that were made for it, the errors by kind of rounding ("" is none), and the forms that a can have, dense first.

    int8 values give the same bits in every form: the error of dense int8 is that of CSR and N:M.
    """
    from edgecomp.measure import forms  # imports this package, and takes its time

    if a.size == 0 or backend.name_of(backend.current()) == "reference":
        return {}, {"": 0.0}, [forms.DENSE]
    made: dict[str, Weight] = {forms.DENSE.name: forms.DENSE.make(a)}
    errors, available = {"": 0.0}, forms.forms(a)
    if max_error is not None:
        rows = forms.random_rows(SAMPLE, a.shape[1]) if sample is None else sample
        wanted = linear(rows, made[forms.DENSE.name]).astype(np.float64)
        for form in (f for f in available if f.name == f.error):
            made[form.name] = form.make(a)
            with np.errstate(invalid="ignore"):
                off = np.linalg.norm(linear(rows, made[form.name]) - wanted)
                error = float(off / np.linalg.norm(wanted)) if off else 0.0
            errors[form.name] = math.inf if math.isnan(error) else error  # an output that overflows may be off by anything
    return made, errors, available


def _timings(a: Float32, made: "dict[str, Weight]", allowed: "Sequence[Form]", m: int, threads: int, cache: bool) -> Mapping[str, float]:
    """Seconds of each form: remembered, or measured now. What is measured is left in `made`."""
    from edgecomp import timing_cache
    from edgecomp.measure import forms

    density = np.count_nonzero(a) / a.size
    bucket = round(math.log(density) / BUCKET) if density else None
    machine, case = _machine(), f"{a.shape[0]}x{a.shape[1]}, {m} rows, {threads} threads, density {bucket}"
    known = timing_cache.recall(machine, case) if cache else {}
    if all(form.name in known for form in allowed):
        return known
    for form in allowed:
        made[form.name] = made.get(form.name) or form.make(a)
    twins = [form.make(a[: forms.TWIN]) for form in allowed]
    taken = forms.seconds([made[form.name] for form in allowed], twins, m, threads)
    timings = {form.name: s for form, s in zip(allowed, taken, strict=True)}
    if cache:
        timing_cache.remember(machine, case, timings)
    return timings


def _machine() -> str:
    """What a timing holds for: the CPU, this version, and the code that serves each op."""
    found = backend.info()
    code = " ".join(f"{op}:{used['backend']}:{used['variant']}" for op, used in found["ops"].items())
    return f"{found['machine']['cpu']}, {found['machine']['cores']} cores, edgecomp {found['version']}, {code}"
