"""Per-sample nested dropout on all rows at once: products with the second moments of the samples that keep a unit.

Unit i sees the samples K_i = {s : kept_s > i}.  The gradient (docs/math.md Eq. 9) needs rows of weights times the
moments of those samples alone, w_i' S_i with S_i = sum over K_i of x x'.  A sample counts for the units that keep it,
or with the other sign for those that do not, on top of the moments of all samples: whichever are fewer.  So a unit
that keeps most samples reads those that it drops, and for the geometric prior of 0.9 and twenty units a sample costs
five units in place of twenty.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...threads import Team
from ..jit import lean_kernel
from .minibatch import AHEAD, ask_for

# Rows loaded at once, which stay in the second-level cache.
ROWS_AT_ONCE = 64
# Parts of the rows that are added up on their own, so that the bits do not depend on the number of threads.
_PARTS = 8


class WholeRows(NamedTuple):
    """All rows of X, where they lie; see `minibatch.gather`."""

    flat: np.ndarray
    strides: tuple[int, int]
    shift: np.ndarray
    weights: np.ndarray
    n_samples: int


class MaskedProducts:
    """The products from which the loop steps, for a full batch of Y = X.

    rows : shift in the compute dtype;  factor : kappa of the scale
    second_moments : Sxx (d, d) at the scale in the compute dtype, or None where they are too many
    tail : (p,) the share of the samples that keep each unit
    """

    def __init__(self, rows: WholeRows, factor: float, second_moments: np.ndarray | None, tail: np.ndarray) -> None:
        self.rows, self.factor, self.second_moments = rows, factor, second_moments
        self.switch = 0 if second_moments is None else int(np.count_nonzero(tail > 0.5))
        p, d = len(tail), len(rows.shift)
        dtype = rows.shift.dtype
        self._bounds = np.arange(_PARTS + 1) * rows.n_samples // _PARTS
        self._out = np.zeros((_PARTS, 2 * p, d), dtype)
        self._loaded = np.zeros((_PARTS, ROWS_AT_ONCE, d), dtype)
        self._codes = np.zeros((_PARTS, ROWS_AT_ONCE, 2 * p), dtype)

    def products(
        self, team: Team, encoder: np.ndarray, decoder: np.ndarray, kept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(U, -dL/dB / 2), (p, d) each, with U_i = b_i' S_i; U is B Sxx and B Sxy to the step  (docs/math.md Eq. 9).

        dL/dB_i = 2 (sum_(j > i) (A'A)_ij U_j - V_i), V_i = (a_i' - sum_(j <= i) (A'A)_ij b_j') S_i

        encoder : B (p, d);  decoder : A' (p, d);  kept : (m,) int64, units that each sample keeps, 1..p
        """
        p = len(encoder)
        gram = decoder @ decoder.T
        stack = np.empty((2 * p, encoder.shape[1]), encoder.dtype)
        stack[0::2] = encoder
        np.subtract(decoder, np.tril(gram) @ encoder, out=stack[1::2])
        self._out[:] = 0.0
        team.run(lambda rank: self._run(rank, team.size, stack, kept), lambda: None)
        total = self._out[0]
        for part in self._out[1:]:
            total += part
        total *= total.dtype.type(self.factor)
        if self.switch and self.second_moments is not None:
            total[: 2 * self.switch] += stack[: 2 * self.switch] @ self.second_moments
        masked, other = total[0::2], total[1::2]
        return masked, other - np.triu(gram, 1) @ masked

    def _run(self, rank: int, size: int, stack: np.ndarray, kept: np.ndarray) -> None:
        """The parts of one thread."""
        p = len(stack) // 2
        for k in range(rank, _PARTS, size):
            first, last = self._bounds[k], self._bounds[k + 1]
            own = kept[first:last]
            order = np.argsort(own.astype(np.int16) if p < 2**15 else own, kind="stable")
            bounds = np.searchsorted(own[order], np.arange(p + 2))
            masked_products(
                self.rows.flat, *self.rows.strides, order + first, self.rows.shift, self.rows.weights,
                bounds.astype(np.int64), self.switch, stack, self._loaded[k], self._codes[k], self._out[k],
            )  # fmt: skip


@lean_kernel
def masked_products(
    source, line_stride, entry_stride, order, shift, weights, bounds, switch, stack, rows, codes, out
):  # fmt: skip
    """out[i] += sum over samples s in K_i of (w_i . x_s) x_s' for units i >= switch; for the others minus the same over
    the samples that are not in K_i.

    source, line_stride, entry_stride, shift, weights : as `load_rows` has them
    order : (m,) int64, the samples of this call by rising number of kept units
    bounds : (p + 2,) int64, order[bounds[k]:bounds[k + 1]] keep k units, k = 0..p;  switch : 0..p
    stack, out : (u p, d), the rows of unit i are u i to u i + u - 1;  rows : (ROWS_AT_ONCE, d);
    codes : (ROWS_AT_ONCE, u p), workspace.  All float32|float64, one dtype.
    4 d flops per sample, row of the stack and unit that is not left out.  Serial.
    Naive twin: oracle/naive_autoencoder.py::masked_products.  Fastmath: contract, reassoc, nsz.
    """
    p = bounds.shape[0] - 2
    each = stack.shape[0] // p
    for kept in range(p + 1):
        if kept < switch:
            first, last, sign = kept, switch, -1.0
        else:
            first, last, sign = switch, kept, 1.0
        begin, end = bounds[kept], bounds[kept + 1]
        if first == last:
            continue
        while begin < end:
            n = min(ROWS_AT_ONCE, end - begin)
            load_rows(source, line_stride, entry_stride, order, begin, shift, weights, rows[:n])
            project_rows(stack[each * first : each * last], rows[:n], sign, codes)
            add_outer(codes, rows[:n], out[each * first : each * last])
            begin += n


@lean_kernel
def load_rows(source, line_stride, entry_stride, order, begin, shift, weights, out):
    """out[r] <- (row order[begin + r] of the data - shift) * sqrt(weight of that row).  2 n d flops.  Serial.

    source : 1-D contiguous, any real dtype, with two strides in elements;  order : (m,) int64, begin + n <= m;
    weights : float64 per row of the data, or empty;  out : (n, d).  As `minibatch.gather`, without the sum of squares.
    Naive twin: oracle/naive_autoencoder.py::naive_batch.
    """
    real = out.dtype.type
    n, d = out.shape
    for r in range(n):
        row = order[begin + r]
        base = row * line_stride
        line = out[r]
        if entry_stride == 1:
            if begin + r + AHEAD < order.shape[0]:
                ask_for(source, order[begin + r + AHEAD] * line_stride, d)
            part = source[base : base + d]
            for j in range(d):
                line[j] = real(part[j]) - shift[j]
        else:
            for j in range(d):
                line[j] = real(source[base + j * entry_stride]) - shift[j]
        if weights.shape[0] > 0:
            root = real(np.sqrt(weights[row]))
            for j in range(d):
                line[j] *= root


@lean_kernel
def project_rows(stack, rows, sign, codes):
    """codes[s, i] <- sign stack[i] . rows[s], two rows of weights and four samples at once.  2 n u d flops.  Serial.

    Naive twin: numpy.matmul.
    """
    real = rows.dtype.type
    n, width, d = rows.shape[0], stack.shape[0], rows.shape[1]
    factor = real(sign)
    s = 0
    while s + 4 <= n:
        x0, x1, x2, x3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
        i = 0
        while i + 2 <= width:
            a0, a1 = stack[i], stack[i + 1]
            t0, t1, t2, t3 = real(0.0), real(0.0), real(0.0), real(0.0)
            t4, t5, t6, t7 = real(0.0), real(0.0), real(0.0), real(0.0)
            for j in range(d):
                v0, v1 = a0[j], a1[j]
                t0 += v0 * x0[j]
                t1 += v0 * x1[j]
                t2 += v0 * x2[j]
                t3 += v0 * x3[j]
                t4 += v1 * x0[j]
                t5 += v1 * x1[j]
                t6 += v1 * x2[j]
                t7 += v1 * x3[j]
            codes[s, i], codes[s + 1, i], codes[s + 2, i], codes[s + 3, i] = (
                factor * t0, factor * t1, factor * t2, factor * t3,
            )  # fmt: skip
            codes[s, i + 1], codes[s + 1, i + 1], codes[s + 2, i + 1], codes[s + 3, i + 1] = (
                factor * t4, factor * t5, factor * t6, factor * t7,
            )  # fmt: skip
            i += 2
        s += 4
    while s < n:
        x0 = rows[s]
        for i in range(width):
            a0 = stack[i]
            t0 = real(0.0)
            for j in range(d):
                t0 += a0[j] * x0[j]
            codes[s, i] = factor * t0
        s += 1


@lean_kernel
def add_outer(codes, rows, out):
    """out[i] += sum_s codes[s, i] rows[s], two rows of weights and eight samples at once.  2 n u d flops.  Serial.

    Naive twin: numpy.matmul.
    """
    n, width, d = rows.shape[0], out.shape[0], rows.shape[1]
    s = 0
    while s + 8 <= n:
        x0, x1, x2, x3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
        x4, x5, x6, x7 = rows[s + 4], rows[s + 5], rows[s + 6], rows[s + 7]
        i = 0
        while i + 2 <= width:
            c0, c1, c2, c3 = codes[s, i], codes[s + 1, i], codes[s + 2, i], codes[s + 3, i]
            c4, c5, c6, c7 = codes[s + 4, i], codes[s + 5, i], codes[s + 6, i], codes[s + 7, i]
            e0, e1, e2, e3 = codes[s, i + 1], codes[s + 1, i + 1], codes[s + 2, i + 1], codes[s + 3, i + 1]
            e4, e5, e6, e7 = codes[s + 4, i + 1], codes[s + 5, i + 1], codes[s + 6, i + 1], codes[s + 7, i + 1]
            o0, o1 = out[i], out[i + 1]
            for j in range(d):
                v0, v1, v2, v3, v4, v5, v6, v7 = x0[j], x1[j], x2[j], x3[j], x4[j], x5[j], x6[j], x7[j]
                o0[j] += c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3 + c4 * v4 + c5 * v5 + c6 * v6 + c7 * v7
                o1[j] += e0 * v0 + e1 * v1 + e2 * v2 + e3 * v3 + e4 * v4 + e5 * v5 + e6 * v6 + e7 * v7
            i += 2
        while i < width:
            o0 = out[i]
            for r in range(s, s + 8):
                c0 = codes[r, i]
                x0 = rows[r]
                for j in range(d):
                    o0[j] += c0 * x0[j]
            i += 1
        s += 8
    while s < n:
        x0 = rows[s]
        for i in range(width):
            c0 = codes[s, i]
            o0 = out[i]
            for j in range(d):
                o0[j] += c0 * x0[j]
        s += 1
