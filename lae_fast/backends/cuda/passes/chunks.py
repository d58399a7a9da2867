"""How the CUDA passes walk over a view: while one chunk is computed, the host reads the result of the one before.

Chunks commit in order.  The host launches a chunk's kernels before it looks at the numbers of the chunk before, so the
device does not wait for it.

A chunk is far longer than on the CPU, because a launch costs microseconds.  What is summed in the compute dtype are its
tiles of `RUNS.lines` lines, and tiles are added in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...drift import Runs
from ...lines import Known, Piece, View
from ...sample_weights import mass
from .. import arrays, launch, stream
from ..stream import DeviceChunk
from . import tiles, totals

# Lines of a tile (plan.py cuts by it);  cuBLAS sums all entries of a line in one run.
RUNS = Runs(lines=2048, entries=1 << 62)


class Loader:
    """Chunks in the compute dtype, shifted, scaled and weighted, and their statistics.

    rows : lines of the longest chunk in whole tiles
    keeps : whether chunks stay as they were loaded, where there is room, for further passes with the same view; by
        feature also with the same `known`, since a pass that learns centres a line by steps that others do not repeat
    gathered : by feature, sums and squares (2, lines) of the whole matrix on the device, learned or known.
    """

    def __init__(self, view: View, known: Known | None, dtype: np.dtype | None = None, keeps: bool = False) -> None:
        self.view, self.learn = view, known is None
        self.dtype = np.dtype(dtype or view.source.compute_dtype)
        xp, n, tile = arrays.xp, view.n_entries, view.tiling.tile
        self.rows = -(-min(view.n_lines, view.tiling.chunk) // tile) * tile
        self.partials = xp.empty((launch.strips(self.rows), 2, n), np.float64)
        self.nothing = xp.empty(0, self.dtype)
        self.gathered = xp.zeros((2, view.n_lines if view.by_feature else 0))
        if view.by_feature:
            if known is not None:
                self.gathered = arrays.upload(np.stack(known))
            self.weights = arrays.upload(view.weights)
            self.mass = mass(view.weights, n)
            self.zeros = xp.zeros(n, self.dtype)
        else:
            self.shift = arrays.upload(view.shift.astype(self.dtype))
        self._home = stream.residence(view) if keeps else None
        if self._home is not None:
            self._home.load_as(view, known, self.dtype)

    @functools.cached_property
    def _buffer(self) -> Any:
        return arrays.xp.empty((self.rows, self.view.n_entries), self.dtype)

    def load(self, piece: Piece, chunk: DeviceChunk, shift: Any = None) -> Any:
        """The chunk, (rows, n), whole tiles with zeros behind its lines; until the next one unless it stays.

        Statistics by sample are left in `partials`.
        """
        home = self._home
        if home is not None and not self.learn and piece.number in home.loaded:
            return home.loaded[piece.number]
        tile = self.view.tiling.tile
        shape = -(-chunk.count // tile) * tile, self.view.n_entries
        place = None if home is None or piece.number in home.loaded else home.place(shape, self.dtype)
        part = self._buffer[: shape[0]] if place is None else place
        self._fill(part, piece, chunk, shift)
        if home is not None and place is not None:
            home.loaded[piece.number] = place
        return part

    def _fill(self, part: Any, piece: Piece, chunk: DeviceChunk, shift: Any) -> None:
        view, real = self.view, self.dtype.type
        grid, block = launch.over_strips(*part.shape)
        if not view.by_feature:
            weights = view.line_weights(piece)
            roots = arrays.upload(np.sqrt(weights).astype(self.dtype)) if weights.size else self.nothing
            tiles.load.launch(
                grid, block, chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count,
                self.shift if shift is None else shift, real(view.scale), roots, self.learn, part, self.partials,
            )  # fmt: skip
            return
        tiles.load.launch(
            grid, block, chunk.flat, chunk.line_stride, chunk.entry_stride, chunk.count, self.zeros, real(1.0),
            self.nothing, False, part, self.partials,
        )  # fmt: skip
        tiles.center_lines.launch(
            *launch.over_lines(chunk.count), part, view.center, self.mass, view.denominator, real(view.scale),
            self.weights, self.learn, *self.gathered[:, piece.first : piece.last],
        )  # fmt: skip

    def add_statistics(self, rows: int, statistics: Any, fresh: bool = False) -> None:
        """statistics (2, n) += those of the chunk that was loaded last, by sample; `fresh`: those alone."""
        if self.learn and not self.view.by_feature:
            totals.add_parts(self.partials[: launch.strips(rows)], statistics, fresh)


def pipeline(
    view: View,
    slots: list[Any],
    launch_: Callable[[Piece, DeviceChunk, Any], None],
    settle: Callable[[Piece, Any], None],
    start: int = 0,
) -> None:
    """launch_(piece, chunk, slot) for the chunks from `start` on, and settle(piece, slot) one chunk later, in order."""
    report = view.reporter()

    def finish(piece: Piece) -> None:
        settle(piece, slots[piece.number % len(slots)])
        report(piece)

    with arrays.device_errors():
        before = None
        try:
            for piece, chunk in stream.chunks(view, start):
                launch_(piece, chunk, slots[piece.number % len(slots)])
                if before is not None:
                    finish(before)
                before = piece
            if before is not None:
                finish(before)
        finally:
            arrays.wait(arrays.event())  # copies to the host end before their pinned memory is used again
