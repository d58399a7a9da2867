"""A product of few rows with a matrix that stays the same: the training loop's B S.

BLAS copies both factors into its own order at every call.  With S the same in thousands of calls and few rows to
multiply, that copying is most of the time: here S is put in order once, as panels of two vector registers' columns, and
`multiply` sums blocks of a few rows of one panel in registers.  Without such registers, and for many rows, BLAS is as
fast.
"""

from __future__ import annotations

import numpy as np

from ..contiguous import contiguous_row
from ..jit import lean_kernel
from ..registers import BLOCK_ROWS, VECTOR_BYTES, aligned_zeros, panel_width, sum_block

# Above this number of rows BLAS is faster, in spite of its copies.  Measured on AVX-512; see docs/benchmarks.md.
_MOST_ROWS = 128
# Steps of the inner dimension that are summed in one run: a panel's part stays in the second-level cache.
_RUN = 512


def pays(rows: int) -> bool:
    """Whether `multiply` beats BLAS for this many rows."""
    return VECTOR_BYTES > 0 and rows <= _MOST_ROWS


def pack_columns(matrix: np.ndarray) -> np.ndarray:
    """The columns of a matrix (k, n) as panels (ceil(n / width), k, width), the last one filled up with zeros."""
    k, n = matrix.shape
    width = panel_width(matrix.dtype)
    packed = aligned_zeros((-(-n // width), k, width), matrix.dtype)
    for panel, left in zip(packed, range(0, n, width)):
        part = matrix[:, left : left + width]
        panel[:, : part.shape[1]] = part
    return packed


def new_packed_rows(rows: int, k: int, dtype: np.dtype) -> np.ndarray:
    """Room for `pack_rows`, (ceil(rows / BLOCK_ROWS), k, BLOCK_ROWS), zero where there is no row."""
    return np.zeros((-(-rows // BLOCK_ROWS), k, BLOCK_ROWS), dtype)


@lean_kernel
def pack_rows(rows, first, last, packed):
    """packed[g, k, i] <- rows[g BLOCK_ROWS + i, k] for the groups g = first..last.

    rows : (r, k);  packed : `new_packed_rows`.  Serial.
    """
    for group in range(first, last):
        top = group * BLOCK_ROWS
        for i in range(min(BLOCK_ROWS, rows.shape[0] - top)):
            row = contiguous_row(rows, top + i)
            for k in range(row.shape[0]):
                packed[group, k, i] = row[k]


@lean_kernel
def multiply(packed_rows, packed_s, first, last, out):
    """out[:, panel] <- rows panel for the panels first..last: `rows S` with both factors packed.

    packed_rows : `pack_rows` of rows (r, k);  packed_s : `pack_columns` of S (k, n)
    out : (groups of BLOCK_ROWS, n), rows beyond r become zero;  all float32|float64, one dtype, C-ordered.
    2 r k (columns) flops.  Sums run over _RUN steps, then over runs.  Naive twin: numpy.matmul.  Serial.
    """
    depth, width = packed_s.shape[1], packed_s.shape[2]
    for panel in range(first, last):
        columns = min(width, out.shape[1] - panel * width)
        for start in range(0, depth, _RUN):
            run = min(_RUN, depth - start)
            for group in range(packed_rows.shape[0]):
                sum_block(
                    packed_rows, (group * depth + start) * BLOCK_ROWS, 1, BLOCK_ROWS,
                    packed_s, (panel * depth + start) * width, width, run, start > 0,
                    out, group * BLOCK_ROWS * out.shape[1] + panel * width, out.shape[1], BLOCK_ROWS, columns,
                )  # fmt: skip
