"""One pass over the rows of a source that gathers their second moments: in tiles, bytes or stored entries.

Equations: docs/pca.md, "Shifted moments" and "Merging moments".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from .. import validation
from ..backends import Backend
from ..backends.lines import NotBytesError, Tick, View
from ..data import sources
from ..data.checkpoint import Checkpoint, changing, fingerprint, warn_none_kept
from ..errors import DataFileError
from . import means, sparse
from .means import Mean
from .pilot import byte_view, pilot_view

# Sparse row blocks are stacked to about this many entries, counting those that are not stored.
_STACKED_ENTRIES = 1 << 26


@dataclass
class GatheredMoments:
    """Second moments of the rows of one source, in n columns.

    scatter : (n, n) float64, sums of squares about the mean, times scale^2; None: all rows had weight zero, and are
        counted in `n_samples` alone
    mean : (n,), in units of the data
    dtype, run, float32_run, drift, about_zero, abandoned_passes : as of `Moments`
    """

    scatter: np.ndarray | None
    mean: Mean
    scale: float
    dtype: np.dtype
    n_samples: int = 0
    weight_sum: float = 0.0
    run: int = 0
    float32_run: int = 0
    drift: float = 0.0
    about_zero: int = 0
    abandoned_passes: int = 0


def gather(
    source: sources.Source,
    weights: np.ndarray | None,
    tick: Tick | None,
    used: Backend,
    checkpoint: Checkpoint | None = None,
    precision: str = "float32",
) -> Iterator[GatheredMoments]:
    """The moments of a source, in one pass: of all its rows, or of one stack of rows after the other, to be merged.

    precision : of products of float32 on CUDA (`PCA`)
    """
    if isinstance(source, sources.BlockSource) and source.blocks.is_sparse:
        yield from _gather_sparse_blocks(source, weights, tick, used)
    elif isinstance(source, sources.SparseSource) and (found := _gather_entries(source, weights, tick, used)):
        warn_none_kept(checkpoint, "X is sparse, and in memory")
        yield found
    else:
        yield _gather_rows(source, weights, tick, used, checkpoint, precision)


def stacked(source: sources.Source, targets: sources.Source | None, n_features: int, n_targets: int) -> sources.Source:
    """Rows with their targets beside them, for moments of so many features and targets.

    Raises
    ------
    ValueError, TypeError
        They do not fit the moments, or one another.
    """
    if source.n_features != n_features:
        raise ValueError(f"X has {source.n_features} features, but these moments have {n_features}.")
    if (targets is not None) != bool(n_targets):
        raise ValueError("Y is missing." if n_targets else "Y is given, but these moments have no targets.")
    if targets is None:
        return source
    if any(isinstance(one, (sources.BlockSource, sources.DaskSource)) for one in (source, targets)):
        raise TypeError(
            "Rows that come in blocks, or are on Dask, cannot be paired with Y: make moments of one block of each, "
            "and add them up (docs/clusters.md, Regression)."
        )
    if targets.shape[0] != source.shape[0]:
        raise ValueError(f"Y has {targets.shape[0]} rows, but X has {source.shape[0]}: pass one row of Y per row of X.")
    if targets.shape[1] != n_targets:
        raise ValueError(f"Y has {targets.shape[1]} columns, but these moments have {n_targets} targets.")
    return sources.StackedSource(source, targets)


def _gather_entries(
    source: sources.SparseSource, weights: np.ndarray | None, tick: Tick | None, used: Backend
) -> GatheredMoments | None:
    """By pairs of stored entries; None where rows made dense are quicker or more accurate."""
    found = sparse.moments_about_mean(source, weights, tick, used)
    if found is None:
        return None
    scatter, mean, scale = found
    m = source.shape[0]
    return GatheredMoments(
        scatter, Mean(mean, np.zeros_like(mean)), scale, source.compute_dtype, n_samples=m, about_zero=m,
        weight_sum=float(m) if weights is None else float(weights.sum()),
    )  # fmt: skip


def _gather_rows(
    source: sources.Source,
    weights: np.ndarray | None,
    tick: Tick | None,
    used: Backend,
    checkpoint: Checkpoint | None,
    precision: str,
) -> GatheredMoments:
    """In whole numbers where the rows are bytes, else in tiles that are shifted first."""
    abandoned = 0
    may_be_bytes = weights is None and (checkpoint is None or used.gram.has_exact_byte_gram(source))
    if may_be_bytes and (view := byte_view(source, tick, used)):
        try:
            return _gather_chunks(source, view, None, used, checkpoint)
        except NotBytesError:  # the few lines that were looked at were not like the others
            abandoned = 1
    view, pilot_variance = pilot_view(source, weights, tick=tick, backend=used.name, precision=precision)
    out = _gather_chunks(source, view, pilot_variance, used, checkpoint)
    out.abandoned_passes = abandoned
    return out


def _gather_chunks(
    source: sources.Source,
    view: View,
    pilot_variance: np.ndarray | None,
    used: Backend,
    checkpoint: Checkpoint | None,
) -> GatheredMoments:
    """The moments of dense rows, chunk by chunk.

    pilot_variance : see `GramPasses.float_gram`;  None: exact sums of bytes by `GramPasses.exact_byte_gram`, which
        raises NotBytesError where rows are none
    """
    weights = view.weights if view.weights.size else None
    base = view.shift.astype(np.float64)
    total = used.gram.square(base.size)
    # until all chunks have joined, `mean` is in scaled units and the scatter is in `total`
    out = GatheredMoments(None, Mean(*np.zeros((2, base.size))), view.scale, source.compute_dtype)
    start = 0
    if checkpoint is not None and (state := _state(checkpoint, source, weights, view, base, used.provider())):
        total[:], out.mean = used.panels.place(state["scatter"]), Mean(*state["mean"])
        out.weight_sum, out.n_samples = float(state["weight_sum"]), int(state["n_samples"])
        out.run, out.drift = int(state["run"]), float(state["drift"])
        start = int(state["chunks"])
    of = f" of {view.n_chunks}" if checkpoint is not None and math.isfinite(view.n_lines) else ""

    def commit(chunk: Any) -> None:
        with changing(checkpoint):
            if not np.isfinite(chunk.sums).all():
                sources.raise_nonfinite(source, chunk.lines, chunk.first)
            _join(out, total, chunk, view.scale)
            if checkpoint is not None:
                chunks, state = chunk.number + 1, _so_far(out, base)
                checkpoint.offer(
                    lambda: state | {"chunks": chunks, "scatter": used.panels.fetch(total)}, f"chunk {chunks}{of}"
                )

    if pilot_variance is None:
        used.gram.exact_byte_gram(view, commit, start)
    else:
        used.gram.float_gram(view, pilot_variance, commit, start)
    out.mean = Mean(out.mean.high / view.scale, out.mean.low / view.scale)
    out.scatter = used.gram.symmetric(total)
    out.float32_run = out.run if out.dtype.itemsize == 4 else 0
    return out


def _join(out: GatheredMoments, total: Any, chunk: Any, scale: float) -> None:
    """Add a chunk to `out`, whose mean is in scaled units, and to the scatter `total` (docs/pca.md, P2)."""
    if chunk.weight > 0:
        mean = chunk.sums / chunk.weight
        here = means.exact_sum(chunk.shift.astype(np.float64) * scale, mean)
        if out.weight_sum > 0.0:
            mixed = out.weight_sum * chunk.weight / (out.weight_sum + chunk.weight)
            offset = means.distance(here, out.mean)
            chunk.add_to(total, chunk.sums, mean, offset, mixed)
            out.mean = means.joined(out.mean, here, out.weight_sum, chunk.weight, offset)
        else:
            chunk.add_to(total, chunk.sums, mean, np.zeros_like(mean), 0.0)
            out.mean = here
    else:
        zeros = np.zeros_like(chunk.sums)
        chunk.add_to(total, zeros, zeros, zeros, 0.0)
    out.weight_sum += chunk.weight
    out.n_samples += chunk.count
    out.run = max(out.run, chunk.run)
    if chunk.run:
        out.drift = max(out.drift, chunk.drift)


def _so_far(out: GatheredMoments, base: np.ndarray) -> dict[str, Any]:
    """What a checkpoint keeps between two chunks, beside their number and the scatter."""
    return {
        "n_samples": out.n_samples,
        "weight_sum": out.weight_sum,
        "run": out.run,
        "drift": out.drift,
        "base": base,
        "scale": out.scale,
        "mean": np.stack(out.mean),
    }


def _state(
    checkpoint: Checkpoint,
    source: sources.Source,
    weights: np.ndarray | None,
    view: View,
    base: np.ndarray,
    blas: str,
) -> dict[str, np.ndarray] | None:
    """Where a killed run was, if there was one."""
    tiling = [view.tiling.chunk, view.tiling.tile]
    state = checkpoint.begin(
        fingerprint(source, "Gram of the features", weights, scale=view.scale, tiling=tiling, blas=blas)
    )
    if state is not None and not np.array_equal(state["base"], base):
        raise DataFileError(
            f"The checkpoint {checkpoint.path} was made of other numbers than the input holds now: remove it to start "
            "anew."
        )
    return state


def _gather_sparse_blocks(
    source: sources.BlockSource, weights: np.ndarray | None, tick: Tick | None, used: Backend
) -> Iterator[GatheredMoments]:
    """The moments of sparse row blocks: stacked into matrices whose heights do not depend on the blocks' own."""
    d = source.n_features
    rows = int(np.clip(_STACKED_ENTRIES // d, 256, 32768))
    source.blocks.start()
    while parts := source.blocks.take_sparse(rows):
        stack = sources.as_source(scipy.sparse.vstack(parts, format="csr"))
        m = stack.shape[0]
        stack.first_row = source.position - m
        here = None
        if weights is not None:
            here = weights[stack.first_row : source.position]
            if here.size < m:
                raise ValueError(validation.few_weights_message(weights.size))
        if here is None or here.any():
            yield from gather(stack, here, None, used)
        else:
            yield GatheredMoments(None, Mean(np.zeros(d), np.zeros(d)), 1.0, stack.compute_dtype, n_samples=m)
        if tick is not None:
            tick(source.position, None)
