"""The engine of every iterative rule on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import losses, plan
from ..backends.cpu.training.loop import Loop
from ..backends.cpu.training.nested_dropout import MaskedProducts, WholeRows
from ..backends.cpu.training.state import Rows
from ..backends.training_interface import Data, Spec
from ..data import sources
from ..operators.moments import Moments
from .batches import BatchReader
from .engine import LoopEngine


class CpuLoopEngine(LoopEngine):
    """See `LoopEngine`; `encoder`, `decoder` and `extra` are the arrays that are trained."""

    loop: Loop
    _masked: MaskedProducts | None = None  # of a full batch of stochastic nested dropout

    def _new_loop(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> Loop:
        return Loop(spec, data, encoder, decoder)

    def read_from(self, reader: BatchReader | None) -> None:
        """See `Engine.read_from`; allocates the workspace of its batches."""
        self.reader = reader
        self.loop.resize(0 if reader is None else reader.size)

    def _take(self, reader: BatchReader, rows: np.ndarray) -> None:
        self.loop.bind(self.prepared(reader, rows))

    def prepared(self, reader: BatchReader, rows: np.ndarray) -> Rows:
        """What the loop reads in these batches (n, b)."""
        dtype = self.problem.dtype
        nothing = np.zeros(0, dtype)
        nothing.flags.writeable = False
        memory, places, weights = reader.arrays(rows)
        (x, x_strides), (y, y_strides) = memory[0], memory[-1] if len(memory) > 1 else (nothing, (0, 1))
        kept = self._kept_units(rows)
        return Rows(
            x, x_strides, self.problem.mean.astype(dtype), y, y_strides, self.problem.mean_y.astype(dtype), 1.0,
            weights, places, np.zeros((0, 0), np.int64) if kept is None else kept,
            reader.factors(rows, self.recipe.scale),
        )  # fmt: skip

    def _products(self) -> tuple[Any, Any, Any]:
        """See `LoopEngine._products`; of stochastic nested dropout those that new masks give."""
        loss = self.recipe.loss
        if not isinstance(loss, losses.stochastic_nested_dropout):
            return super()._products()
        encoder, decoder = self.loop.weights()
        if self._masked is None:
            self._masked = masked_products(self.problem, loss, len(encoder))
        kept = np.asarray(self._kept_units(np.empty((1, self.problem.n_samples))))[0]
        zb, za = self._masked.products(self.loop.team, encoder, decoder, kept)
        return zb, za, zb


def takes_whole_rows(problem: Any) -> bool:
    """Whether `masked_products` can read these rows where they lie."""
    return problem.same and isinstance(problem.source, sources.ArraySource) and not problem.source.copies_chunks(False)


def masked_products(problem: Any, loss: losses.stochastic_nested_dropout, p: int) -> MaskedProducts:
    """The products of a full batch, with the second moments of all rows where these are no larger than the rows."""
    chunk, m = problem.source.chunk(0, problem.n_samples), problem.n_samples
    second = None
    if problem.d <= min(m, plan.LARGEST_GRAM):
        moments = Moments(problem.d, center=problem.center).update(problem.source, None, problem.weights, backend="cpu")
        second = (moments.xx * problem.factor).astype(problem.dtype)
    weights = np.zeros(0) if problem.weights is None else problem.weights
    rows = WholeRows(
        chunk.flat, (chunk.line_stride, chunk.entry_stride), problem.mean.astype(problem.dtype), weights, m
    )
    return MaskedProducts(rows, problem.factor, second, loss.prior.tail(p))
