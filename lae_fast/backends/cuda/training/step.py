"""The fused step: direction, optimizer state, update and norms of a matrix in one pass; and what may follow it.

An entry's step is that of formulas.py, as in cpu/training/step.py.  Every kernel of training does nothing once
`progress` says that the run has ended, so iterations may be launched ahead of the host's knowledge.

float32 kernels compute in float32 but for what is listed here: sums over the threads of a block and over blocks, the
lengths of rows, and reading the schedule.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import (
    ADAM,
    MOMENTUM,
    N_ROW_SUMS,
    N_SUMS,
    NESTEROV,
    RUNNING,
    SGD,
)
from ..launch import AREA, ENTRIES_EACH, HEIGHT, ROWS_EACH, THREADS, WIDTH, Index
from ..reduce import sum_threads
from ..target import Kernel, cuda, device

velocity = device(formulas.velocity)
look_ahead = device(formulas.look_ahead)
average = device(formulas.average)
adam_move = device(formulas.adam_move)

# What `progress` counts: iterations done, how the run stands.
DONE, STATUS = 0, 1
# Columns of the schedule: the rate, and for adam the rate over the bias of the mean, one over the bias of the square.
RATE, MEAN_RATE, INVERSE = 0, 1, 2


def _fused_step(optimizer: int) -> Kernel:
    """The kernel of one optimizer, a constant when it is compiled: it has registers and reads for that one alone.

    Long because the kernel is.
    """

    def fused_step(
        keep, keep_square, rest, rest_square, eps, schedule, progress, with_cross, width, dense, product, on_product,
        on_weights, penalty, prefix, weights, first, second, twin, sums, row_sums,
    ):  # fmt: skip
        """One step of encoder, decoder or both:  g = dense + diag(on_product) Z + 2 diag(lam) W,  then Eq. 33 to 36.

        Norms are those of e = g + diag(on_weights) W, which is what vanishes at the solution.  Long because an entry is
        read and written once: what the step and the sums need of it stays in registers.

        dense, weights, first, second : (sides, p, w) as in cpu/training/step.py, a side for each matrix that moves, and
            w = width; all flat, so that they share an index.  States that the optimizer does not keep may be empty
        product : (sides, p, w), flat: Z; of two sides the first takes the second's, as A' takes B S and B takes A'S
        on_product, penalty, prefix : (p,) its diagonal coefficient, lam and c
        with_cross : whether sum_i c_i z_i . w_i is wanted (the loss, Eq. 5)
        keep, keep_square, rest, rest_square, eps : mu or beta_1, beta_2, 1 - beta_1, 1 - beta_2, eps, in the dtype
        schedule : (n, 3) float64, RATE, MEAN_RATE, INVERSE of each iteration;  progress : (2,) int64, DONE and STATUS
        on_weights : (p, p) whose diagonal is taken, G for rules that normalise rows (Eq. 47), or empty for zeros
        twin : (p, w), flat, that receives side 0's weights after the step, or empty
        sums : (sides, blocks, N_SUMS) and row_sums : (sides, blocks of columns, p, N_ROW_SUMS), float64
        sgd 12 p w flops, adam 22 p w for each side;  bytes: `step_bytes`.  Naive twin:
        oracle/naive_autoencoder.py::optimizer_step.  Blocks of WIDTH columns and HEIGHT x ROWS_EACH rows of one side; a
        thread reads all of two entries before it uses any, and adds its ROWS_EACH entries in the compute dtype.
        """
        scratch = cuda.shared.array((N_SUMS, AREA), dtype=np.float64)
        of_rows = cuda.shared.array((N_ROW_SUMS, ENTRIES_EACH), dtype=np.float64)
        if progress[STATUS] != RUNNING:
            return
        real = weights.dtype.type
        of_weights, of_product = cuda.local.array(2, dtype=weights.dtype), cuda.local.array(2, dtype=weights.dtype)
        of_dense, states = cuda.local.array(2, dtype=weights.dtype), cuda.local.array((2, 2), dtype=weights.dtype)
        sides, p = row_sums.shape[0], penalty.shape[0]
        k = progress[DONE]
        rate, inverse = real(schedule[k, RATE]), real(schedule[k, INVERSE])
        if optimizer == ADAM:
            rate = real(schedule[k, MEAN_RATE])
        side = cuda.blockIdx.z
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        t = y * WIDTH + x
        j = cuda.blockIdx.x * WIDTH + x
        top = cuda.blockIdx.y * (HEIGHT * ROWS_EACH) + y
        g_square, w_square, penalty_sum, cross = real(0.0), real(0.0), real(0.0), real(0.0)
        start = side * p * width
        across = (sides - 1 - 2 * side) * p * width  # to the other side, of two
        for pair in range(0, ROWS_EACH, 2):
            for q in range(2):  # beyond the matrix: its last entry, which is not used
                i = min(top + (pair + q) * HEIGHT, p - 1)
                here = start + i * width + min(j, width - 1)
                of_weights[q] = weights[Index(here)]
                of_product[q] = product[Index(here + across)]
                of_dense[q] = dense[Index(here)]
                if optimizer != SGD:
                    states[0, q] = first[Index(here)]
                if optimizer == ADAM:
                    states[1, q] = second[Index(here)]
            for q in range(2):
                i = top + (pair + q) * HEIGHT
                place = (pair + q) * AREA + t
                if i >= p or j >= width:
                    for s in range(N_ROW_SUMS):
                        of_rows[s, place] = 0.0
                    continue
                here = start + i * width + j
                w, z = of_weights[q], of_product[q]
                lam = penalty[Index(i)]
                g = of_dense[q] + on_product[Index(i)] * z + real(2.0) * lam * w
                e = g
                if on_weights.shape[0] > 0:
                    e += on_weights[Index(i), Index(i)] * w
                of_rows[0, place] = e * e
                of_rows[1, place] = e * w
                of_rows[2, place] = w * w
                g_square += e * e
                w_square += w * w
                penalty_sum += lam * w * w
                if with_cross:
                    cross += prefix[Index(i)] * z * w
                if optimizer == SGD:
                    w -= rate * g
                elif optimizer == ADAM:
                    v = average(states[0, q], g, keep, rest)
                    u = average(states[1, q], g * g, keep_square, rest_square)
                    first[Index(here)] = v
                    second[Index(here)] = u
                    w -= adam_move(rate, v, u, inverse, eps)
                else:
                    v = velocity(states[0, q], g, keep)
                    first[Index(here)] = v
                    if optimizer == NESTEROV:
                        w -= rate * look_ahead(g, v, keep)
                    else:
                        w -= rate * v
                weights[Index(here)] = w
                if twin.shape[0] > 0:
                    twin[Index(i * width + j)] = w
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

    return Kernel(fused_step)


fused_steps = {optimizer: _fused_step(optimizer) for optimizer in (SGD, MOMENTUM, NESTEROV, ADAM)}


def step_bytes(optimizer: int, entries: int, itemsize: int) -> int:
    """Bytes that one of `fused_steps` moves: dense, product, weights and states read, the last two written."""
    states = {SGD: 0, MOMENTUM: 1, NESTEROV: 1, ADAM: 2}[optimizer]
    return (4 + 2 * states) * entries * itemsize


@Kernel
def normalise_rows(progress, weights):
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
