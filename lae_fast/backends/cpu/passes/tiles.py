"""Kernels over tiles of the data matrix: load, Gram, row pass, projection.

The data matrix is seen as *lines* of *entries*.  On the feature side (S is d x d) a line is a sample; on the sample
side (the m x m Gram of a wide matrix) a line is a feature.  A chunk of lines is described without a copy by a flat
contiguous view of memory and two strides counted in elements, one of which is 1 (data/source_base.py makes it so).

A tile of lines is converted to the compute dtype, shifted, scaled and weighted into a buffer that stays in cache, and
`products.py` multiplies the buffer.  Sums within a chunk are in the compute dtype, sums over chunks in float64.
"""

from __future__ import annotations

import numpy as np

from ..contiguous import contiguous_row
from ..few_columns import multiply_few
from ..jit import kernel, lean_kernel, ordered_kernel
from ..products import multiply_back, multiply_itself, multiply_lines
from ..registers import BLOCK_ROWS, VECTOR_BYTES

# Lines whose statistics are summed pairwise, before they join a longer sum; and lines of a block of `compare_sums`.
_GROUP, _BLOCK = 4, 12
# Bytes of lines that are asked for ahead of a Gram: shorter ones are read so soon that the processor asks by itself.
_LONG_ENOUGH = 192
# As a NumPy boolean: Numba compiles a kernel once more for each of Python's literals.
_LEARNS = np.bool_(True)


@lean_kernel
def load(
    source,
    line_stride,
    entry_stride,
    first,
    count,
    by_feature,
    learn,
    entries,
    shift,
    scale,
    weights,
    buffer,
    partial,
    sums,
    squares,
):
    """One tile: buffer[r, j] <- (source[first + r, j] - shift) * scale, weighted.  (docs/pca.md, "Shifted moments")

    by_feature None or False: a line is a sample; for None the code for features is not compiled.  `shift` (n,) holds
        one number per entry, `weights` (lines,) or empty one per line: the line is multiplied by sqrt(weight).  learn:
        `sums`, `squares` (n,) float64 accumulate sum w v and sum w v^2; else they are not touched.
    by_feature True: a line is a feature, `weights` (n,) or empty; `_center_line` says what `shift`, `sums` and
        `squares` (lines,) mean.
    entries : (n,) int64, which entries of a line to read, or empty for all of them.

    source : 1-D contiguous, any real dtype;  buffer : (count, n) float32|float64, C-ordered
    partial : (2, n) float64, workspace.
    2 count n flops, 6 where it learns; reads the tile once.  Naive twin: oracle/naive.py::load.  Serial.
    Fastmath: contract, nsz.  Long because it is one loop over the lines for every layout: parts would read them twice.
    """
    n = buffer.shape[1]
    real = buffer.dtype.type
    factor = real(scale)
    learns = learn
    if by_feature is not None:
        learns = learn and not by_feature
    in_place = entry_stride != 1 or entries.shape[0] > 0
    if learns:
        partial[:, :] = 0.0
    if entry_stride != 1:
        _transpose_in(source, entry_stride, first, count, entries, buffer)
    for top in range(0, count, _GROUP):
        bottom = min(count, top + _GROUP)
        for r in range(top, bottom):
            line = contiguous_row(buffer, r)
            base = (first + r) * line_stride
            if entry_stride == 1 and in_place:
                for j in range(n):
                    line[j] = real(source[base + entries[j]])
            if by_feature is not None:  # noqa: SIM102  (Numba leaves out a branch on None, not one on two conditions)
                if by_feature:
                    if not in_place:
                        part = source[base : base + n]
                        for j in range(n):
                            line[j] = real(part[j])
                    _center_line(line, learn, shift, factor, weights, first + r, sums, squares)
                    continue
            scaled = factor * real(_root(weights, first + r))
            if in_place:
                for j in range(n):
                    line[j] = (line[j] - shift[j]) * scaled
            else:
                _shift_line(source[base : base + n], shift, scaled, line)
        if learns and bottom - top == _GROUP:
            _learn_group(buffer, top, weights, first + top, partial[0], partial[1])
        elif learns:
            for r in range(top, bottom):
                _learn_line(contiguous_row(buffer, r), real(_root(weights, first + r)), partial[0], partial[1])
    if learns:
        for j in range(n):
            sums[j] += partial[0, j]
            squares[j] += partial[1, j]


@kernel
def _root(weights, index):
    """The factor of a line: the root of its weight."""
    return np.sqrt(weights[index]) if weights.shape[0] > 0 else 1.0


@ordered_kernel
def _shift_line(part, shift, factor, line):
    """line[j] <- (part[j] - shift[j]) * factor"""
    real = line.dtype.type
    for j in range(line.shape[0]):
        line[j] = (real(part[j]) - shift[j]) * factor


@ordered_kernel
def _learn_group(buffer, top, weights, index, sums, squares):
    """Add `_GROUP` lines from `top`, whose weights begin at `index`, to their sums and squares in float64, pairwise.

    So squares of float32 numbers are exact, and sums in float64 have short runs: compared with them, a sum line by line
    in the compute dtype, as BLAS makes it, shows its error.  The lines are summed as they are multiplied, rounding
    included: otherwise the rounding of a line would be taken for a distance from the mean.
    """
    real = buffer.dtype.type
    zero, one = contiguous_row(buffer, top), contiguous_row(buffer, top + 1)
    two, three = contiguous_row(buffer, top + 2), contiguous_row(buffer, top + 3)
    root0, root1 = np.float64(real(_root(weights, index))), np.float64(real(_root(weights, index + 1)))
    root2, root3 = np.float64(real(_root(weights, index + 2))), np.float64(real(_root(weights, index + 3)))
    for j in range(buffer.shape[1]):
        v0, v1, v2, v3 = np.float64(zero[j]), np.float64(one[j]), np.float64(two[j]), np.float64(three[j])
        sums[j] += (root0 * v0 + root1 * v1) + (root2 * v2 + root3 * v3)
        squares[j] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)


@ordered_kernel
def _learn_line(line, root, sums, squares):
    """`_learn_group` of one line."""
    factor = np.float64(root)
    for j in range(line.shape[0]):
        value = np.float64(line[j])
        sums[j] += factor * value
        squares[j] += value * value


@kernel
def mark_used(source, line_stride, entry_stride, count, shift, used):
    """used[j] <- 1 where any of the chunk's lines differs from shift[j] at entry j, else 0.  NaN counts as different.

    An entry that is not used is zero in every shifted line, and so are its row and column of the chunk's Gram.
    shift : (n,) in the compute dtype;  used : (n,) int32.  Reads lines until all entries are used: on dense data a few.
    Naive twin: oracle/naive.py::used_entries.  Serial.
    """
    n = used.shape[0]
    real = shift.dtype.type
    used[:] = 0
    if entry_stride != 1:
        for j in range(n):
            base = j * entry_stride
            for r in range(count):
                if real(source[base + r]) != shift[j]:
                    used[j] = 1
                    break
        return
    step = 16
    for top in range(0, count, step):
        for r in range(top, min(count, top + step)):
            part = source[r * line_stride : r * line_stride + n]
            for j in range(n):
                used[j] |= np.int32(real(part[j]) != shift[j])
        n_used = 0
        for j in range(n):
            n_used += used[j]
        if n_used == n:
            return


@kernel
def _transpose_in(source, entry_stride, first, count, entries, buffer):
    """buffer[r, j] <- source[e_j * entry_stride + first + r], e = entries or 0..n-1, by blocks that stay in cache."""
    n = buffer.shape[1]
    real = buffer.dtype.type
    step = 16
    for left in range(0, n, step):
        right = min(n, left + step)
        for top in range(0, count, step):
            bottom = min(count, top + step)
            for j in range(left, right):
                base = (entries[j] if entries.shape[0] > 0 else j) * entry_stride + first
                for r in range(top, bottom):
                    buffer[r, j] = real(source[base + r])


@kernel
def _center_line(line, learn, shift, factor, weights, index, sums, squares):
    """Centre, weight and standardize one feature in place.

    shift[0] > 0 asks for centring by the weighted mean; shift[1] > 0 for unit variance and is its denominator (sum of
    weights - 1).  learn: the mean is taken from the line twice, because rounding leaves a mean after the first time;
    sums[index], squares[index] receive the mean (unscaled) and the sum of squares w v^2 (scaled); else both are read.
    """
    n = line.shape[0]
    real = line.dtype.type
    weighted = weights.shape[0] > 0
    if shift[0] > 0 and learn:
        # np.float64, because without JIT a Python float plus a float32 is a float32
        mean = np.float64(0.0)
        different = 0
        while different < n and line[different] == line[0]:
            different += 1
        if different == n:  # a constant: its mean is exact, else `standardize` would blow up what rounding left
            mean = np.float64(line[0])
            for j in range(n):
                line[j] -= real(mean)
        for _ in range(2):
            total = np.float64(0.0)
            mass = 0.0
            if weighted:
                for j in range(n):
                    total += weights[j] * line[j]
                    mass += weights[j]
            else:
                for j in range(n):
                    total += line[j]
                mass = float(n)
            step = real(total / mass)
            mean += step
            for j in range(n):
                line[j] -= step
        sums[index] = mean
    elif shift[0] > 0:
        high = real(sums[index])
        low = real(sums[index] - high)
        for j in range(n):
            line[j] -= high
        for j in range(n):  # a loop of its own: in one expression `reassoc` would add low to high first, and lose it
            line[j] -= low
    if learn:
        square = np.float64(0.0)
        for j in range(n):
            value = line[j] * factor
            weight = weights[j] if weighted else 1.0
            square += weight * value * value
        squares[index] = square
    if shift[1] > 0 and squares[index] > 0:
        factor *= real(np.sqrt(shift[1] / squares[index]))
    if weighted:
        for j in range(n):
            line[j] = line[j] * factor * real(np.sqrt(weights[j]))
    else:
        for j in range(n):
            line[j] *= factor


@kernel
def gram_chunk(
    source,
    line_stride,
    entry_stride,
    first,
    count,
    by_feature,
    entries,
    shift,
    scale,
    weights,
    buffer,
    partial,
    gram,
    sums,
    squares,
):
    """Lower triangle of gram <- sum over the chunk's lines of line' line.

    buffer : (tile, n or more);  gram : (n, n) same dtype, above the diagonal without meaning.  The other arguments are
        those of `load`, which learns.
    count n (n + 1) flops.  Naive twin: oracle/naive.py::gram.  Serial; one call per thread and chunk.
    """
    tile = buffer.shape[0]
    n = gram.shape[0]
    n_tiles, whole = _n_tiles(count, tile)
    for k in range(n_tiles):
        start, size = _tile(count, n_tiles, whole, k)
        part = buffer[:size, :n]
        load(
            source, line_stride, entry_stride, first + start, size, by_feature, _LEARNS, entries, shift, scale, weights,
            part, partial, sums, squares,
        )  # fmt: skip
        ahead, following = (first + start + size) * line_stride, min(size, count - start - size)
        asks = entry_stride == 1 and n * source.itemsize >= _LONG_ENOUGH
        multiply_itself(part, k > 0, gram, source, ahead, line_stride, following if asks else 0)


@lean_kernel
def _n_tiles(count, tile):
    """Tiles of a chunk of `count` lines, of at most `tile` >= 1 lines each; and the lines that are not parted.

    A tile has whole blocks of lines where these are multiplied in registers.
    """
    whole = BLOCK_ROWS if VECTOR_BYTES > 0 and tile >= BLOCK_ROWS else 1
    tile = tile // whole * whole
    return (count + tile - 1) // tile, whole


@lean_kernel
def _tile(count, n_tiles, whole, k):
    """Where tile k of `_n_tiles` begins, and how many lines it has: all have about as many."""
    blocks = (count + whole - 1) // whole
    start = whole * (k * blocks // n_tiles)
    return start, min(whole * ((k + 1) * blocks // n_tiles), count) - start


@kernel
def pass_chunk(
    source, line_stride, entry_stride, first, count, by_feature, learn, shift, scale, weights, buffer, partial, block,
    offset, product, image, inner, total, sums, squares, runs, drift,
):  # fmt: skip
    """image <- sum over the chunk's lines of line' (line block): S V without S.  (docs/pca.md, "Row pass")

    buffer : (tile, n or more);  block : (n, b);  product : (tile, b) workspace;  image : (n, b);  all of one dtype.
    inner : (b, b) or empty; where given, its lower triangle <- sum of (line block)'(line block), which keeps relative
        accuracy in small directions that V'(S V) loses.
    offset : (b,) or empty; where given, by sample, it is taken off every line's product before that goes on, times
        sqrt(weight), and total (b,) float64 <- what is left of them, summed.
    drift : (4, b) float64 or empty, with runs (3, b) workspace; where given, the first row <- how far squares of line
        block, summed line by line in the compute dtype, are off, the second <- their sums, the fourth <- sums of their
        squares.
    4 count n b flops (+ count b^2).  Naive twin: oracle/naive.py::row_pass.  Serial.
    """
    tile, n = buffer.shape[0], block.shape[0]
    every = np.empty(0, np.int64)
    runs[:, :] = 0.0
    drift[:, :] = 0.0
    n_tiles, whole = _n_tiles(count, tile)
    for k in range(n_tiles):
        start, size = _tile(count, n_tiles, whole, k)
        part, rows = buffer[:size, :n], product[:size]
        load(
            source, line_stride, entry_stride, first + start, size, by_feature, learn, every, shift, scale, weights,
            part, partial, sums, squares,
        )  # fmt: skip
        multiply_lines(part, block, rows, source, 0, 0, 0)
        if offset.shape[0] > 0:
            if start == 0:
                total[:] = 0.0
            _center_products(rows, offset, weights[first + start : first + start + size], total)
        ahead, following = (first + start + size) * line_stride, min(size, count - start - size)
        multiply_back(part, rows, k > 0, image, source, ahead, line_stride, following if entry_stride == 1 else 0)
        if inner.shape[0] > 0:
            multiply_itself(rows, k > 0, inner, source, 0, 0, 0)
        if drift.shape[0] > 0:
            compare_sums(rows, runs, drift)
    if drift.shape[0] > 0:
        for j in range(drift.shape[1]):
            drift[0, j] = runs[2, j] - drift[1, j]


@kernel
def compare_sums(rows, runs, drift):
    """Sums of the rows' squares twice: as BLAS sums a tile and a chunk its tiles, and in blocks, in float64.

    runs : (3, b) of the rows' dtype: this tile line by line, a block of it, the chunk tile by tile
    drift : (3, b) float64, or (4, b); the second row: the chunk, the third: this tile, the fourth <- it and the sums of
        fourth powers.
    """
    count, b = rows.shape
    runs[0, :] = 0.0
    drift[2, :] = 0.0
    if drift.shape[0] > 3:
        for r in range(count):
            for j in range(b):
                square = np.float64(rows[r, j]) * rows[r, j]
                drift[3, j] += square * square
    for top in range(0, count, _BLOCK):
        runs[1, :] = 0.0
        for r in range(top, min(count, top + _BLOCK)):
            for j in range(b):
                square = rows[r, j] * rows[r, j]
                runs[0, j] += square
                runs[1, j] += square
        for j in range(b):
            drift[2, j] += runs[1, j]
    for j in range(b):
        runs[2, j] += runs[0, j]
        drift[1, j] += drift[2, j]


@kernel
def _center_products(rows, offset, weights, total):
    """rows[r] <- rows[r] - sqrt(w_r) offset, total <- total + sum of sqrt(w_r) rows[r]."""
    real = rows.dtype.type
    for r in range(rows.shape[0]):
        root = real(np.sqrt(weights[r])) if weights.shape[0] > 0 else real(1.0)
        for j in range(rows.shape[1]):
            rows[r, j] -= root * offset[j]
            total[j] += np.float64(root) * rows[r, j]


@kernel
def project_chunk(
    source, line_stride, entry_stride, first, count, by_feature, learn, shift, scale, weights, buffer, partial, block,
    few, out, out_first, sums, squares,
):  # fmt: skip
    """out[out_first + r] <- line_r [block, few'] for the chunk's lines: scores, or components of a wide matrix.

    buffer : (tile, n or more);  block : (n, b);  few : (c, n), c = `n_left_over` of b + c columns
    out : (>= out_first + count, b + c);  all of one dtype.
    2 count n (b + c) flops.  Naive twin: oracle/naive.py::project.  Serial.
    """
    tile, (n, b) = buffer.shape[0], block.shape
    every = np.empty(0, np.int64)
    n_tiles, whole = _n_tiles(count, tile)
    for k in range(n_tiles):
        start, size = _tile(count, n_tiles, whole, k)
        part = buffer[:size, :n]
        load(
            source, line_stride, entry_stride, first + start, size, by_feature, learn, every, shift, scale, weights,
            part, partial, sums, squares,
        )  # fmt: skip
        rows = out[out_first + start : out_first + start + size]
        ahead, following = (first + start + size) * line_stride, min(size, count - start - size)
        multiply_lines(part, block, rows[:, :b], source, ahead, line_stride, following if entry_stride == 1 else 0)
        if few.shape[0] > 0:
            multiply_few(part, few, rows[:, b:])
