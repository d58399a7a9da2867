"""What a figure of a paper is here: its configuration, what it measures, and the published numbers beside ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lae_fast import LinearAutoencoder, Moments
from lae_fast.errors import ConvergenceWarning

SEEDS, QUICK_SEEDS = range(5), range(2)


@dataclass(frozen=True)
class Row:
    """One published number, or statement, and what we obtain.

    published : as in the paper, in words or a number;  obtained : one value for each seed;  holds : whether they agree
    """

    what: str
    published: str
    obtained: list[float]
    holds: bool


@dataclass(frozen=True)
class Outcome:
    """rows : the comparison;  data : what a plot needs, lists and numbers by name;  note : deviations, with reasons"""

    rows: list[Row]
    data: dict[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure: `make(quick, report)` measures it.

    name : on the command line;  source : paper and figure;  configuration : by name, as published
    """

    name: str
    source: str
    configuration: dict[str, Any]
    make: Callable[[bool, Callable[[int, int], None]], Outcome] = field(repr=False)


def quietly(model: LinearAutoencoder, moments: Moments) -> LinearAutoencoder:
    """The model, fitted; a penalty that removes components gives no warning, for that is what is shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(moments)


def matrix_of(singular_values: Any, n_rows: int, seed: int) -> np.ndarray:
    """A matrix (n_rows, d) with these singular values and random singular vectors."""
    rng, d = np.random.default_rng(seed), len(singular_values)
    left = np.linalg.qr(rng.standard_normal((n_rows, d)))[0]
    right = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.asarray((left * np.asarray(singular_values, dtype=np.float64)) @ right.T)
