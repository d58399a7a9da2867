"""Fixtures of the tests of descriptions."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.oracle import naive_autoencoder as naive
from tests.oracle.rule_cases import D, Q


@pytest.fixture
def moments():
    """(Sxx, Sxy) of 40 centred samples with targets of another width, scale mean."""
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(40, D)) * np.sqrt(np.arange(D, 0, -1)), rng.normal(size=(40, Q))
    y = y + x[:, :Q]
    x, y = x - x.mean(0), y - y.mean(0)
    return x.T @ x / 40, x.T @ y / 40


@pytest.fixture
def samples():
    """Weighted centred samples with targets of width 4, and their moments as a duck-typed object."""
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.5, 2.0, 25)
    x = rng.normal(size=(25, 5)) * np.sqrt([6.0, 4.0, 2.5, 1.2, 0.5])
    y = x @ rng.normal(size=(5, 4)) + rng.normal(size=(25, 4))
    x, y = x - np.average(x, axis=0, weights=weights), y - np.average(y, axis=0, weights=weights)
    sxx, sxy, yy = naive.second_moments(x, y, weights)
    shared = {"n_samples": 25, "weight_sum": float(weights.sum()), "xx": sxx}
    return SimpleNamespace(
        x=x,
        y=y,
        weights=weights,
        own=SimpleNamespace(**shared, xy=None, yy_trace=float(np.trace(sxx))),
        target=SimpleNamespace(**shared, xy=sxy, yy_trace=yy),
    )
