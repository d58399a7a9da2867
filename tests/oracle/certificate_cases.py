"""Data on which certificates are tried, and the check that residuals_ are never below the truth."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import scipy.sparse

from lae_fast import datasets
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from tests.oracle import naive
from tests.oracle.tolerances import eps

M, D = 1500, 32


def gaussian(rng):
    return rng.standard_normal((M, D)) @ rng.standard_normal((D, D)) + 10


def heavy_tails(rng):
    return rng.exponential(1.0, (M, D)) ** 3


def correlated_heavy_tails(rng):
    return rng.exponential(1.0, (M, 8)) ** 3 @ rng.random((8, D))


def constant_columns(rng):
    X = rng.standard_normal((M, D)) + 5
    X[:, ::3] = 3.7
    return X


def one_outlier(rng):
    X = rng.standard_normal((M, D))
    X[700] *= 1e5
    return X


def binary(rng):
    return (rng.random((M, D)) < rng.random(D)).astype(float)


def poisson(rng):
    return rng.poisson(rng.random(D) * 4, (M, D)).astype(float)


def harmonic(rng):
    """Singular values 1 / k."""
    U, V = np.linalg.qr(rng.standard_normal((M, D)))[0], np.linalg.qr(rng.standard_normal((D, D)))[0]
    return U / np.arange(1, D + 1) @ V.T


def nearly_constant(rng):
    """Far from zero against what it varies: uncentred, all entries of S are nearly one number."""
    return rng.standard_normal((M, D)) * 1e-3 + rng.random(D) * 5


def mild_outlier(rng):
    """Large enough to rule the Gram, small enough that what comes after it is rounded."""
    X = rng.standard_normal((M, D))
    X[rng.integers(M)] *= 100
    return X


def far_mean(rng):
    return rng.standard_normal((M, D)) * np.linspace(0.1, 3, D) + 1e4


def rank_one(rng):
    return np.multiply.outer(rng.standard_normal(M), rng.standard_normal(D))


def all_positive(rng):
    """Strongly correlated: every entry of S has one sign."""
    return rng.random((M, 1)) * 10 + rng.random((M, D))


def digits(rng):
    return datasets.load("digits")[:M].astype(float)


def mnist(rng):
    if datasets.local_file("mnist") is None:
        pytest.skip("MNIST is not here: set LAE_FAST_DATA to the directory of mnist.npz")
    return datasets.load("mnist", subset="test")[:M, 400:460].astype(float)


DATA = [
    gaussian, heavy_tails, correlated_heavy_tails, constant_columns, one_outlier, binary, poisson, harmonic, far_mean,
    nearly_constant, mild_outlier, rank_one, all_positive, digits, mnist,
]  # fmt: skip
WHOLE = {binary, poisson, digits, mnist}


@functools.cache
def made(function):
    return function(np.random.default_rng(11))


# Only data of whole numbers are asked for in bytes.
CASES = [
    pytest.param((function, dtype), id=f"{function.__name__}-{dtype.__name__}")
    for function in DATA
    for dtype in (np.float32, np.float64, np.uint8)
    if dtype is not np.uint8 or function in WHOLE
]
CENTER = pytest.mark.parametrize("center", [True, False], ids=["centred", "raw"])


def long_scatter(X, center, dtype=np.longdouble):
    X = X.astype(dtype)
    if center:
        X = X - X.mean(axis=0)
    return X.T @ X


def tall(X):
    return X


def wide(X):
    """Few long lines: a component may sit in one of them, and BLAS sums them in one run."""
    return np.ascontiguousarray(X.T)


def check_residuals(X, p, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an honest bound is asked for, not a small one
        pairs = top_eigenpairs(X, p, **options)
    compute = sources.compute_dtype(X.dtype)
    work = np.float64 if compute == np.float32 else np.longdouble
    known = {name: options[name] for name in ("center", "standardize") if name in options}
    dense = X.toarray() if scipy.sparse.issparse(X) else X
    images = naive.apply_scatter(dense, pairs.vectors, options.get("sample_weight"), dtype=work, **known)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(compute))
    assert np.isfinite(pairs.residuals).all()
    # The first factor is the oracle's own rounding where it runs in float64, the last term that of a perfect pair.
    assert (true <= pairs.residuals + 1e-300).all(), f"worst {np.max(true / np.maximum(pairs.residuals, 1e-300)):.3g}"
    return pairs, true


def repeated_rows(rng, m, d):
    return rng.standard_normal((2, d))[rng.integers(0, 2, m)]
