"""Bytes for an exact Gram of int8 and uint8 data on the INT8 tensor cores.

uint8 is moved by 128 into int8, which the mean takes out again.  Products of bytes are summed in 32 bits, which
MOST_LINES lines cannot overflow: 128 * 128 * 65536 = 2^30.
"""

from __future__ import annotations

import numpy as np

from ..launch import AHEAD, HEIGHT, PADDED, STRIP, WIDTH, Index
from ..target import Kernel, cuda
from .tiles import read_ahead, start_of

MOST_LINES = 65_536
# Lines are padded with zeros to a multiple of this, and entries too, as the tensor cores want them.
ALIGNMENT = 16


@Kernel
def load_bytes(flat, line_stride, entry_stride, count, origin, out, partials):
    """out[j, r] <- source[r, j] - origin, zero where r or j lies outside, and each strip's sums over its lines.

    flat : 1-D uint8|int8, source[r, j] = flat[r * line_stride + j * entry_stride];  origin : 128 for uint8, 0 for int8
    out : (columns, lines) int8, C-ordered: entries in rows, because the tensor cores want what is summed to be
        neighbours;  partials : (strips, n) int64, strips of STRIP lines
    Reads flat and writes out once.  Naive twin: oracle/naive.py::load.  Tiles go through shared
    memory, see `tiles.load`.
    """
    turned = cuda.shared.array((WIDTH, PADDED), dtype=np.int8)
    totals = cuda.shared.array((HEIGHT, WIDTH), dtype=np.int32)
    held = cuda.local.array(AHEAD, dtype=np.int32)
    columns, lines = out.shape
    n = partials.shape[1]
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    left = np.int64(cuda.blockIdx.x) * WIDTH
    first = np.int64(cuda.blockIdx.y) * STRIP
    place, step = start_of(first, left, line_stride, entry_stride, x, y)
    total = np.int32(0)
    for top in range(first, min(lines, first + STRIP), WIDTH):
        read_ahead(flat, place, step, held)
        place += WIDTH * line_stride
        cuda.syncthreads()
        for q in range(AHEAD):
            r, j = y + q * HEIGHT, x
            if entry_stride != 1:
                r, j = j, r
            value = np.int32(0)
            if top + r < count and left + j < n:
                value = held[q] - origin
            turned[Index(j), Index(r)] = value
        cuda.syncthreads()
        for q in range(AHEAD):
            k = y + q * HEIGHT
            if left + k < columns and top + x < lines:
                out[Index(left + k), Index(top + x)] = turned[Index(k), Index(x)]
            total += turned[Index(x), Index(k)]
    totals[y, x] = total
    cuda.syncthreads()
    if y == 0 and left + x < n:
        whole = np.int64(0)
        for k in range(HEIGHT):
            whole += totals[k, x]
        partials[cuda.blockIdx.y, left + x] = whole
