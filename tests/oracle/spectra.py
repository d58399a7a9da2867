"""Test data with known difficulties, and float64 answers for it.  Imports NumPy alone.

The answers are those of a dense float64 SVD of the centred data, not of a Gram matrix: the small ones are right too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def decaying(m: int, d: int, seed: int = 0, decay: float = 0.85, mean: float = 0.0) -> np.ndarray:
    """Float64 data (m, d) whose deviations decay as decay^i; column means of +-`mean` deviations."""
    random = np.random.default_rng(seed)
    rank = min(m, d)
    scores = random.standard_normal((m, rank)) * decay ** np.arange(rank)
    axes, _ = np.linalg.qr(random.standard_normal((d, rank)))
    data = scores @ axes.T
    return data + mean * data.std(axis=0) * random.choice([-1.0, 1.0], size=d)


def with_spectrum(m: int, d: int, values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float64 data (m, d), centred, with second moments U diag(values) U' of scale "sum"; and U (d, len(values))."""
    random = np.random.default_rng(seed)
    tall = random.standard_normal((m, len(values)))
    left, _ = np.linalg.qr(tall - tall.mean(axis=0))
    axes, _ = np.linalg.qr(random.standard_normal((d, len(values))))
    return (left * np.sqrt(values)) @ axes.T, axes


@dataclass
class Answer:
    """mean (d,), values (k,) descending of scale "sum", vectors (d, k), trace, denominator: all float64."""

    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    trace: float
    denominator: float


def centred(X, weights=None, standardize: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows sqrt(w) (x - mean), over the deviations where `standardize`; the mean; sum(w) - 1.  Float64."""
    X = np.asarray(X).astype(np.float64)
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    mean = w @ X / w.sum()
    rows = X - mean
    slip = w @ rows / w.sum()  # what rounding of the mean left
    rows, mean = rows - slip, mean + slip
    if standardize:
        deviation = np.sqrt(w @ rows**2 / (w.sum() - 1))
        rows = rows / np.where(deviation > 0, deviation, 1.0)
    return np.sqrt(w)[:, None] * rows, mean, w.sum() - 1


def answer(X, weights=None, standardize: bool = False) -> Answer:
    """The principal components of X in float64."""
    rows, mean, denominator = centred(X, weights, standardize)
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    return Answer(mean, singular**2, axes.T, float((rows**2).sum()), denominator)


def residuals(X, values, vectors, eps: float, weights=None, standardize: bool = False) -> np.ndarray:
    """|S u_i - l_i u_i| / max(l_i, eps l_1) in extended precision; values of scale "sum", vectors (d, p)."""
    rows, _, _ = centred(X, weights, standardize)
    rows = rows.astype(np.longdouble)
    values, vectors = np.asarray(values, np.longdouble), np.asarray(vectors, np.longdouble)
    norms = np.sqrt((((rows.T @ (rows @ vectors)) - vectors * values) ** 2).sum(axis=0))
    return (norms / np.maximum(values, eps * values.max())).astype(np.float64)


def eigenvalue_bound(values: np.ndarray) -> np.ndarray:
    """The contract for float32: 1e-5 l_i where l_i >= 1e-2 l_1, else 1e-7 l_1."""
    return np.where(values >= 1e-2 * values[0], 1e-5 * values, 1e-7 * values[0])


def subspace_sine(first: np.ndarray, second: np.ndarray) -> float:
    """Sine of the largest angle between the spans of orthonormal columns (d, k)."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    return float(np.linalg.norm(first - second @ (second.T @ first), ord=2))
