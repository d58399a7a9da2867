"""Small matrices for the CUDA simulator, and what eigenpairs of them must satisfy."""

import numpy as np

from tests.oracle import naive
from tests.oracle.tolerances import tolerance

TALL, WIDE = (37, 6), (6, 37)


def data(shape=TALL, dtype=np.float32, mean=50.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape) * np.linspace(3, 1, shape[1]) + mean
    if np.dtype(dtype).kind in "iu":
        return np.clip(np.round(X), 0, 120).astype(dtype)
    return X.astype(dtype)


def spectrum(X, p, center=True, weights=None):
    _, mean, scatter = naive.moments(X, weights, center)
    values, vectors = naive.leading_eigenpairs(scatter, p)
    return mean, values, vectors


def assert_pairs(pairs, X, center=True, weights=None, dtype=np.float32):
    p = pairs.values.size
    _, values, _vectors = spectrum(X, p, center, weights)
    assert np.abs(pairs.values - values).max() <= tolerance("eigenvalue", dtype) * values[0]
    assert (pairs.residuals * values <= 200 * np.finfo(dtype).eps * values[0]).all() and pairs.converged.all()
    images = naive.apply_scatter(X, pairs.vectors, weights, center)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, np.finfo(dtype).eps)
    assert (true <= pairs.residuals + 1e-15).all()  # the certificate is an upper bound
    assert pairs.backend == "cuda"
