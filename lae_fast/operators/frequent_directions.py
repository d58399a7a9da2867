"""Frequent Directions: a bounded sketch of a stream's centred moments, with a bound on what it left out.

Equations: docs/streaming.md (Liberty 2013; Ghashami, Liberty, Phillips and Woodruff 2016).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import scipy
import scipy.linalg

from .. import validation
from ..data import sources
from ..data.checkpoint import Checkpoint, changing, fingerprint
from ..errors import MemoryLimitError
from ..sizes import format_bytes
from .counted_rows import CountedRows
from .remainder import share_of_rounding

# Matrices of `size` rows that are held at once at the worst: the rows, those that join, and the work of the SVD.
_HELD = 8
_ENTRIES_AT_ONCE = 1 << 22
# The attributes that rows change.
_STATE = ("n_samples", "n_positive", "weight_sum", "discarded", "mean", "squares", "rows")


def sketch_size(n_features: int, n_components: int, max_memory: int | None) -> int:
    """Rows l of a sketch for p components: 4 p + 64, or as many as `max_memory` bytes hold, at least p + 1.

    Raises
    ------
    MemoryLimitError
        p + 1 rows do not fit; says what is needed.
    """
    size = 4 * n_components + 64
    row = _HELD * 8 * n_features
    if max_memory is None:
        return size
    size = min(size, max_memory // row)
    if size <= n_components:
        raise MemoryLimitError(
            f"max_memory={format_bytes(max_memory)} is too small: a sketch for {n_components} components of "
            f"{n_features} features needs {format_bytes(row * (n_components + 1), at_least=True)}; raise max_memory or "
            "lower n_components."
        )
    return int(size)


class Sketch(CountedRows):
    """At most 2 l rows B (r, d), float64, with 0 <= S - B'B <= discarded I, S the moments about the exact mean.

    A batch enters as its rows about its own mean and one row for the distance of the means (docs/streaming.md), so
    the sketch is that of a matrix A with A'A = S, and discarded <= |A - A_k|_F^2 / (l - k) for every k < l.

    Attributes
    ----------
    size : l;  n_samples, n_positive, n_counted, weight_sum, dtype : as of `Moments`;  mean : (d,) float64
    squares : (d,) float64, diagonal of S, exact;  rows : B;  discarded : float, data units squared, scale "sum"
    """

    def __init__(self, n_features: int, size: int) -> None:
        self.n_features = validation.check_integer(n_features, "n_features", low=1)
        self.size = validation.check_integer(size, "size", low=1)
        self.n_samples, self.n_positive, self.weight_sum, self.discarded = 0, 0, 0.0, 0.0
        self.mean, self.squares = np.zeros(n_features), np.zeros(n_features)
        self.rows = np.empty((0, n_features))
        self.dtype = np.dtype(np.float32)

    def updated(self, data: Any, sample_weight: Any = None, checkpoint: Checkpoint | None = None) -> Sketch:
        """The sketch with the rows of X (m, d) added; this one stays as it is.

        checkpoint : keeps what has been added, and where a killed call was; X opened from a path, this one empty

        Raises
        ------
        ValueError
            NaN or inf (names the first), another number of features, bad weights.
        """
        source = sources.as_source(data)
        if source.shape[1] != self.n_features:
            raise ValueError(f"X has {source.shape[1]} features, but this sketch has {self.n_features}.")
        weights = validation.sample_weights(sample_weight, source.shape[0])
        new = copy.copy(self)
        new.dtype = np.result_type(self.dtype, source.compute_dtype)
        step = max(1, min(self.size, _ENTRIES_AT_ONCE // self.n_features))
        start = 0
        if checkpoint is not None:
            mine = fingerprint(
                source, "sketch", weights, rows=[self.size, step], libraries=[np.__version__, scipy.__version__]
            )
            if (state := checkpoint.begin(mine)) is not None:
                start = new._restore(state)
        for first in range(start, source.shape[0], step):
            last = min(first + step, source.shape[0])
            block = np.array(source.block(first, last, False), dtype=np.float64)
            if not np.isfinite(block).all():
                sources.raise_nonfinite(source)
            here = np.ones(last - first) if weights is None else weights[first:last]
            with changing(checkpoint):
                new._add_block(block, here)
                if checkpoint is not None:
                    checkpoint.offer(new._state, f"row {last} of {source.shape[0]}")
        return new

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def _restore(self, state: dict[str, np.ndarray]) -> int:
        """Take over the `_state` of another sketch; returns the number of rows that it had seen."""
        for name in _STATE:
            setattr(self, name, state[name] if state[name].ndim else state[name].item())
        return self.n_samples

    def to_arrays(self) -> dict[str, Any]:
        """All that it is, as numbers, text and arrays."""
        return {"n_features": self.n_features, "size": self.size, "dtype": self.dtype.name, **self._state()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Sketch:
        """What `to_arrays` made."""
        sketch = cls(int(arrays["n_features"]), int(arrays["size"]))
        sketch.dtype = np.dtype(str(arrays["dtype"]))
        sketch._restore(arrays)
        return sketch

    def merged(self, other: Sketch) -> Sketch:
        """Both streams in one sketch; what was discarded adds up."""
        if other.n_features != self.n_features:
            raise ValueError(f"Sketches of {self.n_features} and {other.n_features} features cannot be added.")
        new = copy.copy(self)
        new.n_samples += other.n_samples
        new.n_positive += other.n_positive
        new.discarded += other.discarded
        new.dtype = np.result_type(self.dtype, other.dtype)
        new._join(other.rows, other.mean, other.squares, other.weight_sum)
        return new

    def decayed(self, factor: float) -> Sketch:
        """All weights times `factor`."""
        new = copy.copy(self)
        new.rows = self.rows * np.sqrt(factor)
        new.squares, new.weight_sum = self.squares * factor, self.weight_sum * factor
        new.discarded *= factor
        return new

    def eigenpairs(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (p,) descending and vectors (d, p) of B'B: l_i(B'B) <= l_i(S) <= l_i(B'B) + discarded."""
        lacking = np.zeros((max(0, p - len(self.rows)), self.n_features))  # rows of weight 2 are two, and kept as one
        rows = np.concatenate([self.rows, lacking])
        _, singular, axes = scipy.linalg.svd(rows, full_matrices=False, check_finite=False)
        return singular[:p] ** 2, axes[:p].T

    def left(self, components: np.ndarray) -> float:
        """What components (p, d) leave of the trace of S: of the rows kept, and all that was discarded."""
        basis = components.T.astype(np.float64)
        rest = self.rows - (self.rows @ basis) @ basis.T
        kept = float(np.einsum("ij,ij->", self.rows, self.rows))
        lost = max(float(self.squares.sum()) - kept, 0.0) if self.discarded > 0.0 else 0.0
        left = float(np.einsum("ij,ij->", rest, rest)) + lost
        return left if left > share_of_rounding(components.dtype, False) * kept else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes held at the worst while rows are added."""
        return _HELD * 8 * self.size * self.n_features

    def _add_block(self, block: np.ndarray, weights: np.ndarray) -> None:
        self.n_samples += block.shape[0]
        self.n_positive += int(np.count_nonzero(weights))
        total = float(weights.sum())
        if total <= 0.0:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that large are refused below
            mean = weights @ block / total
            block -= mean
        mean_error = weights @ block / total  # what rounding left of a mean far from zero
        block -= mean_error
        size = float(np.abs(block).max(initial=0.0))
        if not (size == 0.0 or 2.0**-validation.MOST_EXPONENT < size < 2.0**validation.MOST_EXPONENT):
            raise ValueError(validation.range_message(size))
        block *= np.sqrt(weights)[:, None]
        self._join(block, mean + mean_error, np.einsum("ij,ij->j", block, block), total)

    def _join(self, rows: np.ndarray, mean: np.ndarray, squares: np.ndarray, weight: float) -> None:
        total = self.weight_sum + weight
        if total <= 0.0:
            return
        offset = mean - self.mean
        parts = [self.rows, rows]
        self.squares = self.squares + squares
        if self.weight_sum > 0.0 and weight > 0.0:
            between = np.sqrt(self.weight_sum * weight / total) * offset
            parts.append(between[None, :])
            self.squares = self.squares + between**2
        self.mean = self.mean + offset * (weight / total)
        self.weight_sum = total
        self.rows = np.concatenate(parts)
        if self.rows.shape[0] > 2 * self.size:
            self._shrink()

    def _shrink(self) -> None:
        """B <- (Sigma^2 - sigma_{l+1}^2)^{1/2} V' (F1): l rows are left."""
        _, singular, axes = scipy.linalg.svd(self.rows, full_matrices=False, check_finite=False)
        squared = singular**2
        lost = float(squared[self.size]) if squared.size > self.size else 0.0
        kept = np.sqrt(np.maximum(squared[: self.size] - lost, 0.0))
        self.rows = kept[:, None] * axes[: self.size]
        self.discarded += lost
