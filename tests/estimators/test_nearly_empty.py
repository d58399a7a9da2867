"""Sparse matrices most of whose rows and columns are empty: time and memory go with the stored entries.

Nothing is timed: a row that is made dense fails the test at once.
"""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.data import sources


@pytest.fixture
def never_dense(monkeypatch):
    def block(self, first, last, by_feature):
        raise AssertionError(f"lines {first} to {last} were made dense")

    monkeypatch.setattr(sources.SparseSource, "block", block)


def nearly_empty(m, d, features, *, stored=4000, dtype=np.float64, container=scipy.sparse.csr_array, seed=0):
    """(m, d) with entries in `features` of the columns, each about 1 and a few ten times as large."""
    rng = np.random.default_rng(seed)
    used = np.sort(rng.choice(d, features, replace=False))
    rows, columns = rng.integers(0, m, stored), used[rng.integers(0, features, stored)]
    values = rng.standard_normal(stored) * (1 + 9 * (columns % 7 == 0))
    return container(scipy.sparse.coo_array((values.astype(dtype), (rows, columns)), shape=(m, d)))


def truth(X, p, center=True):
    dense = X.toarray().astype(np.float64)
    dense -= dense.mean(axis=0) * center
    _, s, axes = np.linalg.svd(dense, full_matrices=False)
    return s[:p] ** 2, axes[:p]


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("solver", ["auto", "gram", "krylov"])
@pytest.mark.parametrize("shape", [(700, 500), (80, 600)])
@pytest.mark.parametrize("center", [True, False])
def test_empty_features_change_nothing(shape, solver, container, center):
    X = nearly_empty(*shape, 40, container=container, stored=900)
    pairs = lf.top_eigenpairs(X, 3, solver=solver, center=center)
    values, axes = truth(X, 3, center)
    assert "460 of 500 features are empty" in pairs.reason or "560 of 600 features are empty" in pairs.reason
    np.testing.assert_allclose(pairs.values, values, rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.einsum("ji,ij->i", pairs.vectors, axes)), 1.0, rtol=1e-12)
    assert pairs.vectors.shape == (shape[1], 3) and (pairs.residuals < 1e-12).all()


@pytest.mark.parametrize("options", [{"standardize": True}, {"sample_weight": np.arange(700) % 3}, {}])
def test_estimators_see_all_features(options):
    X = nearly_empty(700, 500, 40)
    weights = options.pop("sample_weight", None)
    ours, dense = (lf.PCA(3, **options).fit(data, sample_weight=weights) for data in (X, X.toarray()))
    assert "empty" in ours.route_reason_ and ours.components_.shape == (3, 500)
    np.testing.assert_allclose(ours.explained_variance_, dense.explained_variance_, rtol=1e-11)
    np.testing.assert_allclose(ours.explained_variance_ratio_, dense.explained_variance_ratio_, rtol=1e-11)
    np.testing.assert_allclose(ours.mean_, dense.mean_, atol=1e-14)
    np.testing.assert_allclose(ours.transform(X), dense.transform(X), atol=1e-8)


def test_more_components_than_used_features_take_all_of_them():
    X = nearly_empty(60, 50, 10)
    pca = lf.PCA(12).fit(X)
    assert pca.n_components_ == 12 and "empty" not in pca.route_reason_
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(12), atol=1e-12)
    assert lf.PCA().fit(X).n_components_ == 50


def test_an_error_names_the_column_of_the_whole_matrix(never_dense):
    X = nearly_empty(700, 500, 40)
    row, place = 17, X.indptr[17]
    X.data[place] = np.nan
    with pytest.raises(ValueError, match=rf"{row}\b.*\b{X.indices[place]}\b"):
        lf.PCA(3).fit(X)


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_the_first_nan_by_rows_is_named(container, never_dense):
    X = nearly_empty(90, 50, 40, container=container)
    X.data[[5, 100, 300]] = np.inf
    dense = X.toarray()
    row, column = np.argwhere(~np.isfinite(dense))[0]
    assert sources.as_source(X).first_nonfinite() == (row, column, np.inf)


@pytest.mark.needs_jit
@pytest.mark.parametrize("shape", [(2**16, 2**16), (2000, 2**19), (2**19, 2000)], ids=["square", "wide", "tall"])
def test_no_row_of_a_huge_matrix_is_made_dense(shape, never_dense):
    X = nearly_empty(*shape, 1500, stored=5000)
    svd, pca = lf.TruncatedSVD(2, tol=1e-6).fit(X), lf.PCA(2, tol=1e-6).fit(X)
    scores = svd.transform(X)
    np.testing.assert_allclose(svd.explained_variance_, scores.var(axis=0), rtol=1e-8)
    total = (X.multiply(X).mean(axis=0) - X.mean(axis=0) ** 2).sum()
    np.testing.assert_allclose(svd.explained_variance_ratio_, svd.explained_variance_ / total, rtol=1e-8)
    np.testing.assert_allclose(pca.explained_variance_, pca.transform(X).var(axis=0, ddof=1), rtol=1e-8)


@pytest.mark.needs_jit
def test_a_wide_matrix_with_an_entry_in_most_columns_goes_by_its_samples(never_dense):
    """Vectors as long as the features would cost more than all products with the few entries of each."""
    X = nearly_empty(300, 2**17, 2**17, stored=400_000)
    pca = lf.PCA(2, tol=1e-6).fit(X)
    assert pca.solver_ == "gram" or "n_samples" in pca.route_reason_
    np.testing.assert_allclose(pca.explained_variance_, pca.transform(X).var(axis=0, ddof=1), rtol=1e-8)
