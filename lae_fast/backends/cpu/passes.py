"""Passes over a source on all CPU threads: the host side of tiles.py.

May import the files of this folder only; sources and tilings arrive as arguments.  Every function reads the data once, chunk by chunk; chunks are
cut by the plan alone and commit in order, so results are the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import tiles
from .threads import ordered_loop

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class View:
    """How lines are read: which side, what is subtracted, multiplied and weighted; the arguments of `tiles.load`.

    source : has `n_lines(by_feature)`, `chunk(first, last, by_feature)` and `compute_dtype` (sources.py)
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

    def read(self, index: int) -> tuple[int, Any, np.ndarray]:
        """First line, chunk and weights of chunk `index`."""
        first, last = self.tiling.bounds(index, self.n_lines)
        weights = self.weights if self.by_feature or not self.weights.size else self.weights[first:last]
        return first, self.source.chunk(first, last, self.by_feature), weights

    def buffer(self, dtype: np.dtype | None = None) -> np.ndarray:
        return np.empty((self.tiling.tile, self.n_entries), dtype or self.source.compute_dtype)

    def statistics(self, first: int, count: int, sums: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, ...]:
        """Where `load` puts its two statistics: per line when lines are features, else accumulators per entry."""
        if self.by_feature:
            return sums[first : first + count], squares[first : first + count]
        return sums, squares

    def ticked(self, index: int) -> None:
        if self.tick is not None:
            self.tick(index + 1, self.n_chunks)


class _GramSlot:
    def __init__(self, view: View, dtype: np.dtype) -> None:
        n = view.n_entries
        self.buffer = view.buffer(dtype)
        self.gram = np.zeros((n, n), dtype)
        self.sums, self.squares = np.zeros(n), np.zeros(n)
        self.shift = view.shift


@dataclass
class GramChunk:
    """One chunk's second moments, as handed to the committer.

    gram : lower triangle, scaled units;  sums, squares : by sample, per entry, relative to `shift`;
    by feature, views of the whole arrays' part that belongs to the chunk.
    """

    first: int
    count: int
    weight: float
    shift: np.ndarray
    gram: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


def gram(view: View, pilot_variance: np.ndarray, commit: Callable[[GramChunk], None]) -> None:
    """Second moments chunk by chunk; `commit` is called in order.

    A chunk whose mean lies more than two standard deviations off the shift is read again with its own mean, so that
    drifting data lose nothing; a chunk whose squares overflow the compute dtype is summed in float64.
    """
    compute = view.source.compute_dtype
    per_line = view.source.n_lines(True) if view.by_feature else view.n_entries
    line_sums, line_squares = (np.zeros(per_line), np.zeros(per_line)) if view.by_feature else (None, None)

    def run(slot: _GramSlot, first: int, chunk: Any, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype) -> None:
        same = dtype == compute
        buffer = slot.buffer if same else view.buffer(dtype)
        if not same:
            slot.gram = np.zeros_like(slot.gram, dtype)
        if view.by_feature:
            sums, squares = line_sums[first : first + chunk.count], line_squares[first : first + chunk.count]
        else:
            sums, squares = slot.sums, slot.squares
            sums[:] = 0.0
            squares[:] = 0.0
        slot.shift = shift
        tiles.gram_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature,
            shift.astype(dtype, copy=False), view.scale, weights, buffer, slot.gram, sums, squares,
        )  # fmt: skip

    def work(index: int, slot: _GramSlot) -> None:
        if slot.gram.dtype != compute:
            slot.gram = np.zeros_like(slot.gram, compute)
        first, chunk, weights = view.read(index)
        run(slot, first, chunk, weights, view.shift, compute)
        if not view.by_feature and np.isfinite(slot.sums).all():
            mass = float(weights.sum()) if weights.size else float(chunk.count)
            if view.shift.any() and mass > 0 and _drifted(slot.sums, slot.squares, mass, pilot_variance):
                shift = (view.shift + slot.sums / (mass * view.scale)).astype(compute)
                run(slot, first, chunk, weights, shift, compute)
            if not np.isfinite(slot.gram.diagonal()).all():
                run(slot, first, chunk, weights, slot.shift, np.dtype(np.float64))

    def committer(index: int, slot: _GramSlot) -> None:
        first, last = view.tiling.bounds(index, view.n_lines)
        weight = float(last - first)
        if not view.by_feature and view.weights.size:
            weight = float(view.weights[first:last].sum())
        sums, squares = (line_sums, line_squares) if view.by_feature else (slot.sums, slot.squares)
        if view.by_feature:
            sums, squares = sums[first:last], squares[first:last]
        commit(GramChunk(first, last - first, weight, slot.shift, slot.gram, sums, squares))
        view.ticked(index)

    ordered_loop(view.n_chunks, lambda: _GramSlot(view, compute), work, committer)


def _drifted(sums: np.ndarray, squares: np.ndarray, mass: float, pilot_variance: np.ndarray) -> bool:
    """Whether some entry's chunk mean is more than two standard deviations (chunk's or pilot's) off the shift."""
    mean_square = (sums / mass) ** 2
    variance = np.maximum(squares / mass - mean_square, pilot_variance)
    return bool((mean_square > 4.0 * variance).any())


@dataclass
class PassResult:
    """What one row pass returns, scaled units, float64.

    image : (n, b);  inner : (b, b) symmetric, or empty;  sums, squares : see `tiles.load`, for the whole matrix.
    """

    image: np.ndarray
    inner: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


class _PassSlot:
    def __init__(self, view: View, block: np.ndarray, with_inner: bool) -> None:
        width = block.shape[1]
        self.buffer = view.buffer()
        self.product = np.empty((view.tiling.tile, width), block.dtype)
        self.image = np.empty((view.n_entries, width), block.dtype)
        self.inner = np.zeros((width, width) if with_inner else (0, 0), block.dtype)
        self.sums, self.squares = np.zeros(view.n_entries), np.zeros(view.n_entries)


def row_pass(view: View, block: np.ndarray, with_inner: bool = False) -> PassResult:
    """sum over lines of line' (line block), and where asked the Gram of (line block).

    block : (n, b) in the source's compute dtype, C-ordered.  4 (lines) n b flops.
    """
    width = block.shape[1]
    per_line = view.n_lines if view.by_feature else view.n_entries
    result = PassResult(
        np.zeros((view.n_entries, width)),
        np.zeros((width, width) if with_inner else (0, 0)),
        np.zeros(per_line),
        np.zeros(per_line),
    )

    def work(index: int, slot: _PassSlot) -> None:
        first, chunk, weights = view.read(index)
        slot.sums[:] = 0.0
        slot.squares[:] = 0.0
        totals = (result.sums, result.squares) if view.by_feature else (slot.sums, slot.squares)
        sums, squares = view.statistics(first, chunk.count, *totals)
        tiles.pass_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature, view.shift, view.scale,
            weights, slot.buffer, block, slot.product, slot.image, slot.inner, sums, squares,
        )  # fmt: skip

    def commit(index: int, slot: _PassSlot) -> None:
        tiles.add_to(slot.image, result.image)
        tiles.add_to(slot.inner, result.inner)
        if not view.by_feature:
            result.sums += slot.sums
            result.squares += slot.squares
        view.ticked(index)

    ordered_loop(view.n_chunks, lambda: _PassSlot(view, block, with_inner), work, commit)
    tiles.symmetrize(result.inner)
    return result


def statistics(view: View) -> PassResult:
    """Sums and squares alone: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), view.source.compute_dtype))


def project(view: View, block: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out[r] <- line_r block for every line, each chunk in its own place.

    block : (n, b) in the source's compute dtype;  out : (lines, b) same dtype, unit stride along the last axis.
    Returns the lines' sums as `tiles.load` leaves them per entry, so that the caller can check for NaN and Inf.
    """
    per_line = view.n_lines if view.by_feature else view.n_entries
    totals = np.zeros(per_line), np.zeros(per_line)

    def work(index: int, slot: _ProjectSlot) -> None:
        first, chunk, weights = view.read(index)
        slot.sums[:] = 0.0
        pair = totals if view.by_feature else (slot.sums, slot.squares)
        sums, squares = view.statistics(first, chunk.count, *pair)
        tiles.project_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature, view.shift, view.scale,
            weights, slot.buffer, block, out, first, sums, squares,
        )  # fmt: skip

    def commit(index: int, slot: _ProjectSlot) -> None:
        if not view.by_feature:
            totals[0][:] += slot.sums
        view.ticked(index)

    ordered_loop(view.n_chunks, lambda: _ProjectSlot(view), work, commit)
    return totals[0]


class _ProjectSlot:
    def __init__(self, view: View) -> None:
        self.buffer = view.buffer()
        self.sums, self.squares = np.zeros(view.n_entries), np.zeros(view.n_entries)
