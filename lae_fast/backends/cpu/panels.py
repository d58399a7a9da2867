"""Products of tall, skinny panels on all threads, sums in float64, the same bits for any number of threads.

Small matrices are NumPy's on every backend; panels live where the backend works, and `place` and `fetch` bring them
there and back.  NumPy's matmul does the work: under `serial_blas` it runs on one thread and without the GIL, so chunks
of rows run side by side.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ..threads import lapack_threads, ordered_loop, parallel_loop, serial_blas

_ROWS = 2048


def _cut(n_rows: int) -> tuple[int, int]:
    """Number of chunks, a power of two so that threads share them evenly, and rows of each; from the shape alone."""
    count = 1
    while count * _ROWS < n_rows:
        count *= 2
    rows = max(1, -(-n_rows // count))
    return -(-n_rows // rows) or 1, rows


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    count, each = _cut(first.shape[0])
    if count == 1:
        with serial_blas():
            return (first.T @ second).astype(np.float64, copy=False)
    total = np.zeros((first.shape[1], second.shape[1]))

    def work(chunk: int, slot: list[np.ndarray]) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        slot[:] = [first[rows].T @ second[rows]]

    def commit(chunk: int, slot: list[np.ndarray]) -> None:
        np.add(total, slot[0], out=total)

    ordered_loop(count, list, work, commit)
    return total


def multiply(left: np.ndarray, right: np.ndarray, dtype: np.dtype | type | None = None) -> np.ndarray:
    """See interface.Panels."""
    out = np.empty((left.shape[0], right.shape[1]), dtype or left.dtype)
    small = right.astype(out.dtype, copy=False)
    count, each = _cut(left.shape[0])
    if count == 1:
        with serial_blas():
            return np.matmul(left.astype(out.dtype, copy=False), small, out=out)

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        np.matmul(left[rows].astype(out.dtype, copy=False), small, out=out[rows])

    parallel_loop(count, object, work)
    return out


def subtract_product(target: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """See interface.Panels."""
    small = right.astype(left.dtype, copy=False)
    count, each = _cut(target.shape[0])

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * each, (chunk + 1) * each)
        target[rows] -= left[rows] @ small

    parallel_loop(count, object, work)


def dense_product(matrix: np.ndarray, block: np.ndarray) -> np.ndarray:
    """See interface.Panels: by chunks of rows."""
    rows_each = max(64, -(-matrix.shape[0] // 32))
    if matrix.shape[0] <= rows_each:
        with serial_blas():
            return matrix @ block
    out = np.empty_like(block)

    def work(chunk: int, slot: object) -> None:
        rows = slice(chunk * rows_each, (chunk + 1) * rows_each)
        np.matmul(matrix[rows], block, out=out[rows])

    parallel_loop(-(-matrix.shape[0] // rows_each), object, work)
    return out


def place(array: np.ndarray, dtype: np.dtype | type | None = None) -> np.ndarray:
    """See interface.Panels: the array itself, made contiguous where it is not."""
    return np.ascontiguousarray(array, dtype=dtype)


def fetch(array: np.ndarray) -> np.ndarray:
    """See interface.Panels: the panel itself."""
    return array


def like(array: np.ndarray, other: np.ndarray) -> np.ndarray:
    """See interface.Panels: the array itself."""
    return array


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """See interface.Panels."""
    return np.empty(shape, dtype)


def columns(panel: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    return np.ascontiguousarray(panel[:, kept])


def scale_rows(panel: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    return panel * factors[:, None]


def along(vector: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    return vector @ panel.astype(np.float64)


def plus_outer(panel: np.ndarray, factor: float, vector: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    return panel + factor * np.multiply.outer(vector, coefficients)


def residual(images: np.ndarray, vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """See interface.Panels."""
    return images - vectors * values


def is_finite(panel: np.ndarray) -> bool:
    """See interface.Panels."""
    return bool(np.isfinite(panel).all())


def deflated_is_positive(matrix: np.ndarray, values: np.ndarray, vectors: np.ndarray, level: float) -> bool:
    """See interface.Panels."""
    n = matrix.shape[0]
    with lapack_threads(n):
        shifted = (vectors * values) @ vectors.T
        shifted -= matrix
        shifted.flat[:: n + 1] += level
        return bool(scipy.linalg.lapack.dpotrf(shifted.T, lower=1, overwrite_a=1, clean=0)[1] == 0)


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See interface.Panels."""
    with lapack_threads(matrix.shape[0]):
        return scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
