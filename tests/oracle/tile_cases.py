"""Dtypes, shapes and layouts of the tests of tile kernels, and one call of a kernel with what it should give."""

from __future__ import annotations

import numpy as np

from lae_fast.data import sources
from tests.oracle import cases, naive
from tests.oracle.tolerances import tolerance

COMPUTE = [np.float32, np.float64]
# Every dtype compiles the kernels anew; the short run has the others in whole fits (tests/eigen/test_routes.py).
INPUT = [
    np.float32,
    np.float64,
    np.uint8,
    *cases.only_full(np.int8, np.int16),
]
# lines x entries: one of each, odd, one more and one less than the tile, several tiles
SHAPES = [(1, 1), (1, 5), (6, 1), (7, 3), (8, 4), (9, 5), (17, 6), (5, 13)]
TILE = 8
NOTHING = np.empty(0)
EVERY = np.empty(0, np.int64)
NO_OFFSET = {dtype: np.empty(0, dtype) for dtype in (np.float32, np.float64)}
NO_DRIFT = {dtype: (np.empty((0, 3), dtype), np.empty((0, 3))) for dtype in (np.float32, np.float64)}


def numbers(rng, shape, dtype):
    """Random numbers that use the dtype's range."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (3.0 + 2.0 * rng.standard_normal(shape)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -1000), min(info.max, 1000), shape, dtype=dtype, endpoint=True)


def partial(buffer):
    """The tile's own statistics: workspace of `tiles.load`."""
    return np.full((4, buffer.shape[1]), np.nan)


def learning(leading, learn=True):
    """Arguments of the pass kernels, with the flag that asks for statistics in its place."""
    return (*leading[:6], learn, *leading[6:])


def loading(leading, learn=True):
    """Arguments of `load`, which reads every entry here."""
    return (*leading[:6], learn, EVERY, *leading[6:])


def c_order(X):
    return np.ascontiguousarray(X)


def f_order(X):
    return np.asfortranarray(X)


def column_slice(X):
    wide = np.full((X.shape[0], X.shape[1] + 5), 77, X.dtype)
    wide[:, 2:-3] = X
    return wide[:, 2:-3]


def row_stride(X):
    tall = np.full((3 * X.shape[0], X.shape[1]), 77, X.dtype)
    tall[::3] = X
    return tall[::3]


def f_row_slice(X):
    tall = np.full((X.shape[0] + 4, X.shape[1]), 77, X.dtype, order="F")
    tall[1:-3] = X
    return tall[1:-3]


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def negative_strides(X):
    return X[::-1, ::-1].copy()[::-1, ::-1]


def both_strides(X):
    loose = np.full((2 * X.shape[0], 3 * X.shape[1]), 77, X.dtype)
    loose[::2, ::3] = X
    return loose[::2, ::3]


def other_endian(X):
    return X.astype(X.dtype.newbyteorder("S"))


LAYOUTS = [
    c_order,
    f_order,
    column_slice,
    row_stride,
    f_row_slice,
    read_only,
    negative_strides,
    both_strides,
    other_endian,
]


class Case:
    """One call of a tile kernel and what it should give; X is (samples, features)."""

    def __init__(self, rng, X, compute, *, by_feature=False, weighted=False, center=True, standardize=False):
        m, d = X.shape
        lines, n = (d, m) if by_feature else (m, d)
        self.compute, self.lines, self.n, self.by_feature = np.dtype(compute), lines, n, by_feature
        self.scale = 0.25
        weights = rng.integers(0, 4, m).astype(float) + 0.5 if weighted else None
        total = float(m) if weights is None else weights.sum()
        self.weights = NOTHING if weights is None else weights
        self.source = sources.ArraySource(X)
        plain = np.asarray(X, dtype=np.float64)
        if by_feature:
            denominator = float(self.compute.type(max(total - 1.0, 0.5))) if standardize else 0.0
            self.shift = np.array([1.0 if center else 0.0, denominator], self.compute)
            self.tile, self.sums, self.squares = naive.load(
                plain.T, True, None, self.scale, weights, center, denominator
            )
        else:
            self.shift = (rng.standard_normal(n) + (3.0 if center else 0.0)).astype(self.compute)
            self.shift *= 1.0 if center else 0.0
            self.tile, self.sums, self.squares = naive.load(plain, False, self.shift, self.scale, weights)

    def arguments(self, width=None):
        """The leading arguments of every tile kernel, and fresh statistics."""
        chunk = self.source.chunk(0, self.lines, self.by_feature)
        per = self.lines if self.by_feature else self.n
        sums, squares = np.zeros(per), np.zeros(per)
        leading = (chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, self.by_feature or None)
        return (*leading, self.shift, self.scale, self.weights), sums, squares

    def buffer(self, lines=TILE):
        return np.full((lines, self.n), np.nan, self.compute)

    def check_statistics(self, sums, squares):
        # a centred value is as wrong as the subtraction that made it: relative to |x| + |shift|, not to v
        X = np.abs(np.asarray(self.source.block(0, self.lines, self.by_feature), dtype=np.float64))
        largest = (X.max() + np.abs(self.shift).max()) * self.scale
        if self.by_feature:
            mass = self.weights.sum() if self.weights.size else self.n
            np.testing.assert_allclose(sums, self.sums, rtol=0, atol=tolerance("statistic", self.compute) * X.max())
        else:
            mass = self.weights.sum() if self.weights.size else self.lines
            np.testing.assert_allclose(
                sums, self.sums, rtol=0, atol=tolerance("statistic", self.compute) * mass * largest
            )
        np.testing.assert_allclose(
            squares, self.squares, rtol=0, atol=2 * tolerance("statistic", self.compute) * mass * largest**2
        )

    def close(self, found, expected, kind, *factors):
        """Entry by entry, relative to the product of the factors' absolute values."""
        bound = np.abs(factors[0])
        for factor in factors[1:]:
            bound = bound @ np.abs(factor)
        slack = tolerance(kind, self.compute) * (bound + bound.max())
        assert found.dtype == self.compute
        assert (np.abs(found.astype(np.float64) - expected) <= slack).all()
