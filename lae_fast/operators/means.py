"""Means with twice the digits of float64, so that moments merge without loss.

Where a few rows outweigh all others, merging multiplies the distance of two means by the large weight, and columns that
hardly vary under these weights show what rounding has left of it.  So a mean is kept as an unevaluated sum, and its
distance from another one is right to rounding of the distance, not of the means.  (docs/pca.md, "Merging moments")
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Means further apart than 2 to this power, in scaled units, are merged at a new scale.
_FAR_EXPONENT = 200


class Mean(NamedTuple):
    """high + low, both (n,) float64, with |low| at most half of the last place of high."""

    high: np.ndarray
    low: np.ndarray


def exact_sum(a: np.ndarray, b: np.ndarray) -> Mean:
    """a + b without rounding (Knuth 1969): the rounded sum, and what rounding left."""
    high = a + b
    of_b = high - a
    return Mean(high, (a - (high - of_b)) + (b - of_b))


def distance(one: Mean, other: Mean) -> np.ndarray:
    """one - other, right to a few roundoffs of itself."""
    high, left = exact_sum(one.high, -other.high)
    return high + (left + (one.low - other.low))


def joined(one: Mean, other: Mean, weight: float, other_weight: float, apart: np.ndarray) -> Mean:
    """The mean of the rows of both, of which `weight` and `other_weight` are the sums of weights; not both zero.

    apart : distance(other, one).  The heavier one moves, by less than the half of it.
    """
    total = weight + other_weight
    start, step = (one, other_weight / total) if weight >= other_weight else (other, -weight / total)
    high, left = exact_sum(start.high, apart * step)
    return exact_sum(high, left + start.low)


def common_scale(one: float, other: float, offset: np.ndarray) -> float:
    """The scale at which neither of two scatters nor the distance of their means overflows: a power of two."""
    scale = min(one, other)
    _, exponent = np.frexp(np.abs(offset).max(initial=0.0) * scale)
    return float(np.ldexp(scale, -int(exponent))) if exponent > _FAR_EXPONENT else scale
