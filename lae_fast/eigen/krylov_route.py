"""The Krylov route: block Krylov on passes over the rows, or on an operator that the caller has made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import plan
from .. import progress as progress_reports
from ..data import sources
from ..operators import sparse
from ..sizes import format_bytes
from . import krylov, mixed_precision, refine
from .eigenpairs import ScaledEigenpairs
from .krylov_checkpoint import KrylovCheckpoint
from .request import OperatorOnRows, OperatorUse, Request, rows_operator

# The iteration stops at this share of what is asked, so that rounding has room.
_SHARE = 0.5
_MOST_PRODUCTS = 300


@dataclass(frozen=True)
class Abandoned:
    """Passes that were given up because the Gram route is the better one: how many, and the workspace they took."""

    n_passes: int
    workspace_bytes: int


def columns(source: sources.Source, request: Request, is_sparse: bool) -> int:
    """Columns of the Krylov block: fewer than p where reading the data once more costs little."""
    wide = request.block()
    if is_sparse or (source.in_memory and request.backend.name == "cpu"):
        return plan.narrow_block(wide, is_sparse)
    return wide


def pairs_of_entries(source: sources.Source) -> float | None:
    """Pairs of stored entries in the Gram of the short side, or None for rows that are not sparse."""
    return source.pairs(source.shape[0] < source.shape[1]) if isinstance(source, sources.SparseSource) else None


def on_rows(
    source: sources.Source, request: Request, route: plan.Route, start: mixed_precision.Start | None = None
) -> ScaledEigenpairs | Abandoned:
    """Block Krylov on passes over the rows, from a random block or from `start`."""
    itemsize, threads = source.compute_dtype.itemsize, request.backend.n_workers
    wide = request.block()
    if start is not None:  # for a fraction of the variance it has as many columns as that needed
        wide = max(wide, start.vectors.shape[1])
    stage = progress_reports.Passes("pass over the data")
    entries = source.n_lines(not route.by_feature)
    basis = plan.largest_basis(entries, wide, itemsize, threads, request.max_memory)
    held = plan.krylov_bytes(entries, itemsize, wide, basis, threads)
    operator = rows_operator(source, request, OperatorUse(route.by_feature, wide, stage, held=held))
    block = wide if start is not None else columns(source, request, isinstance(operator, sparse.SparseOperator))
    stage.expected = plan.expected_passes(itemsize, wide, block)
    limits = _limits(source, request, wide, basis, block)
    workspace = held + operator.tile_bytes(threads)
    before, keeper = 0, None
    if start is not None:
        before, workspace = start.n_passes, max(workspace, start.workspace)
    elif request.checkpoint is not None:
        keeper = KrylovCheckpoint(
            request.checkpoint, operator, request.seed, by_feature=route.by_feature, center=request.center,
            standardize=request.standardize, n_components=request.n_components, tol=request.tol, block=block,
            basis=basis, products=[limits.max_products, limits.give_up_after],
        )  # fmt: skip
    pairs = None
    if keeper is None or keeper.spent is None:
        pairs = krylov.block_krylov(
            operator, request.wanted, request.share_of_tolerances(_SHARE, operator.dtype), limits, seed=request.seed,
            checkpoint=keeper, start=None if start is None else start.vectors, stage=stage,
        )  # fmt: skip
    if request.checkpoint is not None:
        request.checkpoint.release()
    if limits.give_up_after is not None and (pairs is None or not pairs.converged):
        passes = before + operator.n_passes
        return Abandoned(passes if keeper is None else keeper.give_up(passes), workspace)
    operator.n_passes += before
    if pairs is None:
        raise ValueError(_too_many_message(request, operator, wide, basis))
    if route.by_feature:
        return refine.features_from_samples(source, request, route, operator, pairs.vectors, workspace)
    return _settled_on_rows(source, request, route, operator, pairs, workspace)


def _limits(source: sources.Source, request: Request, wide: int, basis: int, block: int) -> krylov.Limits:
    """What the iteration may take; it is given up, for the Gram route, only where that one is open.

    wide : columns that memory is planned for;  basis : columns of the basis;  block : of a pass
    """
    itemsize = source.compute_dtype.itemsize
    side = source.n_features if source.by_row_only else request.largest
    if request.solver == "krylov" or not plan.gram_fits(side, itemsize, request.backend.n_workers, request.max_memory):
        return krylov.Limits(block, basis, _MOST_PRODUCTS, wide)
    expected = plan.expected_passes(itemsize, wide, block)
    products = plan.pass_budget(source.shape, block, itemsize, source.nnz, expected, pairs_of_entries(source))
    return krylov.Limits(block, basis, products, wide, expected)


def _settled_on_rows(
    source: sources.Source,
    request: Request,
    route: plan.Route,
    operator: OperatorOnRows,
    pairs: krylov.RitzPairs,
    workspace: int,
) -> ScaledEigenpairs:
    """Converged pairs of the feature side, refined where their measured residuals still show rounding."""
    settled = refine.settled(pairs.vectors, pairs.images, operator.dtype)
    found = refine.found_on_rows(operator, settled, route, workspace)
    eps = float(np.finfo(operator.dtype).eps)
    rough = refine.is_graded(settled.values, eps) or (settled.norms > request.tolerances(settled.values, eps)).any()
    if pairs.converged and rough:
        return refine.refined(source, request, found, settled.vectors.astype(np.float64))
    return found


def _too_many_message(request: Request, operator: OperatorOnRows, wide: int, basis: int) -> str:
    if request.max_memory is not None and basis < min(operator.dim, max(12 * wide, 256)):
        limit = f"can hold in max_memory={format_bytes(request.max_memory)}: raise max_memory, "
    else:
        limit = f"finds in {basis} columns and {operator.n_passes} passes: "
    return (
        f"n_components={request.n_components!r} needs more components than svd_solver='krylov' {limit}use "
        "svd_solver='gram', or ask for fewer."
    )


def on_operator(operator: Any, request: Request) -> ScaledEigenpairs:
    """Block Krylov on an operator that was given (`top_eigenpairs` says what it must have)."""
    dtype = np.dtype(operator.dtype)
    block, threads = request.block(operator.dim), request.backend.n_workers
    basis = plan.largest_basis(operator.dim, block, dtype.itemsize, threads, request.max_memory)
    pairs = krylov.block_krylov(
        operator, request.wanted, request.share_of_tolerances(_SHARE, dtype),
        krylov.Limits(block, basis, _MOST_PRODUCTS), seed=request.seed,
    )  # fmt: skip
    if pairs is None:
        raise ValueError(
            f"p={request.n_components!r} needs more components than the basis of {basis} columns can hold."
        )
    found = refine.settled(pairs.vectors, pairs.images, dtype)
    return ScaledEigenpairs(
        values=found.values,
        vectors=found.vectors,
        measured=found.norms,
        allowance=np.zeros_like(found.norms),
        scale=getattr(operator, "scale", 1.0),
        trace=float(operator.trace),
        n_passes=int(getattr(operator, "n_passes", 0)),
        solver="krylov",
        reason="an operator was given",
        workspace_bytes=plan.krylov_bytes(operator.dim, dtype.itemsize, block, basis, threads),
    )
