"""How lines of the data are read, and what a pass over them returns: the vocabulary of backends/interface.py."""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..validation import few_weights_message

Tick: TypeAlias = Callable[[int, "int | None"], None]
Panel: TypeAlias = Any  # a 2-D array where the backend works: NumPy's, or CuPy's
Known: TypeAlias = tuple[np.ndarray, np.ndarray]  # sums and squares of an earlier pass


class NotBytesError(ValueError):
    """Data that were to be summed as whole numbers are not, or do not fit a byte."""


# ---------------------------------------------------------------------------------------------------------------------
# what a pass reads


class Piece(NamedTuple):
    """Lines first..last, chunk `number` of a pass; `lines` where they have been read ahead."""

    number: int
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
    """How dense lines are read: which side, what is subtracted, multiplied and weighted.

    source : has `n_lines(by_feature)` (inf: not known yet), `chunk(first, last, by_feature)`,
        `block(first, last, by_feature)`, `compute_dtype`, `on_device`, and `in_order`: chunks are to be read one after
        the other, by one thread (data/sources.py)
    shift : (n,) by sample, what is subtracted from every line, in the compute dtype; by feature empty
    scale : a power of two that multiplies every entry afterwards
    weights : float64, per sample, or empty
    tiling : has `chunk`, `tile`, `n_chunks(n_lines)` and `bounds(index, n_lines)` (plan.py)
    tick : called after each chunk with (done, of), or None
    precision : of products of float32, on a device ("float32", or a faster and coarser mode: backends.PRECISIONS)
    lowest : of data that are summed as whole numbers: they are lowest..lowest + 255, 0 or -128
    center : by feature, whether the weighted mean of each line is subtracted from it
    denominator : by feature, > 0 divides each line by its standard deviation, the root of the weighted sum of squares
        over this number, which is one of the compute dtype
    """

    shift: np.ndarray
    scale: float
    weights: np.ndarray
    tiling: Any
    tick: Tick | None = field(default=None, compare=False)
    precision: str = "float32"
    lowest: int = 0
    center: bool = False
    denominator: float = 0.0

    @property
    def n_chunks(self) -> int:
        return self.tiling.n_chunks(self.n_lines)

    def piece(self, number: int) -> Piece:
        return Piece(number, *self.tiling.bounds(number, self.n_lines))

    def pieces(self, start: int, skipped: Container[int] = ()) -> Iterator[Piece]:
        """Every piece from chunk `start` on, read one after the other; `skipped` where their number is known."""
        if math.isfinite(self.n_lines):
            for number in range(start, self.n_chunks):
                if number not in skipped:
                    piece = self.piece(number)
                    yield piece._replace(lines=self.source.chunk(piece.first, piece.last, self.by_feature))
            return
        for number in itertools.count():
            first = self.source.position
            lines = self.source.next_chunk(self.tiling.chunk)
            if not lines.count:
                return
            yield Piece(number, first, first + lines.count, lines)

    def read(self, piece: Piece) -> tuple[Any, np.ndarray]:
        """The chunk and its weights."""
        lines = piece.lines or self.source.chunk(piece.first, piece.last, self.by_feature)
        return lines, self.line_weights(piece)

    def line_weights(self, piece: Piece) -> np.ndarray:
        """Weights that belong to a piece: of its lines, or of the entries when lines are features."""
        if self.by_feature:
            return self.weights
        if 0 < self.weights.size < piece.last:  # kernels do not check
            raise ValueError(few_weights_message(self.weights.size))
        return self.weights[piece.first : piece.last]

    def reporter(self) -> Callable[[Piece], None]:
        """What is called after each piece.  Ask for it before the pass: during it the number of lines may be found."""
        tick, total = self.tick, self.n_chunks if math.isfinite(self.n_lines) else None
        if tick is None:
            return lambda piece: None
        return lambda piece: tick(piece.number + 1, total)


@dataclass(frozen=True)
class Lines(_Side):
    """Compressed lines of a sparse matrix and how they are read.

    source : has `lines(first, last, by_feature)` -> (indptr, indices, data) and `n_lines(by_feature)` (data/sources.py)
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


# ---------------------------------------------------------------------------------------------------------------------
# what a pass returns


@dataclass(kw_only=True)
class GramChunk(abc.ABC):
    """The second moments of one chunk, handed to whoever commits them; the Gram itself stays where it was computed.

    number : of the chunk;  first, count : its lines;  weight : of its lines, or their number
    shift : (n,) what was subtracted from them
    sums, squares : by sample per entry, weighted, about `shift`, in scaled units; by feature per line, see
        `PassResult`; squares may be empty for bytes
    read : the chunk as it was read, or None
    run : the most lines that were summed in the compute dtype, 0 for none;  drift : of such sums, see backends/drift.py
    """

    number: int
    first: int
    count: int
    weight: float
    shift: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    read: Any
    run: int = 0
    drift: float = 0.0

    @property
    @abc.abstractmethod
    def lines(self) -> Any:
        """The chunk as it was read, on the host, for messages; while it is being committed."""

    @abc.abstractmethod
    def add_to(
        self, total: Panel, sums: np.ndarray, mean: np.ndarray, offset: np.ndarray, offset_weight: float
    ) -> None:
        """total += gram - sums mean' + offset_weight offset offset', the lower triangle, in float64.

        total : of `GramPasses.square`;  sums, mean, offset : (n,) float64.
        """


@dataclass
class PassResult:
    """What one row pass returns, scaled units, float64.

    image : (n, b), on the backend's device;  inner : (b, b) symmetric, or empty;  total : (b,), the lines' products
    less their offset, summed, or empty
    sums, squares : by sample (n,), of the lines and of their squares, weighted, about the shift; by feature (lines,),
        each line's mean, unscaled, and its weighted sum of squares about it
    drift : of sums of squares of the lines' products (backends/drift.py); 0 where it was not measured
    fewest_lines : that make up one of these sums (backends/drift.py); inf where it was not measured.
    """

    image: Panel
    inner: np.ndarray
    total: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    drift: float = 0.0
    fewest_lines: float = math.inf


class SparsePassResult(NamedTuple):
    """What one pass over stored entries returns, scaled units, float64.

    image : (n, b), on the backend's device;  inner : (b, b) symmetric, or empty
    total : (b,) sum over lines of w_l alpha_l y_l;  drift : of sums of squares of y, 0 where it was not measured
    fewest_lines : that make up one of these sums, inf where it was not measured.
    """

    image: Panel
    inner: np.ndarray
    total: np.ndarray
    drift: float = 0.0
    fewest_lines: float = math.inf


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
