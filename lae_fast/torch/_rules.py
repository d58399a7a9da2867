"""The rules that are no gradients: their directions into `.grad`, for an optimizer of PyTorch, or as plain steps.

A rule multiplies B Sxx, A'Syx and the weights themselves by p x p matrices (lae_fast/rules).  Those are made on the
host, the products where the weights are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import rules, validation
from ._inputs import check_no_data_gradients, checked_rows, checked_weights, exact, is_moments
from ._products import KernelRows, SecondMoments


def rule_directions(
    rule: Any, decoder: torch.Tensor | None, encoder: torch.Tensor, x: Any, scale: str = "mean"
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Descent directions of decoder (q, p), None for rules without one, and encoder (p, d), in the dtype of each.

    Parameters and errors of `add_rule_gradients_`.
    """
    described = rules.resolve(rule)
    validation.check_choice(scale, ("mean", "sum"), "scale")
    check_no_data_gradients(x, f"the rule {described.name!r}, which is no gradient of a loss")
    if described.has_decoder and decoder is None:
        raise ValueError(f"rule {described.name!r} moves a decoder too: pass one of shape (d, p).")
    if not described.has_decoder and decoder is not None:
        raise ValueError(f"rule {described.name!r} moves the encoder only: pass None for the decoder.")
    with torch.no_grad(), exact(encoder.device):
        a, b = checked_weights(encoder.T if decoder is None else decoder, encoder)
        if b.shape[1] != a.shape[0]:
            raise ValueError(f"rule {described.name!r} is of X itself: decoder {tuple(a.shape)} must be (d, p).")
        data = _data(x, a, b)
        factor = 1.0 / data.size if scale == "mean" else 1.0
        found = data.multiplied(a, b, with_decoder=described.has_decoder)
        zb = factor * found.encoder_input
        za = None if found.decoder_input is None else factor * found.decoder_input
        latent = _host(zb @ b.T)
        latent = (latent + latent.T) * latent.dtype.type(0.5)
        of_encoder = rules.encoder_matrices(described, None, _host(a.T @ a), latent)
        direction = _combined(of_encoder, zb, za, b).to(encoder.dtype)
        if decoder is None:
            return None, direction
        of_decoder = rules.decoder_matrices(described, None, _host(b @ b.T), latent)
        return _combined(of_decoder, zb, None, a.T).T.to(decoder.dtype), direction


def _data(x: Any, decoder: torch.Tensor, encoder: torch.Tensor) -> SecondMoments | KernelRows:
    if is_moments(x):
        x = SecondMoments.from_moments(x, encoder.dtype, encoder.device)
    if isinstance(x, SecondMoments):
        if x.xy is not None:
            raise ValueError("a rule is of X itself: pass moments without targets.")
        x.check(decoder, encoder)
        return x
    rows = checked_rows(x, "x", encoder.shape[1], encoder).to(encoder.dtype)
    return KernelRows(rows) if KernelRows.pay(rows, encoder.shape[0]) else _PlainRows(rows)


class _PlainRows(KernelRows):
    """Rows that the kernels do not take, or too few: PyTorch's products."""

    multiplied = KernelRows.explicit


def _host(matrix: torch.Tensor) -> np.ndarray:
    return matrix.cpu().numpy()


def _combined(
    matrices: rules.Matrices, zb: torch.Tensor, za: torch.Tensor | None, weights: torch.Tensor
) -> torch.Tensor:
    """P1 Z_B + P2 Z_A + P3 W  (docs/math.md Eq. 21)."""
    direction = torch.zeros_like(weights)
    for coefficient, matrix in zip(matrices, (zb, za, weights)):
        if coefficient is not None and matrix is not None:
            part = torch.as_tensor(coefficient, dtype=weights.dtype, device=weights.device)
            direction = direction + (part[:, None] * matrix if part.ndim == 1 else part @ matrix)
    return direction


def add_rule_gradients_(
    rule: Any, decoder: torch.Tensor | None, encoder: torch.Tensor, x: Any, *, scale: str = "mean"
) -> None:
    """Add the descent directions of a rule to `encoder.grad`, and `decoder.grad` where the rule has a decoder.

    Call it in the place of `loss.backward()`; any optimizer of PyTorch then makes the step. The EigenGames want
    `normalise_rows_(encoder)` after it.

    Parameters
    ----------
    rule : str or object of `lae_fast.rules`
        "rag", "oja", "gha", "alpha_eigengame" or "mu_eigengame".
    decoder : tensor (d, p), or None for rules that have none
    encoder : tensor (p, d)
    x : tensor (..., d), `lae_fast.Moments` or `SecondMoments`
        Centred rows, or moments.
    scale : {"mean", "sum"}
        Of the second moments; the published rules take the mean.

    Raises
    ------
    ValueError
        x requires gradients, of which none would flow; a rule without directions; shapes or devices that do not fit.
    TypeError
        What is no tensor of floats.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.nn.Parameter(torch.tensor([[0.6, 0.8]]))
    >>> descent = torch.optim.SGD([encoder], lr=0.3)
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> for _ in range(50):
    ...     descent.zero_grad()
    ...     lf.torch.add_rule_gradients_("oja", None, encoder, x)
    ...     descent.step()
    >>> encoder.detach().abs().round(decimals=3)
    tensor([[1., 0.]])
    """
    of_decoder, of_encoder = rule_directions(rule, decoder, encoder, x, scale)
    for weights, direction in ((decoder, of_decoder), (encoder, of_encoder)):
        if weights is not None and direction is not None:
            weights.grad = direction if weights.grad is None else weights.grad + direction


def _step(rule: str, decoder: torch.Tensor | None, encoder: torch.Tensor, x: Any, rate: float) -> None:
    validation.check_real(rate, "rate", above=0.0, below=np.inf)
    of_decoder, of_encoder = rule_directions(rule, decoder, encoder, x)
    with torch.no_grad():
        encoder.sub_(of_encoder, alpha=rate)
        if decoder is not None and of_decoder is not None:
            decoder.sub_(of_decoder, alpha=rate)


def rag_step_(decoder: torch.Tensor, encoder: torch.Tensor, x: Any, rate: float) -> None:
    """One step of the rotation-augmented gradient in place, mean scale (Bao et al. 2020, Alg. 1).

    Parameters and errors of `add_rule_gradients_`;  rate : float > 0.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder, decoder = torch.eye(2), torch.eye(2)
    >>> lf.torch.rag_step_(decoder, encoder, torch.tensor([[2.0, 0.0], [0.0, 1.0]]), rate=0.1)
    >>> encoder  # the optimum, aligned: it stays
    tensor([[1., 0.],
            [0., 1.]])
    """
    _step("rag", decoder, encoder, x, rate)


def oja_step_(encoder: torch.Tensor, x: Any, rate: float) -> None:
    """B <- B + rate (B S - G B) in place, mean scale (Oja 1982); see `add_rule_gradients_`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.tensor([[1.0, 1.0]])
    >>> lf.torch.oja_step_(encoder, torch.tensor([[2.0, 0.0], [0.0, 0.0]]), rate=0.25)  # S = diag(2, 0), G = 2
    >>> encoder
    tensor([[1.0000, 0.5000]])
    """
    _step("oja", None, encoder, x, rate)


def gha_step_(encoder: torch.Tensor, x: Any, rate: float) -> None:
    """B <- B + rate (B S - tril(G) B) in place, mean scale (Sanger 1989); see `add_rule_gradients_`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> lf.torch.gha_step_(encoder, torch.tensor([[2.0, 0.0], [0.0, 0.0]]), rate=0.25)
    >>> encoder  # the first row has its direction, and drives the second one away from it
    tensor([[1.0000, 0.0000],
            [0.5000, 0.0000]])
    """
    _step("gha", None, encoder, x, rate)


def alpha_eigengame_step_(encoder: torch.Tensor, x: Any, rate: float) -> None:
    """One step of alpha-EigenGame in place, rows normalised (Gemp et al. 2020); see `add_rule_gradients_`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.eye(2)
    >>> lf.torch.alpha_eigengame_step_(encoder, torch.tensor([[2.0, 0.0], [0.0, 1.0]]), rate=0.1)
    >>> encoder  # eigenvectors stay
    tensor([[1., 0.],
            [0., 1.]])
    """
    _step("alpha_eigengame", None, encoder, x, rate)
    normalise_rows_(encoder)


def mu_eigengame_step_(encoder: torch.Tensor, x: Any, rate: float) -> None:
    """One step of mu-EigenGame in place, rows normalised (Gemp et al. 2021); see `add_rule_gradients_`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> encoder = torch.tensor([[3.0, 4.0]])
    >>> lf.torch.mu_eigengame_step_(encoder, torch.eye(2), rate=0.1)
    >>> encoder
    tensor([[0.6000, 0.8000]])
    """
    _step("mu_eigengame", None, encoder, x, rate)
    normalise_rows_(encoder)


def normalise_rows_(weights: torch.Tensor) -> torch.Tensor:
    """Divide each row (p, d) by its length in place, without a gradient; a zero row stays (docs/math.md Eq. 27).

    Returns
    -------
    tensor (p, d)
        `weights` itself.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> lf.torch.normalise_rows_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    with torch.no_grad():
        length = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
        return weights.div_(torch.where(length > 0, length, torch.ones_like(length)))
