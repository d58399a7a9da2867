"""TruncatedSVD against LAPACK; scikit-learn's own tests of it run through tests/estimators/sklearn_plugin.py."""

import inspect

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import TruncatedSVD as Peer

import lae_fast as lf


def data(m=90, d=40):
    return scipy.sparse.random(m, d, 0.3, random_state=0, format="csr").toarray() + 0.5


@pytest.mark.parametrize("algorithm", ["auto", "gram", "krylov", "arpack", "randomized"])
@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_against_lapack(algorithm, container):
    X = data()
    svd = lf.TruncatedSVD(4, algorithm=algorithm).fit(container(X))
    _, singular, axes = np.linalg.svd(X)
    np.testing.assert_allclose(svd.singular_values_, singular[:4], rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(svd.components_ * axes[:4], axis=1)), 1.0, rtol=1e-12)
    scores = svd.transform(container(X))
    np.testing.assert_allclose(scores, X @ svd.components_.T, atol=1e-12)
    np.testing.assert_allclose(svd.explained_variance_, scores.var(axis=0), rtol=1e-10)
    np.testing.assert_allclose(svd.explained_variance_ratio_, scores.var(axis=0) / X.var(axis=0).sum(), rtol=1e-10)
    assert (svd.residuals_ < 1e-11).all() and svd.converged_.all()


@pytest.mark.parametrize(("dtype", "computed"), [("float32", "float32"), ("uint8", "float32"), ("int32", "float64")])
def test_dtypes(dtype, computed):
    X = (20 * data()).astype(dtype)
    svd = lf.TruncatedSVD(3).fit(X)
    assert svd.components_.dtype == computed and svd.transform(X).dtype == computed
    expected = np.linalg.svd(X.astype(float))[1][:3]
    np.testing.assert_allclose(svd.singular_values_, expected, rtol=1e-5)
    np.testing.assert_allclose(svd.inverse_transform(svd.transform(X)).shape, X.shape)


def test_a_large_mean_does_not_spoil_the_variances():
    X = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32) + 1000
    svd = lf.TruncatedSVD(2).fit(X)
    expected = (X.astype(float) @ svd.components_.T.astype(float)).var(axis=0)
    np.testing.assert_allclose(svd.explained_variance_, expected, rtol=1e-3)


def test_parameters_and_attributes_of_scikit_learn():
    ours, theirs = inspect.signature(lf.TruncatedSVD).parameters, inspect.signature(Peer).parameters
    assert set(theirs) <= set(ours)
    fitted = {name for name in vars(Peer().fit(data())) if name.endswith("_")}
    assert fitted <= set(vars(lf.TruncatedSVD().fit(data())))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 41}, "n_components=41 must be at most 40"),
        ({"n_components": 40, "algorithm": "arpack"}, "at most 39"),
        ({"n_components": 0}, "n_components"),
        ({"algorithm": "qr"}, "algorithm"),
        ({"n_iter": -1}, "n_iter"),
        ({"tol": -1.0}, "tol"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        lf.TruncatedSVD(**parameters).fit(data())


def test_the_first_nan_is_named():
    X = data()
    X[7, 3] = np.nan
    with pytest.raises(ValueError, match="row 7, column 3"):
        lf.TruncatedSVD().fit(X)
