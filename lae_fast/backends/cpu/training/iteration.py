"""Iterations of the training loop in compiled code: products, Gram matrices, coefficients, fused steps, decisions.

One loop serves every rule, loss and optimizer through the p x p coefficients of docs/math.md Eq. 21.  A team of threads
runs `iterate` together (loop.py starts it); each owns blocks of columns of the weights and rows of the p x p matrices,
and they meet at three barriers per iteration.  Blocks are cut by the shapes alone and sums over blocks are taken in
order, so results are the same bits for any number of threads.  BLAS is single-threaded inside.

What the arguments hold is said in state.py and in backends/training_interface.py.
"""

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import ALPHA, CONVERGED, DIVERGED, DROPOUT, MOMENTS, MU, RAG, ROWS, RUNNING, SYNCHRONISED, TIED, VAE
from ..blas import gemm
from ..contiguous import contiguous_row
from ..jit import lean_kernel
from .barrier import meet
from .coefficients import decoder_coefficients, encoder_coefficients, scaled_rows
from .decisions import all_still, gradient_ratio, loss_value, vae_error
from .minibatch import AS_IT_IS, TRANSPOSED
from .packed_gemm import pack_rows
from .products import drop_batch, encode_batch, multiply_batch, multiply_moments, own_blocks, prepare_batch
from .step import fused_step, normalise_rows, vae_step

latent_gradient = lean_kernel(formulas.latent_gradient)
noise_gradient = lean_kernel(formulas.noise_gradient)


@lean_kernel
def _copy(source, target):
    """target <- source, entry by entry: assigning slices would make a temporary copy in case they overlap."""
    for i in range(source.shape[0]):
        old, new = contiguous_row(source, i), contiguous_row(target, i)
        for j in range(source.shape[1]):
            new[j] = old[j]


@lean_kernel
def _belongs_to(member, index):
    """Whether row block `index` of a triangle is a thread's: dealt forth and back, so that short rows mix with long."""
    position = index % (2 * member.size)
    return member.rank == (position if position < member.size else 2 * member.size - 1 - position)


@lean_kernel
def _weight_grams(member, spec, state, work, with_encoder):
    """Lower block triangles of A'A, and of BB' where wanted.  p^2 d flops each by GEMM."""
    for k in range(work.p_blocks.shape[0] - 1):
        if not _belongs_to(member, k):
            continue
        lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
        if spec.has_decoder:
            gram = work.gram_decoder[lo:hi, :hi]
            gemm(1.0, state.decoder[lo:hi], AS_IT_IS, state.decoder[:hi], TRANSPOSED, 0.0, gram)
        if with_encoder:
            gram = work.gram_encoder[lo:hi, :hi]
            gemm(1.0, state.encoder[lo:hi], AS_IT_IS, state.encoder[:hi], TRANSPOSED, 0.0, gram)
        if spec.rule == DROPOUT:
            # 2 A'A is needed before the codes are masked; it is not used in the step.
            scaled_rows(work.gram_decoder, 2.0, lo, hi, work.p1)


@lean_kernel
def _latent_gram(member, state, work):
    """Lower block triangle of G = Z_B B'.  p^2 d flops by GEMM."""
    for k in range(work.p_blocks.shape[0] - 1):
        if _belongs_to(member, k):
            lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
            gram = work.gram_latent[lo:hi, :hi]
            gemm(1.0, work.encoder_product[lo:hi], AS_IT_IS, state.encoder[:hi], TRANSPOSED, 0.0, gram)


@lean_kernel
def _coefficients(member, spec, data, state, work, side):
    """The p x p coefficients by blocks of rows.  side : 0 both, 1 encoder, 2 decoder alone."""
    noise = math.exp(state.extra[0, -1])
    for k in range(work.p_blocks.shape[0] - 1):
        if not _belongs_to(member, k):
            continue
        lo, hi = work.p_blocks[k], work.p_blocks[k + 1]
        if side != 2 and spec.rule != DROPOUT and spec.coupling != TIED:
            encoder_coefficients(
                spec, data.prefix, noise, work.gram_decoder, work.gram_latent, lo, hi, work.p1, work.p3
            )
        if side != 1 and spec.has_decoder:
            decoder_coefficients(
                spec, data.prefix, noise, state.extra[0], work.gram_encoder, work.gram_latent, lo, hi, work.q3
            )


@lean_kernel
def _traces(member, spec, data, state, work):
    """The p x p sums of the loss, block by block, float64  (docs/math.md Eq. 5, 11)."""
    for k in range(work.p_blocks.shape[0] - 1):
        if not _belongs_to(member, k):
            continue
        fit, product, latent, spread = 0.0, 0.0, 0.0, 0.0
        outer = work.gram_decoder if spec.has_decoder else work.gram_encoder
        for i in range(work.p_blocks[k], work.p_blocks[k + 1]):
            row_fit, row_product = 0.0, 0.0
            for j in range(i):
                row_fit += np.float64(outer[i, j]) * np.float64(work.gram_latent[i, j])
                row_product += np.float64(outer[i, j]) * np.float64(work.gram_encoder[i, j])
            own = np.float64(outer[i, i])
            fit += data.prefix[i] * (2.0 * row_fit + own * work.gram_latent[i, i])
            product += 2.0 * row_product + own * work.gram_encoder[i, i]
            latent += work.gram_latent[i, i]
            spread += math.exp(state.extra[0, i]) * own
        work.p_sums[k, 0], work.p_sums[k, 1], work.p_sums[k, 2], work.p_sums[k, 3] = fit, product, latent, spread


@lean_kernel
def _step_encoder(member, spec, data, state, work, rate, iteration, with_cross):
    """Direction and step of B by column blocks  (docs/math.md Eq. 21).  2 p^2 d flops by GEMM."""
    real = work.p1.dtype.type
    if spec.rule == VAE:
        for i in range(work.on_encoder.shape[0]):  # all threads write the same numbers
            work.on_encoder[i] = real(-math.exp(-state.extra[0, -1]))
    if spec.rule == ALPHA or spec.rule == MU:
        for i in range(work.on_weights.shape[0]):
            work.on_weights[i] = work.gram_latent[i, i]
    uses_p1 = spec.rule <= RAG or spec.rule == ALPHA or spec.rule == VAE
    uses_p3 = not uses_p1 or spec.rule == RAG or spec.product_penalty > 0.0
    product = work.decoder_product if spec.has_decoder else work.encoder_product
    for k in own_blocks(member, work.x_blocks):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        dense = work.scratch[member.rank, :, : hi - lo]
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


@lean_kernel
def _step_decoder(member, spec, data, state, work, rate, iteration, with_loss):
    """Direction and step of A' by column blocks  (docs/math.md Eq. 21).  2 p^2 q flops by GEMM."""
    real = work.q3.dtype.type
    if spec.rule == VAE:
        for i in range(work.on_decoder.shape[0]):
            work.on_decoder[i] = real(-math.exp(-state.extra[0, -1]))
    for k in own_blocks(member, work.y_blocks):
        lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
        dense = work.scratch[member.rank, :, : hi - lo]
        gemm(1.0, work.q3, AS_IT_IS, state.decoder[:, lo:hi], AS_IT_IS, 0.0, dense)
        fused_step(
            spec.optimizer, spec.scalars, rate, iteration, dense, work.target_product[:, lo:hi], work.on_decoder,
            work.no_weights, data.penalty, data.prefix, with_loss or spec.rule == VAE, state.decoder[:, lo:hi],
            state.decoder_first[:, lo:hi], state.decoder_second[:, lo:hi], work.y_sums[k], work.y_row_sums[k],
            work.no_squares,
        )  # fmt: skip
        if spec.coupling == TIED:
            _copy(state.decoder[:, lo:hi], state.encoder[:, lo:hi])


@lean_kernel
def _normalise_rows(member, state, work):
    """Rows to length 1  (docs/math.md Eq. 27, 28)."""
    for k in own_blocks(member, work.x_blocks):
        normalise_rows(work.row_squares, state.encoder[:, work.x_blocks[k] : work.x_blocks[k + 1]])


@lean_kernel
def _move_extra(spec, data, yy_trace, d, state, work, rate, iteration):
    """Gradient and step of e and log s^2  (docs/math.md Eq. 12), by one thread."""
    p = work.p1.shape[0]
    noise = math.exp(state.extra[0, p])
    for i in range(p):
        work.extra_gradient[i] = latent_gradient(math.exp(state.extra[0, i]), work.gram_decoder[i, i], noise)
    work.extra_gradient[p] = noise_gradient(vae_error(yy_trace, work), noise, d)
    vae_step(
        spec.optimizer, spec.scalars, rate, iteration, work.extra_gradient, state.extra[0], state.extra[1],
        state.extra[2],
    )  # fmt: skip


@lean_kernel
def iterate(member, spec, data, rows, state, work, first_iteration, rates, with_loss, outcome):
    """Run len(rates) iterations, or until convergence or divergence; one call by each thread of the team.

    member : which thread this is;  spec, data, rows, state, work : see the classes
    first_iteration : number of the first one, for Adam's bias correction;  rates : (n,) float64, one per iteration
    with_loss : whether the loss at the weights on entry is wanted
    outcome : (5,) float64, written by thread 0: iterations done, status, last max(|dA| / |A|, |dB| / |B|), loss, and
        how many iterations in a row were still, which is read on entry too

    Per iteration on moments, Y = X: 4 p d^2 + 2 p^2 d (A'A and G, lower halves) + 4 p^2 d flops by GEMM, and the fused
    steps.  Naive twin: oracle/naive_autoencoder.py::train.  Three to five barriers; bits do not depend
    on the number of threads.

    Over sixty lines: every kernel is compiled with its own copies of those that it calls, so that functions between
    this one and the ones it calls would be compiled twice: compiling took a fifth longer.
    """
    d = state.encoder.shape[1]
    with_encoder_gram = spec.product_penalty > 0.0 or (with_loss and not spec.has_decoder)
    if spec.sequential and spec.product == MOMENTS:
        multiply_moments(member, spec, data, state, work, np.int64(1))
    loss, ratio = math.nan, math.nan
    status, done, calm = RUNNING, 0, int(outcome[4])
    for step in range(rates.shape[0]):
        recording = with_loss and step == 0
        iteration, rate = first_iteration + step, rates[step]
        yy_trace = data.yy_trace
        # -- products with S, and the Gram matrices of the weights
        if work.packed_s.shape[0] > 0:
            groups = work.packed_stack.shape[0]
            first, last = member.rank * groups // member.size, (member.rank + 1) * groups // member.size
            pack_rows(state.stack, first, last, work.packed_stack)
        elif spec.product == ROWS:
            prepare_batch(member, spec, rows, step, state, work)
        _weight_grams(member, spec, state, work, with_encoder_gram)
        if work.packed_s.shape[0] > 0 or spec.product == ROWS:
            meet(member.shared, member.size)
        if spec.product == MOMENTS:
            multiply_moments(member, spec, data, state, work, np.int64(2 if spec.sequential else 0))
        elif spec.product == ROWS:
            encode_batch(member, spec, rows, step, work)
            meet(member.shared, member.size)
            yy_trace = 0.0
            for k in range(work.b_sums.shape[0]):
                yy_trace += work.b_sums[k]
            if spec.rule == DROPOUT:
                drop_batch(member, rows, step, work)
                meet(member.shared, member.size)
            multiply_batch(member, spec, rows, work)
        meet(member.shared, member.size)
        # -- p x p coefficients
        _latent_gram(member, state, work)
        if spec.rule == ALPHA:
            meet(member.shared, member.size)  # its quotients need the whole diagonal of G
        _coefficients(member, spec, data, state, work, np.int64(1 if spec.sequential else 0))
        if recording or spec.rule == VAE:
            _traces(member, spec, data, state, work)
        meet(member.shared, member.size)
        # -- steps
        if spec.coupling != TIED:
            with_cross = recording and (spec.sequential or spec.coupling == SYNCHRONISED)
            _step_encoder(member, spec, data, state, work, rate, iteration, with_cross)
        if spec.sequential:
            # Kunin et al. 2019, Algorithm 1: the decoder's gradient at the new encoder
            meet(member.shared, member.size)
            if spec.product_penalty > 0.0:
                _weight_grams(member, spec, state, work, with_encoder_gram)
            multiply_moments(member, spec, data, state, work, np.int64(1))
            meet(member.shared, member.size)
            _latent_gram(member, state, work)
            _coefficients(member, spec, data, state, work, np.int64(2))
            meet(member.shared, member.size)
        if spec.has_decoder and spec.coupling != SYNCHRONISED:
            _step_decoder(member, spec, data, state, work, rate, iteration, recording)
        meet(member.shared, member.size)
        if spec.rule == ALPHA or spec.rule == MU:
            _normalise_rows(member, state, work)
            meet(member.shared, member.size)
        # -- decisions: every thread makes the same ones from the same sums
        ratio = gradient_ratio(spec, work)
        # A batch without mass, or of rows that are all the mean, says nothing.
        if spec.tolerance >= 0.0 and (spec.product != ROWS or yy_trace > 0.0):
            calm = calm + 1 if all_still(spec, data, state, work) else 0
        if recording:
            loss = loss_value(spec, data, yy_trace, d, state, work)
        if spec.rule == VAE:
            meet(member.shared, member.size)
            if member.rank == 0:
                _move_extra(spec, data, yy_trace, d, state, work, rate, iteration)
            meet(member.shared, member.size)
        done += 1
        if not math.isfinite(ratio):
            status = DIVERGED
            break
        if spec.tolerance >= 0.0 and calm >= spec.patience:
            status = CONVERGED
            break
    if member.rank == 0:
        outcome[0], outcome[1], outcome[2], outcome[3], outcome[4] = done, status, ratio, loss, calm
