"""The distillation loss and its gradient, a row per turn.

With the row's largest logits known, one pass leaves w = e^((s - max_s) / T) of the student and z likewise of the teacher in the
thread's scratch, and sums; e = T (log z - log w). The last makes the gradient of them, block by block. C's kernel needs no pass for
the largest logits: it corrects what it has summed when it meets a larger one.
"""

import math
from typing import Any

import numpy as np
from numba import types

from edgecomp.kernels import _kd_loops as loops
from edgecomp.kernels import _kd_vectors as vectors
from edgecomp.kernels._jit import address, flat, helper, kernel, rows_of, run
from edgecomp.kernels._jobs import JOB, enter, leave, take
from edgecomp.kernels._kd_loops import KL, MSE, REVERSE_KL, RUN
from edgecomp.kernels._kd_vectors import LANES

NAMES = ("kl", "reverse_kl", "jsd", "tvd", "mse")
TASK = 16384  # classes of the rows that are taken at once
STREAM = 1 << 20  # elements of a gradient that is stored past the caches

_f = np.float32
_LOWEST = _f(np.finfo(np.float32).min)  # not -inf, so that -inf - max is -inf


@helper
def _float(key: Any) -> Any:
    return max(np.int32(loops.key(key)).view(np.float32), _LOWEST)


@helper
def _forward(
    s: Any, t: Any, top: Any, soft_s: Any, soft_t: Any, ratio: Any, masked: bool, power: int, ce: bool, w: Any, z: Any, ahead: Any
) -> Any:
    """w and z of a row; the sums of w, z, z e and e^(s - max_s). ahead: addresses of the logits that come next."""
    sum_w = sum_z = sum_ze = sum_1 = 0.0
    first, plain = 0, ce and power != 1
    if not masked and (power > 0 or not ce):
        runs = len(s) // vectors.TURN
        first, sums = runs * vectors.TURN, np.zeros((4, LANES))
        vectors.forward(
            power if plain else 1, runs, address(s, 0), address(t, 0), ahead[0], ahead[1], address(w, 0), address(z, 0), address(sums, 0),
            top[0], top[1], soft_s[0], soft_s[1], soft_t[0], soft_t[1], ratio,
        )  # fmt: skip
        sum_w, sum_z, sum_ze, sum_1 = sums[0].sum(), sums[1].sum(), sums[2].sum(), sums[3].sum()
    for i in range(first, len(s), RUN):
        end = min(i + RUN, len(s))
        a, b, c = loops.forward(s[i:end], t[i:end], top[0], top[1], soft_s, soft_t, ratio, masked, w[i:end], z[i:end])
        sum_w += a
        sum_z += b
        sum_ze += c
        if plain:
            sum_1 += loops.sum_plain(power, w[i:end], s[i:end], top[0])
    return sum_w, sum_z, sum_ze, sum_1 if plain else sum_w


@helper
def _squares(s: Any, t: Any, top: Any, w: Any, z: Any) -> Any:
    """The sums of w and of (s - t)^2."""
    sum_w = total = 0.0
    for i in range(0, len(s), RUN):
        end = min(i + RUN, len(s))
        a, b = loops.squares(s[i:end], t[i:end], top[0], w[i:end], z[i:end])
        sum_w += a
        total += b
    return sum_w, total


@helper
def _refined(s: Any, t: Any, even: Any, inv: Any, w: Any, z: Any, norm: Any) -> Any:
    """Where p and q are close the logarithms of their normalisers cancel, and with them the digits of their e^x: then their
    difference comes from e, as log1p(sum p (e^log(q/p) - 1)), a small sum of small terms. Returns that sum, and the sum of p e."""
    off = pe = 0.0
    for i in range(0, len(s), RUN):
        end = min(i + RUN, len(s))
        a, b = loops.refine(s[i:end], t[i:end], even[0], even[1], inv[0], inv[2], w[i:end], z[i:end], norm[0], norm[1])
        off += a
        pe += b
    return off, pe


@helper
def _pairs(kind: int, s: Any, t: Any, even: Any, inv: Any, w: Any, z: Any, norm: Any, shift: float, beta: float) -> Any:
    """The loss of a kind but KL; z becomes its derivative by q. And the sum of that times q."""
    loss = mean = 0.0
    for i in range(0, len(s), RUN):
        end = min(i + RUN, len(s))
        a, b = loops.pairs(
            kind, s[i:end], t[i:end], even[0], even[1], inv[0], inv[2], w[i:end], z[i:end], norm[0], norm[1], _f(shift), _f(beta),
        )  # fmt: skip
        loss += a
        mean += b
    return loss, mean


@helper
def _hard(s: Any, top: float, sum_1: float, label: int, smoothing: float) -> float:
    """The cross entropy with a label."""
    loss = math.log(sum_1) + (top - s[label])
    if loss < 0.25:  # next to the largest term, which is 1, the others have lost digits
        total, ones = 0.0, 0
        for i in range(0, len(s), RUN):
            a, b = loops.rest(s[i : min(i + RUN, len(s))], _f(top))
            total += a
            ones += b
        loss = math.log1p(total + (ones - 1)) + (top - s[label])
    loss *= 1 - smoothing
    if smoothing != 0:
        total = 0.0
        for i in range(len(s)):
            total += np.float64(s[i]) - top
        loss += smoothing * (math.log(sum_1) - total / len(s))
    return loss


@helper
def _gradient(power: int, stream: bool, w: Any, z: Any, grad: Any, c0: Any, c1: Any, c2: Any, c3: Any) -> None:
    """loops.gradient of KL to grad, whose ends are no whole vectors."""
    n = len(w)
    stream = stream and address(grad, 0) % 4 == 0
    first = min(n, -address(grad, 0) // 4 % LANES) if stream else 0
    count = (n - first) // LANES
    vectors.gradient(power, int(stream), count, address(w, first), address(z, first), address(grad, first), c0, c1, c2, c3)
    for i, end in ((0, first), (first + count * LANES, n)):
        loops.gradient(True, power, w[i:end], _f(0), w[i:end], z[i:end], c0, c1, c2, c3, _f(0))
        grad[i:end] = z[i:end]


@helper
def _row(
    s: Any, t: Any, label: int, weight: float, kind: int, temperature: float, teacher_temperature: float,
    kd_weight: float, ce_weight: float, beta: float, smoothing: float, scale: float, w: Any, z: Any, grad: Any,
    ahead: Any, stream: bool,
) -> float:  # fmt: skip
    """The loss of a row that counts; its gradient to grad, if that has any elements."""
    n, ce = len(s), ce_weight != 0
    key_s, key_t, low = loops.extremes(run(s, 0, 0, n, np.int32), run(t, 0, 0, n, np.int32))  # Numba's view() takes seconds to compile
    top = _float(key_s), _float(key_t)
    soft_s, soft_t, ratio = loops.in_bits(temperature), loops.in_bits(teacher_temperature), _f(temperature / teacher_temperature)
    inv = _f(soft_s[2]), _f(soft_t[2]), ratio
    power = int(temperature) if temperature in (1.0, 2.0, 3.0, 4.0) else 0
    mean = shift = 0.0
    if kind == MSE:
        power = 1
        sum_1, kd = _squares(s, t, top, w, z)
        kd = kd / (temperature * temperature) if sum_1 == sum_1 else np.nan
        sum_w = sum_z = 1.0
    else:
        least = np.int32(loops.key(low)).view(np.float32)
        masked = (least - max(top[0], top[1])) * max(ratio, _f(1)) < _f(-1e38)  # or differences overflow
        sum_w, sum_z, sum_ze, sum_1 = _forward(s, t, top, soft_s, soft_t, ratio, masked, power, ce, w, z, ahead)
    hard = _hard(s, np.float64(top[0]), sum_1, label, smoothing) if ce else 0.0
    if kind != MSE:
        shift = math.log(sum_w) - math.log(sum_z)
        kd = soft_s[2] * (sum_ze / sum_z) + shift
        even = _f(np.float64(top[0]) + shift / soft_s[2]), top[1]  # logits of student and teacher that are about equally likely
        shift -= (np.float64(even[0]) - np.float64(top[0])) * soft_s[2]
        small = kd < 0.125 or (kd == np.inf and kind != KL)  # an infinite KL tells nothing of the others
        if small and not kd_weight * 0.25 < ce_weight * hard:  # beyond, 2^-22 of error are less than 2e-6 of the loss
            apart = math.exp((np.float64(top[0]) - np.float64(even[0])) * soft_s[2])
            off, pe = _refined(s, t, even, inv, w, z, (_f(apart / sum_z), _f(1 / sum_z)))
            if abs(off) < 1:  # or logits are so large that even[0] cannot be told from top[0]
                shift = math.log1p(off)
                kd = soft_s[2] * pe + shift
        broken = kd != kd or not sum_w > 0
        if kind != KL:
            kd, mean = _pairs(kind, s, t, even, inv, w, z, (_f(1 / sum_w), _f(1 / sum_z)), shift, beta)
        kd = np.nan if broken else max(kd, 0.0)
    loss = weight * ((kd_weight * kd if kd_weight != 0 else 0.0 if kd == kd else np.nan) + (ce_weight * hard if ce else 0.0))
    if len(grad):
        g = scale * weight
        c0 = g * ce_weight / sum_1 if ce else 0.0
        c1 = 0.0 if kind == MSE else g * kd_weight / temperature / sum_w
        c2 = -2 * g * kd_weight / (temperature * temperature) if kind == MSE else g * kd_weight / temperature / sum_z
        c3 = g * ce_weight * smoothing / n if ce else 0.0
        if kd != kd or (kind == REVERSE_KL and kd == np.inf):
            c3 = np.nan
        plus = kind in (KL, MSE)
        entry = 0.0
        if label >= 0:
            wl, zl = np.float64(w[label]), np.float64(z[label])
            entry = c0 * math.exp(np.float64(s[label]) - top[0]) - g * ce_weight * (1 - smoothing) - c3
            entry += c1 * wl - c2 * zl if plus else c1 * wl * (zl - mean)
        if kind == KL and (power > 0 or not ce):
            _gradient(power if ce else 1, stream, w, z, grad, _f(c0), _f(c1), _f(c2), _f(c3))
            if label >= 0:
                grad[label] = _f(entry)
            return loss
        for i in range(0, n, RUN):  # grad may be s: by way of z
            end = min(i + RUN, n)
            loops.gradient(plus, power, s[i:end], top[0], w[i:end], z[i:end], _f(c0), _f(c1), _f(c2), _f(c3), _f(mean))
            grad[i:end] = z[i:end]
        if label >= 0:
            grad[label] = _f(entry)
    return loss


_MATRIX, _OUT, _REAL = rows_of(types.float32), rows_of(types.float32, True), types.float64


@kernel(
    _MATRIX, _MATRIX, flat(types.int64), flat(_REAL), types.int64, _REAL, _REAL, _REAL, _REAL, _REAL, _REAL, _REAL, flat(_REAL, True),
    _OUT, _OUT, JOB,
)  # fmt: skip
def kd_loss(
    student: Any, teacher: Any, labels: Any, weight: Any, kind: int, temperature: float, teacher_temperature: float,
    kd: float, ce: float, beta: float, smoothing: float, scale: float, losses: Any, grad: Any, scratch: Any, job: Any,
) -> None:  # fmt: skip
    """losses [M], and grad [M, V] unless it has no rows: edgecomp.reference.kd_loss. kind: of NAMES. Without weight of the cross
    entropy the labels are not read. scratch: two rows for each thread."""
    mode = enter(job)
    if mode < 0:
        return
    m, n = student.shape
    own = take(job, 1)
    w, z = run(scratch, 2 * own, 0, n, np.float32), run(scratch, 2 * own + 1, 0, n, np.float32)
    rows, stream, apart = 1 + TASK // n, grad.size >= STREAM, len(scratch) // 2
    i = take(job, 0) * rows
    while i < m:
        end = min(i + rows, m)
        for row in range(i, end):
            later = min(row + 1 if row + 1 < end else i + apart * rows, m - 1)
            ahead = address(student, 0) + later * student.strides[0], address(teacher, 0) + later * teacher.strides[0]
            slope = run(grad, row, 0, n, np.float32) if len(grad) else run(scratch, 2 * own, 0, 0, np.float32)
            if weight[row] > 0:
                losses[row] = _row(
                    run(student, row, 0, n, np.float32), run(teacher, row, 0, n, np.float32), labels[row] if ce != 0 else -1,
                    weight[row], kind if kd != 0 else KL, temperature, teacher_temperature, kd, ce, beta, smoothing, scale, w, z, slope,
                    ahead, stream,
                )  # fmt: skip
            else:
                losses[row] = 0
                slope[:] = 0
        i = take(job, 0) * rows
    leave(job, mode)
