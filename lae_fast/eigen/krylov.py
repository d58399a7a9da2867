"""Block Krylov iteration with Rayleigh-Ritz and full reorthogonalisation, for any operator.

Equations: docs/pca.md, "Block Krylov" (Musco and Musco 2015; thick restart after Wu and Simon 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from ..backends import host_panels
from ..backends.threads import serial_blas
from ..operators.rows import Operator
from ..progress import Passes

# How many components are wanted, given the Ritz values (descending) and the trace; None: not known yet.
Wanted = Callable[[np.ndarray, float], "int | None"]
# Largest acceptable residual norm per component, given the wanted Ritz values.
Tolerance = Callable[[np.ndarray], np.ndarray]
# Converged Ritz values may be a tie where they differ by at most so many of the residuals that were asked for: a wider
# cluster with hidden members would show in their residuals.
_TIE = 16.0


@dataclass
class RitzPairs:
    """Approximate eigenpairs in scaled units.

    values : (p,) descending;  vectors, images : (n, p), images = S vectors; all float64, on the host;
    estimates : (p,) residual norms as the recurrence sees them;  converged : all of them within the tolerance;
    complete : the basis spans everything S acts on, so no larger eigenvalue was missed.
    """

    values: np.ndarray
    vectors: np.ndarray
    images: np.ndarray
    estimates: np.ndarray
    converged: bool
    complete: bool


def block_krylov(
    operator: Operator,
    wanted: Wanted,
    tolerance: Tolerance,
    *,
    block: int,
    max_basis: int,
    max_products: int,
    widest: int = 0,
    give_up_after: int | None = None,
    seed: int | np.random.Generator = 0,
    state: Any = None,
    start: np.ndarray | None = None,
    stage: Passes | None = None,
) -> RitzPairs | None:
    """Leading eigenpairs of `operator`.

    A product of S with a block of `block` columns per step; the basis is restarted from its best Ritz vectors when it
    reaches `max_basis` columns.  Stops when every wanted residual is within `tolerance`, when the basis spans the
    space, or after `max_products` products.  None: more components are wanted than `max_basis` can hold, or, checked
    after `give_up_after` products, at the rate seen so far `max_products` will not do.

    A block of b columns sees b copies of an eigenvalue at most.  Where that many are found, and more is wanted below
    them, random columns join the block until it is wider than what is wanted, or `widest`, and it goes on for as many
    products as it has taken.

    state : keeps the iteration after every step and goes on with one that was kept (krylov_checkpoint.py), or None
    start : (n, at most `block`) directions of the first block; what it lacks in columns is random
    stage : is told the number of the product and the residual so far, or None

    Costs per step: one product, about 6 n k b flops for the k columns so far, and a k x k eigenproblem.
    """
    return _Iteration(
        operator, wanted, tolerance, block, max_basis, max_products, widest, give_up_after, seed, state, start, stage
    ).run()


class _Iteration:
    def __init__(
        self,
        operator: Operator,
        wanted: Wanted,
        tolerance: Tolerance,
        block: int,
        max_basis: int,
        max_products: int,
        widest: int,
        give_up_after: int | None,
        seed: int | np.random.Generator,
        state: Any,
        start: np.ndarray | None,
        stage: Passes | None,
    ) -> None:
        n = operator.dim
        self.operator, self.wanted, self.tolerance = operator, wanted, tolerance
        # products of panels run where the operator's do
        self.panels = getattr(operator, "panels", host_panels)
        self.block = min(block, n)
        self.widest = min(max(widest, block), n)
        self.joining = 0  # random columns that the next panel takes up
        self.max_basis = min(n, max(max_basis, 2 * self.block))
        self.whole_fits = self.max_basis == n
        self.max_products, self.give_up_after = max_products, give_up_after
        self.random = np.random.default_rng(seed)
        self.eps = float(np.finfo(operator.dtype).eps)
        self.basis = self.panels.empty((n, self.max_basis), operator.dtype)
        self.images = self.panels.empty((n, self.max_basis), operator.dtype)
        self.ritz_matrix = np.zeros((self.max_basis, self.max_basis))
        self.size = 0
        self.skip = 0
        self.not_before = 0  # products before which no result is taken
        self.seen: tuple[int, float] | None = None
        self.state = state
        self.stage = Passes("") if stage is None else stage
        self.start = start  # until the first panel is made

    def run(self) -> RitzPairs | None:
        n = self.operator.dim
        kept = None if self.state is None else self.state.begin(self)
        done, panel = kept or (0, self._orthonormalize(self._first(), floor=0.0))
        product = done
        while product < self.max_products:
            product += 1
            self.stage.number = product
            lacking = 0  # columns that the basis has too few for what is wanted, as far as that is known
            residual = self._extend(panel)
            last_chance = product == self.max_products
            full = self.size + panel.shape[1] > self.max_basis
            complete, whole = self._is_complete(), self.size >= n
            values, coordinates, count = None, None, None
            if self._due() or last_chance or full or complete:
                values, coordinates = self._rayleigh_ritz()
                count = self.wanted(values, self.operator.trace)
                if count is None and complete:
                    count = self.size
                lacking = self.block if count is None else max(0, count - self.size)
                if count is not None and count > self.max_basis - self.block and not self.whole_fits:
                    return None
                if count is not None and count <= self.size:
                    estimates = self._estimates(coordinates[:, :count], panel.shape[1], residual)
                    asked = self.tolerance(values[:count])
                    floor = max(self.eps * float(values[0]), float(np.finfo(np.float64).tiny))
                    self.stage.residual = float(np.max(estimates / np.maximum(values[:count], floor)))
                    small = bool((estimates <= asked).all())
                    if small and not complete and not last_chance and self._may_hide_a_copy(values[:count], asked):
                        self._widen(product, count)
                    fine = small and (complete or product >= self.not_before)
                    if fine or whole or last_chance:
                        return self._finish(values, coordinates, count, estimates, fine or whole, complete)
                    excess = float(np.max(estimates / np.maximum(asked, np.finfo(np.float64).tiny)))
                    if product >= self.not_before and self._is_hopeless(product, excess):
                        return None
                    self._postpone(excess)
                elif self.give_up_after is not None and product >= 2 * self.give_up_after:
                    return None
            panel = self._next_panel(residual, lacking)
            restarts = self.size + panel.shape[1] > self.max_basis
            if restarts and values is None:
                values, coordinates = self._rayleigh_ritz()
                count = self.wanted(values, self.operator.trace)
            if restarts and count is None:
                return None
            with nullcontext() if self.state is None else self.state.changing():
                if restarts:
                    self._restart(values, coordinates, count, panel.shape[1])
                if self.state is not None:
                    self.state.offer(self, product, panel)
        return None

    def _first(self) -> Any:
        block = self._random(self.block)
        if self.start is not None:
            block[:, : self.start.shape[1]] = self.panels.place(self.start)
            self.start = None
        return block

    def _random(self, width: int) -> Any:
        return self.panels.place(self.random.standard_normal((self.operator.dim, width)))

    def _due(self) -> bool:
        """Whether to solve the Rayleigh-Ritz problem now: it is cubic in the basis, and far off it cannot help."""
        self.skip -= 1
        return self.skip < 0

    def _may_hide_a_copy(self, values: np.ndarray, asked: np.ndarray) -> bool:
        """Whether as many values tie as the block has columns, more being wanted: others may be equal to them."""
        count, b = values.size, self.block
        if count <= b or b >= self.widest or not (count + self.widest <= self.max_basis or self.whole_fits):
            return False
        first, last, bound = values[: count - b], values[b - 1 : -1], asked[: count - b]
        return bool(((first - last <= _TIE * bound) & (first > bound)).any())

    def _widen(self, product: int, count: int) -> None:
        """Random columns join the next panel, and get as many products as the first have had.

        The products that are left are fewer, as they cost more.
        """
        before, self.block = self.block, min(count + 1, self.widest)
        self.joining = self.block - before
        left = (self.max_products - product) * before // self.block
        self.max_products = min(self.max_products, product + max(product, left))
        self.not_before, self.seen = min(2 * product, self.max_products), None

    def _is_hopeless(self, product: int, excess: float) -> bool:
        """Whether the products that are left are too few at the rate of the last ones."""
        before, self.seen = self.seen, (product, excess)
        if self.give_up_after is None or product < self.give_up_after or before is None:
            return False
        gain = np.log(before[1] / excess) / (product - before[0])
        return not gain > 0 or np.log(excess) / gain > self.max_products - product

    def _postpone(self, excess: float) -> None:
        """The worst residual is `excess` times too large, and a step rarely gains more than a factor of 100."""
        self.skip = int(np.log10(max(excess, 1.0)) / 2.0)

    def _estimates(self, coordinates: np.ndarray, width: int, residual: np.ndarray) -> np.ndarray:
        """Residual norms: what the latest block's image has outside the basis, seen through each Ritz vector."""
        last = coordinates[self.size - width : self.size]
        gram = self.panels.cross(residual, residual)
        return np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", last, gram, last, optimize=True), 0.0))

    def _extend(self, panel: np.ndarray) -> np.ndarray:
        """Append the panel and its image; returns the image's part outside the basis, float64."""
        old, new = self.size, self.size + panel.shape[1]
        self.basis[:, old:new] = panel
        image = self.operator.apply(panel)
        self.images[:, old:new] = image
        coupling = self.panels.cross(self.basis[:, :new], image)
        self.ritz_matrix[:new, old:new] = coupling
        self.ritz_matrix[old:new, :new] = coupling.T
        self.ritz_matrix[old:new, old:new] = 0.5 * (coupling[old:] + coupling[old:].T)
        self.size = new
        self.panels.subtract_product(image, self.basis[:, :new], coupling)
        return image

    def _rayleigh_ritz(self) -> tuple[np.ndarray, np.ndarray]:
        with serial_blas():
            values, coordinates = scipy.linalg.eigh(self.ritz_matrix[: self.size, : self.size], driver="evd")
        return np.maximum(values[::-1], 0.0), coordinates[:, ::-1]

    def _is_complete(self) -> bool:
        """The basis is the whole space, or holds all of the trace that rounding can see: no eigenvalue is missing.

        It does not say that vectors have converged: a trace is short by the square of what a vector is off.
        """
        if self.size >= self.operator.dim:
            return True
        quotients = self.ritz_matrix.diagonal()[: self.size]
        return abs(self.operator.trace - float(quotients.sum())) <= 0.25 * self.eps * float(quotients.max())

    def _next_panel(self, residual: np.ndarray, lacking: int) -> np.ndarray:
        """The residual's directions outside the basis; random ones beside them where these leave more lacking.

        Where all eigenvalues are nearly equal a block is nearly invariant and leaves few directions or none.
        """
        floor = 0.5 * self.eps * float(self.ritz_matrix.diagonal()[: self.size].max())
        if self.joining:
            residual, self.joining = self._beside_random(residual), 0
            floor = min(floor, 1.0)
        panel = self._orthonormalize(residual, floor)
        room = self.operator.dim - self.size
        panel = panel[:, :room]
        if panel.shape[1] == 0:  # an invariant subspace: whatever else there is lies outside, so look at random
            return self._outside(panel, min(self.block, room))[:, :room]
        short = min(self.block, lacking, room) - panel.shape[1]
        if short <= 0:
            return panel
        more = self._outside(panel, short)[:, :short]
        both = self.panels.empty((panel.shape[0], panel.shape[1] + more.shape[1]), panel.dtype)
        both[:, : panel.shape[1]], both[:, panel.shape[1] :] = panel, more
        return both

    def _outside(self, panel: Any, width: int) -> Any:
        """Orthonormal columns that are random outside the basis and the panel.

        They are projected before they are made orthonormal: where little is left outside, that shortens them much.
        """
        random = self._random(width)
        for _ in range(2):
            for known in (self.basis[:, : self.size], panel):
                if known.shape[1]:
                    self.panels.subtract_product(random, known, self.panels.cross(known, random))
        return self._orthonormalize(random, floor=0.0)

    def _beside_random(self, residual: np.ndarray) -> np.ndarray:
        width = residual.shape[1]
        random, basis = self._random(self.joining), self.basis[:, : self.size]
        self.panels.subtract_product(random, basis, self.panels.cross(basis, random))
        both = self.panels.empty((residual.shape[0], width + self.joining), np.float64)
        both[:, :width], both[:, width:] = residual, random
        return both

    def _orthonormalize(self, panel: np.ndarray, floor: float) -> np.ndarray:
        """Orthonormal columns spanning `panel` less the basis; columns below `floor` are rounding and are dropped.

        Whitening by the float64 Gram resolves directions down to 1e-7 of the longest, so it is repeated: what a round
        cannot resolve it clips, never drops, because a dropped direction is a residual that nobody would see again.
        The last rounds find lengths near one; there, what the projection shortened lay in the basis and goes.
        """
        double = self.operator.dtype.itemsize == 8
        gram = self.panels.cross(panel, panel)
        norms = np.sqrt(gram.diagonal())
        kept = norms > floor
        if not kept.any():
            return self.panels.empty((panel.shape[0], 0), self.operator.dtype)
        inverse = 1.0 / norms[kept]
        scaled = gram[np.ix_(kept, kept)] * np.multiply.outer(inverse, inverse)
        whiten = inverse[:, None] * _inverse_root(scaled, 1e-13)
        tall = self.panels.multiply(self.panels.columns(panel, kept), whiten).astype(self.operator.dtype, copy=False)
        if double:
            tall = self.panels.multiply(tall, _inverse_root(self._projected_gram(tall), 1e-13))
        tall = self.panels.multiply(tall, _inverse_root(self._projected_gram(tall), None))
        if double:  # an eigensolver's own rounding is visible here; one Newton step is not
            gram = self._projected_gram(tall)
            tall = self.panels.multiply(tall, 1.5 * np.eye(gram.shape[0]) - 0.5 * gram)
        return tall

    def _projected_gram(self, tall: np.ndarray) -> np.ndarray:
        """Project `tall` off the basis in place; its Gram."""
        if self.size:
            basis = self.basis[:, : self.size]
            self.panels.subtract_product(tall, basis, self.panels.cross(basis, tall))
        return self.panels.cross(tall, tall)

    def _restart(self, values: np.ndarray, coordinates: np.ndarray, count: int, incoming: int) -> None:
        """Keep the best Ritz vectors: the wanted ones and as many more as leaves room for two blocks."""
        keep = min(max(count + self.block, self.max_basis // 2), self.max_basis - incoming)
        for stored in (self.basis, self.images):
            stored[:, :keep] = self.panels.multiply(stored[:, : self.size], coordinates[:, :keep], np.float64)
        self.ritz_matrix[:] = 0.0
        self.ritz_matrix[:keep, :keep] = np.diag(values[:keep])
        self.size = keep

    def _finish(
        self, values: np.ndarray, coordinates: np.ndarray, count: int, estimates: np.ndarray, fine: bool, complete: bool
    ) -> RitzPairs:
        basis, images = self.basis[:, : self.size], self.images[:, : self.size]
        wanted = coordinates[:, :count]
        vectors, products = (
            self.panels.multiply(basis, wanted, np.float64),
            self.panels.multiply(images, wanted, np.float64),
        )
        if self.operator.dtype.itemsize == 8 and count < self.size:
            # Q'Q = I to some tens of eps only, which shows in the residuals: one Newton step against the other pairs
            residual = self.panels.residual(products, vectors, values[:count])
            leak = coordinates[:, count:].T @ self.panels.cross(basis, residual)
            gaps = values[None, :count] - values[count:, None]
            # between equals there is nothing to turn, and a quotient of two rounding errors is no angle
            turn = np.divide(leak, gaps, out=np.zeros_like(leak), where=gaps > 100.0 * np.abs(leak))
            change = coordinates[:, count:] @ turn
            vectors += self.panels.multiply(basis, change)
            products += self.panels.multiply(images, change)
        fetch = self.panels.fetch
        return RitzPairs(values[:count], fetch(vectors), fetch(products), estimates, fine, complete)


def _inverse_root(gram: np.ndarray, clip: float | None) -> np.ndarray:
    """V s^(-1/2) of a Gram V s V' with entries near one: s clipped from below, or directions under 0.1 dropped."""
    with serial_blas():
        spread, axes = scipy.linalg.eigh(gram)
    if clip is None:
        good = spread > 0.1
        return axes[:, good] / np.sqrt(spread[good])
    return axes / np.sqrt(np.maximum(spread, clip))
