"""scikit-learn's callbacks (from its version 1.9 on): a training that is watched, and stopped."""

import importlib.util

from sklearn.datasets import load_digits

import lae_fast as lf


class StopWhenGood:
    """Ends the training once the reconstruction error is small enough."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        error = -fitted_estimator.score(X)
        print(f"{context.task_name}: mean squared error {error:.1f}")
        return error < 620.0


if importlib.util.find_spec("sklearn.callback") is None:
    print("this scikit-learn has no callbacks")
else:
    X, _ = load_digits(return_X_y=True)
    model = lf.LinearAutoencoder(10, max_iter=400, record_every=20).set_callbacks(StopWhenGood()).fit(X)
    print(f"{model.n_iter_} iterations: {model.converged_reason_}")
    if model.n_iter_ == 400:
        raise SystemExit("the callback was to stop the training")
