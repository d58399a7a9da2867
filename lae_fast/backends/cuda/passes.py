"""Passes over a source on the device: the host side of tiles.py and integers.py.

May import views and the files of this folder only; sources and tilings arrive as arguments.  Every function reads the
data once, chunk by chunk, and commits chunks in order.  The host launches a chunk's kernels before it looks at the
numbers of the chunk before, so the device does not wait for it.

A chunk is far longer than on the CPU, for a launch costs microseconds; what is summed in the compute dtype are its
tiles of `RUNS.lines` lines, and tiles are added in float64.  The Gram is the exception: SYRK adds a chunk's tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...views import PassResult, Runs, View, drifted, mass
from . import arrays, blas, integers, launch, stream, tiles
from .stream import DeviceChunk

# Lines of a tile (plan.py cuts by it);  cuBLAS sums all entries of a line in one run.
RUNS = Runs(lines=2048, entries=1 << 62)
MOST_BYTE_LINES = integers.MOST_LINES

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

    def load(self, index: int, chunk: DeviceChunk, shift: Any = None) -> int:
        """Fill the buffer from a chunk; returns its rows, whole tiles.  Statistics by sample are left in `partials`."""
        view, real = self.view, self.dtype.type
        tile = view.tiling.tile
        rows = -(-chunk.count // tile) * tile
        part = self.buffer[:rows]
        grid, block = launch.over_strips(rows, view.n_entries)
        if not view.by_feature:
            weights = view.line_weights(index)
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
        first, last = view.bounds(index)
        center, denominator = (float(number) for number in view.shift)
        tiles.center_lines.launch(
            *launch.over_lines(chunk.count), part, center > 0.0, self.mass, denominator, real(view.scale), self.weights,
            self.learn, self.totals[0, first:last], self.totals[1, first:last],
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
        self.statistics = arrays.xp.zeros((2, n))
        self.host = arrays.pinned(2 * n * 8).view(np.float64).reshape(2, n)
        self.ready: Any = None
        self.shift: np.ndarray = _EMPTY
        self.chunk: DeviceChunk | None = None


def _pipeline(
    view: View,
    slots: list[Any],
    start: Callable[[int, DeviceChunk, Any], None],
    settle: Callable[[int, Any], None],
) -> None:
    """start(index, chunk, slot) for every chunk, and settle(index, slot) one chunk later, in order."""
    with arrays.device_errors():
        before = None
        for index, chunk in stream.chunks(view):
            start(index, chunk, slots[index % len(slots)])
            if before is not None:
                settle(before, slots[before % len(slots)])
                view.ticked(before)
            before = index
        if before is not None:
            settle(before, slots[before % len(slots)])
            view.ticked(before)


@dataclass
class GramChunk:
    """One chunk's second moments, as handed to the committer; the attributes of backends/cpu/passes.py::GramChunk.

    gram : on the device, (n, n) or larger with zeros beyond, lower triangle
    sums, squares : on the host, squares empty for bytes.
    """

    first: int
    count: int
    weight: float
    shift: np.ndarray
    gram: Any
    sums: np.ndarray
    squares: np.ndarray

    def add_to(self, total: Any, correction: np.ndarray, offset: np.ndarray, offset_weight: float) -> None:
        """total += gram - correction correction' + offset_weight offset offset', on the device."""
        vectors = arrays.upload(np.stack([correction, offset]))
        n = total.shape[0]
        tiles.commit_gram.launch(
            *launch.over_strips(n, n), self.gram, vectors[0], vectors[1], float(offset_weight), total
        )


def square(n: int) -> Any:
    """An (n, n) total of zeros, for `GramChunk.add_to`."""
    with arrays.device_errors():
        return arrays.xp.zeros((n, n))


def symmetric(total: Any) -> np.ndarray:
    """The total on the host, both triangles."""
    n = total.shape[0]
    tiles.symmetrize.launch(*launch.over_strips(n, n), total)
    return arrays.download(total)


def gram(view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None]) -> None:
    """Second moments chunk by chunk; as backends/cpu/passes.py::gram."""
    n, xp = view.n_entries, arrays.xp
    compute = view.source.compute_dtype
    with arrays.device_errors():
        loader = _Loader(view, None)
        slots = [_Slot(xp.empty((n, n), compute), n) for _ in range(2)]
    shift = view.shift.astype(compute)

    def run(index: int, chunk: DeviceChunk, slot: _Slot, loader: _Loader, moved: np.ndarray | None = None) -> None:
        slot.chunk, slot.shift = chunk, shift if moved is None else moved
        rows = loader.load(index, chunk, None if moved is None else arrays.upload(moved.astype(loader.dtype)))
        if not view.by_feature:
            slot.statistics[...] = 0.0
            loader.add_statistics(rows, slot.statistics)
            arrays.start_download(slot.statistics, slot.host)
            slot.ready = arrays.event()
        beta = 0.0
        for top in range(0, rows, view.tiling.tile):
            blas.syrk(loader.buffer[top : top + view.tiling.tile], beta, slot.result)
            beta = 1.0

    def settle(index: int, slot: _Slot) -> None:
        first, last = view.bounds(index)
        count, result = last - first, slot.result
        if view.by_feature:
            sums, squares = arrays.download(loader.totals[:, first:last])
            commit(GramChunk(first, count, float(count), shift, result, sums, squares))
            return
        arrays.wait(slot.ready)
        weight = mass(view.line_weights(index), count)
        if np.isfinite(slot.host[0]).all():
            if pilot_variance is not None and weight > 0 and drifted(*slot.host, weight, pilot_variance):
                moved = (view.shift + slot.host[0] / (weight * view.scale)).astype(compute)
                run(index, slot.chunk, slot, loader, moved)
                arrays.wait(slot.ready)
            if compute.itemsize == 4 and not (slot.host[1] < np.finfo(np.float32).max).all():
                result = _in_float64(view, index, slot, run)
        commit(GramChunk(first, count, weight, slot.shift, result, slot.host[0].copy(), slot.host[1].copy()))

    _pipeline(view, slots, lambda index, chunk, slot: run(index, chunk, slot, loader), settle)


def _in_float64(view: View, index: int, slot: _Slot, run: Callable[..., None]) -> Any:
    """The Gram of a chunk whose squares overflow float32; its statistics in the slot are those of float64 then."""
    single, n = slot.result, view.n_entries
    slot.result = double = arrays.xp.empty((n, n), np.float64)
    run(index, slot.chunk, slot, _Loader(view, None, np.dtype(np.float64)), slot.shift)
    arrays.wait(slot.ready)
    slot.result = single
    return double


def can_count(source: Any) -> bool:
    """Whether `integer_gram` takes this source: bytes."""
    return source.dtype in (np.int8, np.uint8)


def integer_gram(view: View, commit: Callable[[GramChunk], None]) -> None:
    """`gram` of bytes by sample, without scale and weights: every sum is exact.  The shift of uint8 is 128."""
    n, xp, align = view.n_entries, arrays.xp, integers.ALIGNMENT
    columns = -(-n // align) * align
    origin = 128 if view.source.dtype == np.uint8 else 0
    with arrays.device_errors():
        slots = [_Slot(xp.empty((columns, columns), np.int32), n) for _ in range(2)]
        buffer = xp.empty(columns * (-(-min(view.n_lines, view.tiling.chunk) // align) * align), np.int8)

    def start(index: int, chunk: DeviceChunk, slot: _Slot) -> None:
        lines = -(-chunk.count // align) * align
        held = buffer[: columns * lines].reshape(columns, lines)
        partials = xp.empty((launch.strips(lines), n), np.int64)
        integers.load_bytes.launch(
            *launch.over_strips(lines, columns), chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count,
            np.int32(origin), held, partials,
        )  # fmt: skip
        slot.statistics[...] = 0.0
        _add(partials, slot.statistics[0])
        arrays.start_download(slot.statistics, slot.host)
        slot.ready = arrays.event()
        blas.integer_gram(held, slot.result)

    def settle(index: int, slot: _Slot) -> None:
        arrays.wait(slot.ready)
        first, last = view.bounds(index)
        shift = np.full(n, float(origin))
        count = last - first
        commit(GramChunk(first, count, float(count), shift, slot.result, slot.host[0].copy(), _EMPTY))

    _pipeline(view, slots, start, settle)


def row_pass(
    view: View,
    block: Any,
    with_inner: bool = False,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    offset: np.ndarray | None = None,
) -> PassResult:
    """sum over lines of line' (line block); as backends/cpu/passes.py::row_pass, the image stays on the device."""
    xp, n, width, tile = arrays.xp, view.n_entries, block.shape[1], view.tiling.tile
    with arrays.device_errors():
        loader = _Loader(view, known)
        block = arrays.upload(block)
        most = loader.buffer.shape[0]
        rows, parts = xp.empty((most, width), block.dtype), xp.empty((most // tile, n, width), block.dtype)
        squares = xp.empty((most // tile, width, width), block.dtype)
        image, inner = xp.zeros((n, width)), xp.zeros((width, width) if with_inner else (0, 0))
        statistics = xp.zeros((2, 0 if view.by_feature else n))
        total = xp.zeros(0 if offset is None else width)
        moved = None if offset is None else arrays.upload(offset.astype(block.dtype))
        partials = xp.empty((launch.strips(most), width))

    def start(index: int, chunk: DeviceChunk, slot: None) -> None:
        count = loader.load(index, chunk)
        loader.add_statistics(count, statistics)
        n_tiles = count // tile
        products = rows[:count]
        blas.gemm(loader.buffer[:count], block, products)
        if moved is not None:
            weights = view.line_weights(index)
            roots = arrays.upload(np.sqrt(weights).astype(block.dtype)) if weights.size else loader.nothing
            strips = launch.strips(chunk.count)
            tiles.center_products.launch(
                *launch.over_strips(chunk.count, width), products, chunk.count, moved, roots, partials[:strips]
            )
            _add(partials[:strips], total)
        tall = products.reshape(n_tiles, tile, width)
        blas.cross(loader.buffer[:count].reshape(n_tiles, tile, n), tall, parts[:n_tiles])
        _add(parts[:n_tiles], image)
        if with_inner:
            blas.cross(tall, tall, squares[:n_tiles])
            _add(squares[:n_tiles], inner)

    _pipeline(view, [None], start, lambda index, slot: None)
    sums = known or tuple(arrays.download(loader.totals if view.by_feature else statistics))
    return PassResult(image, arrays.download(inner), arrays.download(total), *sums)


def statistics(view: View) -> PassResult:
    """Sums and squares alone: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), view.source.compute_dtype))


def project(view: View, block: Any, out: Any, known: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """out[r] <- line_r block for every line; as backends/cpu/passes.py::project.

    out : (lines, b) on the host or on the device.
    """
    xp, width = arrays.xp, block.shape[1]
    with arrays.device_errors():
        loader = _Loader(view, known)
        block = arrays.upload(block)
        most = loader.buffer.shape[0]
        slots = [_Products(most, width, block.dtype, out) for _ in range(2)]
        statistics = xp.zeros((2, 0 if view.by_feature else view.n_entries))

    def start(index: int, chunk: DeviceChunk, slot: _Products) -> None:
        count = loader.load(index, chunk)
        loader.add_statistics(count, statistics)
        blas.gemm(loader.buffer[: chunk.count], block, slot.device[: chunk.count])
        slot.send(chunk.count)

    def settle(index: int, slot: _Products) -> None:
        slot.deliver(out, *view.bounds(index))

    _pipeline(view, slots, start, settle)
    if known is not None:
        return known[0]
    return arrays.download(loader.totals if view.by_feature else statistics)[0]


class _Products:
    """Products of one chunk, on their way to where `out` is."""

    def __init__(self, rows: int, width: int, dtype: np.dtype, out: Any) -> None:
        self.device = arrays.xp.empty((rows, width), dtype)
        self.host = None
        if isinstance(out, np.ndarray):
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
        out[first:last] = self.host[: last - first]
