"""The training loop in compiled code: products, Gram matrices, coefficients, fused steps, decisions.

One loop serves every rule, loss and optimizer through the p x p coefficients of docs/math.md Eq. 21.  A team of threads
runs `iterate` together (train.py starts it); each owns blocks of columns of the weights and rows of the p x p matrices,
and they meet at three barriers per iteration.  Blocks are cut by the shapes alone and sums over blocks are taken in
order, so results are the same bits for any number of threads.  BLAS is single-threaded inside.

What the arguments hold is said in state.py.
"""

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import ALPHA, CONVERGED, DIVERGED, DROPOUT, MOMENTS, MU, RAG, ROWS, RUNNING, SYNCHRONISED, TIED, VAE
from ..blas import gemm
from ..contiguous import contiguous_row
from ..jit import inner_kernel, lean_kernel
from .barrier import meet
from .coefficients import decoder_rows, encoder_rows, scaled_rows
from .decisions import all_still, gradient_ratio, loss_value, vae_error
from .minibatch import AS_IT_IS, TRANSPOSED, dropout_codes, gather
from .packed_gemm import multiply, pack_rows
from .step import fused_step, scale_rows, vae_step

latent_gradient = lean_kernel(formulas.latent_gradient)
noise_gradient = lean_kernel(formulas.noise_gradient)


@inner_kernel
def _copy(source, target):
    """target <- source, entry by entry: assigning slices would make a temporary copy in case they overlap."""
    for i in range(source.shape[0]):
        old, new = contiguous_row(source, i), contiguous_row(target, i)
        for j in range(source.shape[1]):
            new[j] = old[j]


@inner_kernel
def _folded(index, n_team):
    """The thread of row block `index` of a triangle: dealt forth and back, so that long and short rows mix."""
    position = index % (2 * n_team)
    return position if position < n_team else 2 * n_team - 1 - position


@inner_kernel
def _multiply_moments(team, n_team, spec, data, state, work, part):
    """Z_B = B Sxx, Z_A = A'Syx, B Sxy by column blocks  (docs/math.md Eq. 21).  part : 0 all, 1 Z_B, 2 Z_A alone.

    2 p d (d + q) + 2 p d q flops (4 p d^2 for Y = X), by GEMM or, with panels, by packed_gemm.py.  GEMM reads S by
    rows, transposed: that is faster.
    """
    n_blocks = work.x_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        if data.panels.shape[0] > 0:
            width = data.panels.shape[2]
            multiply(work.packed, data.panels, lo // width, (hi + width - 1) // width, work.product)
        elif spec.same and part == 0 and spec.coupling != TIED:
            gemm(1.0, state.stack, AS_IT_IS, data.sxx[lo:hi], TRANSPOSED, 0.0, work.product[:, lo:hi])
        else:
            if part != 2:
                gemm(1.0, state.encoder, AS_IT_IS, data.sxx[lo:hi], TRANSPOSED, 0.0, work.encoder_product[:, lo:hi])
            if part != 1 and spec.has_decoder and spec.coupling != TIED:
                left = data.sxx[lo:hi] if spec.same else data.sxy[lo:hi]
                gemm(1.0, state.decoder, AS_IT_IS, left, TRANSPOSED, 0.0, work.decoder_product[:, lo:hi])
    if not spec.same and part != 2:
        n_blocks = work.y_blocks.shape[0] - 1
        for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
            lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
            gemm(1.0, state.encoder, AS_IT_IS, data.sxy[:, lo:hi], AS_IT_IS, 0.0, work.target_product[:, lo:hi])


@inner_kernel
def _read_batch(team, n_team, spec, rows, step, state, work):
    """The batch's rows and their codes B x and A'y, by blocks of samples.  4 b p d flops by GEMM."""
    p = state.encoder.shape[0]
    n_blocks = work.b_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        lo, hi = work.b_blocks[k], work.b_blocks[k + 1]
        index = rows.index[step]
        square = gather(
            rows.x, rows.x_strides[0], rows.x_strides[1], index, rows.x_shift, rows.scale, rows.weights, lo, hi,
            work.x_rows,
        )  # fmt: skip
        if spec.same:
            gemm(1.0, state.stack, AS_IT_IS, work.x_rows[lo:hi], TRANSPOSED, 0.0, work.codes[:, lo:hi])
        else:
            square = gather(
                rows.y, rows.y_strides[0], rows.y_strides[1], index, rows.y_shift, rows.scale, rows.weights, lo, hi,
                work.y_rows,
            )  # fmt: skip
            gemm(1.0, state.encoder, AS_IT_IS, work.x_rows[lo:hi], TRANSPOSED, 0.0, work.codes[:p, lo:hi])
            gemm(1.0, state.decoder, AS_IT_IS, work.y_rows[lo:hi], TRANSPOSED, 0.0, work.codes[p:, lo:hi])
        work.b_sums[k] = square * rows.factor[step]


@inner_kernel
def _drop_batch(team, n_team, rows, step, work):
    """Masks the codes by what each sample keeps  (docs/math.md Eq. 9)."""
    p = work.p1.shape[0]
    n_blocks = work.b_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        dropout_codes(work.p1, rows.kept[step], work.b_blocks[k], work.b_blocks[k + 1], work.codes[:p], work.codes[p:])


@inner_kernel
def _multiply_batch(team, n_team, spec, factor, work):
    """The products of `_multiply_moments` from the batch's codes, by column blocks.  4 b p d flops by GEMM."""
    p = work.p1.shape[0]
    n_blocks = work.x_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        if spec.same:
            gemm(factor, work.codes, AS_IT_IS, work.x_rows[:, lo:hi], AS_IT_IS, 0.0, work.product[:, lo:hi])
        else:
            gemm(factor, work.codes[:p], AS_IT_IS, work.x_rows[:, lo:hi], AS_IT_IS, 0.0, work.encoder_product[:, lo:hi])
            gemm(factor, work.codes[p:], AS_IT_IS, work.x_rows[:, lo:hi], AS_IT_IS, 0.0, work.decoder_product[:, lo:hi])
    if not spec.same:
        n_blocks = work.y_blocks.shape[0] - 1
        for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
            lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
            gemm(factor, work.codes[:p], AS_IT_IS, work.y_rows[:, lo:hi], AS_IT_IS, 0.0, work.target_product[:, lo:hi])


@inner_kernel
def _weight_grams(team, n_team, spec, state, work, with_encoder):
    """Lower block triangles of A'A, and of BB' where wanted.  p^2 d flops each by GEMM."""
    for k in range(work.p_blocks.shape[0] - 1):
        if _folded(k, n_team) != team:
            continue
        lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
        if spec.has_decoder:
            gemm(
                1.0, state.decoder[lo:hi], AS_IT_IS, state.decoder[:hi], TRANSPOSED, 0.0, work.gram_decoder[lo:hi, :hi]
            )
        if with_encoder:
            gemm(
                1.0, state.encoder[lo:hi], AS_IT_IS, state.encoder[:hi], TRANSPOSED, 0.0, work.gram_encoder[lo:hi, :hi]
            )
        if spec.rule == DROPOUT:
            # 2 A'A is needed before the codes are masked; it is not used in the step.
            scaled_rows(work.gram_decoder, 2.0, lo, hi, work.p1)


@inner_kernel
def _latent_gram(team, n_team, state, work):
    """Lower block triangle of G = Z_B B'.  p^2 d flops by GEMM."""
    for k in range(work.p_blocks.shape[0] - 1):
        if _folded(k, n_team) == team:
            lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
            gemm(
                1.0,
                work.encoder_product[lo:hi],
                AS_IT_IS,
                state.encoder[:hi],
                TRANSPOSED,
                0.0,
                work.gram_latent[lo:hi, :hi],
            )


@inner_kernel
def _coefficients(team, n_team, spec, data, state, work, side):
    """The p x p coefficients by blocks of rows.  side : 0 both, 1 encoder, 2 decoder alone."""
    noise = math.exp(state.extra[0, -1])
    for k in range(work.p_blocks.shape[0] - 1):
        if _folded(k, n_team) != team:
            continue
        lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
        if side != 2 and spec.rule != DROPOUT and spec.coupling != TIED:
            encoder_rows(
                spec.rule, data.prefix, spec.product_penalty, noise, work.gram_decoder, work.gram_latent, lo, hi,
                work.p1, work.p3,
            )  # fmt: skip
        if side != 1 and spec.has_decoder:
            decoder_rows(
                spec.rule, data.prefix, spec.product_penalty, noise, state.extra[0], work.gram_encoder,
                work.gram_latent, lo, hi, work.q3,
            )  # fmt: skip


@inner_kernel
def _traces(team, n_team, spec, data, state, work):
    """The p x p sums of the loss, block by block, float64  (docs/math.md Eq. 5, 11)."""
    for k in range(work.p_blocks.shape[0] - 1):
        if _folded(k, n_team) != team:
            continue
        fit, ridge, latent, spread = 0.0, 0.0, 0.0, 0.0
        outer = work.gram_decoder if spec.has_decoder else work.gram_encoder
        for i in range(work.p_blocks[k], work.p_blocks[k + 1]):
            row_fit, row_ridge = 0.0, 0.0
            for j in range(i):
                row_fit += np.float64(outer[i, j]) * np.float64(work.gram_latent[i, j])
                row_ridge += np.float64(outer[i, j]) * np.float64(work.gram_encoder[i, j])
            own = np.float64(outer[i, i])
            fit += data.prefix[i] * (2.0 * row_fit + own * work.gram_latent[i, i])
            ridge += 2.0 * row_ridge + own * work.gram_encoder[i, i]
            latent += work.gram_latent[i, i]
            spread += math.exp(state.extra[0, i]) * own
        work.p_sums[k, 0], work.p_sums[k, 1], work.p_sums[k, 2], work.p_sums[k, 3] = fit, ridge, latent, spread


@inner_kernel
def _step_encoder(team, n_team, spec, data, state, work, rate, iteration, with_cross):
    """Direction and step of B by column blocks  (docs/math.md Eq. 21).  2 p^2 d flops by GEMM."""
    real = work.p1.dtype.type
    if spec.rule == VAE:
        for i in range(work.on_encoder.shape[0]):  # all threads write the same numbers
            work.on_encoder[i] = real(-math.exp(-state.extra[0, -1]))
    if spec.rule == ALPHA or spec.rule == MU:
        for i in range(work.on_weights.shape[0]):
            work.on_weights[i] = work.gram_latent[i, i]
    n_blocks = work.x_blocks.shape[0] - 1
    uses_p1 = spec.rule <= RAG or spec.rule == ALPHA or spec.rule == VAE
    uses_p3 = not uses_p1 or spec.rule == RAG or spec.product_penalty > 0.0
    product = work.decoder_product if spec.has_decoder else work.encoder_product
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        dense = work.scratch[team, :, : hi - lo]
        if spec.rule == DROPOUT:
            dense[:, :] = real(0.0)
        else:
            if uses_p1:
                gemm(1.0, work.p1, AS_IT_IS, work.encoder_product[:, lo:hi], AS_IT_IS, 0.0, dense)
            if uses_p3:
                gemm(1.0, work.p3, AS_IT_IS, state.encoder[:, lo:hi], AS_IT_IS, 1.0 if uses_p1 else 0.0, dense)
        if spec.coupling == SYNCHRONISED:
            # One optimizer moves both by the mean of their gradients; B = A', so the products are the same.
            gemm(0.5, work.q3, AS_IT_IS, state.decoder[:, lo:hi], AS_IT_IS, 0.5, dense)
        fused_step(
            spec.optimizer, spec.scalars, rate, iteration, dense, product[:, lo:hi], work.on_encoder, work.on_weights,
            data.penalty, data.prefix, with_cross, state.encoder[:, lo:hi], state.encoder_first[:, lo:hi],
            state.encoder_second[:, lo:hi], work.x_sums[k], work.x_row_sums[k], work.row_squares[k],
        )  # fmt: skip
        if spec.coupling == SYNCHRONISED:
            _copy(state.encoder[:, lo:hi], state.decoder[:, lo:hi])


@inner_kernel
def _step_decoder(team, n_team, spec, data, state, work, rate, iteration, with_loss):
    """Direction and step of A' by column blocks  (docs/math.md Eq. 21).  2 p^2 q flops by GEMM."""
    real = work.q3.dtype.type
    if spec.rule == VAE:
        for i in range(work.on_decoder.shape[0]):
            work.on_decoder[i] = real(-math.exp(-state.extra[0, -1]))
    n_blocks = work.y_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
        dense = work.scratch[team, :, : hi - lo]
        gemm(1.0, work.q3, AS_IT_IS, state.decoder[:, lo:hi], AS_IT_IS, 0.0, dense)
        fused_step(
            spec.optimizer, spec.scalars, rate, iteration, dense, work.target_product[:, lo:hi], work.on_decoder,
            work.no_weights, data.penalty, data.prefix, with_loss or spec.rule == VAE, state.decoder[:, lo:hi],
            state.decoder_first[:, lo:hi], state.decoder_second[:, lo:hi], work.y_sums[k], work.y_row_sums[k],
            work.no_squares,
        )  # fmt: skip
        if spec.coupling == TIED:
            _copy(state.decoder[:, lo:hi], state.encoder[:, lo:hi])


@inner_kernel
def _normalise(team, n_team, state, work):
    """Rows to length 1  (docs/math.md Eq. 27, 28)."""
    n_blocks = work.x_blocks.shape[0] - 1
    for k in range(team * n_blocks // n_team, (team + 1) * n_blocks // n_team):
        scale_rows(work.row_squares, state.encoder[:, work.x_blocks[k] : work.x_blocks[k + 1]])


@inner_kernel
def _move_extra(spec, data, yy_trace, d, state, work, rate, iteration):
    """Gradient and step of e and log s^2  (docs/math.md Eq. 12), by one thread."""
    p = work.p1.shape[0]
    noise = math.exp(state.extra[0, p])
    for i in range(p):
        work.extra_gradient[i] = latent_gradient(math.exp(state.extra[0, i]), work.gram_decoder[i, i], noise)
    work.extra_gradient[p] = noise_gradient(vae_error(data, yy_trace, work), noise, d)
    vae_step(
        spec.optimizer, spec.scalars, rate, iteration, work.extra_gradient, state.extra[0], state.extra[1],
        state.extra[2],
    )  # fmt: skip


@lean_kernel
def iterate(team, n_team, shared, spec, data, rows, state, work, first_iteration, rates, with_loss, outcome):
    """Run len(rates) iterations, or until convergence or divergence; one call by each thread of the team.

    team : 0..n_team - 1;  shared : `barrier.shared_state()`;  spec, data, rows, state, work : see the classes
    first_iteration : number of the first one, for Adam's bias correction;  rates : (n,) float64, one per iteration
    with_loss : whether the loss at the weights on entry is wanted
    outcome : (5,) float64, written by thread 0: iterations done, status, last max(|dA| / |A|, |dB| / |B|), loss, and
        how many iterations in a row were still, which is read on entry too

    Per iteration on moments, Y = X: 4 p d^2 + 2 p^2 d (A'A and G, lower halves) + 4 p^2 d flops by GEMM, and the fused
    steps.  Naive twin: oracle/naive_autoencoder.py::train.  Three barriers, four with panels; bits do not depend on
    n_team.
    """
    d = state.encoder.shape[1]
    with_encoder_gram = spec.product_penalty > 0.0 or (with_loss and not spec.has_decoder)
    if spec.sequential and spec.product == MOMENTS:
        _multiply_moments(team, n_team, spec, data, state, work, np.int64(1))
    loss, ratio = math.nan, math.nan
    status, done, calm = RUNNING, 0, int(outcome[4])
    for step in range(rates.shape[0]):
        recording = with_loss and step == 0
        iteration = first_iteration + step
        rate = rates[step]
        yy_trace = data.yy_trace
        # -- products with S, and the Gram matrices of the weights
        if data.panels.shape[0] > 0:
            groups = work.packed.shape[0]
            pack_rows(state.stack, team * groups // n_team, (team + 1) * groups // n_team, work.packed)
        _weight_grams(team, n_team, spec, state, work, with_encoder_gram)
        if data.panels.shape[0] > 0:
            meet(shared, n_team)
        if spec.product == MOMENTS:
            _multiply_moments(team, n_team, spec, data, state, work, np.int64(2 if spec.sequential else 0))
        elif spec.product == ROWS:
            _read_batch(team, n_team, spec, rows, step, state, work)
            meet(shared, n_team)
            yy_trace = 0.0
            for k in range(work.b_sums.shape[0]):
                yy_trace += work.b_sums[k]
            if spec.rule == DROPOUT:
                _drop_batch(team, n_team, rows, step, work)
                meet(shared, n_team)
            _multiply_batch(team, n_team, spec, rows.factor[step], work)
        meet(shared, n_team)
        # -- p x p coefficients
        _latent_gram(team, n_team, state, work)
        if spec.rule == ALPHA:
            meet(shared, n_team)  # its quotients need the whole diagonal of G
        _coefficients(team, n_team, spec, data, state, work, np.int64(1 if spec.sequential else 0))
        if recording or spec.rule == VAE:
            _traces(team, n_team, spec, data, state, work)
        meet(shared, n_team)
        # -- steps
        if spec.coupling != TIED:
            with_cross = recording and (spec.sequential or spec.coupling == SYNCHRONISED)
            _step_encoder(team, n_team, spec, data, state, work, rate, iteration, with_cross)
        if spec.sequential:
            # Kunin et al., Algorithm 1: the decoder's gradient at the new encoder
            meet(shared, n_team)
            if spec.product_penalty > 0.0:
                _weight_grams(team, n_team, spec, state, work, with_encoder_gram)
            _multiply_moments(team, n_team, spec, data, state, work, np.int64(1))
            meet(shared, n_team)
            _latent_gram(team, n_team, state, work)
            _coefficients(team, n_team, spec, data, state, work, np.int64(2))
            meet(shared, n_team)
        if spec.has_decoder and spec.coupling != SYNCHRONISED:
            _step_decoder(team, n_team, spec, data, state, work, rate, iteration, recording)
        meet(shared, n_team)
        if spec.rule == ALPHA or spec.rule == MU:
            _normalise(team, n_team, state, work)
            meet(shared, n_team)
        # -- decisions: every thread computes the same ones from the same sums
        ratio = gradient_ratio(spec, work)
        # A batch without mass, or of rows that are all the mean, says nothing.
        if spec.tolerance >= 0.0 and (spec.product != ROWS or yy_trace > 0.0):
            calm = calm + 1 if all_still(spec, data, state, work) else 0
        if recording:
            loss = loss_value(spec, data, yy_trace, d, state, work)
        if spec.rule == VAE:
            meet(shared, n_team)
            if team == 0:
                _move_extra(spec, data, yy_trace, d, state, work, rate, iteration)
            meet(shared, n_team)
        done += 1
        if not math.isfinite(ratio):
            status = DIVERGED
            break
        if spec.tolerance >= 0.0 and calm >= spec.patience:
            status = CONVERGED
            break
    if team == 0:
        outcome[0], outcome[1], outcome[2], outcome[3], outcome[4] = done, status, ratio, loss, calm
