"""Means that keep what merging needs: means.py against fractions, and moments of rows that outweigh all others."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lae_fast.operators import means
from lae_fast.operators.moments import Moments

NUMBERS = st.floats(-1e100, 1e100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-100)
# powers of two, so that shares are exact
WEIGHTS = st.sampled_from([0.0, 2.0**-30, 1.0, 2.0**30])


def exactly(mean):
    return Fraction(float(mean.high[0])) + Fraction(float(mean.low[0]))


def made(high, low):
    return means.exact_sum(np.array([high]), np.array([low]))


@given(NUMBERS, NUMBERS)
def test_an_exact_sum_leaves_nothing(a, b):
    mean = made(a, b)
    assert exactly(mean) == Fraction(a) + Fraction(b)
    assert abs(mean.low[0]) <= 2.0**-53 * abs(mean.high[0])


@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), WEIGHTS, WEIGHTS)
def test_means_and_their_distance_keep_twice_the_digits(a, b, tiny, weight, other):
    one, two = made(a, 1e-20 * b), made(a + 1e-9 * tiny, 1e-20 * tiny)
    apart = exactly(one) - exactly(two)
    largest = max(abs(exactly(one)), abs(exactly(two)))
    assert abs(Fraction(float(means.distance(one, two)[0])) - apart) <= 2**-51 * abs(apart) + 2**-103 * largest
    if weight + other > 0:
        mean = means.joined(one, two, weight, other, means.distance(two, one))
        share = Fraction(other) / (Fraction(weight) + Fraction(other))
        exact = exactly(one) - apart * share
        assert abs(exactly(mean) - exact) <= 2**-50 * abs(apart) * min(share, 1 - share) + 2**-101 * largest


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs extended precision as the truth for float64")
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("heavy", [1e4, 1e8])
def test_moments_of_rows_that_outweigh_all_others_merge_without_loss(heavy, center):
    """Columns that only light rows vary in keep all digits, whichever rows come first, and however far off they lie."""
    rng = np.random.default_rng(0)
    eps = np.finfo(float).eps
    for _ in range(10):
        X, w = rng.standard_normal((26, 8)) + rng.choice([0.0, 10.0], 8), np.ones(26)
        rows = rng.choice(26, 2, replace=False)
        X[rows, 2:] = X[rows[0], 2:]
        w[rows] = heavy
        blocks = np.split(np.arange(26), np.sort(rng.integers(0, 27, 3)))
        found = [Moments(8, center=center), Moments(8, center=center)]
        for block in blocks:
            found[rng.integers(2)].update(X[block], sample_weight=w[block]) if block.size else None
        exact = X.astype(np.longdouble)
        mean = w @ exact / w.sum()
        spread = ((exact - mean) * w[:, None]).T @ (exact - mean)
        scatter = (found[0] + found[1])._scatter / (found[0] + found[1])._factor ** 2
        size = np.sqrt(np.multiply.outer(spread.diagonal(), spread.diagonal()))
        assert (np.abs(scatter - spread) <= 60 * eps * size).all()
