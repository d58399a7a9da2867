"""S as an operator: what an eigensolver needs of it, and S as a dense matrix in memory.

An operator works in *scaled units*: its eigenvalues are those of the centred sum-of-squares matrix times `scale`^2, a
power of two that keeps every dtype in range.  Rows of X that are multiplied without forming S: rows.py and sparse.py.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..backends import host_panels

# What operators on rows say where float32 data are multiplied in float64, which takes twice the time.
IN_DOUBLE = "; products in float64, because rounding errors of these data add up"


class Operator(Protocol):
    """A symmetric positive semidefinite n x n matrix, seen through products.

    dim : n;  dtype : of the blocks it multiplies
    trace : of S in scaled units, known after the first product

    An operator of this library also has `scale` (see the module), `n_passes` over the data so far, and `panels`, the
    backend's module of tall products.
    """

    @property
    def dim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def trace(self) -> float: ...

    def apply(self, block: Any) -> Any:
        """S block in float64: (n, b) -> (n, b)."""
        ...


_DOUBLE = np.dtype(np.float64)


class DenseOperator:
    """A symmetric matrix in memory.

    Parameters
    ----------
    matrix : (n, n) float64, symmetric positive semidefinite, scaled units; used as it is, never written
    itemsize : of the dtype in which its entries were summed, 4 or 8; the iteration needs no more digits than they have
    panels : of the backend that multiplies (backends.Backend); the matrix goes there with the first product
    """

    def __init__(self, matrix: np.ndarray, *, scale: float = 1.0, itemsize: int = 8, panels: Any = host_panels) -> None:
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        self.dim = self.matrix.shape[0]
        self.itemsize, self.panels = itemsize, panels
        self.dtype = np.dtype(np.float32 if itemsize == 4 else np.float64)
        self.scale = scale
        self.trace = float(np.add.reduce(self.matrix.diagonal()))
        self.n_passes = 0
        self._placed: dict[np.dtype, Any] = {}

    def apply(self, block: Any) -> Any:
        """S block in the operator's dtype: enough to iterate with."""
        product = self._product(self.dtype, block)
        return product if self.itemsize == 8 else product.astype(np.float64)

    def _product(self, dtype: np.dtype, block: Any) -> Any:
        panel = self.panels.place(block, dtype)
        return self.panels.like(self.panels.dense_product(self.placed(dtype), panel), block)

    def placed(self, dtype: np.dtype = _DOUBLE) -> Any:
        """The matrix where the backend works, float32 or float64; it goes there once."""
        if dtype not in self._placed:
            self._placed[dtype] = self.panels.place(self.matrix) if dtype == _DOUBLE else self.placed().astype(dtype)
        return self._placed[dtype]

    def apply_exactly(self, block: np.ndarray) -> np.ndarray:
        """S block in float64: to measure with."""
        return self._product(_DOUBLE, block)


def inverse_deviations(squares: np.ndarray, weight_sum: float) -> np.ndarray:
    """1 / standard deviation (ddof 1) from sums of squares about the mean; 1 for a constant feature."""
    used = squares > 0
    return np.where(used, np.sqrt((weight_sum - 1.0) / np.where(used, squares, 1.0)), 1.0)
