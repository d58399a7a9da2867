"""Where float32 Krylov passes start from when products may be coarser (`precision`): a coarse Gram, or coarse passes.

A coarse product is off by 2^-12 of every entry (TF32), and no certificate could be made of it.  So it only says where
to look: block Krylov in float32 starts from what is found here, measures residuals of its own, and stops on the
tolerance that is asked for in any case.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import plan
from ..data import sources
from ..operators import sparse
from ..operators.dense import DenseOperator
from . import dense, krylov
from .request import OperatorUse, Request, gathered_moments, tiles_operator

# The residuals that coarse products can bring down to, in units of the largest eigenvalue.
_NOISE = {"tf32": 2.0**-11, "bf16x9": 2.0**-24}


class Start(NamedTuple):
    """Where float32 passes start from.

    vectors : (n, b) float64, the first of them near the leading eigenvectors
    n_passes, workspace : over the data, and bytes, that they took to find;  reason : what `route_reason_` says of it
    """

    vectors: np.ndarray
    n_passes: int
    workspace: int
    reason: str


def objection(source: sources.Source, request: Request, route: plan.Route) -> str:
    """Why products are made in float32 although coarser ones were allowed; empty where coarser ones are made."""
    if request.backend.name == "cpu":
        return "it is a mode of CUDA cards, and this ran on the CPU"
    if source.compute_dtype != np.float32:
        return f"it applies to float32 data, and these are computed in {source.compute_dtype}"
    if request.checkpoint is not None:
        return "it does not go with a checkpoint"
    if sparse.stored_entries_pay(source):
        return "stored entries are not multiplied on tensor cores"
    if route.solver == "krylov":
        return ""
    if not route.by_feature and request.weights is None and request.backend.gram.has_exact_byte_gram(source):
        return "the Gram of bytes is exact as it is"
    entries = source.n_lines(not route.by_feature)
    if request.n_components is None or not plan.coarse_gram_pays(entries, request.block(entries)):
        return "to refine so many components takes longer than a Gram in float32"
    block, threads = request.block(entries), request.backend.n_workers
    need = plan.krylov_bytes(entries, source.compute_dtype.itemsize, block, min(entries, 4 * block), threads)
    if request.max_memory is not None and need > request.max_memory:
        return f"to refine takes {need:,} bytes, more than max_memory"
    return ""


def no_effect(precision: str, why: str) -> str:
    """What `reason` says where products were made in float32 although they might have been coarser."""
    return f"; precision={precision!r} had no effect: {why}"


def start(source: sources.Source, request: Request, route: plan.Route) -> Start:
    """Directions near the leading eigenvectors, on the side that the route says, by coarse products."""
    if route.solver == "krylov":
        return _by_passes(source, request, route.by_feature)
    itemsize, entries = source.compute_dtype.itemsize, source.n_lines(not route.by_feature)
    precision, backend = request.precision, request.backend
    if route.by_feature:
        use = OperatorUse(True, request.expected, "Gram of the samples", precision=precision)
        rows = tiles_operator(source, request, use)
        operator = DenseOperator(rows.gram(), scale=rows.scale, itemsize=itemsize, panels=backend.panels)
    else:
        moments = gathered_moments(source, request, precision=precision)
        operator = dense.of_moments(moments, request.standardize, backend.panels)
    count = None if request.count is None else request.block(entries)
    _, vectors = dense.leading_eigenpairs(operator, count, request.wanted, _noise(precision))
    workspace = plan.gram_bytes(entries, itemsize, backend.n_workers)
    return Start(vectors, 1, workspace, f"; that Gram in {precision}, then float32 passes from its components")


def _by_passes(source: sources.Source, request: Request, by_feature: bool) -> Start:
    """Block Krylov on coarse passes, as far as they can see."""
    precision, block = request.precision, request.block(source.n_lines(not by_feature))
    use = OperatorUse(by_feature, block, "coarse pass over the data", precision=precision)
    operator = tiles_operator(source, request, use)
    itemsize, threads = operator.dtype.itemsize, request.backend.n_workers
    basis = plan.largest_basis(operator.dim, block, itemsize, threads, request.max_memory)
    limits = krylov.Limits(block, basis, plan.EXPECTED_PASSES[itemsize])
    pairs = krylov.block_krylov(operator, request.wanted, _noise(precision), limits, seed=request.seed)
    if pairs is None:
        vectors, then = np.empty((operator.dim, 0)), "which found no start, then float32 passes from random directions"
    else:
        vectors, then = pairs.vectors, "then float32 passes from what they found"
    workspace = plan.krylov_bytes(operator.dim, itemsize, block, basis, threads) + operator.tile_bytes(threads)
    return Start(vectors, operator.n_passes, workspace, f"; {operator.n_passes} of them in {precision}, {then}")


def _noise(precision: str) -> krylov.Tolerance:
    """Residuals below which coarse products find nothing more."""
    return lambda values: np.full(values.shape, _NOISE[precision] * values[0])
