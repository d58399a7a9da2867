"""Kernels over the stored entries of a compressed sparse matrix, and their host side; see cpu/passes/sparse.py.

Both products of a pass gather: a line's product reads rows of the block through CSR, and an entry's row of the image
reads lines' products through CSC.  So nothing is scattered, sums have one order, and both formats of the matrix are
kept on the device, which must hold them.

A thread sums LONGEST_RUN products in the compute dtype, and such sums in float64.  A Gram over pairs of stored entries
sums in float64 throughout.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ...lines import Lines, SparsePassResult, Statistics
from .. import arrays, launch, panels
from ..launch import HEIGHT, WIDTH
from ..target import Kernel, cuda
from .gram import square, symmetric

LONGEST_RUN = 256


@Kernel
def gather(indptr, indices, data, factor, weights, block, alpha, offset, out):
    """out[i] <- factor sum_k data[k] weights[index_k] block[index_k] - alpha_i offset, k over line i.

    indptr : (lines + 1,);  indices, data : stored entries;  block : (n, b) and offset : (b,) or empty, compute dtype
    weights : (n,) compute dtype or empty for ones;  alpha : (lines,) compute dtype or empty for ones
    out : (lines, b) compute dtype or float64.  2 b flops and b + 2 numbers read per stored entry; sums of LONGEST_RUN
    products in float64.  Naive twin: oracle/naive.py::sparse_pass.  WIDTH threads per line, a column each.
    """
    real = block.dtype.type
    i = np.int64(cuda.blockIdx.x) * HEIGHT + cuda.threadIdx.y
    j = np.int64(cuda.blockIdx.y) * WIDTH + cuda.threadIdx.x
    if i < out.shape[0] and j < out.shape[1]:
        start, stop = np.int64(indptr[i]), np.int64(indptr[i + 1])
        whole = np.float64(0.0)
        for top in range(start, stop, LONGEST_RUN):
            total = real(0.0)
            for k in range(top, min(stop, top + LONGEST_RUN)):
                value = real(data[k])
                if weights.shape[0] > 0:
                    value *= weights[indices[k]]
                total += value * block[indices[k], j]
            whole += total
        result = np.float64(factor) * whole
        if offset.shape[0] > 0:
            moved = offset[j]
            if alpha.shape[0] > 0:
                moved *= alpha[i]
            result -= moved
        out[i, j] = result


@Kernel
def line_statistics(indptr, indices, data, factor, weights, out):
    """out[0, i], out[1, i] <- sum of w v and of w v^2, v = factor data[k], over line i; w = weights[index_k] or 1.

    weights : (n,) float64 or empty;  out : (2, lines) float64.  4 flops per stored entry, float64.  A thread per line.
    Naive twin: oracle/naive.py::sparse_statistics.
    """
    i = cuda.grid(1)
    if i < out.shape[1]:
        total, square = np.float64(0.0), np.float64(0.0)
        for k in range(indptr[i], indptr[i + 1]):
            value = np.float64(data[k]) * factor
            weight = np.float64(1.0)
            if weights.shape[0] > 0:
                weight = weights[indices[k]]
            total += weight * value
            square += weight * value * value
        out[0, i] = total
        out[1, i] = square


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


class _OnDevice:
    """Both formats of a matrix, by what their lines are, each copied when it is first read."""

    def __init__(self) -> None:
        self.formats: dict[bool, tuple[Any, ...]] = {}

    def lines(self, source: Any, by_feature: bool) -> tuple[Any, ...]:
        if by_feature not in self.formats:
            parts = source.lines(0, source.n_lines(by_feature), by_feature)
            with arrays.device_errors():
                self.formats[by_feature] = tuple(arrays.upload(part) for part in parts)
        return self.formats[by_feature]


_copies: weakref.WeakKeyDictionary[Any, _OnDevice] = weakref.WeakKeyDictionary()


def _lines(lines: Lines, turned: bool = False) -> tuple[Any, ...]:
    """(indptr, indices, data) on the device; turned: the other format, whose lines are this one's entries."""
    copy = _copies.setdefault(lines.source, _OnDevice())
    return copy.lines(lines.source, lines.by_feature != turned)


def _gather(
    lines: Lines, turned: bool, weights: np.ndarray, block: Any, alpha: np.ndarray, offset: np.ndarray, out: Any
) -> None:
    dtype = block.dtype
    vectors = [arrays.upload(vector, dtype) for vector in (weights, alpha, offset)]
    gather.launch(
        *launch.over_rows(*out.shape), *_lines(lines, turned), dtype.type(lines.factor), vectors[0], block,
        *vectors[1:], out,
    )  # fmt: skip


def _statistics(parts: tuple[Any, ...], factor: float, weights: np.ndarray) -> np.ndarray:
    """(2, lines) float64 on the host, see `line_statistics`."""
    n = parts[0].shape[0] - 1
    out = arrays.xp.empty((2, n))
    line_statistics.launch(*launch.over_items(n), *parts, factor, arrays.upload(weights), out)
    return arrays.download(out)


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
    stored, run = (np.diff(arrays.download(parts[0])) for parts in (straight, turned))
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
        *launch.over_groups(n), *_lines(lines), *_lines(lines, turned=True), float(lines.factor),
        arrays.upload(weights), total,
    )  # fmt: skip
    if lines.tick is not None:
        lines.tick(1, 1)
    return symmetric(total)


def project(lines: Lines, block: Any, offset: np.ndarray, alpha: np.ndarray, out: np.ndarray) -> None:
    """See interface.SparsePasses."""
    with arrays.device_errors():
        block = arrays.upload(block)
        products = arrays.xp.empty(out.shape, block.dtype)
    _gather(lines, False, np.empty(0), block, alpha, offset, products)
    out[...] = arrays.download(products)
