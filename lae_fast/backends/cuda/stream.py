"""Chunks of the data on the device: where they lie, or on their way from the host, and kept there while they fit.

Host data are copied by a few threads into pinned buffers, from there by the copy engine into one of three device
buffers, while kernels work on another.  A chunk whose place is left in half of the device's free memory stays, so that
further passes over data that fit read nothing from the host.  Data on the device are used where they lie.  Room that is
left keeps chunks as a pass has loaded them: shifted, scaled and weighted, in the compute dtype.  Files and generators
are read by the caller's thread, ahead of the work, and one after the other.
"""

from __future__ import annotations

import collections
import itertools
import math
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..lines import Known, Piece, View
from . import arrays

# What `tiles.load` reads as it is; anything else is converted to the compute dtype on the way.
_KERNEL_DTYPES = frozenset(np.dtype(name) for name in ("float16", "float32", "float64", "uint8", "int8", "int16"))
# One thread copies slower than the bus.
PINNED_BUFFERS = 4
# One is read, one is written, and one may be read again: a chunk whose pilot was off.
_DEVICE_BUFFERS = 3


class DeviceChunk(NamedTuple):
    """`count` lines: entry j of line r is flat[r * line_stride + j * entry_stride].  flat : 1-D device array."""

    flat: Any
    line_stride: int
    entry_stride: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls


class _Staged(NamedTuple):
    """A chunk in pinned memory: flat host array, as it will lie on the device."""

    flat: np.ndarray
    line_stride: int
    entry_stride: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls


class _Destination(NamedTuple):
    """Device memory for a chunk.  It may have been another array's, which kernels in the device's queue still use.

    flat : 1-D;  clear : the event after which they are done;  stays : whether the chunk is to be kept.
    """

    flat: Any
    clear: Any
    stays: bool


class Residence:
    """The chunks of one source that stay on the device, of the side that was read last: as they were read, and as a
    pass has loaded them."""

    def __init__(self) -> None:
        self.room = arrays.free_bytes() // 2
        self.side: Any = None
        self.chunks: dict[int, DeviceChunk] = {}
        self.loaded: dict[int, Any] = {}
        self._view: Callable[[], View | None] = lambda: None
        self._known: Known | None = None
        self._dtype: np.dtype | None = None

    def turn_to(self, side: Any) -> None:
        """Lines of the other side, or cut otherwise, are other chunks: forget these."""
        if side != self.side:
            self._forget_loaded()
            self.room += sum(chunk.flat.nbytes for chunk in self.chunks.values())
            self.side, self.chunks = side, {}

    def load_as(self, view: View, known: Known | None, dtype: np.dtype) -> None:
        """Forget what was loaded otherwise: of a view that is not this object, in another dtype, or by feature with
        statistics that are not these objects."""
        known = known if view.by_feature else None
        if not (self._view() is view and self._known is known and self._dtype == dtype):
            self._forget_loaded()
            self._view = weakref.ref(view)  # it holds the source, which would not be freed
            self._known, self._dtype = known, dtype

    def _forget_loaded(self) -> None:
        self.room += sum(lines.nbytes for lines in self.loaded.values())
        self.loaded, self._view = {}, lambda: None

    def place(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A device array for a chunk that is to stay, or None where there is no room, or is no longer."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > self.room:
            return None
        try:
            found = arrays.xp.empty(shape, dtype)
        except arrays.out_of_memory():
            self.room = 0
            return None
        self.room -= n_bytes
        return found


_residences: weakref.WeakKeyDictionary[Any, Residence] = weakref.WeakKeyDictionary()


def forget(source: Any) -> None:
    """Give up the chunks of a source that stay: something else will hold its data."""
    _residences.pop(source, None)


def residence(view: View) -> Residence | None:
    """Where chunks of this view can stay loaded; None unless all of them are on the device, whose copies come first."""
    if math.isinf(view.n_lines):
        return None
    home = _residences.setdefault(view.source, Residence())
    home.turn_to((view.by_feature, view.tiling, view.n_lines))
    return home if view.source.on_device or len(home.chunks) == view.n_chunks else None


def chunks(view: View, start: int = 0) -> Iterator[tuple[Piece, DeviceChunk]]:
    """Piece and chunk, in order, from chunk `start` on.  A chunk may be read until the one after the next is asked for.

    Chunks of rows that have not been counted do not stay: the next pass cuts others.
    """
    if view.source.on_device:
        for index in range(start, view.n_chunks):
            piece = view.piece(index)
            yield piece, _in_place(view, piece)
        return
    if math.isinf(view.n_lines):
        yield from _arrivals(view, view.pieces(start), None)
        return
    home = _residences.setdefault(view.source, Residence())
    home.turn_to((view.by_feature, view.tiling, view.n_lines))
    wanted = [index for index in range(start, view.n_chunks) if index not in home.chunks]
    pieces = view.pieces(start, frozenset(home.chunks)) if view.source.in_order else map(view.piece, wanted)
    arriving = _arrivals(view, iter(pieces), home)
    try:
        for index in range(start, view.n_chunks):
            chunk = home.chunks.get(index)
            yield next(arriving) if chunk is None else (view.piece(index), chunk)
    finally:
        arriving.close()


def _arrivals(
    view: View, pieces: Iterator[Piece], home: Residence | None
) -> Generator[tuple[Piece, DeviceChunk], None, None]:
    """The chunks that are not on the device, in order, through pinned buffers; they stay where `home` has room."""
    copies = arrays.CopyStream()
    buffers: list[Any] = [None] * _DEVICE_BUFFERS
    marks: list[Any] = []  # an event for every chunk: its kernels, and all before, are launched

    def destination(position: int, flat: np.ndarray) -> _Destination:
        place = None if home is None else home.place(flat.shape, flat.dtype)
        if place is not None:
            return _Destination(place, arrays.event(), True)
        slot = position % _DEVICE_BUFFERS
        before, buffers[slot] = buffers[slot], _at_least(buffers[slot], flat)
        clear = marks[position - 2] if before is buffers[slot] else arrays.event()
        return _Destination(_first(buffers[slot], flat), clear, False)

    with ThreadPoolExecutor(PINNED_BUFFERS, thread_name_prefix="lae_fast_read") as readers:
        pinned: list[np.ndarray | None] = [None] * PINNED_BUFFERS
        staged: collections.deque[tuple[Piece, Future[_Staged]]] = collections.deque()

        def read_ahead(position: int, after: Any) -> None:
            """Stage the next chunk in its pinned buffer, once the copy `after` has left that."""
            piece = next(pieces, None)
            if piece is not None:
                future = readers.submit(_stage, view, piece, pinned, position, after)
                staged.append((piece._replace(lines=None), future))

        ahead: _Destination | None = None
        copied = None
        try:
            for position in range(PINNED_BUFFERS):
                read_ahead(position, None)
            for position in itertools.count():
                if not staged:
                    return
                piece, future = staged.popleft()
                here = future.result()
                flat, clear, stays = ahead or destination(position, here.flat)
                copied = copies.copy(here.flat, flat, clear)
                read_ahead(position + PINNED_BUFFERS, copied)
                chunk = DeviceChunk(flat, here.line_stride, here.entry_stride, here.count)
                if home is not None and stays:
                    home.chunks[piece.number] = chunk
                ahead = None
                if staged and staged[0][1].done() and not staged[0][1].exception():
                    # before this chunk's kernels are launched, so that the next copy need not wait for them
                    ahead = destination(position + 1, staged[0][1].result().flat)
                yield piece, chunk
                marks.append(arrays.event())
        finally:
            for _, future in staged:
                future.cancel()
            arrays.wait(copied)  # pinned memory goes back to a pool, from which other threads take it
            if home is not None and ahead is not None and ahead.stays:
                home.room += ahead.flat.nbytes


def _stage(view: View, piece: Piece, pinned: list[np.ndarray | None], position: int, after: Any) -> _Staged:
    """Copy a piece into a pinned buffer, in the memory order it has, once the event `after` has come."""
    arrays.wait(after)
    block = _block(view, piece)
    dtype = _kernel_dtype(block.dtype, view.source.compute_dtype)
    lines, entries = block.shape
    turned = abs(block.strides[0]) < abs(block.strides[1])
    slot = position % PINNED_BUFFERS
    size = block.size * dtype.itemsize
    buffer = pinned[slot]
    if buffer is None or buffer.size < size:
        buffer = pinned[slot] = arrays.pinned(size)
    flat = buffer[:size].view(dtype)
    target = flat.reshape(entries, lines).T if turned else flat.reshape(lines, entries)
    np.copyto(target, block, casting="unsafe")
    line_stride, entry_stride = (1, lines) if turned else (entries, 1)
    return _Staged(flat, line_stride, entry_stride, lines)


def _block(view: View, piece: Piece) -> np.ndarray:
    """The lines of a piece, (lines, entries): those that were read ahead, or now."""
    if piece.lines is None:
        return np.asarray(view.source.block(piece.first, piece.last, view.by_feature))
    flat, line_stride, entry_stride, count = piece.lines
    strides = (line_stride * flat.itemsize, entry_stride * flat.itemsize)
    return np.lib.stride_tricks.as_strided(flat, (count, view.n_entries), strides, writeable=False)


def _in_place(view: View, piece: Piece) -> DeviceChunk:
    """A chunk of data that are on the device: a view of them, or a copy where no kernel can read them."""
    return flat_lines(view.source.device_block(piece.first, piece.last, view.by_feature), view.source.compute_dtype)


def flat_lines(block: Any, compute: np.dtype) -> DeviceChunk:
    """The lines of a 2-D device array as kernels want them: a view, or a copy where no kernel can read them."""
    dtype = _kernel_dtype(block.dtype, compute)
    itemsize = block.dtype.itemsize
    readable = block.dtype == dtype and all(s >= 0 and s % itemsize == 0 for s in block.strides)
    if not readable:
        block = arrays.xp.ascontiguousarray(block, dtype=dtype)
        itemsize = dtype.itemsize
    line_stride, entry_stride = (stride // itemsize for stride in block.strides)
    lines, entries = block.shape
    extent = (lines - 1) * line_stride + (entries - 1) * entry_stride + 1
    flat = arrays.xp.lib.stride_tricks.as_strided(block, (extent,), (itemsize,))
    return DeviceChunk(flat, line_stride, entry_stride, lines)


def _kernel_dtype(dtype: np.dtype, compute: np.dtype) -> np.dtype:
    native = dtype.newbyteorder("=")
    return native if native in _KERNEL_DTYPES else np.dtype(np.uint8) if dtype == np.bool_ else compute


def _at_least(buffer: Any, flat: np.ndarray) -> Any:
    """The buffer, or a larger one where it does not hold `flat`."""
    if buffer is None or buffer.size < flat.nbytes:
        buffer = arrays.xp.empty(math.ceil(flat.nbytes / 256) * 256, np.uint8)
    return buffer


def _first(buffer: Any, flat: np.ndarray) -> Any:
    """The beginning of a buffer of bytes as an array like `flat`."""
    return buffer[: flat.nbytes].view(flat.dtype)
