"""From approximate eigenvectors to measured ones: residuals, and the passes over the rows that bring them down."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .. import plan
from ..backends import host_panels
from ..data import sources
from . import dense
from .eigenpairs import MeasuredPairs, ScaledEigenpairs, measured
from .request import OperatorOnRows, OperatorUse, Request, rows_operator


def is_graded(values: np.ndarray, eps: float) -> bool:
    """Whether the square lost digits of the smallest value that X still holds."""
    return bool(values[-1] < np.sqrt(eps) * values[0])


def settled(vectors: np.ndarray, images: np.ndarray, dtype: np.dtype) -> MeasuredPairs:
    """Rayleigh-Ritz in the span of `vectors`, rounded to `dtype`, with residual norms against the float64 images."""
    values, vectors, images = dense.settle(vectors, images)
    vectors = vectors.astype(dtype, copy=False)
    return MeasuredPairs(values, vectors, measured(values, vectors, images))


def found_on_rows(
    operator: OperatorOnRows, pairs: MeasuredPairs, route: plan.Route, workspace: int
) -> ScaledEigenpairs:
    """Pairs that passes of `operator` have found, with what else these know of the rows."""
    return ScaledEigenpairs(
        values=pairs.values,
        vectors=pairs.vectors,
        measured=pairs.norms,
        allowance=operator.rounding(pairs.vectors, pairs.values),
        scale=operator.scale,
        trace=operator.trace,
        n_passes=operator.n_passes,
        solver=route.solver,
        reason=route.reason + ("" if operator.note in route.reason else operator.note),
        workspace_bytes=workspace,
        mean=operator.mean,
        variances=operator.variances,
        weight_sum=operator.weight_sum,
        location=operator.location,
    )


def refined(source: sources.Source, request: Request, before: ScaledEigenpairs, basis: np.ndarray) -> ScaledEigenpairs:
    """One pass on the feature side, or two: Rayleigh-Ritz in `basis` with the projected data's own Gram, residuals.

    X basis is squared, not S: a direction of small variance keeps the relative accuracy that S lost.  Where rounding
    of the basis still shows, S basis, which has less of it, is the basis of a second pass.

    before : what has led to the basis (d, p): its location, its passes, its workspace and the reason for its route
    """
    itemsize, threads, p = source.compute_dtype.itemsize, request.backend.n_workers, basis.shape[1]
    held = plan.krylov_bytes(source.shape[1], itemsize, p, p, threads)
    use = OperatorUse(False, p, "refining pass", before.location, held, settles=True)
    operator = rows_operator(source, request, use)
    eps = float(np.finfo(operator.dtype).eps)
    for attempt in (1, 2):
        image, inner = operator.apply_inner(basis)
        graded, rotation = dense.graded_eigenpairs(inner)
        vectors, images = host_panels.multiply(basis, rotation, np.float64), host_panels.multiply(image, rotation)
        values, vectors, norms = settled(vectors, images, operator.dtype)
        small = graded < np.sqrt(eps) * graded[0]
        norms += np.where(small, np.abs(graded - values), 0.0)  # the residual was that of the other value
        values = np.where(small, graded, values)
        if attempt == 2 or (norms <= 0.75 * request.tolerances(values, eps)).all():
            break
        large = values > 1e-2 * values[0]
        basis = vectors.astype(np.float64)
        basis[:, large] = images[:, large] / values[large]
        basis, _ = scipy.linalg.qr(basis, mode="economic", overwrite_a=True, check_finite=False)
    need = max(before.workspace_bytes, held + operator.tile_bytes(threads))
    route = plan.Route(before.solver, False, before.reason)
    found = found_on_rows(operator, MeasuredPairs(values, vectors, norms), route, need)
    found.n_passes += before.n_passes
    return found


def features_from_samples(
    source: sources.Source,
    request: Request,
    route: plan.Route,
    operator: OperatorOnRows,
    vectors: np.ndarray,
    workspace: int,
) -> ScaledEigenpairs:
    """u_i ~ Xc' v_i, made orthonormal, then one Rayleigh-Ritz pass on the feature side, which also certifies.

    operator : of the samples;  vectors : (m, p), its eigenvectors;  workspace : bytes that it took to find them
    """
    carried = operator.project(vectors).astype(np.float64)
    norms = np.linalg.norm(carried, axis=0)
    lost = norms <= 16 * np.finfo(operator.dtype).eps * norms.max(initial=0.0)
    carried[:, ~lost] /= norms[~lost]
    carried[:, lost] = np.random.default_rng(0).standard_normal((carried.shape[0], int(lost.sum())))
    basis, _ = scipy.linalg.qr(carried, mode="economic", overwrite_a=True, check_finite=False)
    unknown = np.full(norms.size, np.nan)
    before = ScaledEigenpairs(
        values=norms**2,
        vectors=basis,
        measured=unknown,
        allowance=unknown,
        scale=operator.scale,
        trace=operator.trace,
        n_passes=operator.n_passes,
        solver=route.solver,
        reason=route.reason,
        workspace_bytes=workspace,
        location=operator.location,
    )
    return refined(source, request, before, basis)
