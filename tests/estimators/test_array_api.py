"""Array API dispatch: tensors, and arrays of the standard, in; attributes and results of the same library out."""

import copy
import pickle

import numpy as np
import pytest
import sklearn

import lae_fast as lf

pytestmark = [pytest.mark.needs_jit, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

ESTIMATORS = {
    "PCA": lambda: lf.PCA(3),
    "whitened": lambda: lf.PCA(3, whiten=True, standardize=True),
    "IncrementalPCA": lambda: lf.IncrementalPCA(3),
    "TruncatedSVD": lambda: lf.TruncatedSVD(3),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(3, max_iter=60),
}


@pytest.fixture
def dispatch(monkeypatch):
    """scikit-learn wants to know that SciPy could dispatch too; nothing here depends on whether it does."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        yield


def strict(X, device="CPU_DEVICE"):
    library = pytest.importorskip("array_api_strict")
    return library.asarray(X, device=library.Device(device))


def tensor(X):
    return pytest.importorskip("torch").asarray(X.copy())


LIBRARIES = {"strict": strict, "strict on another device": lambda X: strict(X, "device1"), "torch": tensor}


def rows():
    return np.random.default_rng(0).standard_normal((50, 6)) * [6, 5, 4, 3, 2, 1] + 3.0


def host(array):
    return np.from_dlpack(array)


def assert_same_kind(found, X):
    assert type(found) is type(X) and found.device == X.device


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_numbers_in_the_library_of_x(name, library, dispatch):
    X = rows()
    given, expected, found = LIBRARIES[library](X), ESTIMATORS[name]().fit(X), ESTIMATORS[name]()
    assert found.fit(given) is found
    for attribute, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            assert_same_kind(getattr(found, attribute), given)
            np.testing.assert_array_equal(host(getattr(found, attribute)), value, err_msg=attribute)
    codes = found.transform(given)
    assert_same_kind(codes, given)
    np.testing.assert_array_equal(host(codes), expected.transform(X))
    back = found.inverse_transform(codes)
    assert_same_kind(back, given)
    np.testing.assert_allclose(host(back), expected.inverse_transform(expected.transform(X)), rtol=1e-12)
    assert_same_kind(ESTIMATORS[name]().fit_transform(given), given)


@pytest.mark.parametrize("library", LIBRARIES)
def test_methods_of_the_model(library, dispatch):
    X = rows()
    given, expected, found = LIBRARIES[library](X), lf.PCA(3).fit(X), lf.PCA(3)
    found.fit(given)
    for method in ("get_covariance", "get_precision"):
        result = getattr(found, method)()
        assert_same_kind(result, given)
        np.testing.assert_array_equal(host(result), getattr(expected, method)())
    np.testing.assert_array_equal(host(found.score_samples(given)), expected.score_samples(X))
    assert found.score(given) == expected.score(X)
    trained = ESTIMATORS["LinearAutoencoder"]().fit(given)
    assert isinstance(trained.score(given), float)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["PCA", "IncrementalPCA", "LinearAutoencoder"])
def test_streams(name, library, dispatch):
    X = rows()
    found, expected = ESTIMATORS[name](), ESTIMATORS[name]()
    for first in (0, 20):
        found.partial_fit(LIBRARIES[library](X[first : first + 20]))
        expected.partial_fit(X[first : first + 20])
    assert_same_kind(found.components_, LIBRARIES[library](X))
    np.testing.assert_array_equal(host(found.components_), expected.components_)


def test_weights_of_another_library(dispatch):
    X, weights = rows(), np.arange(1.0, 51.0)
    expected = lf.PCA(2).fit(X, sample_weight=weights)
    for given in (strict(weights, "device1"), tensor(weights), weights):
        found = lf.PCA(2).fit(tensor(X), sample_weight=given)
        np.testing.assert_array_equal(host(found.components_), expected.components_)


def test_another_library_than_that_of_fit_is_refused(dispatch):
    X = rows()
    found = lf.PCA(2).fit(strict(X))
    for other in (X, tensor(X), strict(X, "device1")):
        with pytest.raises(ValueError, match=r"PCA.transform\(\) must use the same namespace"):
            found.transform(other)
    assert isinstance(found.fit(X).components_, np.ndarray)
    with pytest.raises(ValueError, match=r"fit\(\) was given NumPy's"):
        found.transform(strict(X))


def test_without_dispatch_everything_is_numpy(dispatch):
    X = rows()
    found, expected = lf.PCA(2).fit(tensor(X)), lf.PCA(2).fit(X)
    with sklearn.config_context(array_api_dispatch=False):
        for given in (X, tensor(X)):
            np.testing.assert_array_equal(found.transform(given), expected.transform(X))
            assert isinstance(found.transform(given), np.ndarray)
        assert isinstance(lf.PCA(2).fit(tensor(X)).components_, np.ndarray)


def test_an_error_leaves_the_estimator_as_it_was(dispatch):
    X = rows()
    found = lf.PCA(2).fit(tensor(X))
    before = host(found.components_).copy()
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        found.fit(tensor(X))
    np.testing.assert_array_equal(host(found.components_), before)
    assert_same_kind(found.transform(tensor(rows())), found.components_)
    found.fit(rows())
    with pytest.raises(ValueError, match="row 3"):
        found.fit(tensor(X))
    assert isinstance(found.components_, np.ndarray) and isinstance(found.transform(rows()), np.ndarray)


@pytest.mark.parametrize("again", [lambda fitted: pickle.loads(pickle.dumps(fitted)), copy.deepcopy, copy.copy])
def test_copies(again, dispatch):
    X = tensor(rows())
    found = lf.IncrementalPCA(2).partial_fit(X[:20])
    other = again(found).partial_fit(X[20:])
    np.testing.assert_allclose(host(other.components_), lf.PCA(2).fit(rows()).components_, rtol=1e-9, atol=1e-12)
    assert_same_kind(other.transform(X), X)


def test_tensors_with_gradients(dispatch):
    X = tensor(rows()).requires_grad_()
    found = lf.PCA(2).fit(X)
    assert not found.transform(X).requires_grad


def test_tags():
    assert all(sklearn.utils.get_tags(make()).array_api_support for make in ESTIMATORS.values())
