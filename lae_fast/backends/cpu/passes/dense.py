"""Passes over a source on all CPU threads: the host side of tiles.py.

Every function reads the data once, chunk by chunk; chunks are cut by the plan alone and commit in order, so results are
the same bits for any number of threads.  Memory is read by the threads that compute; files and generators by one
thread, ahead of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interface import (
    FEW_ENTRIES,
    FEWEST_SUMS,
    LARGEST_DRIFT,
    MEASURED_RUNS,
    NotBytesError,
    PassResult,
    Piece,
    View,
    are_even,
    drift,
    drifted,
    fewest_lines,
    mass,
    outweighed,
    summed_up,
    uneven_drift,
)
from .. import blas, registers
from ..threads import ordered_loop, ordered_stream
from . import byte_gram, tiles

# A tile has at most 128 lines; BLAS sums products in blocks of 384 entries at most.
RUNS = MEASURED_RUNS
# Lines of a chunk of bytes at most.
MOST_BYTE_LINES = byte_gram.MOST_LINES

# A chunk's Gram leaves out entries that are zero in all its lines when their part of it is at least this large: SYRK
# gains more than gathering the others costs.
_WORTH_LEAVING_OUT = 0.1
_FEWEST_ENTRIES = 64
_ROUND = 16
# Sums of squares below this have underflowed in float32, or nearly: the scale was chosen without seeing such lines.
_LEAST_SQUARE = 1e-30


def _each(
    view: View,
    make_slot: Callable[[], Any],
    work: Callable[[Piece, Any], None],
    commit: Callable[[Piece, Any], None],
    start: int = 0,
) -> None:
    """`ordered_loop` over the chunks from `start` on; those of files and generators are read ahead."""
    report = view.reporter()

    def finish(piece: Piece, slot: Any) -> None:
        commit(piece, slot)
        report(piece)

    if view.source.in_order:
        ordered_stream(view.pieces(start), make_slot, work, finish)
        return
    ordered_loop(
        view.n_chunks,
        make_slot,
        lambda index, slot: work(view.piece(index), slot),
        lambda index, slot: finish(view.piece(index), slot),
        start,
    )


class _Slot:
    """One thread's workspace: a tile and, where lines are samples, a chunk's share of the statistics."""

    def __init__(self, view: View, dtype: np.dtype | None = None) -> None:
        n = view.n_entries
        self.buffer = np.empty((view.tiling.tile, n), dtype or view.source.compute_dtype)
        self.partial = np.zeros((2, n))
        self.sums, self.squares = np.zeros(n), np.zeros(n)

    def prepare(
        self, view: View, first: int, count: int, totals: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where `tiles.load` reads or writes the statistics of a chunk."""
        if view.by_feature:
            return totals[0][first : first + count], totals[1][first : first + count]
        self.sums[:] = 0.0
        self.squares[:] = 0.0
        return self.sums, self.squares

    def deliver(self, view: View, learn: bool, totals: tuple[np.ndarray, np.ndarray]) -> None:
        if learn and not view.by_feature:
            totals[0][:] += self.sums
            totals[1][:] += self.squares


class _UsedEntries:
    """Finds the entries that a chunk uses, where leaving out the others is worth it."""

    def __init__(self, n_entries: int) -> None:
        self._used, self._seen = np.zeros(n_entries, np.int32), np.zeros(n_entries, np.uint8)

    def find(self, chunk: Any, shift: np.ndarray) -> np.ndarray:
        """(k,) int64, ascending, those that differ from `shift` in some line and a few more; empty means all."""
        return self._find(lambda *lines: tiles.mark_used(*lines, shift, self._used), chunk.flat, chunk)

    def find_bytes(self, chunk: Any) -> np.ndarray:
        """`find` from a shift of zero, for bytes: quicker."""
        flat = chunk.flat.view(np.uint8)
        return self._find(lambda *lines: byte_gram.mark_used(*lines, self._seen, self._used), flat, chunk)

    def _find(self, mark: Callable[..., None], flat: np.ndarray, chunk: Any) -> np.ndarray:
        if self._used.size < _FEWEST_ENTRIES:
            return _EVERY
        mark(flat, chunk.line_stride, chunk.entry_stride, chunk.count)
        # as many more as make a round number, which BLAS likes; their rows and columns are zero
        lacking = -int(self._used.sum()) % _ROUND
        self._used[np.flatnonzero(self._used == 0)[:lacking]] = 1
        entries = np.flatnonzero(self._used)
        gain = 1.0 - (entries.size / self._used.size) ** 2
        return entries if entries.size and gain >= _WORTH_LEAVING_OUT else _EVERY


_EVERY, _NONE = np.empty(0, np.int64), np.empty(0)


class _GramSlot(_Slot):
    """A thread's share of the Gram: of all entries, or of those that the chunk at hand uses."""

    def __init__(self, view: View, dtype: np.dtype) -> None:
        super().__init__(view, dtype)
        n = view.n_entries
        self._memory = np.zeros((n, n), dtype)
        self._finder = None if view.by_feature else _UsedEntries(n)
        self.dtype = self.buffer.dtype
        self.gram, self.shift, self.entries = self._memory, view.shift, _EVERY
        self.lines: Any = None
        self.drift = 0.0

    def run(
        self, view: View, first: int, chunk: Any, weights: np.ndarray, shift: np.ndarray, totals: tuple[np.ndarray, ...]
    ) -> None:
        sums, squares = self.prepare(view, first, chunk.count, totals)
        self.shift = shift
        shift = shift.astype(self.dtype, copy=False)
        self.entries = _EVERY if self._finder is None else self._finder.find(chunk, shift)
        if not self.entries.size:
            self.gram = self._memory
            self._call(view, chunk, weights, shift, self.buffer, self.partial, sums, squares)
            return
        k = self.entries.size
        self.gram = _first(self._memory, k, k)
        buffer, partial = _first(self.buffer, len(self.buffer), k), _first(self.partial, 2, k)
        few = np.zeros((2, k))
        self._call(view, chunk, weights, shift[self.entries], buffer, partial, *few)
        sums[self.entries], squares[self.entries] = few

    def measure_drift(self, weight: float, floor: np.ndarray | None) -> float:
        """How far the last chunk's sums of squares, the diagonal of its Gram, are off: views.drift."""
        if not weight > 0:
            return 0.0
        least = _NONE if floor is None else floor
        found = tiles.compare_diagonal(self.gram, self.entries, self.sums, self.squares, weight, least)
        return summed_up(found, self.dtype.itemsize)

    def _call(self, view: View, chunk: Any, weights: np.ndarray, shift: np.ndarray, *arrays: np.ndarray) -> None:
        buffer, partial, sums, squares = arrays
        tiles.gram_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature, self.entries, shift,
            view.scale, weights, buffer, partial, self.gram, sums, squares,
        )  # fmt: skip


def _first(memory: np.ndarray, *shape: int) -> np.ndarray:
    """The beginning of a contiguous array's memory as a contiguous array of another shape."""
    return memory.reshape(-1)[: math.prod(shape)].reshape(shape)


@dataclass
class GramChunk:
    """One chunk's second moments, as handed to the committer.

    gram : lower triangle, scaled units, of `entries`, or of all where that is empty; the others' rows and columns are
        zero
    sums, squares : by sample, per entry, relative to `shift`; by feature, views of the whole arrays' part that belongs
        to the chunk
    lines : the chunk as it was read, for messages
    run : the most lines that were summed in the compute dtype, 0 for none;  drift : of such sums, views.drift
    """

    index: int
    first: int
    count: int
    weight: float
    shift: np.ndarray
    gram: np.ndarray
    entries: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    lines: Any
    run: int = 0
    drift: float = 0.0

    def add_to(
        self, total: np.ndarray, sums: np.ndarray, mean: np.ndarray, offset: np.ndarray, offset_weight: float
    ) -> None:
        """`tiles.commit_gram`: total += gram - sums mean' + offset_weight offset offset'."""
        if not self.entries.size:
            tiles.commit_gram(self.gram, sums, mean, offset, offset_weight, total)
            return
        tiles.commit_used(self.gram, self.entries, sums, mean, total)
        if offset_weight:
            tiles.add_outer(offset_weight, offset, total)


def square(n: int) -> np.ndarray:
    """An (n, n) total of zeros, for `GramChunk.add_to`."""
    return np.zeros((n, n))


def symmetric(total: np.ndarray) -> np.ndarray:
    """The total on the host, both triangles."""
    tiles.symmetrize(total)
    return total


def gram(view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """Second moments chunk by chunk, from chunk `start` on; `commit` is called in order.

    pilot_variance : (n,) scaled, or None where lines are features.  With it, a chunk whose mean
    lies more than two standard deviations off the shift is read again with its own mean, so that drifting data lose
    nothing.  A chunk of float32 is summed in float64 where its lines are short, where its squares leave the range of
    float32, and where rounding errors of its sums are not independent (views.drift).
    """
    compute = view.source.compute_dtype
    even = are_even(view.weights)
    floor = pilot_variance if pilot_variance is None or even else np.zeros_like(pilot_variance)
    first_dtype = np.dtype(np.float64) if view.n_entries <= FEW_ENTRIES else compute
    totals = _statistics(view)

    def work(piece: Piece, box: list[_GramSlot]) -> None:
        chunk, weights = view.read(piece)
        adds_up = not view.by_feature and outweighed(weights)
        dtype = np.dtype(np.float64) if adds_up else first_dtype
        if not box or box[0].dtype != dtype:
            box[:] = [_GramSlot(view, dtype)]
        slot, first = box[0], piece.first
        slot.lines = chunk
        slot.run(view, first, chunk, weights, view.shift, totals)
        if view.by_feature or not np.isfinite(slot.sums).all():
            return
        weight = mass(weights, chunk.count)
        if floor is not None and weight > 0 and drifted(slot.sums, slot.squares, weight, floor):
            shift = (view.shift + slot.sums / (weight * view.scale)).astype(compute)
            slot.run(view, first, chunk, weights, shift, totals)
        slot.drift = slot.measure_drift(weight, floor) if slot.dtype == compute else 0.0
        slot.drift = slot.drift if even else uneven_drift(slot.drift)
        if slot.dtype.itemsize == 4 and (_out_of_range(slot, chunk) or not slot.drift <= LARGEST_DRIFT):
            box[:] = [_GramSlot(view, np.dtype(np.float64))]
            box[0].lines = chunk
            box[0].run(view, first, chunk, weights, slot.shift, totals)

    def committer(piece: Piece, box: list[_GramSlot]) -> None:
        slot = box[0]
        index, first, last, _ = piece
        weight = float(last - first)
        sums, squares = slot.sums, slot.squares
        if view.by_feature:
            sums, squares = totals[0][first:last], totals[1][first:last]
        else:
            weight = mass(view.line_weights(piece), last - first)
        run = RUNS.lines if slot.dtype == compute else 0
        of = (weight, slot.shift, slot.gram, slot.entries, sums, squares, slot.lines, run, slot.drift)
        commit(GramChunk(index, first, last - first, *of))

    _each(view, list, work, committer, start)


class _IntegerSlot:
    """A thread's share of an exact Gram of bytes."""

    def __init__(self, view: View) -> None:
        n = view.n_entries
        *self._workspace, self._memory = byte_gram.workspace(view.tiling.tile, n)
        self._converted = np.empty(0, np.uint8)
        self._bounds = np.array([view.lowest, view.lowest + 255], view.source.compute_dtype)
        self._finder = _UsedEntries(n)
        self.entries, self.gram = _EVERY, self._memory
        self.shift, self.sums, self.squares = np.zeros((3, n))

    def run(self, view: View, chunk: Any) -> None:
        if chunk.flat.itemsize == 1:
            self._bounds[:] = (-128, 127) if chunk.flat.dtype == np.int8 else (0, 255)
            self.entries = self._finder.find_bytes(chunk)
        else:
            self.entries = self._finder.find(chunk, view.shift)
            if not self._converted.size:
                self._converted = np.empty(view.tiling.tile * view.n_entries, np.uint8)
        k = self.entries.size or view.n_entries
        gram, sums, shift = byte_gram.gram_in(self._memory, k), np.empty(k, np.int64), np.empty(k, np.int64)
        counted = byte_gram.integer_gram_chunk(
            chunk.flat, self._bounds, chunk.line_stride, chunk.entry_stride, view.n_entries, 0, chunk.count,
            self.entries, view.tiling.tile, self._converted, *self._workspace, gram, sums, shift,
        )  # fmt: skip
        if not counted:
            raise NotBytesError(f"{view.source.dtype} data hold numbers that are no bytes")
        self.gram = gram[:k]
        where = self.entries if self.entries.size else slice(None)
        self.shift[:] = self.sums[:] = self.squares[:] = 0.0
        self.shift[where], self.sums[where], self.squares[where] = shift, sums, self.gram.diagonal()


def _out_of_range(slot: _GramSlot, chunk: Any) -> bool:
    """Whether squares of the chunk's numbers have overflowed, or have vanished although the numbers have not."""
    if slot.squares.max(initial=0.0) < _LEAST_SQUARE:
        used = np.zeros(slot.shift.size, np.int32)
        shift = slot.shift.astype(slot.dtype, copy=False)
        tiles.mark_used(chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count, shift, used)
        return bool(used.any())
    return not np.isfinite(slot.gram.diagonal()).all()


def provider() -> str:
    """The BLAS that multiplies: another one rounds differently."""
    return blas.PROVIDER


def can_count(source: Any) -> bool:
    """Whether `integer_gram` takes this source: bytes, and a processor that multiplies them."""
    return registers.HAS_BYTE_PRODUCTS and source.dtype in (np.int8, np.uint8, np.bool_)


def can_convert(source: Any) -> bool:
    """Whether `integer_gram` takes this source if its numbers happen to be bytes: to read it again costs little."""
    return registers.HAS_BYTE_PRODUCTS and source.in_memory and not source.by_row_only


def integer_gram(view: View, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """`gram` of bytes by sample, without scale and weights: every sum is exact.

    Raises NotBytesError where a number is no byte.
    """

    def work(piece: Piece, slot: _IntegerSlot) -> None:
        slot.run(view, view.read(piece)[0])

    def committer(piece: Piece, slot: _IntegerSlot) -> None:
        index, first, last, _ = piece
        count = last - first
        commit(
            GramChunk(
                index, first, count, float(count), slot.shift, slot.gram, slot.entries, slot.sums, slot.squares, None
            )
        )

    _each(view, lambda: _IntegerSlot(view), work, committer, start)


class _PassSlot(_Slot):
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
    known: tuple[np.ndarray, np.ndarray] | None = None,
    offset: np.ndarray | None = None,
    compares: bool = False,
) -> PassResult:
    """sum over lines of line' (line block), and where asked the Gram of (line block).

    block : (n, b) in the compute dtype, C-ordered: the source's, or float64.  4 (lines) n b flops.
    known : sums and squares of an earlier pass; without them this pass gathers them, which costs time.
    compares : find `drift` and `lines`, with random columns beside the block where it has few.
    offset : (b,) that is taken off every line's product, by sample; see `tiles.pass_chunk`.
    """
    offset = np.empty(0, block.dtype) if offset is None else offset.astype(block.dtype)
    learn, asked = known is None, block.shape[1]
    if compares and asked < FEWEST_SUMS:  # few columns would say little about how rounding errors add up
        block = widened(block, FEWEST_SUMS)
        offset = np.append(offset, np.zeros(FEWEST_SUMS - asked if offset.size else 0, block.dtype))
    total = np.zeros(offset.size)
    width = block.shape[1]
    totals = known or _statistics(view)
    image = np.zeros((view.n_entries, width))
    inner = np.zeros((width, width) if with_inner else (0, 0))
    sums_of_squares = np.zeros((4, width))
    shift = view.shift.astype(block.dtype, copy=False)

    def work(piece: Piece, slot: _PassSlot) -> None:
        chunk, weights = view.read(piece)
        sums, squares = slot.prepare(view, piece.first, chunk.count, totals)
        tiles.pass_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature, learn, shift,
            view.scale, weights, slot.buffer, slot.partial, block, offset, slot.product, slot.image, slot.inner,
            slot.total, sums, squares, slot.runs, slot.drift,
        )  # fmt: skip

    def commit(piece: Piece, slot: _PassSlot) -> None:
        tiles.add_to(slot.image, image)
        tiles.add_to(slot.inner, inner)
        total[:] += slot.total[: total.size]
        if compares:
            sums_of_squares[:] += slot.drift
        slot.deliver(view, learn, totals)

    _each(view, lambda: _PassSlot(view, block, with_inner, compares), work, commit)
    tiles.symmetrize(inner)
    found = PassResult(image, inner, total, *totals)
    if compares:
        found.drift = drift(*sums_of_squares[:2], block.dtype.itemsize)
        found.lines = fewest_lines(sums_of_squares[1], sums_of_squares[3])
        if asked < width:
            found.image, found.inner = np.ascontiguousarray(image[:, :asked]), inner[:asked, :asked].copy()
            found.total = total[:asked]
    return found


def widened(block: np.ndarray, width: int) -> np.ndarray:
    """The block with random columns up to a width, to see how rounding errors add up."""
    more = np.random.default_rng(0).standard_normal((block.shape[0], width - block.shape[1]))
    return np.hstack([block, more.astype(block.dtype)])


def statistics(view: View, dtype: np.dtype) -> PassResult:
    """Sums and squares alone, of tiles in this dtype: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), dtype))


class _ScoreSlot(_Slot):
    """A thread's scores of one chunk, where they go to a callable."""

    def __init__(self, view: View, width: int) -> None:
        super().__init__(view)
        self.scores = np.empty((view.tiling.chunk, width), self.buffer.dtype)


def project(
    view: View,
    block: np.ndarray,
    out: np.ndarray | Callable[[np.ndarray], object],
    known: tuple[np.ndarray, np.ndarray] | None = None,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """out[r] <- line_r block - offset for every line, each chunk in its own place.

    block : (n, b) in the source's compute dtype;  offset : (b,) same dtype, or None
    out : (lines, b) same dtype, unit stride along the last axis; or a callable that is given the rows of one chunk
        after the other, (count, b), in their order: they are its to read until it returns.
    Returns the sums, gathered or `known`, in which the caller sees NaN and Inf.
    """
    totals = known or _statistics(view)
    learn = known is None
    handed = callable(out)

    def work(piece: Piece, slot: _Slot) -> None:
        chunk, weights = view.read(piece)
        sums, squares = slot.prepare(view, piece.first, chunk.count, totals)
        rows = slot.scores[: chunk.count] if handed else out[piece.first : piece.last]
        tiles.project_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, view.by_feature, learn, view.shift,
            view.scale, weights, slot.buffer, slot.partial, block, rows, 0, sums, squares,
        )  # fmt: skip
        if offset is not None:
            rows -= offset

    def commit(piece: Piece, slot: _Slot) -> None:
        slot.deliver(view, learn, totals)
        if handed:
            out(slot.scores[: piece.last - piece.first])

    _each(view, lambda: _ScoreSlot(view, block.shape[1]) if handed else _Slot(view), work, commit)
    return totals[0]


def _statistics(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Room for sums and squares: per line when lines are features, else per entry."""
    size = view.n_lines if view.by_feature else view.n_entries
    return np.zeros(size), np.zeros(size)
