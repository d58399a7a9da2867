"""Small data go the common way with little around the arithmetic: guards without a clock.

What is counted are teams of threads, sources, eigenproblems and Python calls.  The bound on calls leaves room for some
dozens more; a fit of 200 x 16 made 1800 before this was looked at.
"""

import collections
import sys

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.backends import threads
from lae_fast.data import sources
from lae_fast.eigen import dense

SHAPES = [(50, 5), (200, 16), (1797, 64)]
# Python functions that are entered, with those of scikit-learn's wrapper around `transform`.
MOST_CALLS = {"fit": 750, "transform": 200}


def data(m, d):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((m, d)) * np.linspace(3, 0.5, d) + 5).astype(np.float32)


def calls(work):
    """How many Python functions `work` enters, once everything that is remembered has been asked."""
    counted = collections.Counter()

    def count(frame, event, argument):
        counted[event] += 1

    work()
    work()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counted["call"]


@pytest.mark.needs_jit
@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_a_small_fit_makes_few_calls(m, d):
    X = data(m, d)
    pca = lf.PCA(min(10, d))
    assert 100 < calls(lambda: pca.fit(X)) <= MOST_CALLS["fit"]
    assert 50 < calls(lambda: pca.transform(X)) <= MOST_CALLS["transform"]


@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_one_tile_needs_no_team_one_source_and_one_eigenproblem(m, d, monkeypatch):
    X, problems, opened = data(m, d), [], []

    def refused(*arguments, **options):
        raise AssertionError("a fit of one chunk has asked for threads")

    def counting(routine, log):
        return lambda *arguments, **options: log.append(routine) or routine(*arguments, **options)

    lf.set_num_threads(2)
    try:
        pca = lf.PCA(min(10, d)).fit(X)
        monkeypatch.setattr(threads, "ThreadPoolExecutor", refused)
        monkeypatch.setattr(threads, "_Numbers", refused)
        monkeypatch.setattr(sources, "ArraySource", counting(sources.ArraySource, opened))
        for name in ("_all", "largest"):
            monkeypatch.setattr(dense, name, counting(getattr(dense, name), problems))
        again = lf.PCA(min(10, d)).fit(X)
        assert len(opened) == 1 and len(problems) == 1
        again.transform(X)
        assert len(opened) == 2
    finally:
        lf.set_num_threads(None)
    np.testing.assert_array_equal(pca.components_, again.components_)


@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_small_fits_are_accurate_whatever_the_mean(m, d, mean):
    X = (data(m, d) + np.float32(mean)).astype(np.float32)
    pca = lf.PCA(min(10, d)).fit(X)
    truth = np.linalg.eigvalsh(np.cov(X.astype(np.float64).T))[::-1][: pca.n_components_]
    np.testing.assert_allclose(pca.explained_variance_, truth, rtol=1e-5)
    assert pca.converged_.all() and (pca.residuals_ < 1e-4).all()
    exact = (X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)) @ pca.components_.T.astype(np.float64)
    np.testing.assert_allclose(pca.transform(X), exact, atol=2e-5 * np.abs(exact).max())


def test_the_width_is_compared_without_names():
    pca = lf.PCA(2).fit(data(50, 5))
    assert pca.n_features_in_ == 5
    with pytest.raises(ValueError, match="X has 4 features, but PCA is expecting 5 features"):
        pca.transform(data(50, 4))
    assert pca.fit(data(50, 4)).n_features_in_ == 4
