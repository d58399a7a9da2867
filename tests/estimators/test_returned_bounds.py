"""residuals_ of estimators bound what they return: values rounded to the dtype, sums of the roughest dtype."""

import numpy as np
import pytest

import lae_fast as lf
from tests.oracle import spectra


@pytest.mark.parametrize("standardize", [False, True])
def test_moments_of_two_dtypes_are_as_exact_as_the_rougher_one(standardize):
    rng = np.random.default_rng(0)
    single, double = (rng.standard_normal((500, 60)) / 3).astype(np.float32), rng.standard_normal((500, 60)) / 3
    X = np.concatenate([single.astype(np.float64), double])
    gather = lf.Moments.from_data
    found = [
        lf.PCA.from_moments(gather(single) + gather(double), 3, standardize=standardize),
        lf.PCA.from_moments(gather(double) + gather(single), 3, standardize=standardize),
        lf.PCA(3, standardize=standardize).partial_fit(single).partial_fit(double),
        lf.IncrementalPCA(3).partial_fit(double).merge(lf.IncrementalPCA(3).partial_fit(single)),
    ]
    for pca in found:
        scaled = standardize and isinstance(pca, lf.PCA) and not isinstance(pca, lf.IncrementalPCA)
        true = spectra.residuals(X, pca.explained_variance_ * 999.0, pca.components_.T, 2e-16, standardize=scaled)
        assert (true <= pca.residuals_).all()
        assert (pca.residuals_ < 1e-4).all()


def test_moments_of_two_dtypes_keep_their_bound_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    both = lf.Moments.from_data(rng.standard_normal((500, 60)).astype(np.float32))
    both.update(rng.standard_normal((500, 60)))
    both.save(tmp_path / "m.npz")
    loaded = lf.Moments.load(tmp_path / "m.npz")
    a, b = lf.PCA.from_moments(both, 3), lf.PCA.from_moments(loaded, 3)
    np.testing.assert_array_equal(a.residuals_, b.residuals_)
    assert a.residuals_.min() > 1e-9


@pytest.mark.parametrize("d", [2, 5, 40])
def test_values_rounded_to_float32_are_bounded(d):
    for seed in range(20):
        X = np.random.default_rng(seed).standard_normal((200, d)).astype(np.float32)
        pca = lf.PCA(2).fit(X)
        assert pca.explained_variance_.dtype == np.float32
        values = pca.explained_variance_.astype(np.float64) * 199.0
        assert (spectra.residuals(X, values, pca.components_.T, 1.2e-7) <= pca.residuals_).all()
        svd = lf.TruncatedSVD(2).fit(X) if d > 2 else lf.TruncatedSVD(1).fit(X)
        squares = svd.singular_values_.astype(np.longdouble) ** 2
        rows, axes = X.astype(np.longdouble), svd.components_.T.astype(np.longdouble)
        off = np.sqrt(((rows.T @ (rows @ axes) - axes * squares) ** 2).sum(axis=0)) / squares
        assert (off.astype(np.float64) <= svd.residuals_).all()
