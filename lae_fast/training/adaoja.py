"""AdaOja: Oja's rule with a rate for each component that tunes itself, and orthonormal rows.

Henriksen and Ward 2019, "AdaOja: adaptive learning rates for streaming PCA"; docs/math.md, "Update rules".
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .. import losses, rules
from ..backends.threads import serial_blas
from ..backends.training_interface import Outcome
from ..losses import _family
from .batches import BatchReader
from .engine import Recipe
from .numpy_engine import NumpyEngine, all_still, relative
from .problem import Problem


class AdaOjaEngine(NumpyEngine):
    """A step, the sums of squares that scale it, and a QR factorisation an iteration, in the dtype of the problem.

    Whether it has arrived is asked of GHA's direction, which is zero at ordered eigenvectors with orthonormal rows.
    """

    def __init__(
        self, problem: Problem, recipe: Recipe, encoder: np.ndarray, reader: BatchReader | None = None
    ) -> None:
        super().__init__(problem, dataclasses.replace(recipe, loss=losses.mse()), reader)
        self._encoder = orthonormal_rows(encoder).astype(problem.dtype)
        start = getattr(recipe.rule, "start", 0.0) * (problem.largest or 1.0)
        self._squares = np.full(len(encoder), start * start)

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d)."""
        return self._encoder

    @property
    def decoder(self) -> np.ndarray:
        """B: the decoder is its transpose."""
        return self._encoder

    def snapshot(self) -> list[np.ndarray]:
        """Copies of B and of the sums of squares."""
        return [np.array(self._encoder), np.array(self._squares)]

    def restore(self, saved: list[Any]) -> None:
        """Take back a snapshot."""
        self._encoder, self._squares = np.array(saved[0]), np.array(saved[1])

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `Engine.advance`; one iteration."""
        encoder = self._encoder
        made = self.products(encoder, encoder[:0])
        with serial_blas():
            latent = made.zb @ encoder.T
            direction = rules.apply(rules.encoder_matrices("gha", None, None, latent), made.zb, None, encoder)
        size = np.einsum("ij,ij->i", made.zb, encoder, dtype=np.float64)
        value = _family.family_value(
            losses.mse(), yy_trace=made.yy_trace, cross=size, gram_decoder=encoder @ encoder.T, gram_latent=latent
        )
        ratio = relative(direction, encoder)
        if not np.isfinite(ratio):
            return Outcome(1, False, True, ratio, value)
        if self.stillness.watched and self.recipe.tolerance >= 0.0 and (self.reader is None or made.yy_trace > 0.0):
            still = all_still(self.recipe, losses.mse(), ((encoder, direction), (encoder, direction)), size)
            self.stillness.calm = self.stillness.calm + 1 if still else 0
        if self.has_arrived:
            return Outcome(0, True, False, ratio, value)
        self._squares = self._squares + np.einsum("ij,ij->i", made.zb, made.zb, dtype=np.float64)
        step = made.zb / np.sqrt(self._squares)[:, None].astype(encoder.dtype)
        self._encoder = orthonormal_rows(encoder + step)
        return Outcome(1, False, False, ratio, value)


def orthonormal_rows(weights: np.ndarray) -> np.ndarray:
    """Rows (p, d) orthonormalised in order: Q' of the QR factorisation of the transpose whose R has no negative
    diagonal."""
    with serial_blas():
        q, r = np.linalg.qr(weights.T)
    return np.ascontiguousarray((q * np.where(np.diagonal(r) < 0, -1, 1).astype(q.dtype)).T)
