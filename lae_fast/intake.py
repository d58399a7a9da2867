"""What every estimator does with X first: open it, and check its width and column names.

May import sources; scikit-learn's validation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from . import files, sources, validation

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
        with sources.opened(X) as source:
            source.read_within(validation.memory_bytes(getattr(estimator, "max_memory", None)))
            validate_data(estimator, _named(X, source), skip_check_array=True, reset=reset)
            yield source
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


def _named(X: Any, source: sources.Source) -> Any:
    """What has the width and, where there are any, the names of the columns."""
    if isinstance(source, sources.BlockSource):
        return np.empty((0, source.n_features))
    return source if sources.is_path(X) or isinstance(X, (sources.Source, files.Source)) else X
