"""The losses as functions and modules: what is checked, and which autograd function computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import losses, validation
from ..losses._priors import geometric_prior
from ._inputs import (
    checked_rows,
    checked_weights,
    compute_dtype,
    is_moments,
)
from ._prefix_loss import MomentLoss, RowLoss, Terms
from ._products import KernelRows, SecondMoments


def prefix_loss(
    decoder: torch.Tensor,
    encoder: torch.Tensor,
    x: Any,
    y: torch.Tensor | None = None,
    *,
    loss: Any = "ordered",
    scale: str = "mean",
) -> torch.Tensor:
    """Any loss of the prefix-weighted family, differentiable twice and more  (docs/math.md Eq. 5 to 7).

    The value and its gradients are those of the loss written out over rows, sum_b w_b |y - A_b B_b x|^2 over the
    prefixes b, for the cost of the squared error alone, and without an array of the size of the reconstruction.
    **Rows are taken as they are**: subtract the mean before, if you want the losses of `lae_fast.loss`.

    Parameters
    ----------
    decoder : tensor (q, p)
        A. Floats on one device; half precision is computed in float32.
    encoder : tensor (p, d)
        B. Gradients of both come back in the dtype of each tensor.
    x : tensor (..., d), `lae_fast.Moments` or `SecondMoments`
        Rows on the device of the weights, through which gradients flow, or second moments, which are constants.
        Rows on the CPU without a gradient of their own are read in place by our kernels.
    y : tensor (..., q), optional
        Targets; None is x itself.
    loss : str or object of `lae_fast.losses`
        A member of the family: all but stochastic_nested_dropout and vae.
    scale : {"mean", "sum"}
        Of squared errors over rows; penalties are not scaled.

    Returns
    -------
    tensor, scalar
        float64 if the weights are, else float32. Its rounding is relative to c_1 tr Syy, as it is a difference of sums.

    Raises
    ------
    TypeError
        What is no tensor of floats, sparse or complex rows, a loss outside the family.
    ValueError
        Shapes, devices or widths that do not go together; targets beside moments; moments that require gradients.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.eye(2, dtype=torch.float64, requires_grad=True)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> loss = lf.torch.prefix_loss(encoder.T, encoder, x, loss="ordered")
    >>> loss.item()  # the first unit alone misses the second row: 1 / 2
    0.5
    >>> loss.backward()
    >>> encoder.grad.shape
    torch.Size([2, 2])
    """
    validation.check_choice(scale, ("mean", "sum"), "scale")
    described = _of_the_family(loss)
    given = (decoder, encoder)
    decoder, encoder = checked_weights(decoder, encoder)
    if is_moments(x) or isinstance(x, SecondMoments):
        if y is not None:
            raise ValueError("y was given beside moments: gather them with their targets, Moments.from_data(X, Y).")
        moments = x if isinstance(x, SecondMoments) else SecondMoments.from_moments(x, encoder.dtype, encoder.device)
        moments.check(decoder, encoder)
        return _of_data(decoder, encoder, moments, described, scale)
    x = checked_rows(x, "x", encoder.shape[1], encoder)
    y = None if y is None or y is x else checked_rows(y, "y", decoder.shape[0], encoder)
    if y is None and decoder.shape[0] != encoder.shape[1]:
        raise ValueError(
            f"decoder has {decoder.shape[0]} rows and x {encoder.shape[1]} columns: pass y, the targets, where they "
            "are not x itself."
        )
    if y is not None and len(y) != len(x):
        raise ValueError(f"y has {len(y)} rows, but x has {len(x)}.")
    dtype = compute_dtype(*given, x, y)
    decoder, encoder, x = decoder.to(dtype), encoder.to(dtype), x.to(dtype)
    if y is None and not x.requires_grad and KernelRows.pay(x, encoder.shape[0]):
        return _of_data(decoder, encoder, KernelRows(x), described, scale)
    y = None if y is None else y.to(dtype)
    terms = Terms.of(described, encoder, 1.0 / len(x) if scale == "mean" else 1.0)
    return RowLoss.apply(decoder, encoder, x, y, terms)


def _of_data(
    decoder: torch.Tensor, encoder: torch.Tensor, data: SecondMoments | KernelRows, loss: losses.Loss, scale: str
) -> torch.Tensor:
    terms = Terms.of(loss, encoder, 1.0 / data.size if scale == "mean" else 1.0)
    with_gradients = torch.is_grad_enabled() and (decoder.requires_grad or encoder.requires_grad)
    return MomentLoss.apply(decoder, encoder, data, terms, with_gradients)


def _of_the_family(loss: Any) -> losses.Loss:
    resolved = losses.resolve(loss)
    if not resolved.in_family:
        ways = {
            "stochastic_nested_dropout": "its expectation, losses.nested_dropout(prior), costs less and varies less",
            "vae": "it has variances of its own; lae_fast.vae_loss and vae_gradients compute it",
        }
        raise TypeError(f"{resolved.name} is no loss of two matrices and moments: {ways[resolved.name]}.")
    return resolved


def mse_loss(decoder: Any, encoder: Any, x: Any, y: Any = None, *, scale: str = "mean") -> torch.Tensor:
    """Squared error |y - A B x|^2 (Baldi and Hornik 1989); parameters and errors as of `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w = torch.tensor([[1.0, 0.0]])
    >>> lf.torch.mse_loss(w.T, w, torch.tensor([[2.0, 0.0], [0.0, 1.0]]), scale="sum").item()
    1.0
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.mse(), scale=scale)


def ordered_loss(decoder: Any, encoder: Any, x: Any, y: Any = None, *, scale: str = "mean") -> torch.Tensor:
    """Sum of the squared errors of all p prefixes (Oftadeh et al. 2020); parameters and errors as of `prefix_loss`.

    This is the full-prefix nested ("Matryoshka") objective of a linear layer. Its minimisers are the principal
    directions in their order, up to the length of each.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> lf.torch.ordered_loss(w, w, x, scale="sum").item()
    1.0
    >>> lf.torch.ordered_loss(w.flip(1), w.flip(0), x, scale="sum").item()  # in the wrong order
    4.0
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.ordered(), scale=scale)


def nested_dropout_loss(
    decoder: Any, encoder: Any, x: Any, y: Any = None, *, prior: Any = None, scale: str = "mean"
) -> torch.Tensor:
    """Expectation of nested dropout (Bao et al. 2020); other parameters and errors as of `prefix_loss`.

    prior : as of `lae_fast.losses.nested_dropout`; None is geometric_prior(0.9).

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> prior = lf.losses.array_prior([0.25, 0.75])
    >>> lf.torch.nested_dropout_loss(w, w, x, prior=prior, scale="sum").item()  # 1 with probability 0.25
    0.25
    """
    prior = geometric_prior(0.9) if prior is None else prior
    return prefix_loss(decoder, encoder, x, y, loss=losses.nested_dropout(prior), scale=scale)


def sum_l2_loss(decoder: Any, encoder: Any, x: Any, y: Any = None, *, lam: float, scale: str = "mean") -> torch.Tensor:
    """Squared error + lam (|A|^2 + |B|^2) (Kunin et al. 2019); other parameters and errors as of `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> lf.torch.sum_l2_loss(w, w, x, lam=0.5).item()  # 0.5 (2 + 2)
    2.0
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.sum_l2(lam), scale=scale)


def nonuniform_l2_loss(
    decoder: Any, encoder: Any, x: Any, y: Any = None, *, lams: Sequence[float], scale: str = "mean"
) -> torch.Tensor:
    """Squared error + sum_i lam_i (|a_i|^2 + |b_i|^2), lams increasing (Bao et al. 2020); see `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> lf.torch.nonuniform_l2_loss(w, w, x, lams=[0.25, 0.5]).item()  # 0.25 (1 + 1) + 0.5 (1 + 1)
    1.5
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.nonuniform_l2(lams), scale=scale)


def product_l2_loss(
    decoder: Any, encoder: Any, x: Any, y: Any = None, *, lam: float, scale: str = "mean"
) -> torch.Tensor:
    """Squared error + lam |A B|^2 (Kunin et al. 2019); other parameters and errors as of `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> lf.torch.product_l2_loss(w, w, x, lam=0.5).item()  # 0.5 * 2
    1.0
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.product_l2(lam), scale=scale)


def mixed_l2_loss(
    decoder: Any,
    encoder: Any,
    x: Any,
    y: Any = None,
    *,
    lam: float,
    w_sum: float,
    w_product: float,
    scale: str = "mean",
) -> torch.Tensor:
    """w_sum sum_l2 + w_product product_l2 (Petrevski, Sec. 4.2); other parameters and errors as of `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> w, x = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> lf.torch.mixed_l2_loss(w, w, x, lam=0.5, w_sum=0.5, w_product=0.5).item()  # (2 + 1) / 2
    1.5
    """
    return prefix_loss(decoder, encoder, x, y, loss=losses.mixed_l2(lam, w_sum, w_product), scale=scale)


class PrefixLoss(torch.nn.Module):
    """A loss of the family as a module: `forward(decoder, encoder, x, y=None)` is `prefix_loss` (docs/math.md Eq. 5).

    Parameters
    ----------
    loss : str or object of `lae_fast.losses`, default="ordered"
    scale : {"mean", "sum"}, default="mean"

    Raises
    ------
    TypeError, ValueError
        As `prefix_loss`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> objective = lf.torch.PrefixLoss(lf.losses.sum_l2(0.5), scale="sum")
    >>> objective
    PrefixLoss(sum_l2(lam=0.5), scale='sum')
    >>> objective(torch.eye(2), torch.eye(2), torch.eye(2)).item()
    2.0
    """

    def __init__(self, loss: Any = "ordered", scale: str = "mean") -> None:
        super().__init__()
        self.loss = _of_the_family(loss)
        self.scale = validation.check_choice(scale, ("mean", "sum"), "scale")

    def forward(self, decoder: Any, encoder: Any, x: Any, y: Any = None) -> torch.Tensor:
        """The loss, a scalar; parameters of `prefix_loss`."""
        return prefix_loss(decoder, encoder, x, y, loss=self.loss, scale=self.scale)

    def extra_repr(self) -> str:
        """The loss and its scale, for print."""
        return f"{self.loss.describe()}, scale={self.scale!r}"


class MSELoss(PrefixLoss):
    """Module of `mse_loss` (Baldi and Hornik 1989): a scalar of decoder (q, p), encoder (p, d) and rows (..., d).

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> lf.torch.MSELoss()(torch.zeros(2, 1), torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).item()
    25.0
    """

    def __init__(self, scale: str = "mean") -> None:
        super().__init__(losses.mse(), scale)


class OrderedLoss(PrefixLoss):
    """Module of `ordered_loss` (Oftadeh et al. 2020); called as `MSELoss` is.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> lf.torch.OrderedLoss("sum")(torch.eye(2), torch.eye(2), torch.eye(2)).item()
    1.0
    """

    def __init__(self, scale: str = "mean") -> None:
        super().__init__(losses.ordered(), scale)


class NestedDropoutLoss(PrefixLoss):
    """Module of `nested_dropout_loss` (Bao et al. 2020); called as `MSELoss` is.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.torch.NestedDropoutLoss("uniform").loss.prefix(2)
    array([1. , 0.5])
    """

    def __init__(self, prior: Any = None, scale: str = "mean") -> None:
        super().__init__(losses.nested_dropout(geometric_prior(0.9) if prior is None else prior), scale)


class SumL2Loss(PrefixLoss):
    """Module of `sum_l2_loss` (Kunin et al. 2019); called as `MSELoss` is.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.torch.SumL2Loss(0.5)
    SumL2Loss(sum_l2(lam=0.5), scale='mean')
    """

    def __init__(self, lam: float, scale: str = "mean") -> None:
        super().__init__(losses.sum_l2(lam), scale)


class NonuniformL2Loss(PrefixLoss):
    """Module of `nonuniform_l2_loss` (Bao et al. 2020); called as `MSELoss` is.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.torch.NonuniformL2Loss([0.1, 0.2])
    NonuniformL2Loss(nonuniform_l2(lams=(0.1, 0.2)), scale='mean')
    """

    def __init__(self, lams: Sequence[float], scale: str = "mean") -> None:
        super().__init__(losses.nonuniform_l2(lams), scale)


class ProductL2Loss(PrefixLoss):
    """Module of `product_l2_loss` (Kunin et al. 2019); called as `MSELoss` is.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.torch.ProductL2Loss(0.5, "sum")
    ProductL2Loss(product_l2(lam=0.5), scale='sum')
    """

    def __init__(self, lam: float, scale: str = "mean") -> None:
        super().__init__(losses.product_l2(lam), scale)


class MixedL2Loss(PrefixLoss):
    """Module of `mixed_l2_loss` (Petrevski, Sec. 4.2); called as `MSELoss` is.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.torch.MixedL2Loss(0.5, w_sum=0.25, w_product=0.75)
    MixedL2Loss(mixed_l2(lam=0.5, w_sum=0.25, w_product=0.75), scale='mean')
    """

    def __init__(self, lam: float, w_sum: float, w_product: float, scale: str = "mean") -> None:
        super().__init__(losses.mixed_l2(lam, w_sum, w_product), scale)
