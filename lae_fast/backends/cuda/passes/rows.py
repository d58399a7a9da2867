"""Passes over dense lines on the device: products with a block, statistics, projections."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...lines import Known, PassResult, Piece, View
from .. import arrays, blas, launch
from ..stream import DeviceChunk
from . import tiles
from .chunks import Loader, pipeline
from .totals import add_parts


def row_pass(
    view: View,
    block: Any,
    with_inner: bool = False,
    known: Known | None = None,
    offset: np.ndarray | None = None,
    compares: bool = False,
) -> PassResult:
    """See interface.RowPasses.  The image stays on the device, and so does a chunk as it was loaded, where there is
    room: the next pass moves it twice, as bare products do, and not four times.

    `compares` is ignored: how cuBLAS sums is not known.
    """
    xp, n, width, tile = arrays.xp, view.n_entries, block.shape[1], view.tiling.tile
    with arrays.device_errors():
        loader = Loader(view, known, block.dtype, keeps=True)
        block = arrays.upload(block)
        most = loader.rows
        rows, parts = xp.empty((most, width), block.dtype), xp.empty((most // tile, n, width), block.dtype)
        squares = xp.empty((most // tile, width, width), block.dtype)
        image, inner = xp.zeros((n, width)), xp.zeros((width, width) if with_inner else (0, 0))
        statistics = xp.zeros((2, 0 if view.by_feature else n))
        total = xp.zeros(0 if offset is None else width)
        moved = None if offset is None else arrays.upload(offset.astype(block.dtype))
        partials = xp.empty((launch.strips(most), width))

    def launch_(piece: Piece, chunk: DeviceChunk, slot: None) -> None:
        lines = loader.load(piece, chunk)
        count = lines.shape[0]
        loader.add_statistics(count, statistics)
        n_tiles = count // tile
        products = rows[:count]
        blas.gemm(lines, block, products, view.precision)
        if moved is not None:
            weights = view.line_weights(piece)
            roots = arrays.upload(np.sqrt(weights).astype(block.dtype)) if weights.size else loader.nothing
            strips = launch.strips(chunk.count)
            tiles.center_products.launch(
                *launch.over_strips(chunk.count, width), products, chunk.count, moved, roots, partials[:strips]
            )
            add_parts(partials[:strips], total)
        tall = products.reshape(n_tiles, tile, width)
        blas.cross(lines.reshape(n_tiles, tile, n), tall, parts[:n_tiles], view.precision)
        add_parts(parts[:n_tiles], image)
        if with_inner:
            blas.cross(tall, tall, squares[:n_tiles])
            add_parts(squares[:n_tiles], inner)

    pipeline(view, [None], launch_, lambda piece, slot: None)
    sums = known or tuple(arrays.download(loader.gathered if view.by_feature else statistics))
    return PassResult(image, arrays.download(inner), arrays.download(total), *sums)


def statistics(view: View, dtype: np.dtype) -> PassResult:
    """See interface.RowPasses: a row pass with an empty block."""
    return row_pass(view, np.empty((view.n_entries, 0), dtype))


def project(
    view: View,
    block: Any,
    out: Any,
    known: Known | None = None,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """See interface.RowPasses."""
    xp, width = arrays.xp, block.shape[1]
    with arrays.device_errors():
        loader = Loader(view, known)
        block = arrays.upload(block)
        moved = None if offset is None else arrays.upload(offset, block.dtype)
        slots = [_Products(loader.rows, width, block.dtype, out) for _ in range(2)]
        statistics = xp.zeros((2, 0 if view.by_feature else view.n_entries))

    def launch_(piece: Piece, chunk: DeviceChunk, slot: _Products) -> None:
        lines = loader.load(piece, chunk)
        loader.add_statistics(lines.shape[0], statistics)
        products = slot.device[: chunk.count]
        blas.gemm(lines[: chunk.count], block, products)
        if moved is not None:
            products -= moved
        slot.send(chunk.count)

    def settle(piece: Piece, slot: _Products) -> None:
        slot.deliver(out, piece.first, piece.last)

    pipeline(view, slots, launch_, settle)
    if known is not None:
        return known[0]
    return arrays.download(loader.gathered if view.by_feature else statistics)[0]


class _Products:
    """Products of one chunk, on their way to `out`, an array or a callable."""

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
