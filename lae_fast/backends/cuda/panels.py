"""Products of tall, skinny panels on the device, sums of tiles in float64; the functions of backends/cpu/panels.py.

A panel is a device array; a NumPy array that is passed for one is copied there.  Small matrices, and whatever is
returned to the host, are NumPy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import arrays, blas
from .passes import totals

# Rows that are summed in the panels' dtype, before float64.
_ROWS = 2048
# Up to this order LAPACK on the host is called: the device would be busy with launches.  Not measured.
_SMALL = 1024


def cross(first: Any, second: Any) -> np.ndarray:
    """See interface.Panels."""
    xp = arrays.xp
    dtype = np.result_type(first.dtype, second.dtype)
    first, second = _rows(first, dtype), _rows(second, dtype)
    n, shape = first.shape[0], (first.shape[1], second.shape[1])
    total = xp.zeros(shape)
    whole = n // _ROWS
    pieces = [(0, whole, _ROWS)] if whole else []
    if n % _ROWS:
        pieces.append((whole * _ROWS, 1, n % _ROWS))
    for top, count, rows in pieces:
        parts = xp.empty((count, *shape), dtype)
        blas.cross(_tiles(first, top, count, rows), _tiles(second, top, count, rows), parts)
        totals.add_parts(parts, total)
    return arrays.download(total)


def _rows(panel: Any, dtype: np.dtype | type) -> Any:
    """A device array of this dtype whose rows are contiguous."""
    panel = place(panel, dtype) if panel.dtype != dtype or isinstance(panel, np.ndarray) else panel
    return panel if panel.strides[1] == panel.itemsize else arrays.xp.ascontiguousarray(panel)


def _tiles(panel: Any, top: int, count: int, rows: int) -> Any:
    """(count, rows, b) view of the rows from `top` on."""
    part = panel[top : top + count * rows]
    step, one = part.strides
    shape = (count, rows, panel.shape[1])
    return arrays.xp.lib.stride_tricks.as_strided(part, shape, (rows * step, step, one))


def multiply(left: Any, right: Any, dtype: np.dtype | type | None = None) -> Any:
    """See interface.Panels."""
    dtype = np.dtype(dtype or left.dtype)
    out = arrays.xp.empty((left.shape[0], right.shape[1]), dtype)
    blas.gemm(_rows(left, dtype), place(right, dtype), out)
    return out


def subtract_product(target: Any, left: Any, right: Any) -> None:
    """See interface.Panels."""
    target -= multiply(left, right)


def dense_product(matrix: Any, block: Any) -> Any:
    """See interface.Panels."""
    return multiply(matrix, block)


def place(array: Any, dtype: np.dtype | type | None = None) -> Any:
    """See interface.Panels."""
    return arrays.upload(array, dtype)


def fetch(array: Any) -> np.ndarray:
    """See interface.Panels."""
    return arrays.download(array)


def like(array: Any, other: Any) -> Any:
    """See interface.Panels."""
    return arrays.download(array) if isinstance(other, np.ndarray) else array


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> Any:
    """See interface.Panels."""
    with arrays.device_errors():
        return arrays.xp.empty(shape, dtype)


def columns(panel: Any, kept: np.ndarray) -> Any:
    """See interface.Panels."""
    return arrays.xp.ascontiguousarray(panel[:, arrays.upload(np.flatnonzero(kept))])


def scale_rows(panel: Any, factors: np.ndarray) -> Any:
    """See interface.Panels."""
    return place(panel) * arrays.upload(factors)[:, None]


def along(vector: np.ndarray, panel: Any) -> np.ndarray:
    """See interface.Panels."""
    return cross(arrays.upload(vector, np.float64)[:, None], place(panel, np.float64))[0]


def plus_outer(panel: Any, factor: float, vector: np.ndarray, coefficients: np.ndarray) -> Any:
    """See interface.Panels."""
    return panel + arrays.upload(factor * vector)[:, None] * arrays.upload(coefficients)


def residual(images: Any, vectors: Any, values: np.ndarray) -> Any:
    """See interface.Panels."""
    return images - vectors * arrays.upload(values)


def is_finite(panel: Any) -> bool:
    """See interface.Panels."""
    return bool(arrays.xp.isfinite(panel).all())


def deflated_is_positive(matrix: Any, values: np.ndarray, vectors: np.ndarray, level: float) -> bool:
    """See interface.Panels."""
    vectors = place(vectors)
    shifted = multiply(vectors * arrays.upload(values), place(vectors.T))
    shifted -= place(matrix)
    diagonal = arrays.xp.arange(shifted.shape[0])
    shifted[diagonal, diagonal] += level
    return arrays.is_positive_definite(shifted)


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See interface.Panels."""
    xp = np if matrix.shape[0] <= _SMALL else arrays.xp
    values, vectors = xp.linalg.eigh(matrix if xp is np else arrays.upload(matrix))
    return arrays.download(values), arrays.download(vectors)
