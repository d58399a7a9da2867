"""PCA under scikit-learn's contract: exact principal components of all rows at once, or of a stream by moments."""

from __future__ import annotations

import copy
import numbers
from typing import Any, Self

import numpy as np

from .. import backends, progress, validation
from ..data import sources
from ..data.checkpoint import Checkpoint, kept, require_file
from ..eigen import em
from ..eigen.request import Options
from ..eigen.solve import eigenpairs_of_moments, eigenpairs_of_rows
from ..eigen.weighted_rows import weighted_rows
from ..operators.moments import Moments
from ..operators.pilot import widen
from . import _fitted_attributes, _n_components, _stream_state
from ._array_api import dispatched
from ._base import checked, note, positive_note, weighed
from ._base_pca import BasePCA
from ._callbacks import with_callbacks

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


class PCA(BasePCA):
    """Principal component analysis: exact, ordered, certified, at the speed of the machine.

    A drop-in for `sklearn.decomposition.PCA` that never copies or writes X, stays accurate whatever the mean of the
    data, and bounds the error of every component.

    Parameters
    ----------
    n_components : int, float in (0, 1), "mle", "parallel", "gavish-donoho" or None, default=None
        Number of components; the least number that explains more than this fraction of the variance; the choice of
        Minka, of parallel analysis, or of Gavish and Donoho's threshold (`lae_fast.selection`; docs/choosing-p.md); or
        all min(n_samples, n_features).  The choices need the whole spectrum, which the Gram route gives, and may be 0.
    copy : bool, default=True
        Accepted for compatibility; X is never written.
    whiten : bool, default=False
        Scale the scores to unit variance.
    svd_solver : {"auto", "gram", "krylov"}, default="auto"
        Gram matrix of the shorter side, or block Krylov on passes over the data. scikit-learn's names are accepted:
        "full" and "covariance_eigh" mean gram, "arpack" and "randomized" krylov.
    tol : float, default=0.0
        Largest residual wanted. The solver stops when every residual is at most max(tol, 8 eps l_1 / l_i); 0.0 means as
        far as the dtype goes, 8 eps l_1 / l_i.  A residual may exceed that by what rounding of the products explains
        (docs/pca.md, "Certificates").
    iterated_power, power_iteration_normalizer : default="auto"
        Accepted for compatibility; the stopping rule is `tol`.
    n_oversamples : int, default=10
        Columns of the Krylov block beyond n_components, where no narrower block is quicker (docs/pca.md).
    random_state : None, int, Generator or RandomState, default=None
        Seed of the Krylov start block; None for a fixed one.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        "auto" computes where the data are, and takes large data to the device where that pays.
    standardize : bool, default=False
        Divide every feature by its standard deviation, implicitly; float32 features of very different sizes are
        multiplied in float64 (docs/pca.md, "Sizes").
    missing : {"error", "em"}, default="error"
        NaN and inf are refused, naming the first; or NaN is a missing entry, and the probabilistic PCA model is fitted
        to the others by EM (docs/streaming.md), which needs an integer n_components < n_features and d x d memory.
    max_memory : int, float, str or None, default=None
        Bytes, or text such as "500MB": bounds the workspace, or refuses with the figure needed; None or inf: no limit.
    progress : bool or callable, default=False
        True for a bar on stderr, or a callable (stage, done, total).
    precision : {"float32", "tf32", "bf16x9"}, default="float32"
        How CUDA may multiply float32 data. The last two are modes of the tensor cores. They only find a start:
        passes in float32 follow until the residuals are what `tol` asks for, as with "float32". The mode has no effect
        on data of other compute dtypes, on sparse data, where it would take longer, and where "auto" takes the CPU;
        `route_reason_` says so then (docs/cuda.md).

    Attributes
    ----------
    components_ : ndarray of shape (p, d)
        Rows orthonormal, in the compute dtype: float32 for float32, float16, bool, int8, uint8 and int16 data, float64
        for other dtypes. The entry of largest magnitude of each row is positive.
    explained_variance_ : ndarray of shape (p,)
        Denominator n_samples - 1, or sum(sample_weight) - 1. It, singular_values_ and scale_ are float64 where float32
        has no range for them.
    explained_variance_ratio_, singular_values_ : ndarray of shape (p,)
        As in scikit-learn.
    mean_ : ndarray of shape (d,)
        Mean of each feature.
    scale_ : ndarray of shape (d,) or None
        Standard deviation of each feature where standardize, else None.
    noise_variance_ : float
        Mean of the variances left out.  Where rounding of the total would hide it, it is measured on what the
        components leave (docs/pca.md, "What components leave"); with missing="em" it is over all n_features - p.
    n_components_, n_samples_, n_features_in_ : int
        As in scikit-learn; feature_names_in_ too, where X has names.
    residuals_ : ndarray of shape (p,), float64
        Upper bounds of |S u_i - l_i u_i| / max(l_i, eps l_1).
    converged_ : ndarray of shape (p,), bool
        The residual as measured is within tol, or within the floor of `tol` and the allowance for rounding in
        `residuals_`.
    choice_ : `lae_fast.selection.Choice`
        How the number was chosen; only where n_components is a name.
    log_likelihood_ : ndarray of shape (n_iterations,)
        With missing="em" only, the mean log-likelihood of the observed entries of a row; solver_ is "em" there, and
        `residuals_`, which EM does not bound, are nan.
    solver_, route_reason_ : str
        "gram" or "krylov", and why.
    n_passes_, workspace_bytes_ : int
        Times the data was read, and the most that was held beside the data and the result.
    backend_ : str
        "cpu" or "cuda", what ran.

    Notes
    -----
    A residual certifies an eigenpair; that no larger variance was missed is certain on the Gram route only, and there
    of variances above eps times the largest.

    Sources: docs/pca.md; Musco and Musco 2015 for block Krylov; Tipping and Bishop 1999 for the probabilistic model.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.random.default_rng(0).standard_normal((200, 5)) * [5.0, 4.0, 3.0, 2.0, 1.0] + 1e6
    >>> pca = lf.PCA(2).fit(X)
    >>> pca.components_.shape, pca.explained_variance_.round(1)
    ((2, 5), array([20.5, 14.6]))
    >>> bool(pca.residuals_.max() < 1e-8), pca.solver_, pca.n_passes_
    (True, 'gram', 1)
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

    @dispatched
    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None) -> Self:
        """Fit on X; y is ignored.

        Parameters
        ----------
        X : (n_samples, n_features)
            An array, memmap, sparse matrix, HDF5 or Zarr array, Arrow table or DataFrame (docs/storage.md says what is
            taken of each);
            or a path (str or os.PathLike) to a file of `files.FORMATS`, which is open while it is needed; a `TableFile`
            says which columns of a CSV or Parquet file are taken;
            or rows in blocks of any heights, each an array, table or sparse matrix: a callable that returns a fresh
            iterator of blocks, a list of blocks, or an iterator, whose rows come once (docs/streaming.md);
            or a Dask array, dataframe or list of delayed blocks (docs/clusters.md).
        sample_weight : array of shape (n_samples,), default=None
            Frequency weights >= 0; a weight of 2 counts as the row twice, in every number and limit (docs/pca.md,
            "Weights").  They must sum to more than one.
        checkpoint : path, `Checkpoint` or None, default=None
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
        An exception leaves the estimator as it was, also one that is raised by X itself.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 2.0]])
        >>> weighted, repeated = lf.PCA().fit(X, sample_weight=[2, 1, 1]), lf.PCA().fit(X[[0, 0, 1, 2]])
        >>> np.allclose(weighted.explained_variance_, repeated.explained_variance_)
        True
        >>> blocks = [X[:2], X[2:]]  # rows in blocks
        >>> np.allclose(lf.PCA().fit(blocks).mean_, [3.0, 2.0])
        True
        """
        options = self._check_parameters()
        with self._opened(X) as source, kept(checkpoint) as checkpoint:
            if checkpoint is not None:
                require_file(source)
            if self.missing == "error":
                fitted = self._fit_complete(source, sample_weight, options, checkpoint)
            else:
                fitted = self._fit_missing(source, sample_weight, checkpoint)
        self._replace_fitted(fitted)
        return self

    @dispatched
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to the exact moments (d x d, in memory) and renew the components; y is ignored.

        Batches may have any size; components exist as soon as the weights sum to more than one.  An exception, an
        interrupt included, leaves the estimator and its moments as they were.

        Parameters
        ----------
        X, sample_weight
            As of `fit`: rows (n_samples, n_features), and their frequency weights (n_samples,).

        Raises
        ------
        ValueError, TypeError
            As `fit`; missing="em" or a `precision` other than "float32", which read the rows again.
        MemoryLimitError
            `max_memory` does not hold the d x d moments; says what is needed.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> stream = lf.PCA(2).partial_fit(X[:1]).partial_fit(X[1:40]).partial_fit(X[40:])
        >>> np.allclose(stream.explained_variance_, lf.PCA(2).fit(X).explained_variance_), stream.n_samples_
        (True, 100)
        """
        self._check_parameters()
        if self.missing != "error":
            raise ValueError(f"missing={self.missing!r} reads the data many times: use fit, or missing='error'.")
        self._refuse_coarse_products()
        before = self._moments
        with self._opened(X, reset=before is None) as source:
            if before is None:
                _stream_state.require_room_for_moments(source, self.max_memory, self.missing)
            if self.standardize:
                widen(source)
            # merging makes new arrays: a shallow copy is enough to leave the old moments as they are
            moments = Moments(source.n_features) if before is None else copy.copy(before)
            moments.update(source, sample_weight=sample_weight, backend=self.backend)
            fitted = self._fit_moments(moments) if moments.has_variance else {}
        self._replace_fitted({**fitted, "_moments": moments})
        return self

    @classmethod
    def from_moments(cls, moments: Moments, n_components: int | float | str | None = None, **parameters: Any) -> PCA:
        """A fitted PCA from moments that were gathered elsewhere; further parameters as in the constructor.

        The moments stay as they are, whatever `partial_fit` adds later.

        Parameters
        ----------
        moments : Moments
            Of (n_features,) columns, at least two rows that count.
        n_components : int, float in (0, 1), str or None
            As in the constructor.

        Returns
        -------
        PCA

        Raises
        ------
        TypeError, ValueError
            No moments; too few rows; bad parameters.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> moments = lf.Moments.from_data(X[:50]) + lf.Moments.from_data(X[50:])  # of two machines, say
        >>> np.allclose(lf.PCA.from_moments(moments, 2).mean_, X.mean(axis=0))
        True
        """
        if not isinstance(moments, Moments):
            raise TypeError(
                f"moments must be lae_fast.Moments, got {type(moments).__name__}: pass Moments.from_data(X), or fit X."
            )
        self = cls(n_components, **parameters)
        self._check_parameters()
        self._refuse_coarse_products()
        if moments.n_samples > 1:
            validation.check_weight_sum(moments.weight_sum, moments.n_positive)
        if moments.n_counted < 2:
            raise ValueError(
                f"The moments have n_samples={moments.n_samples}{positive_note(moments.n_positive)}: a variance needs "
                "at least 2 samples."
            )
        fitted = self._fit_moments(moments)
        self._set_features(moments.n_features, moments.feature_names)
        self._replace_fitted({**fitted, "_moments": copy.copy(moments)})
        return self

    @dispatched
    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood (n_samples,) of each row under the probabilistic model, on the host.

        Where the model is singular, it is the density on the subspace that the model fills.  With missing="em" NaN is a
        missing entry, and a row's likelihood is that of its observed entries: 0.0 where it has none.

        Examples
        --------
        >>> import lae_fast as lf
        >>> pca = lf.PCA(1).fit([[5.0, 0.0], [-5.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> pca.score_samples([[4.0, 0.0], [0.0, 4.0]]).round(2)  # far along the component, and across it
        array([ -3.52, -15.04])
        """
        if self._missing_model is None:
            return super().score_samples(X)
        with self._opened(X, reset=False) as source:
            return em.log_density(source, self._missing_model)

    # The stream of partial_fit, and the model that fills missing entries.
    _private = BasePCA._private | {"_moments", "_missing_model"}
    _moments: Moments | None = None
    _missing_model: em.Gaussian | None = None

    def _as_read(self, source: sources.Source) -> sources.Source:
        return source if self._missing_model is None else em.FilledSource(source, *self._missing_model)

    def _check_parameters(self) -> Options:
        super()._check_parameters()
        validation.check_bool(self.standardize, "standardize")
        validation.check_choice(self.svd_solver, tuple(_ROUTES), "svd_solver")
        validation.check_choice(self.missing, ("error", "em"), "missing")
        options = self._options()  # which checks what the solver takes
        if self.iterated_power != "auto":
            validation.check_integer(self.iterated_power, "iterated_power", low=0)
        validation.check_choice(
            self.power_iteration_normalizer, ("auto", "QR", "LU", "none"), "power_iteration_normalizer"
        )
        if self.precision != "float32" and self.missing == "em":
            raise ValueError(f"precision={self.precision!r} does not go with missing='em': use 'float32'.")
        return options

    def _refuse_coarse_products(self) -> None:
        """Moments are all that is kept of the rows: nothing could refine coarser ones."""
        if self.precision != "float32":
            raise ValueError(
                f"precision={self.precision!r} is refined by reading the rows again, and moments alone are kept here: "
                "use fit, or precision='float32'."
            )

    def _fit_complete(
        self, source: sources.Source, sample_weight: Any, options: Options, checkpoint: Checkpoint | None
    ) -> dict[str, Any]:
        """The fitted attributes, of rows without missing entries."""
        with progress.resolve(self.progress) as report:
            rows = checked(weighted_rows(source, self.n_components, sample_weight, options, report))
            n_samples, n_features = source.shape
            asked, computed = _n_components.resolved(
                self.n_components, (rows.n_counted, n_features), self.svd_solver, note(rows)
            )
            pairs = eigenpairs_of_rows(rows, computed, options, report, checkpoint)
        if rows.moments is not None and not source.rereadable:
            left_out = _fitted_attributes.left_out_of_moments(rows.moments, self.standardize)
        else:
            limit = validation.memory_bytes(options.max_memory)
            left_out = _fitted_attributes.left_out_of_rows(source, pairs, rows.weights, self.standardize, limit)
        return _fitted_attributes.from_eigenpairs(
            pairs, asked, n_samples, rows.n_counted, left_out, standardize=self.standardize,
            random_state=self.random_state,
        )  # fmt: skip

    def _options(self) -> Options:
        return Options(
            tol=self.tol,
            standardize=self.standardize,
            solver=_ROUTES[self.svd_solver],
            n_oversamples=self.n_oversamples,
            random_state=self.random_state,
            max_memory=self.max_memory,
            backend=self.backend,
            precision=self.precision,
        )

    def _fit_moments(self, moments: Moments) -> dict[str, Any]:
        """The fitted attributes, with as many components as are asked for, or as there can be yet."""
        shape = (moments.n_counted, moments.n_features)
        asked = self.n_components
        if isinstance(asked, numbers.Integral) and int(asked) > moments.n_features:
            raise ValueError(f"n_components={asked} exceeds n_features={moments.n_features}.")
        if isinstance(asked, numbers.Integral) and int(asked) > min(shape):
            asked = computed = min(shape)  # a stream that has not seen enough rows yet
        else:
            weighted = positive_note(moments.n_positive) if moments.weight_sum != moments.n_samples else ""
            asked, computed = _n_components.resolved(asked, shape, self.svd_solver, weighted)
        with progress.resolve(self.progress) as report:
            pairs = eigenpairs_of_moments(moments, computed, self._options(), report)
        return _fitted_attributes.from_eigenpairs(
            pairs, asked, moments.n_samples, moments.n_counted,
            _fitted_attributes.left_out_of_moments(moments, self.standardize), standardize=self.standardize,
            random_state=self.random_state,
        )  # fmt: skip

    def _fit_missing(self, source: sources.Source, sample_weight: Any, checkpoint: Checkpoint | None) -> dict[str, Any]:
        """The fitted attributes, by EM on the observed entries."""
        shape = source.shape
        rows = weighed(source, sample_weight)
        p = _n_components.resolved_for_em(self.n_components, shape, rows.n_counted, note(rows))
        if self.standardize:
            raise ValueError("standardize=True does not go with missing='em': scale the features first.")
        backends.resolve_cpu(self.backend, "missing='em'")
        _stream_state.require_room_for_moments(source, self.max_memory, self.missing)
        with progress.resolve(self.progress) as report:
            model = em.fit(source, p, rows.weights, float(self.tol), checkpoint, report)
        return _fitted_attributes.from_em(model, source, rows.weight_sum, rows.n_counted)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "em"
        return tags
