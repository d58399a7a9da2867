"""What a chunk's Gram and its statistics say: whether they are finite, whether the shift serves, and how sums drift.

One kernel, because a chunk of a small matrix takes less time than the NumPy calls that would ask one after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...drift import Differences, lost_share
from ..jit import kernel


class Inspection(NamedTuple):
    """Of a chunk.

    finite : whether all sums are;  in_range : whether all entries of the diagonal of its Gram are
    is_off : whether the mean of some entry is more than two standard deviations off the shift, as of
        `sample_weights.shift_is_off`
    largest : sum of squares of an entry
    differences : how far the diagonal is off the sums of squares, in shares of those about the mean
    """

    finite: bool
    in_range: bool
    is_off: bool
    largest: float
    differences: Differences


def inspect(
    gram: np.ndarray,
    entries: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
    weight: float,
    floor: np.ndarray,
) -> Inspection:
    """The arguments are those of `inspect_chunk`."""
    lost = lost_share(gram.itemsize)
    finite, in_range, is_off, largest, *differences = inspect_chunk(gram, entries, sums, squares, weight, floor, lost)
    return Inspection(finite, in_range, is_off, largest, Differences(*differences))


@kernel
def inspect_chunk(gram, entries, sums, squares, weight, floor, lost):
    """Fields of `Inspection`, then those of drift.Differences.

    gram : (k, k) of `entries`, or of all;  entries : (k,) int64 or empty
    sums, squares : (n,) float64, see `tiles.load`;  weight : of the chunk's lines
    floor : (n,) float64, a variance that is taken where the chunk's is smaller;  empty: none, and no shift is off
    lost : below this share of the sum about the shift the sum of squares about the mean is that of a constant, whose
        mean square is taken (`drift.constant_floor`);  negative: none is
    Naive twin: lae_fast/backends/drift.py::drift_of.  Serial.
    """
    n, with_floor = sums.shape[0], floor.shape[0] > 0
    finite, in_range, is_off, largest = True, True, False, 0.0
    squares_finite = True
    for j in range(n):
        finite = finite and np.isfinite(sums[j])
        squares_finite = squares_finite and np.isfinite(squares[j])
        largest = max(largest, squares[j])
        if with_floor:
            mean = sums[j] / weight
            if mean * mean > 4.0 * max(squares[j] / weight - mean * mean, floor[j]):
                is_off = True
    count, total, most = 0, 0.0, 0.0
    sized, size, size_squares = 0.0, 0.0, 0.0
    for a in range(gram.shape[0]):
        j = entries[a] if entries.shape[0] > 0 else a
        in_range = in_range and np.isfinite(gram[a, a])
        wrong = abs(np.float64(gram[a, a]) - squares[j])
        of = squares[j] - sums[j] * sums[j] / weight
        if lost >= 0.0 and of <= lost * squares[j]:
            of = squares[j]
        if with_floor:
            of = max(of, weight * floor[j])
        of = max(of, 0.0)
        size += of
        size_squares += of * of
        if wrong != 0.0:
            relative = wrong / of if of > 0.0 else np.inf
            count += 1
            total += relative * relative
            sized += of * relative * relative
            most = max(most, relative)
    return finite, in_range, is_off and squares_finite, largest, count, total, most, sized, size, size_squares
