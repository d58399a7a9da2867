"""top_eigenpairs, and what PCA takes: from rows, moments or an operator to certified eigenpairs, by the cheaper route.

Everything is in *scaled units* (operators/dense.py) until `finish` takes the scale out.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

from .. import backends, plan, validation
from .. import progress as progress_reports
from ..backends.threads import kept_threads
from ..data import sources
from ..data.checkpoint import Checkpoint, kept, require_file
from ..operators.moments import Moments
from . import gram_route, krylov_route, mixed_precision, refine, used_features
from .eigenpairs import Eigenpairs, ScaledEigenpairs, finish, warn_unconverged
from .request import EXPECTED, Options, Request
from .weighted_rows import WeightedRows, weighted_rows


def top_eigenpairs(
    data: Any,
    p: int | float | None,
    *,
    tol: float = 0.0,
    center: bool = True,
    sample_weight: Any = None,
    standardize: bool = False,
    solver: str = "auto",
    n_oversamples: int = 10,
    random_state: Any = None,
    max_memory: Any = None,
    backend: str = "auto",
    progress: Any = False,
    moments: Moments | None = None,
    checkpoint: Any = None,
    precision: str = "float32",
) -> Eigenpairs:
    """Leading eigenpairs of the second moments of `data`: exact, ordered, certified, by the cheaper route.

    Parameters
    ----------
    data : array, memmap, sparse matrix, HDF5 dataset of shape (m, d), path, row blocks, `Moments` or operator
        Rows as of `PCA.fit`.  An operator has the attributes `dim`, `dtype` and `trace` and a method
        `apply(block) -> float64 (dim, b)`.
    p : int, float in (0, 1) or None
        Number of components; as many as explain more than that fraction of the trace; or all.
    tol : float, default=0.0
        Largest residual wanted; 0.0: as far as the dtype goes, 8 eps l_1 / l_i.
    center : bool, default=True
        Subtract the mean (rows only: moments and operators are taken as they are).
    sample_weight : array (m,), default=None
        Frequency weights, rows only.
    standardize : bool, default=False
        Unit variance (ddof 1), implicitly; rows and moments.
    solver : {"auto", "gram", "krylov"}, default="auto"
        Form the Gram of the short side, or make passes over the data.
    n_oversamples : int, default=10
        Columns of the Krylov block beyond p, where no narrower one is quicker (docs/pca.md).
    random_state : None, int or numpy.random.Generator, default=None
        None for a fixed start block.
    max_memory : int, float, str or None, default=None
        Bytes, or text such as "500MB"; None: no limit.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        As of `PCA`.
    progress : bool or callable, default=False
        True for a bar on stderr, or a callable (stage, done, total).
    moments : Moments, default=None
        Of the same rows, center and weights, where they are known already: the Gram route then reads the data only to
        refine.
    checkpoint : path, `Checkpoint` or None, default=None
        Keeps the state of the pass of a Gram route, or of Krylov between its passes, data a path; a killed call with
        the same arguments goes on from there.  A path is removed in the end.
    precision : {"float32", "tf32", "bf16x9"}, default="float32"
        As of `PCA`; rows only.

    Returns
    -------
    Eigenpairs
        Values have scale "sum".  Signs: the entry of largest magnitude of every vector is positive.

    Raises
    ------
    ValueError, TypeError
        Bad input; the message names the argument.
    MemoryLimitError
        `max_memory` is too small; says what is needed.
    UnsupportedOnBackendError
        `precision` is one that this backend does not have.

    Warns
    -----
    ConvergenceWarning
        Some residual is above tol, and above 8 eps l_1 / l_i by more than the allowance for rounding; names the
        components.  The best result is returned.

    Notes
    -----
    A residual certifies an eigenpair.  That no larger eigenvalue was missed is certain on the Gram route only, and
    there of eigenvalues above eps l_1.  Sources: docs/pca.md; Musco and Musco 2015 for block Krylov.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[2.0, 0.0, 5.0], [-2.0, 0.0, 5.0], [0.0, 1.0, 5.0], [0.0, -1.0, 5.0]])
    >>> pairs = lf.top_eigenpairs(X, 2)
    >>> pairs.values, pairs.vectors.shape, pairs.solver  # sums of squares about the mean
    (array([8., 2.]), (3, 2), 'gram')
    >>> bool(pairs.residuals.max() < 1e-12), pairs.n_passes
    (True, 1)
    """
    options = Options(
        tol=tol,
        center=center,
        standardize=standardize,
        solver=solver,
        n_oversamples=n_oversamples,
        random_state=random_state,
        max_memory=max_memory,
        backend=backend,
        precision=precision,
    )
    with progress_reports.resolve(progress) as report, _opened(data) as opened, kept(checkpoint) as checkpoint:
        if isinstance(opened, sources.Source):
            opened.read_within(validation.memory_bytes(max_memory))
            rows = weighted_rows(opened, p, sample_weight, options, report, moments)
            pairs = _pairs_of_rows(rows, p, options, report, checkpoint)
        else:
            if checkpoint is not None:
                require_file(None)
            pairs = _pairs_of_squares(opened, p, options, report)
    warn_unconverged(pairs)
    return pairs


def eigenpairs_of_rows(
    rows: WeightedRows,
    p: int | float | None,
    options: Options,
    report: progress_reports.Reporter,
    checkpoint: Checkpoint | None = None,
) -> Eigenpairs:
    """As `top_eigenpairs`, of rows that are open and weighted (`weighted_rows`)."""
    pairs = _pairs_of_rows(rows, p, options, report, checkpoint)
    warn_unconverged(pairs)
    return pairs


def eigenpairs_of_moments(
    moments: Moments, p: int | float | None, options: Options, report: progress_reports.Reporter
) -> Eigenpairs:
    """As `top_eigenpairs`, of moments."""
    pairs = _pairs_of_squares(moments, p, options, report)
    warn_unconverged(pairs)
    return pairs


def _opened(data: Any) -> contextlib.AbstractContextManager[Any]:
    is_operator = hasattr(data, "apply") and hasattr(data, "dim") and not sources.is_dask(data)
    given = isinstance(data, Moments) or is_operator
    return contextlib.nullcontext(data) if given else sources.opened(data)


def _pairs_of_rows(
    rows: WeightedRows,
    p: int | float | None,
    options: Options,
    report: progress_reports.Reporter,
    checkpoint: Checkpoint | None,
) -> Eigenpairs:
    source = rows.source
    if checkpoint is not None:
        require_file(source)
    if rows.weights is not None and options.standardize:
        validation.check_weight_sum(rows.weight_sum, rows.n_positive)
    guess = p if isinstance(p, (int, np.integer)) else EXPECTED
    stays = rows.moments is not None or isinstance(source, sources.DaskSource)
    pays = not stays and plan.device_pays(*source.shape, guess, source.nnz)
    decoder = source.read_within(validation.memory_bytes(options.max_memory))
    request = Request.of(
        options,
        p,
        min(rows.n_counted, source.n_features),
        backends.get_backend(backends.choose(options.backend, source.on_device, pays)),
        report=report,
        weights=rows.weights,
        checkpoint=checkpoint,
        held=decoder,
    )
    with kept_threads():
        found = _from_rows(source, request, rows.moments)
    found.n_passes += source.counting_passes
    found.workspace_bytes += decoder
    return finish(found, request.tolerances, source.compute_dtype, request.backend.name)


def _pairs_of_squares(given: Any, p: int | float | None, options: Options, report: Any) -> Eigenpairs:
    """Of `Moments`, or of an operator: there are no rows to read."""
    if options.precision != "float32":
        raise ValueError(
            f"precision={options.precision!r} applies to products with rows, and here there are none: use 'float32'."
        )
    backend = backends.get_backend(backends.resolve(options.backend))
    if not isinstance(given, Moments):
        request = Request.of(options, p, int(given.dim), backend, report=report)
        with kept_threads():
            found, dtype = krylov_route.on_operator(given, request), np.dtype(given.dtype)
    else:
        if options.standardize:
            validation.check_weight_sum(given.weight_sum, given.n_positive)
        request = Request.of(options, p, min(given.n_features, given.n_counted), backend, report=report)
        found, dtype = gram_route.of_moments(given, request), given.dtype
    return finish(found, request.tolerances, dtype, backend.name)


def _from_rows(source: sources.Source, request: Request, moments: Moments | None) -> ScaledEigenpairs:
    m, d = source.shape
    if moments is not None:
        return _from_gathered(source, request, moments)
    if m < min(d, request.largest):
        return _from_heavy_rows(source, request)
    features = used_features.find(source, request)
    if features is not None and isinstance(source, sources.SparseSource):
        kept_source = source.of_features(features)
        found = _from_rows(kept_source, used_features.smaller_request(request, kept_source), None)
        return used_features.put_back(found, features, d)
    route, start = _route(source, request)
    spent = krylov_route.Abandoned(0, 0)
    if route.solver == "krylov" or start is not None:
        outcome = krylov_route.on_rows(source, request, route, start)
        if isinstance(outcome, ScaledEigenpairs):
            return outcome
        spent, sideways = outcome, m < d and not source.by_row_only
        reason = f"block Krylov converged too slowly ({spent.n_passes} passes spent on it)"
        route = plan.Route("gram", sideways, reason)
    solve = gram_route.of_samples if route.by_feature else gram_route.of_features
    found = solve(source, request, route)
    found.n_passes += spent.n_passes
    found.workspace_bytes = max(found.workspace_bytes, spent.workspace_bytes)
    return found


def _route(source: sources.Source, request: Request) -> tuple[plan.Route, mixed_precision.Start | None]:
    """The cheaper route, and what coarser products have found for it to start from, where they are asked for."""
    m, d = source.shape
    is_sparse = isinstance(source, sources.SparseSource) and plan.sparse_pays(m, d, source.nnz or 0)
    route = plan.choose_route(
        m,
        d,
        request.expected,
        source.compute_dtype.itemsize,
        block=request.block(),
        narrow=krylov_route.columns(source, request, is_sparse),
        n_threads=request.backend.n_workers,
        solver=request.solver,
        max_memory=request.max_memory,
        nnz=source.nnz,
        pairs=krylov_route.pairs_of_entries(source),
        by_row_only=source.by_row_only,
    )
    if request.precision == "float32":
        return route, None
    against = mixed_precision.objection(source, request, route)
    start = None if against else mixed_precision.start(source, request, route)
    said = mixed_precision.no_effect(request.precision, against) if start is None else start.reason
    return dataclasses.replace(route, reason=route.reason + said), start


def _from_gathered(source: sources.Source, request: Request, moments: Moments) -> ScaledEigenpairs:
    """Of rows whose moments are known: the Gram route, which reads them to refine only."""
    reason = "one Gram matrix, d x d, that was gathered before"
    if isinstance(source, sources.BlockSource):
        reason = "one Gram matrix, d x d, of rows that come in blocks"
    if request.precision != "float32":
        reason += mixed_precision.no_effect(request.precision, "that Gram was gathered in float32")
    return gram_route.of_features(source, request, plan.Route("gram", False, reason), moments)


def _from_heavy_rows(source: sources.Source, request: Request) -> ScaledEigenpairs:
    """Of rows whose weights ask for more components than there are rows: a row of weight 2 counts as two.

    The components beyond the number of rows have variance zero, so any orthogonal directions serve for them.
    """
    m, d = source.shape
    found = _from_rows(source, dataclasses.replace(request.at_most(m), largest=m), None)
    lacking = 0 if request.count is None else request.count - found.values.size
    if lacking <= 0:
        return found
    others = np.random.default_rng(0).standard_normal((d, lacking))
    basis, _ = scipy.linalg.qr(np.hstack([found.vectors, others]), mode="economic", overwrite_a=True)
    return refine.refined(source, request, found, basis)
