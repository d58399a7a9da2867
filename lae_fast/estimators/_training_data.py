"""What LinearAutoencoder is trained on: X, targets and weights, or moments; opened and checked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..data import sources
from ..operators.moments import Moments
from ._base import SET_BY_VALIDATION, Estimator, weighed


class Given(NamedTuple):
    """X, targets and weights of a fit, the first two opened or moments, and the width q of Y."""

    data: Any
    targets: sources.Source | None
    weights: np.ndarray | None
    n_targets: int


@contextlib.contextmanager
def given_for(estimator: Estimator, X: Any, targets: Any, sample_weight: Any) -> Iterator[Given]:
    """What a fit is given, opened and checked."""
    if not isinstance(X, Moments):
        with estimator._opened(X) as source, opened_targets(targets, source) as target_source:
            weights = weighed(source, sample_weight).weights
            n_targets = (source if target_source is None else target_source).n_features
            yield Given(source, target_source, weights, n_targets)
        return
    if targets is not None or sample_weight is not None:
        what = "targets" if targets is not None else "sample_weight"
        raise ValueError(f"X is Moments, which have {what} in them: pass {what} to Moments.from_data.")
    if X.n_counted < 2:
        raise ValueError(f"The moments are those of {X.n_samples} sample(s): a variance needs at least 2.")
    attributes = estimator.__dict__
    before = {name: attributes.pop(name) for name in SET_BY_VALIDATION if name in attributes}
    finished = False
    try:
        estimator._set_features(X.n_features, X.feature_names)
        yield Given(X, None, None, X.n_targets or X.n_features)
        finished = True
    finally:
        if not finished:
            for name in SET_BY_VALIDATION:
                attributes.pop(name, None)
            attributes.update(before)


@contextlib.contextmanager
def opened_targets(targets: Any, source: sources.Source) -> Iterator[sources.Source | None]:
    """The source of Y, open for as long as the context lasts, or None; it must have a row for each row of X."""
    if targets is None:
        yield None
        return
    with sources.opened(targets, "targets") as target_source:
        n_lines = source.n_lines(False)
        if math.isfinite(n_lines) and target_source.n_lines(False) != n_lines:
            raise ValueError(
                f"targets has {target_source.shape[0]} rows, but X has {n_lines}: pass one row per row of X."
            )
        yield target_source
