"""How rounding errors of sums in the compute dtype add up: what a pass measures, and from where on it is too much.

Errors of a long sum are mostly independent and then grow like the root of its length.  In some data (equal rows, for
one) they all have one sign.  So passes make some sums twice, in the compute dtype and more exactly, and compare: the
root mean square of the differences, in units of roundoff, is called the drift.  operators/certificate.py turns it into
allowances of the certificate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Runs(NamedTuple):
    """The longest sums that a backend makes in the compute dtype: over the lines of a tile, over a line's entries.

    unblocked : a product of at most so many multiplications sums all entries of a line in one run
    """

    lines: int
    entries: int
    unblocked: float = 0.0


# The runs at which the certificate's constants were measured: the CPU backend's.
MEASURED_RUNS = Runs(lines=128, entries=384)

# Above this drift errors are taken to add up.  Where they are independent, a sum of positive numbers over a tile is off
# by 2.6 roundoffs of itself (standard deviation), and over more tiles by less.  Of equal numbers it may be off by 80.
LARGEST_DRIFT = 6.0
# With fewer sums than this the measured drift is multiplied by _FEW, and where a few are much larger than the others
# by _FEW_LARGE.
FEWEST_SUMS = 12
_FEW, _FEW_LARGE = 3.0, 1.5
# Lines with fewer entries than this are multiplied in float64, which costs little beside loading them: so few sums say
# little about the others.
FEW_ENTRIES = 32
# A sum of squares about the mean, in float64, that is below this share of the sum about the shift is rounding.
_LOST = 2.0**-44


class Differences(NamedTuple):
    """What sums are off by, in shares r_j of what they may be off in proportion to, q_j.

    n_wrong : how many are off;  squares : sum of r_j^2;  largest : most |r_j|
    sized, size, size_squares : sums of q_j r_j^2, of q_j and of q_j^2.
    """

    n_wrong: int
    squares: float
    largest: float
    sized: float
    size: float
    size_squares: float


def drift_of(wrong: np.ndarray, of: np.ndarray, itemsize: int) -> float:
    """The drift of some sums, in roundoffs: above LARGEST_DRIFT errors are not independent.

    wrong : (k,) how far sums are off that were made as products are: line by line, tile by tile
    of : (k,) what they may be off in proportion to, > 0 where they are wrong;  itemsize : of the dtype of the sums
    """
    with np.errstate(all="ignore"):
        relative = np.divide(wrong, of, out=np.zeros(wrong.size), where=wrong != 0.0)
        squares = relative * relative
        found = Differences(
            int(np.count_nonzero(wrong)), float(squares.sum()), float(np.abs(relative).max(initial=0.0)),
            float(squares @ of), float(of.sum()), float(of @ of),
        )  # fmt: skip
        return drift_of_differences(found, itemsize)


def drift_of_differences(found: Differences, itemsize: int) -> float:
    """`drift_of`, from what sums are off by.

    Sums that are exact say nothing, and few sums say little.  A few large ones may be off where many small ones are
    not: the large ones rule the matrix, so the mean by size counts too.
    """
    if not found.n_wrong:
        return 0.0
    usual = math.sqrt(found.squares / found.n_wrong)
    if found.n_wrong < FEWEST_SUMS:
        usual *= _FEW
    by_size = math.sqrt(found.sized / found.size) if found.size > 0.0 else math.inf
    if found.size**2 < FEWEST_SUMS * found.size_squares:
        by_size *= _FEW_LARGE
    drift = max(usual, by_size, 0.5 * found.largest) / roundoff(itemsize)
    return drift if drift >= 0.0 else math.inf  # nan: sums have overflowed


def constant_floor(
    sums: np.ndarray, squares: np.ndarray, weight: float, floor: np.ndarray | None, itemsize: int
) -> np.ndarray | None:
    """`floor`, and for float64 at least the mean square where a feature is one number throughout the chunk.

    The shift is then that number but for rounding.  The sum of squares about it is tiny, and may be off; about the mean
    it is zero, and the error's share of it infinite.  That is left so for float32, which is summed again in float64, or
    refined.

    sums, squares : (n,) of the chunk, about the shift;  weight : of its lines
    floor : (n,) a variance that is taken where the chunk's own is smaller, or None
    """
    if itemsize == 4:
        return floor
    with np.errstate(over="ignore", invalid="ignore"):
        is_constant = squares - sums * sums / weight <= _LOST * squares
        return np.maximum(np.where(is_constant, squares / weight, 0.0), 0.0 if floor is None else floor)


def lost_share(itemsize: int) -> float:
    """The share of the sum about the shift below which `constant_floor` takes a feature for a constant; -1: none is."""
    return -1.0 if itemsize == 4 else _LOST


def uneven_drift(drift: float) -> float:
    """The drift of sums of two features' products where weights are uneven: half as much again as squares show.

    A drift of at most LARGEST_DRIFT stays within it: the allowance grows, but no product is repeated in float64.
    """
    return min(1.5 * drift, max(drift, LARGEST_DRIFT))


def fewest_lines(squares: np.ndarray, fourths: np.ndarray) -> float:
    """The fewest lines that make up a sum of squares, as if of equal ones: (sum of y^2)^2 / sum of y^4; inf of none.

    squares, fourths : (k,) sums of squares and of fourth powers
    """
    used = fourths > 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.min(squares[used] / fourths[used] * squares[used], initial=math.inf))


def roundoff(itemsize: int) -> float:
    """The unit roundoff of float32 or float64."""
    return 2.0**-24 if itemsize == 4 else 2.0**-53
