"""scikit-learn's estimator contract.  Its own tests run against our classes through sklearn_plugin.py."""

import inspect

import pytest
from sklearn.decomposition import PCA as Peer
from sklearn.utils.estimator_checks import parametrize_with_checks

import lae_fast as lf


@parametrize_with_checks(
    [
        lf.PCA(n_components=2),
        lf.PCA(n_components=2, standardize=True),
        lf.PCA(n_components=2, whiten=True),
        lf.PCA(n_components=1, svd_solver="krylov"),
        lf.PCA(n_components=0.9),
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
