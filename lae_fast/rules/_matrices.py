"""The p x p matrices of the update rules, and the directions they make, in plain NumPy (docs/math.md Eq. 21 to 28)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import losses
from ..losses import _family
from ._rules import Rule, default_loss, gha, mu_eigengame, oja, rag, resolve


def masked_gram(gram: np.ndarray, prefix: ArrayLike) -> np.ndarray:
    """Return M o G with M_ij = prefix[max(i, j)], shape (p, p) (docs/math.md Eq. 4).

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> rules.masked_gram(np.ones((3, 3)), [3.0, 2.0, 1.0])
    array([[3., 2., 1.],
           [2., 2., 1.],
           [1., 1., 1.]])
    """
    return _family.prefix_mask(np.asarray(prefix)) * gram


def stril(gram: np.ndarray) -> np.ndarray:
    """Return the strictly lower triangle of `gram`, (p, p).

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> rules.stril(np.array([[1, 2], [3, 4]]))
    array([[0, 0],
           [3, 0]])
    """
    return np.tril(gram, -1)


def striu(gram: np.ndarray) -> np.ndarray:
    """Return the strictly upper triangle of `gram`, (p, p).

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> rules.striu(np.array([[1, 2], [3, 4]]))
    array([[0, 2],
           [0, 0]])
    """
    return np.triu(gram, 1)


def rotation(gram_latent: np.ndarray) -> np.ndarray:
    """Return R = (striu(G) - stril(G))/2, (p, p) (docs/math.md Eq. 23; Bao et al. 2020, Alg. 1).

    Only the upper triangle is read, so R is skew to the last bit even where rounding left G unsymmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> rules.rotation(np.array([[4.0, 1.0], [1.0, 2.0]]))
    array([[ 0. ,  0.5],
           [-0.5,  0. ]])
    """
    upper = striu(gram_latent)
    return (upper - upper.T) * gram_latent.dtype.type(0.5)


class Matrices(NamedTuple):
    """The three coefficients of a direction; each is None (zero), (p,) (diagonal) or (p, p) (dense).

    docs/math.md Eq. 21.

    Attributes
    ----------
    on_encoder_product : P1, multiplies Z_B: B Sxx for the encoder, B Sxy for the decoder.
    on_decoder_product : P2, multiplies Z_A = A'Syx; always None for the decoder.
    on_weights : P3, multiplies the weight matrix itself.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> matrices = rules.encoder_matrices("oja", None, None, G)
    >>> matrices.on_encoder_product, matrices.on_decoder_product  # a diagonal, and zero
    (array([-1., -1.]), None)
    >>> isinstance(matrices, rules.Matrices), matrices.on_weights.shape
    (True, (2, 2))
    """

    on_encoder_product: np.ndarray | None
    on_decoder_product: np.ndarray | None
    on_weights: np.ndarray | None


def _dense(diagonal: np.ndarray | None, dense: np.ndarray | None) -> np.ndarray | None:
    """Return diag(diagonal) + dense with None for zero, keeping a plain diagonal one-dimensional."""
    if dense is None:
        return diagonal if diagonal is not None and diagonal.any() else None
    if diagonal is None or not diagonal.any():
        return dense
    return dense + np.diag(diagonal)


def _loss_terms(
    rule: Rule, loss: losses.Loss | str | None, p: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.floating]:
    """Return (c, lam, lam_pi) for a rule with a loss, raising where the family does not apply."""
    given = default_loss(rule) if loss is None else loss
    if given is None:
        raise ValueError(f"rule {rule.name!r} has no loss")
    loss = losses.resolve(given)
    if not loss.in_family:
        raise ValueError(
            f"loss {loss.name!r} has no p x p matrices: it is not a function of the moments through prefix weights"
        )
    if isinstance(rule, rag) and not isinstance(loss, losses.mse):
        raise ValueError(f"rule 'rag' goes with loss 'mse' only, got {loss.name!r}")
    return loss.prefix(p, dtype), loss.row_penalty(p, dtype), dtype.type(loss.product_penalty)


def encoder_matrices(
    rule: Rule | str, loss: losses.Loss | str | None, gram_decoder: ArrayLike | None, gram_latent: ArrayLike
) -> Matrices:
    """Coefficients of the encoder's direction P1 (B Sxx) + P2 (A'Syx) + P3 B (docs/math.md Eq. 22 to 28).

    Parameters
    ----------
    rule : Rule or str
        Any iterative rule.
    loss : Loss, str or None
        None takes the default of the rule; rules without a loss accept only None.
    gram_decoder : array, shape (p, p), or None
        A'A; None is fine for rules without a decoder.
    gram_latent : array, shape (p, p)
        G = B Sxx B', at the scale of the step (the published rag, oja and gha use the mean).

    Returns
    -------
    Matrices
        In the dtype of `gram_latent`.

    Raises
    ------
    ValueError
        If the rule is not iterative, or rule and loss do not go together.

    Examples
    --------
    The gradient of the ordered loss is zero at its optimum:

    >>> import numpy as np
    >>> from lae_fast import rules, theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> A, B = theory.optimum(S, 2, "ordered")
    >>> matrices = rules.encoder_matrices("gradient", "ordered", A.T @ A, B @ S @ B.T)
    >>> matrices.on_decoder_product  # P2 = -2 D
    array([-4., -2.])
    >>> float(np.abs(rules.apply(matrices, B @ S, A.T @ S, B)).max())
    0.0
    """
    rule = resolve(rule)
    gram_latent = np.asarray(gram_latent)
    dtype, p = gram_latent.dtype, gram_latent.shape[0]
    if not rule.iterative:
        raise ValueError(f"rule {rule.name!r} takes no rate and has no direction; see lae_fast.training.{rule.name}")
    if not rule.takes_loss:
        if loss is not None:
            raise ValueError(f"rule {rule.name!r} has no loss; leave loss at 'auto' or None")
        return _encoder_only_matrices(rule, gram_latent)
    c, lam, lam_pi = _loss_terms(rule, loss, p, dtype)
    gram_decoder = np.asarray(gram_decoder, dtype=dtype)
    two = dtype.type(2)
    dense = two * lam_pi * gram_decoder if lam_pi else None
    if isinstance(rule, rag):
        dense = -rotation(gram_latent)
    return Matrices(two * masked_gram(gram_decoder, c), -two * c, _dense(two * lam, dense))


def _encoder_only_matrices(rule: Rule, gram_latent: np.ndarray) -> Matrices:
    """Coefficients of the rules that have one weight matrix, signs turned to descent."""
    minus_one = np.full(gram_latent.shape[0], -1, dtype=gram_latent.dtype)
    if isinstance(rule, oja):
        return Matrices(minus_one, None, gram_latent.copy())
    if isinstance(rule, gha):
        return Matrices(minus_one, None, np.tril(gram_latent))
    if isinstance(rule, mu_eigengame):
        return Matrices(minus_one, None, stril(gram_latent))
    # alpha-EigenGame.  G_jj = 0 means that row j sees no variance; then G_ij = 0 too and the quotient is set to 0.
    diagonal = np.diagonal(gram_latent)
    safe = np.where(diagonal > 0, diagonal, 1)
    quotient = np.where(diagonal > 0, gram_latent / safe, 0).astype(gram_latent.dtype)
    return Matrices(stril(quotient) + np.diag(minus_one), None, None)


def decoder_matrices(
    rule: Rule | str, loss: losses.Loss | str | None, gram_encoder: ArrayLike | None, gram_latent: ArrayLike
) -> Matrices:
    """Coefficients of the decoder's direction P1 (B Sxy) + P3 A', with A' (p, q) (docs/math.md Eq. 22 to 24).

    Parameters
    ----------
    rule : Rule or str
        A rule with a decoder: gradient or rag.
    loss : Loss, str or None
        None takes the default of the rule.
    gram_encoder : array, shape (p, p), or None
        B B'; needed only if the loss has a product penalty.
    gram_latent : array, shape (p, p)
        G = B Sxx B', at the scale of the step.

    Returns
    -------
    Matrices
        In the dtype of `gram_latent`; `on_decoder_product` is None.

    Raises
    ------
    ValueError
        If the rule has no decoder or is not iterative, rule and loss do not go together, or `gram_encoder` is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> matrices = rules.decoder_matrices("gradient", "ordered", None, G)
    >>> matrices.on_encoder_product  # P1 = -2 D
    array([-4., -2.])
    >>> matrices.on_weights  # P3 = 2 M o G
    array([[16.,  2.],
           [ 2.,  4.]])
    """
    rule = resolve(rule)
    gram_latent = np.asarray(gram_latent)
    dtype, p = gram_latent.dtype, gram_latent.shape[0]
    if not rule.iterative:
        raise ValueError(f"rule {rule.name!r} takes no rate and has no direction; see lae_fast.training.{rule.name}")
    if not rule.has_decoder:
        raise ValueError(f"rule {rule.name!r} has one weight matrix; its decoder is the transpose of the encoder")
    c, lam, lam_pi = _loss_terms(rule, loss, p, dtype)
    two = dtype.type(2)
    dense = two * masked_gram(gram_latent, c)
    if lam_pi:
        if gram_encoder is None:
            raise ValueError("gram_encoder (B B') is needed: the loss has a product penalty")
        dense = dense + two * lam_pi * np.asarray(gram_encoder, dtype=dtype)
    if isinstance(rule, rag):
        # (A R)' = R'A' = -R A': the same sign as in the encoder.
        dense = dense - rotation(gram_latent)
    return Matrices(-two * c, None, _dense(two * lam, dense))


def _times(coefficient: np.ndarray | None, matrix: np.ndarray | None) -> np.ndarray | None:
    """Product of a None, diagonal or dense coefficient with a (p, n) matrix; None stays None."""
    if coefficient is None:
        return None
    if matrix is None:
        raise ValueError("decoder_product is needed: its coefficient is not None")
    return coefficient[:, None] * matrix if coefficient.ndim == 1 else coefficient @ matrix


def apply(
    matrices: Matrices, encoder_product: np.ndarray, decoder_product: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """Return the direction P1 Z_B + P2 Z_A + P3 W, shape (p, n) (docs/math.md Eq. 21).

    Parameters
    ----------
    matrices : Matrices
    encoder_product : array, shape (p, n)
        Z_B: B Sxx for the encoder (n = d), B Sxy for the decoder (n = q).
    decoder_product : array, shape (p, n), or None
        Z_A = A'Syx for the encoder; None where P2 is None.
    weights : array, shape (p, n)
        B for the encoder, A' for the decoder.

    Returns
    -------
    ndarray, shape (p, n), dtype of `weights`
        To be moved against.

    Raises
    ------
    ValueError
        P2 is not None, and `decoder_product` is.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> matrices = rules.Matrices(np.array([-1.0, -2.0]), None, np.eye(2))
    >>> rules.apply(matrices, np.ones((2, 3)), None, np.ones((2, 3)))
    array([[ 0.,  0.,  0.],
           [-1., -1., -1.]])
    """
    parts = (
        _times(matrices.on_encoder_product, encoder_product),
        _times(matrices.on_decoder_product, decoder_product),
        _times(matrices.on_weights, weights),
    )
    direction = np.zeros_like(weights)
    for part in parts:
        if part is not None:
            direction += part
    return direction


def normalise_rows(weights: np.ndarray) -> np.ndarray:
    """Return `weights` (p, n) with every row of length 1; a zero row stays zero.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> rules.normalise_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    length = np.sqrt(np.sum(weights * weights, axis=1, keepdims=True))
    return weights / np.where(length > 0, length, 1).astype(weights.dtype)


def synchronise(encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pair (W, W'), W = (B + A')/2: the coupling "synchronised" starts from it, and moves by it.

    Kunin's code steps both matrices and takes the mean of the weights. For plain descent and momentum the mean of the
    gradients is the same; two states of adam would end where their steps cancel, which is no minimum.

    Parameters
    ----------
    encoder : array, shape (p, d)
        Encoder, or the direction of the encoder.
    decoder : array, shape (d, p)
        Decoder, or its direction.

    Returns
    -------
    encoder : ndarray, shape (p, d)
    decoder : ndarray, shape (d, p)

    Raises
    ------
    ValueError
        If the shapes are not transposes of each other (targets of another width).

    Notes
    -----
    Source: the public code of Kunin et al. 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> encoder, decoder = rules.synchronise(np.array([[1.0, 0.0]]), np.array([[3.0], [2.0]]))
    >>> encoder, decoder.T
    (array([[2., 1.]]), array([[2., 1.]]))
    """
    if encoder.shape != decoder.shape[::-1]:
        raise ValueError(f"encoder {encoder.shape} and decoder {decoder.shape} must be transposes in shape")
    mean = (encoder + decoder.T) * encoder.dtype.type(0.5)
    return mean, np.ascontiguousarray(mean.T)
