"""The Gram route: the second moments of the short side as a matrix in memory, and its eigenpairs."""

from __future__ import annotations

import numpy as np

from .. import plan
from ..backends import host_panels
from ..backends.threads import READ_AHEAD, lapack_threads
from ..data import sources
from ..data.checkpoint import warn_none_kept
from ..operators import certificate, sparse
from ..operators.dense import DenseOperator
from ..operators.moments import Moments
from . import dense, refine
from .eigenpairs import ScaledEigenpairs, measured
from .request import OperatorUse, Request, gathered_moments, rows_operator, tiles_operator

# The iteration on a matrix stops at this share of what is asked, so that rounding has room.
_SHARE = 0.125


def of_features(
    source: sources.Source, request: Request, route: plan.Route, moments: Moments | None = None
) -> ScaledEigenpairs:
    """d x d moments in one pass; a second pass where the square lost what small eigenvalues need."""
    if moments is None:
        moments = gathered_moments(source, request, request.checkpoint)
    found = of_moments(moments, request)
    threads = request.backend.n_workers
    found.n_passes, found.reason = 1 + moments.abandoned_passes, route.reason
    found.workspace_bytes = plan.gram_bytes(source.shape[1], source.compute_dtype.itemsize, threads)
    if source.in_order:
        held = plan.DEVICE_READERS if request.backend.name == "cuda" else threads + READ_AHEAD
        found.workspace_bytes += plan.read_ahead_bytes(*source.shape, source.dtype.itemsize, held, request.backend.name)
    eps = float(np.finfo(source.compute_dtype).eps)
    unresolved = refine.is_graded(found.values, eps) or (found.measured > request.tolerances(found.values, eps)).any()
    if unresolved and source.rereadable:
        return refine.refined(source, request, found, found.vectors)
    return found


def of_samples(source: sources.Source, request: Request, route: plan.Route) -> ScaledEigenpairs:
    """m x m Gram of a wide matrix, then its eigenvectors carried over to the features."""
    m, d = source.shape
    itemsize, threads = source.compute_dtype.itemsize, request.backend.n_workers
    held = plan.gram_bytes(m, itemsize, threads)
    use = OperatorUse(True, request.expected, "Gram of the samples", held=held)
    by_entries = (
        isinstance(source, sources.SparseSource)
        and plan.sparse_gram_pays(d, m, source.pairs(True), request.backend.name)
        and request.backend.sparse.can_hold(source)
    )
    operator = rows_operator(source, request, use) if by_entries else tiles_operator(source, request, use)
    if by_entries:
        warn_none_kept(request.checkpoint, "X is sparse, and in memory")
    matrix = operator.gram() if isinstance(operator, sparse.SparseOperator) else operator.gram(request.checkpoint)
    small = DenseOperator(matrix, scale=operator.scale, itemsize=itemsize, panels=request.backend.panels)
    _, vectors = _eigenpairs(small, request)
    workspace = held + operator.tile_bytes(threads)
    return refine.features_from_samples(source, request, route, operator, vectors, workspace)


def of_moments(moments: Moments, request: Request) -> ScaledEigenpairs:
    """Eigenpairs of moments, measured against the matrix that they are."""
    matrix, scale = moments.scaled_xx()
    operator = dense.of_moments(moments, request.standardize, request.backend.panels)
    with lapack_threads(operator.dim):
        values, vectors = _eigenpairs(operator, request)
        if not dense.is_solved_in_double(operator, request.count):
            values, turn = dense.settling(vectors, operator.apply_exactly(vectors))
            vectors = host_panels.multiply(vectors, turn)
        vectors = vectors.astype(moments.dtype, copy=False)
        norms = measured(values, vectors, operator.apply_exactly(vectors))
        sums = moments.sums(request.standardize)
        allowance = certificate.gram_rounding(operator.matrix, vectors, values, sums, request.standardize)
    return ScaledEigenpairs(
        values=values,
        vectors=vectors,
        measured=norms,
        allowance=allowance,
        scale=operator.scale,
        trace=operator.trace,
        n_passes=0,
        solver="gram",
        reason="moments were given",
        workspace_bytes=plan.gram_bytes(operator.dim, moments.dtype.itemsize, 1),
        mean=moments.mean,
        variances=matrix.diagonal() / scale**2,
        weight_sum=moments.weight_sum,
        location=moments.location,
    )


def _eigenpairs(operator: DenseOperator, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues (p,) and eigenvectors (n, p), float64."""
    tolerance = request.share_of_tolerances(_SHARE, operator.dtype)
    return dense.leading_eigenpairs(operator, request.count, request.wanted, tolerance)
