"""The mask and the value of the prefix-weighted losses, from p x p matrices (docs/math.md Eq. 4 and 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._base import Loss
from ._names import resolve

__all__ = ["family_value", "prefix_mask"]


def prefix_mask(prefix: ArrayLike) -> np.ndarray:
    """Return M with M_ij = c_max(i,j), shape (p, p) (docs/math.md Eq. 4; Oftadeh et al. 2020, Eq. 7).

    Parameters
    ----------
    prefix : array, shape (p,)
        Prefix weights c.

    Returns
    -------
    ndarray, shape (p, p), dtype of `prefix`
        Kernels apply the mask without storing it.
    """
    prefix = np.asarray(prefix)
    index = np.arange(prefix.shape[0])
    return prefix[np.maximum.outer(index, index)]


def family_value(
    loss: Loss | str,
    *,
    yy_trace: float,
    cross: ArrayLike,
    gram_decoder: ArrayLike,
    gram_latent: ArrayLike,
    gram_encoder: ArrayLike | None = None,
) -> float:
    """Value of a prefix-weighted loss from p x p matrices (docs/math.md Eq. 5).

    Parameters
    ----------
    loss : Loss or str
        A member of the family.
    yy_trace : float
        tr Syy, at the scale (sum or mean) of the other moments; tr Sxx for Y = X.
    cross : array, shape (p,)
        Diagonal of B Sxy A: row i of B Sxy times column i of A.
    gram_decoder : array, shape (p, p)
        A'A.
    gram_latent : array, shape (p, p)
        B Sxx B'.
    gram_encoder : array, shape (p, p), optional
        B B'; needed if the loss has a penalty.

    Returns
    -------
    float
        The loss, at the scale of the moments.

    Raises
    ------
    TypeError
        If the loss is not in the family.
    ValueError
        If the loss has a penalty and `gram_encoder` is None.
    """
    loss = resolve(loss)
    cross = np.asarray(cross, dtype=np.float64)
    gram_decoder = np.asarray(gram_decoder, dtype=np.float64)
    gram_latent = np.asarray(gram_latent, dtype=np.float64)
    p = cross.shape[0]
    c = loss.prefix(p)
    value = c[0] * float(yy_trace) - 2.0 * (c @ cross) + np.sum(prefix_mask(c) * gram_decoder * gram_latent)
    lam, lam_pi = loss.row_penalty(p), loss.product_penalty
    if lam_pi or lam.any():
        if gram_encoder is None:
            raise ValueError(f"gram_encoder is needed: {loss.describe()} penalises the encoder")
        gram_encoder = np.asarray(gram_encoder, dtype=np.float64)
        value += lam @ (np.diagonal(gram_decoder) + np.diagonal(gram_encoder))
        value += lam_pi * np.sum(gram_decoder * gram_encoder)
    return float(value)
