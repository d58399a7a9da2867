"""scikit-learn's callbacks on our estimators, alone and within its own meta-estimators."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lae_fast as lf

pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")
pytestmark = [pytest.mark.needs_jit, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

ESTIMATORS = {
    "PCA": lambda: lf.PCA(2),
    "IncrementalPCA": lambda: lf.IncrementalPCA(2),
    "TruncatedSVD": lambda: lf.TruncatedSVD(2),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(2, max_iter=30, record_every=10),
}


class Recorder:
    """Notes what is called; says "stop" at a task of the name `stops_at`."""

    max_propagation_depth = None

    def __init__(self, stops_at=""):
        self.stops_at, self.seen = stops_at, []

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, metadata=None, fitted_estimator=None):
        self.seen.append(f"end {context.task_name}")
        self.metadata = metadata
        if fitted_estimator is not None:
            self.codes = fitted_estimator.transform(X)
        return context.task_name == self.stops_at


def rows():
    return np.random.default_rng(0).standard_normal((40, 5)) * [5, 4, 3, 2, 1]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_fit_is_a_task(name):
    recorder, X = Recorder(), rows()
    found = ESTIMATORS[name]().set_callbacks(recorder).fit(X)
    assert recorder.seen[:2] == ["setup", "begin fit"] and recorder.seen[-2:] == ["end fit", "teardown"]
    np.testing.assert_array_equal(recorder.codes, found.transform(X))
    np.testing.assert_array_equal(found.components_, ESTIMATORS[name]().fit(X).components_)
    assert not [attribute for attribute in vars(found) if attribute.startswith("_callback")]


def test_torn_down_after_an_error():
    recorder, X = Recorder(), rows()
    X[1, 1] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        lf.PCA(2).set_callbacks(recorder).fit(X)
    assert recorder.seen == ["setup", "begin fit", "teardown"]


def test_a_recording_is_a_task_that_may_stop_the_training():
    recorder, own = Recorder("iteration 20"), []
    found = lf.LinearAutoencoder(2, max_iter=100, record_every=10, callback=lambda state: own.append(state.iteration))
    found.set_callbacks(recorder).fit(rows())
    assert [task for task in recorder.seen if "end iter" in task] == [f"end iteration {i}" for i in (0, 10, 20)]
    assert found.n_iter_ == 20 and own == [0, 10, 20]


def test_weights_are_handed_on():
    recorder, weights = Recorder(), np.ones(40)
    lf.PCA(2).set_callbacks(recorder).fit(rows(), None, weights)
    assert recorder.metadata["sample_weight"] is weights
    lf.IncrementalPCA(2).set_callbacks(recorder).fit(rows(), sample_weight=weights)
    assert recorder.metadata["sample_weight"] is weights


@pytest.mark.parametrize("name", ESTIMATORS)
def test_in_a_pipeline(name):
    recorder = Recorder()
    found = make_pipeline(StandardScaler(), ESTIMATORS[name]()).set_callbacks(recorder)
    found.fit(rows())
    assert recorder.seen.count("setup") == 1 and recorder.seen[-1] == "teardown"
    assert not vars(found[-1]).get("_skl_callbacks")


def test_in_a_grid_search():
    recorder = Recorder()
    search = GridSearchCV(lf.PCA(), {"n_components": [1, 2]}, cv=2)
    if not hasattr(search, "set_callbacks"):
        pytest.skip("this scikit-learn's searches have no callbacks")
    search.set_callbacks(recorder).fit(rows())
    assert recorder.seen[-1] == "teardown" and search.best_params_["n_components"] == 2


def test_a_progress_bar():
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    lf.LinearAutoencoder(2, max_iter=30, record_every=10).set_callbacks(ProgressBar()).fit(rows())
    lf.PCA(2).set_callbacks(ProgressBar()).fit(rows())


def test_clones_keep_callbacks_as_scikit_learn_does():
    recorder = Recorder()
    assert vars(clone(lf.PCA(2).set_callbacks(recorder)))["_skl_callbacks"] == [recorder]


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="callbacks must be instances"):
        lf.PCA(2).set_callbacks(print)
