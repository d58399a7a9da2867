"""The fused step: direction, optimizer state, update and norms of a block of columns, in one pass.

An entry's step is that of formulas.py; the loops around it are what the CPU vectorises, and
backends/cuda/training/step.py has its own.
"""

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import ADAM, NESTEROV, SGD
from ..contiguous import contiguous_row
from ..jit import lean_kernel, settled_kernel
from ..typed import DOUBLES, FLOAT64, MATRIX, VECTOR, WRITTEN, Taken, checked

one_minus_power = settled_kernel(formulas.one_minus_power)
velocity = settled_kernel(formulas.velocity)
look_ahead = settled_kernel(formulas.look_ahead)
average = settled_kernel(formulas.average)
adam_move = settled_kernel(formulas.adam_move)
_check_fused_step = checked(
    "fused_step",
    scalars=DOUBLES, dense=MATRIX, product=MATRIX, on_product=VECTOR, on_weights=VECTOR, penalty=VECTOR, prefix=VECTOR,
    weights=WRITTEN, first=WRITTEN, second=WRITTEN, sums=Taken(1, FLOAT64, written=True),
    row_sums=Taken(2, FLOAT64, written=True), row_squares=Taken(1, FLOAT64, written=True),
)  # fmt: skip


@settled_kernel
def fused_step(
    optimizer, scalars, rate, iteration, dense, product, on_product, on_weights, penalty, prefix, with_cross, weights,
    first, second, sums, row_sums, row_squares,
):  # fmt: skip
    """One step of a block of columns:  g = dense + diag(on_product) Z + 2 diag(lam) W,  then Eq. 33 to 36.

    Norms are those of e = g + diag(on_weights) W, which is what vanishes at the solution.  Over sixty lines, since the
    loop along a row is written out for each optimizer: no branch may be left inside it.

    dense : (p, w) the p x p products of docs/math.md Eq. 21, already multiplied
    product : (p, w) Z, and on_product : (p,) its diagonal coefficient
    on_weights : (p,) zeros, or G_ii for rules that normalise rows (Eq. 47)
    penalty, prefix : (p,) lam and c;  with_cross : whether sum_i c_i z_i . w_i is wanted (the loss, Eq. 5)
    weights, first, second : (p, w) W and the optimizer's states, updated in place; states it does not keep may be
        any array of that shape.  All float32|float64, one dtype; columns of a larger array, unit stride along the last
        axis.
    scalars : (3,) float64, rate : float, iteration : from 0, as lae_fast.optimizers gives them
    sums : (N_SUMS,), row_sums : (p, N_ROW_SUMS) or empty, and row_squares : (p,) of the NEW rows or empty, all
        float64, are overwritten.  A row's sums run over the block (at most about 256 entries) in the compute dtype,
        then in float64.
    sgd 12 p w flops, adam 22 p w;  bytes: 4 to 8 p w itemsize.  Serial.
    Naive twin: oracle/naive_autoencoder.py::optimizer_step.  Fastmath: contract, reassoc, nsz.

    >>> import numpy as np
    >>> from lae_fast import kernels, optimizers
    >>> p, w = 2, 3
    >>> W, states, rows = np.ones((p, w)), np.zeros((2, p, w)), np.ones((p, w))
    >>> sums, row_sums, row_squares = np.empty(kernels.N_SUMS), np.empty((p, kernels.N_ROW_SUMS)), np.empty(p)
    >>> rule = optimizers.sgd(0.1)
    >>> kernels.fused_step(
    ...     rule.code, np.array(rule.scalars), rule.rate(0), 0, rows, rows, np.zeros(p), np.zeros(p), np.zeros(p),
    ...     np.ones(p), False, W, states[0], states[1], sums, row_sums, row_squares,
    ... )
    >>> W
    array([[0.9, 0.9, 0.9],
           [0.9, 0.9, 0.9]])
    """
    _check_fused_step(
        scalars, dense, product, on_product, on_weights, penalty, prefix, weights, first, second, sums, row_sums,
        row_squares,
    )  # fmt: skip
    rows, width = weights.shape
    real = weights.dtype.type
    a = real(rate)
    b1, b2, eps = real(scalars[0]), real(scalars[1]), real(scalars[2])
    rest1, rest2 = real(1.0 - scalars[0]), real(1.0 - scalars[1])
    inverse2 = real(1.0)
    if optimizer == ADAM:
        a = real(rate / one_minus_power(scalars[0], iteration + 1))
        inverse2 = real(1.0 / one_minus_power(scalars[1], iteration + 1))
    g_total, w_total, penalty_total, cross_total = 0.0, 0.0, 0.0, 0.0
    for i in range(rows):
        direction, z = contiguous_row(dense, i), contiguous_row(product, i)
        w, v, u = contiguous_row(weights, i), contiguous_row(first, i), contiguous_row(second, i)
        on_z, on_w, own = on_product[i], real(2.0) * penalty[i], on_weights[i]
        e_square, along, w_square, cross = real(0.0), real(0.0), real(0.0), real(0.0)
        if with_cross:
            for j in range(width):
                cross += z[j] * w[j]
        if optimizer == SGD:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                e = g + own * w[j]
                e_square += e * e
                along += e * w[j]
                w_square += w[j] * w[j]
                w[j] -= a * g
        elif optimizer == ADAM:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                e = g + own * w[j]
                e_square += e * e
                along += e * w[j]
                w_square += w[j] * w[j]
                v[j] = average(v[j], g, b1, rest1)
                u[j] = average(u[j], g * g, b2, rest2)
                w[j] -= adam_move(a, v[j], u[j], inverse2, eps)
        else:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                e = g + own * w[j]
                e_square += e * e
                along += e * w[j]
                w_square += w[j] * w[j]
                v[j] = velocity(v[j], g, b1)
                w[j] -= a * look_ahead(g, v[j], b1) if optimizer == NESTEROV else a * v[j]
        if row_sums.shape[0] > 0:
            row_sums[i, 0], row_sums[i, 1], row_sums[i, 2] = e_square, along, w_square
        g_total += e_square
        w_total += w_square
        penalty_total += np.float64(penalty[i]) * w_square
        cross_total += np.float64(prefix[i]) * cross
        if row_squares.shape[0] > 0:
            square = real(0.0)
            for j in range(width):
                square += w[j] * w[j]
            row_squares[i] = square
    sums[0], sums[1], sums[2], sums[3] = g_total, w_total, penalty_total, cross_total


@lean_kernel
def normalise_rows(squares, weights):
    """Each row divided by its length, a zero row left alone  (docs/math.md Eq. 27, 28: rows normalised).

    squares : (n_blocks, p) float64, the rows' squares block by block, added in order;  weights : (p, w) in place.
    Naive twin: oracle/naive_autoencoder.py::normalise_rows.  Serial.
    """
    real = weights.dtype.type
    for i in range(weights.shape[0]):
        total = 0.0
        for k in range(squares.shape[0]):
            total += squares[k, i]
        if total > 0.0:
            inverse = real(1.0 / math.sqrt(total))
            row = contiguous_row(weights, i)
            for j in range(weights.shape[1]):
                row[j] *= inverse


@lean_kernel
def vae_step(optimizer, scalars, rate, iteration, gradient, values, first, second):
    """Step of the VAE's own parameters (e_1..e_p, log s^2) by the same optimizer  (docs/math.md Eq. 12, 33 to 36).

    gradient, values, first, second : (p + 1,) float64.  Serial.
    Naive twin: oracle/naive_autoencoder.py::optimizer_step.
    """
    a, inverse2 = rate, 1.0
    if optimizer == ADAM:
        a = rate / one_minus_power(scalars[0], iteration + 1)
        inverse2 = 1.0 / one_minus_power(scalars[1], iteration + 1)
    for i in range(values.shape[0]):
        g = gradient[i]
        if optimizer == SGD:
            values[i] -= rate * g
        elif optimizer == ADAM:
            first[i] = average(first[i], g, scalars[0], 1.0 - scalars[0])
            second[i] = average(second[i], g * g, scalars[1], 1.0 - scalars[1])
            values[i] -= adam_move(a, first[i], second[i], inverse2, scalars[2])
        else:
            first[i] = velocity(first[i], g, scalars[0])
            values[i] -= rate * look_ahead(g, first[i], scalars[0]) if optimizer == NESTEROV else rate * first[i]
