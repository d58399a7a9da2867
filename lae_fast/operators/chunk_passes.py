"""Passes over rows on Dask: of each chunk where it is, with the kernels of a backend; what they return is added up.

The counterpart of `interface.RowPasses` for lines that are elsewhere.  All chunks are shifted and scaled alike, so that
images, Grams and sums of a pass are sums over chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .. import plan
from ..backends import get_backend
from ..backends.interface import RowPasses
from ..backends.lines import Known, Lines, Panel, PassResult, View
from ..data import sources
from .sparse import stored_entries_pay

# Stored entries are multiplied as they are, in float64: of columns whose shift is more than this many deviations from
# zero that would cost digits of float64 data, and rows are made dense, which shifts them first.
_FAR = 10.0


@dataclass(frozen=True)
class _Pass:
    """What every chunk is given, beside the block: fields of `View` and arguments of `RowPasses.row_pass`."""

    shift: np.ndarray
    scale: float
    precision: str
    backend: str
    with_inner: bool
    learns: bool
    offset: np.ndarray | None
    compares: bool


class ChunkPasses:
    """See `interface.RowPasses`: `row_pass` and `statistics`, by sample.

    source : the rows;  weights : (m,) or None;  backend : "cpu" or "cuda", for each chunk
    """

    def __init__(self, source: sources.DaskSource, weights: np.ndarray | None, backend: str) -> None:
        self._source, self._backend = source, backend
        self._own = None if weights is None else source.split(weights)

    def row_pass(
        self,
        view: View,
        block: Panel,
        with_inner: bool = False,
        known: Known | None = None,
        offset: np.ndarray | None = None,
        compares: bool = False,
    ) -> PassResult:
        """The block goes to every worker once, and images come back by a tree: one task for each chunk."""
        panels = get_backend(self._backend).panels
        how = _Pass(view.shift, view.scale, view.precision, self._backend, with_inner, known is None, offset, compares)
        found = self._source.reduced(_of_chunk, _sum, (how, panels.fetch(block)), self._own)
        if known is not None:
            found = replace(found, sums=known[0], squares=known[1])
        return replace(found, image=panels.place(found.image))

    def statistics(self, view: View, dtype: np.dtype) -> PassResult:
        """Sums and squares alone."""
        return self.row_pass(view, np.empty((view.n_entries, 0), dtype))

    def fewest_lines(self, width: int) -> int:
        """Lines of the smallest tile of any chunk, in products with a block of this width."""
        return min(_tiling(m, self._source, width, self._backend).fewest_lines(m) for m in self._source.chunk_rows if m)


def passes_over(source: sources.Source, weights: np.ndarray | None, backend: str) -> ChunkPasses | RowPasses:
    """What makes passes over these rows, wherever they are."""
    if isinstance(source, sources.DaskSource):
        return ChunkPasses(source, weights, backend)
    return get_backend(backend).rows


def _tiling(m: int, source: sources.Source, width: int, backend: str) -> plan.Tiling:
    d = source.n_features
    return plan.tiling(m, d, source.compute_dtype.itemsize, 4.0 * d * width, backend, skinny=True)


def _of_chunk(source: sources.Source, weights: np.ndarray | None, how: _Pass, block: np.ndarray) -> PassResult:
    """The pass over one chunk, on the host."""
    (m, d), width = source.shape, block.shape[1]
    if weights is not None and not weights.any():
        inner, total = (
            np.zeros((width, width) if how.with_inner else (0, 0)),
            np.zeros(0 if how.offset is None else width),
        )
        return PassResult(np.zeros((d, width)), inner, total, np.zeros(d), np.zeros(d))
    used = get_backend(how.backend)
    if stored_entries_pay(source) and (found := _of_entries(source, weights, how, block)) is not None:
        return found
    view = View(
        source, False, how.shift, how.scale, np.empty(0) if weights is None else weights,
        _tiling(m, source, width, how.backend), None, precision=how.precision,
    )  # fmt: skip
    known = None if how.learns else (np.zeros(d), np.zeros(d))
    found = used.rows.row_pass(view, used.panels.place(block), how.with_inner, known, how.offset, how.compares)
    image = used.panels.fetch(found.image)
    if not (np.isfinite(found.sums).all() and np.isfinite(found.squares).all() and np.isfinite(image).all()):
        sources.raise_nonfinite(source)
    return replace(found, image=image)


def _of_entries(
    source: sources.SparseSource, weights: np.ndarray | None, how: _Pass, block: np.ndarray
) -> PassResult | None:
    """`_of_chunk` over stored entries, in float64; None where rows made dense keep more digits.

    With x the entries of a row and s the shift, y = (x - s) V - offset = x V - (s V + offset), and the sum of
    (x - s)' y is that of x' y less s' times the sum of y.
    """
    used, (m, d) = get_backend(how.backend), source.shape
    given = np.empty(0) if weights is None else weights
    lines = Lines(source, False, plan.sparse_chunk(m, d, source.nnz or 0), how.scale)
    read = used.sparse.statistics(lines, given)
    if not (np.isfinite(read.sums).all() and np.isfinite(read.squares).all()):
        sources.raise_nonfinite(source)
    count = float(m) if weights is None else float(weights.sum())
    shift = how.shift.astype(np.float64) * how.scale
    squares = read.squares - 2.0 * shift * read.sums + count * shift**2
    if (count * shift**2 > _FAR**2 * squares).any():
        return None
    panel = used.panels.place(block, np.dtype(np.float64))
    offset = used.panels.along(shift, panel)
    if how.offset is not None:
        offset = offset + how.offset
    heavy = np.flatnonzero(read.run > used.sparse.LONGEST_RUN)
    image, inner, total, _, few = used.sparse.row_pass(
        lines, panel, offset, np.empty(0), given, heavy, how.with_inner, how.compares
    )
    image = used.panels.fetch(used.panels.plus_outer(image, -1.0, shift, total))
    if not np.isfinite(image).all():
        sources.raise_nonfinite(source)
    return PassResult(
        image, inner, total if how.offset is not None else np.zeros(0),
        read.sums - count * shift, squares, fewest_lines=few,
    )  # fmt: skip


def _sum(one: PassResult, other: PassResult) -> PassResult:
    """Of two sets of rows; how rounding errors add up is taken from the worse one."""
    return PassResult(
        one.image + other.image,
        one.inner + other.inner,
        one.total + other.total,
        one.sums + other.sums,
        one.squares + other.squares,
        max(one.drift, other.drift),
        min(one.fewest_lines, other.fewest_lines),
    )
