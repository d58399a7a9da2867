"""PCA as an object: transform and its inverse, streams and moments, pickles, names, data that stay as they are."""

import pickle
import warnings
import zlib

import numpy as np
import pytest
from sklearn.base import clone

import lae_fast as lf
from tests.oracle import spectra
from tests.oracle.pca_cases import ROUTES, TALL, WIDE, fitted_values

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
