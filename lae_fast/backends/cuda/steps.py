"""The fused step, what may follow it, and the decision that ends an iteration.

May import formulas, launch.py, reduce.py and target.py only.  An entry's step and the loss are those of formulas.py, as
in backends/cpu/steps.py and iterate.py.  Every kernel does nothing once `progress` says that the run has ended, so
iterations may be launched ahead of the host's knowledge.

float32 kernels compute in float32 but for what is listed here: sums over the threads of a block and over blocks, the
decision, and reading the schedule.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import (
    ADAM,
    CONVERGED,
    DIVERGED,
    MOMENTUM,
    N_SUMS,
    N_TRACES,
    NESTEROV,
    RUNNING,
    SGD,
    VAE,
)
from .launch import AREA, HEIGHT, ROWS_EACH, THREADS, WIDTH
from .reduce import sum_threads
from .target import Kernel, cuda, device

velocity = device(formulas.velocity)
look_ahead = device(formulas.look_ahead)
average = device(formulas.average)
adam_move = device(formulas.adam_move)
relative = device(formulas.relative)
worst_of = device(formulas.worst_of)
fit_error = device(formulas.fit_error)
likelihood = device(formulas.likelihood)
divergence = device(formulas.divergence)
latent_gradient = device(formulas.latent_gradient)
noise_gradient = device(formulas.noise_gradient)

# What `progress` counts: iterations done, how the run stands.
DONE, STATUS = 0, 1
# Columns of the schedule: the rate, and for adam the rate over the bias of the mean, one over the bias of the square.
RATE, MEAN_RATE, INVERSE = 0, 1, 2
# What `outcome` holds.
RATIO, LOSS = 0, 1
# Sums of the decision: those of the encoder's step, of the decoder's, the traces, movement of rows, squares of a batch.
_Y, _P, _MOVED, _BATCH = N_SUMS, 2 * N_SUMS, 2 * N_SUMS + N_TRACES, 2 * N_SUMS + N_TRACES + 1
_TOTALS = _BATCH + 1


@Kernel
def fused_step(
    optimizer, keep, keep_square, rest, rest_square, eps, schedule, progress, with_cross, dense, product, on_product,
    penalty, prefix, weights, first, second, old, twin, sums,
):  # fmt: skip
    """One step of encoder, decoder or both:  g = dense + diag(on_product) Z + 2 diag(lam) W,  then Eq. 33 to 36.

    dense, weights, first, second : (sides, p, w) as in backends/cpu/steps.py, a side for each matrix that moves; the
        states that the optimizer does not keep may be any array of three dimensions
    product : (sides, p, w) Z; of two sides the first takes the second's, as A' takes B S and B takes A'S
    on_product, penalty, prefix : (p,) its diagonal coefficient, lam and c;  with_cross : whether sum_i c_i z_i . w_i is
        wanted (the loss, Eq. 5)
    keep, keep_square, rest, rest_square, eps : mu or beta_1, beta_2, 1 - beta_1, 1 - beta_2, eps, in the dtype
    schedule : (n, 3) float64, RATE, MEAN_RATE, INVERSE of each iteration;  progress : (2,) int64, DONE and STATUS
    old, twin : (p, w) that receive side 0's weights before and after the step, or empty
    sums : (sides, blocks, N_SUMS) float64
    sgd 8 p w flops, adam 18 p w for each side;  bytes: `step_bytes`.  Naive twin:
    tests/naive_autoencoder.py::optimizer_step.  Blocks of WIDTH columns and HEIGHT x ROWS_EACH rows of one side; a
    thread adds its ROWS_EACH entries in the compute dtype.
    """
    scratch = cuda.shared.array((N_SUMS, AREA), dtype=np.float64)
    if progress[STATUS] != RUNNING:
        return
    real = weights.dtype.type
    sides, p, width = weights.shape
    k = progress[DONE]
    rate, inverse = real(schedule[k, RATE]), real(schedule[k, INVERSE])
    if optimizer == ADAM:
        rate = real(schedule[k, MEAN_RATE])
    side = cuda.blockIdx.z
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WIDTH + x
    top = cuda.blockIdx.y * (HEIGHT * ROWS_EACH) + y
    g_square, w_square, penalty_sum, cross = real(0.0), real(0.0), real(0.0), real(0.0)
    for r in range(ROWS_EACH):
        i = top + r * HEIGHT
        if i < p and j < width:
            w = weights[side, i, j]
            z = product[sides - 1 - side, i, j]
            g = dense[side, i, j] + on_product[i] * z + real(2.0) * penalty[i] * w
            g_square += g * g
            w_square += w * w
            penalty_sum += penalty[i] * w * w
            if with_cross:
                cross += prefix[i] * z * w
            if old.shape[0] > 0:
                old[i, j] = w
            if optimizer == SGD:
                w -= rate * g
            elif optimizer == ADAM:
                v = average(first[side, i, j], g, keep, rest)
                u = average(second[side, i, j], g * g, keep_square, rest_square)
                first[side, i, j] = v
                second[side, i, j] = u
                w -= adam_move(rate, v, u, inverse, eps)
            else:
                v = velocity(first[side, i, j], g, keep)
                first[side, i, j] = v
                if optimizer == NESTEROV:
                    w -= rate * look_ahead(g, v, keep)
                else:
                    w -= rate * v
            weights[side, i, j] = w
            if twin.shape[0] > 0:
                twin[i, j] = w
    t = y * WIDTH + x
    scratch[0, t] = g_square
    scratch[1, t] = w_square
    scratch[2, t] = penalty_sum
    scratch[3, t] = cross
    sum_threads(scratch, t)
    if t < N_SUMS:
        sums[side, cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x, t] = scratch[t, 0]


def step_bytes(optimizer: int, entries: int, itemsize: int) -> int:
    """Bytes that `fused_step` moves: dense, product, weights and states read, the last two written."""
    states = {SGD: 0, MOMENTUM: 1, NESTEROV: 1, ADAM: 2}[optimizer]
    return (4 + 2 * states) * entries * itemsize


@Kernel
def normalise(progress, schedule, old, weights, moved):
    """Rows to length 1, a zero row left alone, and how far each has moved  (docs/math.md Eq. 27, 28).

    old, weights : (p, w) before the step, and after it, in place;  moved : (p,) float64, (|w - old| / rate)^2
    Along the rows the direction does not vanish at the solution, and the normalisation takes that part away; so the
    movement over the rate stands for the direction.  6 p w flops, float64.
    Naive twin: tests/naive_autoencoder.py::normalise_rows.  A block per row.
    """
    scratch = cuda.shared.array((1, THREADS), dtype=np.float64)
    if progress[STATUS] != RUNNING:
        return
    real = weights.dtype.type
    row, t, width = cuda.blockIdx.x, cuda.threadIdx.x, weights.shape[1]
    square = np.float64(0.0)
    for j in range(t, width, THREADS):
        value = np.float64(weights[row, j])
        square += value * value
    scratch[0, t] = square
    sum_threads(scratch, t)
    cuda.syncthreads()
    square = scratch[0, 0]
    cuda.syncthreads()
    inverse = real(1.0)
    if square > 0.0:
        inverse = real(1.0 / math.sqrt(square))
    total = np.float64(0.0)
    for j in range(t, width, THREADS):
        value = weights[row, j] * inverse
        weights[row, j] = value
        move = np.float64(value) - np.float64(old[row, j])
        total += move * move
    scratch[0, t] = total
    sum_threads(scratch, t)
    if t == 0:
        rate = schedule[progress[DONE], RATE]
        moved[row] = scratch[0, 0] / (rate * rate)


@Kernel
def couple(progress, encoder, decoder):
    """B = A' = their mean: Kunin's "synchronised".  Both (p, w).  Naive twin: tests/naive_autoencoder.py::step."""
    if progress[STATUS] != RUNNING:
        return
    j = cuda.blockIdx.x * WIDTH + cuda.threadIdx.x
    i = cuda.blockIdx.y * HEIGHT + cuda.threadIdx.y
    if i < encoder.shape[0] and j < encoder.shape[1]:
        mean = (encoder[i, j] + decoder[i, j]) * encoder.dtype.type(0.5)
        encoder[i, j] = mean
        decoder[i, j] = mean


@Kernel
def decide(
    rule, has_decoder, tied, sequential, optimizer, scalars, schedule, ridge, tolerance, given_trace, first_prefix, d,
    with_loss, x_sums, y_sums, p_sums, moved, batch, gram_decoder, extra, spread, progress, outcome,
):  # fmt: skip
    """Ends an iteration: ratio, loss, convergence, divergence; and the step of the VAE's own parameters.

    scalars : (3,) of the optimizer;  schedule : (n, 3);  ridge : lam_pi;  given_trace : tr Syy, where it is not that of
        a batch;  first_prefix : c_1;  d : features;  with_loss : whether it is wanted (Eq. 5, 11), before the step
    x_sums, y_sums : (blocks, N_SUMS), of the encoder's and the decoder's step;  p_sums : (blocks, N_TRACES)
    moved : (p,) of `normalise`, or empty;  batch : (b,) squares of the rows of Y, or empty;  all float64
    gram_decoder : (p, p) A'A;  extra : (3, p + 1) float64, e and log s^2 with their states;  spread : (p + 2,) float64
    progress : (2,) int64;  outcome : (2,) float64, RATIO and LOSS
    Naive twin: tests/naive_autoencoder.py::loss, vae_loss, vae_gradients, optimizer_step.  One block, float64.
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
    for k in range(t, moved.shape[0], THREADS):
        scratch[_MOVED, t] += moved[k]
    for k in range(t, batch.shape[0], THREADS):
        scratch[_BATCH, t] += batch[k]
    sum_threads(scratch, t)
    cuda.syncthreads()
    totals = scratch[:, 0]
    yy_trace = given_trace
    if batch.shape[0] > 0:
        yy_trace = totals[_BATCH]
    p = gram_decoder.shape[0]
    error = fit_error(yy_trace, totals[_Y + 3], totals[_P + 3] + totals[_P])
    if t == 0:
        worst = 0.0
        if not tied:
            direction = totals[0]
            if moved.shape[0] > 0:
                direction = totals[_MOVED]
            worst = relative(direction, totals[1])
        if has_decoder:
            worst = worst_of(worst, relative(totals[_Y], totals[_Y + 1]))
        outcome[RATIO] = worst
        if with_loss:
            if rule == VAE:
                value = likelihood(error, extra[0, p], d) + 0.5 * totals[_P + 2]
                for i in range(p):
                    value += divergence(extra[0, i])
            elif not has_decoder:
                value = fit_error(yy_trace, totals[_P + 2], totals[_P])
            else:
                cross = totals[_Y + 3]
                if sequential:
                    cross = totals[3]
                value = fit_error(first_prefix * yy_trace, cross, totals[_P]) + ridge * totals[_P + 1]
                value += totals[_Y + 2]
                if tied:
                    value += totals[_Y + 2]
                else:
                    value += totals[2]
            outcome[LOSS] = value
        if not math.isfinite(worst):
            progress[STATUS] = DIVERGED
        elif worst <= tolerance:
            progress[STATUS] = CONVERGED
    if rule == VAE:
        cuda.syncthreads()  # the loss was that of the old numbers
        k = progress[DONE]
        for i in range(t, p + 1, THREADS):
            if i < p:
                g = latent_gradient(spread[i], np.float64(gram_decoder[i, i]), spread[p])
            else:
                g = noise_gradient(error, spread[p], d)
            if optimizer == SGD:
                extra[0, i] -= schedule[k, RATE] * g
            elif optimizer == ADAM:
                extra[1, i] = average(extra[1, i], g, scalars[0], 1.0 - scalars[0])
                extra[2, i] = average(extra[2, i], g * g, scalars[1], 1.0 - scalars[1])
                extra[0, i] -= adam_move(
                    schedule[k, MEAN_RATE], extra[1, i], extra[2, i], schedule[k, INVERSE], scalars[2]
                )
            else:
                extra[1, i] = velocity(extra[1, i], g, scalars[0])
                if optimizer == NESTEROV:
                    extra[0, i] -= schedule[k, RATE] * look_ahead(g, extra[1, i], scalars[0])
                else:
                    extra[0, i] -= schedule[k, RATE] * extra[1, i]
        cuda.syncthreads()  # all have read the old numbers
        for i in range(t, p + 1, THREADS):
            spread[i] = math.exp(extra[0, i])
            if i == p:
                spread[p + 1] = math.exp(-extra[0, p])
        cuda.syncthreads()
    if t == 0:
        progress[DONE] += 1
