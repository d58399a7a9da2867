"""Matrices of known eigenpairs, and what found ones must satisfy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracle import naive
from tests.oracle.tolerances import tolerance

REAL = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
SOLVERS = pytest.mark.parametrize("solver", ["gram", "krylov"])
SIDES = pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])


def orthonormal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((m, n)))[0]


def with_singular_values(rng, m, d, singular, dtype=np.float64):
    """X = U diag(s) V' and V, with the rows of X summing to zero, so that centring changes nothing."""
    k = len(singular)
    U = rng.standard_normal((m, k))
    U = np.linalg.qr(U - U.mean(axis=0))[0]
    V = orthonormal(rng, d, k)
    return (U * singular @ V.T).astype(dtype), V


def truth(X, weights=None, center=True, standardize=False):
    """All eigenpairs with a nonzero value, by an SVD in float64."""
    X = np.asarray(X, dtype=np.float64)
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if center:
        X = X - (w @ X) / w.sum()
    if standardize:
        squares = w @ X**2
        X = X / np.where(squares > 0, np.sqrt(squares / (w.sum() - 1)), 1.0)
    _, s, Vt = np.linalg.svd(np.sqrt(w)[:, None] * X, full_matrices=False)
    return s**2, Vt.T


def assert_pairs(pairs, X, p, dtype, **known):
    """Values, orthonormality, the subspace, order, signs, and convergence of what was found."""
    values, vectors = truth(X, **known)
    assert pairs.values.shape == (p,) and pairs.values.dtype == np.float64
    assert pairs.vectors.shape == (X.shape[1], p) and pairs.vectors.dtype == dtype
    assert pairs.vectors.flags.c_contiguous
    np.testing.assert_allclose(pairs.values, values[:p], rtol=0, atol=tolerance("eigenvalue", dtype) * values[0])
    assert (np.diff(pairs.values) <= 0).all()
    gram = pairs.vectors.astype(float).T @ pairs.vectors
    np.testing.assert_allclose(gram, np.eye(p), rtol=0, atol=tolerance("orthonormality", dtype))
    largest = np.abs(pairs.vectors).argmax(axis=0)
    assert (pairs.vectors[largest, np.arange(p)] > 0).all()
    assert pairs.converged.all()
    gap = values[p - 1] - (values[p] if p < len(values) else 0.0)
    if gap > 1e-3 * values[0]:
        distance = naive.projector_distance(pairs.vectors, vectors[:, :p])
        assert distance <= tolerance("subspace", dtype) * values[0] / gap
