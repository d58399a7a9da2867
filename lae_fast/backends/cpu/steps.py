"""The fused step: direction, optimizer state, update and norms of a block of columns, in one pass.

May import jit.py, views.py and NumPy only.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import lean_kernel
from .views import contiguous_row

SGD, MOMENTUM, NESTEROV, ADAM = 0, 1, 2, 3

# What `fused_step` adds up, in float64: |direction|^2, |W|^2, sum_i lam_i |w_i|^2, sum_i c_i z_i . w_i.
N_SUMS = 4


@lean_kernel
def one_minus_power(base, exponent):  # type: ignore[no-untyped-def]
    """1 - base^exponent without cancellation, for the bias correction of Adam  (docs/math.md Eq. 36)."""
    if base == 0.0:
        return 1.0
    return -math.expm1(exponent * math.log(base))


@lean_kernel
def fused_step(  # type: ignore[no-untyped-def]
    optimizer, scalars, rate, iteration, dense, product, on_product, penalty, prefix, with_cross, weights, first,
    second, sums, row_squares,
):  # fmt: skip
    """One step of a block of columns:  g = dense + diag(on_product) Z + 2 diag(lam) W,  then Eq. 33 to 36.

    dense : (p, w) the p x p products of docs/math.md Eq. 21, already multiplied
    product : (p, w) Z, and on_product : (p,) its diagonal coefficient
    penalty, prefix : (p,) lam and c;  with_cross : whether sum_i c_i z_i . w_i is wanted (the loss, Eq. 5)
    weights, first, second : (p, w) W and the optimizer's states, updated in place; states it does not keep may be
        any array of that shape.  All float32|float64, one dtype; columns of a larger array, unit stride along the last
        axis.
    scalars : (3,) float64, rate : float, iteration : from 0, as lae_fast.optimizers gives them
    sums : (N_SUMS,) float64 and row_squares : (p,) float64 of the NEW rows (or empty) are overwritten.  A row's sums
        run over the block (at most about 256 entries) in the compute dtype, then in float64.
    sgd 8 p w flops, adam 18 p w;  bytes: 4 to 8 p w itemsize.  Naive twin: tests/naive_autoencoder.py::optimizer_step.
    Serial.  Fastmath: contract, reassoc, nsz.
    """
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
        on_z, on_w = on_product[i], real(2.0) * penalty[i]
        g_square, w_square, cross = real(0.0), real(0.0), real(0.0)
        if with_cross:
            for j in range(width):
                cross += z[j] * w[j]
        if optimizer == SGD:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                g_square += g * g
                w_square += w[j] * w[j]
                w[j] -= a * g
        elif optimizer == ADAM:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                g_square += g * g
                w_square += w[j] * w[j]
                v[j] = b1 * v[j] + rest1 * g
                u[j] = b2 * u[j] + rest2 * (g * g)
                w[j] -= a * v[j] / (np.sqrt(u[j] * inverse2) + eps)
        else:
            for j in range(width):
                g = direction[j] + on_z * z[j] + on_w * w[j]
                g_square += g * g
                w_square += w[j] * w[j]
                v[j] = b1 * v[j] + g
                w[j] -= a * (g + b1 * v[j]) if optimizer == NESTEROV else a * v[j]
        g_total += g_square
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
def scale_rows(squares, weights):  # type: ignore[no-untyped-def]
    """Each row divided by its length, a zero row left alone  (docs/math.md Eq. 27, 28: rows normalised).

    squares : (n_blocks, p) float64, the rows' squares block by block, added in order;  weights : (p, w) in place.
    Naive twin: tests/naive_autoencoder.py::normalise_rows.  Serial.
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
def vae_step(optimizer, scalars, rate, iteration, gradient, values, first, second):  # type: ignore[no-untyped-def]
    """Step of the VAE's own parameters (e_1..e_p, log s^2) by the same optimizer  (docs/math.md Eq. 12, 33 to 36).

    gradient, values, first, second : (p + 1,) float64.  Serial.
    Naive twin: tests/naive_autoencoder.py::optimizer_step.
    """
    for i in range(values.shape[0]):
        g = gradient[i]
        if optimizer == SGD:
            values[i] -= rate * g
        elif optimizer == ADAM:
            first[i] = scalars[0] * first[i] + (1.0 - scalars[0]) * g
            second[i] = scalars[1] * second[i] + (1.0 - scalars[1]) * g * g
            corrected = first[i] / one_minus_power(scalars[0], iteration + 1)
            length = math.sqrt(second[i] / one_minus_power(scalars[1], iteration + 1)) + scalars[2]
            values[i] -= rate * corrected / length
        else:
            first[i] = scalars[0] * first[i] + g
            values[i] -= rate * (g + scalars[0] * first[i]) if optimizer == NESTEROV else rate * first[i]
