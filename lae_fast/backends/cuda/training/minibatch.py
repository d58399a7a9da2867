"""Mini-batches on the device: rows gathered from where they lie, and codes masked by what each sample keeps.

As cpu/training/minibatch.py, but that the factor of a batch goes into its rows, so that products need none.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from ...formulas import RUNNING
from ..launch import HEIGHT, THREADS, WIDTH
from ..reduce import sum_threads
from ..target import Kernel, cuda
from .step import DONE, STATUS


@Kernel
def gather(source, line_stride, entry_stride, index, shift, roots, progress, rows, squares):
    """rows[r] <- (row index[k, r] of the data - shift) * roots[k, r], k the iteration, and the sum of squares of each.

    source : 1-D, any real dtype, with two strides in numbers;  index : (n, b) int64;  roots : (n, b), the root of
        kappa times the row's weight;  shift : (w,);  rows : (b, w);  squares : (b,) float64, or empty
    progress : (2,) int64.  4 b w flops.  A block per row.
    Naive twin: oracle/naive_autoencoder.py::naive_batch.
    """
    scratch = cuda.shared.array((1, THREADS), dtype=np.float64)
    if progress[STATUS] != RUNNING:
        return
    real = rows.dtype.type
    r, t, k = cuda.blockIdx.x, cuda.threadIdx.x, progress[DONE]
    base = index[k, r] * line_stride
    root = roots[k, r]
    square = real(0.0)
    for j in range(t, rows.shape[1], THREADS):
        value = (real(source[base + j * entry_stride]) - shift[j]) * root
        rows[r, j] = value
        square += value * value
    if squares.shape[0] > 0:
        scratch[0, t] = square
        sum_threads(scratch, t)
        if t == 0:
            squares[r] = scratch[0, 0]


@Kernel
def drop_units(kept, taken, progress, codes):
    """codes[i, s] <- codes[i, s] - taken[i, s], or 0 for units beyond those that sample s keeps  (docs/math.md Eq. 9).

    kept : (n, b) int64, 1..p, row k for iteration k;  taken : (p, b), or (0, b) for nothing;  codes : (p, b) in place
    With h = I_b B x and k = A'y the encoder's gradient is 2 I_b (A'A h - k) x': once for h, once for k less A'A h.
    Naive twin: oracle/naive_autoencoder.py::stochastic_gradients.  Blocks of WIDTH x HEIGHT.
    """
    if progress[STATUS] != RUNNING:
        return
    s = cuda.blockIdx.x * WIDTH + cuda.threadIdx.x
    i = cuda.blockIdx.y * HEIGHT + cuda.threadIdx.y
    if i < codes.shape[0] and s < codes.shape[1]:
        value = codes[i, s]
        if taken.shape[0] > 0:
            value -= taken[i, s]
        if i >= kept[progress[DONE], s]:
            value = codes.dtype.type(0.0)
        codes[i, s] = value
