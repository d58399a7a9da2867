"""What ends an iteration: the ratio that is recorded, the loss, and whether every component has arrived.

Sums over blocks are taken in order, by every thread for itself.  backends/cuda/training/decisions.py has the
same, from the same formulas.
"""

from __future__ import annotations

import math

import numpy as np

from ... import formulas
from ...formulas import ALPHA, MU, SYNCHRONISED, TIED, UNTIED, VAE
from ..jit import lean_kernel

relative = lean_kernel(formulas.relative)
component_size = lean_kernel(formulas.component_size)
rounding_size = lean_kernel(formulas.rounding_size)
is_still = lean_kernel(formulas.is_still)
worst_of = lean_kernel(formulas.worst_of)
fit_error = lean_kernel(formulas.fit_error)
likelihood = lean_kernel(formulas.likelihood)
divergence = lean_kernel(formulas.divergence)


@lean_kernel
def total(sums, column):
    """Sum over blocks in their order."""
    total = 0.0
    for k in range(sums.shape[0]):
        total += sums[k, column]
    return total


@lean_kernel
def gradient_ratio(spec, work):
    """max(|dA| / |A|, |dB| / |B|) from the blocks' sums; NaN or Inf when the run has diverged."""
    worst = 0.0
    if spec.coupling != TIED:
        worst = relative(total(work.x_sums, 0), total(work.x_sums, 1))
    if spec.has_decoder and spec.coupling != SYNCHRONISED:
        worst = worst_of(worst, relative(total(work.y_sums, 0), total(work.y_sums, 1)))
    return worst


@lean_kernel
def _of_row(sums, i, column):
    """A row's sum over the blocks in their order."""
    total = 0.0
    for k in range(sums.shape[0]):
        total += sums[k, i, column]
    return total


@lean_kernel
def _row_is_still(spec, data, state, work, i):
    """Whether component i has arrived: its row of B, and of A' where there is one  (docs/math.md Eq. 46)."""
    c: float = np.float64(data.prefix[i])
    extra, spread = 0.0, 0.0
    if spec.rule == VAE:
        c = math.exp(-state.extra[0, -1])
        spread = c * math.exp(state.extra[0, i])
        extra = 1.0
    sums = work.y_row_sums if spec.coupling == TIED else work.x_row_sums
    gradient, along, encoder = _of_row(sums, i, 0), _of_row(sums, i, 1), _of_row(sums, i, 2)
    both = spec.has_decoder and spec.coupling == UNTIED
    decoder = _of_row(work.y_row_sums, i, 2) if both else encoder
    if spec.rule == ALPHA or spec.rule == MU:
        # The normalisation of the rows takes out what lies along them.
        gradient = max(gradient - along * along / encoder, 0.0) if encoder > 0.0 else gradient
    latent, penalty = np.float64(work.gram_latent[i, i]), np.float64(data.penalty[i])
    size = component_size(c, spec.product_penalty, decoder, encoder, latent)
    rounding = rounding_size(c, decoder, encoder, spec.rounding[0], spec.rounding[1])
    negligible = 0.0 if spec.rule == VAE else spec.negligible
    if both and not is_still(
        _of_row(work.y_row_sums, i, 0), _of_row(work.y_row_sums, i, 1), decoder, size + spread * decoder, penalty,
        spec.tolerance, rounding, negligible,
    ):  # fmt: skip
        return False
    return is_still(
        gradient, along, encoder, size + extra * latent, penalty, spec.tolerance,
        rounding + extra * spec.rounding[1] * encoder, negligible,
    )  # fmt: skip


@lean_kernel
def all_still(spec, data, state, work):
    """Whether every component has arrived; the last ones first, because they usually arrive last."""
    still, i = True, work.p1.shape[0]
    while still and i > 0:
        i -= 1
        still = _row_is_still(spec, data, state, work, i)
    return still


@lean_kernel
def vae_error(yy_trace, work):
    """The numerator of docs/math.md Eq. 11: expected squared error."""
    return fit_error(yy_trace, total(work.y_sums, 3), total(work.p_sums, 3) + total(work.p_sums, 0))


@lean_kernel
def loss_value(spec, data, yy_trace, d, state, work):
    """The loss at the weights before the step  (docs/math.md Eq. 5, 11; for rules without a loss that of A = B')."""
    if spec.rule == VAE:
        value = likelihood(vae_error(yy_trace, work), state.extra[0, -1], d) + 0.5 * total(work.p_sums, 2)
        for i in range(work.p1.shape[0]):
            value += divergence(state.extra[0, i])
        return value
    if not spec.has_decoder:
        return fit_error(yy_trace, total(work.p_sums, 2), total(work.p_sums, 0))
    # A sequential step has replaced B S by then, so it takes the same sum from A'S.  Where B = A' only one has sums.
    of_encoder = work.y_sums if spec.coupling == TIED else work.x_sums
    of_decoder = work.x_sums if spec.coupling == SYNCHRONISED else work.y_sums
    cross_sums = work.x_sums if spec.sequential else of_decoder
    value = fit_error(data.prefix[0] * yy_trace, total(cross_sums, 3), total(work.p_sums, 0))
    value += total(of_decoder, 2) + total(of_encoder, 2)
    return value + spec.product_penalty * total(work.p_sums, 1)
