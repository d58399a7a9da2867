"""What a figure of a paper is here: its configuration, how it is measured, what it must show, and how it is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lae_fast import LinearAutoencoder
from lae_fast.errors import ConvergenceWarning, DivergenceError

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # by case: what was measured with each seed


@dataclass(frozen=True)
class Row:
    """One published number, or statement, and what we obtain.

    published : as in the paper, in words or a number, or "-";  obtained : one value for each seed
    holds : whether what is obtained is what we expect
    differs : what we expect is not what is published, and the notes of the figure say why
    """

    what: str
    published: str
    obtained: list[float]
    holds: bool
    differs: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure of a paper, or a line of our own beside it.

    A figure has cases (models, optimizers, widths); a case is measured with each seed, stored, and not measured again.

    Attributes
    ----------
    name : on the command line
    title, source : what it shows; paper and figure
    configuration : by name, as published where `notes` do not say otherwise; what `measure` works from
    measure : (configuration, case, seed) -> lists and numbers by name
    compare : (configuration, runs) -> the rows of the comparison, of the cases that are there
    draw : (configuration, runs, pyplot) -> a figure of matplotlib
    cases : (configuration) -> their names
    quick : what `--quick` changes in the configuration
    seeds, quick_seeds : how many;  costly : (configuration, case) -> whether one seed must do, for the time it takes
    notes : deviations from the paper, with reasons
    table : (configuration, runs) -> a further table for the page, as lines of Markdown
    """

    name: str
    title: str
    source: str
    configuration: dict[str, Any]
    measure: Callable[[dict[str, Any], str, int], dict[str, Any]] = field(repr=False)
    compare: Callable[[dict[str, Any], Runs], list[Row]] = field(repr=False)
    draw: Callable[[dict[str, Any], Runs, Any], Any] = field(repr=False)
    cases: Callable[[dict[str, Any]], list[str]] = lambda configuration: ["all"]
    quick: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    quick_seeds: int = 1
    costly: Callable[[dict[str, Any], str], bool] = lambda configuration, case: False
    notes: tuple[str, ...] = ()
    table: Callable[[dict[str, Any], Runs], list[str]] | None = None

    def configured(self, quick: bool) -> dict[str, Any]:
        """The configuration of the full or of the quick run."""
        return self.configuration | (self.quick if quick else {})


def quietly(model: LinearAutoencoder, data: Any, **given: Any) -> LinearAutoencoder:
    """The model, fitted; a penalty that removes components gives no warning, for that is what is shown.

    A run that diverges keeps the weights of its last recording, which the figure then shows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return model.fit(data, **given)
        except DivergenceError:
            return model


def matrix_of(singular_values: Any, n_rows: int, seed: int) -> np.ndarray:
    """A matrix (n_rows, d) with these singular values and random singular vectors."""
    rng, d = np.random.default_rng(seed), len(singular_values)
    left = np.linalg.qr(rng.standard_normal((n_rows, d)))[0]
    right = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.asarray((left * np.asarray(singular_values, dtype=np.float64)) @ right.T)


def first_at_most(iterations: Sequence[int], values: Sequence[float], threshold: float) -> float:
    """The first recorded iteration whose value is at most the threshold; nan where none is."""
    return next((float(i) for i, value in zip(iterations, values) if value <= threshold), float("nan"))


def of_case(runs: Runs, case: str, key: str) -> list[float]:
    """One number of a case for each seed, nan for what JSON had no number for; empty where it was not measured."""
    return [float("nan") if run[key] is None else float(run[key]) for run in runs.get(case, [])]


def series(run: Mapping[str, Any], key: str) -> np.ndarray:
    """A recorded list as an array, with nan for what JSON had no number for."""
    return np.array([np.nan if value is None else value for value in run[key]], dtype=np.float64)
