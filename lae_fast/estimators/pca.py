"""PCA under scikit-learn's contract: parameters, validation, attributes; the arithmetic is elsewhere."""

from __future__ import annotations

import copy
import numbers
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import backends, plan, progress, validation
from ..data import sources
from ..data.checkpoint import Checkpoint, kept, require_file
from ..eigen import em as missing
from ..eigen.eigenpairs import Eigenpairs
from ..eigen.solve import top_eigenpairs
from ..eigen.uncounted_rows import first_moments
from ..errors import MemoryLimitError
from ..operators import rows
from ..operators.moments import Moments
from ..operators.pilot import widen
from ..sizes import format_bytes
from . import results
from ._base import intake, replace_fitted
from .probabilistic import ProbabilisticModel

# scikit-learn's solver names and the route each is mapped to; none of them is less accurate here.
_ROUTES = {
    "auto": "auto",
    "gram": "gram",
    "krylov": "krylov",
    "full": "gram",
    "covariance_eigh": "gram",
    "arpack": "krylov",
    "randomized": "krylov",
}
_TRUNCATED = frozenset({"arpack", "randomized", "krylov"})


class PCA(ProbabilisticModel, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal component analysis: exact, ordered, certified, at the speed of the machine.

    A drop-in for `sklearn.decomposition.PCA` that never copies or writes X, stays accurate whatever the mean of the
    data, and bounds the error of every component.

    Parameters
    ----------
    n_components : int, float in (0, 1), "mle" or None
        Number of components; the least number that explains more than this fraction of the variance; Minka's choice;
        or all min(n_samples, n_features).
    copy : accepted for compatibility; X is never written
    whiten : scale the scores to unit variance
    svd_solver : "auto", "gram" or "krylov"
        Gram matrix of the shorter side, or block Krylov on passes over the data. scikit-learn's names are accepted:
        "full" and "covariance_eigh" mean gram, "arpack" and "randomized" krylov.
    tol : largest residual wanted
        Stops when every residual is at most max(tol, 8 eps l_1 / l_i); 0.0 means as far as the dtype goes, which is the
        floor: rounding of the data's own products (docs/pca.md, "Certificates") is not held against a component.
    iterated_power, power_iteration_normalizer : accepted for compatibility; the stopping rule is `tol`
    n_oversamples : columns of the Krylov block beyond n_components, where no narrower one is quicker (docs/pca.md)
    random_state : None for a fixed start block, or a seed or generator
    backend : "auto", "cpu" or "cuda"
    standardize : divide every feature by its standard deviation, implicitly; float32 features of very different sizes
        are multiplied in float64 (docs/pca.md, "Sizes")
    missing : "error" or "em"
        NaN and inf are refused, naming the first; or NaN is a missing entry, and the probabilistic PCA model is fitted
        to the others by EM (docs/streaming.md), which needs an integer n_components < n_features and d x d memory.
    max_memory : bytes or text such as "500MB": bounds the workspace, or refuses with the figure needed; None or inf: no
        limit
    progress : False, True (a bar on stderr) or a callable (stage, done, total)
    precision : "float32", "tf32" or "bf16x9": how CUDA may multiply float32 data
        The last two are modes of the tensor cores. They only find where to look: passes in float32 follow, until
        residuals are what `tol` asks for, as without them. Data of other compute dtypes, sparse data and whatever would
        take longer that way are multiplied as ever, and so is everything where "auto" takes the CPU; `route_reason_`
        says which it was (docs/cuda.md).

    Attributes
    ----------
    components_ : (p, d), rows orthonormal, in the compute dtype: float32 for float32, float16, bool, int8, uint8 and
        int16 data, float64 for other dtypes. The entry of largest magnitude of each row is positive.
    explained_variance_ : (p,), denominator n_samples - 1, or sum(sample_weight) - 1; float64 where float32 has no range
        for it, and so are singular_values_ and scale_
    explained_variance_ratio_, singular_values_ : (p,);  mean_ : (d,);  scale_ : (d,) where standardize, else None
    noise_variance_ : float >= 0, mean of the variances left out, measured where the others' rounding would hide it
        (docs/pca.md, "What components leave"); with missing="em" over all n_features - p that the model leaves
    n_components_, n_samples_, n_features_in_, feature_names_in_ : as in scikit-learn
    residuals_ : (p,) float64, upper bounds of |S u_i - l_i u_i| / max(l_i, eps l_1)
    converged_ : (p,) bool, the residual as measured is within tol, or within the floor of `tol` and the allowance for
        rounding in `residuals_`
    log_likelihood_ : with missing="em" only, (n_iterations,) mean log-likelihood of the observed entries of a row;
        solver_ is "em" there, and `residuals_`, which EM does not bound, are nan
    solver_ : "gram" or "krylov";  route_reason_ : why;  n_passes_ : times the data was read
    workspace_bytes_ : the most that was held beside the data and the result;  backend_ : "cpu" or "cuda", what ran

    Notes
    -----
    A residual certifies an eigenpair; that no larger variance was missed is certain on the Gram route only, and there
    of variances above eps times the largest.
    """

    def __init__(
        self,
        n_components: int | float | str | None = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: int | str = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        backend: str = "auto",
        standardize: bool = False,
        missing: str = "error",
        max_memory: int | float | str | None = None,
        progress: Any = False,
        precision: str = "float32",
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state
        self.backend = backend
        self.standardize = standardize
        self.missing = missing
        self.max_memory = max_memory
        self.progress = progress
        self.precision = precision

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None) -> Self:
        """Fit on X; y is ignored.

        Parameters
        ----------
        X : (n_samples, n_features), one of
            an array, memmap, sparse matrix, HDF5 or Zarr array, Arrow table or DataFrame (docs/storage.md says what is
            taken of each);
            a path (str or os.PathLike) to a file of `files.FORMATS`, which is open while it is needed; a `TableFile`
            says which columns of a CSV or Parquet file are taken;
            rows in blocks of any heights, each an array, table or sparse matrix: a callable that returns a fresh
            iterator of blocks, a list of blocks, or an iterator, whose rows come once (docs/streaming.md).
        sample_weight : (n_samples,) frequency weights >= 0; a weight of 2 counts as the row twice, in every number and
            limit (docs/pca.md, "Weights").  They must sum to more than one.
        checkpoint : path or `Checkpoint`, or None
            X must be a path.  Keeps the state of the pass that forms a Gram matrix, or of Krylov or EM between two
            passes; a killed fit goes on from there, with the same bits as an undisturbed one.  A path is removed in
            the end.

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), wrong shape or dtype, bad parameters or weights, blocks that do not fit
            together (names the block); an iterator where the rows are needed more than once.
        MemoryLimitError
            `max_memory` is too small, or an iterator has too many features; says what is needed.
        FileNotFoundError, DataFileError
            There is no such file, or it cannot be read.

        Notes
        -----
        An exception, of X's own too, leaves the estimator as it was.
        """
        self._check_parameters()
        with intake(self, X) as source, kept(checkpoint) as checkpoint:
            if checkpoint is not None:
                require_file(source)
            moments = None if self.missing == "em" else self._first_moments(source, sample_weight)
            weights = validation.sample_weights(sample_weight, source.shape[0])
            weight_sum, counted = _weight_sum(source, weights)
            if self.missing == "em":
                pairs, model = self._solve_missing(source, weights, weight_sum, counted, checkpoint)
                fitted = results.of_pairs(pairs, pairs.values.size, source.shape[0], counted)
                fitted |= results.of_missing(model, weight_sum)
            else:
                note = _positive_note(weights)
                asked, computed = self._count((counted, source.shape[1]), self.n_components, note)
                pairs = self._solve(source, computed, weights, moments, checkpoint)
                if moments is not None and not source.rereadable:
                    left = results.left_of_moments(moments, self.standardize)
                else:
                    limit = validation.memory_bytes(self.max_memory)
                    left = results.left_of_rows(source, pairs, weights, self.standardize, limit)
                fitted = results.of_pairs(pairs, asked, source.shape[0], counted, left, standardize=self.standardize)
        replace_fitted(self, fitted, self._private)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to the exact moments (d x d, in memory) and renew the components; y is ignored.

        Batches may have any size; components exist as soon as the weights sum to more than one.  An exception, an
        interrupt included, leaves the estimator and its moments as they were.
        """
        self._check_parameters()
        if self.missing != "error":
            raise ValueError(f"missing={self.missing!r} reads the data many times: use fit, or missing='error'.")
        self._check_products_once()
        before = getattr(self, "_moments", None)
        with intake(self, X, reset=before is None) as source:
            if before is None:
                self._check_room(source)
            if self.standardize:
                widen(source)
            # merging makes new arrays, so a copy of the old moments costs nothing and nobody else's change
            moments = Moments(source.n_features) if before is None else copy.copy(before)
            moments.update(source, sample_weight=sample_weight, backend=self.backend)
            fitted = self._results_of_moments(moments, self.n_components) if moments.has_variance else {}
        replace_fitted(self, {**fitted, "_moments": moments}, self._private)
        return self

    @classmethod
    def from_moments(cls, moments: Moments, n_components: int | float | str | None = None, **parameters: Any) -> PCA:
        """A fitted PCA from moments that were gathered elsewhere; further parameters as in the constructor.

        The moments stay as they are, whatever `partial_fit` adds later.
        """
        self = cls(n_components, **parameters)
        self._check_parameters()
        self._check_products_once()
        if moments.n_samples > 1:
            validation.check_weight_sum(moments.weight_sum, moments.n_positive)
        if moments.n_counted < 2:
            raise ValueError(
                f"The moments have n_samples={moments.n_samples}{_note(moments.n_positive)}: a variance needs at least "
                "2 samples."
            )
        fitted = self._results_of_moments(moments, self.n_components)
        self.n_features_in_ = moments.n_features
        if moments.feature_names is not None:
            self.feature_names_in_ = np.array(moments.feature_names, dtype=object)
        replace_fitted(self, {**fitted, "_moments": copy.copy(moments)}, self._private)
        return self

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """`fit(X).transform(X)`."""
        return self.fit(X, y, sample_weight).transform(X)

    def transform(self, X: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Scores (n_samples, p) of X, by one pass over its rows; X is not copied.

        out : array or np.memmap to write to and return, of that shape and the dtype of the result, with C-ordered
            rows; with a memmap for X and for `out` neither is ever in memory as a whole.
        """
        check_is_fitted(self)
        loadings = self.components_.astype(np.float64)
        if self.scale_ is not None:
            loadings = loadings / self.scale_
        if self.whiten:
            loadings = loadings / self._whitening()[:, None]
        with intake(self, X, reset=False) as source:
            if self._missing_model is not None:
                source = missing.FilledSource(source, *self._missing_model)
            source.compute_dtype = np.result_type(source.compute_dtype, self.components_.dtype)
            return rows.scores(source, self._exact_mean, loadings, out, self.backend)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Rows (n_samples, d) whose scores are X (n_samples, p)."""
        check_is_fitted(self)
        scores = sources.as_source(X) if sources.is_on_device(X) else validation.as_matrix(X)
        if scores.shape[1] != self.n_components_:
            raise ValueError(f"X has {scores.shape[1]} columns, but this PCA has {self.n_components_} components.")
        dtype = np.result_type(sources.compute_dtype(scores.dtype), self.components_.dtype)
        loadings = self.components_
        if self.whiten:
            loadings = loadings * np.sqrt(self.explained_variance_)[:, None]
        if self.scale_ is not None:
            loadings = loadings * self.scale_
        if isinstance(scores, sources.DeviceSource):
            return rows.expanded(scores, loadings, self.mean_, dtype)
        return scores.astype(dtype, copy=False) @ loadings.astype(dtype, copy=False) + self.mean_.astype(dtype)

    def _check_parameters(self) -> None:
        validation.check_choice(self.svd_solver, tuple(_ROUTES), "svd_solver")
        validation.check_choice(self.missing, ("error", "em"), "missing")
        validation.check_real(self.tol, "tol", low=0.0)
        validation.check_integer(self.n_oversamples, "n_oversamples", low=1)
        if self.iterated_power != "auto":
            validation.check_integer(self.iterated_power, "iterated_power", low=0)
        validation.check_choice(
            self.power_iteration_normalizer, ("auto", "QR", "LU", "none"), "power_iteration_normalizer"
        )
        for name in ("copy", "whiten", "standardize"):
            validation.check_bool(getattr(self, name), name)
        backends.resolve(self.backend)
        backends.check_precision(self.precision, self.backend)
        if self.precision != "float32" and self.missing == "em":
            raise ValueError(f"precision={self.precision!r} does not go with missing='em': use 'float32'.")

    def _check_products_once(self) -> None:
        """Moments are all that is kept of the rows: nothing could refine coarser ones."""
        if self.precision != "float32":
            raise ValueError(
                f"precision={self.precision!r} is refined by reading the rows again, and moments alone are kept here: "
                "use fit, or precision='float32'."
            )

    def _count(self, shape: tuple[int, int], asked: Any, note: str = "") -> tuple[Any, int | float | None]:
        """What is asked for (an int, a fraction or "mle"), and what the solver must compute for it.

        shape : rows that count, and features;  note : on the rows that count, for messages
        """
        largest = min(shape)
        if asked is None:
            asked = largest - 1 if self.svd_solver == "arpack" else largest
        truncated = self.svd_solver in _TRUNCATED
        if isinstance(asked, str):
            if asked != "mle":
                raise ValueError(f"n_components={asked!r} must be an integer, a float in (0, 1), 'mle' or None.")
            if truncated:
                raise ValueError(f"n_components='mle' cannot be a string with svd_solver={self.svd_solver!r}")
            if shape[0] < shape[1]:
                raise ValueError(f"n_components='mle' is only supported if n_samples >= n_features{note}")
            return asked, None
        if isinstance(asked, numbers.Real) and not isinstance(asked, numbers.Integral):
            if not 0.0 < asked < 1.0:
                raise ValueError(
                    f"n_components={asked!r}: a float must lie in (0, 1), a number of components be an int."
                )
            return float(asked), float(asked)
        if isinstance(asked, bool) or not isinstance(asked, numbers.Integral):
            raise ValueError(f"n_components={asked!r} must be an integer, a float in (0, 1), 'mle' or None.")
        low = 1 if truncated else 0
        if not low <= asked <= largest:
            named = "full" if self.svd_solver == "auto" else self.svd_solver
            raise ValueError(
                f"n_components={asked} must be between {low} and min(n_samples, n_features)={largest}{note} "
                f"with svd_solver={named!r}"
            )
        if self.svd_solver == "arpack" and asked == largest:
            raise ValueError(
                f"n_components={asked} must be strictly less than min(n_samples, n_features)={largest}{note} "
                "with svd_solver='arpack'"
            )
        return int(asked), max(int(asked), 1)

    def _first_moments(self, source: sources.Source, sample_weight: Any) -> Moments | None:
        """Where rows come in blocks: see `firstpass.first_moments`."""
        if self.standardize:
            widen(source)
        with progress.resolve(self.progress) as report:
            return first_moments(
                source, self.n_components, sample_weight=sample_weight, center=True, solver=_ROUTES[self.svd_solver],
                max_memory=self.max_memory, report=report, backend=self.backend,
            )  # fmt: skip

    def _solve(
        self,
        data: Any,
        computed: int | float | None,
        weights: np.ndarray | None,
        moments: Moments | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Eigenpairs:
        return top_eigenpairs(
            data,
            computed,
            tol=self.tol,
            sample_weight=weights,
            standardize=self.standardize,
            solver=_ROUTES[self.svd_solver],
            n_oversamples=self.n_oversamples,
            random_state=self.random_state,
            max_memory=self.max_memory,
            backend=self.backend,
            progress=self.progress,
            moments=moments,
            checkpoint=checkpoint,
            precision=self.precision,
        )

    def _check_room(self, source: sources.Source) -> None:
        """Refuse d x d moments that `max_memory` or plan.LARGEST_GRAM does not allow."""
        d, threads = source.n_features, backends.get_num_threads()
        if not plan.gram_fits(d, source.compute_dtype.itemsize, threads, validation.memory_bytes(self.max_memory)):
            need = format_bytes(plan.gram_bytes(d, source.compute_dtype.itemsize, threads), at_least=True)
            raise MemoryLimitError(
                f"The moments of {d} features need {need} (max_memory={self.max_memory!r}, at most "
                f"{plan.LARGEST_GRAM} features): "
                + (
                    "raise max_memory; missing='em' has no leaner way."
                    if self.missing == "em"
                    else "raise max_memory, use fit, or IncrementalPCA, which keeps a sketch."
                )
            )

    def _solve_missing(
        self,
        source: sources.Source,
        weights: np.ndarray | None,
        weight_sum: float,
        counted: int,
        checkpoint: Checkpoint | None,
    ) -> tuple[Eigenpairs, missing.Model]:
        """EM on the observed entries; values with scale "sum", as if nothing were missing."""
        largest = min(counted, source.shape[1] - 1)
        p = largest if self.n_components is None else self.n_components
        if isinstance(p, bool) or not isinstance(p, numbers.Integral) or not 1 <= p <= largest:
            raise ValueError(
                f"n_components={p!r} must be an integer between 1 and min(n_samples, n_features - 1)={largest} with "
                f"missing='em' (n_samples={source.shape[0]}, n_features={source.shape[1]}){_positive_note(weights)}."
            )
        if self.standardize:
            raise ValueError("standardize=True does not go with missing='em': scale the features first.")
        backends.resolve_cpu(self.backend, "missing='em'")
        self._check_room(source)
        with progress.resolve(self.progress) as report:
            model = missing.fit(source, int(p), weights, float(self.tol), checkpoint, report)
        vectors = model.vectors * np.sign(model.vectors[np.abs(model.vectors).argmax(axis=0), np.arange(p)])
        pairs = Eigenpairs(
            values=model.values * weight_sum,
            vectors=np.ascontiguousarray(vectors, dtype=source.compute_dtype),
            residuals=np.full(int(p), np.nan),
            converged=np.full(int(p), model.converged),
            solver="em",
            reason="missing='em': maximum likelihood of the observed entries",
            n_passes=len(model.log_likelihood) + 1,
            workspace_bytes=3 * 8 * source.shape[1] ** 2,
            trace=model.trace * weight_sum,
            mean=model.mean,
            variances=None,
            weight_sum=weight_sum,
        )
        return pairs, model

    def _results_of_moments(self, moments: Moments, asked: Any) -> dict[str, Any]:
        """The fitted attributes, with `asked` components (see n_components), or with as many as there can be yet."""
        shape = (moments.n_counted, moments.n_features)
        if isinstance(asked, numbers.Integral) and asked > min(shape):
            if asked > moments.n_features:
                raise ValueError(f"n_components={asked} exceeds n_features={moments.n_features}.")
            asked = computed = min(shape)  # a stream that has not seen enough rows yet
        else:
            weighted = moments.weight_sum != moments.n_samples
            asked, computed = self._count(shape, asked, _note(moments.n_positive) if weighted else "")
        pairs = self._solve(moments, computed, None)
        left = results.left_of_moments(moments, self.standardize)
        return results.of_pairs(pairs, asked, moments.n_samples, moments.n_counted, left, standardize=self.standardize)

    # Fitted attributes that nobody else reads: the stream, and the model that fills missing entries.
    _private = frozenset(("_exact_mean", "_rounding", "_moments", "_missing_model"))
    _moments: Moments | None = None
    _missing_model: missing.Gaussian | None = None

    def _whitening(self) -> np.ndarray:
        """Standard deviations of the scores; those under eps of the largest are noise and are not blown up."""
        deviations = np.sqrt(self.explained_variance_.astype(np.float64))
        if not deviations.size or deviations[0] == 0.0:
            return np.ones_like(deviations)
        return np.maximum(deviations, np.finfo(self.components_.dtype).eps * deviations[0])

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "em"
        return tags


def _weight_sum(source: sources.Source, weights: np.ndarray | None) -> tuple[float, int]:
    """The sum of weights, which must leave a positive denominator, and how many rows count."""
    n_samples = source.shape[0]
    if weights is None:
        total, counted = float(n_samples), n_samples
    else:
        total, n_positive = float(weights.sum()), int(np.count_nonzero(weights))
        validation.check_weight_sum(total, n_positive)
        counted = validation.rows_that_count(n_positive, total)
    if counted < 2:
        raise ValueError(f"X has n_samples={n_samples}: a variance needs at least 2 samples (shape={source.shape}).")
    return total, counted


def _positive_note(weights: np.ndarray | None) -> str:
    return "" if weights is None else _note(int(np.count_nonzero(weights)))


def _note(n_positive: int) -> str:
    return f" ({n_positive} rows of positive weight)"
