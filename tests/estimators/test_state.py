"""What an estimator keeps: nothing of an earlier fit, nothing of a call that raised, nothing that others share."""

import copy
import pickle
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast.estimators import _trained_attributes, incremental_pca
from lae_fast.operators import moments
from lae_fast.training.run import Run

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((60, 8)) * np.arange(8, 0, -1) + 3, RNG.standard_normal((40, 6)) * np.arange(6, 0, -1)
HOLES = np.where(RNG.random((40, 6)) < 0.1, np.nan, B)
PARAMETERS = {
    lf.PCA: [
        {"n_components": 2},
        {"n_components": 0.5},
        {"n_components": "mle"},
        {"n_components": 2, "missing": "em"},
        {"n_components": 2, "standardize": True},
        {"n_components": 2, "whiten": True, "svd_solver": "krylov"},
    ],
    lf.IncrementalPCA: [{"n_components": 2}, {"n_components": 3, "forget": 0.9}, {"whiten": True}],
    lf.TruncatedSVD: [{"n_components": 2}, {"n_components": 3, "algorithm": "krylov"}],
    lf.LinearAutoencoder: [
        {"n_components": 2, "max_iter": 5},
        {"n_components": 2, "max_iter": 5, "hidden": (3,), "optimizer": "sgd"},
        {"n_components": 2, "max_iter": 5, "loss": "vae"},
    ],
}
STREAMS = [lf.PCA(2), lf.IncrementalPCA(2), lf.IncrementalPCA(2, forget=0.9)]
PAIRS = [(kind, p, q) for kind, choices in PARAMETERS.items() for p in choices for q in choices]


def fitted(estimator):
    """Names and values of fitted attributes; what a stream computes when it is asked is computed."""
    for name in incremental_pca._LAZY if isinstance(estimator, lf.IncrementalPCA) else ():
        getattr(estimator, name, None)
    return {name: value for name, value in vars(estimator).items() if name.endswith("_")}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if name == "seconds":  # of a training history
            continue
        if isinstance(value, dict):
            assert_same(value, other[name])
        elif isinstance(value, list):
            assert all(np.array_equal(*pair) for pair in zip(value, other[name], strict=True)), name
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other[name], err_msg=name)
        else:
            assert value == other[name] or value != value, name


def quiet(estimator, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five steps of training do not converge
        return estimator.fit(X)


def snapshot(estimator):
    return pickle.dumps(vars(estimator)), {name: id(value) for name, value in vars(estimator).items()}


@pytest.mark.parametrize(("kind", "first", "second"), PAIRS)
def test_a_refit_is_a_first_fit(kind, first, second):
    """fit(A).fit(B) with changed parameters has the attributes of a fresh fit(B), and no others."""
    fresh = kind(**second)
    again = quiet(quiet(kind(**first), A).set_params(**fresh.get_params()), B)
    assert_same(fitted(again), fitted(quiet(fresh, B)))


def test_a_stream_starts_anew_after_a_fit():
    """One row is no fit, so nothing of the fit before is left."""
    model = lf.PCA(2).fit(A).partial_fit(B[:1])
    assert not hasattr(model, "components_") and not hasattr(model, "explained_variance_")
    assert_same(fitted(model.partial_fit(B[1:])), fitted(lf.PCA(2).partial_fit(B[:1]).partial_fit(B[1:])))


@pytest.mark.parametrize(
    "later",
    [{"missing": "em"}, {"standardize": True}, {"n_components": 5}, {"svd_solver": "krylov"}, {"max_memory": "1MB"}],
)
@pytest.mark.parametrize("first", [{}, {"standardize": True}, {"missing": "em"}])
def test_parameters_changed_after_a_fit_change_nothing_that_was_fitted(first, later):
    model = lf.PCA(2, **first).fit(B)
    before = model.transform(B), model.score(B), model.inverse_transform(model.transform(B)), model.get_covariance()
    model.set_params(**later)
    after = model.transform(B), model.score(B), model.inverse_transform(model.transform(B)), model.get_covariance()
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_filling_follows_the_fit():
    model = lf.PCA(2, missing="em").fit(HOLES)
    scores = model.transform(HOLES)
    np.testing.assert_array_equal(model.set_params(missing="error").transform(HOLES), scores)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(B).transform(HOLES)


@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    forgets=st.lists(st.sampled_from([1.0, 0.9, 0.5]), min_size=6, max_size=6),
    looks=st.sets(st.integers(0, 5)),
)
def test_waiting_rows_count_as_they_came(rows, forgets, looks):
    """Reading attributes in between, and parameters changed after rows came, change nothing."""
    seen, plain = lf.IncrementalPCA(2), lf.IncrementalPCA(2)
    start = 0
    for index, count in enumerate(rows):
        for model in (seen, plain):
            model.set_params(forget=forgets[index]).partial_fit(A[start : start + count])
        start += count
        if index in looks:
            seen.set_params(forget=0.7, n_components=1)
            getattr(seen, "components_", None)
            seen.set_params(n_components=2)
    for model in (seen, plain):
        model.set_params(forget=1.0, n_components=3)
    assert_same(fitted(seen), fitted(plain))


BAD = {
    "width": (B, {}),
    "nan": (np.where(np.arange(80).reshape(10, 8) == 43, np.nan, A[:10]), {}),
    "sparse nan": (scipy.sparse.csr_matrix(np.where(np.arange(80).reshape(10, 8) == 43, np.nan, A[:10])), {}),
    "nan in a later block": ([A[:5], np.where(np.arange(40).reshape(5, 8) == 21, np.nan, A[:5])], {}),
    "weights": (A, {"sample_weight": np.ones(3)}),
    "negative": (A, {"sample_weight": -np.ones(60)}),
    "no numbers": ([["a"] * 8] * 3, {}),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("model", STREAMS, ids=str)
@pytest.mark.parametrize("rows", [0, 30])
def test_a_call_that_raises_has_taken_nothing(model, name, rows):
    X, options = BAD[name]
    model = copy.deepcopy(model)
    if rows:
        model.partial_fit(A[:rows])
    elif name == "width":
        X = np.where(np.arange(X.size).reshape(X.shape) == 5, np.inf, X)
    before = snapshot(model)
    with pytest.raises((ValueError, TypeError)):
        model.partial_fit(X, **options)
    assert snapshot(model) == before
    assert_same(fitted(model.partial_fit(A[rows:])), fitted(whole(model, rows)))


def whole(model, rows):
    fresh = type(model)(**model.get_params())
    if rows:
        fresh.partial_fit(A[:rows])
    return fresh.partial_fit(A[rows:])


@pytest.mark.parametrize("parameters", [{"n_components": 9}, {"n_components": 1.5}, {"max_memory": 10}, {"tol": -1}])
def test_bad_parameters_take_no_rows(parameters):
    model = lf.PCA(2).partial_fit(A[:30]) if "max_memory" not in parameters else lf.PCA(2)
    model.set_params(**parameters)
    before = snapshot(model)
    for _ in range(2):
        with pytest.raises((ValueError, MemoryError)):
            model.partial_fit(A[30:])
        assert snapshot(model) == before
    defaults = {"n_components": 2, "max_memory": None, "tol": 0.0}
    seen = 60 if "max_memory" not in parameters else 30
    assert model.set_params(**defaults).partial_fit(A[30:]).n_samples_ == seen


@pytest.mark.parametrize("where", ["solve", "merge", "gather"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("model", [lf.PCA(2), lf.IncrementalPCA(2)], ids=str)
def test_an_interrupt_takes_no_rows(model, where, error, monkeypatch):
    model = copy.deepcopy(model).partial_fit(A[:30], sample_weight=np.ones(30))
    before = snapshot(model)

    def stop(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        if where == "solve":
            solve = "eigenpairs_of_rows" if isinstance(model, lf.PCA) else "top_eigenpairs"
            patch.setattr(sys.modules[type(model).__module__], solve, stop)
        elif where == "merge":
            patch.setattr(moments.Moments, "_merge", stop)
        else:
            patch.setattr(moments, "gather", stop)
        call = model.fit if where == "solve" else model.partial_fit
        with pytest.raises(error):
            call(A[30:], sample_weight=np.ones(30))
    assert snapshot(model) == before


def test_a_warning_made_an_error_takes_no_rows():
    X = RNG.standard_normal((400, 50))
    model = lf.IncrementalPCA(2, max_memory=40_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = snapshot(model)
        with pytest.raises(UserWarning, match="approximate"):
            model.partial_fit(X, sample_weight=np.ones(400))
    assert snapshot(model) == before


@pytest.mark.parametrize("model", STREAMS, ids=str)
@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_go_their_own_ways(model, clone):
    one = copy.deepcopy(model).partial_fit(A[:30])
    other = clone(one).partial_fit(A[30:])
    one.partial_fit(A[:10])
    kind, parameters = type(model), model.get_params()
    assert_same(fitted(other), fitted(kind(**parameters).partial_fit(A[:30]).partial_fit(A[30:])))
    assert_same(fitted(one), fitted(kind(**parameters).partial_fit(A[:30]).partial_fit(A[:10])))


@pytest.mark.parametrize("kind", [lf.PCA, lf.IncrementalPCA])
def test_moments_that_were_given_stay(kind):
    given_moments = lf.Moments.from_data(A[:30])
    before = pickle.dumps(vars(given_moments))
    one, other = (kind.from_moments(given_moments, 2) for _ in range(2))
    one.partial_fit(A[30:])
    assert pickle.dumps(vars(given_moments)) == before
    given_moments.update(A[:5])  # nor does the estimator see what its giver adds
    assert_same(fitted(other.partial_fit(A[30:])), fitted(one))


def test_merged_streams_stay_apart():
    one, other = lf.IncrementalPCA(2).partial_fit(A[:30]), lf.IncrementalPCA(2)
    other.merge(one).partial_fit(A[30:])
    assert one.n_samples_seen_ == 30 and other.n_samples_seen_ == 60
    with pytest.raises(ValueError, match="n_components=9"):
        (wide := lf.IncrementalPCA(9)).merge(one)
    assert not vars(wide).keys() - wide.get_params().keys()


def test_settings_that_are_not_fitted_stay():
    model = lf.PCA(2).set_output(transform="default").fit(A)
    before = set(vars(model))
    assert set(vars(model.fit(A))) == before and "_sklearn_output_config" in before


def test_a_fit_and_a_merge_that_raise_at_their_end_change_nothing():
    """A warning made an error comes when everything is computed: the width has been set by then."""
    X = np.random.default_rng(0).standard_normal((50, 3000))
    small = lf.IncrementalPCA(2, max_memory="3MB").fit(X[:, :100])
    before = dict(vars(small))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (small.fit, lf.IncrementalPCA(2, max_memory="3MB").partial_fit):
            with pytest.raises(UserWarning, match="approximate"):
                call(X)
    assert vars(small) == before and small.transform(X[:, :100]).shape == (50, 2)
    empty, sketched = lf.IncrementalPCA(2, max_memory="3MB"), lf.IncrementalPCA(2, max_memory="3MB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sketched.fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="approximate"):
            empty.merge(sketched)
    assert not hasattr(empty, "n_features_in_")


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
@pytest.mark.parametrize("options", PARAMETERS[lf.LinearAutoencoder], ids=str)
@pytest.mark.parametrize(
    "place", [(Run, "variances"), (_trained_attributes, "held"), (lf.LinearAutoencoder, "_replace_fitted")]
)
def test_an_interrupt_while_a_trained_model_is_stored_changes_no_attribute(call, options, place, monkeypatch):
    """All attributes are those of one run: the one before, or the new one."""

    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    model = lf.LinearAutoencoder(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(model, call)(A)
        before = dict(vars(model))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*place, interrupt)
            getattr(model, call)(A[:30])
        assert vars(model).keys() == before.keys()
        assert all(value is before[name] for name, value in vars(model).items() if name != "n_features_in_")
        getattr(model, call)(A[:30])
    assert model.transform(A).shape == (60, 2)
