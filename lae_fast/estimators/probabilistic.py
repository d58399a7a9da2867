"""The probabilistic model of PCA (Tipping and Bishop 1999): its covariance, and the likelihood of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..eigen import em
from ..operators import remainder
from ._base import intake

# A likelihood is right to about this share of all degrees of freedom.
_DOUBT = 1e-8


class ProbabilisticModel:
    """x ~ N(mean, U diag(variances - noise) U' + noise I), of the fitted attributes of an estimator."""

    components_: np.ndarray
    explained_variance_: np.ndarray
    noise_variance_: float
    scale_: np.ndarray | None
    backend: str
    _exact_mean: np.ndarray
    _rounding: float
    _missing_model: em.Gaussian | None

    def get_covariance(self) -> np.ndarray:
        """Covariance (d, d) of the probabilistic model: components scaled by their variances above the noise."""
        check_is_fitted(self)
        excess = np.maximum(self.explained_variance_ - self.noise_variance_, 0.0)
        covariance = (self.components_.T * excess) @ self.components_
        covariance.flat[:: covariance.shape[0] + 1] += self.noise_variance_
        return covariance if self.scale_ is None else covariance * np.multiply.outer(self.scale_, self.scale_)

    def get_precision(self) -> np.ndarray:
        """Inverse (d, d) of `get_covariance`, by the matrix inversion lemma; the pseudo-inverse where singular."""
        check_is_fitted(self)
        inverse, noise = self._inverse_variances()
        precision = (self.components_.T * (inverse - noise)) @ self.components_
        precision.flat[:: precision.shape[0] + 1] += noise
        return precision if self.scale_ is None else precision / np.multiply.outer(self.scale_, self.scale_)

    def _inverse_variances(self) -> tuple[np.ndarray, float]:
        """Inverse model variances along the components and off them; zero where there is no variance."""
        variances = np.maximum(self.explained_variance_.astype(np.float64), self.noise_variance_)
        floor = 0.0 if self.noise_variance_ > 0 else self._rounding * variances.max(initial=0.0)
        kept = variances > floor
        inverse = np.divide(1.0, variances, out=np.zeros_like(variances), where=kept)
        return inverse, 1.0 / self.noise_variance_ if self.noise_variance_ > 0 else 0.0

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-likelihood (n_samples,) of each row under the probabilistic model (Tipping and Bishop 1999), on the host.

        Where the model is singular, the density on the subspace that it fills.  With missing="em" NaN is a missing
        entry, and a row's likelihood is that of its observed entries: 0.0 where it has none.
        """
        check_is_fitted(self)
        if self._missing_model is not None:
            with intake(self, X, reset=False) as source:
                return em.log_density(source, self._missing_model)
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
        with intake(self, X, reset=False) as source:
            squares = np.empty(source.shape[0])
            sides = None if self.scale_ is None else 1.0 / self.scale_.astype(np.float64)
            # What is left of a row counts by its share of a degree of freedom, and not at all without noise.
            least = _DOUBT * d / noise if noise > 0 else np.inf
            parts = remainder.projected(source, self._exact_mean, self.components_, sides, self.backend, least=least)
            for first, last, latent, rest, _ in parts:
                squares[first:last] = ((latent * np.sqrt(inverse)) ** 2).sum(axis=1) + noise * rest
        return -0.5 * (dimension * np.log(2.0 * np.pi) - log_determinant + squares)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples(X)`; y is ignored."""
        return float(np.mean(self.score_samples(X)))
