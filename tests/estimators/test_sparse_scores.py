"""Scores of sparse rows: a column far from zero costs no digits, whatever it is stored in, and whoever asks."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast.data import sources
from lae_fast.operators import projection
from tests.oracle.tolerances import eps


def exact_scores(X, mean, loadings):
    """Centred before they are multiplied, in long double."""
    return (X.astype(np.longdouble) - mean.astype(np.longdouble)) @ loadings.T.astype(np.longdouble)


@given(
    dtype=st.sampled_from(["float32", "float64"]),
    size=st.floats(0, 1),
    n_far=st.integers(0, 3),
    gaps=st.sampled_from([0, 1, 5]),
    batch=st.sampled_from([300, 40, 1]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40)
def test_far_columns_cost_no_digits(dtype, size, n_far, gaps, batch, seed):
    """Means of up to 1 / (16 eps) deviations; some rows do not store the far columns; batches of any height."""
    rng = np.random.default_rng(seed)
    m, d = 300, 60
    X = rng.standard_normal((m, d)) * (rng.random((m, d)) < 0.05)
    far = rng.choice(d, n_far, replace=False)
    X[:, far] = rng.standard_normal((m, n_far)) + (0.0625 / eps(dtype)) ** size * rng.choice([-1, 1], n_far)
    X = X.astype(dtype)
    mean = X.mean(axis=0, dtype=np.longdouble).astype(np.float64)
    for column in far:
        X[rng.choice(m, gaps, replace=False), column] = 0.0
    loadings = np.linalg.qr(rng.standard_normal((d, 3)))[0].T
    loadings = loadings.astype(dtype).astype(np.float64)
    out = np.concatenate(
        [
            projection.scores(sources.as_source(scipy.sparse.csr_matrix(X[k : k + batch])), mean, loadings, None)
            for k in range(0, m, batch)
        ]
    )
    expected = exact_scores(X, mean, loadings)
    # a row that does not store a far column has a score of the size of its mean, and the rounding of that
    sizes = np.abs(X.astype(np.float64) - mean) @ np.abs(loadings).T
    assert out.dtype == dtype
    assert (np.abs(out - expected) <= 4 * eps(dtype) * (sizes + 1.0)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: lf.PCA(3),
        lambda: lf.PCA(3, whiten=True),
        lambda: lf.PCA(3, standardize=True),
        lambda: lf.IncrementalPCA(3),
        lambda: lf.LinearAutoencoder(3, max_iter=3, optimizer="sgd"),
    ],
)
def test_every_estimator(make, dtype):
    """Sparse rows have the scores of the same rows made dense, to the rounding of their deviation."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 50)) * (rng.random((400, 50)) < 0.05)
    X[:, 7] = (1e6 if dtype == "float32" else 1e12) + 3 * rng.standard_normal(400)
    X = X.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three steps of training do not converge
        model = make().fit(X)
    sparse, dense = model.transform(scipy.sparse.csr_matrix(X)), model.transform(X)
    # the mean itself is stored to an eps of its size in float64, which both share
    assert (np.abs(sparse - dense) <= 32 * eps(dtype) * np.abs(dense).max(axis=0)).all()
    one = model.transform(scipy.sparse.csr_matrix(X[5:6]))
    assert (np.abs(one - dense[5]) <= 32 * eps(dtype) * np.abs(dense).max(axis=0)).all()


def test_handed_on_in_parts(monkeypatch):
    monkeypatch.setattr(projection, "_ROWS_HANDED", 7)
    rng = np.random.default_rng(1)
    X = rng.standard_normal((50, 40)) * (rng.random((50, 40)) < 0.1)
    X[:, 3] += 1e8
    parts = []
    U = np.linalg.qr(rng.standard_normal((40, 2)))[0].T
    source = sources.as_source(scipy.sparse.csr_matrix(X))
    projection.scores(source, X.mean(axis=0), U, lambda rows: parts.append(rows.copy()))
    expected = exact_scores(X, X.mean(axis=0), U).astype(float)
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-13)
