"""The default tol can be reached: no warning for ordinary data, and one where a component has not converged."""

from __future__ import annotations

import functools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

import lae_fast
from lae_fast import PCA
from lae_fast.eigen.eigenpairs import ScaledEigenpairs, finish
from lae_fast.eigen.request import Request
from lae_fast.errors import ConvergenceWarning

_SHAPES = ((300, 80), (80, 300), (500, 40), (150, 150))


def _whole(values):
    return np.rint(values).astype(np.int64)


_KINDS = {
    "normal": lambda rng, X: X,
    "mean": lambda rng, X: X + 1e3 * rng.normal(size=X.shape[1]),
    "far from zero": lambda rng, X: X + 1e6,
    "coherent": lambda rng, X: X + 30 * rng.normal(size=(len(X), 1)) * np.abs(rng.normal(size=X.shape[1])),
    "whole": lambda rng, X: _whole(40 * X + 100),
    "counts": lambda rng, X: rng.poisson(3, size=X.shape),
    "whole and coherent": lambda rng, X: _whole(
        rng.integers(0, 1000, (len(X), 1)) * rng.integers(1, 50, X.shape[1]) + 2 * X
    ),
    "sparse": lambda rng, X: scipy.sparse.csr_array(X * (rng.random(X.shape) < 0.05)),
}


@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("kind", _KINDS)
def test_ordinary_data_need_no_warning(kind, solver):
    rng = np.random.default_rng(len(kind))
    for k in range(20):
        m, d = _SHAPES[k % 4]
        X = _KINDS[kind](rng, rng.normal(size=(m, d)))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            assert PCA(5, svd_solver=solver, standardize=k % 3 == 0).fit(X).converged_.all()


def test_long_coherent_columns_need_no_warning():
    """Where the floor of 8 eps is below the rounding of the measurement."""
    for seed in (1, 17):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(2500, 1000)) + 30 * rng.normal(size=(2500, 1)) * np.abs(rng.normal(size=1000))
        X += 20 * rng.normal(size=(2500, 1)) * rng.uniform(0, 1, 1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            PCA(5).fit(X)


@pytest.mark.parametrize("tol", [0.0, 1e-9])
def test_too_few_products_are_still_told(tol, monkeypatch):
    """The allowance excuses rounding, and nothing that is larger."""
    monkeypatch.setattr("lae_fast.eigen.krylov_route._MOST_PRODUCTS", 4)
    X = np.random.default_rng(0).normal(size=(400, 300))
    with pytest.warns(ConvergenceWarning, match="above the tolerance"):
        pairs = lae_fast.top_eigenpairs(X, 5, solver="krylov", tol=tol)
    assert not pairs.converged.any()


@pytest.mark.parametrize("allowance", [0.0, 1e-14, 1e-6])
def test_the_rule(allowance):
    """Measured within max(tol l_i, 8 eps l_1 + allowance): a tol above the floor is not softened."""
    values, eps = np.array([1.0, 1e-3]), float(np.finfo(float).eps)
    for tol in (0.0, 1e-12, 1e-4):
        floor = 8 * eps + allowance
        bound = np.maximum(tol * values, floor)
        for share, expected in ((0.99, True), (1.01, False)):
            found = ScaledEigenpairs(
                values, np.eye(3)[:, :2], share * bound, np.full(2, allowance), 1.0, 1.0, 1, "gram", "", 0
            )
            tolerances = functools.partial(Request.tolerances, SimpleNamespace(tol=tol))
            assert (finish(found, tolerances, np.dtype(float)).converged == expected).all()
