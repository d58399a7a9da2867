"""Data that rounding errors dislike, and the residuals of eigenpairs of it in extended precision.  Imports NumPy only.

`KINDS` maps a name to a function of (rng, m, d) that returns a float64 array (m, d); `mixture` draws the columns or the
rows of several of them.  The truth shares no code with lae_fast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Kinds whose rounding errors are as independent as those of measured data mostly are.
ORDINARY = ("gaussian", "correlated", "decaying", "shifted", "uniform")


def _gaussian(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.standard_normal((m, d))


def _correlated(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.standard_normal((m, d)) @ rng.standard_normal((d, d))


def _decaying(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Standard deviations that decay like 1 / k in a random basis."""
    return (rng.standard_normal((m, d)) / np.arange(1, d + 1)) @ np.linalg.qr(rng.standard_normal((d, d)))[0]


def _shifted(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.standard_normal((m, d)) * rng.uniform(0.3, 3.0, d) + rng.uniform(-50.0, 50.0, d)


def _uniform(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.random((m, d))


def _outlier_rows(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    X = rng.standard_normal((m, d))
    X[rng.integers(0, m, rng.integers(1, 4))] *= 10.0 ** rng.uniform(1, 15)
    return X


def _alternating(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Rows that are plus or minus one direction, and some noise."""
    line = np.ones(d) if rng.random() < 0.5 else rng.standard_normal(d)
    sign = (-1.0) ** np.arange(m) if rng.random() < 0.5 else rng.choice([-1.0, 1.0], m)
    return np.outer(sign, line) * 1e3 * rng.uniform(0.5, 2) + rng.standard_normal((m, d)) * 10.0 ** rng.uniform(-4, 1)


def _few_rows(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Two or a few rows, repeated in any order."""
    rows = rng.standard_normal((rng.integers(2, 6), d))
    if rng.random() < 0.3:
        rows = np.round(rows)
    return rows[rng.choice(len(rows), m, p=rng.dirichlet(np.ones(len(rows))))]


def _two_values(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Every column has two values, drawn independently."""
    return np.where(rng.random((m, d)) < rng.random(d), rng.standard_normal(d), rng.standard_normal(d))


def _lognormal(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return np.exp(rng.standard_normal((m, d)) * rng.uniform(0.5, 4))


def _sentinels(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    X = rng.standard_normal((m, d)) + rng.uniform(-3, 3)
    X[rng.random((m, d)) < 10.0 ** rng.uniform(-4, -1)] = rng.choice([-9999.0, -999.0, 1e6, 99.0])
    return X


def _constant_columns(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    X = rng.standard_normal((m, d)) + 5
    X[:, rng.random(d) < rng.random()] = rng.choice([3.7, 0.0, 1e6, -0.1])
    return X


def _duplicates(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Columns that repeat, up to sign or a factor."""
    few = rng.standard_normal((m, max(1, d // 8))) + rng.choice([0.0, 10.0])
    factors = rng.choice([-1.0, 1.0], d) if rng.random() < 0.5 else rng.uniform(0.1, 3.0, d)
    return few[:, rng.integers(0, few.shape[1], d)] * factors


def _one_hot(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    X = np.zeros((m, d))
    X[np.arange(m), rng.choice(d, m, p=rng.dirichlet(np.ones(d)))] = rng.choice([1.0, 0.1, 0.3])
    return X


def _integers(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.poisson(rng.random(d) * 10.0 ** rng.uniform(-1, 3), (m, d)).astype(float)


def _grades(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Few levels that are no dyadic fractions, as of pixels over 255 or marks in tenths."""
    return rng.integers(0, rng.integers(2, 12), (m, d)) / rng.choice([10.0, 255.0, 3.0])


def _far_mean(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.standard_normal((m, d)) * np.linspace(0.1, 3, d) + 10.0 ** rng.uniform(1, 5)


def _graded_columns(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    return rng.standard_normal((m, d)) * 10.0 ** -np.linspace(0, rng.uniform(1, 9), d)


def _rank_deficient(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    r = rng.integers(1, max(2, min(m, d) // 2))
    return rng.standard_normal((m, r)) @ rng.standard_normal((r, d))


def _sorted_rows(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """A drift along the rows that outweighs the noise."""
    return np.linspace(0, 10.0 ** rng.uniform(0, 4), m)[:, None] * rng.standard_normal(d) + rng.standard_normal((m, d))


def _same_length(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """A dominant score of constant magnitude in a dense direction: all squares of a column are nearly equal."""
    return np.outer(rng.choice([-1.0, 1.0], m), rng.uniform(0.5, 2.0, d)) * 10.0 ** rng.uniform(
        0, 6
    ) + rng.standard_normal((m, d))


def _sparse(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    X = rng.standard_normal((m, d)) * (rng.random((m, d)) < rng.choice([0.02, 0.1, 0.3]))
    if rng.random() < 0.3:
        X[X != 0] = rng.choice([1.0, 0.1, 0.7])
    return X


def _sparse_far_column(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """A dense column far from zero among sparse ones."""
    X = _sparse(rng, m, d) * 10.0 ** rng.uniform(-3, 0)
    X[:, rng.integers(d)] = 3.0 + 10.0 ** rng.uniform(-2.5, 0) * rng.standard_normal(m)
    return X


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    function.__name__[1:]: function
    for function in (
        _gaussian, _correlated, _decaying, _shifted, _uniform, _outlier_rows, _alternating, _few_rows, _two_values,
        _lognormal, _sentinels, _constant_columns, _duplicates, _one_hot, _integers, _grades, _far_mean,
        _graded_columns, _rank_deficient, _sorted_rows, _same_length, _sparse, _sparse_far_column,
    )
}  # fmt: skip


def mixture(rng: np.random.Generator, m: int, d: int) -> np.ndarray:
    """Columns of one kind beside those of another, or rows of one below those of another, of any relative size."""
    first, second = rng.choice(list(KINDS), 2, replace=False)
    factor = 10.0 ** rng.uniform(-4, 4) if rng.random() < 0.5 else 1.0
    if d > 1 and rng.random() < 0.6:
        left = int(rng.integers(1, d))
        return np.hstack([KINDS[first](rng, m, left), factor * KINDS[second](rng, m, d - left)])
    if m < 2:
        return KINDS[first](rng, m, d)
    top = int(rng.integers(1, m))
    X = np.vstack([KINDS[first](rng, top, d), factor * KINDS[second](rng, m - top, d)])
    return X[rng.permutation(m)] if rng.random() < 0.5 else X


def weights(rng: np.random.Generator, m: int) -> np.ndarray:
    """Sample weights: whole numbers with zeros, heavy tails, or a few rows that outweigh all others."""
    kind = rng.integers(3)
    if kind == 0:
        w = rng.integers(0, 5, m).astype(float)
    elif kind == 1:
        w = np.exp(rng.standard_normal(m) * rng.uniform(0.1, 5))
    else:
        w = np.ones(m)
        w[rng.integers(0, m, rng.integers(1, 4))] = 10.0 ** rng.uniform(1, 8)
    w[rng.integers(0, m, 2)] = 3.0  # some weight there must be
    return w


def true_residuals(
    X: np.ndarray,
    values: np.ndarray,
    vectors: np.ndarray,
    eps: float,
    *,
    sample_weight: np.ndarray | None = None,
    center: bool = True,
    standardize: bool = False,
    exact: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """|S u_i - l_i u_i| / max(l_i, eps l_1), and what that may itself be off by: (p,), (p,).

    Products are in float64 or, for float64 data and where `exact`, in `np.longdouble`, which takes ten times as long.

    X : (m, d) in the dtype that was handed in;  values : (p,);  vectors : (d, p);  eps : of the compute dtype.
    A column of equal numbers has deviation 1 where columns are standardized, as the library has it.
    """
    work = np.longdouble if exact or eps < 1e-10 else np.float64
    rows = X.astype(work)
    w = np.ones(len(rows), work) if sample_weight is None else np.asarray(sample_weight).astype(work)
    total = w.sum()
    if center or standardize:
        origin = rows[np.argmax(w)]  # first, so that no mean is rounded far from zero
        about = rows - origin
        about = about - (w @ about) / total
        about = about - (w @ about) / total
    rows = about if center else rows
    if standardize:
        kept = X[np.asarray(w > 0)]
        constant = (kept == kept[0]).all(axis=0) if center else (kept == 0).all(axis=0)
        squares = np.where(constant, 0, w @ rows**2)
        deviation = np.sqrt(squares / (total - 1))
        rows = np.where(squares > 0, rows, 0) / np.where(squares > 0, deviation, 1)
    u, l = vectors.astype(work), np.asarray(values).astype(work)
    images = (rows * w[:, None]).T @ (rows @ u)
    norms = np.sqrt(((images - u * l) ** 2).sum(axis=0))
    scale = np.maximum(l, work(eps) * l.max(initial=0))
    ratio = np.divide(norms, scale, out=np.where(norms > 0, work(np.inf), work(0)), where=scale > 0)
    own = np.finfo(work).eps * (8 + max(X.shape) / 2) * l.max(initial=0)  # of equal rows errors add up here too
    return ratio.astype(float), np.divide(own, scale, out=np.zeros_like(scale), where=scale > 0).astype(float)
