"""What the solver hands on: eigenpairs in scaled units, and the finished ones with their certificate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import validation
from ..errors import ConvergenceWarning
from ..operators import rounding

# Residual norms asked for, of values (p,), eps and allowances (p,).
Asked = Callable[[np.ndarray, float, np.ndarray], np.ndarray]


@dataclass(repr=False)
class Eigenpairs:
    """Leading eigenpairs of S: the centred second moments with scale "sum", or the operator that was given.

    Attributes
    ----------
    values : (p,) float64, descending;  vectors : (n, p), orthonormal columns, in the compute dtype of the data
    residuals : (p,) float64, upper bounds of |S u_i - l_i u_i| / max(l_i, eps l_1)
    converged : (p,) bool, the measured residual is within tol, or within 8 eps l_1 / l_i and the allowance for the
        rounding of what it was measured against, which `residuals` adds
    solver : "gram" | "krylov";  reason : why;  n_passes : times the data was read
    workspace_bytes : the most that was planned beside the data and the result
    trace : of S;  mean : (d,) float64;  variances : (d,) float64, sum of weighted squares about the mean;
    weight_sum : float.  The last three are None or nan where an operator was given.
    backend : "cpu" | "cuda", what computed them
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


@dataclass
class Found:
    """Eigenpairs in scaled units, before `finish`.

    measured : (p,) residual norms;  allowance : (p,) for the rounding of what they were measured against
    location : (d,) the mean of X, or zeros where nothing is centred and it is not known; None where there is no X
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


def finish(found: Found, asked: Asked, dtype: np.dtype) -> Eigenpairs:
    """Order, signs, relative residuals, the warning; scaled units end here."""
    eps = float(np.finfo(dtype).eps)
    with np.errstate(over="ignore"):
        largest = float(np.max(found.values, initial=0.0)) / found.scale**2
    if not np.isfinite(largest):
        raise ValueError(validation.range_message(np.inf))
    _check_range(found, eps)
    order = np.argsort(-found.values, kind="stable")
    values, measured = found.values[order], found.measured[order]
    vectors = np.ascontiguousarray(found.vectors[:, order], dtype=dtype)
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.where(vectors[largest, np.arange(values.size)] < 0, -1, 1).astype(dtype)
    allowance = found.allowance[order]
    residuals = rounding.relative(measured + allowance, values, eps)
    converged = measured <= asked(values, eps, allowance)
    pairs = Eigenpairs(
        values=values / found.scale**2,
        vectors=vectors,
        residuals=residuals,
        converged=converged,
        solver=found.solver,
        reason=found.reason,
        n_passes=found.n_passes,
        workspace_bytes=found.workspace_bytes,
        trace=found.trace / found.scale**2,
        mean=found.mean,
        variances=found.variances,
        weight_sum=found.weight_sum,
    )
    if not converged.all():
        _warn(pairs)
    return pairs


def _check_range(found: Found, eps: float) -> None:
    """Refuse values and variances that float64 does not hold in the units of the data.

    Values below eps^2 of the largest are rounding, and may be anything.
    """
    smallest = np.min(found.values, where=found.values >= eps**2 * np.max(found.values, initial=0.0), initial=np.inf)
    with np.errstate(over="ignore", under="ignore"):
        least, trace = smallest / found.scale**2, found.trace / found.scale**2
    if 0.0 < smallest < np.inf and least < np.finfo(np.float64).tiny:
        raise ValueError(validation.range_message(float(np.sqrt(np.max(found.values)) / found.scale)))
    if not np.isfinite(trace) or (found.variances is not None and not np.isfinite(found.variances).all()):
        raise ValueError(validation.range_message(np.inf))


def held(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 values >= 0 in the dtype, or as they are where it has no range for them.

    Values below eps^2 of the largest are rounding, and need no range.
    """
    limits = np.finfo(dtype)
    largest = float(np.max(values, initial=0.0))
    wanted = values[values > float(limits.eps) ** 2 * largest]
    if largest <= float(limits.max) and (wanted >= float(limits.tiny)).all():
        return values.astype(dtype)
    return np.asarray(values, dtype=np.float64)


def _warn(pairs: Eigenpairs) -> None:
    late = np.flatnonzero(~pairs.converged)
    shown = ", ".join(map(str, late[:8])) + (", ..." if late.size > 8 else "")
    warnings.warn(
        f"{late.size} of {pairs.values.size} components are above the tolerance: components {shown} (counting from 0), "
        f"worst residual {pairs.residuals[late].max():.2g}. They are the best that was found: ask for a larger tol, "
        "raise n_oversamples, use svd_solver='gram', or pass float64 data.",
        ConvergenceWarning,
        stacklevel=4,
    )
