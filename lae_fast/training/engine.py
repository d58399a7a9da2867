"""What moves the weights of an autoencoder: the base of all engines, and what the compiled loops of all backends share.

An engine holds the weights and advances them; when to record, stop or give up is train.py's business.  The others are
those of NumPy: alternating.py and chain.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from .. import losses, optimizers, rules
from ..backends import formulas
from ..backends.training_interface import Data, Loop, Outcome, Spec
from .batches import BatchReader, random_state
from .problem import MomentProblem, Problem

RULE_CODES = {
    "gradient": formulas.GRADIENT,
    "rag": formulas.RAG,
    "oja": formulas.OJA,
    "gha": formulas.GHA,
    "alpha_eigengame": formulas.ALPHA,
    "mu_eigengame": formulas.MU,
}
_COUPLING_CODES = {"untied": formulas.UNTIED, "synchronised": formulas.SYNCHRONISED, "tied": formulas.TIED}


@dataclass(frozen=True)
class Recipe:
    """What to run: resolved objects of losses, rules and optimizers, and when to stop.

    tolerance : relative, of every component on its own scale (docs/math.md Eq. 46); negative never stops
    rounding : what rounding leaves of products with Sxy and with Sxx, absolute
    negligible : the size of a component that counts as nothing
    patience : iterations in a row that must be within the tolerance
    """

    rule: rules.Rule
    loss: losses.Loss | None
    optimizer: optimizers.Optimizer | None
    coupling: str
    scale: str
    tolerance: float
    rounding: tuple[float, float] = (0.0, 0.0)
    negligible: float = 0.0
    patience: int = 1

    def stepping_optimizer(self) -> optimizers.Optimizer:
        """The optimizer, of a rule that moves by steps."""
        if self.optimizer is None:
            raise TypeError(f"rule {self.rule.name!r} takes no steps, so it has no optimizer")
        return self.optimizer

    def minimised_loss(self) -> losses.Loss:
        """The loss, of a rule that minimises one."""
        if self.loss is None:
            raise TypeError(f"rule {self.rule.name!r} has no loss")
        return self.loss


class Position(NamedTuple):
    """Where an engine stands: all that its further iterations depend on, but for data and recipe.

    trained : `Engine.snapshot`;  calm : iterations in a row that were within the tolerance
    batches, masks : where the mini-batches and the masks are in their random numbers, None where there are none
    """

    trained: list[Any]
    calm: int
    batches: Any
    masks: Any


class Engine(ABC):
    """Weights, and the iterations that move them; a context manager around the time in which they do.

    problem, recipe : what is trained on, and how;  reader : mini-batches, or None for full batch
    """

    problem: Problem
    recipe: Recipe
    reader: BatchReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    @property
    @abstractmethod
    def encoder(self) -> np.ndarray:
        """B (p, d) on the host."""

    @property
    @abstractmethod
    def decoder(self) -> np.ndarray:
        """A' (p, q) on the host; the encoder for rules with one matrix."""

    @property
    def extra(self) -> np.ndarray:
        """(3, p + 1): e and log s^2 of the VAE and their optimizer states; empty where none is trained."""
        return np.zeros((3, 0))

    @property
    @abstractmethod
    def most(self) -> int | None:
        """Iterations that one call of `advance` may take; None for any number."""

    @abstractmethod
    def snapshot(self) -> list[Any]:
        """Copies of all that training changes."""

    def saved(self) -> list[np.ndarray]:
        """`snapshot` on the host."""
        return self.snapshot()

    @abstractmethod
    def restore(self, saved: list[Any]) -> None:
        """Take back a snapshot, of the host or not."""

    @property
    @abstractmethod
    def calm(self) -> int:
        """Iterations in a row that were within the tolerance."""

    @calm.setter
    @abstractmethod
    def calm(self, count: int) -> None: ...

    # Draws the masks of stochastic nested dropout, where there are such.
    masks: np.random.Generator | None = None

    def position(self) -> Position:
        """Where the engine stands."""
        batches = None if self.reader is None else self.reader.position()
        return Position(self.snapshot(), self.calm, batches, None if self.masks is None else random_state(self.masks))

    def go_to(self, position: Position) -> None:
        """Stand there again: what follows is the same, to the bit."""
        self.restore(position.trained)
        self.calm = position.calm
        if self.reader is not None:
            self.reader.go_to(position.batches)
        if self.masks is not None:
            self.masks.bit_generator.state = position.masks

    @abstractmethod
    def watch(self, on: bool) -> None:
        """Whether to stop within the tolerance, from now on."""

    def read_from(self, reader: BatchReader | None) -> None:
        """Take mini-batches from this reader, from now on."""
        self.reader = reader

    @abstractmethod
    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """Run `count` iterations, the first one number `first_iteration`; with_loss asks for the loss on entry."""


def coupled(coupling: str, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B (p, d), A' (p, q)) as a coupling starts from them.

    B = A': the decoder's if tied, the mean of both if synchronised.
    """
    if coupling == "untied":
        return encoder, decoder
    both = decoder if coupling == "tied" else (encoder + decoder) * 0.5
    return both.copy(), both.copy()


class LoopEngine(Engine):
    """Every iterative rule, by the compiled loop of a backend.  What differs between backends is in the subclasses.

    Parameters
    ----------
    problem, recipe
    encoder : (p, d);  decoder : (p, q), A', or None for rules without one
    reader : mini-batches, or None for full batch
    rng : draws the masks of stochastic nested dropout

    Attributes
    ----------
    loop : the loop of the backend, with all that training changes in `loop.state`
    """

    loop: Loop

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        encoder: np.ndarray,
        decoder: np.ndarray | None,
        reader: BatchReader | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.problem, self.recipe, self.masks = problem, recipe, rng
        if recipe.rule.normalises_rows:
            encoder = rules.normalise_rows(encoder)
        if decoder is None:  # one matrix is tied to itself
            decoder = np.zeros((0, problem.q), problem.dtype)
        else:
            encoder, decoder = coupled(recipe.coupling, encoder, decoder)
        self._set_up(encoder, decoder, reader)

    def _set_up(self, encoder: np.ndarray, decoder: np.ndarray, reader: BatchReader | None) -> None:
        """Everything that follows from problem, recipe and weights."""
        dtype = self.problem.dtype
        spec = make_spec(self.problem, self.recipe, reader is not None, len(decoder) > 0)
        data = make_data(self.problem, self.recipe.loss, len(encoder))
        encoder, decoder = np.ascontiguousarray(encoder, dtype), np.ascontiguousarray(decoder, dtype)
        self.loop = self._new_loop(spec, data, encoder, decoder)
        self.read_from(reader)

    @abstractmethod
    def _new_loop(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> Loop:
        """The loop of the backend."""

    @abstractmethod
    def _take(self, reader: BatchReader, rows: np.ndarray) -> None:
        """Bind the batches (n, b) of these rows to the loop, for its next call."""

    def __getstate__(self) -> dict[str, Any]:
        """What training has changed, and what it was asked for; threads, workspace and the last batch stay behind."""
        (p, d), q = self.encoder.shape, self.decoder.shape[1]
        shapes = (p, d), (p if self.loop.spec.has_decoder else 0, q)
        kept = {"problem": self.problem, "recipe": self.recipe, "rng": self.masks}
        return kept | {"shapes": shapes, "trained": self.loop.saved()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.problem, self.recipe, self.masks = kept["problem"], kept["recipe"], kept["rng"]
        encoder, decoder = (np.zeros(shape) for shape in kept["shapes"])
        self._set_up(encoder, decoder, None)
        self.restore(kept["trained"])

    @property
    def encoder(self) -> np.ndarray:
        """See `Engine.encoder`."""
        return self.loop.encoder

    @property
    def decoder(self) -> np.ndarray:
        """See `Engine.decoder`."""
        return self.loop.decoder

    @property
    def extra(self) -> np.ndarray:
        """See `Engine.extra`."""
        return self.loop.extra

    def snapshot(self) -> list[Any]:
        """Copies of all that training changes, where the backend computes."""
        return [part.copy() for part in self.loop.trained()]

    def saved(self) -> list[np.ndarray]:
        """See `Engine.saved`."""
        return self.loop.saved()

    def restore(self, saved: list[Any]) -> None:
        """Take back a snapshot."""
        self.loop.restore(saved)

    @property
    def calm(self) -> int:
        """See `Engine.calm`."""
        return self.loop.calm

    @calm.setter
    def calm(self, count: int) -> None:
        self.loop.calm = count

    def watch(self, on: bool) -> None:
        """See `Engine.watch`."""
        self.loop.watch(on)

    @property
    def most(self) -> int | None:
        """See `Engine.most`."""
        if self.reader is not None:
            return min(self.reader.most, self.loop.most or self.reader.most)
        return self.loop.most if isinstance(self.problem, MomentProblem) else 1

    def __enter__(self) -> Self:
        self.loop.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.__exit__(*error)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `Engine.advance`."""
        if self.reader is not None:
            self._take(self.reader, self.reader.next_rows(count))
        elif self.loop.spec.product == formulas.GIVEN:
            self.loop.take_products(*self._products())
        iterations = np.arange(first_iteration, first_iteration + count)
        rates = np.atleast_1d(self.recipe.stepping_optimizer().rate(iterations))
        return self.loop.run(first_iteration, rates, with_loss)

    def _products(self) -> tuple[Any, Any, Any]:
        """B Sxx, A'Syx and B Sxy of the next iteration, where the loop is given them."""
        return self.problem.products(*self.loop.weights())

    def _kept_units(self, rows: np.ndarray) -> np.ndarray | None:
        """(n, b) int64: how many units each sample of the batches keeps, or None for a loss that keeps them all."""
        loss = self.recipe.loss
        if not isinstance(loss, losses.stochastic_nested_dropout):
            return None
        if self.masks is None:
            raise TypeError("stochastic nested dropout draws how many units each sample keeps: it needs rng")
        p = len(self.loop.state.encoder)
        return loss.sample(rows.size, p, self.masks).reshape(rows.shape)


def make_spec(problem: Problem, recipe: Recipe, has_batches: bool, has_decoder: bool) -> Spec:
    """What a loop is to do, in its own terms."""
    loss, optimizer = recipe.loss, recipe.stepping_optimizer()
    code, product_penalty = RULE_CODES[recipe.rule.name], 0.0
    if loss is not None and loss.name == "vae":
        code = formulas.VAE
    elif loss is not None and loss.needs_samples:
        code = formulas.DROPOUT
    elif loss is not None:
        product_penalty = float(loss.product_penalty)
    product = formulas.MOMENTS if isinstance(problem, MomentProblem) else formulas.GIVEN
    if has_batches or not problem.has_data:
        product = formulas.ROWS  # a problem without its data goes on with batches that are given to it
    return Spec(
        rule=code,
        optimizer=optimizer.code,
        coupling=_COUPLING_CODES[recipe.coupling if has_decoder else "untied"],
        sequential=bool(getattr(recipe.rule, "sequential", False)),
        same=problem.same,
        has_decoder=has_decoder,
        product=product,
        product_penalty=product_penalty,
        tolerance=float(recipe.tolerance),
        rounding=(float(recipe.rounding[0]), float(recipe.rounding[1])),
        negligible=float(recipe.negligible),
        patience=int(recipe.patience),
        scalars=np.array(optimizer.scalars, dtype=np.float64),
    )


def make_data(problem: Problem, loss: losses.Loss | None, p: int) -> Data:
    """What a loop reads: moments where there are such, and the numbers of the loss; ones and zeros without a mask."""
    dtype = problem.dtype
    sxx = sxy = np.zeros((0, 0), dtype)
    if isinstance(problem, MomentProblem):
        sxx, sxy = problem.sxx, problem.sxy
    if loss is not None and loss.in_family:
        prefix, penalty = loss.prefix(p, dtype), loss.row_penalty(p, dtype)
    else:
        prefix, penalty = np.ones(p, dtype), np.zeros(p, dtype)
    return Data(sxx, sxy, float(problem.yy_trace), prefix, penalty)
