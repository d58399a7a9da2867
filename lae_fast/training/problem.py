"""What a linear autoencoder is trained on: second moments, or rows that are read at each step.

A problem gives the products of docs/math.md Eq. 21 with S, whatever S is; it knows nothing of losses, rules or
optimizers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.threads import serial_blas
from ..data import sources
from ..operators import rows as operators
from ..operators.moments import Moments

# Outside these bounds squares of gradients leave the range of float32.
_SINGLE_RANGE = (1e-10, 1e10)
# Rows that are copied at once where a source cannot be read in place, in bytes.
_STAGE_BYTES = 1 << 25


@dataclass(frozen=True)
class Problem:
    """Base: shapes, scale and spectrum.

    Attributes
    ----------
    n_samples, d, q : int;  same : Y is X
    dtype : of the arithmetic, float32 or float64
    mean, mean_y : (d,), (q,) float64
    yy_trace : tr Syy at the scale, float
    factor : kappa of docs/math.md Eq. 1: 1 / weight_sum at scale "mean", 1 at scale "sum"
    weight_sum : float
    largest, trace : the largest eigenvalue of Sxx and its trace, at the scale
    """

    n_samples: int
    d: int
    q: int
    same: bool
    dtype: np.dtype
    mean: np.ndarray
    mean_y: np.ndarray
    yy_trace: float
    factor: float
    weight_sum: float
    largest: float
    trace: float

    def products(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B Sxx (p, d), A'Syx (p, d), B Sxy (p, q)) for B (p, d) and A' (p, q), in their dtype, where they are."""
        raise TypeError(f"{type(self).__name__} does not make products")

    def multiply(self, block: np.ndarray) -> np.ndarray:
        """Sxx V (d, b) at the scale, float64, for V (d, b) in memory."""
        raise TypeError(f"{type(self).__name__} does not make products")

    @property
    def has_data(self) -> bool:
        """Whether it can make products: not after pickle, which leaves rows behind."""
        return True

    def target_moments(self, directions: np.ndarray) -> np.ndarray:
        """u' Syy u, (p,) float64, scale "sum", for directions (q, p) in columns; Sxx for Y = X."""
        raise TypeError(f"{type(self).__name__} does not measure directions")

    def tail(self, p: int) -> float:
        """Trace of Sxx less its p largest eigenvalues, at the scale: some dozen products, on rows of all of them."""
        values = leading_values(self.multiply, self.d, min(self.d, p + 8), 1e-4)
        return max(0.0, self.trace - float(values[:p].sum()))


@dataclass(frozen=True)
class MomentProblem(Problem):
    """Dense second moments in the compute dtype: an iteration costs the same whatever the number of samples."""

    sxx: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    sxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    moments: Moments | None = None

    def products(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Problem.products`.  BLAS on one thread, so that the bits do not depend on their number."""
        with serial_blas():
            zb = encoder @ self.sxx
            za = decoder @ (self.sxx if self.same else self.sxy.T)
            return zb, za, (zb if self.same else encoder @ self.sxy)

    def multiply(self, block: np.ndarray) -> np.ndarray:
        """See `Problem.multiply`."""
        return (self.moments.xx @ block) * self.factor

    def target_moments(self, directions: np.ndarray) -> np.ndarray:
        """See `Problem.target_moments`."""
        matrix = self.moments.xx if self.same else self.moments.yy
        with serial_blas():
            return np.einsum("ij,ij->j", directions, matrix @ directions)


@dataclass(frozen=True)
class RowProblem(Problem):
    """Rows of X (and Y), read again at each step; nothing of size d x d is formed.

    heaviest : largest weight of a batch so far, where batches come from outside; 0 before the second of them
    """

    source: Any = None
    targets: Any = None
    weights: np.ndarray | None = None
    operator: Any = None
    heaviest: float = 0.0

    @property
    def has_data(self) -> bool:
        return self.source is not None

    def __getstate__(self) -> dict[str, Any]:
        """Without the rows: what `partial_fit` needs to go on with others."""
        return vars(self) | {"source": None, "targets": None, "weights": None, "operator": None}

    def products(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Problem.products`: one pass over the rows."""
        p, panels = encoder.shape[0], self.operator.panels
        block = panels.empty((self.operator.dim, 2 * p), self.operator.dtype)
        block[...] = 0.0
        block[: self.d, :p] = encoder.T
        block[-self.q :, p : p + decoder.shape[0]] = decoder.T
        image = self.operator.apply(block) * (self.factor / self.operator.scale**2)
        image = panels.place(image.T, encoder.dtype)
        zb, za = image[:p, : self.d], image[p:, : self.d]
        return zb, za, (zb if self.same else image[:p, self.d :])

    def multiply(self, block: np.ndarray) -> np.ndarray:
        """See `Problem.multiply`: one pass over the rows."""
        return _times_rows(self.operator, self.d, self.factor, block)

    def target_moments(self, directions: np.ndarray) -> np.ndarray:
        """See `Problem.target_moments`: one pass over the rows.  A batch of `partial_fit` stands for all rows seen."""
        if self.operator is None:
            batch = self.source if self.same else self.targets
            rows = np.asarray(batch.block(0, batch.shape[0], False), dtype=np.float64) - self.mean_y
            weights = np.ones(len(rows)) if self.weights is None else self.weights
            with serial_blas():
                return weights @ (rows @ directions) ** 2 * (self.weight_sum / weights.sum())
        block = np.zeros((self.operator.dim, directions.shape[1]))
        block[-self.q :] = directions
        image = self.operator.apply(block)[-self.q :] / self.operator.scale**2
        return np.einsum("ij,ij->j", directions, image)


def compute_dtype(source: sources.Source, targets: sources.Source | None) -> np.dtype:
    """float32 where the data are, unless targets are float64."""
    return source.compute_dtype if targets is None else np.result_type(source.compute_dtype, targets.compute_dtype)


def from_moments(moments: Moments, scale: str, dtype: Any = None) -> MomentProblem:
    """The problem of these moments.

    dtype : float32 or float64; None takes that of the data the moments came from, or float64 where squares of gradients
        would leave the range of float32.
    """
    factor = 1.0 / moments.weight_sum if scale == "mean" else 1.0
    sxx = moments.xx * factor
    largest = largest_eigenvalue(lambda block: sxx @ block, sxx.shape[0])
    if dtype is None:
        dtype = _safe(moments.dtype, largest, moments.yy_trace * factor)
    same = moments.n_targets == 0
    empty = np.zeros((0, 0), dtype)
    return MomentProblem(
        moments.n_samples,
        moments.n_features,
        moments.n_targets or moments.n_features,
        same,
        np.dtype(dtype),
        moments.mean,
        moments.mean if same else moments.mean_y,
        moments.yy_trace * factor,
        factor,
        moments.weight_sum,
        largest,
        float(np.trace(sxx)),
        sxx=np.ascontiguousarray(sxx, dtype=dtype),
        sxy=empty if same else np.ascontiguousarray(moments.xy * factor, dtype=dtype),
        moments=moments,
    )


def from_rows(
    source: sources.Source, targets: sources.Source | None, weights: Any, scale: str, backend: str = "cpu"
) -> RowProblem:
    """The problem of these rows: reads them some ten times for mean, trace and largest eigenvalue.

    backend : "cpu" or "cuda", resolved: where the passes run, and the weights are
    """
    same = targets is None
    stacked = source if same else sources.StackedSource(source, targets)
    operator = operators.RowsOperator(stacked, weights=weights, block=16, backend=backend)
    operator.apply(np.zeros((operator.dim, 0), operator.dtype))
    weight_sum = operator.weight_sum
    factor = 1.0 / weight_sum if scale == "mean" else 1.0
    d = source.shape[1]

    # Enough for a learning rate; a pass costs as much as an iteration.
    tolerance = 1e-10 if operator.dtype == np.float64 else 1e-4
    largest = largest_eigenvalue(lambda block: _times_rows(operator, d, factor, block), d, tolerance)
    yy_trace = float(operator.variances.sum() if same else operator.variances[d:].sum()) * factor
    return RowProblem(
        source.shape[0],
        d,
        d if same else targets.shape[1],
        same,
        _safe(compute_dtype(source, targets), largest, yy_trace),
        operator.mean[:d],
        operator.mean if same else operator.mean[d:],
        yy_trace,
        factor,
        weight_sum,
        largest,
        float(operator.variances[:d].sum()) * factor,
        source=source,
        targets=targets,
        weights=weights,
        operator=operator,
    )


def _times_rows(operator: Any, d: int, factor: float, block: np.ndarray) -> np.ndarray:
    """Sxx V at the scale for V (d, b), where the operator has the targets' columns behind those of X."""
    padded = np.zeros((operator.dim, block.shape[1]))
    padded[:d] = block
    return operator.apply(padded)[:d] * (factor / operator.scale**2)


def _safe(dtype: Any, *sizes: float) -> np.dtype:
    """`dtype`, or float64 where one of the sizes (of Sxx, of Syy) does not suit float32."""
    low, high = _SINGLE_RANGE
    fits = all(size == 0.0 or low < size < high for size in sizes)
    return np.dtype(dtype) if fits else np.dtype(np.float64)


def largest_eigenvalue(multiply: Any, size: int, tolerance: float = 1e-10) -> float:
    """The largest eigenvalue of a symmetric positive matrix, from below; see `leading_values`."""
    return float(leading_values(multiply, size, min(size, 8), tolerance, 1)[0])


def leading_values(
    multiply: Any, size: int, width: int, tolerance: float, watched: int | None = None, most: int = 40
) -> np.ndarray:
    """The largest eigenvalues of a symmetric positive matrix by block power iteration, (width,) falling, from below.

    multiply : (size, b) -> (size, b).  The start block is fixed; stops when the sum of the `watched` first (all of
    them) changes by less than `tolerance`.  BLAS runs on one thread, so that the bits do not depend on their number.
    """
    block = np.random.default_rng(0).standard_normal((size, width))
    values = np.zeros(width)
    with serial_blas():
        for _ in range(most):
            block = np.linalg.qr(block)[0]
            image = np.asarray(multiply(block), dtype=np.float64)
            if not image.any():
                break
            before, values = values, np.maximum(values, np.linalg.eigvalsh(block.T @ image)[::-1])
            if (values - before)[:watched].sum() <= tolerance * values[:watched].sum():
                break
            block = image / np.abs(image).max()
    return values


class BatchReader:
    """Mini-batches of a RowProblem: which rows, in what order, and from which memory.

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
