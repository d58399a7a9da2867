"""Update rules of linear autoencoders: frozen descriptions, and their p x p matrices.

Every iterative rule moves a weight matrix W, (p, n) with one row per component, against a direction

    direction = P1 Z_B + P2 Z_A + P3 W,        W <- W - rate * direction   (or through an optimizer)

with p x p matrices made from Gram matrices by one mask (docs/math.md Eq. 21 to 28).  For the encoder W = B (p, d),
Z_B = B Sxx and Z_A = A'Syx; for the decoder W = A' (p, q), Z_B = B Sxy and nothing takes the place of Z_A.  All
directions are descents: rules that the literature writes as ascents (Oja, GHA, EigenGame) carry the sign inside.

The functions here are plain NumPy: they document the kernels and serve where there is no compiler.
What goes with what is in compatibility.py.  Imports NumPy and, downwards, losses and family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from . import losses as _losses
from .losses import _family

__all__ = [
    "COUPLINGS",
    "EXACT_LOSSES",
    "Matrices",
    "Rule",
    "alpha_eigengame",
    "alternating",
    "apply",
    "decoder_matrices",
    "default_loss",
    "encoder_matrices",
    "from_name",
    "gha",
    "gradient",
    "masked_gram",
    "mu_eigengame",
    "names",
    "normalise_rows",
    "oja",
    "rag",
    "resolve",
    "rotation",
    "stril",
    "striu",
    "synchronise",
]

COUPLINGS = ("untied", "synchronised", "tied")

# Losses that have an exact solve for each of the two matrices here.
EXACT_LOSSES = ("mse", "ordered", "nested_dropout", "sum_l2")


def listed(items):
    """Return names as text for a message: 'a', 'b'."""
    return ", ".join(repr(item) for item in items)


# ---------------------------------------------------------------------------------------------------------------------
# descriptions


@dataclass(frozen=True)
class Rule:
    """Base of all rules.

    Attributes
    ----------
    name : str
        The name users type.
    update : str
        The update in the notation of docs/math.md, with rate a.
    source : str
        Where the rule comes from.
    has_decoder : bool
        False if the rule has one weight matrix only; then the decoder is the transpose of the encoder.
    takes_loss : bool
        False if the rule has no loss.
    normalises_rows : bool
        True if every step ends by scaling each row of B to length 1.
    iterative : bool
        False if the rule solves for one matrix at a time, without rate or optimizer.
    """

    name: ClassVar[str] = ""
    update: ClassVar[str] = ""
    source: ClassVar[str] = ""
    has_decoder: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = True
    normalises_rows: ClassVar[bool] = False
    iterative: ClassVar[bool] = True


@dataclass(frozen=True)
class gradient(Rule):
    """Gradient step on encoder and decoder.

    Parameters
    ----------
    sequential : bool, default False
        False: both gradients are taken at the old weights, as automatic differentiation does.  True: the decoder's
        gradient is taken with the new encoder, as Kunin et al. 2019, Alg. 1 ("untied") does; it costs no further
        product in full-batch training, because B Sxx of the new encoder is what the next iteration starts from.
    """

    sequential: bool = False
    name: ClassVar[str] = "gradient"
    update: ClassVar[str] = "B <- B - a dL/dB;  A <- A - a dL/dA"
    source: ClassVar[str] = "Oftadeh et al. 2020; Kunin et al. 2019, Alg. 1; Bao et al. 2020"

    def __post_init__(self):
        if not isinstance(self.sequential, bool):
            raise TypeError(f"sequential must be True or False, got {self.sequential!r}")


@dataclass(frozen=True)
class rag(Rule):
    """Rotation augmented gradient: mse gradient plus a rotation of the latent space that keeps AB to first order.

    The gradient is that of |Y - X B'A'|^2 at scale "mean" with G at the same scale; at scale "sum" both grow by the
    number of samples, so only the rate changes.  With any optimizer but plain descent the rotation joins the gradient
    BEFORE the optimizer.
    """

    name: ClassVar[str] = "rag"
    update: ClassVar[str] = "B <- (I + a R) B - a dL/dB;  A <- A (I - a R) - a dL/dA;  R = (striu(G) - stril(G))/2"
    source: ClassVar[str] = "Bao et al. 2020, Alg. 1"


@dataclass(frozen=True)
class oja(Rule):
    """Oja's subspace rule: finds the principal subspace with orthonormal rows, not the directions."""

    name: ClassVar[str] = "oja"
    update: ClassVar[str] = "B <- B + a (B S - G B)"
    source: ClassVar[str] = "Oja 1982, 1992"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False


@dataclass(frozen=True)
class gha(Rule):
    """Generalised Hebbian algorithm.  For rows as components the mask keeps the LOWER triangle and the diagonal."""

    name: ClassVar[str] = "gha"
    update: ClassVar[str] = "B <- B + a (B S - tril(G) B)"
    source: ClassVar[str] = "Sanger 1989; Bao et al. 2020, Sec. 6.1"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False


@dataclass(frozen=True)
class alpha_eigengame(Rule):
    """alpha-EigenGame: each row climbs its variance minus a generalised Gram-Schmidt penalty of its parents."""

    name: ClassVar[str] = "alpha_eigengame"
    update: ClassVar[str] = "B <- B + a (B S - stril(G_ij / G_jj) B S), rows normalised"
    source: ClassVar[str] = "Gemp et al. 2020"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False
    normalises_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class mu_eigengame(Rule):
    """mu-EigenGame: like GHA without the diagonal, which the normalisation of the rows replaces."""

    name: ClassVar[str] = "mu_eigengame"
    update: ClassVar[str] = "B <- B + a (B S - stril(G) B), rows normalised"
    source: ClassVar[str] = "Gemp et al. 2021"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False
    normalises_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class alternating(Rule):
    """Exact minimisation over the encoder, then over the decoder."""

    name: ClassVar[str] = "alternating"
    update: ClassVar[str] = "B <- argmin_B L(A, B);  A <- argmin_A L(A, B)"
    source: ClassVar[str] = "Oftadeh et al. 2020, Prop. 1 and 2; Kunin et al. 2019, Sec. 6.1"
    iterative: ClassVar[bool] = False


_REGISTRY = {cls.name: cls for cls in (gradient, rag, oja, gha, alpha_eigengame, mu_eigengame, alternating)}


def names():
    """Return the names of all rules, a tuple of str."""
    return tuple(_REGISTRY)


def from_name(name):
    """Return the rule called `name`; ValueError listing the valid names, TypeError if it is no string."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a rule must be a string, got {name!r} of type {type(name).__name__}")
    if name not in _REGISTRY:
        raise ValueError(f"unknown rule {name!r}; valid: {listed(_REGISTRY)}")
    return _REGISTRY[name]()


def resolve(rule):
    """Return `rule` as a Rule: an object as it is, a string through `from_name`; TypeError for anything else."""
    if isinstance(rule, Rule):
        if not rule.name:
            raise TypeError("Rule is the base class; use one of " + listed(_REGISTRY))
        return rule
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise TypeError(f"rule must be an object, not a class: write rules.{rule.__name__}()")
    if isinstance(rule, str):
        return from_name(rule)
    raise TypeError(f"rule must be a string or an object of lae_fast.rules, got {type(rule).__name__}")


def default_loss(rule):
    """Return the loss that "auto" means for `rule`: ordered for gradient and alternating, mse for rag, else None."""
    rule = resolve(rule)
    if isinstance(rule, (gradient, alternating)):
        return _losses.ordered()
    if isinstance(rule, rag):
        return _losses.mse()
    return None


# ---------------------------------------------------------------------------------------------------------------------
# masks


def masked_gram(gram, prefix):
    """Return M o G with M_ij = prefix[max(i, j)], shape (p, p) (docs/math.md Eq. 4)."""
    return _family.prefix_mask(np.asarray(prefix)) * gram


def stril(gram):
    """Return the strictly lower triangle of `gram`, (p, p)."""
    return np.tril(gram, -1)


def striu(gram):
    """Return the strictly upper triangle of `gram`, (p, p)."""
    return np.triu(gram, 1)


def rotation(gram_latent):
    """Return R = (striu(G) - stril(G))/2, (p, p) (docs/math.md Eq. 23; Bao et al. 2020, Alg. 1).

    Only the upper triangle is read, so R is skew to the last bit even where rounding left G unsymmetric.
    """
    upper = striu(gram_latent)
    return (upper - upper.T) * gram_latent.dtype.type(0.5)


# ---------------------------------------------------------------------------------------------------------------------
# p x p matrices


class Matrices(NamedTuple):
    """The three coefficients of a direction; each is None (zero), (p,) (diagonal) or (p, p) (dense).

    Attributes
    ----------
    on_encoder_product : P1, multiplies Z_B: B Sxx for the encoder, B Sxy for the decoder.
    on_decoder_product : P2, multiplies Z_A = A'Syx; always None for the decoder.
    on_weights : P3, multiplies the weight matrix itself.
    """

    on_encoder_product: np.ndarray | None
    on_decoder_product: np.ndarray | None
    on_weights: np.ndarray | None


def _dense(diagonal, dense):
    """Return diag(diagonal) + dense with None for zero, keeping a plain diagonal one-dimensional."""
    if dense is None:
        return diagonal if diagonal is not None and diagonal.any() else None
    if diagonal is None or not diagonal.any():
        return dense
    return dense + np.diag(diagonal)


def _loss_terms(rule, loss, p, dtype):
    """Return (c, lam, lam_pi) for a rule with a loss, raising where the family does not apply."""
    loss = default_loss(rule) if loss is None else _losses.resolve(loss)
    if not loss.in_family:
        raise ValueError(
            f"loss {loss.name!r} has no p x p matrices: it is not a function of the moments through prefix weights"
        )
    if isinstance(rule, rag) and not isinstance(loss, _losses.mse):
        raise ValueError(f"rule 'rag' goes with loss 'mse' only, got {loss.name!r}")
    return loss.prefix(p, dtype), loss.row_penalty(p, dtype), dtype.type(loss.product_penalty)


def encoder_matrices(rule, loss, gram_decoder, gram_latent):
    """Coefficients of the encoder's direction P1 (B Sxx) + P2 (A'Syx) + P3 B.

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
    """
    rule = resolve(rule)
    gram_latent = np.asarray(gram_latent)
    dtype, p = gram_latent.dtype, gram_latent.shape[0]
    if not rule.iterative:
        raise ValueError(f"rule {rule.name!r} solves exactly and has no direction; see lae_fast.training.alternating")
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


def _encoder_only_matrices(rule, gram_latent):
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


def decoder_matrices(rule, loss, gram_encoder, gram_latent):
    """Coefficients of the decoder's direction P1 (B Sxy) + P3 A', with A' (p, q).

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
    """
    rule = resolve(rule)
    gram_latent = np.asarray(gram_latent)
    dtype, p = gram_latent.dtype, gram_latent.shape[0]
    if not rule.iterative:
        raise ValueError(f"rule {rule.name!r} solves exactly and has no direction; see lae_fast.training.alternating")
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


def _times(coefficient, matrix):
    """Product of a None, diagonal or dense coefficient with a (p, n) matrix; None stays None."""
    if coefficient is None:
        return None
    return coefficient[:, None] * matrix if coefficient.ndim == 1 else coefficient @ matrix


def apply(matrices, encoder_product, decoder_product, weights):
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


def normalise_rows(weights):
    """Return `weights` (p, n) with every row of length 1; a zero row stays zero."""
    length = np.sqrt(np.sum(weights * weights, axis=1, keepdims=True))
    return weights / np.where(length > 0, length, 1).astype(weights.dtype)


def synchronise(encoder, decoder):
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
    """
    if encoder.shape != decoder.shape[::-1]:
        raise ValueError(f"encoder {encoder.shape} and decoder {decoder.shape} must be transposes in shape")
    mean = (encoder + decoder.T) * encoder.dtype.type(0.5)
    return mean, np.ascontiguousarray(mean.T)
