"""Missing entries: maximum likelihood of the probabilistic PCA model from the entries that are there, by EM.

Tipping and Bishop 1999, with the missing entries as the latent variables: docs/streaming.md (M1) to (M3).
May import checkpoint, sources, backends, validation and errors.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import scipy.linalg

from . import sources, validation
from .backends.cpu.threads import serial_blas
from .checkpoint import Checkpoint, fingerprint

_MOST_ITERATIONS = 1000
# EM stops when an iteration raises the mean log-likelihood of a row by less than this, or `tol` if larger.
_LEAST_GAIN = 1e-10
# The noise is kept above this share of the mean variance, so that the model stays a density.
_LEAST_NOISE = 1e-10
_ENTRIES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Model:
    """x ~ N(mean, loadings loadings' + noise I).

    mean : (d,);  loadings : (d, p), W;  noise : sigma^2 > 0;  vectors : (d, p);  values : (p,), ML variances (ddof 0);
    trace : of the expected covariance (ddof 0);  log_likelihood : of each iteration, weighted mean of the rows
    """

    mean: np.ndarray
    loadings: np.ndarray
    noise: float
    vectors: np.ndarray
    values: np.ndarray
    trace: float
    log_likelihood: tuple[float, ...]
    converged: bool


def fit(
    source: sources.Source, p: int, weights: np.ndarray | None, tol: float, checkpoint: Checkpoint | None = None
) -> Model:
    """EM from the mean and variance of the observed entries of each feature.

    source : (m, d), NaN where missing;  p : components, less than d;  weights : (m,) or None
    checkpoint : keeps the state between two iterations, `source` opened from a path
    About m d (d + p^2) flops an iteration, d^2 float64 of memory.

    Raises
    ------
    ValueError
        An infinite entry (names the first), a feature without an observed entry, p >= d.

    Warns
    -----
    ConvergenceWarning
        1000 iterations were not enough; the last is returned.
    """
    m, d = source.shape
    w = np.ones(m) if weights is None else weights
    if not p < d:
        raise ValueError(f"missing='em' needs n_components < n_features={d}, not {p}: the rest is the noise.")
    history: list[float] = []
    state = None
    if checkpoint is not None:
        libraries = [np.__version__, scipy.__version__]
        state = checkpoint.begin(fingerprint(source, "EM", weights, n_components=p, tol=tol, libraries=libraries))
    if state is None:
        mean, variance = _observed_moments(source, w)
        covariance = np.diag(variance)
    else:
        mean, covariance, history = state["mean"], state["covariance"], state["log_likelihood"].tolist()
    model = _model(mean, covariance, p, (), False)
    converged = False
    while len(history) < _MOST_ITERATIONS:
        likelihood, mean, covariance = _expected_moments(source, w, model)
        history.append(likelihood)
        if len(history) > 2 and history[-1] - history[-2] <= max(_LEAST_GAIN, tol) * max(1.0, abs(likelihood)):
            converged = True
            break
        model = _model(mean, covariance, p, tuple(history), False)
        if checkpoint is not None:
            state = {"mean": mean, "covariance": covariance, "log_likelihood": np.array(history)}
            checkpoint.offer(state.copy)
    model = _model(mean, covariance, p, tuple(history), converged)
    if not converged:
        from .errors import ConvergenceWarning

        warnings.warn(
            f"EM with missing entries has not converged in {_MOST_ITERATIONS} iterations; its last result is kept. Ask "
            "for fewer components or a larger tol.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return model


def fill(block: np.ndarray, mean: np.ndarray, loadings: np.ndarray, noise: float) -> np.ndarray:
    """Rows (n, d) float64 with every NaN replaced by its conditional mean given the row's other entries."""
    filled, _, _ = _conditional(block, mean, loadings, noise)
    return filled + mean


class FilledSource(sources.Source):
    """A source whose missing entries are read as their conditional means; lines of samples."""

    def __init__(self, source: sources.Source, mean: np.ndarray, loadings: np.ndarray, noise: float) -> None:
        super().__init__(source.shape, source.dtype)
        self._source, self._model = source, (mean, loadings, noise)
        self.in_order = isinstance(source, sources.BlockSource)  # other reads are serialised, and filling is not

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("filled data has no lines of features")
        block = np.asarray(self._source.block(first, last, False), dtype=np.float64)
        return fill(block, *self._model) if np.isnan(block).any() else block


def _blocks(source: sources.Source, rows: int) -> Any:
    for first in range(0, source.shape[0], rows):
        last = min(first + rows, source.shape[0])
        yield first, last, np.asarray(source.block(first, last, False), dtype=np.float64)


def _observed_moments(source: sources.Source, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (d,) of the observed entries of each feature."""
    d = source.shape[1]
    count, mean, squares = np.zeros(d), np.zeros(d), np.zeros(d)
    for first, last, block in _blocks(source, max(1, _ENTRIES_AT_ONCE // d)):
        if np.isinf(block).any():
            row, column = np.argwhere(np.isinf(block))[0]
            raise ValueError(
                validation.nonfinite_message(first + int(row), source.label(int(column)), float(block[row, column]))
                + " missing='em' takes NaN as missing, and inf as an error."
            )
        seen = ~np.isnan(block) * w[first:last, None]
        added = seen.sum(axis=0)
        safe = np.where(added > 0, added, 1.0)
        values = np.nan_to_num(block)
        here = (seen * values).sum(axis=0) / safe
        total = np.where(count + added > 0, count + added, 1.0)
        offset = np.where(added > 0, here - mean, 0.0)
        squares += (seen * (values - here) ** 2).sum(axis=0) + count * added / total * offset**2
        mean += added / total * offset
        count += added
    if (count == 0).any():
        column = source.label(int(np.argmax(count == 0)))
        raise ValueError(f"C{column[1:]} of X has no observed entry (of positive weight): leave it out.")
    return mean, squares / count


def _expected_moments(source: sources.Source, w: np.ndarray, model: Model) -> tuple[float, np.ndarray, np.ndarray]:
    """E step: mean log-likelihood of the rows, and the expected mean (d,) and covariance (d, d), ddof 0."""
    d, p = model.loadings.shape
    total = float(w.sum())
    sums, scatter, likelihood = np.zeros(d), np.zeros((d, d)), 0.0
    with serial_blas():
        for first, last, block in _blocks(source, max(1, _ENTRIES_AT_ONCE // (d * (p + 1)))):
            here = w[first:last]
            filled, inverse, density = _conditional(block, model.mean, model.loadings, model.noise)
            likelihood += float(here @ density)
            sums += here @ filled
            scaled = filled * np.sqrt(here)[:, None]
            scatter += scaled.T @ scaled
            gone = np.isnan(block)
            some = gone.any(axis=1) & (here > 0)
            if not some.any():
                continue
            # covariance of the missing entries: noise (I + W M^-1 W'), the second part as p rows a sample
            roots = np.linalg.cholesky(inverse[some])
            spread = np.matmul(model.loadings, roots) * gone[some][:, :, None]
            spread *= np.sqrt(model.noise * here[some])[:, None, None]
            rows = spread.transpose(0, 2, 1).reshape(-1, d)
            scatter += rows.T @ rows
            scatter.flat[:: d + 1] += model.noise * (here @ gone)
    offset = sums / total
    return likelihood / total, model.mean + offset, scatter / total - np.multiply.outer(offset, offset)


def _conditional(
    block: np.ndarray, mean: np.ndarray, loadings: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows about the mean with their conditional means filled in (n, d), M^-1 (n, p, p), log-densities (n,) (M1)."""
    d, p = loadings.shape
    seen = ~np.isnan(block)
    centred = np.where(seen, block - mean, 0.0)
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(d, p * p)
    inner = (seen.astype(np.float64) @ products).reshape(-1, p, p) + noise * np.eye(p)
    inverse = np.linalg.inv(inner)
    inverse = 0.5 * (inverse + inverse.transpose(0, 2, 1))
    image = centred @ loadings
    latent = np.einsum("nij,nj->ni", inverse, image)
    filled = np.where(seen, centred, latent @ loadings.T)
    count = seen.sum(axis=1)
    quadratic = (np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", image, latent)) / noise
    determinant = (count - p) * np.log(noise) + np.linalg.slogdet(inner)[1]
    return filled, inverse, -0.5 * (count * np.log(2.0 * np.pi) + determinant + quadratic)


def _model(mean: np.ndarray, covariance: np.ndarray, p: int, history: tuple[float, ...], converged: bool) -> Model:
    """M step: Tipping and Bishop's closed form for the expected covariance (M3)."""
    d = covariance.shape[0]
    trace = float(np.trace(covariance))
    with serial_blas():
        values, vectors = scipy.linalg.eigh(covariance, subset_by_index=[d - p, d - 1])
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    least = _LEAST_NOISE * trace / d if trace > 0 else np.finfo(np.float64).tiny ** 0.5
    noise = max((trace - float(values.sum())) / (d - p), least)
    loadings = vectors * np.sqrt(np.maximum(values - noise, 0.0))
    return Model(mean, loadings, noise, vectors, values, trace, history, converged)
