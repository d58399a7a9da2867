"""Exact solves of the alternating rule in NumPy: the encoder for a given decoder, and the other way round.

See docs/math.md Eq. 13 to 15 (Oftadeh et al. 2020, Prop. 1 and 2; Kunin et al. 2019, Sec. 6.1).  They document what
cpu_loop.py iterates.  Imports NumPy and, downwards, losses and rules.
"""

from __future__ import annotations

import numpy as np

from .. import losses, rules
from ..validation import listed

__all__ = ["exact_decoder", "exact_encoder", "symmetric_solve"]


def symmetric_solve(matrix, right):
    """Least-norm solution of matrix @ x = right for a symmetric positive semidefinite (p, p) matrix.

    Rows and columns are scaled to unit diagonal first: the ordered loss and small components make the diagonal span
    many orders of magnitude, and an eigenvalue cut-off must not mistake that for rank deficiency.
    """
    scale = np.sqrt(np.diagonal(matrix))
    inverse = np.where(scale > 0, 1.0 / np.where(scale > 0, scale, 1.0), 0.0)
    values, vectors = np.linalg.eigh(matrix * inverse[:, None] * inverse)
    cut = values[-1] * len(values) * np.finfo(values.dtype).eps
    keep = values > max(cut, 0.0)
    vectors = vectors[:, keep]
    return inverse[:, None] * (vectors @ ((vectors.T @ (inverse[:, None] * right)) / values[keep][:, None]))


def _alternating_terms(loss, p):
    loss = losses.resolve(loss)
    if loss.name not in rules.EXACT_LOSSES:
        raise ValueError(
            f"rule 'alternating' has no exact solve for loss {loss.name!r}; valid: {listed(rules.EXACT_LOSSES)}"
        )
    return loss.prefix(p), loss.row_penalty(p)


def exact_encoder(loss, decoder, sxx, sxy=None):
    """Return the encoder that minimises the loss for a fixed decoder (docs/math.md Eq. 13 and 15).

    Parameters
    ----------
    loss : Loss or str
        mse, ordered, nested_dropout or sum_l2.
    decoder : array, shape (q, p)
        A.
    sxx : array, shape (d, d)
        Second moments, at the scale the penalty is meant in.
    sxy : array, shape (d, q), optional
        None means Y = X.

    Returns
    -------
    ndarray, shape (p, d)
        B(A), float64; the one of least norm where it is not unique (mse with dependent columns, singular Sxx).

    Raises
    ------
    ValueError
        If the loss has no exact solve.
    """
    decoder = np.asarray(decoder, dtype=np.float64)
    sxx = np.asarray(sxx, dtype=np.float64)
    c, lam = _alternating_terms(loss, decoder.shape[1])
    target = decoder.T @ (sxx if sxy is None else np.asarray(sxy, dtype=np.float64).T)
    gram = decoder.T @ decoder
    if lam.any():
        # A'A B Sxx + lam B = A'Syx: diagonal once both A'A and Sxx are.
        a_values, a_vectors = np.linalg.eigh(gram)
        x_values, x_vectors = np.linalg.eigh(sxx)
        rotated = a_vectors.T @ target @ x_vectors
        denominator = np.maximum(a_values, 0.0)[:, None] * np.maximum(x_values, 0.0) + lam[0]
        return a_vectors @ (rotated / denominator) @ x_vectors.T
    right = c[:, None] * (decoder.T if sxy is None else symmetric_solve(sxx, target.T).T)
    return symmetric_solve(rules.masked_gram(gram, c), right)


def exact_decoder(loss, encoder, sxx, sxy=None):
    """Return the decoder that minimises the loss for a fixed encoder (docs/math.md Eq. 14 and 15).

    Parameters
    ----------
    loss : Loss or str
        mse, ordered, nested_dropout or sum_l2.
    encoder : array, shape (p, d)
        B.
    sxx : array, shape (d, d)
    sxy : array, shape (d, q), optional
        None means Y = X.

    Returns
    -------
    ndarray, shape (q, p)
        A(B), float64; the one of least norm where it is not unique.

    Raises
    ------
    ValueError
        If the loss has no exact solve.
    """
    encoder = np.asarray(encoder, dtype=np.float64)
    sxx = np.asarray(sxx, dtype=np.float64)
    c, lam = _alternating_terms(loss, encoder.shape[0])
    product = encoder @ sxx
    gram = product @ encoder.T
    cross = product if sxy is None else encoder @ np.asarray(sxy, dtype=np.float64)
    system = rules.masked_gram((gram + gram.T) * 0.5, c) + np.diag(lam)
    return symmetric_solve(system, c[:, None] * cross).T
