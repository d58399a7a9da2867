"""Second moments of dense lines on the CPU, chunk by chunk: in floating point, and of bytes exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...drift import FEW_ENTRIES, LARGEST_DRIFT, drift_of_differences, roundoff, uneven_drift
from ...lines import GramChunk, Known, NotBytesError, Piece, View
from ...sample_weights import are_even, mass, outweighed
from .. import registers
from . import byte_gram, tiles, totals
from .chunks import RUNS, Slot, each_chunk, features_flag, kernel_shift, new_buffer, room_for_statistics
from .inspection import Inspection, inspect

MOST_BYTE_LINES = byte_gram.MOST_LINES

# A chunk's Gram leaves out entries that are zero in all its lines when their part of it is at least this large: SYRK
# gains more than gathering the others costs.
_WORTH_LEAVING_OUT = 0.1
_FEWEST_ENTRIES = 64
_ROUND = 16
# Where so small a part of the entries drifts, they alone are summed again in float64.
_FEW_DRIFT = 32
# Sums of squares below this have underflowed in float32, or nearly: the scale was chosen without seeing such lines.
_LEAST_SQUARE = 1e-30


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
        if self._used.all():
            return _EVERY
        # as many more as make a round number, which BLAS likes; their rows and columns are zero
        lacking = -int(self._used.sum()) % _ROUND
        self._used[np.flatnonzero(self._used == 0)[:lacking]] = 1
        entries = np.flatnonzero(self._used)
        gain = 1.0 - (entries.size / self._used.size) ** 2
        return entries if entries.size and gain >= _WORTH_LEAVING_OUT else _EVERY


_EVERY, _NONE = np.empty(0, np.int64), np.empty(0)


class _GramSlot(Slot):
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

    def run(self, view: View, first: int, chunk: Any, weights: np.ndarray, shift: np.ndarray, gathered: Known) -> None:
        """The Gram and the statistics of a chunk about `shift`, by feature about what the view says."""
        sums, squares = self.prepare(view, first, chunk.count, gathered)
        self.shift = shift
        shift = kernel_shift(view, self.dtype, shift)
        self.entries = _EVERY if self._finder is None else self._finder.find(chunk, shift)
        if not self.entries.size:
            self.gram = self._memory
            self._call(view, chunk, weights, shift, self.buffer, self.partial, sums, squares)
            return
        k = self.entries.size
        self.gram = _first(self._memory, k, k)
        partial = _first(self.partial, 2, k)
        few = np.zeros((2, k))
        self._call(view, chunk, weights, shift[self.entries], self.buffer, partial, *few)
        sums[self.entries], squares[self.entries] = few

    def inspect(self, weight: float, floor: np.ndarray | None) -> Inspection:
        """What the last chunk's Gram and statistics say; see `Inspection`."""
        least = _NONE if floor is None else floor
        return inspect(self.gram, self.entries, self.sums, self.squares, weight, least)

    def drifting(self, weight: float, floor: np.ndarray | None) -> np.ndarray:
        """(k,) entries whose sums of squares in float32 are off by so much that they alone would make up the drift."""
        places = self.entries if self.entries.size else np.arange(self.gram.shape[0])
        sums, squares = self.sums[places], self.squares[places]
        about_mean = squares - sums * sums / weight
        if floor is not None:
            about_mean = np.maximum(about_mean, weight * floor[places])
        wrong = np.abs(self.gram.diagonal() - squares)
        return places[wrong > 2.0 * LARGEST_DRIFT * roundoff(4) * np.maximum(about_mean, 0.0)]

    def sum_again(self, view: View, chunk: Any, weights: np.ndarray, few: np.ndarray) -> None:
        """Products of a few entries with all others, summed in float64: a row pass with unit vectors.

        few : (k,) ascending, among those that the chunk uses
        """
        n, k = view.n_entries, few.size
        double = np.dtype(np.float64)
        block, image = np.zeros((n, k)), np.empty((n, k))
        block[few, np.arange(k)] = 1.0
        tile = len(self.buffer)
        tiles.pass_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, None, False,
            kernel_shift(view, double, self.shift), view.scale, weights, new_buffer(tile, n, double), self.partial,
            block, np.empty(0), np.empty((tile, k)), image, np.empty((0, 0)), np.zeros(k), self.sums, self.squares,
            np.zeros((3, k)), np.zeros((0, k)),
        )  # fmt: skip
        places = few
        if self.entries.size:
            places, image = np.searchsorted(self.entries, few), image[self.entries]
        for place, column in zip(places, image.T):
            self.gram[place, : place + 1] = column[: place + 1]
            self.gram[place:, place] = column[place:]

    def _call(self, view: View, chunk: Any, weights: np.ndarray, shift: np.ndarray, *arrays: np.ndarray) -> None:
        buffer, partial, sums, squares = arrays
        tiles.gram_chunk(
            chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, features_flag(view), self.entries, shift,
            view.scale, weights, buffer, partial, self.gram, sums, squares,
        )  # fmt: skip


def _first(memory: np.ndarray, *shape: int) -> np.ndarray:
    """The beginning of a contiguous array's memory as a contiguous array of another shape."""
    return memory.reshape(-1)[: math.prod(shape)].reshape(shape)


@dataclass(kw_only=True)
class HostGramChunk(GramChunk):
    """One chunk's second moments, and its Gram.

    gram : lower triangle, scaled units, of `entries`, or of all where that is empty; the others' rows and columns are
        zero
    """

    gram: np.ndarray
    entries: np.ndarray

    @property
    def lines(self) -> Any:
        """The chunk as it was read."""
        return self.read

    def add_to(
        self, total: np.ndarray, sums: np.ndarray, mean: np.ndarray, offset: np.ndarray, offset_weight: float
    ) -> None:
        """See lines.GramChunk."""
        if not self.entries.size:
            totals.commit_gram(self.gram, sums, mean, offset, offset_weight, total)
            return
        totals.commit_used(self.gram, self.entries, sums, mean, total)
        if offset_weight:
            totals.add_outer(offset_weight, offset, total)


def square(n: int) -> np.ndarray:
    """An (n, n) total of zeros, for `GramChunk.add_to`."""
    return np.zeros((n, n))


def symmetric(total: np.ndarray) -> np.ndarray:
    """The total on the host, both triangles."""
    totals.symmetrize(total)
    return total


def float_gram(
    view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None], start: int = 0
) -> None:
    """See interface.GramPasses."""
    compute = view.source.compute_dtype
    even = are_even(view.weights)
    floor = pilot_variance if pilot_variance is None or even else np.zeros_like(pilot_variance)
    first_dtype = np.dtype(np.float64) if view.n_entries <= FEW_ENTRIES else compute
    gathered = room_for_statistics(view)

    def work(piece: Piece, box: list[_GramSlot]) -> None:
        chunk, weights = view.read(piece)
        adds_up = not (view.by_feature or even) and outweighed(weights)
        dtype = np.dtype(np.float64) if adds_up else first_dtype
        if not box or box[0].dtype != dtype:
            box[:] = [_GramSlot(view, dtype)]
        slot, first = box[0], piece.first
        slot.lines = chunk
        slot.run(view, first, chunk, weights, view.shift, gathered)
        if view.by_feature:
            return
        weight = mass(weights, chunk.count)
        found = slot.inspect(weight, floor)
        if not found.finite:
            return
        if found.is_off:
            shift = (view.shift + slot.sums / (weight * view.scale)).astype(compute)
            slot.run(view, first, chunk, weights, shift, gathered)
            found = slot.inspect(weight, floor)
        slot.drift = 0.0
        if slot.dtype == compute and weight > 0:
            slot.drift = drift_of_differences(found.differences, slot.dtype.itemsize)
        if slot.drift > LARGEST_DRIFT and slot.dtype.itemsize == 4 and found.in_range:
            few = slot.drifting(weight, floor)
            if 0 < few.size <= max(1, view.n_entries // _FEW_DRIFT):
                slot.sum_again(view, chunk, weights, few)
                slot.drift = drift_of_differences(slot.inspect(weight, floor).differences, 4)
        slot.drift = slot.drift if even else uneven_drift(slot.drift)
        if slot.dtype.itemsize == 4 and (_out_of_range(found, slot, chunk) or not slot.drift <= LARGEST_DRIFT):
            box[:] = [_GramSlot(view, np.dtype(np.float64))]
            box[0].lines = chunk
            box[0].run(view, first, chunk, weights, slot.shift, gathered)

    def committer(piece: Piece, box: list[_GramSlot]) -> None:
        slot, first, last = box[0], piece.first, piece.last
        weight = float(last - first)
        sums, squares = slot.sums, slot.squares
        if view.by_feature:
            sums, squares = gathered[0][first:last], gathered[1][first:last]
        else:
            weight = mass(view.line_weights(piece), last - first)
        chunk = HostGramChunk(
            number=piece.number, first=first, count=last - first, weight=weight, shift=slot.shift, sums=sums,
            squares=squares, read=slot.lines, run=RUNS.lines if slot.dtype == compute else 0, drift=slot.drift,
            gram=slot.gram, entries=slot.entries,
        )  # fmt: skip
        commit(chunk)

    each_chunk(view, list, work, committer, start)


class _ByteSlot:
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
        """The Gram of a chunk, about the rounded means of its entries."""
        if chunk.flat.itemsize == 1:
            self._bounds[:] = (-128, 127) if chunk.flat.dtype == np.int8 else (0, 255)
            self.entries = self._finder.find_bytes(chunk)
        else:
            self.entries = self._finder.find(chunk, view.shift)
            if not self._converted.size:
                self._converted = np.empty(view.tiling.tile * view.n_entries, np.uint8)
        k = self.entries.size or view.n_entries
        gram, sums, shift = byte_gram.gram_in(self._memory, k), np.empty(k, np.int64), np.empty(k, np.int64)
        counted = byte_gram.byte_gram_chunk(
            chunk.flat, self._bounds, chunk.line_stride, chunk.entry_stride, view.n_entries, 0, chunk.count,
            self.entries, view.tiling.tile, self._converted, *self._workspace, gram, sums, shift,
        )  # fmt: skip
        if not counted:
            raise NotBytesError(f"{view.source.dtype} data hold numbers that are no bytes")
        self.gram = gram[:k]
        where = self.entries if self.entries.size else slice(None)
        self.shift[:] = self.sums[:] = self.squares[:] = 0.0
        self.shift[where], self.sums[where], self.squares[where] = shift, sums, self.gram.diagonal()


def _out_of_range(found: Inspection, slot: _GramSlot, chunk: Any) -> bool:
    """Whether squares of the chunk's numbers have overflowed, or have vanished although the numbers have not."""
    if found.largest < _LEAST_SQUARE:
        used = np.zeros(slot.shift.size, np.int32)
        shift = slot.shift.astype(slot.dtype, copy=False)
        tiles.mark_used(chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count, shift, used)
        return bool(used.any())
    return not found.in_range


def has_exact_byte_gram(source: Any) -> bool:
    """See interface.GramPasses: bytes, and a processor that multiplies them."""
    return registers.HAS_BYTE_PRODUCTS and source.dtype in (np.int8, np.uint8, np.bool_)


def can_try_byte_gram(source: Any) -> bool:
    """See interface.GramPasses: data in memory, to read them again costs little."""
    return registers.HAS_BYTE_PRODUCTS and source.in_memory and not source.by_row_only


def exact_byte_gram(view: View, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """See interface.GramPasses."""

    def work(piece: Piece, slot: _ByteSlot) -> None:
        slot.run(view, view.read(piece)[0])

    def committer(piece: Piece, slot: _ByteSlot) -> None:
        count = piece.last - piece.first
        chunk = HostGramChunk(
            number=piece.number, first=piece.first, count=count, weight=float(count), shift=slot.shift, sums=slot.sums,
            squares=slot.squares, read=None, gram=slot.gram, entries=slot.entries,
        )  # fmt: skip
        commit(chunk)

    each_chunk(view, lambda: _ByteSlot(view), work, committer, start)
