"""Ratios of times that differ by a few per cent, with an interval: short runs in turns, lower quartiles, a bootstrap.

What disturbs a run on a shared machine only makes it longer, so the lower quartile of many short runs is steadier than
their median. How arrays happen to lie in memory moves a time by a per cent or two and no number of runs takes that
away, so contestants are made anew several times ("placements"), and the bootstrap draws placements first, then the
rounds within each. Imports NumPy and the standard library only.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import numpy as np

# One in so many draws may lie beyond an interval, half on each side.
LEVEL = 0.95


def rounds(work: Sequence[Callable[[], object]], n: int, clock: Callable[[], float]) -> np.ndarray:
    """Seconds (n, len(work)) of `n` rounds in which each runs once, in a shuffled order, the same in every program."""
    seconds = np.empty((n, len(work)))
    rng = np.random.default_rng(n)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection inside a run would be charged to whoever happens to run
    try:
        for row in seconds:
            for k in rng.permutation(len(work)):
                begin = clock()
                work[k]()
                row[k] = clock() - begin
    finally:
        if collecting:
            gc.enable()
    return seconds


def log_ratio(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Mean over placements of the logarithm of (lower quartile of mine / lower quartile of theirs).

    mine, theirs : (..., placements, rounds) -> (...)
    """
    low = [np.percentile(seconds, 25, axis=-1) for seconds in (mine, theirs)]
    return np.mean(np.log(low[0] / low[1]), axis=-1)


def draws(mine: np.ndarray, theirs: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`log_ratio` as measured, then of `n` bootstrap samples: (n + 1,).

    mine, theirs : (placements, rounds), a round's two times at the same place: rounds are drawn as pairs.
    """
    placements, size = mine.shape
    where = rng.integers(placements, size=(n, placements, 1))
    which = rng.integers(size, size=(n, placements, size))
    return np.concatenate([[log_ratio(mine, theirs)], log_ratio(mine[where, which], theirs[where, which])])


def interval(values: np.ndarray) -> dict[str, float]:
    """From a value and its bootstrap samples, (n + 1,): {"value", "low", "high"}."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def ratio(values: np.ndarray) -> dict[str, float]:
    """`interval` of `draws`, as a ratio."""
    return interval(np.exp(values))


def slope(places: Sequence[float], values: np.ndarray) -> dict[str, float]:
    """By how much a ratio grows when its place grows tenfold, by least squares; an interval.

    places : (k,), positive;  values : (k, n + 1), the `draws` at each place.
    """
    x = np.log10(np.asarray(places, dtype=np.float64))
    x -= x.mean()
    return interval(x @ np.exp(values) / (x @ x))
