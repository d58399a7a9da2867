"""Promise 1 and everything else that PCA says about numbers, against dense float64 answers and scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as Peer

import lae_fast as lf
from lae_fast import datasets
from tests.oracle import cases, spectra
from tests.oracle.pca_cases import ROUTES, SINGLE, TALL, WIDE, check_basis, fitted_values

# --- promise 1: the eigenvalues of float32 data, whatever its mean and scale


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mean", [0, 1e1, 1e2, 1e3, 1e4, 1e5])
def test_float32_eigenvalues_whatever_the_mean(shape, route, mean):
    X = spectra.decaying(*shape, mean=mean).astype(np.float32)
    truth = spectra.answer(X)
    pca = lf.PCA(n_components=25, svd_solver=route).fit(X)
    assert pca.components_.dtype == np.float32
    assert pca.solver_ == route
    found = fitted_values(pca, X)
    error = np.abs(found - truth.values[:25])
    assert (error <= spectra.eigenvalue_bound(truth.values[:25])).all()
    check_basis(pca)
    assert (np.abs(pca.mean_ - truth.mean) <= SINGLE * (np.abs(truth.mean) + X.std(axis=0))).all()
    np.testing.assert_allclose(pca.explained_variance_ratio_, truth.values[:25] / truth.trace, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pca.singular_values_, np.sqrt(truth.values[:25]), rtol=1e-4)
    # the first five are well separated
    assert spectra.subspace_sine(pca.components_[:5].T, truth.vectors[:, :5]) < 1e-5


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
def test_drifting_mean(shape, route):
    """A mean that moves by a hundred deviations from the first row to the last: no one pilot shift is right."""
    X = spectra.decaying(*shape)
    X = (X + np.linspace(-50, 50, len(X))[:, None] * X.std(axis=0)).astype(np.float32)
    truth = spectra.answer(X)
    pca = lf.PCA(n_components=10, svd_solver=route).fit(X)
    assert (np.abs(fitted_values(pca, X) - truth.values[:10]) <= spectra.eigenvalue_bound(truth.values[:10])).all()
    assert (
        spectra.residuals(X, fitted_values(pca, X), pca.components_.T, SINGLE) <= 1.5 * pca.residuals_ + SINGLE
    ).all()


@pytest.mark.parametrize("scale", [1e-18, 1e18])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("route", ROUTES)
def test_extreme_scales_of_float32(scale, shape, route):
    """Squares of such entries leave the range of float32."""
    X = (spectra.decaying(*shape, mean=3.0) * scale).astype(np.float32)
    truth = spectra.answer(X.astype(np.float64) / scale)
    pca = lf.PCA(n_components=8, svd_solver=route).fit(X)
    found = np.square(pca.singular_values_.astype(np.float64) / scale)
    np.testing.assert_allclose(found, truth.values[:8], rtol=1e-5)
    np.testing.assert_allclose(pca.explained_variance_ratio_, truth.values[:8] / truth.trace, rtol=1e-5)
    assert spectra.subspace_sine(pca.components_[:5].T, truth.vectors[:, :5]) < 1e-5
    scores = pca.transform(X).astype(np.float64) / scale
    expected = (X.astype(np.float64) / scale - truth.mean) @ pca.components_.T.astype(np.float64)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("route", ROUTES)
def test_extreme_scales_of_float64(scale, route):
    X = spectra.decaying(*TALL) * scale
    truth = spectra.answer(X / scale)
    pca = lf.PCA(n_components=8, svd_solver=route).fit(X)
    np.testing.assert_allclose((pca.singular_values_ / scale) ** 2, truth.values[:8], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int32", "int64", *cases.only_full(*cases.RARE)])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("route", ROUTES)
def test_other_dtypes(dtype, shape, route):
    random = np.random.default_rng(1)
    latent = random.standard_normal((shape[0], 4)) @ random.standard_normal((4, shape[1]))
    if dtype == "bool":
        X = latent > 0
    elif dtype == "uint8":
        X = np.clip(120 + 25 * latent, 0, 255).astype(np.uint8)
    else:
        X = np.clip(20 * latent, -120, 120).astype(dtype)
    truth = spectra.answer(X)
    pca = lf.PCA(n_components=4, svd_solver=route).fit(X)
    assert pca.components_.dtype == (np.float64 if dtype in {"int32", "int64"} else np.float32)
    assert (np.abs(fitted_values(pca, X) - truth.values[:4]) <= spectra.eigenvalue_bound(truth.values[:4])).all()
    assert spectra.subspace_sine(pca.components_.T, truth.vectors[:, :4]) < 1e-5
    scores = pca.transform(X)
    assert scores.dtype == pca.components_.dtype
    expected = (X.astype(np.float64) - truth.mean) @ pca.components_.T
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
def test_every_storage_order_gives_the_same_answer(route, shape):
    X = spectra.decaying(*shape, mean=10).astype(np.float32)
    reference = lf.PCA(n_components=5, svd_solver=route).fit(X)
    wider = np.zeros((2 * shape[0], 3 * shape[1]), np.float32)
    wider[::2, 1::3] = X
    for name, same in {
        "Fortran": np.asfortranarray(X),
        "strided": wider[::2, 1::3],
        "reversed": X[::-1][::-1].copy()[:, ::-1][:, ::-1],
        "big-endian": X.astype(">f4"),
    }.items():
        pca = lf.PCA(n_components=5, svd_solver=route).fit(same)
        np.testing.assert_allclose(pca.explained_variance_, reference.explained_variance_, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(pca.components_, reference.components_, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(pca.transform(same), reference.transform(X), atol=1e-4, err_msg=name)


# --- difficult spectra


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(400, 40), (45, 400)], ids=["tall", "wide"])
def test_graded_spectrum_in_float64(route, shape):
    """Twelve orders of magnitude: each eigenvalue to the error that eps l_1 allows, and better for the data's own."""
    values = 10.0 ** -np.linspace(0, 12, 13)
    X, _ = spectra.with_spectrum(*shape, values)
    truth = spectra.answer(X)
    pca = lf.PCA(n_components=13, svd_solver=route).fit(X)
    np.testing.assert_allclose(fitted_values(pca, X), truth.values[:13], rtol=1e-8, atol=1e-15)
    for i in range(8):
        assert spectra.subspace_sine(pca.components_[i : i + 1].T, truth.vectors[:, i : i + 1]) < 1e-7
    check_basis(pca)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("values", [[9, 4, 4, 4, 1, 0.1], [5, 5, 5, 5, 5, 1], [4, 3, 3 - 1e-6, 3 - 2e-6, 1, 0.1]])
@pytest.mark.parametrize("shape", [(500, 50), (50, 500)], ids=["tall", "wide"])
def test_ties_and_clusters(dtype, route, values, shape):
    """The values are right, and so is the subspace of every group of equals."""
    values = np.array(values, dtype=np.float64)
    X, axes = spectra.with_spectrum(*shape, values)
    X = X.astype(dtype)
    pca = lf.PCA(n_components=5, svd_solver=route).fit(X)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(fitted_values(pca, X), values[:5], rtol=20 * eps)
    for level in np.unique(np.round(values[:5], 3)):
        group = np.abs(values[:5] - level) < 1e-3
        assert spectra.subspace_sine(pca.components_[group].T, axes[:, :5][:, group]) < 50 * eps
    check_basis(pca)
    assert pca.converged_.all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(300, 20), (20, 300)], ids=["tall", "wide"])
def test_rank_deficient_and_constant(route, shape):
    """More components asked for than there is variance: still orthonormal, zero values, no NaN, no warning."""
    X, _ = spectra.with_spectrum(*shape, np.array([4.0, 2.0, 1.0]))
    pca = lf.PCA(n_components=12, svd_solver=route).fit(X)
    np.testing.assert_allclose(fitted_values(pca, X), [4, 2, 1] + [0] * 9, rtol=1e-12, atol=1e-14)
    check_basis(pca)
    assert np.isfinite(pca.residuals_).all()
    constant = lf.PCA(n_components=3, svd_solver=route).fit(np.full(shape, 7.25))
    assert (constant.explained_variance_ == 0).all()
    assert np.isfinite(constant.explained_variance_ratio_).all()
    check_basis(constant)
    assert not constant.transform(np.full(shape, 7.25)).any()


# --- the certificate


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(1500, 120), (130, 1600)], ids=["tall", "wide"])
@pytest.mark.parametrize("mean", [0, 300])
@pytest.mark.parametrize("standardize", [False, True], ids=["", "standardize"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # float64 at 8 eps: a matter of luck
def test_residuals_are_upper_bounds(dtype, route, shape, mean, standardize):
    X = spectra.decaying(*shape, mean=mean, decay=0.9).astype(dtype)
    pairs = lf.top_eigenpairs(X, 20, solver=route, standardize=standardize)
    true = spectra.residuals(X, pairs.values, pairs.vectors, np.finfo(dtype).eps, standardize=standardize)
    assert (true <= pairs.residuals).all()
    assert dtype == np.float64 or pairs.converged.all()
    # An honest bound that is useless would be no certificate.  In float64 it has more to cover: totals over chunks, the
    # mean that is taken off and deviations are no more precise than the products (docs/pca.md, "Certificates").
    most = 30 if dtype == np.float32 else 60
    assert (pairs.residuals * pairs.values <= most * np.finfo(dtype).eps * pairs.values[0]).all()


@pytest.mark.parametrize("route", ROUTES)
def test_residuals_of_a_loose_tolerance_are_upper_bounds(route):
    X = spectra.decaying(2000, 400, decay=0.99).astype(np.float32)
    pca = lf.PCA(n_components=5, svd_solver=route, tol=1e-2).fit(X)
    true = spectra.residuals(X, fitted_values(pca, X), pca.components_.T, SINGLE)
    assert (true <= pca.residuals_ + 4 * SINGLE).all()  # explained_variance_ is rounded to float32
    assert (pca.residuals_ <= 2e-2).all()


def test_a_tolerance_saves_passes():
    X = spectra.decaying(2000, 400, decay=0.99).astype(np.float32)
    loose = lf.PCA(n_components=5, svd_solver="krylov", tol=1e-2).fit(X)
    tight = lf.PCA(n_components=5, svd_solver="krylov").fit(X)
    assert loose.n_passes_ < tight.n_passes_
    assert tight.residuals_.max() < loose.residuals_.max()


@pytest.mark.full
@pytest.mark.parametrize("scale", [1, 255], ids=["pixels", "scaled"])
def test_fashion_mnist_residuals(scale):
    """A third of the images, because the oracle is slow; as whole numbers, and as numbers that are none."""
    if datasets.local_file("fashion_mnist") is None:
        pytest.skip("fashion_mnist.npz is not in the directory that LAE_FAST_DATA names")
    X = datasets.load("fashion_mnist")[::3].astype(np.float32) / np.float32(scale)
    pca = lf.PCA(n_components=30).fit(X)
    assert pca.residuals_.max() <= 1e-4
    assert (spectra.residuals(X[:, :], fitted_values(pca, X), pca.components_.T, SINGLE) <= 1e-4).all()


# --- against scikit-learn's full SVD


@pytest.mark.parametrize("shape", [(300, 25), (25, 300)], ids=["tall", "wide"])
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_everything_agrees_with_scikit_learn(shape, whiten, route):
    X = spectra.decaying(*shape, mean=3)
    peer = Peer(n_components=6, svd_solver="full", whiten=whiten).fit(X)
    pca = lf.PCA(n_components=6, svd_solver=route, whiten=whiten).fit(X)
    for name in ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_"):
        mine, theirs = getattr(pca, name), getattr(peer, name)
        if name == "components_":  # their sign convention, u-based or not, is not part of the comparison
            theirs = theirs * np.sign((mine * theirs).sum(axis=1))[:, None]
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(pca.noise_variance_, peer.noise_variance_, rtol=1e-9)
    assert (pca.n_components_, pca.n_samples_, pca.n_features_in_) == (6, shape[0], shape[1])
    signs = np.sign((pca.components_ * peer.components_).sum(axis=1))
    np.testing.assert_allclose(pca.transform(X), peer.transform(X) * signs, atol=1e-8)
    scores = pca.transform(X)
    np.testing.assert_allclose(pca.inverse_transform(scores), peer.inverse_transform(peer.transform(X)), atol=1e-8)


@pytest.mark.parametrize("shape", [(300, 25), (25, 60)], ids=["tall", "wide"])
def test_probabilistic_model_agrees_with_scikit_learn(shape):
    X = spectra.decaying(*shape, mean=3, decay=0.9)
    peer = Peer(n_components=6, svd_solver="full").fit(X)
    pca = lf.PCA(n_components=6).fit(X)
    np.testing.assert_allclose(pca.get_covariance(), peer.get_covariance(), rtol=1e-9, atol=1e-12)
    precision = peer.get_precision()
    np.testing.assert_allclose(pca.get_precision(), precision, rtol=1e-8, atol=1e-9 * np.abs(precision).max())
    np.testing.assert_allclose(pca.score_samples(X), peer.score_samples(X), rtol=1e-9)
    np.testing.assert_allclose(pca.score(X), peer.score(X), rtol=1e-10)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("p", [1, 6, 25])
def test_precision_is_the_inverse_and_scores_are_the_density(whiten, standardize, p):
    X = spectra.decaying(300, 25, mean=3, decay=0.9)
    pca = lf.PCA(n_components=p, whiten=whiten, standardize=standardize).fit(X)
    covariance = pca.get_covariance()
    np.testing.assert_allclose(covariance @ pca.get_precision(), np.eye(25), atol=1e-9)
    centred = X - X.mean(axis=0)
    squares = np.einsum("ij,ij->i", centred @ np.linalg.inv(covariance), centred)
    density = -0.5 * (25 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + squares)
    np.testing.assert_allclose(pca.score_samples(X), density, rtol=1e-9)
    np.testing.assert_allclose(pca.score(X), density.mean(), rtol=1e-9)
    if p == 25 and not standardize:
        np.testing.assert_allclose(covariance, np.cov(X.T), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("shape", [(300, 25), (30, 300)], ids=["tall", "wide"])
def test_whitened_scores_have_unit_variance(dtype, standardize, shape):
    X = spectra.decaying(*shape, mean=50).astype(dtype)
    pca = lf.PCA(n_components=6, whiten=True, standardize=standardize).fit(X)
    scores = pca.transform(X).astype(np.float64)
    atol = 1e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(np.cov(scores.T), np.eye(6), atol=atol)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=atol)
    plain = lf.PCA(n_components=6, standardize=standardize).fit(X)
    back, expected = pca.inverse_transform(scores.astype(dtype)), plain.inverse_transform(plain.transform(X))
    np.testing.assert_allclose(back, expected, atol=atol * np.abs(X).max())
