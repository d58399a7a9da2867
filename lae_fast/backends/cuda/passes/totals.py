"""Kernels over float64 totals: tiles are added, a chunk's Gram joins, the upper triangle is filled in."""

from __future__ import annotations

import numpy as np

from ..launch import HEIGHT, STRIP, WIDTH
from ..target import Kernel, cuda


@Kernel
def add_tiles(parts, total):
    """total[k] += sum over tiles of parts[t, k], in their order and in float64.

    parts : (tiles, k);  total : (k,) float64.  Reads parts once.  Naive twin: NumPy's sum.  A thread for every k.
    """
    k = cuda.grid(1)
    if k < total.shape[0]:
        whole = np.float64(0.0)
        for t in range(parts.shape[0]):
            whole += parts[t, k]
        total[k] += whole


@Kernel
def add_triangles(parts, fresh, total):
    """total[i, j] <- sum over tiles of parts[t, i, j] for j <= i, in their order and in float64.

    parts : (tiles, n, n);  total : (n, n) float64, to which they are added unless `fresh`.
    Reads half of parts once.  Naive twin: NumPy's sum.  A thread for every entry.
    """
    j = np.int64(cuda.blockIdx.x) * WIDTH + cuda.threadIdx.x
    i = np.int64(cuda.blockIdx.y) * HEIGHT + cuda.threadIdx.y
    if j <= i and i < total.shape[0]:
        whole = np.float64(0.0)
        if not fresh:
            whole = total[i, j]
        for t in range(parts.shape[0]):
            whole += parts[t, i, j]
        total[i, j] = whole


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
