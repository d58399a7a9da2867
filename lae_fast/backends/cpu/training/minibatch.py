"""Mini-batches inside nopython code: rows gathered from where they lie, and their codes."""

from __future__ import annotations

import numpy as np

from ..blas import gemm
from ..jit import lean_kernel
from ..registers import prefetch

# Rows that are asked for before they are read: where they lie follows no pattern that the processor could foresee.
AHEAD = 2
# Bytes of a line of the caches.
_LINE = 64
# As NumPy booleans: Numba compiles a kernel once more for each combination of Python's literals.
AS_IT_IS, TRANSPOSED = np.bool_(False), np.bool_(True)


@lean_kernel
def ask_for(source, first, count):
    """Have `count` entries of `source` from `first` on brought near: a request per line of the caches, no result."""
    for j in range(0, count, _LINE // source.itemsize):
        prefetch(source, first + j)


@lean_kernel
def gather(source, line_stride, entry_stride, rows, shift, scale, weights, first, last, buffer):
    """buffer[r] <- (row rows[r] of the data - shift) * scale * sqrt(weight of that row), for r = first..last.

    source : 1-D contiguous, any real dtype, with two strides in elements (data/source_base.py);  rows : (b,) int64
    shift : (n,) dtype of buffer;  weights : float64 per row of the data, or empty;  buffer : (b, n) float32|float64
    2 (last - first) n flops.  Returns the sum of squares of these rows, float64.
    Naive twin: oracle/naive_autoencoder.py::naive_batch.  Serial.  Fastmath: contract, reassoc, nsz.
    """
    real = buffer.dtype.type
    n = buffer.shape[1]
    total = 0.0
    for r in range(first, last):
        base = rows[r] * line_stride
        factor = real(scale)
        if weights.shape[0] > 0:
            factor = real(scale * np.sqrt(weights[rows[r]]))
        square = real(0.0)
        line = buffer[r]
        if entry_stride == 1:
            if r + AHEAD < last:
                ask_for(source, rows[r + AHEAD] * line_stride, n)
            part = source[base : base + n]
            for j in range(n):
                value = (real(part[j]) - shift[j]) * factor
                line[j] = value
                square += value * value
        else:
            for j in range(n):
                value = (real(source[base + j * entry_stride]) - shift[j]) * factor
                line[j] = value
                square += value * value
        total += square
    return total


@lean_kernel
def drop_units(kept, first, last, codes):
    """codes[s, i] <- 0 for units i beyond the number kept of sample s, s = first..last  (docs/math.md Eq. 9).

    kept : (b,) int64, 1..p;  codes : (b, p) in place.  Naive twin: oracle/naive_autoencoder.py::squared_error.  Serial.
    """
    for s in range(first, last):
        for i in range(kept[s], codes.shape[1]):
            codes[s, i] = 0.0


@lean_kernel
def dropout_codes(gram2, kept, first, last, latent, target):
    """The codes from which per-sample nested dropout makes its gradient, samples first..last  (docs/math.md Eq. 9).

    With h = I_b B x and k = A'y the encoder's gradient is 2 I_b (A'A h - k) x'.

    latent : (b, p), B x on entry, I_b B x on return;  target : (b, p), A'y on entry, I_b (k - A'A h) on return
    gram2 : (p, p), 2 A'A.  2 p^2 (last - first) flops by GEMM.
    Naive twin: oracle/naive_autoencoder.py::stochastic_gradients.  Serial.
    """
    drop_units(kept, first, last, latent)
    gemm(-0.5, latent[first:last], AS_IT_IS, gram2, AS_IT_IS, 1.0, target[first:last])
    drop_units(kept, first, last, target)
