"""What the options of PCA change: standardize, sample_weight, the number of components, solver, random_state."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as Peer

import lae_fast as lf
from tests.oracle import spectra
from tests.oracle.pca_cases import DOUBLE, ROUTES, TALL, WIDE, check_basis, fitted_values

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
