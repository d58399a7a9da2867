"""Kernels over the stored entries of a compressed sparse matrix, and their host side: implicit centring, no densifying.

Lines are rows of CSR (samples) or columns of CSC (features).  Line l minus alpha_l beta' is what is multiplied: for
samples alpha = 1 and beta is the mean, for features alpha is the line's mean and beta = 1.  Neither is ever subtracted
from the entries: a line's product gets alpha_l (beta' V) taken off, and the image gets beta (sum_l w_l alpha_l y_l)'
taken off (docs/storage.md, "Sparse passes").

Sums over lines are in the compute dtype within a chunk and float64 over chunks.  An entry that many lines of a chunk
use ("heavy") is moved to float64 every `LONGEST_RUN` lines, so that no run of the compute dtype is longer than that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...drift import FEWEST_SUMS, drift_of, fewest_lines
from ...lines import Lines, SparsePassResult, Statistics
from ...threads import ordered_loop
from ..blas import syrk
from ..jit import kernel
from . import tiles, totals
from .rows import widened
from .sparse_inner import WIDTHS, gather, scatter

# Lines that go through one range of indices before the next: enough to use a range's rows of the block several times.
TILE = 4096
# Lines of a tile where there is one range: their stored entries are still in cache for the second product.
_SHORT_TILE = LONGEST_RUN = 256
# Half of a small second-level cache.  A panel of few ranges is read as it lies: the next level is quick enough, and
# each visit of a line to a range costs what some entries cost.
_RANGE_BYTES = 1 << 19
_FEW_RANGES, _LEAST_ENTRIES = 4, 8
_BAD_INDEX, _DUPLICATE = 1, 2


@kernel
def statistics_chunk(indptr, indices, data, by_feature, factor, weights, marks, counts, sums, squares, largest):
    """Weighted sums and sums of squares of the stored entries of a chunk of lines; 0, or what is wrong with them.

    by_feature False: sums, squares, counts (n,) are per entry and `weights` (lines,) per line;  True: sums, squares
    (lines,) are per line and `weights` (n,) per entry.  `weights` may be empty.  counts (n,) int64: lines that store
    an entry.  marks : (n,) int64 workspace, -1 everywhere.  largest : (1,) float64, the largest w |line|^2.
    Returns 1 for an index outside [0, n), 2 for an entry stored twice in a line; what was summed is then void.
    4 flops per stored entry, float64.  Naive twin: oracle/naive.py::sparse_statistics.  Serial.
    """
    n = counts.shape[0]
    base = indptr[0]
    for line in range(indptr.shape[0] - 1):
        length = np.float64(0.0)
        for k in range(indptr[line] - base, indptr[line + 1] - base):
            j = indices[k]
            if j < 0 or j >= n:
                return 1
            if marks[j] == line:
                return 2
            marks[j] = line
            counts[j] += 1
            value = np.float64(data[k]) * factor
            if by_feature:
                weight = weights[j] if weights.shape[0] > 0 else 1.0
                sums[line] += weight * value
                squares[line] += weight * value * value
            else:
                weight = weights[line] if weights.shape[0] > 0 else 1.0
                sums[j] += weight * value
                squares[j] += weight * value * value
            length += weight * value * value
        largest[0] = max(largest[0], length)
    return 0


@kernel
def _multiply(indptr, indices, data, first, count, factor, alpha, block, offset, reach, cursor, product):
    """product[r] <- factor line_r block - alpha_r offset for `count` lines from `first`.

    All lines go through a range of `reach` indices before the next one, so that its rows of the block stay in cache.
    """
    real = block.dtype.type
    base = indptr[0]
    n, b = block.shape
    for r in range(count):
        shift = real(alpha[first + r]) if alpha.shape[0] > 0 else real(1.0)
        for j in range(b):
            product[r, j] = -shift * offset[j]
    column = 0
    while column < b:
        width = _panel(b - column)
        for r in range(count):
            cursor[r] = indptr[first + r] - base
        for limit in range(reach, n + reach, reach):
            for r in range(count):
                k, stop = cursor[r], np.int64(indptr[first + r + 1] - base)
                if width == 64:
                    k = gather(64, k, stop, limit, indices, data, factor, block, column, product, r)
                elif width == 32:
                    k = gather(32, k, stop, limit, indices, data, factor, block, column, product, r)
                else:
                    k = gather(16, k, stop, limit, indices, data, factor, block, column, product, r)
                cursor[r] = k
        column += width


@kernel
def _spread(indptr, indices, data, first, count, rest, image, heavy, exact, reach, cursor, product):
    """image += line_r' product[r] rest[r] for `count` lines from `first`; ranges of indices as in `_multiply`.

    heavy entries are moved from `image` to `exact` after every `LONGEST_RUN` lines.
    """
    base = indptr[0]
    n, b = image.shape
    column = 0
    while column < b:
        width = _panel(b - column)
        for r in range(count):
            cursor[r] = indptr[first + r] - base
        h = 0
        for limit in range(reach, n + reach, reach):
            last = h
            while last < heavy.shape[0] and heavy[last] < limit:
                last += 1
            for start in range(0, count, LONGEST_RUN):
                for r in range(start, min(start + LONGEST_RUN, count)):
                    k, stop = cursor[r], np.int64(indptr[first + r + 1] - base)
                    if width == 64:
                        k = scatter(64, k, stop, limit, indices, data, rest[r], image, column, product, r)
                    elif width == 32:
                        k = scatter(32, k, stop, limit, indices, data, rest[r], image, column, product, r)
                    else:
                        k = scatter(16, k, stop, limit, indices, data, rest[r], image, column, product, r)
                    cursor[r] = k
                for i in range(h, last):
                    for j in range(column, column + width):
                        exact[i, j] += image[heavy[i], j]
                        image[heavy[i], j] = 0.0
            h = last
        column += width


@kernel
def _panel(columns):
    """Width of the next panel of a block that has `columns`, a multiple of 16, left."""
    return 64 if columns >= 64 else 32 if columns >= 32 else 16


@kernel
def pass_chunk(
    indptr, indices, data, factor, alpha, weights, block, offset, reach, cursor, rest, product, image, inner, heavy,
    exact, total, runs, drift,
):  # fmt: skip
    """image += sum over the chunk's lines of w line' y, y = line block - alpha offset: S V over stored entries.

    indptr : (lines + 1,);  indices, data : the chunk's stored entries, quickest where indices ascend in every line
    factor : multiplies every entry;  alpha, weights : (lines,) float64 or empty for ones
    block : (n, b), b a multiple of 16;  offset : (b,) beta' block;  reach : indices that a tile of lines goes through
    at a time, see `walk`;  cursor : (tile,) int64 workspace
    rest : (tile,) workspace;  product : (tile, b) workspace;  image : (n, b);  all of one dtype float32|float64
    inner : (b, b) or empty: its lower triangle += sum of w y'y;  total : (b,) float64 += sum of w alpha y
    heavy : (h,) int64, ascending: entries that are moved from `image` to `exact` (h, b) float64 every LONGEST_RUN lines
    runs, drift : (3, b) and (4, b), or empty: as of `tiles.pass_chunk`, with runs of LONGEST_RUN lines, of y unweighted
    4 b flops and 3 b itemsize bytes of cache traffic per stored entry.  Naive twin: oracle/naive.py::sparse_pass.
    Serial; one call per thread and chunk.  Fastmath: contract, reassoc, nsz.
    """
    real = block.dtype.type
    lines, b = indptr.shape[0] - 1, block.shape[1]
    tile = product.shape[0]
    for first in range(0, lines, tile):
        count = min(tile, lines - first)
        _multiply(indptr, indices, data, first, count, factor, alpha, block, offset, reach, cursor, product)
        if drift.shape[0] > 0:
            for start in range(0, count, LONGEST_RUN):
                tiles.compare_sums(product[start : min(start + LONGEST_RUN, count)], runs, drift)
        for r in range(count):
            weight = weights[first + r] if weights.shape[0] > 0 else 1.0
            mass = weight * (alpha[first + r] if alpha.shape[0] > 0 else 1.0)
            rest[r] = factor * real(weight)
            for j in range(b):
                total[j] += mass * product[r, j]
            if inner.shape[0] > 0 and weights.shape[0] > 0:
                root = real(np.sqrt(weight))
                rest[r] = factor * root
                for j in range(b):
                    product[r, j] *= root
        if inner.shape[0] > 0:
            for start in range(0, count, LONGEST_RUN):
                syrk(product[start : min(start + LONGEST_RUN, count)], 1.0, inner)
        _spread(indptr, indices, data, first, count, rest, image, heavy, exact, reach, cursor, product)


@kernel
def project_chunk(indptr, indices, data, factor, alpha, block, offset, reach, cursor, out):
    """out[r] <- factor line_r block - alpha_r offset for the chunk's lines.

    cursor : (lines,) int64 workspace;  out : (lines, b) in the block's dtype;  the others as in `pass_chunk`.
    2 b flops per stored entry.  Naive twin: oracle/naive.py::sparse_pass.  Serial.
    """
    _multiply(indptr, indices, data, 0, indptr.shape[0] - 1, factor, alpha, block, offset, reach, cursor, out)


@kernel
def gram_chunk(indptr, indices, data, factor, weights, gram):
    """Lower triangle of gram += sum over the chunk's lines of w (factor line)' (factor line): pairs of stored entries.

    indices : ascending in every line;  weights : (lines,) or empty;  gram : (n, n) float64.
    k (k + 1) flops for a line of k entries, in float64: products of float32 numbers are exact.
    Naive twin: oracle/naive.py::gram.  Serial; one call per thread and chunk.
    """
    base = indptr[0]
    for line in range(indptr.shape[0] - 1):
        weight = weights[line] if weights.shape[0] > 0 else 1.0
        start, stop = indptr[line] - base, indptr[line + 1] - base
        for k in range(start, stop):
            x = np.float64(data[k]) * factor * factor * weight
            row = gram[indices[k]]
            for other in range(start, k + 1):
                row[indices[other]] += x * np.float64(data[other])


@kernel
def commit(image, heavy, exact, total):
    """total += image and its heavy rows, which then are zero for the next chunk.  4 n b flops.  Serial.

    image : (n, b);  heavy : (h,) int64;  exact : (h, b) float64;  total : (n, b) float64.  Twin: `totals.add_to`.
    """
    b = image.shape[1]
    for i in range(image.shape[0]):
        for j in range(b):
            total[i, j] += image[i, j]
            image[i, j] = 0.0
    for h in range(heavy.shape[0]):
        for j in range(b):
            total[heavy[h], j] += exact[h, j]
            exact[h, j] = 0.0


def statistics(lines: Lines, weights: np.ndarray) -> Statistics:
    """One read of the stored entries: their statistics, and whether they are fit for the other kernels.

    Raises
    ------
    ValueError
        An index lies outside the matrix, or an entry is stored twice.
    """
    n, by_feature = lines.n_entries, lines.by_feature
    size = lines.n_lines if by_feature else n
    found = Statistics(np.zeros(size), np.zeros(size), np.zeros(n, np.int64), 0, 0.0, np.zeros(n, np.int64))

    def make() -> dict[str, np.ndarray]:
        return {
            "marks": np.empty(n, np.int64),
            "counts": np.empty(n, np.int64),
            "few": np.empty((2, size)),
            "top": np.zeros(1),
        }

    def work(index: int, slot: dict[str, Any]) -> None:
        first, last = lines.bounds(index)
        part = lines.source.lines(first, last, by_feature)
        slot["marks"][:] = -1
        slot["counts"][:] = 0
        few = slot["few"][:, first:last] if by_feature else slot["few"]
        few[:] = 0.0
        own = weights if by_feature or not weights.size else weights[first:last]
        wrong = statistics_chunk(*part, by_feature, lines.factor, own, slot["marks"], slot["counts"], *few, slot["top"])
        if wrong:
            what = "an index outside the matrix" if wrong == _BAD_INDEX else "an entry that is stored twice"
            raise ValueError(
                f"Sparse X has {what} (lines {first} to {last - 1}): call X.check_format(), X.sum_duplicates()."
            )
        slot["longest"] = int(np.diff(part[0]).max(initial=0))

    def commit_part(index: int, slot: dict[str, Any]) -> None:
        first, last = lines.bounds(index)
        where = slice(first, last) if by_feature else slice(None)
        found.sums[where] += slot["few"][0, where]
        found.squares[where] += slot["few"][1, where]
        np.maximum(found.run, slot["counts"], out=found.run)
        found.stored += slot["counts"]
        found.longest = max(found.longest, slot["longest"])
        found.largest = max(found.largest, float(slot["top"][0]))

    with np.errstate(invalid="ignore", over="ignore"):  # NaN and inf are the caller's to report
        ordered_loop(lines.n_chunks, make, work, commit_part)
    return found


def walk(lines: Lines, block: np.ndarray) -> tuple[int, int]:
    """How a chunk's lines meet the rows of a block (n, b): lines of a tile, and indices that it goes through at once.

    All of them where their rows are few, or where a line has few entries in a range; else ranges whose rows stay in
    cache.
    """
    n, b = block.shape
    reach = _RANGE_BYTES // (min(b, WIDTHS[0]) * block.itemsize)
    n_ranges = -(-n // reach)
    whole = n_ranges <= _FEW_RANGES or lines.source.nnz < _LEAST_ENTRIES * n_ranges * lines.n_lines
    tile = _SHORT_TILE if whole else TILE
    # a chunk's tiles are of equal size up to one line
    return -(-lines.chunk // -(-lines.chunk // tile)), n if whole else reach


class _PassSlot:
    """One thread's image, tile of products and share of the small sums."""

    def __init__(self, tile: int, heavy: int, block: np.ndarray, with_inner: bool, compares: bool) -> None:
        n, b = block.shape
        self.cursor, self.rest = np.empty(tile, np.int64), np.empty(tile, block.dtype)
        self.product = aligned(tile, b, block.dtype)
        self.image = aligned(n, b, block.dtype)
        self.exact = np.zeros((heavy, b))
        self.inner = np.zeros((b, b) if with_inner else (0, 0), block.dtype)
        self.total = np.zeros(b)
        self.runs, self.drift = np.zeros((3, b), block.dtype), np.zeros((4 if compares else 0, b))


def row_pass(
    lines: Lines,
    block: np.ndarray,
    offset: np.ndarray,
    alpha: np.ndarray,
    weights: np.ndarray,
    heavy: np.ndarray,
    with_inner: bool,
    compares: bool = False,
) -> SparsePassResult:
    """See interface.SparsePasses, and `pass_chunk`."""
    b = block.shape[1]
    if compares and b < FEWEST_SUMS:
        block, offset = widened(block, FEWEST_SUMS), np.append(offset, np.zeros(FEWEST_SUMS - b, block.dtype))
    block, offset = padded(block), padded(offset[None])[0]
    sums_of_squares = np.zeros((3, block.shape[1]))
    image, total = np.zeros((lines.n_entries, block.shape[1])), np.zeros(block.shape[1])
    inner = np.zeros((block.shape[1], block.shape[1]) if with_inner else (0, 0))
    factor = block.dtype.type(lines.factor)
    tile, reach = walk(lines, block)

    def work(index: int, slot: _PassSlot) -> None:
        first, last = lines.bounds(index)
        part = lines.source.lines(first, last, lines.by_feature)
        slot.inner[:] = 0.0
        slot.total[:] = 0.0
        slot.runs[:] = 0.0
        slot.drift[:] = 0.0
        pass_chunk(
            *part, factor, alpha[first:last], weights[first:last], block, offset, reach, slot.cursor, slot.rest,
            slot.product, slot.image, slot.inner, heavy, slot.exact, slot.total, slot.runs, slot.drift,
        )  # fmt: skip

    def commit_part(index: int, slot: _PassSlot) -> None:
        commit(slot.image, heavy, slot.exact, image)
        totals.add_to(slot.inner, inner)
        total[:] += slot.total
        if compares:
            sums_of_squares[:] += slot.runs[2] - slot.drift[1], slot.drift[1], slot.drift[3]
        lines.ticked(index)

    ordered_loop(lines.n_chunks, lambda: _PassSlot(tile, heavy.size, block, with_inner, compares), work, commit_part)
    totals.symmetrize(inner)
    found = SparsePassResult(np.ascontiguousarray(image[:, :b]), np.ascontiguousarray(inner[:b, :b]), total[:b])
    if not compares:
        return found
    wrong, squares, fourths = sums_of_squares
    return found._replace(
        drift=drift_of(wrong, squares, block.dtype.itemsize), fewest_lines=fewest_lines(squares, fourths)
    )


def tile_bytes(lines: Lines, width: int, n_heavy: int, itemsize: int) -> int:
    """A tile of products, for each of its lines a cursor and what multiplies it, and the heavy entries in float64."""
    padded_width = -(-width // WIDTHS[-1]) * WIDTHS[-1]
    return min(TILE, lines.chunk) * (padded_width * itemsize + itemsize + 8) + 8 * n_heavy * padded_width


def can_hold(source: Any) -> bool:
    """See interface.SparsePasses: it is where X is."""
    return True


def gram(lines: Lines, weights: np.ndarray) -> np.ndarray:
    """Second moments about zero (n, n), float64: see `gram_chunk`.  An n x n partial of float64 per thread."""
    total = np.zeros((lines.n_entries, lines.n_entries))

    def work(index: int, slot: np.ndarray) -> None:
        first, last = lines.bounds(index)
        slot[:] = 0.0
        gram_chunk(*lines.source.lines(first, last, lines.by_feature), lines.factor, weights[first:last], slot)

    def commit_part(index: int, slot: np.ndarray) -> None:
        np.add(total, slot, out=total)
        lines.ticked(index)

    ordered_loop(lines.n_chunks, lambda: np.empty_like(total), work, commit_part)
    totals.symmetrize(total)
    return total


def project(lines: Lines, block: np.ndarray, offset: np.ndarray, alpha: np.ndarray, out: np.ndarray) -> None:
    """See interface.SparsePasses; each chunk has its own place in `out`."""
    b = block.shape[1]
    block, offset = padded(block), padded(offset[None])[0]
    factor, (_, reach) = block.dtype.type(lines.factor), walk(lines, block)

    def make() -> tuple[np.ndarray, np.ndarray]:
        return np.empty(lines.chunk, np.int64), aligned(lines.chunk, block.shape[1], block.dtype)

    def work(index: int, slot: tuple[np.ndarray, np.ndarray]) -> None:
        first, last = lines.bounds(index)
        part = lines.source.lines(first, last, lines.by_feature)
        project_chunk(*part, factor, alpha[first:last], block, offset, reach, *slot)
        out[first:last] = slot[1][: last - first, :b]

    ordered_loop(lines.n_chunks, make, work, lambda index, slot: lines.ticked(index))


def padded(block: np.ndarray) -> np.ndarray:
    """The block with zero columns up to a multiple of 16, rows starting at cache lines."""
    n, b = block.shape
    out = aligned(n, -(-b // WIDTHS[-1]) * WIDTHS[-1], block.dtype)
    out[:, :b] = block
    return out


def aligned(n: int, b: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (n, b) that start at a cache line."""
    raw = np.zeros(n * b + 64 // dtype.itemsize, dtype)
    start = (-raw.ctypes.data % 64) // dtype.itemsize
    return raw[start : start + n * b].reshape(n, b)
