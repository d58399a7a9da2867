"""Chains of linear layers: the gradient of the products A and B, carried to each layer  (docs/math.md Eq. 10)."""

from __future__ import annotations

import numpy as np

from .. import optimizers
from ..backends.threads import serial_blas
from ..backends.training_interface import Outcome
from .batches import BatchReader
from .engine import Recipe
from .numpy_engine import NumpyEngine, relative
from .problem import Problem


class ChainEngine(NumpyEngine):
    """One step of all layers an iteration, by the gradients at the old ones.

    layers : B_1 (h, d), ..., B_n (p, h), then A_1 (h, p), ..., A_n (q, h);  n_encoder : n
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        layers: list[np.ndarray],
        reader: BatchReader | None = None,
    ) -> None:
        super().__init__(problem, recipe, reader)
        self.layers = [np.array(layer, dtype=problem.dtype) for layer in layers]
        self.n_encoder = len(layers) // 2
        self.states = [[np.zeros_like(w) for _ in range(recipe.stepping_optimizer().n_states)] for w in self.layers]

    def snapshot(self) -> list[np.ndarray]:
        """Copies of the layers, and of the optimizer's states of each."""
        return [np.array(part) for part in self._trained()]

    def restore(self, saved: list[np.ndarray]) -> None:
        """Take back a snapshot."""
        for part, old in zip(self._trained(), saved):
            part[...] = old

    def _trained(self) -> list[np.ndarray]:
        return [*self.layers, *(state for states in self.states for state in states)]

    @property
    def encoder(self) -> np.ndarray:
        """The product B (p, d)."""
        return chain(self.layers[: self.n_encoder])

    @property
    def decoder(self) -> np.ndarray:
        """The product's transpose A' (p, q)."""
        return np.ascontiguousarray(chain(self.layers[self.n_encoder :]).T)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `Engine.advance`; one iteration."""
        found = self.gradients(self.encoder, self.decoder)
        with serial_blas():
            gradients = chain_gradients(self.layers, self.n_encoder, found.decoder.T, found.encoder)
        ratio = max(relative(g, w) for g, w in zip(gradients, self.layers))
        if not np.isfinite(ratio):
            return Outcome(1, False, True, ratio, found.loss)
        if self.has_arrived:
            return Outcome(0, True, False, ratio, found.loss)
        optimizer = self.recipe.stepping_optimizer()
        for weights, gradient, states in zip(self.layers, gradients, self.states):
            optimizers.step(optimizer, weights, gradient, states, first_iteration)
        return Outcome(1, False, False, ratio, found.loss)


def chain(layers: list[np.ndarray]) -> np.ndarray:
    """layers[-1] ... layers[0]."""
    product = layers[0]
    with serial_blas():
        for layer in layers[1:]:
            product = layer @ product
    return product


def chain_gradients(layers: list[np.ndarray], n_encoder: int, da: np.ndarray, db: np.ndarray) -> list[np.ndarray]:
    """Gradient of each layer from those of the products  (docs/math.md Eq. 10).

    da : (q, p);  db : (p, d).  Naive twin: oracle/naive_autoencoder.py::deep_gradients.
    """
    out = []
    for first, last, outer in ((0, n_encoder, db), (n_encoder, len(layers), da)):
        for i in range(first, last):
            value = outer
            if i + 1 < last:
                value = chain(layers[i + 1 : last]).T @ value
            if i > first:
                value = value @ chain(layers[first:i]).T
            out.append(value)
    return out
