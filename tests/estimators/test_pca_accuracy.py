"""Promise 1 and everything else that PCA says about numbers, against dense float64 answers and scikit-learn."""

import pickle
import warnings
import zlib

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA as Peer

import lae_fast as lf
from lae_fast import datasets
from tests.oracle import cases, spectra

ROUTES = ("gram", "krylov")
TALL, WIDE = (900, 60), (70, 800)
SINGLE = float(np.finfo(np.float32).eps)
DOUBLE = float(np.finfo(np.float64).eps)


def fitted_values(pca, X, weights=None):
    """Eigenvalues of scale "sum" as the fitted attributes give them."""
    total = len(X) if weights is None else np.sum(weights)
    return pca.explained_variance_.astype(np.float64) * (total - 1)


def check_basis(pca):
    """Orthonormal, ordered, with scikit-learn's signs."""
    axes = pca.components_.astype(np.float64)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=16 * np.finfo(pca.components_.dtype).eps)
    assert (np.diff(pca.explained_variance_) <= 0).all()
    largest = np.abs(axes).argmax(axis=1)
    assert (axes[np.arange(len(axes)), largest] > 0).all()


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


# --- standardize and sample_weight are what they say


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardize_is_pca_of_standardised_data(route, shape, dtype):
    X = spectra.decaying(*shape, mean=5)
    X[:, 3] = 2.5  # constant: stays zero
    X = (X * np.geomspace(1e-2, 1e2, shape[1])).astype(dtype)
    double = X.astype(np.float64)
    deviation = double.std(axis=0, ddof=1)
    deviation[3] = 1.0
    Z = (double - double.mean(axis=0)) / deviation
    truth = spectra.answer(Z)
    pca = lf.PCA(n_components=6, svd_solver=route, standardize=True).fit(X)
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(fitted_values(pca, X), truth.values[:6], rtol=rtol)
    assert spectra.subspace_sine(pca.components_.T, truth.vectors[:, :6]) < 10 * rtol
    np.testing.assert_allclose(pca.scale_, deviation, rtol=1e-5)
    np.testing.assert_allclose(pca.explained_variance_ratio_, truth.values[:6] / truth.trace, rtol=rtol)
    scores = Z @ pca.components_.T.astype(np.float64)
    np.testing.assert_allclose(pca.transform(X), scores, atol=10 * rtol * np.abs(scores).max())
    back = pca.inverse_transform(pca.transform(X)).astype(np.float64)
    expected = scores @ pca.components_ * deviation + double.mean(axis=0)
    assert (np.abs(back - expected) <= 20 * rtol * np.abs(double).max(axis=0)).all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(600, 40), (41, 400)], ids=["tall", "wide"])
def test_a_constant_feature_stays_zero(route, shape):
    """Nothing that rounding leaves of a constant may be taken for a variance, and divided by it."""
    random = np.random.default_rng(8)
    X = spectra.decaying(*shape, mean=5)
    X[:, :20] = random.uniform(-1e3, 1e3, 20)
    truth = spectra.answer(X[:, 20:], standardize=True)
    pca = lf.PCA(n_components=5, svd_solver=route, standardize=True).fit(X)
    assert np.abs(pca.components_[:, :20]).max() < DOUBLE
    np.testing.assert_array_equal(pca.scale_[:20], 1.0)
    np.testing.assert_allclose(pca.explained_variance_ratio_, truth.values[:5] / truth.trace, rtol=1e-9)
    stream = lf.PCA(n_components=5, standardize=True).partial_fit(X[:7]).partial_fit(X[7:])
    np.testing.assert_array_equal(stream.scale_[:20], 1.0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("standardize", [False, True], ids=["", "standardize"])
@pytest.mark.parametrize("shape", [(200, 30), (30, 400)], ids=["tall", "wide"])
def test_weights_are_repeated_rows(route, standardize, shape):
    X = spectra.decaying(*shape, mean=20)
    weights = np.random.default_rng(3).integers(0, 4, size=shape[0]).astype(np.float64)
    weights[:2] = 0, 3
    weighted = lf.PCA(n_components=5, svd_solver=route, standardize=standardize).fit(X, sample_weight=weights)
    repeated = lf.PCA(n_components=5, svd_solver=route, standardize=standardize)
    repeated.fit(np.repeat(X, weights.astype(int), axis=0))
    np.testing.assert_allclose(weighted.explained_variance_, repeated.explained_variance_, rtol=1e-11)
    np.testing.assert_allclose(weighted.components_, repeated.components_, atol=1e-9)
    np.testing.assert_allclose(weighted.mean_, repeated.mean_, rtol=1e-12, atol=1e-14)
    ratios = repeated.explained_variance_ratio_
    np.testing.assert_allclose(weighted.explained_variance_ratio_, ratios, rtol=1e-11)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(200, 30), (30, 400)], ids=["tall", "wide"])
def test_rows_of_weight_zero_are_not_there(route, shape):
    X = spectra.decaying(*shape).astype(np.float32)
    kept = np.random.default_rng(4).random(shape[0]) < 0.7
    outliers = np.where(kept[:, None], X, 1e4).astype(np.float32)
    weighted = lf.PCA(n_components=5, svd_solver=route).fit(outliers, sample_weight=kept.astype(float))
    removed = lf.PCA(n_components=5, svd_solver=route).fit(X[kept])
    np.testing.assert_allclose(weighted.explained_variance_, removed.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(weighted.components_, removed.components_, atol=1e-4)
    np.testing.assert_allclose(weighted.mean_, removed.mean_, atol=1e-5)


def test_fractional_weights():
    X = spectra.decaying(300, 20)
    weights = np.random.default_rng(5).uniform(0.1, 3.0, 300)
    truth = spectra.answer(X, weights)
    pca = lf.PCA(n_components=5).fit(X, sample_weight=weights)
    np.testing.assert_allclose(pca.explained_variance_, truth.values[:5] / truth.denominator, rtol=1e-12)
    np.testing.assert_allclose(pca.noise_variance_, (truth.trace - truth.values[:5].sum()) / truth.denominator / 15)


# --- the number of components


@pytest.mark.parametrize("shape", [(400, 40), (40, 400)], ids=["tall", "wide"])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("route", ["auto", "gram", "krylov"])
def test_fraction_of_the_variance(shape, fraction, route):
    X = spectra.decaying(*shape, decay=0.95)
    peer = Peer(n_components=fraction, svd_solver="full").fit(X)
    pca = lf.PCA(n_components=fraction, svd_solver=route).fit(X)
    assert pca.n_components_ == peer.n_components_
    np.testing.assert_allclose(pca.explained_variance_, peer.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(pca.noise_variance_, peer.noise_variance_, rtol=1e-9)


@pytest.mark.parametrize("signal", [2, 5, 9])
def test_minka(signal):
    random = np.random.default_rng(signal)
    X = 0.1 * random.standard_normal((500, 12))
    X[:, :signal] += 3 * random.standard_normal((500, signal))
    peer = Peer(n_components="mle", svd_solver="full").fit(X)
    pca = lf.PCA(n_components="mle").fit(X)
    assert pca.n_components_ == peer.n_components_ == signal
    np.testing.assert_allclose(pca.explained_variance_, peer.explained_variance_, rtol=1e-10)


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (20, 20), (2, 5), (5, 2), (5, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_components(shape, dtype):
    X = spectra.decaying(*shape, mean=2).astype(dtype)
    truth = spectra.answer(X)
    pca = lf.PCA().fit(X)
    assert pca.components_.shape == (min(shape), shape[1])
    atol = 50 * np.finfo(dtype).eps * truth.values[0]
    np.testing.assert_allclose(fitted_values(pca, X), truth.values, rtol=50 * np.finfo(dtype).eps, atol=atol)
    check_basis(pca)
    assert pca.noise_variance_ == 0.0


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


# --- transform


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("whiten", [False, True])
def test_fit_transform_is_fit_then_transform_to_the_bit(route, shape, dtype, whiten):
    X = (40 + 30 * spectra.decaying(*shape)).clip(0, 255).astype(dtype)
    together = lf.PCA(n_components=4, svd_solver=route, whiten=whiten).fit_transform(X)
    apart = lf.PCA(n_components=4, svd_solver=route, whiten=whiten).fit(X).transform(X)
    assert together.dtype == apart.dtype
    assert together.tobytes() == apart.tobytes()


@pytest.mark.parametrize("mean", [0, 1e5])
def test_scores_of_data_far_from_zero(mean):
    """(x - mean) first: x U - mean U would lose what the mean is larger than the data."""
    X = spectra.decaying(500, 30, mean=mean).astype(np.float32)
    pca = lf.PCA(n_components=5).fit(X)
    expected = (X.astype(np.float64) - X.astype(np.float64).mean(axis=0)) @ pca.components_.T.astype(np.float64)
    np.testing.assert_allclose(pca.transform(X), expected, atol=3e-6 * np.abs(expected).max())


def test_transform_writes_to_out():
    X = spectra.decaying(500, 30).astype(np.float32)
    pca = lf.PCA(n_components=5).fit(X)
    room = np.full((500, 9), np.nan, np.float32)
    out = room[:, 2:7]
    assert pca.transform(X, out=out) is out
    np.testing.assert_array_equal(out, pca.transform(X))
    assert np.isnan(room[:, :2]).all()
    assert np.isnan(room[:, 7:]).all()


def test_inverse_transform_is_the_projection():
    X = spectra.decaying(200, 20, mean=4)
    pca = lf.PCA(n_components=7).fit(X)
    U, mean = pca.components_.T, X.mean(axis=0)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), mean + (X - mean) @ U @ U.T, atol=1e-10)
    everything = lf.PCA().fit(X)
    np.testing.assert_allclose(everything.inverse_transform(everything.transform(X)), X, atol=1e-10)


# --- streams and moments


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0, 1e4])
@pytest.mark.parametrize("standardize", [False, True])
def test_partial_fit_in_ragged_batches_is_fit(dtype, mean, standardize):
    X = spectra.decaying(700, 30, mean=mean).astype(dtype)
    stream = lf.PCA(n_components=5, standardize=standardize)
    for first, last in [(0, 1), (1, 3), (3, 4), (4, 250), (250, 251), (251, 700)]:
        stream.partial_fit(X[first:last])
    truth = spectra.answer(X, standardize=standardize)
    assert stream.n_samples_ == 700
    rtol = 1e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(fitted_values(stream, X), truth.values[:5], rtol=rtol)
    assert spectra.subspace_sine(stream.components_.T, truth.vectors[:, :5]) < 10 * rtol
    assert (np.abs(stream.mean_ - truth.mean) <= np.finfo(dtype).eps * (np.abs(truth.mean) + X.std(axis=0))).all()
    np.testing.assert_allclose(stream.explained_variance_ratio_, truth.values[:5] / truth.trace, rtol=rtol)
    at_once = lf.PCA(n_components=5, standardize=standardize).fit(X)
    np.testing.assert_allclose(stream.noise_variance_, at_once.noise_variance_, rtol=10 * rtol)


def test_partial_fit_with_weights():
    X = spectra.decaying(300, 15, mean=5)
    weights = np.random.default_rng(6).uniform(0, 2, 300)
    stream = lf.PCA(n_components=4)
    for rows in np.array_split(np.arange(300), 7):
        stream.partial_fit(X[rows], sample_weight=weights[rows])
    truth = spectra.answer(X, weights)
    np.testing.assert_allclose(stream.explained_variance_, truth.values[:4] / truth.denominator, rtol=1e-11)


def test_fit_after_partial_fit_starts_afresh():
    X = spectra.decaying(300, 15)
    pca = lf.PCA(n_components=4).partial_fit(1e3 + X[:, :15])
    pca.fit(X)
    np.testing.assert_array_equal(pca.components_, lf.PCA(n_components=4).fit(X).components_)
    pca.partial_fit(X[:100]).partial_fit(X[100:])
    assert pca.n_samples_ == 300
    np.testing.assert_allclose(fitted_values(pca, X), spectra.answer(X).values[:4], rtol=1e-11)


@pytest.mark.parametrize("parameters", [{}, {"whiten": True}, {"standardize": True}], ids=str)
def test_from_moments(parameters):
    X = spectra.decaying(400, 18, mean=7)
    moments = lf.Moments.from_data(X[:150]) + lf.Moments.from_data(X[150:])
    pca = lf.PCA.from_moments(moments, 4, **parameters)
    direct = lf.PCA(n_components=4, **parameters).fit(X)
    np.testing.assert_allclose(pca.explained_variance_, direct.explained_variance_, rtol=1e-11)
    np.testing.assert_allclose(pca.transform(X), direct.transform(X), atol=1e-8)
    np.testing.assert_allclose(pca.noise_variance_, direct.noise_variance_, rtol=1e-9)


# --- the estimator as an object


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
def test_pickle_and_clone(fit):
    X = spectra.decaying(200, 20).astype(np.float32)
    pca = lf.PCA(n_components=4, whiten=True, standardize=True, tol=1e-3)
    getattr(pca, fit)(X)
    again = pickle.loads(pickle.dumps(pca))
    np.testing.assert_array_equal(again.transform(X), pca.transform(X))
    assert again.residuals_.tobytes() == pca.residuals_.tobytes()
    again.partial_fit(X)
    fresh = clone(pca)
    assert fresh.get_params() == pca.get_params()
    assert not hasattr(fresh, "components_")
    np.testing.assert_array_equal(fresh.fit(X).components_.shape, (4, 20))


def test_feature_names():
    pandas = pytest.importorskip("pandas")
    X = spectra.decaying(100, 4)
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    pca = lf.PCA(n_components=2).fit(frame)
    assert list(pca.feature_names_in_) == ["a", "b", "c", "d"]
    assert list(pca.get_feature_names_out()) == ["pca0", "pca1"]
    np.testing.assert_array_equal(pca.components_, lf.PCA(n_components=2).fit(X).components_)
    with pytest.raises(ValueError, match="feature names"):
        pca.transform(frame[["b", "a", "c", "d"]])
    named = lf.PCA(n_components=2).set_output(transform="pandas").fit_transform(frame)
    assert list(named.columns) == ["pca0", "pca1"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
def test_x_is_not_written(order, route, shape):
    X = np.array(spectra.decaying(*shape, mean=4).astype(np.float32), order=order)
    before = zlib.crc32(X.tobytes("A"))
    for parameters in ({}, {"copy": False}, {"standardize": True}, {"whiten": True}):
        lf.PCA(n_components=4, svd_solver=route, **parameters).fit_transform(X)
    lf.PCA(n_components=4).partial_fit(X).score(X)
    assert zlib.crc32(X.tobytes("A")) == before


@pytest.mark.parametrize("route", ROUTES)
def test_read_only_memmap(tmp_path, route):
    X = spectra.decaying(*TALL, mean=4).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    pca = lf.PCA(n_components=4, svd_solver=route)
    scores = pca.fit_transform(mapped)
    in_memory = lf.PCA(n_components=4, svd_solver=route).fit(X)
    np.testing.assert_array_equal(pca.components_, in_memory.components_)
    np.testing.assert_array_equal(scores, in_memory.transform(X))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
def test_random_state_none_is_a_fixed_start(route, shape):
    X = spectra.decaying(*shape).astype(np.float32)
    first = lf.PCA(n_components=4, svd_solver=route).fit(X)
    np.random.seed(12345)  # noqa: NPY002  (the global state must not matter)
    second = lf.PCA(n_components=4, svd_solver=route).fit(X)
    assert first.components_.tobytes() == second.components_.tobytes()
    assert first.residuals_.tobytes() == second.residuals_.tobytes()
    for seed in (7, np.random.RandomState(7), np.random.default_rng(7)):
        other = lf.PCA(n_components=4, svd_solver=route, random_state=seed).fit(X)
        np.testing.assert_allclose(other.components_, first.components_, atol=1e-5)


def test_svd_solver_names_of_scikit_learn():
    X = spectra.decaying(300, 20)
    routes = {"full": "gram", "covariance_eigh": "gram", "arpack": "krylov", "randomized": "krylov"}
    for name, route in routes.items():
        pca = lf.PCA(n_components=3, svd_solver=name).fit(X)
        assert pca.solver_ == route
        np.testing.assert_allclose(fitted_values(pca, X), spectra.answer(X).values[:3], rtol=1e-11)
    automatic = lf.PCA(n_components=3).fit(X)
    assert "flops" in automatic.route_reason_
    assert automatic.backend_ == "cpu"
    assert automatic.n_passes_ >= 1


def test_progress_reports_every_stage():
    calls = []
    X = spectra.decaying(2000, 30)
    lf.PCA(n_components=3, progress=lambda stage, done, total: calls.append((stage, done, total))).fit(X)
    assert calls
    assert all(isinstance(stage, str) and 0 <= done <= total for stage, done, total in calls)
    last = {stage: (done, total) for stage, done, total in calls}
    assert all(done == total for done, total in last.values())


def test_nothing_is_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in (TALL, WIDE):
            lf.PCA(n_components=5, whiten=True, standardize=True).fit_transform(spectra.decaying(*shape, mean=3))
