"""top_eigenpairs: the route, the eigensolver, the refinement and the certificate of exact PCA.

Everything is in *scaled units* (operators/rows.py) until `finish` takes the scale out.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

from .. import backends, plan, validation
from .. import progress as progress_reports
from ..backends import host_panels
from ..backends.threads import READ_AHEAD
from ..data import sources
from ..data.checkpoint import kept, require_file, warn_none_kept
from ..operators import rounding, rows, sparse
from ..operators.moments import Moments
from ..operators.pilot import widen
from ..sizes import format_bytes
from . import dense, krylov, mixed_precision, used_features
from .eigenpairs import Eigenpairs, Found, finish
from .krylov_checkpoint import KrylovState
from .request import Job, rows_operator, tiles_operator
from .uncounted_rows import EXPECTED, first_moments

SOLVERS = ("auto", "gram", "krylov")

# The iteration stops at this share of what is asked, so that rounding has room.
_SHARE, _SHARE_DENSE = 0.5, 0.125
_MOST_PRODUCTS = 300


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
    data : array, memmap, sparse matrix, HDF5 dataset of shape (m, d), path or row blocks (see `PCA.fit`); `Moments`; or
        an operator with attributes `dim`, `dtype`, `trace` and a method `apply(block) -> float64 (dim, b)`
    p : number of components; a float in (0, 1): as many as explain more than that fraction of the trace; None: all
    tol : largest residual wanted; 0.0: as far as the dtype goes, 8 eps l_1 / l_i
    center : subtract the mean (rows only: moments and operators are taken as they are)
    sample_weight : (m,) frequency weights, rows only
    standardize : unit variance (ddof 1), implicitly; rows and moments
    solver : "auto", "gram" (form the Gram of the short side) or "krylov" (passes over the data)
    n_oversamples : columns of the Krylov block beyond p, where no narrower one is quicker (docs/pca.md)
    random_state : None for a fixed start block; an integer or a NumPy generator for another
    max_memory : bytes, or text such as "500MB"; None: no limit
    backend : "auto", "cpu" or "cuda"
    progress : False, True or a callable (stage, done, total)
    moments : of the same rows, center and weights, where they are known already: the Gram route then reads the data to
        refine only
    checkpoint : path or `Checkpoint` that keeps the state of the pass of a Gram route, or of Krylov between its passes,
        data a path; a killed call with the same arguments goes on from there.  A path is removed in the end.
    precision : "float32", "tf32" or "bf16x9", as of `PCA`; rows only

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
    there of eigenvalues above eps l_1.
    """
    validation.check_choice(solver, SOLVERS, "solver")
    backends.check_precision(precision, backend)
    name = backends.resolve(backend)
    with progress_reports.resolve(progress) as report, _opened(data) as opened, kept(checkpoint) as checkpoint:
        source = opened if isinstance(opened, sources.Source) else None
        limit, decoder, weights = validation.memory_bytes(max_memory), 0, None
        if checkpoint is not None:
            require_file(source)
        if source is not None:
            decoder = source.read_within(limit)
            if standardize:
                widen(source)
            limit = None if limit is None else limit - decoder
            if moments is None:
                moments = first_moments(
                    source, p, sample_weight=sample_weight, center=center, solver=solver, max_memory=limit,
                    report=report, backend=backend,
                )  # fmt: skip
            weights = validation.sample_weights(sample_weight, source.shape[0])
            largest = min(_rows_that_count(source, weights, standardize), source.n_features)
            guess = p if isinstance(p, (int, np.integer)) else EXPECTED
            pays = moments is None and plan.device_pays(*source.shape, guess, source.nnz)
            name = backends.choose(backend, source.on_device, pays)
        elif precision != "float32":
            raise ValueError(f"precision={precision!r} is of products with rows, and these are made: use 'float32'.")
        elif isinstance(opened, Moments):
            largest = min(opened.n_features, opened.n_counted)
            if standardize:
                validation.check_weight_sum(opened.weight_sum, opened.n_positive)
        else:
            largest = int(opened.dim)
        if name == "cuda":
            backends.require_precision(precision)
        job = Job(
            n_components=_check_count(p, largest),
            largest=largest,
            tol=validation.check_real(tol, "tol", low=0.0),
            center=bool(center),
            standardize=bool(standardize),
            weights=weights,
            solver=solver,
            oversamples=validation.check_integer(n_oversamples, "n_oversamples", low=1),
            seed=_seed(random_state),
            max_memory=limit,
            report=report,
            checkpoint=checkpoint,
            backend=backends.get_backend(name),
            precision=precision,
        )
        if source is not None:
            found = _from_rows(source, job, moments)
            found.n_passes += source.counting_passes
            found.workspace_bytes += decoder
            dtype = source.compute_dtype
        elif isinstance(opened, Moments):
            found, dtype = _from_moments(opened, job), opened.dtype
        else:
            found, dtype = _from_operator(opened, job), np.dtype(opened.dtype)
    return dataclasses.replace(finish(found, job.asked, dtype), backend=name)


def _opened(data: Any) -> contextlib.AbstractContextManager[Any]:
    given = isinstance(data, Moments) or (hasattr(data, "apply") and hasattr(data, "dim"))
    return contextlib.nullcontext(data) if given else sources.opened(data)


def _rows_that_count(source: sources.Source, weights: np.ndarray | None, standardize: bool) -> int:
    if weights is None:
        return source.shape[0]
    total, n_positive = float(weights.sum()), int(np.count_nonzero(weights))
    if standardize:
        validation.check_weight_sum(total, n_positive)
    return validation.rows_that_count(n_positive, total)


def _check_count(p: Any, largest: int) -> int | float | None:
    if p is None:
        return None
    if isinstance(p, (float, np.floating)) and 0.0 < p < 1.0:
        return float(p)
    if isinstance(p, (bool, float, np.floating)) or not 1 <= validation.check_integer(p, "p", low=1) <= largest:
        raise ValueError(
            f"p={p!r} must be an integer between 1 and {largest}, a fraction between 0 and 1, or None for all."
        )
    return int(p)


def _seed(random_state: Any) -> Any:
    if random_state is None:
        return 0
    if hasattr(random_state, "randint"):  # a legacy RandomState, which scikit-learn's users pass
        return int(random_state.randint(2**31 - 1))
    return random_state


def _from_rows(source: sources.Source, job: Job, moments: Moments | None) -> Found:
    m, d = source.shape
    if moments is None and m < min(d, job.largest):
        return _from_heavy_rows(source, job)
    features = used_features.find(source, job) if moments is None else None
    if features is not None:
        kept_source = source.of_features(features)
        found = _from_rows(kept_source, used_features.smaller_job(job, kept_source), None)
        return used_features.put_back(found, features, d)
    if moments is not None:
        reason = "one Gram matrix, d x d, that was gathered before"
        if isinstance(source, sources.BlockSource):
            reason = "one Gram matrix, d x d, of rows that come in blocks"
        if job.precision != "float32":
            reason += mixed_precision.no_effect(job.precision, "that Gram was gathered in float32")
        return _gram_of_features(source, job, plan.Route("gram", False, reason), moments)
    itemsize = source.compute_dtype.itemsize
    route = plan.choose_route(
        m,
        d,
        job.expected,
        itemsize,
        block=plan.krylov_block(job.expected, job.oversamples, job.largest),
        narrow=_columns(source, job, isinstance(source, sources.SparseSource) and plan.sparse_pays(m, d, source.nnz)),
        n_threads=job.backend.n_workers,
        solver=job.solver,
        max_memory=job.max_memory,
        nnz=source.nnz,
        pairs=_pairs(source),
        by_row_only=source.by_row_only,
    )
    spent, held, start = 0, 0, None
    if job.precision != "float32":
        against = mixed_precision.objection(source, job, route)
        start = None if against else mixed_precision.start(source, job, route)
        said = mixed_precision.no_effect(job.precision, against) if start is None else start.reason
        route = dataclasses.replace(route, reason=route.reason + said)
    if route.solver == "krylov" or start is not None:
        found, spent, held = _krylov_on_rows(source, job, route, start)
        if found is not None:
            return found
        sideways = m < d and not source.by_row_only
        route = plan.Route("gram", sideways, f"block Krylov converged too slowly ({spent} passes spent on it)")
    found = _gram_of_samples(source, job, route) if route.by_feature else _gram_of_features(source, job, route)
    found.n_passes += spent
    found.workspace_bytes = max(found.workspace_bytes, held)
    return found


def _from_heavy_rows(source: sources.Source, job: Job) -> Found:
    """Of rows that count for more than they are: one of weight 2 is two rows, which have a component more.

    Its variance is zero, so any direction that the others leave will do.
    """
    m, d = source.shape
    found = _from_rows(source, dataclasses.replace(job.at_most(m), largest=m), None)
    lacking = 0 if job.count is None else job.count - found.values.size
    if lacking <= 0:
        return found
    others = np.random.default_rng(0).standard_normal((d, lacking))
    basis, _ = scipy.linalg.qr(np.hstack([found.vectors, others]), mode="economic", overwrite_a=True)
    return _refine(source, job, found, basis)


def _pairs(source: sources.Source) -> float | None:
    """Pairs of stored entries in the Gram of the short side, or None for rows that are not sparse."""
    return source.pairs(source.shape[0] < source.shape[1]) if isinstance(source, sources.SparseSource) else None


def _columns(source: sources.Source, job: Job, is_sparse: bool) -> int:
    """Columns of the Krylov block: fewer than p where reading the data once more costs little."""
    wide = plan.krylov_block(job.expected, job.oversamples, job.largest)
    if is_sparse or (source.in_memory and job.backend.name == "cpu"):
        return plan.narrow_block(wide, is_sparse)
    return wide


def _krylov_on_rows(
    source: sources.Source, job: Job, route: plan.Route, start: mixed_precision.Start | None = None
) -> tuple[Found | None, int, int]:
    """Block Krylov on passes over the rows, from a random block or from `start`.

    None, with the passes and the workspace spent on it, where the Gram route turns out to be the better one.
    """
    itemsize = source.compute_dtype.itemsize
    threads = job.backend.n_workers
    wide = plan.krylov_block(job.expected, job.oversamples, job.largest)
    if start is not None:  # of a fraction of the variance it has as many as that took
        wide = max(wide, start.vectors.shape[1])
    stage = progress_reports.Passes("pass over the data")
    entries = source.n_lines(not route.by_feature)
    basis = plan.largest_basis(entries, wide, itemsize, threads, job.max_memory)
    held = plan.krylov_bytes(entries, itemsize, wide, basis, threads)
    operator = rows_operator(source, job, route.by_feature, wide, stage, held=held)
    block = wide if start is not None else _columns(source, job, isinstance(operator, sparse.SparseOperator))
    stage.expected = expected = plan.expected_passes(itemsize, wide, block)
    side = source.n_features if source.by_row_only else job.largest
    may_switch = job.solver != "krylov" and plan.gram_fits(side, itemsize, threads, job.max_memory)
    products = _MOST_PRODUCTS
    if may_switch:
        products = plan.pass_budget(source.shape, block, itemsize, source.nnz, expected, _pairs(source))
    give_up_after = expected if may_switch else None
    workspace = held + operator.tile_bytes(threads)
    state, pairs, vectors, before = None, None, None, 0
    if start is not None:
        vectors, before, workspace = start.vectors, start.n_passes, max(workspace, start.workspace)
    elif job.checkpoint is not None:
        state = KrylovState(
            job.checkpoint, operator, job.seed, by_feature=route.by_feature, center=job.center,
            standardize=job.standardize, n_components=job.n_components, tol=job.tol, block=block, basis=basis,
            products=[products, give_up_after],
        )  # fmt: skip
    if state is None or state.spent is None:
        pairs = _iterate(operator, job, block, basis, products, wide, give_up_after, state, vectors, stage)
    if job.checkpoint is not None:
        job.checkpoint.release()
    if may_switch and (pairs is None or not pairs.converged):
        passes = before + operator.n_passes
        return None, passes if state is None else state.give_up(passes), workspace
    operator.n_passes += before
    if pairs is None:
        raise ValueError(
            f"n_components={job.n_components!r} needs more components than svd_solver='krylov' "
            + (
                f"can hold in max_memory={format_bytes(job.max_memory)}: raise max_memory, "
                if basis < min(operator.dim, max(12 * wide, 256))
                else f"finds in {basis} columns and {operator.n_passes} passes: "
            )
            + "use svd_solver='gram', or ask for fewer."
        )
    if route.by_feature:
        return _features_from_samples(source, job, route, operator, pairs.vectors, workspace), 0, 0
    values, vectors, measured = _measure(pairs.vectors, pairs.images, operator.dtype)
    found = _found_on_rows(operator, values, vectors, measured, route.solver, route.reason, workspace)
    eps = float(np.finfo(operator.dtype).eps)
    if pairs.converged and (_is_graded(values, eps) or (measured > job.asked(values, eps)).any()):
        found = _refine(source, job, found, vectors.astype(np.float64))  # the recurrence was done; rounding shows
    return found, 0, 0


def _gram_of_features(source: sources.Source, job: Job, route: plan.Route, moments: Moments | None = None) -> Found:
    """d x d moments in one pass; a second pass where the square lost what small eigenvalues need."""
    if moments is None:
        moments = Moments(source.n_features, center=job.center)
        moments.update(
            source, sample_weight=job.weights, tick=job.tick("Gram of the features"), checkpoint=job.checkpoint,
            backend=job.backend.name,
        )  # fmt: skip
    found = _from_moments(moments, job)
    threads = job.backend.n_workers
    found.n_passes, found.reason = 1 + moments.abandoned_passes, route.reason
    found.workspace_bytes = plan.gram_bytes(source.shape[1], source.compute_dtype.itemsize, threads)
    if source.in_order:
        held = plan.DEVICE_READERS if job.backend.name == "cuda" else threads + READ_AHEAD
        found.workspace_bytes += plan.read_ahead_bytes(*source.shape, source.dtype.itemsize, held, job.backend.name)
    eps = float(np.finfo(source.compute_dtype).eps)
    unresolved = _is_graded(found.values, eps) or (found.measured > job.asked(found.values, eps)).any()
    if unresolved and source.rereadable:
        return _refine(source, job, found, found.vectors)
    return found


def _is_graded(values: np.ndarray, eps: float) -> bool:
    """Whether the square lost digits of the smallest value that X still holds."""
    return bool(values[-1] < np.sqrt(eps) * values[0])


def _gram_of_samples(source: sources.Source, job: Job, route: plan.Route) -> Found:
    """m x m Gram of a wide matrix, then its eigenvectors carried over to the features."""
    stored = (
        isinstance(source, sources.SparseSource)
        and plan.sparse_gram_pays(source.shape[1], source.shape[0], source.pairs(True), job.backend.name)
        and job.backend.sparse.can_hold(source)
    )
    make = rows_operator if stored else tiles_operator
    itemsize, threads = source.compute_dtype.itemsize, job.backend.n_workers
    held = plan.gram_bytes(source.shape[0], itemsize, threads)
    operator = make(source, job, True, job.expected, "Gram of the samples", held=held)
    if stored:
        warn_none_kept(job.checkpoint, "X is sparse, and in memory")
    matrix = operator.gram() if isinstance(operator, sparse.SparseOperator) else operator.gram(job.checkpoint)
    small = rows.DenseOperator(matrix, scale=operator.scale, itemsize=itemsize, panels=job.backend.panels)
    _, vectors = _solve_dense(small, job, itemsize)
    workspace = held + operator.tile_bytes(threads)
    return _features_from_samples(source, job, route, operator, vectors, workspace)


def _features_from_samples(
    source: sources.Source,
    job: Job,
    route: plan.Route,
    operator: rows.RowsOperator | sparse.SparseOperator,
    vectors: np.ndarray,
    workspace: int,
) -> Found:
    """u_i ~ Xc' v_i, made orthonormal, then one Rayleigh-Ritz pass on the feature side, which also certifies."""
    carried = operator.project(vectors).astype(np.float64)
    norms = np.linalg.norm(carried, axis=0)
    lost = norms <= 16 * np.finfo(operator.dtype).eps * norms.max(initial=0.0)
    carried[:, ~lost] /= norms[~lost]
    carried[:, lost] = np.random.default_rng(0).standard_normal((carried.shape[0], int(lost.sum())))
    basis, _ = scipy.linalg.qr(carried, mode="economic", overwrite_a=True, check_finite=False)
    before = Found(
        norms**2,
        basis,
        norms,
        norms,
        operator.scale,
        operator.trace,
        operator.n_passes,
        route.solver,
        route.reason,
        workspace,
        location=operator.location,
    )
    return _refine(source, job, before, basis)


def _refine(source: sources.Source, job: Job, before: Found, basis: np.ndarray) -> Found:
    """One pass on the feature side, or two: Rayleigh-Ritz in `basis` with the projected data's own Gram, residuals.

    X basis is squared, not S: a direction of small variance keeps the relative accuracy that S lost.  Where rounding
    of the basis still shows, S basis, which has less of it, is the basis of a second pass.
    """
    itemsize, threads, p = source.compute_dtype.itemsize, job.backend.n_workers, basis.shape[1]
    held = plan.krylov_bytes(source.shape[1], itemsize, p, p, threads)
    operator = rows_operator(source, job, False, p, "refining pass", before.location, held)
    eps = float(np.finfo(operator.dtype).eps)
    for attempt in (1, 2):
        image, inner = operator.apply_inner(basis)
        graded, rotation = dense.graded_eigenpairs(inner)
        vectors, images = host_panels.multiply(basis, rotation, np.float64), host_panels.multiply(image, rotation)
        values, vectors, measured = _measure(vectors, images, operator.dtype)
        small = graded < np.sqrt(eps) * graded[0]
        measured += np.where(small, np.abs(graded - values), 0.0)  # the residual was that of the other value
        values = np.where(small, graded, values)
        if attempt == 2 or (measured <= 0.75 * job.asked(values, eps)).all():
            break
        large = values > 1e-2 * values[0]
        basis = vectors.astype(np.float64)
        basis[:, large] = images[:, large] / values[large]
        basis, _ = scipy.linalg.qr(basis, mode="economic", overwrite_a=True, check_finite=False)
    need = max(before.workspace_bytes, held + operator.tile_bytes(threads))
    found = _found_on_rows(operator, values, vectors, measured, before.solver, before.reason, need)
    found.n_passes += before.n_passes
    return found


def _from_moments(moments: Moments, job: Job) -> Found:
    matrix, scale = moments.scaled_xx()
    variances = matrix.diagonal() / scale**2
    itemsize = moments.dtype.itemsize
    operator = dense.of_moments(moments, job.standardize, job.backend.panels)
    _, vectors = _solve_dense(operator, job, itemsize)
    values, vectors, _ = _measure(vectors, operator.apply_exactly(vectors), np.dtype(np.float64))
    vectors = vectors.astype(moments.dtype, copy=False)
    measured = rounding.measured(values, vectors, operator.apply_exactly(vectors))
    sums, lines = moments.roughest_sums
    allowance = rounding.gram_rounding(
        operator.matrix, vectors, values, sums.itemsize, lines, drift=moments.drift,
        summed=moments.squares_summed(job.standardize), standardize=job.standardize,
    )  # fmt: skip
    return Found(
        values, vectors, measured, allowance, operator.scale, operator.trace, 0, "gram", "moments were given",
        plan.gram_bytes(operator.dim, itemsize, 1), moments.mean, variances, moments.weight_sum, moments.location,
    )  # fmt: skip


def _from_operator(operator: Any, job: Job) -> Found:
    dtype = np.dtype(operator.dtype)
    block = plan.krylov_block(job.expected, job.oversamples, operator.dim)
    threads = job.backend.n_workers
    basis = plan.largest_basis(operator.dim, block, dtype.itemsize, threads, job.max_memory)
    pairs = _iterate(operator, job, block, basis, _MOST_PRODUCTS)
    if pairs is None:
        raise ValueError(f"p={job.n_components!r} needs more components than the basis of {basis} columns can hold.")
    values, vectors, measured = _measure(pairs.vectors, pairs.images, dtype)
    return Found(
        values, vectors, measured, np.zeros_like(measured), getattr(operator, "scale", 1.0), float(operator.trace),
        int(getattr(operator, "n_passes", 0)), "krylov", "an operator was given",
        plan.krylov_bytes(operator.dim, dtype.itemsize, block, basis, threads),
    )  # fmt: skip


def _iterate(
    operator: Any,
    job: Job,
    block: int,
    basis: int,
    products: int,
    widest: int = 0,
    give_up_after: int | None = None,
    state: KrylovState | None = None,
    start: np.ndarray | None = None,
    stage: progress_reports.Passes | None = None,
) -> krylov.RitzPairs | None:
    eps = float(np.finfo(operator.dtype).eps)
    return krylov.block_krylov(
        operator,
        job.wanted,
        lambda values: _SHARE * job.asked(values, eps),
        block=block,
        max_basis=basis,
        max_products=products,
        widest=widest,
        give_up_after=give_up_after,
        seed=job.seed,
        state=state,
        start=start,
        stage=stage,
    )


def _solve_dense(operator: rows.DenseOperator, job: Job, itemsize: int) -> tuple[np.ndarray, np.ndarray]:
    eps = float(np.finfo(np.float32 if itemsize == 4 else np.float64).eps)
    return dense.leading_eigenpairs(
        operator, job.count, job.wanted, lambda values: _SHARE_DENSE * job.asked(values, eps)
    )


def _measure(vectors: np.ndarray, images: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, vectors rounded to `dtype`, and residual norms against float64 images."""
    values, vectors, images = dense.settle(vectors, images)
    vectors = vectors.astype(dtype, copy=False)
    return values, vectors, rounding.measured(values, vectors, images)


def _found_on_rows(
    operator: rows.RowsOperator | sparse.SparseOperator,
    values: np.ndarray,
    vectors: np.ndarray,
    measured: np.ndarray,
    solver: str,
    reason: str,
    workspace: int,
) -> Found:
    reason += "" if operator.note in reason else operator.note
    return Found(
        values, vectors, measured, operator.rounding(vectors, values), operator.scale, operator.trace,
        operator.n_passes, solver, reason, workspace,
        operator.mean, operator.variances, operator.weight_sum, operator.location,
    )  # fmt: skip
