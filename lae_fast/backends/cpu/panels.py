"""Products of tall, skinny panels on all threads, sums in float64, the same bits for any number of threads.

May import threads.py and NumPy only.  NumPy's matmul does the work: under `serial_blas` it runs on one thread and
without the GIL, so chunks of rows run side by side.
"""

from __future__ import annotations

import numpy as np

from .threads import ordered_loop, parallel_loop

_ROWS = 4096


def _chunks(n_rows: int) -> int:
    return max(1, -(-n_rows // _ROWS))


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """first' second in float64: (n, a), (n, b) -> (a, b).  2 n a b flops."""
    total = np.zeros((first.shape[1], second.shape[1]))

    def work(chunk: int, slot: list[np.ndarray]) -> None:
        rows = slice(chunk * _ROWS, (chunk + 1) * _ROWS)
        slot[:] = [first[rows].T @ second[rows]]

    def commit(chunk: int, slot: list[np.ndarray]) -> None:
        np.add(total, slot[0], out=total)

    ordered_loop(_chunks(first.shape[0]), list, work, commit)
    return total


def multiply(left: np.ndarray, right: np.ndarray, dtype: np.dtype | type | None = None) -> np.ndarray:
    """left right in `dtype`, that of `left` unless given: (n, a), (a, b) -> (n, b).  2 n a b flops."""
    out = np.empty((left.shape[0], right.shape[1]), dtype or left.dtype)
    small = right.astype(out.dtype, copy=False)

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * _ROWS, (chunk + 1) * _ROWS)
        np.matmul(left[rows].astype(out.dtype, copy=False), small, out=out[rows])

    parallel_loop(_chunks(left.shape[0]), object, work)
    return out


def subtract_product(target: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """target <- target - left right in place: (n, b), (n, a), (a, b).  2 n a b flops."""
    small = right.astype(left.dtype, copy=False)

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * _ROWS, (chunk + 1) * _ROWS)
        target[rows] -= left[rows] @ small

    parallel_loop(_chunks(target.shape[0]), object, work)


def dense_product(matrix: np.ndarray, block: np.ndarray) -> np.ndarray:
    """matrix block for a square matrix: (n, n), (n, b) -> (n, b), by chunks of rows."""
    out = np.empty_like(block)
    rows_each = max(64, -(-matrix.shape[0] // 32))

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * rows_each, (chunk + 1) * rows_each)
        np.matmul(matrix[rows], block, out=out[rows])

    parallel_loop(-(-matrix.shape[0] // rows_each), object, work)
    return out
