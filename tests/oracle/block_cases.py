"""Rows for the tests of row blocks, and how they are cut into blocks."""

import numpy as np


def data(dtype="float64", m=1500, d=9, mean=3.0, seed=0):
    """Variances of very different sizes about a mean, in numbers that the dtype can hold."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, d)) * 0.7 ** np.arange(d) + mean
    if np.dtype(dtype) == bool:
        return X > mean
    return np.clip(np.round(8 * X), 0, 120).astype(dtype) if np.dtype(dtype).kind in "iu" else X.astype(dtype)


def cut(X, height):
    return [X[first : first + height] for first in range(0, X.shape[0], height)]
