"""What operators/rows.py and projection.py add to their kernels: scores, centring outside the pass."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.data import sources
from lae_fast.operators import projection, rows
from tests.oracle import naive
from tests.oracle.tolerances import eps


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_scores(rng, dtype, mean):
    X = (rng.standard_normal((50, 7)) + mean).astype(dtype)
    loadings = rng.standard_normal((3, 7))
    center = X.astype(np.float64).mean(axis=0)
    expected = (X.astype(np.float64) - center) @ loadings.T
    out = np.empty((50, 3), dtype)
    found = projection.scores(sources.as_source(X), center, loadings, out)
    assert found is out
    # an entry is known to eps |x| when it is shifted, and to eps of the score's size afterwards
    slack = 8 * eps(dtype) * (np.abs(X - center) @ np.abs(loadings).T + np.abs(expected)).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=slack)


@pytest.mark.parametrize("wrong", [np.empty((50, 2)), np.empty((50, 3), np.float32), np.empty((50, 6))[:, ::2]])
def test_scores_refuse_another_out(rng, wrong):
    with pytest.raises(ValueError, match=r"out must be a C-ordered array of shape \(50, 3\)"):
        projection.scores(sources.as_source(rng.standard_normal((50, 7))), np.zeros(7), np.eye(3, 7), wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("known", [None, "mean", "roughly"])
def test_a_pass_does_not_depend_on_what_is_known_of_the_mean(rng, dtype, center, weighted, known):
    X = (rng.standard_normal((300, 6)) + 20.0).astype(dtype)
    block = rng.standard_normal((6, 2)).astype(dtype)
    weights = rng.integers(1, 5, 300).astype(float) if weighted else None
    mean = np.average(X.astype(np.float64), axis=0, weights=weights)
    given = {"mean": mean, "roughly": mean + 0.5}.get(known)
    operator = rows.RowsOperator(sources.as_source(X), weights=weights, center=center, location=given)
    image, inner = operator.apply_inner(block)
    exact = naive.apply_scatter(X, block, weights, center=center).astype(np.float64) * operator.scale**2
    largest = np.abs(exact).max()
    np.testing.assert_allclose(image, exact, rtol=0, atol=64 * eps(dtype) * largest)
    np.testing.assert_allclose(inner, block.T @ exact, rtol=0, atol=256 * eps(dtype) * largest)
    np.testing.assert_allclose(operator.location, mean, rtol=4 * eps(dtype))
    np.testing.assert_array_equal(operator.mean, operator.location if center else np.zeros(6))
    diagonal = np.diag(naive.apply_scatter(X, np.eye(6), weights, center=center).astype(np.float64))
    np.testing.assert_allclose(operator.variances, diagonal, rtol=64 * eps(dtype))
