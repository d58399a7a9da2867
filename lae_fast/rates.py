"""The learning rate that "auto" means: one formula, from what each loss says of its curvature.

Imports the standard library and, downwards, losses and optimizers.
"""

from __future__ import annotations

import math
from dataclasses import replace

from . import losses, optimizers

__all__ = ["auto_optimizer", "auto_rate", "chain_size"]

# Of the curvature's inverse; gradient descent is stable under 2.  Momentum overshoots where the weights still grow, and
# beyond the optimum the curvature is larger.
_DESCENT, _MOMENTUM = 1.0, 0.4
# What an entry of Adam moves in a step, as a share of the size that entries of a row at the optimum have.
_ADAM = 0.03


def auto_rate(optimizer, loss, p, region, n_layers=1):
    """Return the learning rate for `optimizer`.

    Parameters
    ----------
    optimizer : Optimizer
    loss : Loss or None
        None for rules without a loss, which move like the squared error.
    p : int
        Latent width.
    region : losses.Region
    n_layers : int
        Layers of the encoder.  Each of them moves the product, so the curvature grows with their number.

    Returns
    -------
    float
        A share of 1 / curvature, which makes a run the same in any units of the data.  Adam's steps have the size of
        the rate whatever the gradient, so there it is a share of the size of the weights.
    """
    loss = losses.mse() if loss is None else loss
    if isinstance(optimizer, optimizers.adam):
        return _ADAM * math.sqrt(min(1.0, loss.optimum_size(p, region)) / region.d)
    # A batch's error stays in the velocity for 1 / (1 - mu) steps.
    kept = 1.0 / (1.0 - getattr(optimizer, "mu", 0.0))
    noisy = replace(region, largest=region.largest + kept * region.noise)
    curvature = loss.curvature(p, noisy) * n_layers
    share = _DESCENT if isinstance(optimizer, optimizers.sgd) else _MOMENTUM
    return share / curvature if curvature > 0.0 else 1.0


def auto_optimizer(optimizer, loss, p, region, max_iter, schedule=None, n_layers=1):
    """Return `optimizer` with the learning rate "auto"; one that has a rate of its own keeps it.

    schedule : Schedule or None.  With None Adam's rate falls to 0 at max_iter by half a cosine: at a constant one it
        keeps circling the optimum at a distance of the rate.
    """
    if optimizer.learning_rate is not None:
        return optimizer.with_rate(optimizer.learning_rate, schedule)
    rate = auto_rate(optimizer, loss, p, region, n_layers)
    if isinstance(optimizer, optimizers.adam):
        unit = (losses.mse() if loss is None else loss).gradient_size(p, region)
        if unit > 0.0:
            optimizer = replace(optimizer, eps=optimizer.eps * unit)
        if schedule is None and optimizer.schedule == optimizers.constant():
            schedule = optimizers.cosine(max_iter)
    return optimizer.with_rate(rate, schedule)


def chain_size(start, n_layers):
    """Return the spectral norm of each layer of a chain at the start.

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
