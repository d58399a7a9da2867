"""How lines of the data are read, and what a pass over them returns: what all backends take and give.  A leaf.

Imports NumPy and the standard library only; sources and tilings arrive as attributes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Tick = Callable[[int, "int | None"], None]


class NotBytesError(ValueError):
    """Data that were to be summed as whole numbers are not, or do not fit a byte."""


class Runs(NamedTuple):
    """The longest sums in the compute dtype, for the certificate: over the lines of a tile, over a line's entries."""

    lines: int
    entries: int


# Those of the CPU backend, at which the certificate's constants were measured.
MEASURED_RUNS = Runs(lines=128, entries=384)

# A sum of positive numbers over a tile is off by 2.6 roundoffs of itself (standard deviation) where errors are
# independent, and over more tiles by less.  Of equal numbers it may be off by 80.
LARGEST_DRIFT, FEWEST_SUMS = 6.0, 12
# Where fewer rows hold the weight, counted as if equal, rounding errors of the others do not count as independent.
FEWEST_WEIGHTS = 128.0
# Of fewer, or of a few that are larger than all others, what was seen counts so many times.
_FEW, _FEW_LARGE = 3.0, 1.5
# Lines with fewer entries are multiplied in float64, which costs little beside loading them: so few sums say little
# about the others.
FEW_ENTRIES = 32


class Piece(NamedTuple):
    """Lines first..last, chunk `index` of a pass; `lines` where they have been read ahead."""

    index: int
    first: int
    last: int
    lines: Any = None


@dataclass(frozen=True)
class _Side:
    """Which side of a source is read: lines are samples and entries features, or the other way round."""

    source: Any
    by_feature: bool

    @property
    def n_lines(self) -> int:
        return self.source.n_lines(self.by_feature)

    @property
    def n_entries(self) -> int:
        return self.source.n_lines(not self.by_feature)


@dataclass(frozen=True)
class View(_Side):
    """How lines are read: which side, what is subtracted, multiplied and weighted; the arguments of `tiles.load`.

    source : has `n_lines(by_feature)` (inf: not known yet), `chunk(first, last, by_feature)`,
        `block(first, last, by_feature)`, `compute_dtype`, `on_device`, and `in_order`: chunks are to be read one after
        the other, by one thread (sources.py)
    tiling : has `chunk`, `tile`, `n_chunks(n_lines)` and `bounds(index, n_lines)` (plan.py)
    shift, scale : see `tiles.load`
    weights : float64, per sample, or empty.
    precision : of products of float32, on a device ("float32", or a faster and coarser mode: backends.PRECISIONS)
    lowest : of data that are summed as whole numbers: they are lowest..lowest + 255, 0 or -128
    """

    shift: np.ndarray
    scale: float
    weights: np.ndarray
    tiling: Any
    tick: Tick | None = field(default=None, compare=False)
    precision: str = "float32"
    lowest: int = 0

    @property
    def n_chunks(self) -> int:
        return self.tiling.n_chunks(self.n_lines)

    def piece(self, index: int) -> Piece:
        return Piece(index, *self.tiling.bounds(index, self.n_lines))

    def pieces(self, start: int, skipped: Container[int] = ()) -> Iterator[Piece]:
        """Every piece from chunk `start` on, read one after the other; `skipped` where their number is known."""
        if math.isfinite(self.n_lines):
            for index in range(start, self.n_chunks):
                if index not in skipped:
                    piece = self.piece(index)
                    yield piece._replace(lines=self.source.chunk(piece.first, piece.last, self.by_feature))
            return
        for index in itertools.count():
            first = self.source.position
            lines = self.source.next_chunk(self.tiling.chunk)
            if not lines.count:
                return
            yield Piece(index, first, first + lines.count, lines)

    def read(self, piece: Piece) -> tuple[Any, np.ndarray]:
        """The chunk and its weights."""
        lines = piece.lines or self.source.chunk(piece.first, piece.last, self.by_feature)
        return lines, self.line_weights(piece)

    def line_weights(self, piece: Piece) -> np.ndarray:
        """Weights that belong to a piece: of its lines, or of the entries when lines are features."""
        if self.by_feature:
            return self.weights
        if 0 < self.weights.size < piece.last:  # kernels do not look
            raise ValueError(
                f"sample_weight has shape {self.weights.shape}, but X has more samples: pass one weight per row."
            )
        return self.weights[piece.first : piece.last]

    def reporter(self) -> Callable[[Piece], None]:
        """What is called after each piece.  To be asked for before the pass: in it the number of lines may show."""
        tick, total = self.tick, self.n_chunks if math.isfinite(self.n_lines) else None
        if tick is None:
            return lambda piece: None
        return lambda piece: tick(piece.index + 1, total)


@dataclass
class PassResult:
    """What one row pass returns, scaled units, float64.

    image : (n, b), on the backend's device;  inner : (b, b) symmetric, or empty;  total : (b,), the lines' products
    less their offset, summed, or empty;  sums, squares : see `tiles.load`, for the whole matrix
    drift : of sums of squares of the lines' products, see the function; 0 where nothing was learned
    lines : the fewest that make up one of these sums (`fewest_lines`); inf where nothing was learned.
    """

    image: Any
    inner: np.ndarray
    total: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    drift: float = 0.0
    lines: float = math.inf


@dataclass(frozen=True)
class Lines(_Side):
    """Compressed lines of a sparse matrix and how they are read.

    source : has `lines(first, last, by_feature)` -> (indptr, indices, data) and `n_lines(by_feature)` (sources)
    by_feature : CSC columns instead of CSR rows;  chunk : lines in one commit;  factor : multiplies every entry
    tick : called after each chunk with (done, of), or None.
    """

    chunk: int
    factor: float
    tick: Any = None

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
    largest : the largest weighted square of a line;  stored : (n,) lines that store an entry
    """

    sums: np.ndarray
    squares: np.ndarray
    run: np.ndarray
    longest: int
    largest: float
    stored: np.ndarray


def mass(weights: np.ndarray, count: int) -> float:
    """The sum of weights, or `count` where there are none."""
    return float(weights.sum()) if weights.size else float(count)


def are_even(weights: np.ndarray) -> bool:
    """Whether weights that are not zero differ by a factor of 4 at most.

    What rows say without their weights, such as the pilot's variance, then holds for the weighted data too.
    """
    used = weights[weights > 0.0]
    return not used.size or bool(used.max() <= 4.0 * used.min())


def outweighed(weights: np.ndarray) -> bool:
    """Whether a few rows hold most of the weight: fewer than `FEWEST_WEIGHTS` and a third of all, as if of equal ones.

    The weighted mean is theirs then, and all others lie on one side of it.  Where these repeat, so do their products,
    and errors add up in sums of two features' products that are right in sums of squares, where they are measured.
    """
    with np.errstate(over="ignore"):
        few = fewest_lines(np.array([weights.sum()]), np.array([weights @ weights]))
    return few < min(FEWEST_WEIGHTS, weights.size / 3.0)


def uneven_drift(drift: float) -> float:
    """`drift` of sums of two features' products where weights are uneven: half as much again as sums of squares show.

    At most LARGEST_DRIFT where `drift` is: the allowance grows, and nothing is multiplied again for it.
    """
    return min(1.5 * drift, max(drift, LARGEST_DRIFT))


def drifted(sums: np.ndarray, squares: np.ndarray, weight: float, floor: np.ndarray) -> bool:
    """Whether some entry's chunk mean is more than two standard deviations off the shift.

    floor : (n,) a variance that the chunk's own counts as where it is smaller: the pilot's, or zeros
    """
    if not np.isfinite(squares).all():  # what that means is said where they are used
        return False
    mean_square = (sums / weight) ** 2
    variance = np.maximum(squares / weight - mean_square, floor)
    return bool((mean_square > 4.0 * variance).any())


def drift(wrong: np.ndarray, of: np.ndarray, itemsize: int) -> float:
    """How far rounding takes sums of squares, in roundoffs: above LARGEST_DRIFT errors are not independent.

    wrong : (k,) how far sums are off that were made as products are: line by line, tile by tile
    of : (k,) what they may be off in proportion to, > 0 where they are wrong;  itemsize : of the dtype of the sums
    """
    with np.errstate(all="ignore"):
        relative = np.divide(wrong, of, out=np.zeros(wrong.size), where=wrong != 0.0)
        squares = relative * relative
        found = Drift(
            int(np.count_nonzero(wrong)), float(squares.sum()), float(np.abs(relative).max(initial=0.0)),
            float(squares @ of), float(of.sum()), float(of @ of),
        )  # fmt: skip
        return summed_up(found, itemsize)


def fewest_lines(squares: np.ndarray, fourths: np.ndarray) -> float:
    """The fewest lines that make up a sum of squares, as if of equal ones: (sum of y^2)^2 / sum of y^4; inf of none.

    squares, fourths : (k,) sums of squares and of fourth powers
    """
    used = fourths > 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.min(squares[used] / fourths[used] * squares[used], initial=math.inf))


class Drift(NamedTuple):
    """What sums are off by, in shares r_j of q_j: how many are off, sum of r_j^2, most |r_j|, and of those by size,
    the sums of q_j r_j^2, q_j and q_j^2."""

    count: int
    squares: float
    largest: float
    sized: float
    size: float
    size_squares: float


def summed_up(found: Drift | tuple[float, ...], itemsize: int) -> float:
    """`drift` from what sums are off by.

    Sums that are exact say nothing, and few sums say little.  A few large ones may be off where many small ones are
    not: the large ones rule the matrix, so the mean by size counts too.
    """
    found = Drift(*found)
    if not found.count:
        return 0.0
    usual = math.sqrt(found.squares / found.count)
    if found.count < FEWEST_SUMS:
        usual *= _FEW
    by_size = math.sqrt(found.sized / found.size) if found.size > 0.0 else math.inf
    if found.size**2 < FEWEST_SUMS * found.size_squares:
        by_size *= _FEW_LARGE
    drift = max(usual, by_size, 0.5 * found.largest) / roundoff(itemsize)
    return drift if drift >= 0.0 else math.inf  # nan: sums have overflowed


def roundoff(itemsize: int) -> float:
    """The unit roundoff of float32 or float64."""
    return 2.0**-24 if itemsize == 4 else 2.0**-53
