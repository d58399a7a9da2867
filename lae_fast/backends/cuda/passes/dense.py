"""Passes over a source on the device: the host side of tiles.py and byte_gram.py.

Every function reads the data once, chunk by chunk, and commits chunks in order.  The host launches a chunk's kernels
before it looks at the numbers of the chunk before, so the device does not wait for it.

A chunk is far longer than on the CPU, for a launch costs microseconds; what is summed in the compute dtype are its
tiles of `RUNS.lines` lines, and tiles are added in float64.  The Gram is the exception: SYRK adds a chunk's tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interface import (
    FEW_ENTRIES,
    LARGEST_DRIFT,
    MEASURED_RUNS,
    PassResult,
    Piece,
    Runs,
    View,
    are_even,
    drift,
    drifted,
    mass,
    outweighed,
    uneven_drift,
)
from .. import arrays, blas, launch, stream
from ..stream import DeviceChunk
from . import byte_gram, tiles

# Lines of a tile (plan.py cuts by it);  cuBLAS sums all entries of a line in one run.
RUNS = Runs(lines=2048, entries=1 << 62)
MOST_BYTE_LINES = byte_gram.MOST_LINES

# Sums of squares below this have underflowed in float32, or nearly, as in cpu/passes/dense.py.
_LEAST_SQUARE = 1e-30

_EMPTY = np.empty(0)


class _Loader:
    """One chunk in the compute dtype, shifted, scaled and weighted, and its statistics.

    buffer : (rows, n), rows a whole number of tiles, zero beyond the chunk's lines
    totals : by feature, sums and squares (2, lines) of the whole matrix on the device, learned or known.
    """

    def __init__(self, view: View, known: tuple[np.ndarray, np.ndarray] | None, dtype: np.dtype | None = None) -> None:
        self.view, self.learn = view, known is None
        self.dtype = np.dtype(dtype or view.source.compute_dtype)
        xp, n, tile = arrays.xp, view.n_entries, view.tiling.tile
        rows = -(-min(view.n_lines, view.tiling.chunk) // tile) * tile
        self.buffer = xp.empty((rows, n), self.dtype)
        self.partials = xp.empty((launch.strips(rows), 2, n), np.float64)
        self.nothing = xp.empty(0, self.dtype)
        self.totals = xp.zeros((2, view.n_lines if view.by_feature else 0))
        if view.by_feature:
            if known is not None:
                self.totals = arrays.upload(np.stack(known))
            self.weights = arrays.upload(view.weights)
            self.mass = mass(view.weights, n)
            self.zeros = xp.zeros(n, self.dtype)
        else:
            self.shift = arrays.upload(view.shift.astype(self.dtype))

    def load(self, piece: Piece, chunk: DeviceChunk, shift: Any = None) -> int:
        """Fill the buffer from a chunk; returns its rows, whole tiles.  Statistics by sample are left in `partials`."""
        view, real = self.view, self.dtype.type
        tile = view.tiling.tile
        rows = -(-chunk.count // tile) * tile
        part = self.buffer[:rows]
        grid, block = launch.over_strips(rows, view.n_entries)
        if not view.by_feature:
            weights = view.line_weights(piece)
            roots = arrays.upload(np.sqrt(weights).astype(self.dtype)) if weights.size else self.nothing
            tiles.load.launch(
                grid, block, chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count,
                self.shift if shift is None else shift, real(view.scale), roots, self.learn, part, self.partials,
            )  # fmt: skip
            return rows
        tiles.load.launch(
            grid, block, chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count, self.zeros, real(1.0),
            self.nothing, False, part, self.partials,
        )  # fmt: skip
        center, denominator = (float(number) for number in view.shift)
        tiles.center_lines.launch(
            *launch.over_lines(chunk.count), part, center > 0.0, self.mass, denominator, real(view.scale), self.weights,
            self.learn, self.totals[0, piece.first : piece.last], self.totals[1, piece.first : piece.last],
        )  # fmt: skip
        return rows

    def add_statistics(self, rows: int, statistics: Any) -> None:
        """statistics (2 n,) += those of the chunk that was loaded last, by sample."""
        if self.learn and not self.view.by_feature:
            _add(self.partials[: launch.strips(rows)], statistics)


def _add(parts: Any, total: Any) -> None:
    """total += sum of the parts: (t, ...), (...)."""
    if total.size:
        tiles.add_tiles.launch(
            *launch.over_items(total.size), parts.reshape(parts.shape[0], total.size), total.reshape(total.size)
        )


class _Slot:
    """What is kept of one chunk while the next is launched: its Gram, and its statistics on their way to the host."""

    def __init__(self, result: Any, n: int) -> None:
        self.result = result
        self.statistics = arrays.xp.zeros((3, n))
        self.host = arrays.pinned(3 * n * 8).view(np.float64).reshape(3, n)
        self.ready: Any = None
        self.shift: np.ndarray = _EMPTY
        self.chunk: DeviceChunk | None = None


def _pipeline(
    view: View,
    slots: list[Any],
    launch_: Callable[[Piece, DeviceChunk, Any], None],
    settle: Callable[[Piece, Any], None],
    start: int = 0,
) -> None:
    """launch_(piece, chunk, slot) for the chunks from `start` on, and settle(piece, slot) one chunk later, in order."""
    report = view.reporter()

    def finish(piece: Piece) -> None:
        settle(piece, slots[piece.index % len(slots)])
        report(piece)

    with arrays.device_errors():
        before = None
        try:
            for piece, chunk in stream.chunks(view, start):
                launch_(piece, chunk, slots[piece.index % len(slots)])
                if before is not None:
                    finish(before)
                before = piece
            if before is not None:
                finish(before)
        finally:
            arrays.wait(arrays.event())  # what is on its way to the host lands before its pinned memory is another's


@dataclass
class GramChunk:
    """One chunk's second moments, as handed to the committer; the attributes of cpu/passes/dense.py::GramChunk.

    gram : on the device, (n, n) or larger with zeros beyond, lower triangle;  run, drift : as there
    sums, squares : on the host, squares empty for bytes
    read : the chunk as it was read, on the device, or None
    """

    index: int
    first: int
    count: int
    weight: float
    shift: np.ndarray
    gram: Any
    sums: np.ndarray
    squares: np.ndarray
    read: DeviceChunk | None
    run: int = 0
    drift: float = 0.0

    @property
    def lines(self) -> DeviceChunk | None:
        """The chunk as it was read, on the host, for messages; while it is being committed."""
        return None if self.read is None else self.read._replace(flat=arrays.download(self.read.flat))

    def add_to(self, total: Any, sums: np.ndarray, mean: np.ndarray, offset: np.ndarray, offset_weight: float) -> None:
        """total += gram - sums mean' + offset_weight offset offset', on the device."""
        vectors = arrays.upload(np.stack([sums, mean, offset]))
        n = total.shape[0]
        tiles.commit_gram.launch(*launch.over_strips(n, n), self.gram, *vectors, float(offset_weight), total)


def square(n: int) -> Any:
    """An (n, n) total of zeros, for `GramChunk.add_to`."""
    with arrays.device_errors():
        return arrays.xp.zeros((n, n))


def symmetric(total: Any) -> np.ndarray:
    """The total on the host, both triangles."""
    n = total.shape[0]
    tiles.symmetrize.launch(*launch.over_strips(n, n), total)
    return arrays.download(total)


def gram(view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """Second moments chunk by chunk, from chunk `start` on; as cpu/passes/dense.py::gram."""
    n, xp = view.n_entries, arrays.xp
    compute = view.source.compute_dtype
    dtype = np.dtype(np.float64) if n <= FEW_ENTRIES and view.precision == "float32" else compute
    even = are_even(view.weights)
    floor = pilot_variance if pilot_variance is None or even else np.zeros_like(pilot_variance)
    with arrays.device_errors():
        loader = _Loader(view, None, dtype)
        slots = [_Slot(xp.empty((n, n), dtype), n) for _ in range(2)]
    shift = view.shift.astype(compute)

    def run(piece: Piece, chunk: DeviceChunk, slot: _Slot, loader: _Loader, moved: np.ndarray | None = None) -> None:
        slot.chunk, slot.shift = chunk, shift if moved is None else moved
        rows = loader.load(piece, chunk, None if moved is None else arrays.upload(moved.astype(loader.dtype)))
        if not view.by_feature:
            slot.statistics[...] = 0.0
            loader.add_statistics(rows, slot.statistics[:2])
        beta = 0.0
        for top in range(0, rows, view.tiling.tile):
            blas.syrk(loader.buffer[top : top + view.tiling.tile], beta, slot.result, view.precision)
            beta = 1.0
        if not view.by_feature:
            slot.statistics[2] = slot.result.diagonal()
            arrays.start_download(slot.statistics, slot.host)
            slot.ready = arrays.event()

    def settle(piece: Piece, slot: _Slot) -> None:
        index, first, last, _ = piece
        count, result = last - first, slot.result
        if view.by_feature:
            sums, squares = arrays.download(loader.totals[:, first:last])
            commit(GramChunk(index, first, count, float(count), shift, result, sums, squares, slot.chunk))
            return
        arrays.wait(slot.ready)
        weights, lines, found = view.line_weights(piece), 0, 0.0
        weight = mass(weights, count)
        if np.isfinite(slot.host[0]).all():
            if floor is not None and weight > 0 and drifted(*slot.host[:2], weight, floor):
                moved = (view.shift + slot.host[0] / (weight * view.scale)).astype(compute)
                run(piece, slot.chunk, slot, loader, moved)
                arrays.wait(slot.ready)
            if weight > 0 and dtype == compute:
                lines, found = RUNS.lines, _drift(slot.host, weight, floor, dtype)
                found = found if even else uneven_drift(found)
            coarse = view.precision != "float32"  # those products are off by more, and what follows makes up for it
            adds_up = outweighed(weights) or not found <= LARGEST_DRIFT
            fits = not _out_of_range(slot.host[1]) and (coarse or not adds_up)
            if dtype.itemsize == 4 and weight > 0 and not fits:
                result, lines, found = _in_float64(view, piece, slot, run), 0, 0.0
        sums, squares = slot.host[:2].copy()
        commit(GramChunk(index, first, count, weight, slot.shift, result, sums, squares, slot.chunk, lines, found))

    _pipeline(view, slots, lambda piece, chunk, slot: run(piece, chunk, slot, loader), settle, start)


def _drift(host: np.ndarray, weight: float, floor: np.ndarray | None, dtype: np.dtype) -> float:
    """views.drift of a chunk's Gram, whose sums, sums of squares and diagonal `host` holds.

    A run here is longer than on the CPU, and what it may be off by is its root.
    """
    sums, squares, diagonal = host
    about_mean = squares - sums * sums / weight
    if floor is not None:
        about_mean = np.maximum(about_mean, weight * floor)
    return drift(diagonal - squares, about_mean, dtype.itemsize) / np.sqrt(RUNS.lines / MEASURED_RUNS.lines)


def _out_of_range(squares: np.ndarray) -> bool:
    """Whether squares have overflowed float32, or may have vanished: of constants, too, which float64 then shows."""
    return not (squares < np.finfo(np.float32).max).all() or squares.max(initial=0.0) < _LEAST_SQUARE


def _in_float64(view: View, piece: Piece, slot: _Slot, run: Callable[..., None]) -> Any:
    """The Gram of a chunk whose squares leave the range of float32; its statistics are then those of float64."""
    single, n = slot.result, view.n_entries
    slot.result = double = arrays.xp.empty((n, n), np.float64)
    run(piece, slot.chunk, slot, _Loader(view, None, np.dtype(np.float64)), slot.shift)
    arrays.wait(slot.ready)
    slot.result = single
    return double


def provider() -> str:
    """The BLAS that multiplies, and on what: another one rounds differently."""
    return arrays.provider()


def can_count(source: Any) -> bool:
    """Whether `integer_gram` takes this source: bytes."""
    return source.dtype in (np.int8, np.uint8)


def can_convert(source: Any) -> bool:
    """Whether `integer_gram` takes this source if its numbers happen to be bytes: no, it would have to look first."""
    return False


def integer_gram(view: View, commit: Callable[[GramChunk], None], start: int = 0) -> None:
    """`gram` of bytes by sample, without scale and weights: every sum is exact.  The shift of uint8 is 128."""
    n, xp, align = view.n_entries, arrays.xp, byte_gram.ALIGNMENT
    columns = -(-n // align) * align
    origin = 128 if view.source.dtype == np.uint8 else 0
    with arrays.device_errors():
        slots = [_Slot(xp.empty((columns, columns), np.int32), n) for _ in range(2)]
        buffer = xp.empty(columns * (-(-min(view.n_lines, view.tiling.chunk) // align) * align), np.int8)

    def launch_(piece: Piece, chunk: DeviceChunk, slot: _Slot) -> None:
        lines = -(-chunk.count // align) * align
        held = buffer[: columns * lines].reshape(columns, lines)
        partials = xp.empty((launch.strips(lines), n), np.int64)
        byte_gram.load_bytes.launch(
            *launch.over_strips(lines, columns), chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count,
            np.int32(origin), held, partials,
        )  # fmt: skip
        slot.statistics[...] = 0.0
        _add(partials, slot.statistics[0])
        arrays.start_download(slot.statistics, slot.host)
        slot.ready = arrays.event()
        blas.integer_gram(held, slot.result)

    def settle(piece: Piece, slot: _Slot) -> None:
        arrays.wait(slot.ready)
        index, first, last, _ = piece
        shift = np.full(n, float(origin))
        count = last - first
        commit(GramChunk(index, first, count, float(count), shift, slot.result, slot.host[0].copy(), _EMPTY, None))

    _pipeline(view, slots, launch_, settle, start)


def row_pass(
    view: View,
    block: Any,
    with_inner: bool = False,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    offset: np.ndarray | None = None,
    compares: bool = False,
) -> PassResult:
    """sum over lines of line' (line block); as cpu/passes/dense.py::row_pass, the image stays on the device.

    `compares` is not heard: how cuBLAS sums is not known.
    """
    xp, n, width, tile = arrays.xp, view.n_entries, block.shape[1], view.tiling.tile
    with arrays.device_errors():
        loader = _Loader(view, known, block.dtype)
        block = arrays.upload(block)
        most = loader.buffer.shape[0]
        rows, parts = xp.empty((most, width), block.dtype), xp.empty((most // tile, n, width), block.dtype)
        squares = xp.empty((most // tile, width, width), block.dtype)
        image, inner = xp.zeros((n, width)), xp.zeros((width, width) if with_inner else (0, 0))
        statistics = xp.zeros((2, 0 if view.by_feature else n))
        total = xp.zeros(0 if offset is None else width)
        moved = None if offset is None else arrays.upload(offset.astype(block.dtype))
        partials = xp.empty((launch.strips(most), width))

    def launch_(piece: Piece, chunk: DeviceChunk, slot: None) -> None:
        count = loader.load(piece, chunk)
        loader.add_statistics(count, statistics)
        n_tiles = count // tile
        products = rows[:count]
        blas.gemm(loader.buffer[:count], block, products, view.precision)
        if moved is not None:
            weights = view.line_weights(piece)
            roots = arrays.upload(np.sqrt(weights).astype(block.dtype)) if weights.size else loader.nothing
            strips = launch.strips(chunk.count)
            tiles.center_products.launch(
                *launch.over_strips(chunk.count, width), products, chunk.count, moved, roots, partials[:strips]
            )
            _add(partials[:strips], total)
        tall = products.reshape(n_tiles, tile, width)
        blas.cross(loader.buffer[:count].reshape(n_tiles, tile, n), tall, parts[:n_tiles], view.precision)
        _add(parts[:n_tiles], image)
        if with_inner:
            blas.cross(tall, tall, squares[:n_tiles])
            _add(squares[:n_tiles], inner)

    _pipeline(view, [None], launch_, lambda piece, slot: None)
    sums = known or tuple(arrays.download(loader.totals if view.by_feature else statistics))
    return PassResult(image, arrays.download(inner), arrays.download(total), *sums)


def statistics(view: View, dtype: np.dtype) -> PassResult:
    """Sums and squares alone, of tiles in this dtype: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), dtype))


def project(
    view: View,
    block: Any,
    out: Any,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """out[r] <- line_r block - offset for every line; as cpu/passes/dense.py::project.

    out : (lines, b) on the host or on the device; or a callable that is given the rows of one chunk after the other,
        on the host.
    """
    xp, width = arrays.xp, block.shape[1]
    with arrays.device_errors():
        loader = _Loader(view, known)
        block = arrays.upload(block)
        moved = None if offset is None else arrays.upload(offset, block.dtype)
        most = loader.buffer.shape[0]
        slots = [_Products(most, width, block.dtype, out) for _ in range(2)]
        statistics = xp.zeros((2, 0 if view.by_feature else view.n_entries))

    def launch_(piece: Piece, chunk: DeviceChunk, slot: _Products) -> None:
        count = loader.load(piece, chunk)
        loader.add_statistics(count, statistics)
        products = slot.device[: chunk.count]
        blas.gemm(loader.buffer[: chunk.count], block, products)
        if moved is not None:
            products -= moved
        slot.send(chunk.count)

    def settle(piece: Piece, slot: _Products) -> None:
        slot.deliver(out, piece.first, piece.last)

    _pipeline(view, slots, launch_, settle)
    if known is not None:
        return known[0]
    return arrays.download(loader.totals if view.by_feature else statistics)[0]


class _Products:
    """Products of one chunk, on their way to where `out` is, or to whom."""

    def __init__(self, rows: int, width: int, dtype: np.dtype, out: Any) -> None:
        self.device = arrays.xp.empty((rows, width), dtype)
        self.host = None
        if callable(out) or isinstance(out, np.ndarray):
            self.host = arrays.pinned(self.device.nbytes).view(dtype).reshape(rows, width)
        self.ready: Any = None

    def send(self, count: int) -> None:
        if self.host is not None:
            arrays.start_download(self.device[:count], self.host[:count])
            self.ready = arrays.event()

    def deliver(self, out: Any, first: int, last: int) -> None:
        if self.host is None:
            out[first:last] = self.device[: last - first]
            return
        arrays.wait(self.ready)
        if callable(out):
            out(self.host[: last - first])
        else:
            out[first:last] = self.host[: last - first]
