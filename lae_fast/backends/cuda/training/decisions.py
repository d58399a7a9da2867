"""What ends an iteration: the ratio that is recorded, the loss, and whether every component has arrived.

From the same formulas as cpu/training/decisions.py, in float64.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import (
    ADAM,
    ALPHA,
    CONVERGED,
    DIVERGED,
    MU,
    N_SUMS,
    N_TRACES,
    NESTEROV,
    RUNNING,
    SGD,
    SYNCHRONISED,
    TIED,
    UNTIED,
    VAE,
)
from ..launch import THREADS
from ..reduce import sum_threads
from ..target import Kernel, cuda, device
from .step import DONE, INVERSE, MEAN_RATE, RATE, STATUS, adam_move, average, look_ahead, velocity

relative = device(formulas.relative)
worst_of = device(formulas.worst_of)
component_size = device(formulas.component_size)
rounding_size = device(formulas.rounding_size)
is_still = device(formulas.is_still)
fit_error = device(formulas.fit_error)
likelihood = device(formulas.likelihood)
divergence = device(formulas.divergence)
latent_gradient = device(formulas.latent_gradient)
noise_gradient = device(formulas.noise_gradient)

# What `outcome` holds.
RATIO, LOSS = 0, 1
# Sums of the decision: those of the encoder's step, of the decoder's, the traces, components that still move, squares
# of a batch.
_Y, _P, _LATE, _BATCH = N_SUMS, 2 * N_SUMS, 2 * N_SUMS + N_TRACES, 2 * N_SUMS + N_TRACES + 1
_TOTALS = _BATCH + 1


@device
def of_row(sums, i, s):
    """A row's sum over the blocks of columns in their order."""
    total = np.float64(0.0)
    for k in range(sums.shape[0]):
        total += sums[k, i, s]
    return total


@device
def row_is_still(
    rule, x_rows, y_rows, i, prefix, penalty, product_penalty, gram_latent, spread, tolerance, cross, square, negligible
):  # fmt: skip
    """Whether component i has arrived  (docs/math.md Eq. 46); as cpu/training/decisions.py has it.

    x_rows, y_rows : (blocks, p, N_ROW_SUMS) of the matrices that moved; with one matrix the other is empty
    """
    c, extra, more = np.float64(prefix[i]), 0.0, 0.0
    if rule == VAE:
        c = spread[gram_latent.shape[0] + 1]
        more = c * spread[i]
        extra = 1.0
        negligible = 0.0
    both = x_rows.shape[0] > 0 and y_rows.shape[0] > 0
    if x_rows.shape[0] > 0:
        gradient, along, encoder = of_row(x_rows, i, 0), of_row(x_rows, i, 1), of_row(x_rows, i, 2)
    else:
        gradient, along, encoder = of_row(y_rows, i, 0), of_row(y_rows, i, 1), of_row(y_rows, i, 2)
    decoder = encoder
    if both:
        decoder = of_row(y_rows, i, 2)
    if rule in (ALPHA, MU) and encoder > 0.0:
        gradient = max(gradient - along * along / encoder, 0.0)
    latent, lam = np.float64(gram_latent[i, i]), np.float64(penalty[i])
    size = component_size(c, product_penalty, decoder, encoder, latent)
    rounding = rounding_size(c, decoder, encoder, cross, square)
    still = is_still(
        gradient, along, encoder, size + extra * latent, lam, tolerance, rounding + extra * square * encoder, negligible
    )
    if both and still:
        still = is_still(
            of_row(y_rows, i, 0), of_row(y_rows, i, 1), decoder, size + more * decoder, lam, tolerance, rounding,
            negligible,
        )  # fmt: skip
    return still


@device
def vae_error(totals, yy_trace):
    """The numerator of docs/math.md Eq. 11: expected squared error."""
    return fit_error(yy_trace, totals[_Y + 3], totals[_P + 3] + totals[_P])


@device
def loss_value(rule, coupling, has_decoder, sequential, product_penalty, prefix, extra, totals, yy_trace, d):
    """The loss at the weights before the step  (docs/math.md Eq. 5, 11; for rules without a loss that of A = B').

    totals : the sums of `decide`
    """
    if rule == VAE:
        p = extra.shape[1] - 1
        value = likelihood(vae_error(totals, yy_trace), extra[0, p], d) + 0.5 * totals[_P + 2]
        for i in range(p):
            value += divergence(extra[0, i])
        return value
    if not has_decoder:
        return fit_error(yy_trace, totals[_P + 2], totals[_P])
    cross = totals[_Y + 3]
    if sequential or coupling == SYNCHRONISED:
        cross = totals[3]
    value = fit_error(prefix[0] * yy_trace, cross, totals[_P]) + product_penalty * totals[_P + 1]
    value += totals[2] + totals[_Y + 2]
    if coupling != UNTIED:  # one matrix has sums, and both its penalty
        value += totals[2] + totals[_Y + 2]
    return value


@device
def move_extra(optimizer, scalars, schedule, k, gradient, extra, i):
    """Step of the VAE's own parameter i by the optimizer  (docs/math.md Eq. 12, 33 to 36).  k : row of the schedule."""
    if optimizer == SGD:
        extra[0, i] -= schedule[k, RATE] * gradient
    elif optimizer == ADAM:
        extra[1, i] = average(extra[1, i], gradient, scalars[0], 1.0 - scalars[0])
        extra[2, i] = average(extra[2, i], gradient * gradient, scalars[1], 1.0 - scalars[1])
        extra[0, i] -= adam_move(schedule[k, MEAN_RATE], extra[1, i], extra[2, i], schedule[k, INVERSE], scalars[2])
    else:
        extra[1, i] = velocity(extra[1, i], gradient, scalars[0])
        if optimizer == NESTEROV:
            extra[0, i] -= schedule[k, RATE] * look_ahead(gradient, extra[1, i], scalars[0])
        else:
            extra[0, i] -= schedule[k, RATE] * extra[1, i]


@Kernel
def decide(
    rule, coupling, has_decoder, sequential, optimizer, scalars, schedule, product_penalty, stop, patience,
    given_trace, d, with_loss, x_sums, y_sums, x_rows, y_rows, p_sums, batch, prefix, penalty, gram_decoder,
    gram_latent, extra, spread, progress, calm, outcome,
):  # fmt: skip
    """Ends an iteration: ratio, loss, convergence, divergence; and the step of the VAE's own parameters.

    Over sixty lines in one kernel: all of it follows from the same few sums, which one block holds.

    scalars : (3,) of the optimizer;  schedule : (n, 3);  product_penalty : lam_pi
    given_trace : tr Syy, where it is not that of a batch;  d : features
    with_loss : whether it is wanted (Eq. 5, 11), before the step
    stop : (4,) float64, tolerance, rounding with Sxy and with Sxx, negligible, of `formulas.is_still`;  patience :
        iterations in a row that must be still;  calm : (1,) int64, how many have been
    x_sums, y_sums : (blocks, N_SUMS), x_rows, y_rows : (blocks, p, N_ROW_SUMS), of the step of encoder and decoder,
        or empty where there was none;  p_sums : (blocks, N_TRACES);  batch : (b,) squares of the rows of Y, or empty;
        all float64
    gram_decoder : (p, p) A'A;  extra : (3, p + 1) float64, e and log s^2 with their states;  spread : (p + 2,) float64
    progress : (2,) int64;  outcome : (2,) float64, RATIO and LOSS
    Naive twin: oracle/naive_autoencoder.py::loss, vae_loss, vae_gradients, optimizer_step.  One block, float64.
    """
    scratch = cuda.shared.array((_TOTALS, THREADS), dtype=np.float64)
    if progress[STATUS] != RUNNING:
        return
    t = cuda.threadIdx.x
    for s in range(_TOTALS):
        scratch[s, t] = 0.0
    for k in range(t, x_sums.shape[0], THREADS):
        for s in range(N_SUMS):
            scratch[s, t] += x_sums[k, s]
    for k in range(t, y_sums.shape[0], THREADS):
        for s in range(N_SUMS):
            scratch[_Y + s, t] += y_sums[k, s]
    for k in range(t, p_sums.shape[0], THREADS):
        for s in range(N_TRACES):
            scratch[_P + s, t] += p_sums[k, s]
    p = gram_latent.shape[0]
    if stop[0] >= 0.0:
        for i in range(t, p, THREADS):
            if not row_is_still(
                rule,
                x_rows,
                y_rows,
                i,
                prefix,
                penalty,
                product_penalty,
                gram_latent,
                spread,
                stop[0],
                stop[1],
                stop[2],
                stop[3],
            ):
                scratch[_LATE, t] += 1.0
    for k in range(t, batch.shape[0], THREADS):
        scratch[_BATCH, t] += batch[k]
    sum_threads(scratch, t)
    cuda.syncthreads()
    totals = scratch[:, 0]
    yy_trace = given_trace
    if batch.shape[0] > 0:
        yy_trace = totals[_BATCH]
    if t == 0:
        worst = 0.0
        if coupling != TIED:
            worst = relative(totals[0], totals[1])
        if has_decoder and coupling != SYNCHRONISED:
            worst = worst_of(worst, relative(totals[_Y], totals[_Y + 1]))
        outcome[RATIO] = worst
        if with_loss:
            outcome[LOSS] = loss_value(
                rule, coupling, has_decoder, sequential, product_penalty, prefix, extra, totals, yy_trace, d
            )
        if not math.isfinite(worst):
            progress[STATUS] = DIVERGED
        elif stop[0] >= 0.0:
            # A batch without mass, or of rows that are all the mean, says nothing.
            if batch.shape[0] == 0 or yy_trace > 0.0:
                if totals[_LATE] == 0.0:
                    calm[0] += 1
                else:
                    calm[0] = 0
            if calm[0] >= patience:
                progress[STATUS] = CONVERGED
    if rule == VAE:
        cuda.syncthreads()  # the loss needed the numbers before their step
        k = progress[DONE]
        for i in range(t, p + 1, THREADS):
            if i < p:
                g = latent_gradient(spread[i], np.float64(gram_decoder[i, i]), spread[p])
            else:
                g = noise_gradient(vae_error(totals, yy_trace), spread[p], d)
            move_extra(optimizer, scalars, schedule, k, g, extra, i)
        cuda.syncthreads()  # all have read the old numbers
        for i in range(t, p + 1, THREADS):
            spread[i] = math.exp(extra[0, i])
            if i == p:
                spread[p + 1] = math.exp(-extra[0, p])
        cuda.syncthreads()
    if t == 0:
        progress[DONE] += 1
