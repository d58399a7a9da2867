"""Missing entries: maximum likelihood of the probabilistic PCA model from the entries that are there, by EM.

Tipping and Bishop 1999, with the missing entries as the latent variables: docs/streaming.md (M1) to (M3).
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from .. import validation
from ..backends.threads import serial_blas
from ..data import sources
from ..data.checkpoint import Checkpoint, fingerprint
from ..errors import ConvergenceWarning, user_level
from ..progress import Reporter
from . import dense

_MOST_ITERATIONS = 1000
# EM stops when an iteration raises the mean log-likelihood of a row by less than this, or `tol` if larger.
_LEAST_GAIN = 1e-10
# The noise is kept above this share of the mean variance of the observed entries, for two reasons.  Where rows have no
# more observed entries than components, the likelihood grows without end as the noise goes to zero.  And M (M1) adds
# the noise to squares of W, beside which float64 would lose a smaller one.
_LEAST_NOISE = 2.0**-26
# Rounding of the mean log-likelihood, in units of p eps trace / noise: it comes from M, the sum of those two.
_ROUNDING = 1.0
# x ~ N(mean, loadings loadings' + noise I): mean (d,), loadings (d, p), noise > 0
Gaussian = tuple[np.ndarray, np.ndarray, float]
# Variances whose products with others and with their inverses float64 holds.
_RANGE = (1e-150, 1e150)
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
    log_likelihood: tuple[float, ...] = ()
    converged: bool = False


def fit(
    source: sources.Source,
    p: int,
    weights: np.ndarray | None,
    tol: float,
    checkpoint: Checkpoint | None = None,
    report: Reporter | None = None,
) -> Model:
    """EM from the mean and variance of the observed entries of each feature.

    source : (m, d), NaN where missing;  p : components, less than d;  weights : (m,) or None
    checkpoint : keeps the state between two iterations, `source` opened from a path
    report : is told of each iteration, with the gain in likelihood that the last one brought
    About m d (d + p^2) flops an iteration, d^2 float64 of memory.

    Raises
    ------
    ValueError
        An infinite entry (names the first); a feature with no observed entry or with one (names the first); nothing but
        constant features; p >= d.

    Warns
    -----
    ConvergenceWarning
        1000 iterations were not enough: the last is returned.  Or the likelihood fell by more than rounding: the best
        is.
    """
    m, d = source.shape
    w = np.ones(m) if weights is None else weights
    if not p < d:
        raise ValueError(f"missing='em' needs n_components < n_features={d}, not {p}: the rest is the noise.")
    mean, covariance, least, history = _begun(source, w, weights, p, tol, checkpoint)
    model = before = _model(mean, covariance, p, least)
    converged = fallen = False
    while len(history) < _MOST_ITERATIONS and not converged:
        likelihood, mean, covariance = _expected_moments(source, w, model)
        history.append(likelihood)
        better = _model(mean, covariance, p, least)
        if report is not None:
            grown = f" (log-likelihood up by {likelihood - history[-2]:.1e})" if len(history) > 1 else ""
            report(f"EM iteration{grown}", len(history), None)
        converged, fallen = _judged(history, model, tol)
        if fallen:
            history.pop()
            model = before
            break
        before, model = model, better
        if checkpoint is not None and not converged:
            state = {"mean": mean, "covariance": covariance, "log_likelihood": np.array(history), "least": least}
            checkpoint.offer(state.copy, f"iteration {len(history)}")
    if not converged:
        _warn(history, fallen)
    return dataclasses.replace(model, log_likelihood=tuple(history), converged=converged)


def _begun(
    source: sources.Source,
    w: np.ndarray,
    weights: np.ndarray | None,
    p: int,
    tol: float,
    checkpoint: Checkpoint | None,
) -> tuple[np.ndarray, np.ndarray, float, list[float]]:
    """Mean, covariance, the least noise and the log-likelihoods so far: of a killed run, or of one that begins."""
    state = None
    if checkpoint is not None:
        libraries = [np.__version__, scipy.__version__]
        state = checkpoint.begin(fingerprint(source, "EM", weights, n_components=p, tol=tol, libraries=libraries))
    if state is not None:
        return state["mean"], state["covariance"], float(state["least"]), state["log_likelihood"].tolist()
    mean, variance = _observed_moments(source, w)
    return mean, np.diag(variance), _LEAST_NOISE * float(variance.mean()), []


def _judged(history: list[float], model: Model, tol: float) -> tuple[bool, bool]:
    """Whether the last iteration, which started from `model`, raised the likelihood too little to go on, or lowered it.

    What it is lowered by must be more than rounding explains.
    """
    if len(history) <= 2:
        return False, False
    gain, size = history[-1] - history[-2], max(1.0, abs(history[-1]))
    rounding = _ROUNDING * np.finfo(np.float64).eps * (size + model.loadings.shape[1] * model.trace / model.noise)
    if gain < -rounding:
        return False, True
    return bool(gain <= max(_LEAST_GAIN, tol) * size), False


def _warn(history: list[float], fallen: bool) -> None:
    found = f"EM with missing entries has not converged in {_MOST_ITERATIONS} iterations; its last result is kept."
    if fallen:
        found = (
            f"EM with missing entries stopped after {len(history)} iterations, because rounding made the likelihood "
            "fall; the best result is kept."
        )
    warnings.warn(f"{found} Ask for fewer components or a larger tol.", ConvergenceWarning, stacklevel=user_level())


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


def log_density(source: sources.Source, model: Gaussian) -> np.ndarray:
    """Log-density (m,) of the observed entries of each row, whatever the others are (M1); 0 where there are none.

    Raises
    ------
    ValueError
        An infinite entry (names the first).
    """
    d, p = model[1].shape
    density = np.empty(source.shape[0])
    with serial_blas():
        for first, last, block in _blocks(source, max(1, _ENTRIES_AT_ONCE // (d * (p + 1)))):
            _refuse_infinite(source, first, block)
            density[first:last] = _conditional(block, *model)[2]
    return density


def _refuse_infinite(source: sources.Source, first: int, block: np.ndarray) -> None:
    if np.isinf(block).any():
        row, column = np.argwhere(np.isinf(block))[0]
        raise ValueError(
            validation.nonfinite_message(first + int(row), source.label(int(column)), float(block[row, column]))
            + " missing='em' takes NaN as missing, and inf as an error."
        )


def _blocks(source: sources.Source, rows: int) -> Any:
    for first in range(0, source.shape[0], rows):
        last = min(first + rows, source.shape[0])
        yield first, last, np.asarray(source.block(first, last, False), dtype=np.float64)


def _observed_moments(source: sources.Source, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (d,) of the observed entries of each feature, which must have some."""
    d = source.shape[1]
    count, mean, squares = np.zeros(d), np.zeros(d), np.zeros(d)
    entries, low, high = np.zeros(d, np.int64), np.full(d, np.inf), np.full(d, -np.inf)
    for first, last, block in _blocks(source, max(1, _ENTRIES_AT_ONCE // d)):
        _refuse_infinite(source, first, block)
        seen = ~np.isnan(block) * w[first:last, None]
        counted = seen > 0
        entries += counted.sum(axis=0)
        low = np.minimum(low, np.where(counted, block, np.inf).min(axis=0))
        high = np.maximum(high, np.where(counted, block, -np.inf).max(axis=0))
        added = seen.sum(axis=0)
        safe = np.where(added > 0, added, 1.0)
        values = np.nan_to_num(block)
        here = (seen * values).sum(axis=0) / safe
        total = np.where(count + added > 0, count + added, 1.0)
        offset = np.where(added > 0, here - mean, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # squares that large are refused below
            squares += (seen * (values - here) ** 2).sum(axis=0) + count * added / total * offset**2
        mean += added / total * offset
        count += added
    entries = np.maximum(entries, np.floor(count))  # an entry of weight 2 is two entries
    for least, said in ((0, "no observed entry"), (1, "one observed entry, which has no variance")):
        if (entries == least).any():
            column = source.label(int(np.argmax(entries == least)))
            raise ValueError(f"C{column[1:]} of X has {said} (of positive weight): leave it out.")
    if (low == high).all():
        raise ValueError("All columns of X are constant where they are observed: there is no variance to model.")
    variance = squares / count
    if not _RANGE[0] < float(variance.max()) < _RANGE[1]:
        raise ValueError(validation.range_message(float(np.max(high - low))))
    return mean, variance


def _expected_moments(source: sources.Source, w: np.ndarray, model: Model) -> tuple[float, np.ndarray, np.ndarray]:
    """E step: mean log-likelihood of the rows, and the expected mean (d,) and covariance (d, d), ddof 0."""
    d, p = model.loadings.shape
    total = float(w.sum())
    sums, scatter, likelihood = np.zeros(d), np.zeros((d, d)), 0.0
    with serial_blas():
        for first, last, block in _blocks(source, max(1, _ENTRIES_AT_ONCE // (d * (p + 1)))):
            here = w[first:last]
            filled, roots, density = _conditional(block, model.mean, model.loadings, model.noise)
            likelihood += float(here @ density)
            sums += here @ filled
            scaled = filled * np.sqrt(here)[:, None]
            scatter += scaled.T @ scaled
            gone = np.isnan(block)
            some = gone.any(axis=1) & (here > 0)
            if not some.any():
                continue
            # covariance of the missing entries: noise (I + W M^-1 W'), the second part as p rows a sample
            spread = np.matmul(model.loadings, roots[some].transpose(0, 2, 1)) * gone[some][:, :, None]
            spread *= np.sqrt(model.noise * here[some])[:, None, None]
            rows = spread.transpose(0, 2, 1).reshape(-1, d)
            scatter += rows.T @ rows
            scatter.flat[:: d + 1] += model.noise * (here @ gone)
    offset = sums / total
    return likelihood / total, model.mean + offset, scatter / total - np.multiply.outer(offset, offset)


def _conditional(
    block: np.ndarray, mean: np.ndarray, loadings: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows about the mean with their conditional means filled in (n, d), R (n, p, p) with M^-1 = R'R, and log-densities
    (n,) (M1).

    A density takes the squares of what the latent means leave, which does not cancel: (x' x - x' W M^-1 W' x) / noise
    would lose as many digits as the noise is small.  One step of refinement makes the latent means right to that.
    """
    d, p = loadings.shape
    seen = ~np.isnan(block)
    centred = np.where(seen, block - mean, 0.0)
    products = (loadings[:, :, None] * loadings[:, None, :]).reshape(d, p * p)
    inner = (seen.astype(np.float64) @ products).reshape(-1, p, p) + noise * np.eye(p)
    factors = np.linalg.cholesky(inner)
    roots = np.linalg.inv(factors)
    latent, rest = np.zeros((len(block), p)), centred
    for _ in range(2):
        gradient = rest @ loadings - noise * latent
        latent = latent + np.einsum("nji,nj->ni", roots, np.einsum("nij,nj->ni", roots, gradient))
        expected = latent @ loadings.T
        rest = np.where(seen, centred - expected, 0.0)
    filled = np.where(seen, centred, expected)
    count = seen.sum(axis=1)
    quadratic = np.einsum("ij,ij->i", rest, rest) / noise + np.einsum("ij,ij->i", latent, latent)
    determinant = (count - p) * np.log(noise) + 2.0 * np.log(np.einsum("nii->ni", factors)).sum(axis=1)
    return filled, roots, -0.5 * (count * np.log(2.0 * np.pi) + determinant + quadratic)


def _model(mean: np.ndarray, covariance: np.ndarray, p: int, least: float) -> Model:
    """M step: Tipping and Bishop's closed form for the expected covariance (M3), the noise at least `least`."""
    d = covariance.shape[0]
    trace = float(np.trace(covariance))
    with serial_blas():
        values, vectors = dense.largest(covariance, p)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    noise = max((trace - float(values.sum())) / (d - p), least)
    loadings = vectors * np.sqrt(np.maximum(values - noise, 0.0))
    return Model(mean, loadings, noise, vectors, values, trace)
