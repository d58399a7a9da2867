"""Squared Mahalanobis distances of rows under the probabilistic model of PCA, without a d x d matrix.

May import backends, operators, plan and sources.  The inverse covariance is diag(1 / s) (U' diag(a) U + b (I - U'U))
diag(1 / s) with a few rows U, so a distance is sum_i a_i y_i^2 + b |z - y U|^2, where z = (x - mean) / s and y = z U'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import operators, plan, sources
from .backends import choose, engine

# Entries of the rows that are held at once, in float64, and rows of them at most.
_ENTRIES, _ROWS = 2**24, 1024
# Stored entries alone are looked at where what cancels leaves this much of a degree of freedom in doubt at most.
_DOUBT = 1e-8


@dataclass(frozen=True)
class Precision:
    """mean : (d,);  components : (p, d), U;  along : (p,), a;  across : b >= 0;  deviations : (d,), s, or None for 1.

    All float64, on the host.
    """

    mean: np.ndarray
    components: np.ndarray
    along: np.ndarray
    across: float
    deviations: np.ndarray | None = None

    def divided(self, rows: np.ndarray) -> np.ndarray:
        """Rows or columns (..., d) over the deviations."""
        return rows if self.deviations is None else rows / self.deviations


def squared_distances(source: sources.Source, model: Precision, backend: str = "auto") -> np.ndarray:
    """(m,) float64 on the host.  4 m d p flops over dense rows, 2 nnz p over stored entries.

    Raises
    ------
    ValueError
        NaN or Inf; names the first.
    """
    if isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz):
        squares = _of_entries(source, model, backend)
        if squares is not None:
            return squares
    m, d = source.shape
    name = choose(backend, source.on_device, plan.device_pays(m, d, 2 * len(model.along), source.nnz, passes=1))
    panels = engine(name).panels
    read = source.device_block if source.on_device and name == "cuda" else source.block
    mean, across = panels.place(model.mean), model.across > 0
    upward = panels.place(model.components, np.float64)
    downward = panels.place(np.ascontiguousarray(model.components.T), np.float64)
    inverse = panels.place(model.divided(np.ones(d)))
    squares = np.empty(m)
    rows = max(1, min(_ROWS if name == "cpu" else plan.DEVICE_LINES, _ENTRIES // d))
    for first in range(0, m, rows):
        last = min(m, first + rows)
        centred = panels.place(read(first, last, False), np.float64) - mean
        if not panels.is_finite(centred):
            sources.raise_nonfinite(source)
        centred *= inverse
        codes = panels.multiply(centred, downward)
        squares[first:last] = panels.fetch(codes) ** 2 @ model.along
        if across:
            panels.subtract_product(centred, codes, upward)
            squares[first:last] += model.across * panels.fetch((centred * centred).sum(axis=1))
    return squares


def _of_entries(source: sources.SparseSource, model: Precision, backend: str) -> np.ndarray | None:
    """By stored entries: |z|^2 less what lies in the components.  None where too little of |z|^2 would be left.

    The product U U' is not exactly the identity for components of float32, and is taken as it is.
    """
    m, d = source.shape
    mean, components = model.divided(model.mean), model.components
    rest = np.zeros(m)
    if model.across > 0:
        rest += mean @ mean
        chunk = max(1, int(_ENTRIES * m // max(source.nnz, m)))
        for first in range(0, m, chunk):
            last = min(m, first + chunk)
            indptr, indices, data = source.lines(first, last, False)
            values = data.astype(np.float64)
            if not np.isfinite(values).all():
                sources.raise_nonfinite(source)
            if model.deviations is not None:
                values /= model.deviations[indices]
            lines = np.repeat(np.arange(last - first), np.diff(indptr))
            rest[first:last] += np.bincount(lines, values * (values - 2.0 * mean[indices]), last - first)
        doubt = np.finfo(np.float64).eps * (mean @ mean + rest.max(initial=0.0)) * model.across
        if doubt > _DOUBT * d:
            return None
    given, source.compute_dtype = source.compute_dtype, np.dtype(np.float64)
    codes = operators.scores(source, model.mean, model.divided(components), None, backend)
    source.compute_dtype = given
    squares = codes**2 @ model.along
    if model.across > 0:
        inside = 2.0 * np.eye(len(components)) - components @ components.T
        squares += model.across * np.maximum(rest - np.einsum("ij,ij->i", codes @ inside, codes), 0.0)
    return squares
