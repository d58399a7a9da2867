"""How the CPU passes walk over a view: chunks on all threads, in order, each thread with a workspace of its own.

Chunks are cut by the plan alone and commit in order, so results are the same bits for any number of threads.  Memory is
read by the threads that compute; files and generators by one thread, ahead of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...drift import Runs
from ...lines import Known, Piece, View
from ...threads import ordered_loop, ordered_stream
from ..products import RUN
from ..registers import VECTOR_BYTES, aligned_zeros

# A tile has at most 128 lines (plan.py).  OpenBLAS multiplies without blocking, in one run as long as the line, up to a
# million products.
RUNS = Runs(lines=128, entries=RUN, unblocked=0.0 if VECTOR_BYTES > 0 else 1e6)


def each_chunk(
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
        lambda number, slot: work(view.piece(number), slot),
        lambda number, slot: finish(view.piece(number), slot),
        start,
    )


def new_buffer(tile: int, n: int, dtype: np.dtype) -> np.ndarray:
    """Room for a tile of lines of n entries, an odd number of cache lines apart.

    Products read a few numbers of each line at a time.  If lines lay a power of two apart, they would share a few
    places of the cache.
    """
    lines = -(-n * dtype.itemsize // 64)
    return aligned_zeros((tile, (lines + 1 - lines % 2) * 64 // dtype.itemsize), dtype)


class Slot:
    """One thread's workspace: a tile and, where lines are samples, a chunk's sums and squares."""

    def __init__(self, view: View, dtype: np.dtype | None = None) -> None:
        n = view.n_entries
        dtype = np.dtype(dtype or view.source.compute_dtype)
        self.buffer = new_buffer(view.tiling.tile, n, dtype)
        self.partial = np.zeros((2, n))
        self.sums, self.squares = np.zeros(n), np.zeros(n)

    def prepare(self, view: View, first: int, count: int, gathered: Known) -> Known:
        """Where `tiles.load` reads or writes the sums and squares of a chunk; `gathered` are the whole matrix's."""
        if view.by_feature:
            return gathered[0][first : first + count], gathered[1][first : first + count]
        self.sums[:] = 0.0
        self.squares[:] = 0.0
        return self.sums, self.squares

    def deliver(self, view: View, learn: bool, gathered: Known) -> None:
        """Add a chunk's sums and squares to those of the whole matrix."""
        if learn and not view.by_feature:
            gathered[0][:] += self.sums
            gathered[1][:] += self.squares


def features_flag(view: View) -> bool | None:
    """What the kernels take as their `by_feature`: True, or None, for which Numba leaves out the code for features."""
    return True if view.by_feature else None


def kernel_shift(view: View, dtype: np.dtype, shift: np.ndarray | None = None) -> np.ndarray:
    """What `tiles.load` takes as its `shift`, which is two things.

    By sample the view's, or the one given, in `dtype`; by feature whether to center, and the denominator.
    """
    if view.by_feature:
        return np.array([float(view.center), view.denominator], dtype)
    return (view.shift if shift is None else shift).astype(dtype, copy=False)


def room_for_statistics(view: View) -> Known:
    """Room for sums and squares: per line when lines are features, else per entry."""
    size = view.n_lines if view.by_feature else view.n_entries
    return np.zeros(size), np.zeros(size)
