"""What block Krylov has found so far: orthonormal columns Q, their images S Q, and Q'SQ.

Q and S Q live where the operator's backend works; Q'SQ and whatever has its size are NumPy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from ..backends import host_panels
from ..backends.threads import serial_blas
from ..operators.dense import Operator


class KrylovBasis:
    """Columns Q (n, size), orthonormal, with their images S Q and the Rayleigh-Ritz matrix Q'SQ.

    Parameters
    ----------
    operator : S;  capacity : columns that there is memory for;  random : of columns where S gives none

    Attributes
    ----------
    size : columns in use
    columns, images : (n, capacity) in the operator's dtype, of which the first `size` columns mean something
    ritz_matrix : (capacity, capacity) float64, symmetric, zero beyond `size`
    panels : the backend's module of tall products
    """

    def __init__(self, operator: Operator, capacity: int, random: np.random.Generator) -> None:
        self.dim, self.dtype, self.capacity, self.random = operator.dim, operator.dtype, capacity, random
        self.panels: Any = getattr(operator, "panels", host_panels)
        self.eps = float(np.finfo(self.dtype).eps)
        self.columns = self.panels.empty((self.dim, capacity), self.dtype)
        self.images = self.panels.empty((self.dim, capacity), self.dtype)
        self.ritz_matrix = np.zeros((capacity, capacity))
        self.size = 0

    def has_room(self, panel: Any) -> bool:
        return self.size + panel.shape[1] <= self.capacity

    def append(self, panel: Any, image: Any) -> Any:
        """Take up a panel (n, b) and its image S panel, float64; returns the image's part outside the basis."""
        old, new = self.size, self.size + panel.shape[1]
        self.columns[:, old:new] = panel
        self.images[:, old:new] = image
        coupling = self.panels.cross(self.columns[:, :new], image)
        self.ritz_matrix[:new, old:new] = coupling
        self.ritz_matrix[old:new, :new] = coupling.T
        self.ritz_matrix[old:new, old:new] = 0.5 * (coupling[old:] + coupling[old:].T)
        self.size = new
        self.panels.subtract_product(image, self.columns[:, :new], coupling)
        return image

    def rayleigh_ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values (size,), descending, and the coordinates of their vectors in the basis (size, size)."""
        with serial_blas():
            values, coordinates = scipy.linalg.eigh(self.ritz_matrix[: self.size, : self.size], driver="evd")
        return np.maximum(values[::-1], 0.0), coordinates[:, ::-1]

    def residual_norms(self, coordinates: np.ndarray, width: int, residual: Any) -> np.ndarray:
        """(p,) norms of S u - l u for Ritz vectors: the basis holds S u but for the last panel's `residual`.

        coordinates : (size, p);  width : columns of the last panel;  residual : (n, width), what `append` returned
        """
        last = coordinates[self.size - width : self.size]
        gram = self.panels.cross(residual, residual)
        return np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", last, gram, last, optimize=True), 0.0))

    def is_complete(self, trace: float) -> bool:
        """The basis is the whole space, or holds all of the trace that rounding can see: no eigenvalue is missing.

        It does not say that vectors have converged: the trace is short by the square of a vector's error only.
        """
        if self.size >= self.dim:
            return True
        quotients = self.ritz_matrix.diagonal()[: self.size]
        return abs(trace - float(quotients.sum())) <= 0.25 * self.eps * float(quotients.max())

    def next_panel(self, residual: Any, block: int, lacking: int, joining: int = 0) -> Any:
        """Orthonormal columns outside the basis: the residual's directions, with random ones where these are too few.

        block : columns wanted at most, besides `joining` random ones that join them now
        lacking : columns that the basis still needs for what is wanted.  Where all eigenvalues are nearly equal, a
            block is nearly invariant, and its residual gives few directions or none.
        """
        floor = 0.5 * self.eps * float(self.ritz_matrix.diagonal()[: self.size].max())
        if joining:
            residual = self._beside_random(residual, joining)
            floor = min(floor, 1.0)
        room = self.dim - self.size
        panel = self.orthonormalize(residual, floor)[:, :room]
        if panel.shape[1] == 0:  # an invariant subspace: whatever else there is lies outside, so look at random
            return self._outside(panel, min(block, room))[:, :room]
        short = min(block, lacking, room) - panel.shape[1]
        if short <= 0:
            return panel
        more = self._outside(panel, short)[:, :short]
        both = self.panels.empty((panel.shape[0], panel.shape[1] + more.shape[1]), panel.dtype)
        both[:, : panel.shape[1]], both[:, panel.shape[1] :] = panel, more
        return both

    def random_panel(self, width: int) -> Any:
        return self.panels.place(self.random.standard_normal((self.dim, width)))

    def _outside(self, panel: Any, width: int) -> Any:
        """Orthonormal columns that are random outside the basis and the panel.

        They are projected before they are made orthonormal: where little is left outside, that shortens them much.
        """
        random = self.random_panel(width)
        for _ in range(2):
            for known in (self.columns[:, : self.size], panel):
                if known.shape[1]:
                    self.panels.subtract_product(random, known, self.panels.cross(known, random))
        return self.orthonormalize(random, floor=0.0)

    def _beside_random(self, residual: Any, joining: int) -> Any:
        width = residual.shape[1]
        random, basis = self.random_panel(joining), self.columns[:, : self.size]
        self.panels.subtract_product(random, basis, self.panels.cross(basis, random))
        both = self.panels.empty((residual.shape[0], width + joining), np.float64)
        both[:, :width], both[:, width:] = residual, random
        return both

    def orthonormalize(self, panel: Any, floor: float) -> Any:
        """Orthonormal columns spanning `panel` less the basis; columns of norm `floor` or less are taken for rounding.

        Whitening by the float64 Gram resolves directions down to 1e-7 of the longest, so it is repeated: what a round
        cannot resolve it clips and never drops, because a direction that is dropped would be missing from all later
        residuals.  The last rounds find lengths near one; what the projection shortened there lay in the basis, and
        is dropped.
        """
        double = self.dtype.itemsize == 8
        gram = self.panels.cross(panel, panel)
        norms = np.sqrt(gram.diagonal())
        kept = norms > floor
        if not kept.any():
            return self.panels.empty((panel.shape[0], 0), self.dtype)
        inverse = 1.0 / norms[kept]
        scaled = gram[np.ix_(kept, kept)] * np.multiply.outer(inverse, inverse)
        whiten = inverse[:, None] * _inverse_root(scaled, 1e-13)
        tall = self.panels.multiply(self.panels.columns(panel, kept), whiten).astype(self.dtype, copy=False)
        if double:
            tall = self.panels.multiply(tall, _inverse_root(self._projected_gram(tall), 1e-13))
        tall = self.panels.multiply(tall, _inverse_root(self._projected_gram(tall), None))
        if double:  # an eigensolver's own rounding shows in float64; after one Newton step it does not
            gram = self._projected_gram(tall)
            tall = self.panels.multiply(tall, 1.5 * np.eye(gram.shape[0]) - 0.5 * gram)
        return tall

    def _projected_gram(self, tall: Any) -> np.ndarray:
        """Project `tall` off the basis in place; its Gram."""
        if self.size:
            basis = self.columns[:, : self.size]
            self.panels.subtract_product(tall, basis, self.panels.cross(basis, tall))
        return self.panels.cross(tall, tall)

    def restart(self, values: np.ndarray, coordinates: np.ndarray, keep: int) -> None:
        """Keep the first `keep` Ritz vectors in place of the basis."""
        for stored in (self.columns, self.images):
            stored[:, :keep] = self.panels.multiply(stored[:, : self.size], coordinates[:, :keep], np.float64)
        self.ritz_matrix[:] = 0.0
        self.ritz_matrix[:keep, :keep] = np.diag(values[:keep])
        self.size = keep

    def ritz_vectors(self, values: np.ndarray, coordinates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` Ritz vectors (n, count) and their images, float64, on the host."""
        multiply, basis, images = self.panels.multiply, self.columns[:, : self.size], self.images[:, : self.size]
        wanted, others = coordinates[:, :count], coordinates[:, count:]
        vectors, products = multiply(basis, wanted, np.float64), multiply(images, wanted, np.float64)
        if self.dtype.itemsize == 8 and count < self.size:
            # Q'Q = I to some tens of eps only, which shows in the residuals: one Newton step against the other pairs
            residual = self.panels.residual(products, vectors, values[:count])
            leak = others.T @ self.panels.cross(basis, residual)
            gaps = values[None, :count] - values[count:, None]
            # nothing needs turning between equal values, and a quotient of two rounding errors is no angle
            turn = np.divide(leak, gaps, out=np.zeros_like(leak), where=gaps > 100.0 * np.abs(leak))
            change = others @ turn
            vectors += multiply(basis, change)
            products += multiply(images, change)
        return self.panels.fetch(vectors), self.panels.fetch(products)


def _inverse_root(gram: np.ndarray, clip: float | None) -> np.ndarray:
    """V s^(-1/2) of a Gram V s V' with entries near one: s clipped from below, or directions under 0.1 dropped."""
    with serial_blas():
        spread, axes = scipy.linalg.eigh(gram)
    if clip is None:
        good = spread > 0.1
        return axes[:, good] / np.sqrt(spread[good])
    return axes / np.sqrt(np.maximum(spread, clip))
