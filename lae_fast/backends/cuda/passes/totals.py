"""Kernels over float64 totals: tiles are added, a chunk's Gram joins, the upper triangle is filled in."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from .. import launch
from ..launch import HEIGHT, STRIP, WIDTH
from ..reduce import sum_of
from ..target import Kernel, cuda


@Kernel
def add_tiles(parts, fresh, total):
    """total[k] <- sum over tiles of parts[t, k] in float64, and what was there unless `fresh`.

    parts : (tiles, k);  total : (k,) float64.  Reads parts once.  Naive twin: NumPy's sum.
    Blocks of WIDTH columns and HEIGHT threads for each: a thread adds every HEIGHT-th tile, in order, and one adds what
    the threads have, in theirs.
    """
    sums = cuda.shared.array((HEIGHT, WIDTH), dtype=np.float64)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    k = np.int64(cuda.blockIdx.x) * WIDTH + x
    whole = np.float64(0.0)
    if k < total.shape[0]:
        whole = sum_of(parts, np.int64(y), parts.shape[0], HEIGHT, k)
    sums[y, x] = whole
    cuda.syncthreads()
    if y == 0 and k < total.shape[0]:
        for h in range(1, HEIGHT):
            whole += sums[h, x]
        if not fresh:
            whole += total[k]
        total[k] = whole


def add_parts(parts: Any, total: Any, fresh: bool = False) -> None:
    """total += sum of the parts, or their sum alone where `fresh`: (t, ...), (...)."""
    if total.size:
        shape = launch.over_columns(total.size)
        add_tiles.launch(*shape, parts.reshape(parts.shape[0], total.size), fresh, total.reshape(total.size))


@Kernel
def add_triangles(parts, fresh, total, diagonal):
    """total[i, j] <- sum over tiles of parts[t, i n + j] for j <= i in float64, and what was there unless `fresh`.

    parts : (tiles, n n);  total : (n, n) float64;  diagonal : (n,) float64 that receives total's
    Reads half of parts once.  Naive twin: NumPy's sum.  A thread for every entry, tiles in order.
    """
    j = np.int64(cuda.blockIdx.x) * WIDTH + cuda.threadIdx.x
    i = np.int64(cuda.blockIdx.y) * HEIGHT + cuda.threadIdx.y
    if j <= i and i < total.shape[0]:
        whole = sum_of(parts, np.int64(0), parts.shape[0], 1, i * total.shape[0] + j)
        if not fresh:
            whole += total[i, j]
        total[i, j] = whole
        if i == j:
            diagonal[i] = whole


@Kernel
def commit_gram(gram, sums, mean, offset, offset_weight, total):
    """total <- total + gram - sums mean' + offset_weight offset offset', lower triangles.

    Of equal bytes, shifted by 128, gram - sums mean' is zero without rounding.

    gram : (n, n) or larger, float64|int32;  sums, mean, offset : (n,) float64;  total : (n, n) float64.
    5 n^2 / 2 flops, float64.  Naive twin: oracle/naive.py::merge.  Strips of rows.
    """
    n = total.shape[0]
    j = np.int64(cuda.blockIdx.x) * WIDTH + cuda.threadIdx.x
    first = np.int64(cuda.blockIdx.y) * STRIP
    if j < n:
        mj, oj = mean[j], offset_weight * offset[j]
        for i in range(first + cuda.threadIdx.y, min(n, first + STRIP), HEIGHT):
            if j <= i:
                total[i, j] += np.float64(gram[i, j]) - sums[i] * mj + offset[i] * oj


@Kernel
def symmetrize(matrix):
    """Copy the strict lower triangle onto the upper one.  matrix : (n, n).  Naive twin: oracle/naive.py::gram."""
    n = matrix.shape[0]
    j = np.int64(cuda.blockIdx.x) * WIDTH + cuda.threadIdx.x
    first = np.int64(cuda.blockIdx.y) * STRIP
    if j < n:
        for i in range(first + cuda.threadIdx.y, min(n, first + STRIP), HEIGHT):
            if i < j:
                matrix[i, j] = matrix[j, i]
