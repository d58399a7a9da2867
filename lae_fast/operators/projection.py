"""Scores of rows, (x_r - mean) loadings', in one pass: dense rows by tiles, sparse ones over their stored entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import plan, validation
from ..backends import Backend, choose, get_backend
from ..backends.lines import Lines, Statistics, Tick, View
from ..backends.threads import READ_AHEAD
from ..data import sources
from .sparse import stored_entries_pay

# Scores are checked, and those of a sparse matrix handed on, by so many rows.
_ROWS_HANDED = 16_384
# Loadings within this many powers of two from one need no scale.
_ORDINARY_EXPONENT = 60
# A column is centred before it is multiplied where its mean is more than _CLOSE deviations of its stored entries from
# zero, and at least one of _STORED rows stores it; of so many entries at once.
_CLOSE, _STORED = 2.0, 8
_ENTRIES_AT_ONCE = 1 << 20
# Rows whose errors are added up at once.
_ROWS_OF_ERRORS = 1024


class _Projection(NamedTuple):
    """x -> (x - mean) loadings': mean (d,) and loadings (p, d), float64.

    factor : a power of two that multiplies rows and divides loadings, to keep both in range
    """

    mean: np.ndarray
    loadings: np.ndarray
    factor: float


def scores(
    source: sources.Source,
    mean: np.ndarray,
    loadings: np.ndarray,
    out: np.ndarray | Callable[[np.ndarray], object] | None,
    backend: str = "auto",
    *,
    max_memory: int | None = None,
    tick: Tick | None = None,
) -> Any:
    """(x_r - mean) loadings' for every row, in one pass: (m, p) in the source's compute dtype, where the source is.

    mean : (d,) float64;  loadings : (p, d) float64
    out : (m, p) on the host, writable, with C-ordered rows;  None for a new array;  or a callable that is given the
        scores in order, some rows at a time, on the host, so that they are never held together: the answer is None then
    Of rows on Dask scores are a Dask array, and nothing is computed yet.
    max_memory : bytes for the workspace of the host, which is cut to fit: at least one row for each thread

    Raises
    ------
    ValueError
        NaN or inf in X (names the first), or a score that the compute dtype cannot hold; an `out` that does not fit.
    """
    if isinstance(source, sources.DaskSource):
        if out is not None:
            raise TypeError(
                "Scores of rows on Dask are a Dask array, which is computed where the rows are, so there is no out to "
                "write to: leave it out, and store what is returned (.compute(), .to_zarr(...), dask.array.store)."
            )
        return source.lazily(_scores_of_chunk, loadings.shape[0], (mean, loadings, backend))
    dtype = source.compute_dtype
    shape = (source.shape[0], loadings.shape[0])
    name = choose(backend, source.on_device, plan.device_pays(*source.shape, loadings.shape[0], source.nnz, passes=1))
    used = get_backend(name)
    projection = _Projection(mean, loadings, _middle(loadings, dtype))
    returned = source.returned if isinstance(source, sources.DeviceSource) and out is None and name == "cuda" else None
    target: Any
    if out is None:
        target = np.empty(shape, dtype) if returned is None else used.panels.empty(shape, dtype)
    elif callable(out):
        target = _HandedOn(out)
    else:
        _check_out(out, shape, dtype)
        target = out
    if not stored_entries_pay(source):
        _project_tiles(source, projection, target, used, max_memory, tick)
    elif callable(target):
        _hand_on_entries(source, projection, target, used, tick)
    else:
        _project_entries(source, projection, target, used)
    if isinstance(target, _HandedOn):
        finite = target.finite
    else:
        finite = _all_finite(target) if returned is None else used.panels.is_finite(target)
    if not finite:
        sources.raise_nonfinite(source)
    if isinstance(target, _HandedOn):
        return None
    return target if returned is None else returned(target)


def _scores_of_chunk(source: sources.Source, own: Any, mean: np.ndarray, loadings: np.ndarray, backend: str) -> Any:
    return scores(source, mean, loadings, None, backend)


def expanded(source: sources.Source, loadings: np.ndarray, mean: np.ndarray | None, dtype: np.dtype) -> Any:
    """Rows (m, p) times loadings (p, d), plus the mean (d,) or None: (m, d) of `dtype`, where the rows are.

    loadings, mean : on the host.  Of rows on Dask it is a Dask array, and nothing is computed yet.

    Raises
    ------
    ValueError
        NaN or inf in the rows (names the first); on Dask when they are computed.
    """
    source.compute_dtype, source.suggests_em = dtype, False
    if isinstance(source, sources.DaskSource):
        return source.lazily(_expanded_chunk, loadings.shape[1], (loadings, mean))
    if isinstance(source, sources.DeviceSource):
        return _expanded_there(source, loadings, mean)
    return _expanded_chunk(source, None, loadings, mean)


def _expanded_chunk(source: sources.Source, own: Any, loadings: np.ndarray, mean: np.ndarray | None) -> Any:
    dtype = source.compute_dtype
    given = np.asarray(source.block(0, source.shape[0], False))
    if not np.isfinite(given).all():
        source.suggests_em = False
        sources.raise_nonfinite(source)
    rows = given.astype(dtype, copy=False) @ loadings.astype(dtype, copy=False)
    return rows if mean is None else rows + mean.astype(dtype)


def _expanded_there(source: sources.DeviceSource, loadings: np.ndarray, mean: np.ndarray | None) -> Any:
    """On a device, in the library that the rows came in."""
    panels, given = get_backend("cuda").panels, source.device_block(0, source.shape[0], False)
    if not panels.is_finite(given):
        sources.raise_nonfinite(source)
    rows = panels.multiply(given, loadings, source.compute_dtype)
    if mean is not None:
        rows += panels.place(mean, source.compute_dtype)
    return source.returned(rows)


class Rebuilding(NamedTuple):
    """x -> target_mean + A B (x - mean): mean (d,), loadings B (p, d), decoder A (q, p), target_mean (q,), float64."""

    mean: np.ndarray
    loadings: np.ndarray
    decoder: np.ndarray
    target_mean: np.ndarray


def mean_squared_error(
    source: sources.Source, targets: sources.Source | None, weights: np.ndarray | None, rebuilt: Rebuilding,
    backend: str = "auto",
) -> float:  # fmt: skip
    """Weighted mean over the rows x of |y - rebuilt(x)|^2, in float64.

    targets : the rows y, None for x;  weights : (m,) or None.  On Dask it is added up where the rows are.
    """
    if not isinstance(source, sources.DaskSource):
        total, weight = _squared_errors(source, weights, rebuilt, backend, targets)
    elif targets is None:
        total, weight = source.reduced(_squared_errors, _both, (rebuilt, backend), source.split(weights))
    else:
        raise TypeError("Rows on Dask cannot be paired with targets: score one block of each, and take the mean.")
    return total / weight


def _squared_errors(
    source: sources.Source, weights: np.ndarray | None, rebuilt: Rebuilding, backend: str,
    targets: sources.Source | None = None,
) -> tuple[float, float]:  # fmt: skip
    """The weighted sum, and the sum of the weights."""
    m, total = source.shape[0], 0.0
    wanted = source if targets is None else targets
    weights = np.ones(m) if weights is None else weights
    codes = np.empty((m, len(rebuilt.loadings)), source.compute_dtype)
    scores(source, rebuilt.mean, rebuilt.loadings, codes, backend)
    for first in range(0, m, _ROWS_OF_ERRORS):
        last = min(m, first + _ROWS_OF_ERRORS)
        centred = np.asarray(wanted.block(first, last, False), dtype=np.float64) - rebuilt.target_mean
        errors = centred - codes[first:last].astype(np.float64) @ rebuilt.decoder.T
        total += float(weights[first:last] @ np.einsum("ij,ij->i", errors, errors))
    return total, float(weights.sum())


def _both(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] + other[0], one[1] + other[1]


def _project_tiles(
    source: sources.Source,
    projection: _Projection,
    out: Any,
    used: Backend,
    max_memory: int | None,
    tick: Tick | None,
) -> None:
    """out <- the scores of rows that are read tile by tile."""
    dtype, (m, d), p = source.compute_dtype, source.shape, len(projection.loadings)
    on_device = used.name == "cuda"
    shift = projection.mean.astype(dtype)
    tiling = plan.tiling(m, d, dtype.itemsize, 2.0 * d * p, used.name, skinny=True)
    held = source.read_within(max_memory)
    if max_memory is not None:
        # on the way to a device every chunk is copied, and products come back through memory of their own
        copied = dtype.itemsize if on_device or source.copies_chunks(False) else 0
        threads = plan.DEVICE_READERS if on_device else used.n_workers + READ_AHEAD * source.in_order
        width = p if on_device or callable(out) else 0
        tiling = plan.within(tiling, d, width, dtype.itemsize, threads, copied, max_memory, held)
    view = View(source, False, shift, projection.factor, np.empty(0), tiling, tick)
    left = (projection.mean - shift) @ projection.loadings.T  # what rounding the mean to the dtype left
    block = np.array(projection.loadings.T / projection.factor, dtype=dtype, order="C")
    # NaN and inf show in the scores, which are checked: sums are needed only where a feature is in none of them
    known = (np.zeros(d), np.zeros(d)) if block.any(axis=1).all() else None
    offset = left.astype(dtype) if left.any() else None
    sums = used.rows.project(view, used.panels.place(block), out, known, offset)
    if known is None and not np.isfinite(sums).all():
        sources.raise_nonfinite(source)


def _project_entries(source: sources.SparseSource, projection: _Projection, out: np.ndarray, used: Backend) -> None:
    """out <- the scores over stored entries; columns far from zero are centred before they are multiplied.

    2 nnz p flops, and 2 m p for each far column, most of whose entries are stored.
    """
    mean, loadings, factor = projection
    lines = Lines(source, False, plan.sparse_chunk(*source.shape, source.nnz or 0), factor)
    found = used.sparse.statistics(lines, np.empty(0))
    if not (np.isfinite(found.sums).all() and np.isfinite(found.squares).all()):
        sources.raise_nonfinite(source)
    far = _far_columns(found, mean * factor, source.shape[0])
    block, near = np.array(loadings.T / factor, dtype=out.dtype, order="C"), mean.copy()
    block[far], near[far] = 0.0, 0.0
    used.sparse.project(lines, block, (near @ loadings.T).astype(out.dtype), np.empty(0), out)
    if not far.size:
        return
    rows = max(1, _ENTRIES_AT_ONCE // far.size)
    for first in range(0, source.shape[0], rows):
        part = slice(first, min(first + rows, source.shape[0]))
        entries = source.matrix(part.start, part.stop)[:, far].toarray().astype(np.float64)
        out[part] += ((entries - mean[far]) @ loadings[:, far].T).astype(out.dtype)


def _hand_on_entries(
    source: sources.SparseSource,
    projection: _Projection,
    out: Callable[[np.ndarray], object],
    used: Backend,
    tick: Tick | None,
) -> None:
    """`_project_entries`, some rows at a time."""
    m = source.shape[0]
    rows = np.empty((min(m, _ROWS_HANDED), len(projection.loadings)), source.compute_dtype)
    for first in range(0, m, len(rows)):
        last = min(m, first + len(rows))
        part = sources.SparseSource(source.matrix(first, last))
        part.compute_dtype, part.first_row = source.compute_dtype, first
        _project_entries(part, projection, rows[: last - first], used)
        out(rows[: last - first])
        if tick is not None:
            tick(last, m)


class _HandedOn:
    """Gives scores to a callable, and remembers whether all of them were finite."""

    def __init__(self, out: Callable[[np.ndarray], object]) -> None:
        self._out = out
        self.finite = True

    def __call__(self, rows: np.ndarray) -> None:
        self.finite = self.finite and bool(np.isfinite(rows).all())
        self._out(rows)


def _all_finite(out: np.ndarray) -> bool:
    """Whether no score has left the range of the dtype; some rows at a time, because `out` may be a large file."""
    return all(bool(np.isfinite(out[first : first + _ROWS_HANDED]).all()) for first in range(0, len(out), _ROWS_HANDED))


def _middle(loadings: np.ndarray, dtype: np.dtype) -> float:
    """A power of two that multiplies rows and divides loadings (p, d), so that neither leaves the range of the dtype.

    1.0 where loadings are of ordinary size; else the middle of their sizes by feature, which are the inverse sizes of
    the features where scores are whitened or features are standardized.
    """
    sizes = np.abs(loadings).max(axis=0, initial=0.0)
    least, most = float(sizes.min(initial=np.inf)), float(sizes.max(initial=0.0))
    if 2.0**-_ORDINARY_EXPONENT < least <= most < 2.0**_ORDINARY_EXPONENT:
        return 1.0
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return 1.0
    low, high = np.log2(sizes.min()), np.log2(sizes.max())
    if max(-low, high) < _ORDINARY_EXPONENT or not np.isfinite(high):
        return 1.0
    most = validation.MOST_FLOAT32_SCALE if dtype.itemsize == 4 else 2 * validation.MOST_EXPONENT
    return float(2.0 ** np.clip(np.round((low + high) / 2), -most, most))


def _far_columns(found: Statistics, mean: np.ndarray, m: int) -> np.ndarray:
    """Columns whose stored entries lie close to a mean that is far from zero.

    Their product is nearly the mean's, and its rounding, which goes with its size, would stay when the mean's product
    is subtracted.  Columns that few of the m rows store are not among them: the cost goes with stored entries.
    """
    stored = found.stored
    spread = found.squares - 2.0 * mean * found.sums + stored * mean**2
    return np.flatnonzero((stored * _STORED >= m) & (stored * mean**2 > _CLOSE**2 * spread))


def _check_out(out: Any, shape: tuple[int, int], dtype: np.dtype) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array or np.memmap of shape {shape} and dtype {dtype}, not {type(out)}.")
    if out.shape != shape or out.dtype != dtype or (out.size and out.strides[1] != out.itemsize):
        raise ValueError(
            f"out must be a C-ordered array of shape {shape} and dtype {dtype}, not {out.shape} {out.dtype} with "
            f"strides {out.strides}: make it with np.empty({shape}, '{dtype}')."
        )
    if not out.flags.writeable:
        raise ValueError("out is read-only: pass an array that can be written, or a memmap opened with mode 'r+'.")
