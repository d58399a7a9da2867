"""scikit-learn's callbacks (`set_callbacks`), where the installed scikit-learn has them (from 1.9 on).

Its package of callbacks takes long to import, so it is loaded where an estimator has callbacks, and not before.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Self

from sklearn.utils.metaestimators import available_if

_HAS_CALLBACKS = importlib.util.find_spec("sklearn.callback") is not None


class CallbackSupport:
    """The methods that scikit-learn asks of an estimator with callbacks."""

    @available_if(lambda self: _HAS_CALLBACKS)
    def set_callbacks(self, *callbacks: Any) -> Self:
        """Set scikit-learn's callbacks, such as `sklearn.callback.ProgressBar`; without any: none.

        Every estimator is one task, "fit".  LinearAutoencoder has a task within it for each recording, whose callbacks
        may stop the training by returning True.

        Raises
        ------
        TypeError
            Not instances of callbacks.
        """
        from sklearn.callback import CallbackSupportMixin

        return CallbackSupportMixin.set_callbacks(self, *callbacks)


def with_callbacks(fit: Callable[..., Any]) -> Callable[..., Any]:
    """`fit` as a task of the callbacks that are set: they are set up before it and torn down after it."""

    @functools.wraps(fit)
    def called(self: Any, X: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not vars(self).get("_skl_callbacks"):
            return fit(self, X, y, *args, **kwargs)
        from sklearn.callback import CallbackSupportMixin
        from sklearn.callback import with_callbacks as managed

        def task(self: Any) -> Any:
            context = CallbackSupportMixin._init_callback_context(self, max_subtasks=self._max_subtasks)
            weights = kwargs.get("sample_weight", args[0] if args else None)
            known = {"X": X, "y": y, "metadata": None if weights is None else {"sample_weight": weights}}
            context.call_on_fit_task_begin(estimator=self, **known)
            self._callback_X_y = known
            try:
                fitted = fit(self, X, y, *args, **kwargs)
            finally:
                del self._callback_X_y
            context.call_on_fit_task_end(estimator=self, **known, reconstruction_attributes=dict)
            return fitted

        return managed(task)(self)

    return called


def at_recordings(
    estimator: Any, callback: Callable[[Any], Any] | None, fitted: Callable[[Any], Mapping[str, Any]]
) -> Callable[[Any], Any] | None:
    """What is called at each recording of a training run: `callback`, and scikit-learn's where some are set.

    fitted : state -> the attributes that make the estimator one that has been trained so far
    """
    context = vars(estimator).get("_callback_fit_ctx")
    if context is None:
        return callback

    def recorded(state: Any) -> bool:
        stops = callback is not None and callback(state) is True
        task = context.subcontext(task_name=f"iteration {state.iteration}")
        task.call_on_fit_task_begin(estimator=estimator, **estimator._callback_X_y)
        ended = task.call_on_fit_task_end(
            estimator=estimator, **estimator._callback_X_y, reconstruction_attributes=lambda: fitted(state)
        )
        return bool(ended) or stops

    return recorded
