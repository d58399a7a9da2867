"""What the engines without a compiled loop share: products, loss and gradients in NumPy, and when every component is
within the tolerance.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from .. import losses, rules
from ..backends import formulas
from ..backends.threads import serial_blas
from ..losses import _family
from .batches import BatchReader
from .engine import Engine, Recipe
from .problem import Problem


class Products(NamedTuple):
    """B Sxx (p, d), A'Syx (p, d), B Sxy (p, q) and tr Syy, of all data or of a batch."""

    zb: np.ndarray
    za: np.ndarray
    zxy: np.ndarray
    yy_trace: float


class Gradients(NamedTuple):
    """The loss, and its derivatives by B (p, d) and by A' (p, q)."""

    loss: float
    encoder: np.ndarray
    decoder: np.ndarray


@dataclass
class Stillness:
    """Whether a run is watched, and how many iterations in a row have been within the tolerance."""

    watched: bool = True
    calm: int = 0


class NumpyEngine(Engine):
    """An engine for losses of the family; the products come from the problem, or from a batch."""

    def __init__(self, problem: Problem, recipe: Recipe, reader: BatchReader | None = None) -> None:
        self.problem, self.recipe, self.reader = problem, recipe, reader
        self.loss = recipe.minimised_loss()
        self.stillness = Stillness()
        self._blas = contextlib.ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        """Without the last batch."""
        return vars(self) | {"reader": None, "_blas": None}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _blas=contextlib.ExitStack())

    def __enter__(self) -> Self:
        self._blas.enter_context(serial_blas())
        return self

    def __exit__(self, *error: object) -> None:
        self._blas.close()

    @property
    def most(self) -> int:
        """See `Engine.most`."""
        return 1

    @property
    def calm(self) -> int:
        """See `Engine.calm`."""
        return self.stillness.calm

    @calm.setter
    def calm(self, count: int) -> None:
        self.stillness.calm = count

    def watch(self, on: bool) -> None:
        """See `Engine.watch`."""
        self.stillness = Stillness(watched=on)

    def products(self, encoder: np.ndarray, decoder: np.ndarray) -> Products:
        """Those of all data or of the next batch."""
        if self.reader is None:
            return Products(*self.problem.products(encoder, decoder), self.problem.yy_trace)
        return self._batch_products(self.reader, encoder, decoder)

    def _batch_products(self, reader: BatchReader, encoder: np.ndarray, decoder: np.ndarray) -> Products:
        rows = reader.next_rows(1)
        memory, places, weights = reader.arrays(rows)
        dense = []
        for (flat, (line, entry)), mean in zip(memory, (self.problem.mean, self.problem.mean_y)):
            entries = places[0][:, None] * line + np.arange(len(mean)) * entry
            block = flat[entries].astype(self.problem.dtype) - mean.astype(self.problem.dtype)
            if weights.size:
                block *= np.sqrt(weights[places[0]])[:, None].astype(self.problem.dtype)
            dense.append(block)
        x, y = dense[0], dense[-1]
        factor = self.problem.dtype.type(reader.factors(rows, self.recipe.scale)[0])
        with serial_blas():
            codes, targets = factor * (encoder @ x.T), factor * (decoder @ y.T)
            zb = codes @ x
            za = targets @ x
            zxy = zb if self.problem.same else codes @ y
        return Products(zb, za, zxy, float(factor * np.sum(y.astype(np.float64) ** 2)))

    def gradients(self, encoder: np.ndarray, decoder: np.ndarray) -> Gradients:
        """Those at B (p, d) and A' (p, q)  (docs/math.md Eq. 5 to 7); counts whether they are within the tolerance."""
        made = self.products(encoder, decoder)
        with serial_blas():
            latent, outer, inner = made.zb @ encoder.T, decoder @ decoder.T, encoder @ encoder.T
            latent = (latent + latent.T) * latent.dtype.type(0.5)
            value = _family.family_value(
                self.loss,
                yy_trace=made.yy_trace,
                cross=np.einsum("ij,ij->i", made.zxy, decoder, dtype=np.float64),
                gram_decoder=outer,
                gram_latent=latent,
                gram_encoder=inner,
            )
            of_encoder = rules.encoder_matrices("gradient", self.loss, outer, latent)
            of_decoder = rules.decoder_matrices("gradient", self.loss, inner, latent)
            db = rules.apply(of_encoder, made.zb, made.za, encoder)
            da = rules.apply(of_decoder, made.zxy, None, decoder)
        # A batch without mass says nothing.
        if self.stillness.watched and self.recipe.tolerance >= 0.0 and (self.reader is None or made.yy_trace > 0.0):
            still = all_still(self.recipe, self.loss, ((encoder, db), (decoder, da)), np.diagonal(latent))
            self.stillness.calm = self.stillness.calm + 1 if still else 0
        return Gradients(value, db, da)

    @property
    def has_arrived(self) -> bool:
        """Whether every component has been within the tolerance for long enough."""
        return 0 < self.recipe.patience <= self.stillness.calm


def all_still(recipe: Recipe, loss: losses.Loss, sides: Any, latent: np.ndarray) -> bool:
    """Whether every component has arrived  (docs/math.md Eq. 46), as cpu/training/decisions.py has it in the loop.

    sides : B (p, d) and its gradient, A' (p, q) and its gradient;  latent : (p,) G_ii
    """
    squares = [
        tuple(np.einsum("ij,ij->i", one, other, dtype=np.float64) for one, other in ((g, g), (g, w), (w, w)))
        for w, g in sides
    ]
    p = len(latent)
    prefix, penalty = loss.prefix(p), loss.row_penalty(p)
    for i in reversed(range(p)):
        own = (squares[1][2][i], squares[0][2][i])
        size = formulas.component_size(prefix[i], loss.product_penalty, *own, float(latent[i]))
        rounding = formulas.rounding_size(prefix[i], *own, *recipe.rounding)
        for gradient, along, weight in squares:
            if not formulas.is_still(
                gradient[i], along[i], weight[i], size, penalty[i], recipe.tolerance, rounding, recipe.negligible
            ):
                return False
    return True


def relative(gradient: np.ndarray, weights: np.ndarray) -> float:
    """|gradient| / |weights|, or |gradient| where the weights are zero."""
    length = float(np.linalg.norm(weights.astype(np.float64)))
    size = float(np.linalg.norm(gradient.astype(np.float64)))
    return size / length if length > 0 else size
