"""Kernels over the stored entries of a compressed sparse matrix, and their host side; see cpu/passes/sparse.py.

Both products of a pass gather: a line's product reads rows of the block through CSR, and an entry's row of the image
reads lines' products through CSC.  So nothing is scattered, sums have one order, and both formats of the matrix are
kept on the device, which must hold them.

A thread sums LONGEST_RUN products in the compute dtype, and such sums in float64.  A Gram over pairs of stored entries
sums in float64 throughout.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np

from ...lines import Lines, SparsePassResult, Statistics
from .. import arrays, launch, panels
from ..launch import HEIGHT, WIDTH
from ..reduce import sum_of
from ..target import Kernel, cuda, device
from .gram import completed, square

LONGEST_RUN = 256
# Stored entries that one thread walks through: of a longer line several do, and what they found is added in order.
LONGEST_WALK = 4 * LONGEST_RUN


@device
def less_offset(value, i, j, alpha, offset):
    """value - alpha_i offset_j;  offset : (b,) or empty for zeros;  alpha : (lines,) or empty for ones."""
    if offset.shape[0] > 0:
        moved = offset[j]
        if alpha.shape[0] > 0:
            moved *= alpha[i]
        value -= moved
    return value


@Kernel
def gather(starts, stops, indices, data, factor, weights, block, alpha, offset, out):
    """out[i] <- factor sum_k data[k] weights[index_k] block[index_k] - alpha_i offset, k from starts[i] to stops[i].

    indices, data : stored entries;  block : (n, b) and offset : (b,) or empty, compute dtype
    weights : (n,) compute dtype or empty for ones;  alpha : (lines,) compute dtype or empty for ones
    out : (lines, b) compute dtype or float64.  2 b flops and b + 2 numbers read per stored entry; sums of LONGEST_RUN
    products in float64.  Naive twin: oracle/naive.py::sparse_pass.  WIDTH threads per line, a column each.
    """
    real = block.dtype.type
    i = np.int64(cuda.blockIdx.x) * HEIGHT + cuda.threadIdx.y
    j = np.int64(cuda.blockIdx.y) * WIDTH + cuda.threadIdx.x
    if i < out.shape[0] and j < out.shape[1]:
        start, stop = np.int64(starts[i]), np.int64(stops[i])
        whole = np.float64(0.0)
        for top in range(start, stop, LONGEST_RUN):
            total = real(0.0)
            for k in range(top, min(stop, top + LONGEST_RUN)):
                value = real(data[k])
                if weights.shape[0] > 0:
                    value *= weights[indices[k]]
                total += value * block[indices[k], j]
            whole += total
        out[i, j] = less_offset(np.float64(factor) * whole, i, j, alpha, offset)


@Kernel
def line_statistics(starts, stops, indices, data, factor, weights, out):
    """out[i] <- sum of w v and of w v^2, v = factor data[k], k from starts[i] to stops[i]; w = weights[index_k] or 1.

    weights : (n,) float64 or empty;  out : (lines, 2) float64.  4 flops per stored entry, float64.  A thread per line.
    Naive twin: oracle/naive.py::sparse_statistics.
    """
    i = cuda.grid(1)
    if i < out.shape[0]:
        total, square = np.float64(0.0), np.float64(0.0)
        for k in range(starts[i], stops[i]):
            value = np.float64(data[k]) * factor
            weight = np.float64(1.0)
            if weights.shape[0] > 0:
                weight = weights[indices[k]]
            total += weight * value
            square += weight * value * value
        out[i, 0] = total
        out[i, 1] = square


@Kernel
def add_walks(parts, first, lines, factor, alpha, offset, out):
    """out[i] <- factor sum of parts[first[s] : first[s + 1]] - alpha_i offset, i = lines[s]: lines of several walks.

    parts : (walks, b) float64;  first : (k + 1,) and lines : (k,) int64;  alpha, offset, out : see `gather`
    Reads parts once, float64.  Naive twin: NumPy's sum.  A thread for every number, walks in their order.
    """
    s = np.int64(cuda.blockIdx.x) * HEIGHT + cuda.threadIdx.y
    j = np.int64(cuda.blockIdx.y) * WIDTH + cuda.threadIdx.x
    if s < lines.shape[0] and j < out.shape[1]:
        whole = sum_of(parts, first[s], first[s + 1], 1, j)
        out[lines[s], j] = less_offset(np.float64(factor) * whole, lines[s], j, alpha, offset)


@Kernel
def gram_pairs(indptr, indices, data, turned_indptr, turned_indices, turned_data, factor, weights, out):
    """out[i, j] += sum over lines l of weights[l] v_li v_lj for j <= i, v = factor data: a Gram over stored entries.

    indptr, indices, data : lines;  turned : entry i's lines, the other format;  no index twice in a line
    weights : (lines,) float64 or empty;  out : (n, n) float64.  3 flops per pair in float64, where products of float32
    are exact.  Naive twin: oracle/naive.py::moments, center=False.  A block of WIDTH threads for every i walks through
    its lines in order, a thread for every pair of the line, so that no two threads meet in an entry.
    """
    i = np.int64(cuda.blockIdx.x)
    for k in range(turned_indptr[i], turned_indptr[i + 1]):
        line = turned_indices[k]
        left = np.float64(turned_data[k]) * factor
        left *= factor
        if weights.shape[0] > 0:
            left *= weights[line]
        for q in range(indptr[line] + cuda.threadIdx.x, indptr[line + 1], cuda.blockDim.x):
            j = indices[q]
            if j <= i:
                out[i, j] += left * np.float64(data[q])
        cuda.syncthreads()


class Walks(NamedTuple):
    """How threads walk through the lines of one format, as device arrays.

    starts, stops : (lines,) of each line, of those that are longer than LONGEST_WALK nothing
    long_starts, long_stops : of each walk through these, in their order
    first : (k + 1,) the first walk of each of them;  lines : (k,) which lines they are
    """

    starts: Any
    stops: Any
    long_starts: Any
    long_stops: Any
    first: Any
    lines: Any


def walks(indptr: np.ndarray) -> Walks:
    """See `Walks`; on the host."""
    lengths = np.diff(indptr).astype(np.int64)
    lines = np.flatnonzero(lengths > LONGEST_WALK)
    counts = -(-lengths[lines] // LONGEST_WALK)
    first = np.concatenate([[0], np.cumsum(counts)])
    of = np.repeat(np.arange(lines.size), counts)
    long_starts = indptr[lines][of] + (np.arange(of.size) - first[of]) * LONGEST_WALK
    long_stops = np.minimum(long_starts + LONGEST_WALK, indptr[lines + 1][of])
    stops = indptr[1:].copy()
    stops[lines] = indptr[lines]
    kind = indptr.dtype
    return Walks(indptr[:-1], stops, long_starts.astype(kind), long_stops.astype(kind), first, lines)


class _Format(NamedTuple):
    """One format of a matrix on the device."""

    stored: tuple[Any, ...]  # indptr, indices, data
    walks: Walks


class _OnDevice:
    """Both formats of a matrix, by what their lines are, each copied when it is first read."""

    def __init__(self) -> None:
        self.formats: dict[bool, _Format] = {}

    def lines(self, source: Any, by_feature: bool) -> _Format:
        if by_feature not in self.formats:
            parts = source.lines(0, source.n_lines(by_feature), by_feature)
            with arrays.device_errors():
                stored = tuple(arrays.upload(part) for part in parts)
                self.formats[by_feature] = _Format(stored, Walks(*map(arrays.upload, walks(parts[0]))))
        return self.formats[by_feature]


_copies: weakref.WeakKeyDictionary[Any, _OnDevice] = weakref.WeakKeyDictionary()


def _lines(lines: Lines, turned: bool = False) -> _Format:
    """The format whose lines these are; turned: the other one, whose lines are this one's entries."""
    copy = _copies.setdefault(lines.source, _OnDevice())
    return copy.lines(lines.source, lines.by_feature != turned)


def _gather(
    lines: Lines, turned: bool, weights: np.ndarray, block: Any, alpha: np.ndarray, offset: np.ndarray, out: Any
) -> None:
    real = block.dtype.type
    given, *about = (arrays.upload(vector, block.dtype) for vector in (weights, alpha, offset))
    (_, *entries), cut = _lines(lines, turned)
    factor = real(lines.factor)
    shape = launch.over_rows(*out.shape)
    gather.launch(*shape, cut.starts, cut.stops, *entries, factor, given, block, *about, out)
    if cut.lines.size:
        nothing, parts = given[:0], arrays.xp.empty((cut.long_starts.size, out.shape[1]))
        shape = launch.over_rows(*parts.shape)
        gather.launch(
            *shape, cut.long_starts, cut.long_stops, *entries, real(1.0), given, block, nothing, nothing, parts
        )
        _join(parts, cut, factor, about, out)


def _join(parts: Any, cut: Walks, factor: Any, about: list[Any], out: Any) -> None:
    shape = launch.over_rows(cut.lines.size, out.shape[1])
    add_walks.launch(*shape, parts, cut.first, cut.lines, factor, *about, out)


def _statistics(format_: _Format, factor: float, weights: np.ndarray) -> np.ndarray:
    """(2, lines) float64 on the host, see `line_statistics`."""
    (_, *entries), cut = format_
    xp, given = arrays.xp, arrays.upload(weights)

    def of(starts: Any, stops: Any) -> Any:
        out = xp.empty((starts.size, 2))
        line_statistics.launch(*launch.over_items(starts.size), starts, stops, *entries, factor, given, out)
        return out

    out = of(cut.starts, cut.stops)
    if cut.lines.size:
        nothing = given[:0]
        _join(of(cut.long_starts, cut.long_stops), cut, 1.0, [nothing, nothing], out)
    return arrays.download(out).T


def statistics(lines: Lines, weights: np.ndarray) -> Statistics:
    """One read of the stored entries; as cpu/passes/sparse.py::statistics, which also checks them: here it is left to
    the source, and `run` counts all lines."""
    straight, turned = _lines(lines), _lines(lines, turned=True)
    along = _statistics(straight, lines.factor, weights if lines.by_feature else np.empty(0))
    if lines.by_feature:
        sums, squares = along
        lengths = squares
    else:
        sums, squares = _statistics(turned, lines.factor, weights)
        lengths = along[1] * weights if weights.size else along[1]
    stored, run = (np.diff(arrays.download(one.stored[0])) for one in (straight, turned))
    run = run.astype(np.int64)
    return Statistics(sums, squares, run, int(stored.max(initial=0)), float(lengths.max(initial=0.0)), run)


def row_pass(
    lines: Lines,
    block: Any,
    offset: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    heavy: np.ndarray,
    with_inner: bool,
    compares: bool = False,
) -> SparsePassResult:
    """See interface.SparsePasses.

    `heavy` entries need no care here, and sums in the compute dtype are so short that nothing is compared.
    """
    xp, width = arrays.xp, block.shape[1]
    with arrays.device_errors():
        products = xp.empty((lines.n_lines, width), block.dtype)
        image = xp.empty((lines.n_entries, width))
    _gather(lines, False, np.empty(0), block, alpha, offset, products)
    _gather(lines, True, weights, products, np.empty(0), np.empty(0), image)
    inner = np.empty((0, 0))
    if with_inner:
        scaled = products if not weights.size else products * arrays.upload(np.sqrt(weights), block.dtype)[:, None]
        inner = panels.cross(scaled, scaled)
    masses = np.ones(lines.n_lines)
    for factors in (weights, alpha):
        masses = masses * factors if factors.size else masses
    total = panels.along(masses, products)
    if lines.tick is not None:
        lines.tick(1, 1)
    return SparsePassResult(image, inner, total)


def tile_bytes(lines: Lines, width: int, n_heavy: int, itemsize: int) -> int:
    """The products of all lines, which are one tile here."""
    return lines.n_lines * width * itemsize


def can_hold(source: Any) -> bool:
    """Whether both formats fit in half of the device's free memory, if they are not there."""
    stored = source.nnz * (source.dtype.itemsize + 8)
    return source in _copies or 2 * stored <= arrays.free_bytes() // 2


def gram(lines: Lines, weights: np.ndarray) -> np.ndarray:
    """Second moments about zero (n, n), float64, on the host: see `gram_pairs`."""
    n = lines.n_entries
    total = square(n)
    gram_pairs.launch(
        *launch.over_groups(n), *_lines(lines).stored, *_lines(lines, turned=True).stored, float(lines.factor),
        arrays.upload(weights), total,
    )  # fmt: skip
    if lines.tick is not None:
        lines.tick(1, 1)
    return arrays.download(completed(total))


def project(lines: Lines, block: Any, offset: np.ndarray, alpha: np.ndarray, out: np.ndarray) -> None:
    """See interface.SparsePasses."""
    with arrays.device_errors():
        block = arrays.upload(block)
        products = arrays.xp.empty(out.shape, block.dtype)
    _gather(lines, False, np.empty(0), block, alpha, offset, products)
    out[...] = arrays.download(products)
