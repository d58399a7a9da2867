"""Squared distances under PCA's model, against the d x d matrix that mahalanobis.py never forms."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import mahalanobis, sources


def model(d, p, *, across=1.0, scaled=False, mean=2.0, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    components = np.linalg.qr(rng.standard_normal((d, p)))[0].T.astype(dtype).astype(np.float64)
    along = across * 10.0 ** -rng.uniform(0, 4, p) if across else rng.uniform(0.1, 2.0, p)
    return mahalanobis.Precision(
        mean * rng.standard_normal(d), components, along, across, rng.uniform(0.5, 2.0, d) if scaled else None
    )


def expected(X, m):
    """x' (U'(a - b)U + b I) x with the projector's own U, in long double."""
    z = (np.asarray(X, dtype=np.longdouble) - m.mean) / (1.0 if m.deviations is None else m.deviations)
    codes = z @ m.components.T
    rest = z - codes @ m.components
    return codes**2 @ m.along + m.across * (rest**2).sum(axis=1)


@pytest.mark.parametrize("across", [0.0, 1.0, 1e8])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("p", [0, 1, 5, 30])
def test_dense_rows(across, scaled, p):
    X = np.random.default_rng(1).standard_normal((1030, 30))
    m = model(30, p, across=across, scaled=scaled)
    found = mahalanobis.squared_distances(sources.as_source(X), m)
    slack = 1e-13 * np.abs(expected(X, m)).max() if p == 30 else 0.0  # all of |z|^2 lies in the components
    np.testing.assert_allclose(found, expected(X, m).astype(float), rtol=1e-10, atol=slack + 1e-20)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_stored_entries(container, dtype, scaled, mean, monkeypatch):
    X = scipy.sparse.random(900, 300, 0.02, random_state=2, dtype=dtype)
    m = model(300, 4, scaled=scaled, mean=mean, dtype=dtype)
    monkeypatch.setattr(sources.SparseSource, "block", None)
    found = mahalanobis.squared_distances(sources.as_source(container(X)), m)
    np.testing.assert_allclose(found, expected(X.toarray(), m).astype(float), rtol=1e-11)


def test_entries_that_cancel_are_made_dense():
    X = scipy.sparse.random(200, 300, 0.02, random_state=2, format="csr")
    m = model(300, 4, across=1e9, mean=1e3)
    found = mahalanobis.squared_distances(sources.as_source(X), m)
    np.testing.assert_allclose(found, expected(X.toarray(), m).astype(float), rtol=1e-12)


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_a_nan_is_named(container):
    X = scipy.sparse.random(1030, 300, 0.02, random_state=2).toarray()
    X[1027, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 1027, column 2"):
        mahalanobis.squared_distances(sources.as_source(container(X)), model(300, 2))


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_the_score_of_a_wide_model_needs_no_square_matrix(container):
    """d = 20 000: one d x d matrix of float64 would take 3.2 GB."""
    X = container(scipy.sparse.random(40, 20_000, 0.01, random_state=3).toarray())
    pca = lf.PCA(3).fit(X)
    tracemalloc.start()
    score = pca.score(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(score) and peak < 64e6, peak


def test_scores_of_float32_components_are_those_of_float64():
    """U of float32 is orthonormal to 1e-7 only, and a row is 1e6 noise deviations long."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((400, 30))
    X[:, 0] *= 1e6
    single, double = lf.PCA(1).fit(X.astype(np.float32)), lf.PCA(1).fit(X.astype(np.float32).astype(np.float64))
    single.noise_variance_ = double.noise_variance_
    a, b = single.score_samples(X.astype(np.float32)), double.score_samples(X.astype(np.float32))
    np.testing.assert_allclose(a, b, atol=0.05 * np.std(b))
