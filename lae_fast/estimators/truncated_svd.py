"""TruncatedSVD under scikit-learn's contract: the same engine as PCA's, without centring."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import backends, plan, validation
from ..data import sources
from ..eigen.eigenpairs import Eigenpairs, held
from ..eigen.solve import top_eigenpairs
from ..eigen.uncounted_rows import first_moments
from ..operators import projection, sparse
from ..operators.moments import Moments
from ..operators.rows import RowsOperator
from ._base import intake, replace_fitted

_ROUTES = {"auto": "auto", "gram": "gram", "krylov": "krylov", "arpack": "krylov", "randomized": "auto"}


class TruncatedSVD(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Leading singular triplets of X itself, not centred: exact, ordered, certified; a drop-in for scikit-learn's.

    Parameters
    ----------
    n_components : int, at most min(n_samples, n_features)
    algorithm : "auto", "gram" or "krylov"; "randomized" (auto) and "arpack" (krylov) are accepted
    n_iter, power_iteration_normalizer : accepted for compatibility; the stopping rule is `tol`
    n_oversamples : columns of the Krylov block beyond n_components, where no narrower one is quicker (docs/pca.md)
    random_state : None for a fixed start block, or a seed or generator
    tol : largest residual wanted; 0.0 means as far as the dtype goes
    backend : "auto", "cpu" or "cuda"
    precision : "float32", "tf32" or "bf16x9", as of `PCA`

    Attributes
    ----------
    components_ : (p, d), rows orthonormal, the entry of largest magnitude of each positive
    singular_values_ : (p,);  explained_variance_ : (p,), variance (ddof 0) of the transformed training data
    explained_variance_ratio_ : (p,), of the total variance of X;  n_features_in_, feature_names_in_
    residuals_ : (p,) float64, upper bounds of |X'X u_i - s_i^2 u_i| / max(s_i^2, eps s_1^2);  converged_ : (p,) bool
    solver_, route_reason_, n_passes_, workspace_bytes_, backend_ : as of `PCA`
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

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on X (n_samples, n_features): whatever `PCA.fit` takes; y is ignored.

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), wrong shape or dtype, bad parameters.
        """
        self._check_parameters()
        with intake(self, X) as source:
            moments = first_moments(
                source, self.n_components, sample_weight=None, center=False, solver=_ROUTES[self.algorithm],
                max_memory=None, backend=self.backend,
            )  # fmt: skip
            self._check_count(source.shape)
            pairs = top_eigenpairs(
                source,
                int(self.n_components),
                tol=self.tol,
                center=False,
                solver=_ROUTES[self.algorithm],
                n_oversamples=self.n_oversamples,
                random_state=self.random_state,
                backend=self.backend,
                moments=moments,
                precision=self.precision,
            )
            variances, total, n_passes = _about_mean(source, pairs, moments)
        dtype = pairs.vectors.dtype
        singular = held(np.sqrt(pairs.values), dtype)
        results = {
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
        replace_fitted(self, results)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit(X).transform(X)`."""
        return self.fit(X).transform(X)

    def transform(self, X: Any, out: np.ndarray | None = None) -> np.ndarray:
        """X components' (n_samples, p), in one pass; `out` as of `PCA.transform`."""
        check_is_fitted(self)
        with intake(self, X, reset=False) as source:
            source.compute_dtype = np.result_type(source.compute_dtype, self.components_.dtype)
            zero = np.zeros(source.n_features)
            return projection.scores(source, zero, self.components_.astype(np.float64), out, self.backend)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Rows (n_samples, d) whose transform is X (n_samples, p)."""
        check_is_fitted(self)
        scores = sources.as_source(X) if sources.is_on_device(X) else validation.as_matrix(X)
        p = self.components_.shape[0]
        if scores.shape[1] != p:
            raise ValueError(f"X has {scores.shape[1]} columns, but this TruncatedSVD has {p} components.")
        dtype = np.result_type(sources.compute_dtype(scores.dtype), self.components_.dtype)
        if isinstance(scores, sources.DeviceSource):
            return projection.expanded(scores, self.components_, np.zeros(self.components_.shape[1]), dtype)
        return scores.astype(dtype, copy=False) @ self.components_.astype(dtype, copy=False)

    def _check_parameters(self) -> None:
        validation.check_choice(self.algorithm, tuple(_ROUTES), "algorithm")
        validation.check_integer(self.n_components, "n_components", low=1)
        validation.check_integer(self.n_iter, "n_iter", low=0)
        validation.check_integer(self.n_oversamples, "n_oversamples", low=1)
        validation.check_choice(
            self.power_iteration_normalizer, ("auto", "QR", "LU", "none"), "power_iteration_normalizer"
        )
        validation.check_real(self.tol, "tol", low=0.0)
        backends.resolve(self.backend)
        backends.check_precision(self.precision, self.backend)

    def _check_count(self, shape: tuple[int, int]) -> None:
        largest = min(shape) - (self.algorithm == "arpack")
        if self.n_components > largest:
            raise ValueError(
                f"n_components={self.n_components} must be at most {largest} for n_samples={shape[0]}, "
                f"n_features={shape[1]} with algorithm={self.algorithm!r}."
            )

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        return tags


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
    if isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz):
        return sparse.SparseOperator(source, block=block, backend=backend)
    return RowsOperator(source, block=block, backend=backend)


def _squares_of_scores(source: sources.Source, location: np.ndarray, vectors: np.ndarray, backend: str) -> np.ndarray:
    """(p,) sums of squared scores about the mean: columns far from zero are centred before they are multiplied."""
    squares = np.zeros(vectors.shape[1])

    def add(rows: np.ndarray) -> None:
        squares[:] += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)

    projection.scores(source, location, vectors.T.astype(np.float64), add, backend)
    return squares
