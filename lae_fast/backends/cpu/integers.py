"""The exact Gram of int8 and uint8 data, for BLAS that multiplies bytes.

May import blas.py and jit.py only.

Products of bytes are summed in 32 bits, which a chunk cannot overflow, and chunks in float64, whose integers reach
2^53: every sum is exact, and the mean is taken off at the end.
"""

from __future__ import annotations

import numpy as np

from .blas import integer_gemm
from .jit import kernel

# Of a chunk, so that 255 * 255 * lines < 2^31.
MOST_LINES = 32_768
# Rows of the result in one product: the triangle above is not computed, and these are still many for BLAS.
_PANEL = 192


@kernel
def integer_gram_chunk(  # type: ignore[no-untyped-def]
    source, is_signed, line_stride, entry_stride, first, count, signed, unsigned, partial, gram, sums
):  # fmt: skip
    """Lower triangle of gram <- sum over the chunk's lines of line' line, sums <- sum of lines; both exact.

    The product takes one signed and one unsigned factor, so each byte is stored as s and as u = s + 128, and what that
    adds is taken off again: sum u_a u_b = sum u_a s_b + 128 sum u_a, sum s_a s_b = sum u_a s_b - 128 sum s_b.

    source : 1-D int8|uint8, is_signed says which
    signed, unsigned : (tile, n) int8, uint8 and partial : (n,) int32, workspace
    gram : (n, n) int32;  sums : (n,) int64.
    About count n^2 operations.  Naive twin: tests/naive.py::gram.  Serial; one call per thread and chunk.
    """
    tile, n = signed.shape
    sums[:] = 0
    n_tiles = (count + tile - 1) // tile
    beta = 0.0
    for k in range(n_tiles):
        start = k * count // n_tiles
        size = (k + 1) * count // n_tiles - start
        partial[:] = 0
        _load_bytes(source, is_signed, line_stride, entry_stride, first + start, size, signed, unsigned, partial)
        for j in range(n):
            sums[j] += partial[j]
        for low in range(0, n, _PANEL):
            high = min(n, low + _PANEL)
            integer_gemm(signed[:size, :high], unsigned[:size, low:high], beta, gram[low:high, :high])
        beta = 1.0
    if is_signed:
        for j in range(n):
            sums[j] -= 128 * count
    for a in range(n):
        for b in range(a + 1):
            gram[a, b] += np.int32(-128 * sums[b] if is_signed else 128 * sums[a])


@kernel
def _load_bytes(  # type: ignore[no-untyped-def]
    source, is_signed, line_stride, entry_stride, first, count, signed, unsigned, partial
):  # fmt: skip
    """signed <- s, unsigned <- u = s + 128, partial_j += sum of u: of one byte, they differ in the highest bit."""
    n = signed.shape[1]
    flip = np.uint8(128 if is_signed else 0)
    for r in range(count):
        base = (first + r) * line_stride
        if entry_stride == 1:
            line = source[base : base + n]
            for j in range(n):
                unsigned[r, j] = np.uint8(line[j]) ^ flip
        else:
            for j in range(n):
                unsigned[r, j] = np.uint8(source[base + j * entry_stride]) ^ flip
        for j in range(n):
            partial[j] += np.int32(unsigned[r, j])
            signed[r, j] = np.int8(unsigned[r, j] ^ np.uint8(128))
