"""How lines of the data are read, and what a pass over them returns: what all backends take and give.  A leaf.

Imports NumPy and the standard library only; sources and tilings arrive as attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Tick = Callable[[int, int], None]


class Runs(NamedTuple):
    """The longest sums in the compute dtype, for the certificate: over the lines of a tile, over a line's entries."""

    lines: int
    entries: int


# Those of the CPU backend, at which the certificate's constants were measured.
MEASURED_RUNS = Runs(lines=128, entries=384)


@dataclass(frozen=True)
class View:
    """How lines are read: which side, what is subtracted, multiplied and weighted; the arguments of `tiles.load`.

    source : has `n_lines(by_feature)`, `chunk(first, last, by_feature)`, `block(first, last, by_feature)` and
        `compute_dtype` (sources.py)
    tiling : has `chunk`, `tile`, `n_chunks(n_lines)` and `bounds(index, n_lines)` (plan.py)
    shift, scale : see `tiles.load`
    weights : float64, per sample, or empty.
    """

    source: Any
    by_feature: bool
    shift: np.ndarray
    scale: float
    weights: np.ndarray
    tiling: Any
    tick: Tick | None = field(default=None, compare=False)

    @property
    def n_lines(self) -> int:
        return self.source.n_lines(self.by_feature)

    @property
    def n_entries(self) -> int:
        return self.source.n_lines(not self.by_feature)

    @property
    def n_chunks(self) -> int:
        return self.tiling.n_chunks(self.n_lines)

    def bounds(self, index: int) -> tuple[int, int]:
        """First line of chunk `index`, and the first that is not in it any more."""
        return self.tiling.bounds(index, self.n_lines)

    def line_weights(self, index: int) -> np.ndarray:
        """Weights that belong to chunk `index`: of its lines, or of the entries when lines are features."""
        if self.by_feature or not self.weights.size:
            return self.weights
        return self.weights[slice(*self.bounds(index))]

    def ticked(self, index: int) -> None:
        if self.tick is not None:
            self.tick(index + 1, self.n_chunks)


@dataclass
class PassResult:
    """What one row pass returns, scaled units, float64.

    image : (n, b), on the backend's device;  inner : (b, b) symmetric, or empty;  total : (b,), the lines' products
    less their offset, summed, or empty;  sums, squares : see `tiles.load`, for the whole matrix.
    """

    image: Any
    inner: np.ndarray
    total: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Lines:
    """Compressed lines of a sparse matrix and how they are read.

    source : has `lines(first, last, by_feature)` -> (indptr, indices, data) and `n_lines(by_feature)` (sources)
    by_feature : CSC columns instead of CSR rows;  chunk : lines in one commit;  factor : multiplies every entry
    tick : called after each chunk with (done, of), or None.
    """

    source: Any
    by_feature: bool
    chunk: int
    factor: float
    tick: Any = None

    @property
    def n_lines(self) -> int:
        return self.source.n_lines(self.by_feature)

    @property
    def n_entries(self) -> int:
        return self.source.n_lines(not self.by_feature)

    @property
    def n_chunks(self) -> int:
        return max(1, -(-self.n_lines // self.chunk))

    def bounds(self, index: int) -> tuple[int, int]:
        return index * self.n_lines // self.n_chunks, (index + 1) * self.n_lines // self.n_chunks

    def ticked(self, index: int) -> None:
        if self.tick is not None:
            self.tick(index + 1, self.n_chunks)


@dataclass
class Statistics:
    """Weighted sums and sums of squares of stored entries (float64, times factor and its square), per entry or line.

    run : (n,) the most lines of one chunk that store an entry;  longest : stored entries of the longest line
    largest : the largest weighted square of a line
    """

    sums: np.ndarray
    squares: np.ndarray
    run: np.ndarray
    longest: int
    largest: float


def mass(weights: np.ndarray, count: int) -> float:
    """The sum of weights, or `count` where there are none."""
    return float(weights.sum()) if weights.size else float(count)


def drifted(sums: np.ndarray, squares: np.ndarray, weight: float, pilot_variance: np.ndarray) -> bool:
    """Whether some entry's chunk mean is more than two standard deviations (chunk's or pilot's) off the shift."""
    mean_square = (sums / weight) ** 2
    variance = np.maximum(squares / weight - mean_square, pilot_variance)
    return bool((mean_square > 4.0 * variance).any())
