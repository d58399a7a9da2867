"""The alternating rule: exact minimisation over the encoder, then over the decoder  (docs/math.md Eq. 13 to 15).

See Oftadeh et al. 2020, Prop. 1 and 2, and Kunin et al. 2019, Sec. 6.1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import linalg

from .. import rules
from ..backends.training_interface import Outcome
from .engine import Recipe, coupled
from .numpy_engine import NumpyEngine, relative
from .problem import MomentProblem


class AlternatingEngine(NumpyEngine):
    """Exact minimisation over the encoder, then over the decoder.

    For Y = X and no penalty an iteration is one product with S and two Cholesky solves of order p, and two products for
    the gradient.
    """

    problem: MomentProblem

    def __init__(self, problem: MomentProblem, recipe: Recipe, encoder: np.ndarray, decoder: np.ndarray) -> None:
        # In float64 whatever the data: solves of order p lose what the products gain in float32.
        sxx, sxy = problem.exact_moments()
        super().__init__(dataclasses.replace(problem, dtype=np.dtype(np.float64), sxx=sxx, sxy=sxy), recipe)
        self._pair = coupled(recipe.coupling, encoder.astype(np.float64), decoder.astype(np.float64))
        p = encoder.shape[0]
        self._prefix = self.loss.prefix(p)
        self._penalty = float(self.loss.row_penalty(p)[0])
        # With a penalty the eigenpairs of Sxx, with targets alone Sxx^-1 Sxy; each made once.
        self._spectrum = linalg.eigh(sxx) if self._penalty else None
        self._whitened = None if problem.same or self._penalty else symmetric_solve(sxx, sxy)

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d), float64."""
        return self._pair[0]

    @property
    def decoder(self) -> np.ndarray:
        """A' (p, q), float64."""
        return self._pair[1]

    def snapshot(self) -> list[np.ndarray]:
        """Copies of B and A'."""
        return [np.array(part) for part in self._pair]

    def restore(self, saved: list[np.ndarray]) -> None:
        """Take back a snapshot."""
        self._pair = np.array(saved[0]), np.array(saved[1])

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `Engine.advance`: solve for B, then for A; the ratio is |dL/dB| / |B|, since dL/dA = 0 by then."""
        encoder, decoder = self._pair
        found = self.gradients(encoder, decoder)
        ratio = max(relative(found.encoder, encoder), relative(found.decoder, decoder))
        if self.has_arrived:
            return Outcome(0, True, False, ratio, found.loss)
        self._pair = self._balanced(*self.solved(decoder))
        finite = all(bool(np.isfinite(part).all()) for part in self._pair)
        return Outcome(1, False, not finite, ratio, found.loss)

    def solved(self, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """B and A' after this A'  (docs/math.md, "Couplings").

        Where B = A' both are solved as a decoder is, which Kunin's code does: with B = A' the two equations of the sum
        loss are one at its optimum.
        """
        if self.recipe.coupling == "untied":
            encoder = self.best_encoder(decoder)
            return encoder, self.best_decoder(encoder)
        both = self.best_decoder(decoder)
        if self.recipe.coupling == "synchronised":
            both = (both + self.best_decoder(both)) * 0.5
        return both, both.copy()

    def _balanced(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row i of B and of A' at one length, without a penalty.

        There only their product counts, and a start far from balance would leave gradients that are small for that
        reason alone.
        """
        if self._penalty:
            return encoder, decoder
        lengths = np.linalg.norm(encoder, axis=1), np.linalg.norm(decoder, axis=1)
        usable = (lengths[0] > 0) & (lengths[1] > 0)
        share = np.sqrt(np.where(usable, lengths[1], 1.0) / np.where(usable, lengths[0], 1.0))[:, None]
        return encoder * share, decoder / share

    def best_encoder(self, decoder: np.ndarray) -> np.ndarray:
        """The B (p, d) that minimises the loss for this A' (p, q); that of least norm where there are several."""
        gram = decoder @ decoder.T
        if self._spectrum is not None:
            values, vectors = self._spectrum
            inner, rotation = linalg.eigh(gram)
            target = self.problem.products(self.encoder, decoder)[1]
            # A'A B Sxx + lam B = A'Syx is diagonal in the eigenvectors of A'A and of Sxx.
            rotated = rotation.T @ target @ vectors
            below = np.maximum(inner, 0.0)[:, None] * np.maximum(values, 0.0) + self._penalty
            return rotation @ (rotated / below) @ vectors.T
        right = decoder if self._whitened is None else decoder @ self._whitened.T
        return cholesky_solve(rules.masked_gram(gram, self._prefix), self._prefix[:, None] * right)

    def best_decoder(self, encoder: np.ndarray) -> np.ndarray:
        """The A' (p, q) that minimises the loss for this B (p, d); that of least norm where there are several."""
        zb, zxy = self.problem.encoder_products(encoder)
        latent = zb @ encoder.T
        system = rules.masked_gram((latent + latent.T) * 0.5, self._prefix) + self._penalty * np.eye(len(latent))
        return cholesky_solve(system, self._prefix[:, None] * zxy)


def cholesky_solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x of matrix x = right for a symmetric positive (semi)definite (p, p) matrix, float64.

    Cholesky on the matrix scaled to unit diagonal; the least-norm solution where that finds no positive pivot of any
    accuracy (dependent columns under mse, zero components).
    """
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if (scale > 0).all():
        inverse = 1.0 / scale
        try:
            factor = linalg.cholesky(matrix * inverse[:, None] * inverse, lower=True)
        except linalg.LinAlgError:
            return symmetric_solve(matrix, right)
        # The least pivot bounds the condition from below; under it the solution would be noise.
        if np.diagonal(factor).min() ** 2 > len(matrix) * 1e-12:
            return inverse[:, None] * linalg.cho_solve((factor, True), inverse[:, None] * right)
    return symmetric_solve(matrix, right)


def symmetric_solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
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
