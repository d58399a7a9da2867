"""Judges the answer of a PCA against its definition, in float64, whatever dtype and method it came from.

The measure is the worst relative residual max_i |S u_i - l_i u_i| / l_i with the covariance S = Xc' Xc / (m - 1),
Xc = X minus its float64 column means. It needs no second eigensolver and no d x d matrix, and it bounds the relative
error of l_i. What it cannot see, that a larger eigenpair was skipped or one was returned twice, is checked beside it:
the components must be orthonormal, and no contestant with orthonormal components may have found more variance
(`missed`). Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# A contestant is accurate when its worst relative residual is at most this; the same bound holds for max |U U' - I|.
TOLERANCE = {"float32": 1e-4, "float64": 1e-8}

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Accuracy:
    """What an answer is worth.

    Attributes
    ----------
    residuals : ndarray (p,)
        |S u_i - l_i u_i| / l_i; infinite where l_i is not a positive number.
    orthogonality : float
        max |U U' - I|.
    rayleigh : ndarray (p,)
        u_i' S u_i / u_i' u_i, what the components really capture, in the given order.
    ordered : bool
        The eigenvalues are not increasing (to 1e-4 relative, so that ties in float32 pass).
    """

    residuals: np.ndarray
    orthogonality: float
    rayleigh: np.ndarray
    ordered: bool

    @property
    def worst(self) -> float:
        return float(self.residuals.max(initial=0.0))

    def meets(self, tolerance: float) -> bool:
        return bool(self.worst <= tolerance and self.orthogonality <= tolerance and self.ordered)


def tolerance_for(dtype: np.dtype | type | str) -> float:
    """The tolerance for data of this dtype; integers and half precision are computed in float32."""
    return TOLERANCE["float64" if np.dtype(dtype) == np.float64 else "float32"]


def column_means(X: np.ndarray) -> np.ndarray:
    """Column means in float64, summed block by block."""
    total = np.zeros(X.shape[1])
    for block in _blocks(X):
        total += block.sum(axis=0)
    return total / len(X)


def measure(X: np.ndarray, values: np.ndarray, components: np.ndarray, mean: np.ndarray | None = None) -> Accuracy:
    """Residuals of p eigenpairs against the float64 covariance of X.

    Parameters
    ----------
    X : ndarray (m, d)
        Any real dtype; converted block by block, never as a whole.
    values : ndarray (p,)
        Eigenvalues of the covariance with denominator m - 1.
    components : ndarray (p, d)
        One eigenvector a row.
    mean : ndarray (d,), optional
        The float64 column means of X if they are known already. Never the contestant's own: a wrong mean must show.

    Notes
    -----
    4 m d p flops in float64.
    """
    values = np.asarray(values, dtype=np.float64)
    components = np.asarray(components, dtype=np.float64)
    if values.ndim != 1 or components.shape != (len(values), X.shape[1]):
        raise ValueError(f"{values.shape} eigenvalues and {components.shape} components do not fit data {X.shape}")
    if not (np.isfinite(values).all() and np.isfinite(components).all()):
        nothing = np.full(len(values), np.inf)
        return Accuracy(nothing, np.inf, -nothing, False)
    mean = column_means(X) if mean is None else mean
    image = np.zeros(components.T.shape)
    for block in _blocks(X):
        block -= mean
        image += block.T @ (block @ components.T)
    image = image.T / (len(X) - 1)
    errors = np.linalg.norm(image - values[:, None] * components, axis=1)
    residuals = np.full(len(values), np.inf)
    np.divide(errors, values, out=residuals, where=values > 0)
    squares = np.einsum("ij,ij->i", components, components)
    return Accuracy(
        residuals=residuals,
        orthogonality=float(np.abs(components @ components.T - np.eye(len(values))).max(initial=0.0)),
        rayleigh=np.einsum("ij,ij->i", components, image) / np.where(squares > 0, squares, np.inf),
        ordered=bool((values[1:] <= values[:-1] * (1 + 1e-4)).all()),
    )


def missed(accuracy: Accuracy, others: Iterable[Accuracy], tolerance: float) -> int:
    """How many of the leading eigenvalues an answer lacks, given what others found.

    Rayleigh quotients on orthonormal vectors, sorted, never exceed the true eigenvalues, so the largest that anybody
    found at each place is a lower bound of the truth. An answer lacks place i when it stays below that bound by more
    than both residuals can explain. Answers that are not orthonormal are no evidence.
    """
    bound = np.sort(accuracy.rayleigh)[::-1].copy()
    mine = bound.copy()
    for other in others:
        if other.orthogonality <= tolerance and len(other.rayleigh) == len(mine):
            np.maximum(bound, np.sort(other.rayleigh)[::-1], out=bound)
    return int((mine < bound * (1 - 2 * tolerance)).sum())


def _blocks(X: np.ndarray) -> Iterable[np.ndarray]:
    """Float64 copies of consecutive rows, about 32 MB each; the caller may write to them."""
    step = max(1, _BLOCK_BYTES // (8 * max(1, X.shape[1])))
    for start in range(0, len(X), step):
        yield X[start : start + step].astype(np.float64)
