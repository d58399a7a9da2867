"""What a linear autoencoder is trained on: second moments, or rows that are read at each step.

A problem gives the products of docs/math.md Eq. 21 with S, whatever S is; it knows nothing of losses, rules or
optimizers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.threads import serial_blas
from ..data import sources
from ..operators import rows
from ..operators.moments import Moments

# Outside these bounds squares of gradients leave the range of float32.
_SINGLE_RANGE = (1e-10, 1e10)
# Steps of the power iteration.
_MOST_STEPS = 40


@dataclass(frozen=True)
class Problem(ABC):
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

    @abstractmethod
    def products(self, encoder: Any, decoder: Any) -> tuple[Any, Any, Any]:
        """(B Sxx (p, d), A'Syx (p, d), B Sxy (p, q)) for B (p, d) and A' (p, q), in their dtype, where they are."""

    @abstractmethod
    def multiply(self, block: np.ndarray) -> np.ndarray:
        """Sxx V (d, b) at the scale, float64, for V (d, b) in memory."""

    @property
    def has_data(self) -> bool:
        """Whether it can make products: not after pickle, which leaves rows behind."""
        return True

    @abstractmethod
    def target_moments(self, directions: np.ndarray) -> np.ndarray:
        """u' Syy u, (p,) float64, scale "sum", for directions (q, p) in columns; Sxx for Y = X."""

    def tail(self, p: int) -> float:
        """Trace of Sxx less its p largest eigenvalues, at the scale: some dozen products, on rows of all of them."""
        values = leading_values(self.multiply, self.d, min(self.d, p + 8), 1e-4)
        return max(0.0, self.trace - float(values[:p].sum()))


@dataclass(frozen=True)
class MomentProblem(Problem):
    """Dense second moments in the compute dtype: an iteration costs the same whatever the number of samples."""

    sxx: np.ndarray
    sxy: np.ndarray  # empty for Y = X
    moments: Moments

    def exact_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """(Sxx, Sxy) at the scale in float64; Sxy is empty for Y = X."""
        cross = self.moments.xy
        return self.moments.xx * self.factor, np.zeros((0, 0)) if cross is None else cross * self.factor

    def products(self, encoder: Any, decoder: Any) -> tuple[Any, Any, Any]:
        """See `Problem.products`.  BLAS on one thread, so that the bits do not depend on their number."""
        with serial_blas():
            za = decoder @ (self.sxx if self.same else self.sxy.T)
        zb, zxy = self.encoder_products(encoder)
        return zb, za, zxy

    def encoder_products(self, encoder: Any) -> tuple[Any, Any]:
        """(B Sxx, B Sxy), of `products` those that the decoder takes no part in."""
        with serial_blas():
            zb = encoder @ self.sxx
            return zb, (zb if self.same else encoder @ self.sxy)

    def multiply(self, block: np.ndarray) -> np.ndarray:
        """See `Problem.multiply`."""
        return (self.moments.xx @ block) * self.factor

    def target_moments(self, directions: np.ndarray) -> np.ndarray:
        """See `Problem.target_moments`."""
        matrix = self.moments.xx if self.moments.yy is None else self.moments.yy
        with serial_blas():
            return np.einsum("ij,ij->j", directions, matrix @ directions)


@dataclass(frozen=True)
class RowProblem(Problem):
    """Rows of X (and Y), read again at each step; nothing of size d x d is formed.

    center : whether the means are taken off
    heaviest : largest weight of a batch so far, where batches come from outside; 0 before the second of them
    """

    source: Any = None
    targets: Any = None
    weights: np.ndarray | None = None
    operator: Any = None
    center: bool = True
    heaviest: float = 0.0

    @property
    def has_data(self) -> bool:
        """See `Problem.has_data`."""
        return self.source is not None

    def __getstate__(self) -> dict[str, Any]:
        """Without the rows: what `partial_fit` needs to go on with others."""
        return vars(self) | {"source": None, "targets": None, "weights": None, "operator": None}

    def products(self, encoder: Any, decoder: Any) -> tuple[Any, Any, Any]:
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
    sxx, cross, mean_y = moments.xx * factor, moments.xy, moments.mean_y
    largest = largest_eigenvalue(lambda block: sxx @ block, sxx.shape[0])
    if dtype is None:
        dtype = _safe(moments.dtype, largest, moments.yy_trace * factor)
    return MomentProblem(
        n_samples=moments.n_samples,
        d=moments.n_features,
        q=moments.n_targets or moments.n_features,
        same=moments.n_targets == 0,
        dtype=np.dtype(dtype),
        mean=moments.mean,
        mean_y=moments.mean if mean_y is None else mean_y,
        yy_trace=moments.yy_trace * factor,
        factor=factor,
        weight_sum=moments.weight_sum,
        largest=largest,
        trace=float(np.trace(sxx)),
        sxx=np.ascontiguousarray(sxx, dtype=dtype),
        sxy=np.zeros((0, 0), dtype) if cross is None else np.ascontiguousarray(cross * factor, dtype=dtype),
        moments=moments,
    )


def from_rows(
    source: sources.Source,
    targets: sources.Source | None,
    weights: Any,
    scale: str,
    backend: str = "cpu",
    center: bool = True,
    with_largest: bool = True,
) -> RowProblem:
    """The problem of these rows: reads them some ten times for mean, trace and largest eigenvalue.

    backend : "cpu" or "cuda", resolved: where the passes run, and the weights are
    center : False leaves the means in, which are then given as zero
    with_largest : False leaves out the passes for the largest eigenvalue, which is nan then
    """
    stacked = source if targets is None else sources.StackedSource(source, targets)
    operator = rows.RowsOperator(stacked, weights=weights, block=16, backend=backend, center=center)
    operator.apply(np.zeros((operator.dim, 0), operator.dtype))  # a pass that finds mean and variances
    mean, variances, weight_sum = np.asarray(operator.mean), np.asarray(operator.variances), operator.weight_sum
    factor = 1.0 / weight_sum if scale == "mean" else 1.0
    d = source.shape[1]

    # Enough for a learning rate; a pass costs as much as an iteration.
    tolerance = 1e-10 if operator.dtype == np.float64 else 1e-4
    largest = np.nan
    if with_largest:
        largest = largest_eigenvalue(lambda block: _times_rows(operator, d, factor, block), d, tolerance)
    yy_trace = float(variances.sum() if targets is None else variances[d:].sum()) * factor
    return RowProblem(
        n_samples=source.shape[0],
        d=d,
        q=d if targets is None else targets.shape[1],
        same=targets is None,
        dtype=_safe(compute_dtype(source, targets), largest, yy_trace),
        mean=mean[:d],
        mean_y=mean if targets is None else mean[d:],
        yy_trace=yy_trace,
        factor=factor,
        weight_sum=weight_sum,
        largest=largest,
        trace=float(variances[:d].sum()) * factor,
        source=source,
        targets=targets,
        weights=weights,
        operator=operator,
        center=center,
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


def leading_values(multiply: Any, size: int, width: int, tolerance: float, watched: int | None = None) -> np.ndarray:
    """The largest eigenvalues of a symmetric positive matrix by block power iteration, (width,) falling, from below.

    multiply : (size, b) -> (size, b).  The start block is fixed; stops when the sum of the `watched` first (all of
    them) changes by less than `tolerance`.  BLAS runs on one thread, so that the bits do not depend on their number.
    """
    block = np.random.default_rng(0).standard_normal((size, width))
    values = np.zeros(width)
    with serial_blas():
        for _ in range(_MOST_STEPS):
            block = np.linalg.qr(block)[0]
            image = np.asarray(multiply(block), dtype=np.float64)
            if not image.any():
                break
            before, values = values, np.maximum(values, np.linalg.eigvalsh(block.T @ image)[::-1])
            if (values - before)[:watched].sum() <= tolerance * values[:watched].sum():
                break
            block = image / np.abs(image).max()
    return values
