"""What every estimator does with X first: open it, and check its width and column names."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from .. import validation
from ..data import containers, sources

# What scikit-learn's validation sets.
_SET = ("n_features_in_", "feature_names_in_")


@contextlib.contextmanager
def intake(estimator: Any, X: Any, *, reset: bool = True) -> Iterator[sources.Source]:
    """The source for X, open for as long as the context lasts, after `validate_data`.

    When the context ends in an exception, what `validate_data` has set is as it was before.
    """
    before = {name: vars(estimator)[name] for name in _SET if name in vars(estimator)}
    finished = False
    try:
        max_memory = validation.memory_bytes(getattr(estimator, "max_memory", None))
        fitted = None if reset else before.get("feature_names_in_")
        names = None if fitted is None else tuple(fitted)
        with sources.opened(X, max_memory=max_memory, names=names) as source:
            source.read_within(max_memory)
            yield _matched(estimator, X, source, reset)
        finished = True
    finally:
        if not finished:
            vars(estimator).update(before)
            for name in _SET:
                if name not in before:
                    vars(estimator).pop(name, None)


def replace_fitted(estimator: Any, results: dict[str, Any], private: frozenset[str] = frozenset()) -> None:
    """Set all fitted attributes at once; those of an earlier fit that are not among them go.

    results : attributes by name;  private : names of fitted attributes that do not end in an underscore
    Parameters, scikit-learn's settings and what `validate_data` has set stay.  The dictionary of attributes is
    exchanged in one step, so that an interrupt leaves either the old ones or the new ones.
    """
    kept = {
        name: value
        for name, value in vars(estimator).items()
        if name in _SET or not (name in private or name.endswith("_"))
    }
    estimator.__dict__ = {**kept, **results}


def _matched(estimator: Any, X: Any, source: sources.Source, reset: bool) -> sources.Source:
    """The source, with its columns in the order of the names that the estimator was fitted to, where both have some.

    Frames of pandas keep scikit-learn's contract, which `validate_data` is: another order is an error.
    """
    as_it_is = containers.is_pandas(X) and X.shape[1] == source.n_features  # no column of lists
    if as_it_is or isinstance(X, np.ndarray):
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return source
    width = np.empty((0, source.n_features))
    fitted = getattr(estimator, "feature_names_in_", None)
    if not reset and fitted is not None and source.names is not None:
        return source.with_names(fitted)
    if not reset and source.names is not None:
        warnings.warn(
            f"X has feature names, but {type(estimator).__name__} was fitted without feature names", stacklevel=5
        )
    validate_data(estimator, width, skip_check_array=True, reset=reset)
    if reset and source.names is not None:
        estimator.feature_names_in_ = np.array(source.names, dtype=object)
    return source
