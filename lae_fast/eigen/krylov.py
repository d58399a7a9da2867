"""Block Krylov iteration with Rayleigh-Ritz and full reorthogonalisation, for any operator.

Equations: docs/pca.md, "Block Krylov" (Musco and Musco 2015; thick restart after Wu and Simon 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..operators.dense import Operator
from ..progress import Passes
from .krylov_basis import KrylovBasis

# How many components are wanted, given the Ritz values (descending) and the trace; None: not known yet.
Wanted = Callable[[np.ndarray, float], "int | None"]
# Largest acceptable residual norm per component, given the wanted Ritz values.
Tolerance = Callable[[np.ndarray], np.ndarray]
# Converged Ritz values may be a tie where they differ by at most so many of the residuals that were asked for: a wider
# cluster with hidden members would show in their residuals.
_TIE = 16.0


class Limits(NamedTuple):
    """What an iteration may take.

    block : columns of a product;  widest : columns it may grow to where eigenvalues come in many copies
    max_basis : columns at which the basis is restarted from its best Ritz vectors
    max_products : of S with a block
    give_up_after : products after which to judge if `max_products` will do; None: never
    """

    block: int
    max_basis: int
    max_products: int
    widest: int = 0
    give_up_after: int | None = None


@dataclass
class LoopState:
    """Where the iteration is: what changes from product to product, beside the basis.

    products : done so far;  max_products : at which it ends
    block : columns of a panel;  joining : random columns that the next panel takes up
    skip : products before the Rayleigh-Ritz problem is solved again;  not_before : products before no result is taken
    seen : products and the worst residual, in units of what is asked, when it was last looked at; None: never
    """

    block: int
    max_products: int
    products: int = 0
    joining: int = 0
    skip: int = 0
    not_before: int = 0
    seen: tuple[int, float] | None = None


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


class Keeper(Protocol):
    """Keeps an iteration between two products, for a run that is killed: krylov_checkpoint.py."""

    def begin(self, loop: LoopState, basis: KrylovBasis) -> Any:
        """Put loop and basis where a killed run was; its next panel, or None where there was no such run."""

    def changing(self) -> AbstractContextManager[None]:
        """What was offered changes inside."""

    def offer(self, loop: LoopState, basis: KrylovBasis, panel: Any) -> None:
        """Keep loop and basis as they are, `panel` to be multiplied next."""


class _Ritz(NamedTuple):
    """All Ritz values of a basis (k,), descending, their coordinates (k, k), and how many are wanted, or None."""

    values: np.ndarray
    coordinates: np.ndarray
    n_wanted: int | None


def block_krylov(
    operator: Operator,
    wanted: Wanted,
    tolerance: Tolerance,
    limits: Limits,
    *,
    seed: int | np.random.Generator = 0,
    checkpoint: Keeper | None = None,
    start: np.ndarray | None = None,
    stage: Passes | None = None,
) -> RitzPairs | None:
    """Leading eigenpairs of `operator`.

    A product of S with a block of columns per step.  Stops when every wanted residual is within `tolerance`, when the
    basis spans the space, or after the last product.  None where more components are wanted than the basis can hold, or
    where the products that are left will not suffice at the rate seen so far.

    A block of b columns finds at most b copies of an eigenvalue.  Where that many are found, and more components are
    wanted below them, random columns join the block until it is wider than their number, or `limits.widest`, and the
    iteration goes on for as many products as it has taken.

    checkpoint : keeps the iteration after every step and goes on with one that was kept, or None
    start : (n, at most `limits.block`) directions of the first block; what it lacks in columns is random
    stage : is told the number of the product and the residual so far, or None

    Costs per step: one product, about 6 n k b flops for the k columns so far, and a k x k eigenproblem.
    """
    iteration = _Iteration(operator, wanted, tolerance, limits, seed, Passes("") if stage is None else stage)
    return iteration.run(start, checkpoint)


class _Iteration:
    """One run of block Krylov: what it was given, and the two things that change, `basis` and `loop`."""

    def __init__(
        self,
        operator: Operator,
        wanted: Wanted,
        tolerance: Tolerance,
        limits: Limits,
        seed: int | np.random.Generator,
        stage: Passes,
    ) -> None:
        n = operator.dim
        block = min(limits.block, n)
        self.operator, self.wanted, self.tolerance, self.stage = operator, wanted, tolerance, stage
        self.widest = min(max(limits.widest, limits.block), n)
        self.give_up_after = limits.give_up_after
        self.basis = KrylovBasis(operator, min(n, max(limits.max_basis, 2 * block)), np.random.default_rng(seed))
        self.whole_fits = self.basis.capacity == n
        self.loop = LoopState(block, limits.max_products)

    def run(self, start: np.ndarray | None, checkpoint: Keeper | None) -> RitzPairs | None:
        """Multiply a panel, look at the Ritz pairs, and take what the image has outside the basis for the next panel.

        Where there is no room for that one, the basis is restarted from its best Ritz vectors.
        """
        loop, basis = self.loop, self.basis
        panel = None if checkpoint is None else checkpoint.begin(loop, basis)
        if panel is None:
            panel = basis.orthonormalize(self._first(start), floor=0.0)
        while loop.products < loop.max_products:
            loop.products += 1
            self.stage.number = loop.products
            residual = basis.append(panel, self.operator.apply(panel))
            ritz = None
            complete = basis.is_complete(self.operator.trace)
            due = self._is_due() or loop.products == loop.max_products or not basis.has_room(panel)
            if due or complete:
                ritz = self._ritz(basis.size if complete else None)
                ended, pairs = self._judged(ritz, panel.shape[1], residual, complete)
                if ended:
                    return pairs
            panel = basis.next_panel(residual, loop.block, self._lacking(ritz), loop.joining)
            loop.joining = 0
            best, keep = None, 0
            if not basis.has_room(panel):
                best = self._ritz() if ritz is None else ritz
                if best.n_wanted is None:
                    return None
                # the wanted Ritz vectors, and as many more as leave room for two blocks
                keep = min(max(best.n_wanted + loop.block, basis.capacity // 2), basis.capacity - panel.shape[1])
            with nullcontext() if checkpoint is None else checkpoint.changing():
                if best is not None:
                    basis.restart(best.values, best.coordinates, keep)
                if checkpoint is not None:
                    checkpoint.offer(loop, basis, panel)
        return None

    def _first(self, start: np.ndarray | None) -> Any:
        block = self.basis.random_panel(self.loop.block)
        if start is not None:
            block[:, : start.shape[1]] = self.basis.panels.place(start)
        return block

    def _is_due(self) -> bool:
        """Whether to solve the Rayleigh-Ritz problem now: it is cubic in the basis, and far off it cannot help."""
        self.loop.skip -= 1
        return self.loop.skip < 0

    def _ritz(self, otherwise: int | None = None) -> _Ritz:
        """All Ritz pairs; `otherwise` are wanted where their number cannot be told from them."""
        values, coordinates = self.basis.rayleigh_ritz()
        count = self.wanted(values, self.operator.trace)
        return _Ritz(values, coordinates, otherwise if count is None else count)

    def _lacking(self, ritz: _Ritz | None) -> int:
        """Columns that the basis has too few for what is wanted, as far as that is known."""
        if ritz is None:
            return 0
        return self.loop.block if ritz.n_wanted is None else max(0, ritz.n_wanted - self.basis.size)

    def _judged(self, ritz: _Ritz, width: int, residual: Any, complete: bool) -> tuple[bool, RitzPairs | None]:
        """Whether the iteration ends here, and with which pairs: None where it is given up.

        width : columns of the last panel;  residual : what its image has outside the basis
        """
        loop, basis, count = self.loop, self.basis, ritz.n_wanted
        if count is not None and count > basis.capacity - loop.block and not self.whole_fits:
            return True, None
        if count is None or count > basis.size:
            return self.give_up_after is not None and loop.products >= 2 * self.give_up_after, None
        values = ritz.values[:count]
        estimates = basis.residual_norms(ritz.coordinates[:, :count], width, residual)
        asked, tiny = self.tolerance(values), float(np.finfo(np.float64).tiny)
        self.stage.residual = float(np.max(estimates / np.maximum(values, max(basis.eps * float(values[0]), tiny))))
        small = bool((estimates <= asked).all())
        last, whole = loop.products == loop.max_products, basis.size >= basis.dim
        if small and not complete and not last and self._may_hide_a_copy(values, asked):
            self._widen(count)
        fine = small and (complete or loop.products >= loop.not_before)
        if fine or whole or last:
            vectors, images = basis.ritz_vectors(ritz.values, ritz.coordinates, count)
            return True, RitzPairs(values, vectors, images, estimates, fine or whole, complete)
        excess = float(np.max(estimates / np.maximum(asked, tiny)))
        if loop.products >= loop.not_before and self._is_hopeless(excess):
            return True, None
        # the worst residual is `excess` times too large, and a step rarely gains more than a factor of 100
        loop.skip = int(np.log10(max(excess, 1.0)) / 2.0)
        return False, None

    def _may_hide_a_copy(self, values: np.ndarray, asked: np.ndarray) -> bool:
        """Whether as many values tie as the block has columns, more being wanted: others may be equal to them."""
        count, b = values.size, self.loop.block
        if count <= b or b >= self.widest or not (count + self.widest <= self.basis.capacity or self.whole_fits):
            return False
        first, last, bound = values[: count - b], values[b - 1 : -1], asked[: count - b]
        return bool(((first - last <= _TIE * bound) & (first > bound)).any())

    def _widen(self, count: int) -> None:
        """Random columns join the next panel, and get as many products as the first have had.

        The products that are left are fewer, as they cost more.
        """
        loop = self.loop
        before, loop.block = loop.block, min(count + 1, self.widest)
        loop.joining = loop.block - before
        left = (loop.max_products - loop.products) * before // loop.block
        loop.max_products = min(loop.max_products, loop.products + max(loop.products, left))
        loop.not_before, loop.seen = min(2 * loop.products, loop.max_products), None

    def _is_hopeless(self, excess: float) -> bool:
        """Whether the products that are left are too few at the rate of the last ones."""
        loop = self.loop
        before, loop.seen = loop.seen, (loop.products, excess)
        if self.give_up_after is None or loop.products < self.give_up_after or before is None:
            return False
        gain = np.log(before[1] / excess) / (loop.products - before[0])
        return bool(not gain > 0 or np.log(excess) / gain > loop.max_products - loop.products)
