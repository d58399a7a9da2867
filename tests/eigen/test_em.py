"""PCA(missing="em") against a dense oracle that conditions the full Gaussian, row by row."""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, cross_val_score

import lae_fast as lf
from lae_fast import errors
from lae_fast.eigen import em as missing
from tests.oracle import naive


def data(m=80, d=7, p=2, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, p)) @ rng.standard_normal((p, d)) * 2 + 0.3 * rng.standard_normal((m, d)) + 5
    holes = X.copy()
    holes[rng.random((m, d)) < share] = np.nan
    return X, holes


def test_against_the_oracle():
    _, X = data()
    pca = lf.PCA(2, missing="em").fit(X)
    mean, covariance, history = naive.em_missing(X, 2, pca.log_likelihood_.size)
    np.testing.assert_allclose(pca.log_likelihood_, history, rtol=1e-9)
    np.testing.assert_allclose(pca.mean_, mean, rtol=1e-8)
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(pca.explained_variance_, values[:2] * 80 / 79, rtol=1e-8)
    np.testing.assert_allclose(pca.explained_variance_ratio_, values[:2] / values.sum(), rtol=1e-8)
    np.testing.assert_allclose(pca.noise_variance_, values[2:].mean() * 80 / 79, rtol=1e-6)
    assert pca.solver_ == "em" and pca.converged_.all() and np.isnan(pca.residuals_).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_likelihood_never_falls(seed):
    _, X = data(share=0.4, seed=seed)
    X[3] = np.nan  # a row of which nothing is known says nothing
    assert (np.diff(lf.PCA(2, missing="em").fit(X).log_likelihood_) >= -1e-12).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nothing_missing_is_pca(dtype):
    X = data()[0].astype(dtype)
    em, exact = lf.PCA(2, missing="em").fit(X), lf.PCA(2).fit(X)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(em.components_, exact.components_, atol=tolerance)
    np.testing.assert_allclose(em.explained_variance_, exact.explained_variance_, rtol=tolerance)
    assert em.components_.dtype == dtype
    np.testing.assert_allclose(em.transform(X), exact.transform(X), atol=20 * tolerance)


def test_weights_count_rows():
    _, X = data()
    weights = np.random.default_rng(1).integers(0, 3, len(X))
    weighted = lf.PCA(2, missing="em").fit(X, sample_weight=weights)
    repeated = lf.PCA(2, missing="em").fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.explained_variance_, repeated.explained_variance_, rtol=1e-6)


def test_transform_fills_by_the_model():
    full, X = data(m=400, share=0.15)
    pca = lf.PCA(2, missing="em").fit(X)
    scores, there = pca.transform(X), pca.transform(full)
    assert np.isfinite(scores).all()
    assert np.abs(scores - there).mean() < 0.1 * np.abs(there).mean()
    restored = pca.inverse_transform(scores)
    holes = np.isnan(X)
    # the noise alone, which nothing can restore, is 0.16 of it
    assert np.abs(restored - full)[holes].mean() < 0.3 * np.abs(full - np.nanmean(X, axis=0))[holes].mean()


def test_the_default_names_the_first_nan():
    _, X = data(share=0.0)
    X[4, 2] = X[9, 0] = np.nan
    with pytest.raises(ValueError, match="row 4, column 2"):
        lf.PCA(2).fit(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 7}, "between 1 and"),
        ({"n_components": 0.5}, "n_components"),
        ({"n_components": 2, "standardize": True}, "standardize"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        lf.PCA(missing="em", **parameters).fit(data()[1])


def test_bad_data():
    _, X = data()
    with pytest.raises(ValueError, match="use fit"):
        lf.PCA(2, missing="em").partial_fit(X)
    X[:, 3] = np.nan
    with pytest.raises(ValueError, match="Column 3"):
        lf.PCA(2, missing="em").fit(X)
    X[5, 3] = np.inf
    with pytest.raises(ValueError, match="row 5, column 3"):
        lf.PCA(2, missing="em").fit(X)


@given(
    seed=st.integers(0, 2**16),
    m=st.integers(8, 40),
    d=st.integers(3, 8),
    spare=st.integers(1, 3),
    share=st.floats(0, 0.5),
    orders=st.floats(-6, 0),
    far=st.sampled_from([0.0, 1e4]),
)
@settings(max_examples=25, deadline=None)
def test_the_likelihood_never_falls_beyond_rounding(seed, m, d, spare, share, orders, far):
    """With p near d and few rows the noise goes to its least, and M is nearly singular."""
    rng = np.random.default_rng(seed)
    p = max(1, d - spare)
    X = rng.standard_normal((m, p)) @ rng.standard_normal((p, d)) * 2 + 10**orders * rng.standard_normal((m, d)) + far
    X[rng.random((m, d)) < share] = np.nan
    X[:2] = rng.standard_normal((2, d)) + far
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = lf.PCA(p, missing="em", tol=1e-5).fit(X)
    gains = np.diff(model.log_likelihood_)
    assert (gains >= -1e-7).all()
    assert not any("fall" in str(one.message) for one in caught)
    if model.converged_.all():
        assert gains[-1] <= 1e-5 * max(1.0, abs(model.log_likelihood_[-1]))


@pytest.mark.parametrize("fall", [1e-3, 1e-6])
def test_a_fall_is_no_convergence(fall, monkeypatch):
    """The best model is kept, and a warning says what happened."""
    _, X = data()
    real, seen = missing._expected_moments, []

    def worse(source, w, model):
        likelihood, *moments = real(source, w, model)
        seen.append((likelihood, model))
        return likelihood - (fall + 1.0 if len(seen) == 6 else 0.0), *moments

    monkeypatch.setattr(missing, "_expected_moments", worse)
    with pytest.warns(errors.ConvergenceWarning, match="stopped after 5 iterations.*fall"):
        model = lf.PCA(2, missing="em").fit(X)
    assert not model.converged_.any()
    np.testing.assert_array_equal(model.log_likelihood_, [likelihood for likelihood, _ in seen[:5]])
    unbiased = np.sqrt(len(X) / (len(X) - 1))
    np.testing.assert_array_equal(model._missing_model[1], seen[4][1].loadings * unbiased)


def test_features_that_say_nothing():
    _, X = data()
    once = X.copy()
    once[1:, 4] = np.nan
    once[0, 4] = 1.0
    with pytest.raises(ValueError, match="Column 4 of X has one observed entry"):
        lf.PCA(2, missing="em").fit(once)
    weights = np.ones(len(X))
    weights[1:] = 0.0
    weights[5] = 2.0
    both = X.copy()
    both[5, 2] = np.nan
    both[0] = 1.0
    with pytest.raises(ValueError, match="of X has one observed entry"):
        lf.PCA(1, missing="em").fit(both, sample_weight=weights)
    constant = np.where(np.isnan(X), np.nan, np.arange(7.0))
    with pytest.raises(ValueError, match="no variance"):
        lf.PCA(2, missing="em").fit(constant)
    constant[:, 1:] = X[:, 1:]  # one constant feature among others is no fault
    model = lf.PCA(2, missing="em").fit(constant)
    np.testing.assert_allclose(model.components_[:, 0], 0.0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-160, 1e160])
def test_squares_out_of_range(size):
    with pytest.raises(ValueError, match="of X are"):
        lf.PCA(2, missing="em").fit(data()[1] * size)


@pytest.mark.parametrize("size", [1e-60, 1e60])
def test_other_units(size):
    X = data()[1]
    here, there = lf.PCA(2, missing="em").fit(X), lf.PCA(2, missing="em").fit(X * size)
    np.testing.assert_allclose(there.components_, here.components_, atol=1e-4)
    np.testing.assert_allclose(there.explained_variance_ / size**2, here.explained_variance_, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(60, 7), (6, 9)])
def test_score_is_the_density_of_the_observed_entries(shape, dtype):
    """The marginal density of N(mean_, get_covariance()), whichever entries are there; none say nothing."""
    _, X = data(*shape)
    X = X.astype(dtype)
    X[:2] = np.random.default_rng(5).normal(size=(2, shape[1]))
    pca = lf.PCA(2, missing="em").fit(X)
    X[1] = np.nan
    covariance, expected = pca.get_covariance(), np.zeros(len(X))
    for row, values in enumerate(X):
        seen = ~np.isnan(values)
        if seen.any():
            normal = scipy.stats.multivariate_normal(pca._exact_mean[seen], covariance[np.ix_(seen, seen)])
            expected[row] = normal.logpdf(values[seen])
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(pca.score_samples(X), expected, rtol=tolerance, atol=tolerance)
    assert pca.score(X) == pytest.approx(expected.mean(), rel=tolerance)
    X[3, 1] = -np.inf
    with pytest.raises(ValueError, match=r"row 3, column 1.*inf as an error"):
        pca.score_samples(X)


def test_score_of_complete_rows_is_that_of_pca():
    full, _ = data(m=80, share=0.0)
    assert lf.PCA(2, missing="em").fit(full).score(full) == pytest.approx(lf.PCA(2).fit(full).score(full), rel=1e-6)


def test_score_of_the_rows_that_were_fitted_is_the_last_likelihood():
    _, X = data(m=5000)
    pca = lf.PCA(2, missing="em").fit(X)
    assert pca.score(X) == pytest.approx(pca.log_likelihood_[-1], rel=1e-6)


def test_cross_validation_with_missing_entries():
    _, X = data(m=90)
    scores = cross_val_score(lf.PCA(2, missing="em"), X, cv=3)
    assert np.isfinite(scores).all()
    search = GridSearchCV(lf.PCA(missing="em"), {"n_components": [1, 2, 3]}, cv=3).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert np.isfinite(search.best_estimator_.inverse_transform(search.transform(X))).all()
    assert np.isfinite(search.score(X))
