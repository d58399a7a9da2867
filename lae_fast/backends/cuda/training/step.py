"""The fused step, what may follow it, and the decision that ends an iteration.

An entry's step and the loss are those of formulas.py, as in cpu/training/step.py and loop.py.  Every kernel does
nothing once `progress` says that the run has ended, so iterations may be launched ahead of the host's knowledge.

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
    ALPHA,
    CONVERGED,
    DIVERGED,
    MOMENTUM,
    MU,
    N_ROW_SUMS,
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
from ..launch import AREA, ENTRIES_EACH, HEIGHT, ROWS_EACH, THREADS, WIDTH
from ..reduce import sum_threads
from ..target import Kernel, cuda, device

velocity = device(formulas.velocity)
look_ahead = device(formulas.look_ahead)
average = device(formulas.average)
adam_move = device(formulas.adam_move)
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

# What `progress` counts: iterations done, how the run stands.
DONE, STATUS = 0, 1
# Columns of the schedule: the rate, and for adam the rate over the bias of the mean, one over the bias of the square.
RATE, MEAN_RATE, INVERSE = 0, 1, 2
# What `outcome` holds.
RATIO, LOSS = 0, 1
# Sums of the decision: those of the encoder's step, of the decoder's, the traces, components that still move, squares
# of a batch.
_Y, _P, _LATE, _BATCH = N_SUMS, 2 * N_SUMS, 2 * N_SUMS + N_TRACES, 2 * N_SUMS + N_TRACES + 1
_TOTALS = _BATCH + 1


@Kernel
def fused_step(
    optimizer, keep, keep_square, rest, rest_square, eps, schedule, progress, with_cross, dense, product, on_product,
    on_weights, penalty, prefix, weights, first, second, twin, sums, row_sums,
):  # fmt: skip
    """One step of encoder, decoder or both:  g = dense + diag(on_product) Z + 2 diag(lam) W,  then Eq. 33 to 36.

    Norms are those of e = g + diag(on_weights) W, which is what vanishes at the solution.

    dense, weights, first, second : (sides, p, w) as in cpu/training/step.py, a side for each matrix that moves; the
        states that the optimizer does not keep may be any array of three dimensions
    product : (sides, p, w) Z; of two sides the first takes the second's, as A' takes B S and B takes A'S
    on_product, penalty, prefix : (p,) its diagonal coefficient, lam and c;  with_cross : whether sum_i c_i z_i . w_i is
        wanted (the loss, Eq. 5)
    keep, keep_square, rest, rest_square, eps : mu or beta_1, beta_2, 1 - beta_1, 1 - beta_2, eps, in the dtype
    schedule : (n, 3) float64, RATE, MEAN_RATE, INVERSE of each iteration;  progress : (2,) int64, DONE and STATUS
    on_weights : (p, p) whose diagonal is taken, G for rules that normalise rows (Eq. 47), or empty for zeros
    twin : (p, w) that receives side 0's weights after the step, or empty
    sums : (sides, blocks, N_SUMS) and row_sums : (sides, blocks of columns, p, N_ROW_SUMS), float64
    sgd 12 p w flops, adam 22 p w for each side;  bytes: `step_bytes`.  Naive twin:
    oracle/naive_autoencoder.py::optimizer_step.  Blocks of WIDTH columns and HEIGHT x ROWS_EACH rows of one side; a
    thread adds its ROWS_EACH entries in the compute dtype.
    """
    scratch = cuda.shared.array((N_SUMS, AREA), dtype=np.float64)
    of_rows = cuda.shared.array((N_ROW_SUMS, ENTRIES_EACH), dtype=np.float64)
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
        place = r * AREA + y * WIDTH + x
        for s in range(N_ROW_SUMS):
            of_rows[s, place] = 0.0
        if i < p and j < width:
            w = weights[side, i, j]
            z = product[sides - 1 - side, i, j]
            g = dense[side, i, j] + on_product[i] * z + real(2.0) * penalty[i] * w
            e = g
            if on_weights.shape[0] > 0:
                e += on_weights[i, i] * w
            of_rows[0, place] = e * e
            of_rows[1, place] = e * w
            of_rows[2, place] = w * w
            g_square += e * e
            w_square += w * w
            penalty_sum += penalty[i] * w * w
            if with_cross:
                cross += prefix[i] * z * w
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
    for k in range(t, N_ROW_SUMS * ROWS_EACH * HEIGHT, AREA):
        s, line = k // (ROWS_EACH * HEIGHT), k % (ROWS_EACH * HEIGHT)
        i = cuda.blockIdx.y * (HEIGHT * ROWS_EACH) + line
        if i < p:
            total = np.float64(0.0)
            for n in range(WIDTH):  # from a place of its own, so that neighbours meet other banks
                total += of_rows[s, line * WIDTH + (n + line) % WIDTH]
            row_sums[side, cuda.blockIdx.x, i, s] = total


def step_bytes(optimizer: int, entries: int, itemsize: int) -> int:
    """Bytes that `fused_step` moves: dense, product, weights and states read, the last two written."""
    states = {SGD: 0, MOMENTUM: 1, NESTEROV: 1, ADAM: 2}[optimizer]
    return (4 + 2 * states) * entries * itemsize


@Kernel
def normalise(progress, weights):
    """Rows to length 1, a zero row left alone  (docs/math.md Eq. 27, 28).

    weights : (p, w) in place.  3 p w flops, float64.
    Naive twin: oracle/naive_autoencoder.py::normalise_rows.  A block per row.
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
    if square > 0.0:
        inverse = real(1.0 / math.sqrt(square))
        for j in range(t, width, THREADS):
            weights[row, j] *= inverse


@Kernel
def couple(progress, encoder, decoder):
    """encoder <- the mean of two directions (p, w): Kunin's "synchronised", where one step moves B = A'.

    Naive twin: oracle/naive_autoencoder.py::step.
    """
    if progress[STATUS] != RUNNING:
        return
    j = cuda.blockIdx.x * WIDTH + cuda.threadIdx.x
    i = cuda.blockIdx.y * HEIGHT + cuda.threadIdx.y
    if i < encoder.shape[0] and j < encoder.shape[1]:
        encoder[i, j] = (encoder[i, j] + decoder[i, j]) * encoder.dtype.type(0.5)


@device
def of_row(sums, i, s):
    """A row's sum over the blocks of columns in their order."""
    total = np.float64(0.0)
    for k in range(sums.shape[0]):
        total += sums[k, i, s]
    return total


@device
def row_is_still(
    rule, x_rows, y_rows, i, prefix, penalty, ridge, gram_latent, spread, tolerance, cross, square, negligible
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
    size = component_size(c, ridge, decoder, encoder, latent)
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


@Kernel
def decide(
    rule, coupling, has_decoder, sequential, optimizer, scalars, schedule, ridge, stop, patience, given_trace, d,
    with_loss, x_sums, y_sums, x_rows, y_rows, p_sums, batch, prefix, penalty, gram_decoder, gram_latent, extra,
    spread, progress, calm, outcome,
):  # fmt: skip
    """Ends an iteration: ratio, loss, convergence, divergence; and the step of the VAE's own parameters.

    scalars : (3,) of the optimizer;  schedule : (n, 3);  ridge : lam_pi;  given_trace : tr Syy, where it is not that of
        a batch;  d : features;  with_loss : whether it is wanted (Eq. 5, 11), before the step
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
                rule, x_rows, y_rows, i, prefix, penalty, ridge, gram_latent, spread, stop[0], stop[1], stop[2], stop[3]
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
    error = fit_error(yy_trace, totals[_Y + 3], totals[_P + 3] + totals[_P])
    if t == 0:
        worst = 0.0
        if coupling != TIED:
            worst = relative(totals[0], totals[1])
        if has_decoder and coupling != SYNCHRONISED:
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
                if sequential or coupling == SYNCHRONISED:
                    cross = totals[3]
                value = fit_error(prefix[0] * yy_trace, cross, totals[_P]) + ridge * totals[_P + 1]
                value += totals[2] + totals[_Y + 2]
                if coupling != UNTIED:  # one matrix has sums, and both its penalty
                    value += totals[2] + totals[_Y + 2]
            outcome[LOSS] = value
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
