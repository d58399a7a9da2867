"""Products of tall, skinny panels on all threads, sums in float64, the same bits for any number of threads.

May import threads.py and NumPy only.  NumPy's matmul does the work: under `serial_blas` it runs on one thread and
without the GIL, so chunks of rows run side by side.
"""

from __future__ import annotations

import numpy as np

from .threads import ordered_loop, parallel_loop

_ROWS = 2048


def _cut(n_rows: int) -> tuple[int, int]:
    """Number of chunks, a power of two so that threads share them evenly, and rows of each; from the shape alone."""
    count = 1
    while count * _ROWS < n_rows:
        count *= 2
    rows = max(1, -(-n_rows // count))
    return -(-n_rows // rows) or 1, rows


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first' second in float64: (n, a), (n, b) -> (a, b).  2 n a b flops."""
    total = np.zeros((first.shape[1], second.shape[1]))
    count, each = _cut(first.shape[0])

    def work(chunk: int, slot: list[np.ndarray]) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        slot[:] = [first[rows].T @ second[rows]]

    def commit(chunk: int, slot: list[np.ndarray]) -> None:
        np.add(total, slot[0], out=total)

    ordered_loop(count, list, work, commit)
    return total


def multiply(left: np.ndarray, right: np.ndarray, dtype: np.dtype | type | None = None) -> np.ndarray:
    """left right in `dtype`, that of `left` unless given: (n, a), (a, b) -> (n, b).  2 n a b flops."""
    out = np.empty((left.shape[0], right.shape[1]), dtype or left.dtype)
    small = right.astype(out.dtype, copy=False)
    count, each = _cut(left.shape[0])

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        np.matmul(left[rows].astype(out.dtype, copy=False), small, out=out[rows])

    parallel_loop(count, object, work)
    return out


def subtract_product(target: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """target <- target - left right in place: (n, b), (n, a), (a, b).  2 n a b flops."""
    small = right.astype(left.dtype, copy=False)
    count, each = _cut(target.shape[0])

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        target[rows] -= left[rows] @ small

    parallel_loop(count, object, work)


def dense_product(matrix: np.ndarray, block: np.ndarray) -> np.ndarray:
    """matrix block for a square matrix: (n, n), (n, b) -> (n, b), by chunks of rows."""
    out = np.empty_like(block)
    rows_each = max(64, -(-matrix.shape[0] // 32))

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * rows_each, (chunk + 1) * rows_each)
        np.matmul(matrix[rows], block, out=out[rows])

    parallel_loop(-(-matrix.shape[0] // rows_each), object, work)
    return out
