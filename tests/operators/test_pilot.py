"""The pilot: shift, scale and variance of a sample of lines, against the same in plain steps."""

import math

import numpy as np
import pytest

from lae_fast.data import sources
from lae_fast.operators.pilot import coarse, pilot_view


def naive_variance(X, shift, scale):
    """Mean square about the shift, in scaled units, entry by entry."""
    out = []
    for column, c in zip(X.T, shift):
        out.append(sum((float(x) - float(c)) ** 2 * scale**2 for x in column) / len(column))
    return out


def naive_mean_and_deviation(X):
    """By exact sums: NumPy's rounding would give a column of equal entries a deviation."""
    mean = np.array([math.fsum(column) / len(column) for column in X.T])
    return mean, np.array([math.sqrt(math.fsum((column - c) ** 2) / len(column)) for column, c in zip(X.T, mean)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "mean"), [(1.0, 0.0), (1.0, 1e5), (1e-15, 0.0), (1e15, 3.0)])
def test_the_pilot_against_plain_steps(dtype, size, mean):
    rng = np.random.default_rng(0)
    X = (size * (rng.standard_normal((90, 6)) * [1, 2, 3, 1, 1e-3, 1] + mean)).astype(dtype)
    X[:, 3] = X[0, 3]
    view, variance = pilot_view(sources.as_source(X), None)
    exact = X.astype(np.float64)
    np.testing.assert_allclose(variance, naive_variance(exact, view.shift, view.scale), rtol=1e-9)
    mean, deviation = naive_mean_and_deviation(exact)
    assert view.shift.dtype == dtype and view.shift[3] == X[0, 3]
    rounding = np.finfo(dtype).eps * np.abs(exact).max(axis=0)
    assert (np.abs(view.shift - mean) <= deviation / 4 + rounding).all()
    assert 0.5 < np.sqrt(variance.mean()) < 2.0


@pytest.mark.parametrize("size", [1e-140, 1e140])
def test_a_pilot_whose_squares_leave_the_usual_range(size):
    X = size * np.random.default_rng(0).standard_normal((60, 4))
    view, variance = pilot_view(sources.as_source(X), None)
    assert np.log2(view.scale) == round(np.log2(view.scale))
    np.testing.assert_allclose(variance, naive_variance(X * view.scale, view.shift * view.scale, 1.0), rtol=1e-9)


@pytest.mark.parametrize("size", [1e-170, 1e170])
def test_a_pilot_out_of_range_is_refused(size):
    X = size * np.random.default_rng(0).standard_normal((60, 4))
    with pytest.raises(ValueError, match="leave the range of float64"):
        pilot_view(sources.as_source(X), None)


def test_an_outlier_first_does_not_spoil_the_pilot():
    X = np.random.default_rng(0).standard_normal((200, 3))
    X[0] = 1e9
    view, variance = pilot_view(sources.as_source(X), None)
    np.testing.assert_allclose(variance, naive_variance(X, view.shift, view.scale), rtol=1e-9)


def test_coarse_leaves_what_has_no_deviation():
    mean = np.array([0.1, -3.7, 1e300, 5.0])
    np.testing.assert_array_equal(coarse(mean, np.zeros(4)), mean)
    assert coarse(np.array([5.3]), np.array([8.0]))[0] == 6.0
