"""The learning rate that "auto" means: one formula, from a bound of the curvature of each loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import losses, optimizers

# Of the curvature's inverse; gradient descent is stable under 2.  Momentum overshoots where the weights still grow, and
# beyond the optimum the curvature is larger.
_DESCENT, _MOMENTUM = 1.0, 0.4
# What an entry of Adam moves in a step, as a share of the size that entries of a row at the optimum have.
_ADAM = 0.03


@dataclass(frozen=True)
class Region:
    """What decides how curved a loss is where training passes: data and start weights, at the scale of the loss.

    Attributes
    ----------
    largest : float
        Largest eigenvalue of Sxx.
    trace : float
        tr Sxx.
    tail : float
        tr Sxx less its p largest eigenvalues: what no model of p components explains.  Only the vae reads it.
    d : int
        Features.
    noise : float
        What independent rows add to the largest eigenvalue in a mini-batch: trace / batch size, or 0 for full batches.
    start : float
        The larger squared spectral norm of the two start weights.
    map_size : float
        An estimate of the norm of the map that is learned: 1 for Y = X.
    """

    largest: float
    trace: float
    tail: float
    d: int
    noise: float = 0.0
    start: float = 0.0
    map_size: float = 1.0


# ---------------------------------------------------------------------------------------------------------------------
# what each loss says


def _in_family(loss: Any) -> Any:
    """The member of the family that moves as `loss` does, or None for the vae; None is the squared error."""
    if loss is None:
        return losses.mse()
    if isinstance(loss, losses.vae):
        return None
    return loss if loss.in_family else loss.expectation


def gradient_size(loss: losses.Loss | None, p: int, region: Region) -> float:
    """c_1 l_1, the size of a gradient at weights of length 1; for the vae, whose loss is in nats, 1."""
    member = _in_family(loss)
    return 1.0 if member is None else float(member.prefix(p)[0]) * region.largest


def optimum_size(loss: losses.Loss | None, p: int, region: Region) -> float:
    """The squared spectral norm of encoder and decoder at the balanced optimum, without row penalties.

    1 for the vae: a step must suit log variances, encoder and decoder at once.
    """
    member = _in_family(loss)
    if member is None:
        return 1.0
    fit = gradient_size(member, p, region)
    whole = fit + member.product_penalty
    return region.map_size * (fit / whole if whole > 0.0 else 1.0)


def curvature(loss: losses.Loss | None, p: int, region: Region) -> float:
    """A bound of the largest curvature between start and optimum (docs/math.md, "Curvature").

    Parameters
    ----------
    loss : Loss or None
        None for rules without a loss, which move like the squared error.
    p : int
        Latent width.
    region : Region

    Notes
    -----
    For one component with |a|^2 and |b|^2 at most s, and fit = c_1 l_1, the two diagonal entries of the Hessian are at
    most 2 (fit + lam_pi) s + 2 lam, and the size of the one between a and b is at most the larger of 2 fit and
    4 (fit + lam_pi) s - 2 fit.  For Y = X, a small start and no penalty the sum is 4 c_1 l_1.
    """
    member = _in_family(loss)
    if member is None:
        return _vae_curvature(region)
    fit = gradient_size(member, p, region)
    size = max(optimum_size(member, p, region), region.start)
    own = 2.0 * (fit + member.product_penalty) * size
    return own + max(2.0 * fit, 2.0 * own - 2.0 * fit) + 2.0 * float(member.row_penalty(p).max())


def _vae_curvature(region: Region) -> float:
    """That of the vae: s^2 falls from 1 to no less than tail / d.

    The encoder's curvature is then l_1^2 / s^2, the decoder's 1 / s^2, and that of log s^2 half of d, or of the trace
    at the start.
    """
    least = max(region.tail, float(np.finfo(np.float32).eps) * region.trace) / region.d
    if least == 0.0:
        return 1.0 + 0.5 * region.d
    outer = region.largest * max(region.largest, region.start)
    return outer / least + 1.0 / min(1.0, least) + 0.5 * max(region.trace, region.d)


# ---------------------------------------------------------------------------------------------------------------------
# rates and starts


def auto_rate(
    optimizer: optimizers.Optimizer, loss: losses.Loss | None, p: int, region: Region, n_layers: int = 1
) -> float:
    """The learning rate for `optimizer`.

    Parameters
    ----------
    optimizer : Optimizer
    loss : Loss or None
    p : int
        Latent width.
    region : Region
    n_layers : int
        Layers of the encoder.  Each of them moves the product, so the curvature grows with their number.

    Returns
    -------
    float
        A share of 1 / curvature, which makes a run the same in any units of the data.  Adam's steps have the size of
        the rate whatever the gradient, so there it is a share of the size of the weights.
    """
    if isinstance(optimizer, optimizers.adam):
        return _ADAM * math.sqrt(min(1.0, optimum_size(loss, p, region)) / region.d)
    # A batch's error stays in the velocity for 1 / (1 - mu) steps.
    kept = 1.0 / (1.0 - getattr(optimizer, "mu", 0.0))
    noisy = replace(region, largest=region.largest + kept * region.noise)
    worst = curvature(loss, p, noisy) * n_layers
    share = _DESCENT if isinstance(optimizer, optimizers.sgd) else _MOMENTUM
    return share / worst if worst > 0.0 else 1.0


def auto_optimizer(
    optimizer: optimizers.Optimizer,
    loss: losses.Loss | None,
    p: int,
    region: Region,
    max_iter: int,
    schedule: optimizers.Schedule | None = None,
    n_layers: int = 1,
) -> Any:
    """`optimizer` with the learning rate "auto"; one that has a rate of its own keeps it.

    schedule : Schedule or None.  With None Adam's rate falls to 0 at max_iter by half a cosine: at a constant one it
        keeps circling the optimum at a distance of the rate.
    """
    if optimizer.learning_rate is not None:
        return optimizer.with_rate(optimizer.learning_rate, schedule)
    rate = auto_rate(optimizer, loss, p, region, n_layers)
    if isinstance(optimizer, optimizers.adam):
        unit = gradient_size(loss, p, region)
        if unit > 0.0:
            optimizer = replace(optimizer, eps=optimizer.eps * unit)
        if schedule is None and optimizer.schedule == optimizers.constant():
            schedule = optimizers.cosine(max_iter)
    return optimizer.with_rate(rate, schedule)


def chain_size(start: float, n_layers: int) -> float:
    """The spectral norm of each layer of a chain at the start.

    Two layers of norm `start` leave the saddle at zero after a time of ln(1 / start) / 2 in units of 1 / l_i.  A chain
    grows by the product of its other layers: 2n layers of norm s need s^(2 - 2n) / (2 (2n - 2)).  The norm returned
    makes the two times equal, so that depth alone does not hold a run up.  A start of 1 or more is no saddle; then the
    n layers of each side have the product `start`.

    Parameters
    ----------
    start : float
        Norm of encoder and decoder if each were one layer.
    n_layers : int
        n, the layers of the encoder, and of the decoder.
    """
    if n_layers == 1 or start >= 1.0:
        return start ** (1.0 / n_layers)
    others = 2 * n_layers - 2
    return min(1.0, (-others * math.log(start)) ** (-1.0 / others))
