"""Mini-batches of rows: which rows, in what order, and from which memory."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..data import sources
from .problem import RowProblem

# Rows that are copied at once where a source cannot be read in place, in bytes.
_STAGE_BYTES = 1 << 25


def random_state(rng: np.random.Generator) -> Any:
    """Where a generator is, as a value that does not change with it."""
    return copy.deepcopy(rng.bit_generator.state)


class BatchReader:
    """Mini-batches of a RowProblem.

    Arrays of the compute dtype are read in place, row by row in a random order.  Of other arrays a few batches at a
    time are copied and converted, so that the loop compiles once for each compute dtype.  Where a source has no access
    by row (sparse matrices, files) a batch is a window of consecutive rows; after the last row comes the first.

    Sums over a batch times its factor are, on average over the batches, those over all rows with their weights.  Rows
    are drawn in proportion to their weights, and count equally in their batch: a row of weight 2 is drawn as often as
    one that is there twice, and no row makes a large step.  Windows are drawn in proportion to the weight they hold,
    and their rows keep their weights.  A batch of all rows is no sample: it has them all, with their weights.
    """

    def __init__(self, problem: RowProblem, batch_size: int, rng: np.random.Generator) -> None:
        self.problem, self.rng = problem, rng
        self.size = min(batch_size, problem.n_samples)
        self.sources = both = [problem.source] if problem.same else [problem.source, problem.targets]
        self.by_row = all(isinstance(s, sources.ArraySource) for s in both)
        self.in_place = self.by_row and all(s.dtype == problem.dtype and not s.copies_chunks(False) for s in both)
        self._chunks = [s.chunk(0, problem.n_samples) for s in both] if self.in_place else []
        self._queue = np.zeros((0, self.size), np.int64)
        self._sums: np.ndarray | None = None

    def position(self) -> tuple[int, np.ndarray, Any]:
        """The number of rows, those of batches that are drawn already, and where the random numbers are."""
        return self.problem.n_samples, self._queue, random_state(self.rng)

    def go_to(self, position: tuple[int, np.ndarray, Any]) -> None:
        """Draw again what was drawn from there; of other rows or for batches of another size, begin an epoch."""
        n_samples, queue, self.rng.bit_generator.state = position
        same = n_samples == self.problem.n_samples and queue.shape[1:] == self._queue.shape[1:]
        self._queue = queue if same else self._queue[:0]

    def take_all(self) -> None:
        """The loop holds all rows itself: it asks for indices alone, of any rows and many batches at once."""
        self.by_row = self.in_place = True

    @property
    def row_weights(self) -> np.ndarray:
        """(m,) float64: what a row counts for in a batch; empty where all count equally."""
        drawn_by_weight = self.by_row and self.size < self.problem.n_samples
        return np.empty(0) if self.problem.weights is None or drawn_by_weight else self.problem.weights

    def next_rows(self, count: int) -> np.ndarray:
        """(count, batch) int64: the rows of the next batches; every epoch is a new draw, in a random order.

        Without weights an epoch has every row once.  What is left of it when no whole batch remains is left out: it has
        its chance in the next one.
        """
        epochs = -(-max(0, count - len(self._queue)) // (self.problem.n_samples // self.size))
        queue = np.concatenate([self._queue, *(self._epoch() for _ in range(epochs))])
        taken, self._queue = queue[:count], queue[count:]
        return taken

    def _epoch(self) -> np.ndarray:
        m, b = self.problem.n_samples, self.size
        whole, weights = m // b, self.problem.weights
        if b == m:
            return np.arange(m)[None]
        if self.by_row:
            rows = self.rng.permutation(m) if weights is None else self.rng.permutation(self._drawn(m))
            return rows[: whole * b].reshape(whole, b)
        return (self.rng.permutation(self._drawn(whole))[:, None] + np.arange(b)) % m

    def _drawn(self, count: int) -> np.ndarray:
        """(count,) rows, or first rows of windows, in rising order, each drawn in proportion to its weight.

        Systematic sampling: `count` points at equal distances along the sums of the weights, the first at random.  A
        row of weight w is drawn count w / W times, rounded up or down, and that many times on average.  Windows of
        equal weight do not overlap.
        """
        if self._sums is None:
            weights = np.ones(self.problem.n_samples) if self.problem.weights is None else self.problem.weights
            if not self.by_row:
                around = np.concatenate([[0.0], np.cumsum(np.concatenate([weights, weights[: self.size - 1]]))])
                weights = np.maximum(around[self.size :] - around[: -self.size], 0.0)
            self._sums = np.cumsum(weights)
        points = (self.rng.random() + np.arange(count)) * (self._sums[-1] / count)
        last = np.searchsorted(self._sums, self._sums[-1])  # the last row that has a weight
        return np.minimum(np.searchsorted(self._sums, points, side="right"), last)

    @property
    def most(self) -> int:
        """Batches that may be asked for at once."""
        if self.in_place:
            return max(1, (1 << 20) // self.size)
        width = self.problem.d + (0 if self.problem.same else self.problem.q)
        return max(1, _STAGE_BYTES // (self.size * width * self.problem.dtype.itemsize))

    def arrays(self, rows: np.ndarray) -> tuple[list[Any], np.ndarray, np.ndarray]:
        """([(flat, strides)] of X and Y, index into them, weights of the rows they hold) for the batches `rows`."""
        weights = self.row_weights
        if self.in_place:
            return [(c.flat, (c.line_stride, c.entry_stride)) for c in self._chunks], rows, weights
        staged = []
        for source in self.sources:
            stage = np.empty((rows.size, source.shape[1]), self.problem.dtype)
            for k, batch in enumerate(rows):
                place = stage[k * self.size : (k + 1) * self.size]
                if self.by_row:
                    place[:] = source.array[batch]
                else:
                    ahead = min(self.size, source.shape[0] - int(batch[0]))
                    place[:ahead] = source.block(int(batch[0]), int(batch[0]) + ahead, False)
                    if ahead < self.size:
                        place[ahead:] = source.block(0, self.size - ahead, False)
            if not np.isfinite(stage).all():
                sources.raise_nonfinite(source)
            flat = stage.reshape(-1)
            flat.flags.writeable = False
            staged.append((flat, (source.shape[1], 1)))
        index = np.arange(rows.size, dtype=np.int64).reshape(rows.shape)
        return staged, index, weights[rows.ravel()] if weights.size else weights

    def factors(self, rows: np.ndarray, scale: str) -> np.ndarray:
        """(batches,) float64: kappa of each batch; at scale "sum" a batch stands for all samples."""
        weights = self.row_weights
        mass = weights[rows].sum(axis=1) if weights.size else np.full(len(rows), float(self.size))
        total = 1.0 if scale == "mean" else self.problem.weight_sum
        return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), 0.0)
