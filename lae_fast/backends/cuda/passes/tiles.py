"""Kernels over tiles of the data matrix: load with statistics, centring of lines and of products.

Products are cuBLAS's (blas.py).  Lines, entries, flat views and strides are those of cpu/passes/tiles.py.  Every sum
has a fixed order, whatever the launch: a thread's own run, the threads of a block as a tree or in order, blocks in
order; there are no atomics.

float32 kernels compute in float32 but for what is listed here: sums of columns beyond a thread's run of STRIP / HEIGHT
lines, a line's mean and squares, sums over tiles, and the float64 total.
"""

from __future__ import annotations

import math

import numpy as np

from ..launch import AHEAD, HEIGHT, PADDED, STRIP, THREADS, WIDTH, Index
from ..target import Kernel, cuda, device


@device
def start_of(first, left, line_stride, entry_stride, x, y):
    """Where a thread's first number of a tile lies, and how far it is from there to its next.

    first, left : the tile's first line and entry.  Neighbours along x are neighbours in memory.
    """
    if entry_stride == 1:
        return (first + y) * line_stride + left + x, HEIGHT * line_stride
    return (first + x) * line_stride + (left + y) * entry_stride, HEIGHT * entry_stride


@device
def read_ahead(flat, place, step, held):
    """held[q] <- flat[place + q step]; what lies behind its end is another number of it."""
    last = flat.shape[0] - 1
    for q in range(AHEAD):
        held[q] = flat[Index(min(place, last))]
        place += step


@Kernel
def load(flat, line_stride, entry_stride, count, shift, factor, roots, learn, buffer, partials):
    """buffer[r, j] <- (source[r, j] - shift[j]) * factor * roots[r], rows from `count` on zero.  (docs/pca.md, P1)

    flat : 1-D, any real dtype;  source[r, j] = flat[r * line_stride + j * entry_stride], one of the strides 1
    shift : (n,);  factor : scalar;  roots : (count,) sqrt(weight), or empty for ones;  buffer : (rows, n);
        all C-ordered and of the compute dtype
    partials : (strips, 2, n) float64; learn: receives each strip's sums of w v and w v^2, v the value before its root
    2 count n flops, 6 where it learns; reads flat and writes buffer once.  Naive twin: oracle/naive.py::load.
    Blocks of WIDTH x HEIGHT over STRIP lines and WIDTH entries, by tiles of WIDTH lines: a thread reads its AHEAD
    numbers of a tile before it uses the first.  Where lines are neighbours in memory a tile is transposed on its way
    through shared memory, so that reads and writes both are coalesced.
    """
    turned = cuda.shared.array((WIDTH, PADDED), dtype=buffer.dtype)
    sums = cuda.shared.array((HEIGHT, WIDTH), dtype=np.float64)
    squares = cuda.shared.array((HEIGHT, WIDTH), dtype=np.float64)
    held = cuda.local.array(AHEAD, dtype=buffer.dtype)
    real = buffer.dtype.type
    rows, n = buffer.shape
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    left = np.int64(cuda.blockIdx.x) * WIDTH
    first = np.int64(cuda.blockIdx.y) * STRIP
    origin = shift[Index(min(left + x, n - 1))]
    place, step = start_of(first, left, line_stride, entry_stride, x, y)
    total, square = real(0.0), real(0.0)
    for top in range(first, min(rows, first + STRIP), WIDTH):
        read_ahead(flat, place, step, held)
        place += WIDTH * line_stride
        if entry_stride != 1:
            cuda.syncthreads()
            for q in range(AHEAD):
                turned[Index(x), Index(y + q * HEIGHT)] = held[q]
            cuda.syncthreads()
            for q in range(AHEAD):
                held[q] = turned[Index(y + q * HEIGHT), Index(x)]
        lines = np.int32(min(count - top, WIDTH))
        for q in range(AHEAD):
            value = (held[q] - origin) * factor
            root = real(1.0)
            if np.int32(y + q * HEIGHT) >= lines:
                value = real(0.0)
            elif roots.shape[0] > 0:
                root = roots[Index(top + y + q * HEIGHT)]
                value *= root
            total += root * value
            square += value * value
            held[q] = value
        if left + x < n:
            lines = np.int32(min(rows - top, WIDTH))
            for q in range(AHEAD):
                if np.int32(y + q * HEIGHT) < lines:
                    buffer[Index(top + y + q * HEIGHT), Index(left + x)] = held[q]
    if learn:
        sums[y, x] = total
        squares[y, x] = square
        cuda.syncthreads()
        if y == 0 and left + x < n:
            whole, whole_square = np.float64(0.0), np.float64(0.0)
            for k in range(HEIGHT):
                whole += sums[k, x]
                whole_square += squares[k, x]
            partials[cuda.blockIdx.y, 0, left + x] = whole
            partials[cuda.blockIdx.y, 1, left + x] = whole_square


@Kernel
def center_lines(buffer, center, mass, denominator, factor, weights, learn, sums, squares):
    """Centre, weight and standardize each line, a feature, in place.  (docs/pca.md, P1)

    buffer : (count, n) as `load` left it without shift, factor and roots;  weights : (n,) float64 or empty
    center : subtract the weighted mean;  mass : sum of weights, or n
    denominator > 0 : divide by the deviation, of which it is the denominator
    sums, squares : (count,) float64; learn: receive the mean (unscaled) and sum w v^2 (scaled); else both are read
    About 8 count n flops, float64 in the sums.  Naive twin: oracle/naive.py::load, by feature.  A block per line.
    Long because the threads of a block go through all steps together, between barriers.
    """
    scratch = cuda.shared.array(THREADS, dtype=np.float64)
    real = buffer.dtype.type
    n = buffer.shape[1]
    line = buffer[cuda.blockIdx.x]
    t = cuda.threadIdx.x
    index = cuda.blockIdx.x
    weighted = weights.shape[0] > 0
    mean = np.float64(0.0)
    if center and learn:
        origin = line[0]
        differs = 0
        for j in range(t, n, THREADS):
            if line[j] != origin:
                differs = 1
        if not cuda.syncthreads_or(differs):  # a constant: its mean is exact, as cpu/passes/tiles.py has it
            mean = np.float64(origin)
            for j in range(t, n, THREADS):
                line[j] -= origin
    elif center:
        high = real(sums[index])
        low = real(sums[index] - high)
        for j in range(t, n, THREADS):
            line[j] = (line[j] - high) - low
    square = np.float64(0.0)
    if not learn:
        square = squares[index]
    for turn in range(3):  # a mean, what rounding of it left, and the squares
        if not learn or (turn < 2 and not center):
            continue
        total = np.float64(0.0)
        for j in range(t, n, THREADS):
            value = np.float64(line[j])
            if turn == 2:
                value = np.float64(line[j] * factor)
                value *= value
            if weighted:
                value *= weights[j]
            total += value
        scratch[t] = total
        cuda.syncthreads()
        half = THREADS // 2
        while half > 0:
            if t < half:
                scratch[t] += scratch[t + half]
            cuda.syncthreads()
            half //= 2
        total = scratch[0]
        cuda.syncthreads()
        if turn == 2:
            square = total
            if t == 0:
                squares[index] = square
            continue
        step = real(total / mass)
        mean += step
        for j in range(t, n, THREADS):
            line[j] -= step
        if t == 0:
            sums[index] = mean
    if denominator > 0.0 and square > 0.0:
        factor = factor * real(math.sqrt(denominator / square))
    for j in range(t, n, THREADS):
        value = line[j] * factor
        if weighted:
            value *= real(math.sqrt(weights[j]))
        line[j] = value


@Kernel
def center_products(rows, count, offset, roots, partials):
    """rows[r] <- rows[r] - roots[r] offset for r < count, and each strip's sum of roots[r] rows[r] into partials.

    rows : (>= count, b), those beyond are left;  offset : (b,);  roots : (count,) or empty;  compute dtype
    partials : (strips, b) float64.  4 count b flops.  Naive twin: oracle/naive.py::center_products.
    Blocks of WIDTH x HEIGHT over STRIP rows.
    """
    totals = cuda.shared.array((HEIGHT, WIDTH), dtype=np.float64)
    real = rows.dtype.type
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WIDTH + x
    first = np.int64(cuda.blockIdx.y) * STRIP
    total = real(0.0)
    if j < rows.shape[1]:
        for r in range(first + y, min(count, first + STRIP), HEIGHT):
            root = real(1.0)
            if roots.shape[0] > 0:
                root = roots[r]
            value = rows[r, j] - root * offset[j]
            rows[r, j] = value
            total += root * value
    totals[y, x] = total
    cuda.syncthreads()
    if y == 0 and j < rows.shape[1]:
        whole = np.float64(0.0)
        for k in range(HEIGHT):
            whole += totals[k, x]
        partials[cuda.blockIdx.y, j] = whole
