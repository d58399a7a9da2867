"""What the solver hands on: eigenpairs in scaled units, and the finished ones with their certificate."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import validation
from ..errors import ConvergenceWarning, user_level

# Largest residual norms that will do, of values (p,), eps and allowances (p,): `Request.tolerances`.
Tolerances = Callable[[np.ndarray, float, np.ndarray], np.ndarray]
_TINY = float(np.finfo(np.float64).tiny)
# Rows of a residual that are squared at once.
_ROWS_AT_ONCE = 256


@dataclass(repr=False)
class Eigenpairs:
    """Leading eigenpairs of S: the centred second moments with scale "sum", or the operator that was given.

    Attributes
    ----------
    values : ndarray (p,), float64
        Descending.
    vectors : ndarray (n, p)
        Orthonormal columns, in the compute dtype of the data.
    residuals : ndarray (p,), float64
        Upper bounds of |S u_i - l_i u_i| / max(l_i, eps l_1).
    converged : ndarray (p,), bool
        The measured residual is within tol, or within 8 eps l_1 / l_i and the allowance for the rounding of what it was
        measured against, which `residuals` adds.
    solver, reason : str
        "gram" or "krylov", and why.
    n_passes, workspace_bytes : int
        Times the data was read, and the most that was planned beside the data and the result.
    trace : float
        Of S.
    mean, variances : ndarray (d,), float64
        Of each feature; the second are sums of weighted squares about the mean.  None where an operator was given.
    weight_sum : float
        nan where an operator was given.
    backend : str
        "cpu" or "cuda", what computed them.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    solver: str
    reason: str
    n_passes: int
    workspace_bytes: int
    trace: float
    mean: np.ndarray | None = None
    variances: np.ndarray | None = None
    weight_sum: float = float("nan")
    backend: str = "cpu"

    def __repr__(self) -> str:
        worst = f"{np.max(self.residuals):.1e}" if self.residuals.size else "nan"
        return (
            f"Eigenpairs(p={self.values.size}, n={self.vectors.shape[0]}, dtype={self.vectors.dtype}, "
            f"largest={np.max(self.values, initial=0.0):.4g}, worst_residual={worst}, "
            f"converged={bool(np.all(self.converged))}, solver={self.solver!r}, n_passes={self.n_passes}, "
            f"backend={self.backend!r})"
        )


class MeasuredPairs(NamedTuple):
    """values : (p,);  vectors : (n, p), rounded as they are handed on;  norms : (p,) of their residuals, measured."""

    values: np.ndarray
    vectors: np.ndarray
    norms: np.ndarray


@dataclass
class ScaledEigenpairs:
    """Eigenpairs in scaled units, in any order: what the routes find, and `finish` takes.

    measured : (p,) residual norms;  allowance : (p,) for the rounding of what they were measured against
    location : (d,) the mean of X, or zeros where nothing is centred and it is not known; None where there is no X
    The other attributes are as of `Eigenpairs`.
    """

    values: np.ndarray
    vectors: np.ndarray
    measured: np.ndarray
    allowance: np.ndarray
    scale: float
    trace: float
    n_passes: int
    solver: str
    reason: str
    workspace_bytes: int
    mean: np.ndarray | None = None
    variances: np.ndarray | None = None
    weight_sum: float = float("nan")
    location: np.ndarray | None = None


def relative(norms: np.ndarray, values: np.ndarray, eps: float) -> np.ndarray:
    """Residual norms over max(l_i, eps l_1); zero where the whole spectrum is zero."""
    if not values.size or not values[0] > 0.0:
        return np.zeros_like(norms)
    return norms / np.maximum(values, eps * values[0])


def measured(values: np.ndarray, vectors: np.ndarray, images: np.ndarray) -> np.ndarray:
    """|images_i - l_i vectors_i| in float64, column by column."""
    squares = np.zeros(values.size)
    for first in range(0, vectors.shape[0], _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        residual = values * vectors[rows]
        residual -= images[rows]
        squares += np.einsum("ij,ij->j", residual, residual)
    return np.sqrt(squares)


def finish(found: ScaledEigenpairs, tolerances: Tolerances, dtype: np.dtype, backend: str = "cpu") -> Eigenpairs:
    """Order, signs and relative residuals, in the units of the data: scaled units end here.

    Raises
    ------
    ValueError
        Values or variances that float64 does not hold in these units.
    """
    eps = float(np.finfo(dtype).eps)
    values, vectors, norms, allowance = found.values, found.vectors, found.measured, found.allowance
    if (values[:-1] < values[1:]).any():
        order = np.argsort(-values, kind="stable")
        values, vectors, norms, allowance = values[order], vectors[:, order], norms[order], allowance[order]
    _check_range(found, values, eps)
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.copysign(1.0, vectors[largest, np.arange(values.size)])
    vectors = np.multiply(vectors, signs.astype(dtype), dtype=dtype, order="C", casting="same_kind")
    return Eigenpairs(
        values=values / found.scale**2,
        vectors=vectors,
        residuals=relative(norms + allowance, values, eps),
        converged=norms <= tolerances(values, eps, allowance),
        solver=found.solver,
        reason=found.reason,
        n_passes=found.n_passes,
        workspace_bytes=found.workspace_bytes,
        trace=found.trace / found.scale**2,
        mean=found.mean,
        variances=found.variances,
        weight_sum=found.weight_sum,
        backend=backend,
    )


def _check_range(found: ScaledEigenpairs, values: np.ndarray, eps: float) -> None:
    """Refuse values (descending) and variances that float64 does not hold in the units of the data.

    Values below eps^2 of the largest are rounding, and may be anything.
    """
    unit, most = found.scale**2, float(values[0]) if values.size else 0.0
    if not math.isfinite(most / unit):
        raise ValueError(validation.range_message(math.inf))
    smallest = float(values[-1]) if values.size else math.inf
    if smallest < eps**2 * most:
        smallest = float(values.min(where=values >= eps**2 * most, initial=math.inf))
    if 0.0 < smallest < math.inf and smallest / unit < _TINY:
        raise ValueError(validation.range_message(math.sqrt(most) / found.scale))
    variance = 0.0 if found.variances is None else float(np.maximum.reduce(found.variances, initial=0.0))
    if not (math.isfinite(found.trace / unit) and math.isfinite(variance)):
        raise ValueError(validation.range_message(math.inf))


def held(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 values >= 0 in the dtype, or as they are where it has no range for them.

    Values below eps^2 of the largest are rounding, and need no range.
    """
    eps, tiny, most = _limits(dtype)
    largest = float(np.maximum.reduce(values, initial=0.0))
    if largest <= most and (
        np.minimum.reduce(values, initial=math.inf) >= tiny or (values[values > eps**2 * largest] >= tiny).all()
    ):
        return values.astype(dtype)
    return np.asarray(values, dtype=np.float64)


@functools.cache
def _limits(dtype: np.dtype) -> tuple[float, float, float]:
    """eps, the smallest normal number and the largest."""
    found = np.finfo(dtype)
    return float(found.eps), float(found.tiny), float(found.max)


def warn_unconverged(pairs: Eigenpairs) -> None:
    """Warn where some residual is above what was asked for; names the components."""
    if pairs.converged.all():
        return
    late = np.flatnonzero(~pairs.converged)
    shown = ", ".join(map(str, late[:8])) + (", ..." if late.size > 8 else "")
    warnings.warn(
        f"{late.size} of {pairs.values.size} components are above the tolerance: components {shown} (counting from 0), "
        f"worst residual {pairs.residuals[late].max():.2g}. They are the best that was found: ask for a larger tol, "
        "raise n_oversamples, use svd_solver='gram', or pass float64 data.",
        ConvergenceWarning,
        stacklevel=user_level(),
    )
