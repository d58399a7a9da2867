"""What passes and operators ask of weights, and of a chunk's weighted sums."""

from __future__ import annotations

import numpy as np

from .drift import fewest_lines

# Where fewer rows hold the weight, counted as if equal, rounding errors of the others do not count as independent.
_FEWEST_ROWS = 128.0


def mass(weights: np.ndarray, count: int) -> float:
    """The sum of weights, or `count` where there are none."""
    return float(weights.sum()) if weights.size else float(count)


def are_even(weights: np.ndarray) -> bool:
    """Whether weights that are not zero differ by a factor of 4 at most.

    What rows say without their weights, such as the pilot's variance, then holds for the weighted data too.
    """
    used = weights[weights > 0.0]
    return not used.size or bool(used.max() <= 4.0 * used.min())


def outweighed(weights: np.ndarray) -> bool:
    """Whether a few rows hold most of the weight: fewer than 128, and than a third of all, counted as if equal.

    The weighted mean is then theirs, and all other rows may lie on one side of it.  Where those rows repeat, so do
    their products, and rounding errors add up.  That shows in sums of products of two features, but not in sums of
    squares, in which the drift is measured.
    """
    with np.errstate(over="ignore"):
        few = fewest_lines(np.array([weights.sum()]), np.array([weights @ weights]))
    return few < min(_FEWEST_ROWS, weights.size / 3.0)


def shift_is_off(sums: np.ndarray, squares: np.ndarray, weight: float, floor: np.ndarray) -> bool:
    """Whether some entry's mean in a chunk is more than two standard deviations off the shift.

    sums, squares : (n,) of the chunk, about the shift;  weight : of its lines
    floor : (n,) a variance that the chunk's own counts as where it is smaller: the pilot's, or zeros
    """
    if not np.isfinite(squares).all():  # reported where they are used
        return False
    mean_square = (sums / weight) ** 2
    variance = np.maximum(squares / weight - mean_square, floor)
    return bool((mean_square > 4.0 * variance).any())
