"""The products of an iteration: B Sxx, A'Syx and B Sxy, from the moments or from the rows of a mini-batch.

Each thread of a team makes blocks of columns, or of samples, of its own; see iteration.py.
"""

from __future__ import annotations

from ...formulas import TIED
from ..blas import gemm
from ..contiguous import contiguous_row
from ..jit import lean_kernel
from ..products import multiply_back, multiply_lines
from .minibatch import AS_IT_IS, TRANSPOSED, dropout_codes, gather
from .packed_gemm import multiply


@lean_kernel
def own_blocks(member, bounds):
    """The blocks that a thread of the team does, of those with these bounds: neighbours, about as many for each."""
    n_blocks = bounds.shape[0] - 1
    return range(member.rank * n_blocks // member.size, (member.rank + 1) * n_blocks // member.size)


@lean_kernel
def multiply_moments(member, spec, data, state, work, part):
    """Z_B = B Sxx, Z_A = A'Syx, B Sxy by column blocks  (docs/math.md Eq. 21).  part : 0 all, 1 Z_B, 2 Z_A alone.

    2 p d (d + q) + 2 p d q flops (4 p d^2 for Y = X), by GEMM or, where S is packed, by packed_gemm.py.  GEMM reads S
    by rows, transposed: that is faster.
    """
    for k in own_blocks(member, work.x_blocks):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        if work.packed_s.shape[0] > 0:
            width = work.packed_s.shape[2]
            multiply(work.packed_stack, work.packed_s, lo // width, (hi + width - 1) // width, work.product)
        elif spec.same and part == 0 and spec.coupling != TIED:
            gemm(1.0, state.stack, AS_IT_IS, data.sxx[lo:hi], TRANSPOSED, 0.0, work.product[:, lo:hi])
        else:
            if part != 2:
                gemm(1.0, state.encoder, AS_IT_IS, data.sxx[lo:hi], TRANSPOSED, 0.0, work.encoder_product[:, lo:hi])
            if part != 1 and spec.has_decoder and spec.coupling != TIED:
                left = data.sxx[lo:hi] if spec.same else data.sxy[lo:hi]
                gemm(1.0, state.decoder, AS_IT_IS, left, TRANSPOSED, 0.0, work.decoder_product[:, lo:hi])
    if not spec.same and part != 2:
        for k in own_blocks(member, work.y_blocks):
            lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
            gemm(1.0, state.encoder, AS_IT_IS, data.sxy[:, lo:hi], AS_IT_IS, 0.0, work.target_product[:, lo:hi])


@lean_kernel
def _turn(weights, lo, hi, turned):
    """turned[j] <- column j of weights (n, d), for j = lo..hi."""
    for i in range(weights.shape[0]):
        row = contiguous_row(weights, i)
        for j in range(lo, hi):
            turned[j, i] = row[j]


@lean_kernel
def prepare_batch(member, spec, rows, step, state, work):
    """The batch's rows by blocks of samples, and the weights as `encode_batch` reads them, by blocks of columns."""
    for k in own_blocks(member, work.x_blocks):
        _turn(state.stack if spec.same else state.encoder, work.x_blocks[k], work.x_blocks[k + 1], work.turned_encoder)
    for k in own_blocks(member, work.b_blocks):
        lo, hi = work.b_blocks[k], work.b_blocks[k + 1]
        places = rows.places[step]
        square = gather(
            rows.x, rows.x_strides[0], rows.x_strides[1], places, rows.x_shift, rows.scale, rows.weights, lo, hi,
            work.x_rows,
        )  # fmt: skip
        if not spec.same:
            square = gather(
                rows.y, rows.y_strides[0], rows.y_strides[1], places, rows.y_shift, rows.scale, rows.weights, lo, hi,
                work.y_rows,
            )  # fmt: skip
        work.b_sums[k] = square * rows.factor[step]
    if not spec.same:
        for k in own_blocks(member, work.y_blocks):
            _turn(state.decoder, work.y_blocks[k], work.y_blocks[k + 1], work.turned_decoder)


@lean_kernel
def encode_batch(member, spec, rows, step, work):
    """The batch's codes, times its factor: a row [B x, A'y] for each sample.  4 b p d flops."""
    p = work.p1.shape[0]
    factor = work.codes.dtype.type(rows.factor[step])
    for k in own_blocks(member, work.b_blocks):
        lo, hi = work.b_blocks[k], work.b_blocks[k + 1]
        codes = work.codes[lo:hi]
        if spec.same:
            multiply_lines(work.x_rows[lo:hi], work.turned_encoder, codes, rows.x, 0, 0, 0)
        else:
            multiply_lines(work.x_rows[lo:hi], work.turned_encoder, codes[:, :p], rows.x, 0, 0, 0)
            multiply_lines(work.y_rows[lo:hi], work.turned_decoder, codes[:, p:], rows.x, 0, 0, 0)
        for s in range(hi - lo):
            row = contiguous_row(codes, s)
            for j in range(row.shape[0]):
                row[j] *= factor


@lean_kernel
def drop_batch(member, rows, step, work):
    """Masks the codes by what each sample keeps  (docs/math.md Eq. 9)."""
    p = work.p1.shape[0]
    latent, target = work.codes[:, :p], work.codes[:, p:]
    for k in own_blocks(member, work.b_blocks):
        dropout_codes(work.p1, rows.kept[step], work.b_blocks[k], work.b_blocks[k + 1], latent, target)


@lean_kernel
def multiply_batch(member, spec, rows, work):
    """The products of `multiply_moments` from the batch's codes, by column blocks.  4 b p d flops."""
    p = work.p1.shape[0]
    for k in own_blocks(member, work.x_blocks):
        lo, hi = work.x_blocks[k], work.x_blocks[k + 1]
        x_rows = work.x_rows[:, lo:hi]
        if spec.same:
            multiply_back(work.codes[:, :], x_rows, False, work.product[:, lo:hi], rows.x, 0, 0, 0)
        else:
            multiply_back(work.codes[:, :p], x_rows, False, work.encoder_product[:, lo:hi], rows.x, 0, 0, 0)
            multiply_back(work.codes[:, p:], x_rows, False, work.decoder_product[:, lo:hi], rows.x, 0, 0, 0)
    if not spec.same:
        for k in own_blocks(member, work.y_blocks):
            lo, hi = work.y_blocks[k], work.y_blocks[k + 1]
            target = work.target_product[:, lo:hi]
            multiply_back(work.codes[:, :p], work.y_rows[:, lo:hi], False, target, rows.x, 0, 0, 0)
