"""Passes over dense lines on the CPU: products with a block, statistics, projections.  The host side of tiles.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...drift import FEWEST_SUMS, drift_of, fewest_lines
from ...lines import Known, PassResult, Piece, View
from ..few_columns import n_left_over
from . import tiles, totals
from .chunks import Slot, each_chunk, features_flag, kernel_shift, room_for_statistics


class _PassSlot(Slot):
    """A thread's tile of products, image and small sums."""

    def __init__(self, view: View, block: np.ndarray, with_inner: bool, compares: bool) -> None:
        super().__init__(view, block.dtype)
        width = block.shape[1]
        self.product = np.empty((view.tiling.tile, width), block.dtype)
        self.image = np.empty((view.n_entries, width), block.dtype)
        self.inner = np.zeros((width, width) if with_inner else (0, 0), block.dtype)
        self.total = np.zeros(width)
        self.runs, self.drift = np.zeros((3, width), block.dtype), np.zeros((4 if compares else 0, width))


def row_pass(
    view: View,
    block: np.ndarray,
    with_inner: bool = False,
    known: Known | None = None,
    offset: np.ndarray | None = None,
    compares: bool = False,
) -> PassResult:
    """See interface.RowPasses, and `tiles.pass_chunk`.

    compares : with random columns beside the block where it has few.
    """
    offset = np.empty(0, block.dtype) if offset is None else offset.astype(block.dtype)
    learn, asked = known is None, block.shape[1]
    if compares and asked < FEWEST_SUMS:  # few columns would say little about how rounding errors add up
        block = widened(block, FEWEST_SUMS)
        offset = np.append(offset, np.zeros(FEWEST_SUMS - asked if offset.size else 0, block.dtype))
    total = np.zeros(offset.size)
    width = block.shape[1]
    gathered = known or room_for_statistics(view)
    image = np.zeros((view.n_entries, width))
    inner = np.zeros((width, width) if with_inner else (0, 0))
    sums_of_squares = np.zeros((4, width))
    shift = kernel_shift(view, block.dtype)

    def work(piece: Piece, slot: _PassSlot) -> None:
        chunk, weights = view.read(piece)
        sums, squares = slot.prepare(view, piece.first, chunk.count, gathered)
        tiles.pass_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, features_flag(view), learn, shift,
            view.scale, weights, slot.buffer, slot.partial, block, offset, slot.product, slot.image, slot.inner,
            slot.total, sums, squares, slot.runs, slot.drift,
        )  # fmt: skip

    def commit(piece: Piece, slot: _PassSlot) -> None:
        totals.add_to(slot.image, image)
        totals.add_to(slot.inner, inner)
        total[:] += slot.total[: total.size]
        if compares:
            sums_of_squares[:] += slot.drift
        slot.deliver(view, learn, gathered)

    each_chunk(view, lambda: _PassSlot(view, block, with_inner, compares), work, commit)
    totals.symmetrize(inner)
    found = PassResult(image, inner, total, *gathered)
    if compares:
        found.drift = drift_of(sums_of_squares[0], sums_of_squares[1], block.dtype.itemsize)
        found.fewest_lines = fewest_lines(sums_of_squares[1], sums_of_squares[3])
        if asked < width:
            found.image, found.inner = np.ascontiguousarray(image[:, :asked]), inner[:asked, :asked].copy()
            found.total = total[:asked]
    return found


def widened(block: np.ndarray, width: int) -> np.ndarray:
    """The block with random columns up to a width, to see how rounding errors add up."""
    more = np.random.default_rng(0).standard_normal((block.shape[0], width - block.shape[1]))
    return np.hstack([block, more.astype(block.dtype)])


def statistics(view: View, dtype: np.dtype) -> PassResult:
    """See interface.RowPasses: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), dtype))


class _ScoreSlot(Slot):
    """A thread's tile, and room for the scores of one chunk where they go to a callable."""

    def __init__(self, view: View, width: int) -> None:
        super().__init__(view)
        self.scores = np.empty((view.tiling.chunk if width else 0, width), self.buffer.dtype)


def project(
    view: View,
    block: np.ndarray,
    out: np.ndarray | Callable[[np.ndarray], object],
    known: Known | None = None,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """See interface.RowPasses, and `tiles.project_chunk`."""
    gathered = known or room_for_statistics(view)
    learn = known is None
    shift = kernel_shift(view, block.dtype)
    hand_on = out if callable(out) else None
    kept = None if callable(out) else out
    whole = block.shape[1] - n_left_over(block.shape[1], block.dtype)
    vectors, few = (np.ascontiguousarray(part) for part in (block[:, :whole], block[:, whole:].T))

    def work(piece: Piece, slot: _ScoreSlot) -> None:
        chunk, weights = view.read(piece)
        sums, squares = slot.prepare(view, piece.first, chunk.count, gathered)
        rows = slot.scores[: chunk.count] if kept is None else kept[piece.first : piece.last]
        tiles.project_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, features_flag(view), learn, shift,
            view.scale, weights, slot.buffer, slot.partial, vectors, few, rows, 0, sums, squares,
        )  # fmt: skip
        if offset is not None:
            take_off(rows, offset)

    def commit(piece: Piece, slot: _ScoreSlot) -> None:
        slot.deliver(view, learn, gathered)
        if hand_on is not None:
            hand_on(slot.scores[: piece.last - piece.first])

    each_chunk(view, lambda: _ScoreSlot(view, block.shape[1] if kept is None else 0), work, commit)
    return gathered[0]


def take_off(rows: np.ndarray, offset: np.ndarray) -> None:
    """rows -= offset, many short rows at a time: NumPy's loops over one of them each take longer than the numbers."""
    together = max(1, 256 // max(1, offset.size))
    whole = len(rows) // together * together if rows.flags.c_contiguous else 0
    groups = rows[:whole].reshape(-1, together * offset.size)
    np.subtract(groups, np.tile(offset, together), out=groups)
    np.subtract(rows[whole:], offset, out=rows[whole:])
