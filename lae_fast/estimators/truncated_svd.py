"""TruncatedSVD under scikit-learn's contract: the same engine as PCA's, without centring."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .. import progress, validation
from ..data import sources
from ..eigen.eigenpairs import Eigenpairs, held
from ..eigen.request import Options
from ..eigen.solve import eigenpairs_of_rows
from ..eigen.weighted_rows import weighted_rows
from ..operators import projection, sparse
from ..operators.moments import Moments
from ..operators.rows import RowsOperator
from ._array_api import dispatched
from ._base import Estimator
from ._callbacks import with_callbacks

_ROUTES = {"auto": "auto", "gram": "gram", "krylov": "krylov", "arpack": "krylov", "randomized": "auto"}


class TruncatedSVD(Estimator):
    """Leading singular triplets of X itself, not centred: exact, ordered, certified; a drop-in for scikit-learn's.

    Parameters
    ----------
    n_components : int, default=2
        At most min(n_samples, n_features).
    algorithm : {"auto", "gram", "krylov"}, default="auto"
        The route, as svd_solver of `PCA`; "randomized" (auto) and "arpack" (krylov) are accepted.
    n_iter, power_iteration_normalizer : default=5 and "auto"
        Accepted for compatibility; the stopping rule is `tol`.
    n_oversamples : int, default=10
        Columns of the Krylov block beyond n_components, where no narrower block is quicker (docs/pca.md).
    random_state : None, int, Generator or RandomState, default=None
        Seed of the Krylov start block; None for a fixed one.
    tol : float, default=0.0
        Largest residual wanted; 0.0 means as far as the dtype goes.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        As of `PCA`.
    precision : {"float32", "tf32", "bf16x9"}, default="float32"
        As of `PCA`.

    Attributes
    ----------
    components_ : ndarray of shape (p, d)
        Rows orthonormal, the entry of largest magnitude of each positive.
    singular_values_ : ndarray of shape (p,)
        Of X, descending.
    explained_variance_ : ndarray of shape (p,)
        Variance (ddof 0) of the transformed training data.
    explained_variance_ratio_ : ndarray of shape (p,)
        The same as a share of the total variance of X.
    n_features_in_ : int
        As in scikit-learn; feature_names_in_ too, where X has names.
    residuals_ : ndarray of shape (p,), float64
        Upper bounds of |X'X u_i - s_i^2 u_i| / max(s_i^2, eps s_1^2).
    converged_, solver_, route_reason_, n_passes_, workspace_bytes_, backend_
        As of `PCA`.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> svd = lf.TruncatedSVD(2).fit(np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> svd.singular_values_, bool(svd.residuals_.max() < 1e-12)
    (array([3., 2.]), True)
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        algorithm: str = "auto",
        n_iter: int = 5,
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        tol: float = 0.0,
        backend: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.n_components = n_components
        self.algorithm = algorithm
        self.n_iter = n_iter
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state
        self.tol = tol
        self.backend = backend
        self.precision = precision

    @dispatched
    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on X (n_samples, n_features): whatever `PCA.fit` takes; y is ignored.

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), wrong shape or dtype, bad parameters.

        Examples
        --------
        >>> import numpy as np
        >>> import scipy.sparse
        >>> import lae_fast as lf
        >>> counts = scipy.sparse.csr_array(np.random.default_rng(0).poisson(0.1, (100, 20)))
        >>> lf.TruncatedSVD(3).fit(counts).components_.shape
        (3, 20)
        """
        options = self._check_parameters()
        with self._opened(X) as source:
            with progress.resolve(False) as report:
                rows = weighted_rows(source, self.n_components, None, options, report)
                self._check_count(source.shape)
                pairs = eigenpairs_of_rows(rows, int(self.n_components), options, report)
            variances, total, n_passes = _about_mean(source, pairs, rows.moments)
        dtype = pairs.vectors.dtype
        singular = held(np.sqrt(pairs.values), dtype)
        fitted = {
            "components_": np.ascontiguousarray(pairs.vectors.T),
            "singular_values_": singular,
            "explained_variance_": held(variances, dtype),
            "explained_variance_ratio_": (variances / total if total > 0 else np.zeros_like(variances)).astype(dtype),
            # a bound for the squares of the singular values as they are returned
            "residuals_": pairs.residuals + np.finfo(singular.dtype).eps,
            "converged_": pairs.converged,
            "solver_": pairs.solver,
            "route_reason_": pairs.reason,
            "backend_": pairs.backend,
            "n_passes_": pairs.n_passes + n_passes,
            "workspace_bytes_": pairs.workspace_bytes,
        }
        self._replace_fitted(fitted)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit(X).transform(X)`; y is ignored.

        Returns
        -------
        ndarray of shape (n_samples, p)
            Left singular vectors times singular values, in the compute dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> lf.TruncatedSVD(1).fit_transform(np.array([[3.0, 4.0], [6.0, 8.0]])).ravel()
        array([ 5., 10.])
        """
        return self.fit(X).transform(X)

    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.n_features_in_), self.components_.astype(np.float64)

    def _expansion(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None, np.dtype]:
        return self.components_, None, np.result_type(dtype, self.components_.dtype)

    def _check_parameters(self) -> Options:
        validation.check_choice(self.algorithm, tuple(_ROUTES), "algorithm")
        validation.check_integer(self.n_components, "n_components", low=1)
        validation.check_integer(self.n_iter, "n_iter", low=0)
        validation.check_choice(
            self.power_iteration_normalizer, ("auto", "QR", "LU", "none"), "power_iteration_normalizer"
        )
        return self._options()  # which checks what the solver takes

    def _options(self) -> Options:
        return Options(
            tol=self.tol,
            center=False,
            solver=_ROUTES[self.algorithm],
            n_oversamples=self.n_oversamples,
            random_state=self.random_state,
            backend=self.backend,
            precision=self.precision,
        )

    def _check_count(self, shape: tuple[int, int]) -> None:
        largest = min(shape) - (self.algorithm == "arpack")
        if self.n_components > largest:
            raise ValueError(
                f"n_components={self.n_components} must be at most {largest} for n_samples={shape[0]}, "
                f"n_features={shape[1]} with algorithm={self.algorithm!r}."
            )


def _about_mean(source: sources.Source, pairs: Eigenpairs, moments: Moments | None) -> tuple[np.ndarray, float, int]:
    """Variances (ddof 0) along the vectors (d, p), the total variance, and the passes over the data it took."""
    vectors = pairs.vectors
    if moments is not None and not source.rereadable:
        matrix, scale = moments.centred_xx()
        units = scale**2 * moments.weight_sum
        along = np.einsum("ij,ij->j", vectors, matrix @ vectors)
        return np.maximum(along, 0.0) / units, float(np.trace(matrix)) / units, 0
    centred = _centred(source, vectors.shape[1], pairs.backend)
    if isinstance(centred, sparse.SparseOperator) and centred.is_far:
        m = source.shape[0]
        along = _squares_of_scores(source, centred.location, vectors, pairs.backend)
        return along / m, float(centred.variances.sum()) / m, centred.n_passes + 1
    _, inner = centred.apply_inner(vectors)
    units = centred.scale**2 * source.shape[0]
    return np.maximum(inner.diagonal(), 0.0) / units, centred.trace / units, centred.n_passes


def _centred(source: sources.Source, block: int, backend: str) -> RowsOperator | sparse.SparseOperator:
    """The second moments about the mean, through stored entries where that is quicker."""
    if sparse.stored_entries_pay(source):
        return sparse.SparseOperator(source, block=block, backend=backend)
    return RowsOperator(source, block=block, backend=backend)


def _squares_of_scores(source: sources.Source, location: np.ndarray, vectors: np.ndarray, backend: str) -> np.ndarray:
    """(p,) sums of squared scores about the mean: columns far from zero are centred before they are multiplied."""
    squares = np.zeros(vectors.shape[1])

    def add(scores: np.ndarray) -> None:
        squares[:] += np.einsum("ij,ij->j", scores, scores, dtype=np.float64)

    projection.scores(source, location, vectors.T.astype(np.float64), add, backend)
    return squares
