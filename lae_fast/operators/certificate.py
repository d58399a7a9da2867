"""Allowances for rounding, the second part of every certificate; NumPy on small results.

A certificate is the residual as measured in float64 plus an allowance for the rounding of what it was measured
against.  The allowance is a model, not a worst case (that would be useless: n eps): errors of a hierarchical sum grow
like the root of its longest run, here a tile of at most 128 lines, and errors of different runs are independent (Higham
and Mary 2019).  The constants below are in units of roundoff, above the largest error seen over heavy tails,
outliers, discrete, constant and far-off data (tests/oracle/certificate_cases.py; docs/pca.md, "Certificates").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..backends.drift import LARGEST_DRIFT, MEASURED_RUNS, Runs, roundoff

# Of a Gram: entries whose products have one sign, and others (`gram_rounding`).
_GRAM_COHERENT, _GRAM_INCOHERENT = 4.0, 1.5
# The worst case: errors of equal products, which all have one sign and are half a unit in the last place each.  Of a
# Gram and of the image of a pass, over a run of 128 lines in a tile and its 32 tiles in a chunk; of the product of a
# line, in shares of its entries.
_GRAM_WORST, _PASS_WORST, _ENTRIES_WORST = 80.0, 80.0, 0.5
# Of a pass: its image, a line's product, a line that dominates a component, and the vectors as they are stored.
_PASS_COHERENT, _PASS_PROJECTION, _PASS_ROW, _PASS_STORED = 2.4, 0.56, 1.12, 2.0
# In float64 three things err alike: chunks, the totals over chunks with their merging, and the mean that is taken off
# or put back.
_MERGED = 3.0
# A standardized Gram errs by its own rounding, and by that of the deviations on both of its sides.
_STANDARDIZED = 4.0
# Deviations are roots of sums of squares in float64 over tiles and chunks: their rounding.
_DEVIATIONS = 4.0
_ROWS_AT_ONCE = 256
# A sum of n independent positive numbers is off by 0.23 sqrt(n) roundoffs (standard deviation): more than _INDEPENDENT
# sqrt(n) says that errors add up.  A sum of equal numbers is off by up to _EQUAL_PRODUCTS n.
_INDEPENDENT, _EQUAL_PRODUCTS = 1.0, 0.35
# Numbers whose first so many bits agree are taken for equal.
_EQUAL_BITS = 10
# Multiples of the numbers that are looked at, because rounding depends on their last digits.
_FACTORS = (1.0, 1.0718, 1.1547, 1.2599, 1.3819, 1.4983, 1.6180, 1.8279)


class GramSums(NamedTuple):
    """How a Gram matrix was summed.

    itemsize : of the dtype that summed least exactly;  lines : the most that were summed in it, 0 for none
    drift : of such sums (`drift` of the backends); where it is large the allowance is the worst case
    diagonal : (n,) of what was summed in float64 before the mean was taken off; None: that of the matrix
    longest : the longest sum of that kind
    """

    itemsize: int
    lines: int = MEASURED_RUNS.lines
    drift: float = 0.0
    diagonal: np.ndarray | None = None
    longest: int = 0


class Products(NamedTuple):
    """How a pass multiplied and summed.

    itemsize : of the dtype of its products;  stored : of the dtype of the vectors
    drift : of sums over lines (`drift` of the backends); where it is large the allowance is the worst case
    """

    itemsize: int
    stored: int
    drift: float


class EntrySums(NamedTuple):
    """How long a pass over stored entries summed.

    longest : stored entries of the longest line;  run : longest sum of lines in the compute dtype
    row : largest weighted square of a line
    cancelled : where entries were divided by deviations, sums of squares over what the mean left of them, at most
    """

    longest: int
    run: int
    row: float
    cancelled: float


def gram_rounding(
    matrix: np.ndarray, vectors: np.ndarray, values: np.ndarray, sums: GramSums, standardize: bool = False
) -> np.ndarray:
    """Allowance for |E u_i|, E the rounding of a Gram matrix.

    matrix : (n, n);  vectors : (n, p);  values : (p,)
    standardize : the matrix was divided by deviations that are its own, which err as its diagonal does

    An entry whose products have one sign errs in proportion to itself, and where columns are nearly multiples of each
    other such errors add up: `together`, in which the squared correlation counts how nearly.  Other entries err
    independently, in proportion to the norms of their two columns: `spread`; one row may hold all of a component, so
    nothing is taken off for averaging.
    Returns (p,) in the units of the matrix.  4 n^2 + 2 n^2 p flops.
    """
    magnitudes = np.abs(vectors.astype(np.float64))
    weights = magnitudes**2
    diagonal = np.maximum(matrix.diagonal(), 0.0)
    trace, along = diagonal.sum(), diagonal @ weights
    spread = np.sqrt(trace * along)
    squares, coherent = _together(matrix, diagonal, magnitudes)
    together = np.sqrt(np.maximum(squares @ weights, coherent))
    together += values
    factor = (_MERGED if sums.itemsize == 8 else 1.0) * (_STANDARDIZED if standardize else 1.0)
    growth = factor * _growth(sums.lines)
    model = growth * _GRAM_COHERENT * together + growth * max(_GRAM_INCOHERENT, sums.drift) * spread
    if sums.drift > LARGEST_DRIFT:
        model = np.maximum(model, factor * _GRAM_WORST * spread)
    # sums in float64, and that of the residual
    double, longest, worst = together, MEASURED_RUNS.lines, 1.0
    if sums.diagonal is not None:
        longest = max(sums.longest, longest)
        double = together + np.sqrt(sums.diagonal.sum() * (sums.diagonal @ weights))
    if not sums.lines or sums.itemsize == 4:
        worst = _GRAM_WORST * _growth(longest)
    return roundoff(sums.itemsize) * model + roundoff(8) * worst * double


def _together(matrix: np.ndarray, diagonal: np.ndarray, magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares of the columns (n,), and | (|S_ij| rho_ij^2) |u_k| |^2 (p,), rho_ij = S_ij / sqrt(s_ii s_jj).

    By blocks of rows, in units of the largest entry, or cubes would leave the range of float64.
    """
    unit = float(diagonal.max(initial=0.0)) or 1.0
    inverse = unit / np.where(diagonal > 0.0, diagonal, np.inf)[:, None]
    right = inverse * magnitudes
    squares, coherent = np.zeros(diagonal.size), np.zeros(magnitudes.shape[1])
    for first in range(0, diagonal.size, _ROWS_AT_ONCE):
        rows = matrix[first : first + _ROWS_AT_ONCE] / unit
        block = rows * rows
        squares += np.add.reduce(block)
        block *= np.abs(rows)
        products = block @ right
        products *= inverse[first : first + _ROWS_AT_ONCE]
        coherent += np.einsum("ij,ij->j", products, products)
    return unit * squares * unit, unit * coherent * unit


def pass_rounding(
    diagonal: np.ndarray,
    vectors: np.ndarray,
    values: np.ndarray,
    made: Products,
    lines: int,
    runs: Runs,
    standardize: bool,
) -> np.ndarray:
    """Allowance for the rounding of S u_i as a pass over rows computes it, X'(X u), and of storing u_i afterwards.

    diagonal : (n,) of S;  vectors : (n, p);  values : (p,) descending
    lines : fewest in one product;  runs : the longest sums in the dtype of the products
    standardize : entries were divided by deviations, which err too

    The term of `row` is for a component that one line dominates: its projection errs like the root of its run, and no
    other line's error offsets that.  Returns (p,) in the units of `values`.
    """
    if not values.size:
        return values
    along = np.sqrt(diagonal @ vectors.astype(np.float64) ** 2)
    n = float(diagonal.size)
    projection = np.sqrt(min(n, runs.entries) / 6.0) * along * np.sqrt(values[0])
    run = min(n, max(runs.entries, runs.unblocked / (max(lines, 1) * values.size)))
    row = np.sqrt(run / 6.0) * np.sqrt(values * values[0])
    image = max(_PASS_COHERENT * _growth(runs.lines), 2.0 * min(made.drift, LARGEST_DRIFT)) * values
    rounding = image + _PASS_PROJECTION * projection + _PASS_ROW * row
    if made.itemsize == 8:
        rounding = _MERGED * rounding
    rounding = rounding + _entry_drift(vectors, int(min(run, n)), made.itemsize) * (along * np.sqrt(values[0]) + values)
    if standardize:
        rounding = rounding + _DEVIATIONS * (along * np.sqrt(values[0]) + values)
    if made.drift > LARGEST_DRIFT:
        worst = (_PASS_WORST + _ENTRIES_WORST * min(n, runs.entries)) * along * np.sqrt(values[0])
        rounding = np.maximum(rounding, worst)
    return roundoff(made.itemsize) * rounding + roundoff(made.stored) * _PASS_STORED * values[0]


def sparse_rounding(
    diagonal: np.ndarray, vectors: np.ndarray, values: np.ndarray, made: Products, sums: EntrySums
) -> np.ndarray:
    """Allowance for the rounding of S u_i as a pass over stored entries computes it, and of storing u_i afterwards.

    diagonal : (n,) of S about zero, because entries are multiplied before they are centred
    vectors : (n, p);  values : (p,) descending

    A line's product errs like the root of its entries; an image errs like the root of its run, in proportion to the
    component (`run / 3`, a sum that drifts) and to the lines that it sums (`run / 4`, a sum that does not).
    Returns (p,) in the units of `values`.
    """
    if not values.size:
        return values
    longest, run, row, cancelled = sums
    along = np.sqrt(diagonal @ vectors.astype(np.float64) ** 2)
    projection = np.sqrt(longest / 6.0) * (along * np.sqrt(values[0]) + np.sqrt(values * values[0]))
    image = np.sqrt(run / 3.0) * values + np.sqrt(run / 4.0) * np.sqrt(row * values)
    rounding = max(_PASS_COHERENT, 2.0 * min(made.drift, LARGEST_DRIFT)) * values + projection + image
    if cancelled:
        double = roundoff(8) / roundoff(made.itemsize) * _GRAM_WORST
        rounding = rounding + (_DEVIATIONS + double * cancelled) * (along * np.sqrt(values[0]) + values)
    if made.drift > LARGEST_DRIFT:
        worst = (_PASS_WORST * _growth(2 * run) + _ENTRIES_WORST * longest) * (along * np.sqrt(max(row, values[0])))
        rounding = np.maximum(rounding, worst)
    return roundoff(made.itemsize) * rounding + roundoff(made.stored) * _PASS_STORED * values[0]


def _entry_drift(vectors: np.ndarray, run: int, itemsize: int) -> np.ndarray:
    """(p,) how far sums of a run may be off, in roundoffs, where errors add up over the entries of a line; else zero.

    A line that is a multiple of a component has products in proportion to u_ij^2, j = 1..n.  Where many entries of the
    component are of one magnitude, their products are equal, and so is their rounding: what these hold of the whole may
    be off by the worst case.  Where sums of multiples of the squares show it, because rounding depends on the last
    digits, the whole may.
    """
    n, p = vectors.shape
    dtype = np.float32 if itemsize == 4 else np.float64
    squares = vectors.astype(np.float64) ** 2
    found = np.zeros(p)
    for factor in _FACTORS:
        products = (factor * squares).astype(dtype)
        wrong, total = np.zeros(p), np.zeros(p)
        for first in range(0, n, run):
            part = products[first : first + run]
            exact = part.sum(axis=0, dtype=np.float64) if itemsize == 4 else _pairwise(part)
            wrong += part.cumsum(axis=0, dtype=dtype)[-1] - exact
            total += exact
        found = np.maximum(found, np.abs(np.divide(wrong, total, out=np.zeros(p), where=total > 0)))
    adds_up = found > _INDEPENDENT * np.sqrt(run) * roundoff(itemsize)
    return np.where(adds_up, _EQUAL_PRODUCTS * run, _equal_products(squares, run))


def _equal_products(squares: np.ndarray, run: int) -> np.ndarray:
    """(p,) how far a sum of each column's numbers may be off for those that are equal, or nearly, in roundoffs.

    Numbers count as equal that share the first `_EQUAL_BITS` bits and the last two of the exponent: their own or, as
    equal ones may lie on both sides of an edge, those of 1.0004 times as much.
    """
    most = np.zeros(squares.shape[1])
    for scaled in (squares, 1.0004 * squares):
        keys = (np.ascontiguousarray(scaled.T).view(np.int64) >> (52 - _EQUAL_BITS)) & 0xFFF
        for j, (column, weights) in enumerate(zip(keys, squares.T)):
            count, share = np.bincount(column), np.bincount(column, weights)
            most[j] = max(most[j], float((np.minimum(count, run) * share).max()))
    total = squares.sum(axis=0)
    return _EQUAL_PRODUCTS * np.divide(most, total, out=np.zeros(total.size), where=total > 0.0)


def _pairwise(part: np.ndarray) -> np.ndarray:
    """Sums of columns, pairwise."""
    while part.shape[0] > 1:
        odd = part[-1:] if part.shape[0] % 2 else part[:0]
        part = np.concatenate([part[0 : part.shape[0] - 1 : 2] + part[1::2], odd])
    return part[0]


def _growth(lines: int) -> float:
    """How much more a sum over this many lines is off than at the measured run."""
    return math.sqrt(lines / MEASURED_RUNS.lines)
