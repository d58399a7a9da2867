"""Sums over the threads of a block, and over numbers in memory, each in one order."""

from __future__ import annotations

import numpy as np

from .launch import AHEAD, WIDTH, Index
from .target import cuda, device


@device
def sum_threads(scratch, t):
    """scratch[s, 0] <- sum over threads of scratch[s, thread]; every thread t of the block calls it.

    scratch : (n, threads) shared float64, threads a multiple of WIDTH.  WIDTH threads add a column of threads each,
    then one adds those.  Thread s may read sum s at once, the others after a barrier.  Naive twin: NumPy's sum.
    """
    cuda.syncthreads()
    if t < WIDTH:
        for s in range(scratch.shape[0]):
            total = scratch[s, t]
            for k in range(t + WIDTH, scratch.shape[1], WIDTH):
                total += scratch[s, k]
            scratch[s, t] = total
    cuda.syncthreads()
    for s in range(t, scratch.shape[0], scratch.shape[1]):
        total = scratch[s, 0]
        for k in range(1, WIDTH):
            total += scratch[s, k]
        scratch[s, 0] = total


@device
def sum_of(parts, first, stop, step, k):
    """parts[first, k] + parts[first + step, k] + ... before `stop`, in float64.  AHEAD are read before one is added."""
    held = cuda.local.array(AHEAD, dtype=parts.dtype)
    whole = np.float64(0.0)
    for top in range(first, stop, AHEAD * step):
        for q in range(AHEAD):
            held[q] = parts[Index(min(top + q * step, stop - 1)), Index(k)]
        for q in range(AHEAD):
            if top + q * step < stop:
                whole += held[q]
    return whole
