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
from ..operators import rows as operators
from ..operators.moments import Moments
from . import dense, krylov
from .request import Job, tiles_operator

# Residuals, in units of the largest eigenvalue, below which coarse products find nothing more.
_NOISE = {"tf32": 2.0**-11, "bf16x9": 2.0**-24}


class Start(NamedTuple):
    """vectors : (n, b) float64, the first of them near the leading eigenvectors;  n_passes, workspace : what they took

    reason : what to say of it.
    """

    vectors: np.ndarray
    n_passes: int
    workspace: int
    reason: str


def objection(source: sources.Source, job: Job, route: plan.Route) -> str:
    """Why products are made in float32 although they may be coarser; empty where nothing speaks against it.

    route : as chosen
    """
    if job.backend.name == "cpu":
        return "it is a mode of CUDA cards, and this ran on the CPU"
    if source.compute_dtype != np.float32:
        return f"it is of float32 data, and these are computed in {source.compute_dtype}"
    if job.checkpoint is not None:
        return "a run with a checkpoint has none"
    if isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz):
        return "stored entries are not multiplied on tensor cores"
    if route.solver == "krylov":
        return ""
    if not route.by_feature and job.weights is None and job.backend.gram.has_exact_byte_gram(source):
        return "the Gram of bytes is exact as it is"
    entries = source.n_lines(not route.by_feature)
    if job.n_components is None or not plan.coarse_gram_pays(entries, _block(job, entries)):
        return "to refine so many components takes longer than a Gram in float32"
    need = _krylov_bytes(job, entries, source.compute_dtype.itemsize)
    if job.max_memory is not None and need > job.max_memory:
        return f"to refine takes {need:,} bytes, more than max_memory"
    return ""


def no_effect(precision: str, why: str) -> str:
    """What `reason` says where products were made in float32 although they might have been coarser."""
    return f"; precision={precision!r} had no effect: {why}"


def start(source: sources.Source, job: Job, route: plan.Route) -> Start:
    """Directions near the leading eigenvectors, on the side that the route says, by coarse products."""
    if route.solver == "krylov":
        return _by_passes(source, job, route.by_feature)
    itemsize, entries = source.compute_dtype.itemsize, source.n_lines(not route.by_feature)
    if route.by_feature:
        rows = tiles_operator(source, job, True, job.expected, "Gram of the samples", precision=job.precision)
        operator = operators.DenseOperator(rows.gram(), scale=rows.scale, itemsize=itemsize, panels=job.backend.panels)
    else:
        moments = Moments(source.n_features, center=job.center)
        moments.update(
            source, sample_weight=job.weights, tick=job.tick("Gram of the features"), backend=job.backend.name,
            precision=job.precision,
        )  # fmt: skip
        operator = dense.of_moments(moments, job.standardize, job.backend.panels)
    count = None if job.count is None else _block(job, entries)
    _, vectors = dense.leading_eigenpairs(
        operator, count, job.wanted, lambda values: np.full(values.shape, _NOISE[job.precision] * values[0])
    )
    workspace = plan.gram_bytes(entries, itemsize, job.backend.n_workers)
    return Start(vectors, 1, workspace, f"; that Gram in {job.precision}, then float32 passes from its components")


def _by_passes(source: sources.Source, job: Job, by_feature: bool) -> Start:
    """Block Krylov on coarse passes, as far as they can see."""
    block = _block(job, source.n_lines(not by_feature))
    operator = tiles_operator(source, job, by_feature, block, "coarse pass over the data", precision=job.precision)
    itemsize, threads = operator.dtype.itemsize, job.backend.n_workers
    basis = plan.largest_basis(operator.dim, block, itemsize, threads, job.max_memory)
    pairs = krylov.block_krylov(
        operator,
        job.wanted,
        lambda values: np.full(values.shape, _NOISE[job.precision] * values[0]),
        block=block,
        max_basis=basis,
        max_products=plan.EXPECTED_PASSES[itemsize],
        seed=job.seed,
    )
    n = operator.n_passes
    if pairs is None:
        vectors, led = np.empty((operator.dim, 0)), "from random directions, for they led nowhere"
    else:
        vectors, led = pairs.vectors, "from where they led"
    workspace = plan.krylov_bytes(operator.dim, itemsize, block, basis, threads) + operator.tile_bytes(threads)
    return Start(vectors, n, workspace, f"; {n} of them in {job.precision}, then float32 {led}")


def _block(job: Job, entries: int) -> int:
    return plan.krylov_block(job.expected, job.oversamples, entries)


def _krylov_bytes(job: Job, entries: int, itemsize: int) -> int:
    block = _block(job, entries)
    return plan.krylov_bytes(entries, itemsize, block, min(entries, 4 * block), job.backend.n_workers)
