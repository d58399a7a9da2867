"""What PCA and IncrementalPCA are once they are fitted: scores, whitening, and the probabilistic model.

The model is that of Tipping and Bishop (1999): x ~ N(mean, U diag(variances - noise) U' + noise I).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .. import backends, validation
from ..data import sources
from ..eigen.eigenpairs import held
from ..eigen.request import Options
from ..operators import remainder
from ._array_api import dispatched
from ._base import Estimator

# A likelihood is right to about this share of all degrees of freedom.
_DOUBT = 1e-8


class BasePCA(Estimator):
    """Base of PCA and IncrementalPCA, which differ in how they are fitted."""

    copy: bool
    whiten: bool
    explained_variance_: np.ndarray
    mean_: np.ndarray
    noise_variance_: float
    scale_: np.ndarray | None
    _exact_mean: np.ndarray  # float64; mean_ is in the compute dtype
    _rounding: float  # variances below this share of the largest are rounding

    _private = frozenset(("_exact_mean", "_rounding"))

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """`fit(X, y, sample_weight).transform(X)`.

        Parameters
        ----------
        X, sample_weight
            As of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, p)
            In the compute dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> lf.PCA(1).fit_transform(X).ravel().round(6) + 0.0
        array([ 2., -2.,  0.,  0.])
        """
        return self.fit(X, y, sample_weight).transform(X)

    def _check_parameters(self) -> Options | None:
        for name in ("copy", "whiten"):
            validation.check_bool(getattr(self, name), name)
        backends.resolve(self.backend)
        return None

    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        loadings = self.components_.astype(np.float64)
        if self.scale_ is not None:
            loadings = loadings / self.scale_
        if self.whiten:
            loadings = loadings / self._whitening()[:, None]
        return self._exact_mean, loadings

    def _expansion(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None, np.dtype]:
        loadings = self.components_
        if self.whiten:
            loadings = loadings * np.sqrt(self.explained_variance_)[:, None]
        if self.scale_ is not None:
            loadings = loadings * self.scale_
        return loadings, self.mean_, np.result_type(dtype, self.components_.dtype)

    def _whitening(self) -> np.ndarray:
        """Standard deviations of the scores; those under eps of the largest are noise and are not blown up."""
        deviations = np.sqrt(self.explained_variance_.astype(np.float64))
        if not deviations.size or deviations[0] == 0.0:
            return np.ones_like(deviations)
        return np.maximum(deviations, np.finfo(self.components_.dtype).eps * deviations[0])

    @dispatched
    def get_covariance(self) -> np.ndarray:
        """Covariance (d, d) of the probabilistic model: components scaled by their variances above the noise.

        Returns
        -------
        ndarray of shape (d, d)
            In the compute dtype, denominator as of `explained_variance_` (Tipping and Bishop 1999).

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((50, 3))
        >>> np.allclose(lf.PCA().fit(X).get_covariance(), np.cov(X.T))  # with all components
        True
        """
        check_is_fitted(self)
        excess = np.maximum(self.explained_variance_ - self.noise_variance_, 0.0)
        covariance = (self.components_.T * excess) @ self.components_
        covariance.flat[:: covariance.shape[0] + 1] += self.noise_variance_
        return covariance if self.scale_ is None else covariance * np.multiply.outer(self.scale_, self.scale_)

    @dispatched
    def get_precision(self) -> np.ndarray:
        """Inverse (d, d) of `get_covariance`, by the matrix inversion lemma; the pseudo-inverse where singular.

        In the compute dtype, as the covariance is; float64 where float32 has no range for it.

        Returns
        -------
        ndarray of shape (d, d)

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> pca = lf.PCA(1).fit(np.random.default_rng(0).standard_normal((50, 3)))
        >>> np.allclose(pca.get_precision() @ pca.get_covariance(), np.eye(3))
        True
        """
        check_is_fitted(self)
        inverse, noise = self._inverse_variances()
        precision = (self.components_.T * (inverse - noise)) @ self.components_
        precision.flat[:: precision.shape[0] + 1] += noise
        if self.scale_ is not None:
            precision = precision / np.multiply.outer(self.scale_, self.scale_)
        dtype = held(np.abs(precision).ravel(), self.components_.dtype).dtype
        return precision.astype(dtype, copy=False)

    def _inverse_variances(self) -> tuple[np.ndarray, float]:
        """Inverse model variances along the components and off them; zero where there is no variance."""
        variances = np.maximum(self.explained_variance_.astype(np.float64), self.noise_variance_)
        floor = 0.0 if self.noise_variance_ > 0 else self._rounding * variances.max(initial=0.0)
        kept = variances > floor
        inverse = np.divide(1.0, variances, out=np.zeros_like(variances), where=kept)
        return inverse, 1.0 / self.noise_variance_ if self.noise_variance_ > 0 else 0.0

    @dispatched
    def score_samples(self, X: Any) -> Any:
        """Log-likelihood (n_samples,) of each row under the probabilistic model, on the host; on Dask a Dask array.

        Where the model is singular, it is the density on the subspace that the model fills.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As `transform`.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3)) * [5.0, 1.0, 1.0]
        >>> usual, odd = lf.IncrementalPCA(1).fit(X).score_samples([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
        >>> bool(usual > odd + 5.0)  # as far from the mean, but across the component
        True
        """
        check_is_fitted(self)
        inverse, noise = self._inverse_variances()
        d = self.components_.shape[1]
        used = inverse[inverse > 0]
        log_determinant = float(np.log(used).sum())
        dimension = used.size
        if noise > 0:
            log_determinant += (d - inverse.size) * np.log(noise)
            dimension = d
        if self.scale_ is not None:
            log_determinant -= 2.0 * float(np.log(self.scale_).sum())
        with self._opened(X, reset=False) as source:
            sides = None if self.scale_ is None else 1.0 / self.scale_.astype(np.float64)
            # What is left of a row counts by its share of a degree of freedom, and not at all without noise.
            least = _DOUBT * d / noise if noise > 0 else np.inf
            squares = remainder.mahalanobis(
                source, self._exact_mean, self.components_, (inverse, noise), sides, self.backend, least
            )
        return -0.5 * (dimension * np.log(2.0 * np.pi) - log_determinant + squares)

    @dispatched
    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples(X)`; y is ignored.

        Returns
        -------
        float
            Nats per row.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 4)) * [5.0, 1.0, 1.0, 1.0]
        >>> one, three = lf.PCA(1).fit(X[:50]), lf.PCA(3).fit(X[:50])
        >>> one.score(X[50:]) > three.score(X[50:])  # of rows that were left out: one component is right
        True
        """
        found = self.score_samples(X)
        return sources.dask_mean(found) if sources.is_dask(found) else float(np.mean(found))
