"""scikit-learn's estimator contract.  Its own tests run against our classes through sklearn_plugin.py."""

import inspect

import numpy as np
import pytest
import sklearn
from sklearn.decomposition import PCA as Peer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import lae_fast as lf


@parametrize_with_checks(
    [
        lf.PCA(n_components=2),
        lf.PCA(n_components=2, standardize=True),
        lf.PCA(n_components=2, whiten=True),
        lf.PCA(n_components=1, svd_solver="krylov"),
        lf.PCA(n_components=0.9),
        lf.TruncatedSVD(1),
        lf.TruncatedSVD(1, algorithm="gram"),
    ]
)
def test_estimator_checks(estimator, check):
    check(estimator)


def test_parameters_of_scikit_learn_are_all_accepted():
    ours, theirs = inspect.signature(lf.PCA).parameters, inspect.signature(Peer).parameters
    assert set(theirs) <= set(ours)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind


def test_attributes_of_scikit_learn_are_all_there():
    X = [[0.0, 1.0, 3.0], [2.0, 5.0, 1.0], [4.0, 4.0, 4.0], [1.0, 0.0, 2.0]]
    ours, theirs = lf.PCA(n_components=2).fit(X), Peer(n_components=2).fit(X)
    public = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    assert public <= set(vars(ours))
    methods = {name for name in dir(theirs) if not name.startswith("_") and callable(getattr(theirs, name))}
    assert methods <= set(dir(ours))


@pytest.mark.parametrize("name", ["iterated_power", "power_iteration_normalizer", "copy"])
def test_accepted_and_without_effect(name):
    X = [[0.0, 1.0, 3.0], [2.0, 5.0, 1.0], [4.0, 4.0, 4.0], [1.0, 0.0, 2.0]]
    value = {"iterated_power": 3, "power_iteration_normalizer": "LU", "copy": False}[name]
    first, second = lf.PCA(n_components=2).fit(X), lf.PCA(n_components=2, **{name: value}).fit(X)
    assert first.components_.tobytes() == second.components_.tobytes()


ESTIMATORS = {
    "PCA": lambda: lf.PCA(2),
    "IncrementalPCA": lambda: lf.IncrementalPCA(2),
    "TruncatedSVD": lambda: lf.TruncatedSVD(2),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(2, loss="mse", max_iter=20),
}


def rows():
    return np.random.default_rng(0).standard_normal((30, 4)) * [4, 3, 2, 1]


@pytest.mark.every
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_frames_out(name, library):
    frames = pytest.importorskip(library)
    X = frames.DataFrame({f"f{i}": column for i, column in enumerate(rows().T)})
    found = ESTIMATORS[name]().set_output(transform=library)
    codes = found.fit_transform(X)
    assert isinstance(codes, frames.DataFrame) and isinstance(found.transform(X), frames.DataFrame)
    assert list(codes.columns) == list(found.get_feature_names_out()) == [f"{name.lower()}{i}" for i in range(2)]
    np.testing.assert_array_equal(codes.to_numpy(), found.set_output(transform="default").transform(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ["PCA", "IncrementalPCA", "LinearAutoencoder"])
def test_weights_are_routed_through_a_pipeline(name):
    X, weights = rows(), np.arange(30.0)
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        last = ESTIMATORS[name]().set_fit_request(sample_weight=True)
        found = make_pipeline(scaler, last, StandardScaler().set_fit_request(sample_weight=False))
        found.fit(X, sample_weight=weights)
    scaled = StandardScaler().fit(X, sample_weight=weights).transform(X)
    expected = ESTIMATORS[name]().fit(scaled, sample_weight=weights)
    np.testing.assert_array_equal(found[1].components_, expected.components_)
    assert not np.array_equal(expected.components_, ESTIMATORS[name]().fit(scaled).components_)


def test_weights_that_nobody_asked_for_are_an_error():
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="sample_weight"),
    ):
        make_pipeline(StandardScaler(), lf.PCA(2)).fit(rows(), sample_weight=np.ones(30))
