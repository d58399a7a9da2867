"""Second moments of dense lines on the device, chunk by chunk: in floating point, and of bytes exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...drift import FEW_ENTRIES, LARGEST_DRIFT, MEASURED_RUNS, constant_floor, drift_of, uneven_drift
from ...lines import GramChunk, Piece, View
from ...sample_weights import are_even, mass, outweighed, shift_is_off
from .. import arrays, blas, launch
from ..stream import DeviceChunk
from . import byte_gram, totals
from .chunks import RUNS, Loader, pipeline

MOST_BYTE_LINES = byte_gram.MOST_LINES

# Sums of squares below this have underflowed in float32, or nearly, as in cpu/passes/gram.py.
_LEAST_SQUARE = 1e-30

# Of the tiles' Grams that are held at once, unless one is larger.
_PARTS_BYTES = 1 << 28

_EMPTY = np.empty(0)


class _Slot:
    """What is kept of one chunk while the next is launched: its Gram, and its statistics on their way to the host.

    n : entries;  count : of statistics, n by sample and the lines of a chunk by feature
    """

    chunk: DeviceChunk  # the one that was launched last

    def __init__(self, result: Any, n: int, count: int) -> None:
        self.result = result
        self.statistics = arrays.xp.zeros((3, n))
        self.host = arrays.pinned(3 * count * 8).view(np.float64).reshape(3, count)
        self.ready: Any = None
        self.shift: np.ndarray = _EMPTY

    def start_download(self, numbers: Any) -> None:
        """Begin to copy numbers (k, columns) to `host`, all at once or, of fewer columns, row by row."""
        pairs = [(numbers, self.host)] if numbers.shape == self.host.shape else zip(numbers, self.host)
        for there, here in pairs:
            arrays.start_download(there, here[: there.shape[0]])
        self.ready = arrays.event()


@dataclass(kw_only=True)
class DeviceGramChunk(GramChunk):
    """One chunk's second moments, and its Gram.

    gram : on the device, (n, n) or larger with zeros beyond, lower triangle
    read : the chunk as it was read, on the device, or None
    """

    gram: Any

    @property
    def lines(self) -> DeviceChunk | None:
        """See lines.GramChunk."""
        return None if self.read is None else self.read._replace(flat=arrays.download(self.read.flat))

    def add_to(self, total: Any, sums: np.ndarray, mean: np.ndarray, offset: np.ndarray, offset_weight: float) -> None:
        """See lines.GramChunk; on the device."""
        vectors = arrays.upload(np.stack([sums, mean, offset]))
        n = total.shape[0]
        totals.commit_gram.launch(*launch.over_strips(n, n), self.gram, *vectors, float(offset_weight), total)


def square(n: int) -> Any:
    """An (n, n) total of zeros, for `GramChunk.add_to`."""
    with arrays.device_errors():
        return arrays.xp.zeros((n, n))


def symmetric(total: Any) -> np.ndarray:
    """See interface.GramPasses.  It stays on the device for an eigensolver that multiplies with it there."""
    return arrays.download_kept(completed(total))


def completed(total: Any) -> Any:
    """The total with both triangles, where it is."""
    n = total.shape[0]
    totals.symmetrize.launch(*launch.over_strips(n, n), total)
    return total


def float_gram(
    view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None], start: int = 0
) -> None:
    """See interface.GramPasses.  Rounding errors of a coarser mode than float32 are no reason to sum in float64."""
    n, xp = view.n_entries, arrays.xp
    compute = view.source.compute_dtype
    dtype = np.dtype(np.float64) if n <= FEW_ENTRIES and view.precision == "float32" else compute
    even = are_even(view.weights)
    floor = pilot_variance if pilot_variance is None or even else np.zeros_like(pilot_variance)
    with arrays.device_errors():
        loader = Loader(view, None, dtype)
        slots = [_Slot(xp.empty((n, n)), n, loader.rows if view.by_feature else n) for _ in range(2)]
    shift = view.shift.astype(compute)

    def run(piece: Piece, chunk: DeviceChunk, slot: _Slot, loader: Loader, moved: np.ndarray | None = None) -> None:
        slot.chunk, slot.shift = chunk, shift if moved is None else moved
        lines = loader.load(piece, chunk, None if moved is None else arrays.upload(moved.astype(loader.dtype)))
        if view.by_feature:
            slot.start_download(loader.gathered[:, piece.first : piece.last])
        else:
            loader.add_statistics(lines.shape[0], slot.statistics[:2], fresh=True)
        _multiply(lines.reshape(-1, view.tiling.tile, n), slot.result, slot.statistics[2], view.precision)
        if not view.by_feature:
            slot.start_download(slot.statistics)

    def of_samples(piece: Piece, slot: _Slot) -> GramChunk:
        count = piece.last - piece.first
        arrays.wait(slot.ready)
        weights, lines, found = view.line_weights(piece), 0, 0.0
        weight = mass(weights, count)
        if np.isfinite(slot.host[0]).all():
            if floor is not None and weight > 0 and shift_is_off(slot.host[0], slot.host[1], weight, floor):
                moved = (view.shift + slot.host[0] / (weight * view.scale)).astype(compute)
                run(piece, slot.chunk, slot, loader, moved)
                arrays.wait(slot.ready)
            if weight > 0 and dtype == compute:
                lines, found = RUNS.lines, _drift(slot.host, weight, floor, dtype)
                found = found if even else uneven_drift(found)
            coarse = view.precision != "float32"  # these products have larger errors, and float32 passes refine them
            adds_up = not coarse and ((not even and outweighed(weights)) or not found <= LARGEST_DRIFT)
            if dtype.itemsize == 4 and weight > 0 and (adds_up or _out_of_range(slot.host[1])):
                # the statistics of float64 too
                run(piece, slot.chunk, slot, Loader(view, None, np.dtype(np.float64)), slot.shift)
                arrays.wait(slot.ready)
                lines, found = 0, 0.0
        sums, squares = slot.host[:2].copy()
        return DeviceGramChunk(
            number=piece.number, first=piece.first, count=count, weight=weight, shift=slot.shift, sums=sums,
            squares=squares, read=slot.chunk, run=lines, drift=found, gram=slot.result,
        )  # fmt: skip

    def settle(piece: Piece, slot: _Slot) -> None:
        commit(_of_features(piece, slot) if view.by_feature else of_samples(piece, slot))

    pipeline(view, slots, lambda piece, chunk, slot: run(piece, chunk, slot, loader), settle, start)


def _of_features(piece: Piece, slot: _Slot) -> GramChunk:
    arrays.wait(slot.ready)
    count = piece.last - piece.first
    sums, squares = slot.host[:2, :count].copy()
    return DeviceGramChunk(
        number=piece.number, first=piece.first, count=count, weight=float(count), shift=slot.shift, sums=sums,
        squares=squares, read=slot.chunk, gram=slot.result,
    )  # fmt: skip


def _multiply(tiles: Any, result: Any, diagonal: Any, precision: str) -> None:
    """The lower triangle of the Gram of all tiles (t, k, n): each tile's in its dtype, their sum in float64; and its
    diagonal."""
    count, _, n = tiles.shape
    most = max(1, _PARTS_BYTES // (n * n * tiles.itemsize))
    parts = arrays.xp.empty((min(most, count), n, n), tiles.dtype)
    for first in range(0, count, most):
        some = tiles[first : first + most]
        held = parts[: some.shape[0]]
        blas.triangles(some, held, precision)
        totals.add_triangles.launch(*launch.over_entries(n, n), held.reshape(-1, n * n), first == 0, result, diagonal)


def _drift(host: np.ndarray, weight: float, floor: np.ndarray | None, dtype: np.dtype) -> float:
    """The drift of a chunk's Gram, whose sums, sums of squares and diagonal `host` holds.

    What a run may be off by grows like the root of its length, and runs here are longer than those that LARGEST_DRIFT
    was measured at: so the drift is divided by the root of how much longer they are.
    """
    sums, squares, diagonal = host
    about_mean = squares - sums * sums / weight
    floor = constant_floor(sums, squares, weight, floor, dtype.itemsize)
    if floor is not None:
        about_mean = np.maximum(about_mean, weight * floor)
    return drift_of(diagonal - squares, about_mean, dtype.itemsize) / math.sqrt(RUNS.lines / MEASURED_RUNS.lines)


def _out_of_range(squares: np.ndarray) -> bool:
    """Whether squares have overflowed float32 or may have underflowed; float64 then tells these from constants."""
    return not (squares < np.finfo(np.float32).max).all() or squares.max(initial=0.0) < _LEAST_SQUARE


def has_exact_byte_gram(source: Any) -> bool:
    """See interface.GramPasses: bytes."""
    return source.dtype in (np.int8, np.uint8)


def can_try_byte_gram(source: Any) -> bool:
    """See interface.GramPasses: no, because all numbers would have to be checked first."""
    return False


def exact_byte_gram(view: View, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """See interface.GramPasses.  The shift of uint8 is 128."""
    n, xp, align = view.n_entries, arrays.xp, byte_gram.ALIGNMENT
    columns = -(-n // align) * align
    origin = 128 if view.source.dtype == np.uint8 else 0
    with arrays.device_errors():
        slots = [_Slot(xp.empty((columns, columns), np.int32), n, n) for _ in range(2)]
        buffer = xp.empty(columns * (-(-min(view.n_lines, view.tiling.chunk) // align) * align), np.int8)

    def launch_(piece: Piece, chunk: DeviceChunk, slot: _Slot) -> None:
        lines = -(-chunk.count // align) * align
        held = buffer[: columns * lines].reshape(columns, lines)
        partials = xp.empty((launch.strips(lines), n), np.int64)
        byte_gram.load_bytes.launch(
            *launch.over_strips(lines, columns), chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count,
            np.int32(origin), held, partials,
        )  # fmt: skip
        totals.add_parts(partials, slot.statistics[0], fresh=True)
        slot.start_download(slot.statistics)
        blas.byte_gram(held, slot.result)

    def settle(piece: Piece, slot: _Slot) -> None:
        arrays.wait(slot.ready)
        count = piece.last - piece.first
        chunk = DeviceGramChunk(
            number=piece.number, first=piece.first, count=count, weight=float(count), shift=np.full(n, float(origin)),
            sums=slot.host[0].copy(), squares=_EMPTY, read=None, gram=slot.result,
        )  # fmt: skip
        commit(chunk)

    pipeline(view, slots, launch_, settle, start)
