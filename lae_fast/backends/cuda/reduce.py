"""Sums over the threads of a block, in one order.  May import target.py only."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from .target import cuda, device


@device
def tree_sums(scratch, t):
    """scratch[s, 0] <- sum over threads of scratch[s, thread], as a tree; every thread of the block calls it.

    scratch : (n, threads) shared float64, threads a power of two;  t : this thread.  Naive twin: NumPy's sum.
    """
    half = scratch.shape[1] // 2
    cuda.syncthreads()
    while half > 0:
        if t < half:
            for s in range(scratch.shape[0]):
                scratch[s, t] += scratch[s, t + half]
        cuda.syncthreads()
        half //= 2
