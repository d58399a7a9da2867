"""Every kernel of backends/cpu/passes/tiles.py and blas.py against its naive twin: dtypes, layouts, awkward shapes."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from lae_fast import kernels
from lae_fast.backends.cpu import blas, jit
from lae_fast.backends.cpu.passes import tiles, totals
from lae_fast.data import sources
from tests.oracle import cases, naive
from tests.oracle.tolerances import tolerance

COMPUTE = [np.float32, np.float64]
# Every dtype compiles the kernels anew; the short run has the others in whole fits (tests/eigen/test_solve.py).
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
        leading = (chunk.flat, chunk.line_stride, chunk.entry_stride, 0, chunk.count, self.by_feature)
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


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.each
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", INPUT, ids=lambda t: t.__name__)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
def test_load_reads_every_layout(rng, layout, dtype, by_feature, compute):
    """Without shift and scale a load is exact, whatever the strides."""
    X = numbers(rng, (9, 5), dtype)
    laid = layout(X)
    np.testing.assert_array_equal(laid, X)  # the layout itself
    case = Case(rng, laid, compute, by_feature=by_feature, center=False)
    leading, sums, squares = case.arguments()
    buffer = case.buffer(case.lines)
    tiles.load(*loading(leading)[:9], 1.0, NOTHING, buffer, partial(buffer), sums, squares)
    np.testing.assert_array_equal(buffer, (X.T if by_feature else X).astype(compute))


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("center", [False, True], ids=["raw", "centred"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_load_values_and_statistics(rng, compute, by_feature, weighted, center, shape):
    X = numbers(rng, shape, np.float32)
    case = Case(rng, X, compute, by_feature=by_feature, weighted=weighted, center=center)
    leading, sums, squares = case.arguments()
    buffer = case.buffer(case.lines)
    tiles.load(*loading(leading), buffer, partial(buffer), sums, squares)
    largest = (np.abs(X).max() + np.abs(case.shift).max()) * case.scale * 2
    np.testing.assert_allclose(buffer, case.tile, rtol=0, atol=tolerance("load", compute) * largest)
    case.check_statistics(sums, squares)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_load_standardizes_features_but_not_constant_ones(rng, compute, weighted):
    X = numbers(rng, (12, 4), np.float32)
    X[:, 2] = 5.0
    case = Case(rng, X, compute, by_feature=True, weighted=weighted, standardize=True)
    leading, sums, squares = case.arguments()
    buffer = case.buffer(case.lines)
    tiles.load(*loading(leading), buffer, partial(buffer), sums, squares)
    assert squares[2] == 0.0 and not buffer[2].any()
    np.testing.assert_allclose(buffer, case.tile, rtol=0, atol=tolerance("product", compute) * np.abs(case.tile).max())
    np.testing.assert_allclose((buffer[[0, 1, 3]].astype(float) ** 2).sum(axis=1), case.shift[1], rtol=1e-5)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("standardize", [False, True], ids=["centred", "standardized"])
def test_load_that_does_not_learn_reads_the_statistics(rng, compute, by_feature, weighted, standardize):
    """A second load with the first one's statistics gives the same tile and leaves them alone."""
    if standardize and not by_feature:
        pytest.skip("standardizing by sample scales the block, not the tile")
    X = numbers(rng, (12, 7), np.float32)
    case = Case(rng, X, compute, by_feature=by_feature, weighted=weighted, standardize=standardize)
    leading, sums, squares = case.arguments()
    first, second = case.buffer(case.lines), case.buffer(case.lines)
    tiles.load(*loading(leading), first, partial(first), sums, squares)
    kept = sums.copy(), squares.copy()
    tiles.load(*loading(leading, False), second, partial(second), sums, squares)
    np.testing.assert_allclose(
        second, first, rtol=0, atol=2 * tolerance("load", compute) * np.abs(X).max() * case.scale
    )
    np.testing.assert_array_equal(sums, kept[0])
    np.testing.assert_array_equal(squares, kept[1])


@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_load_starts_at_first_line(rng, by_feature):
    X = numbers(rng, (9, 6), np.float64)
    case = Case(rng, X, np.float64, by_feature=by_feature, center=False)
    leading, sums, squares = case.arguments()
    buffer = case.buffer(2)
    tiles.load(
        *leading[:3], 3, 2, leading[5], True, EVERY, leading[6], 1.0, NOTHING, buffer, partial(buffer), sums, squares
    )
    np.testing.assert_array_equal(buffer, (X.T if by_feature else X)[3:5])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
def test_nonfinite_reaches_the_statistics(rng, bad, by_feature, compute):
    """The finiteness check relies on it; fast-math flags `nnan` or `ninf` would break this."""
    X = numbers(rng, (9, 5), compute)
    X[6, 3] = bad
    case = Case(rng, X, compute, by_feature=by_feature)
    leading, sums, squares = case.arguments()
    with np.errstate(invalid="ignore"):
        tiles.load(*loading(leading), case.buffer(case.lines), partial(case.buffer()), sums, squares)
    assert not np.isfinite(squares[3])
    assert np.isfinite(np.delete(squares, 3)).all()


@pytest.mark.each
@pytest.mark.parametrize("dtype", INPUT, ids=lambda t: t.__name__)
@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_chunk_kernels_on_every_input_dtype(rng, dtype, compute, by_feature, weighted):
    check_chunk_kernels(rng, numbers(rng, (19, 6), dtype), compute, by_feature=by_feature, weighted=weighted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("center", [False, True], ids=["raw", "centred"])
def test_chunk_kernels_on_awkward_shapes(rng, shape, by_feature, center):
    for compute in COMPUTE:
        check_chunk_kernels(rng, numbers(rng, shape, np.float32), compute, by_feature=by_feature, center=center)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_chunk_kernels_on_every_layout(rng, layout, by_feature):
    X = layout(numbers(rng, (19, 6), np.float64))
    check_chunk_kernels(rng, X, np.float64, by_feature=by_feature, weighted=True)


def check_chunk_kernels(rng, X, compute, **options):
    """gram_chunk, pass_chunk with and without inner, project_chunk."""
    case = Case(rng, X, compute, **options)
    n, lines, width = case.n, case.lines, 3
    block = rng.standard_normal((n, width)).astype(compute)

    leading, sums, squares = case.arguments()
    gram = np.full((n, n), 123.0, compute)
    tiles.gram_chunk(*leading[:6], EVERY, *leading[6:], case.buffer(), partial(case.buffer()), gram, sums, squares)
    lower = np.tril_indices(n)
    expected = naive.gram(case.tile)
    bound = np.abs(case.tile).T @ np.abs(case.tile)
    error = np.abs(gram.astype(np.float64) - expected)[lower]
    # a centred value is wrong by eps (|x| + |shift|) scale before it is multiplied
    raw = (np.abs(np.asarray(X, dtype=np.float64)).max() + np.abs(case.shift[:1]).max()) * case.scale
    heaviest = np.sqrt(case.weights.max()) if case.weights.size else 1.0
    before = 4 * tolerance("load", compute) * lines * raw * heaviest * np.abs(case.tile).max(initial=raw)
    assert (error <= tolerance("product", compute) * bound[lower] + before).all()
    assert (gram[np.triu_indices(n, 1)] == 123.0).all()  # the upper triangle is not touched
    case.check_statistics(sums, squares)

    image_expected, inner_expected = naive.row_pass(case.tile, block)
    for with_inner in (False, True):
        leading, sums, squares = case.arguments()
        product, image = np.full((TILE, width), np.nan, compute), np.full((n, width), np.nan, compute)
        inner = np.full((width, width) if with_inner else (0, 0), np.nan, compute)
        tiles.pass_chunk(
            *learning(leading),
            case.buffer(),
            partial(case.buffer()),
            block,
            NO_OFFSET[compute],
            product,
            image,
            inner,
            np.empty(0),
            sums,
            squares,
            *NO_DRIFT[compute],
        )
        slack = before * np.abs(block).sum()
        limit = tolerance("row_pass", compute) * (bound @ np.abs(block)) + slack
        assert (np.abs(image - image_expected) <= limit).all()
        case.check_statistics(sums, squares)
        if with_inner:
            low = np.tril_indices(width)
            limit = (
                tolerance("row_pass", compute) * (np.abs(block).T @ bound @ np.abs(block)) + slack * np.abs(block).sum()
            )
            assert (np.abs(inner - inner_expected) <= limit)[low].all()

    leading, sums, squares = case.arguments()
    out = np.full((lines + 2, width), 5.0, compute)
    tiles.project_chunk(*learning(leading), case.buffer(), partial(case.buffer()), block, out, 1, sums, squares)
    limit = tolerance("product", compute) * (np.abs(case.tile) @ np.abs(block)) + slack
    assert (np.abs(out[1:-1] - naive.project(case.tile, block)) <= limit).all()
    assert (out[[0, -1]] == 5.0).all()  # only the chunk's own rows are written
    case.check_statistics(sums, squares)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_pass_chunk_takes_an_offset_off_the_products(rng, compute, weighted):
    case = Case(rng, numbers(rng, (21, 6), compute), compute, weighted=weighted)
    leading, sums, squares = case.arguments()
    block, offset = rng.standard_normal((6, 3)).astype(compute), rng.standard_normal(3).astype(compute)
    product, image = np.empty((TILE, 3), compute), np.empty((6, 3), compute)
    inner, total = np.zeros((3, 3), compute), np.full(3, 9.0)
    tiles.pass_chunk(
        *learning(leading), case.buffer(), partial(case.buffer()), block, offset, product, image, inner, total, sums,
        squares, *NO_DRIFT[compute],
    )  # fmt: skip
    root = np.sqrt(case.weights if weighted else np.ones(21))[:, None]
    rows = naive.project(case.tile, block) - root * offset
    atol = 64 * tolerance("product", compute) * np.abs(rows).max() ** 2 * 21
    np.testing.assert_allclose(image, case.tile.T @ rows, rtol=0, atol=atol)
    np.testing.assert_allclose(np.tril(inner), np.tril(rows.T @ rows), rtol=0, atol=atol)
    np.testing.assert_allclose(total, (root * rows).sum(axis=0), rtol=0, atol=atol)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
def test_pass_chunk_with_an_empty_block_gives_statistics(rng, compute):
    case = Case(rng, numbers(rng, (11, 4), compute), compute, weighted=True)
    leading, sums, squares = case.arguments()
    empty = np.empty((4, 0), compute)
    tiles.pass_chunk(
        *learning(leading),
        case.buffer(),
        partial(case.buffer()),
        empty,
        NO_OFFSET[compute],
        np.empty((TILE, 0), compute),
        empty.copy(),
        np.empty((0, 0), compute),
        np.empty(0),
        sums,
        squares,
        *NO_DRIFT[compute],
    )
    case.check_statistics(sums, squares)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_commit_gram_is_chans_merge(rng, compute, n):
    gram = rng.standard_normal((n, n)).astype(compute)
    sums, mean, offset = rng.standard_normal((3, n))
    total = rng.standard_normal((n, n))
    expected = naive.merge(gram, sums, mean, offset, 2.5, total)
    before = total.copy()
    totals.commit_gram(gram, sums, mean, offset, 2.5, total)
    lower, upper = np.tril_indices(n), np.triu_indices(n, 1)
    np.testing.assert_allclose(total[lower], expected[lower], rtol=0, atol=tolerance("merge", compute) * 16)
    np.testing.assert_array_equal(total[upper], before[upper])


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_gram_of_the_used_entries_alone(rng, compute, layout):
    """Entries equal to their shift in every line are found, and leaving them out changes nothing."""
    X = numbers(rng, (40, 9), np.float64)
    X[:, [0, 4, 8]] = 3.0
    X[39, 4] = 4.0  # used in the last line only
    shift = np.full(9, 3.0, compute)
    chunk = sources.ArraySource(layout(X)).chunk(0, 40, False)
    head = (chunk.flat, chunk.line_stride, chunk.entry_stride)
    used = np.full(9, 7, np.int32)
    tiles.mark_used(*head, 40, shift, used)
    np.testing.assert_array_equal(used, naive.used_entries(X, shift))
    entries = np.flatnonzero(used)
    assert entries.tolist() == [1, 2, 3, 4, 5, 6, 7]

    buffer, gram = np.full((TILE, 7), np.nan, compute), np.zeros((7, 7), compute)
    sums, squares = np.zeros(7), np.zeros(7)
    common = (shift[entries], 0.25, NOTHING, buffer, partial(buffer), gram, sums, squares)
    tiles.gram_chunk(*head, 0, 40, False, entries, *common)
    tile, all_sums, all_squares = naive.load(X, False, shift, 0.25)
    assert not all_squares[[0, 8]].any()
    total = rng.standard_normal((9, 9))
    parts, mean, offset = rng.standard_normal((3, 9))
    parts[[0, 8]] = mean[[0, 8]] = 0.0  # as those of what is zero are
    expected = naive.merge(naive.gram(tile), parts, mean, offset, 2.5, total)
    before = total.copy()
    totals.commit_used(gram, entries, parts, mean, total)
    totals.add_outer(2.5, offset, total)
    lower, upper = np.tril_indices(9), np.triu_indices(9, 1)
    atol = tolerance("product", compute) * np.abs(naive.gram(tile)).max() * 8
    np.testing.assert_allclose(total[lower], expected[lower], rtol=0, atol=atol)
    np.testing.assert_array_equal(total[upper], before[upper])
    np.testing.assert_allclose(sums, all_sums[entries], rtol=0, atol=atol)
    np.testing.assert_allclose(squares, all_squares[entries], rtol=0, atol=atol)


@pytest.mark.parametrize("layout", [c_order, f_order], ids=lambda f: f.__name__)
def test_nan_counts_as_used(layout):
    X = np.zeros((20, 70))
    X[17, 3], X[5, 6] = np.nan, -np.inf
    chunk = sources.ArraySource(layout(X)).chunk(0, 20, False)
    used = np.zeros(70, np.int32)
    tiles.mark_used(chunk.flat, chunk.line_stride, chunk.entry_stride, 20, np.zeros(70), used)
    assert np.flatnonzero(used).tolist() == [3, 6]


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (0, 0), (4, 0)])
def test_add_to(rng, compute, shape):
    part, total = rng.standard_normal(shape).astype(compute), rng.standard_normal(shape)
    expected = total + part.astype(np.float64)
    totals.add_to(part, total)
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 70])  # around the kernel's blocks of 32
def test_symmetrize(rng, compute, n):
    matrix = rng.standard_normal((n, n)).astype(compute)
    expected = np.tril(matrix) + np.tril(matrix, -1).T
    totals.symmetrize(matrix)
    np.testing.assert_array_equal(matrix, expected)


def strided(array, extra=4):
    """The same values in rows that are further apart than they are long."""
    wide = np.full((array.shape[0], array.shape[1] + extra), np.nan, array.dtype)
    wide[:, 1 : 1 + array.shape[1]] = array
    return wide[:, 1 : 1 + array.shape[1]]


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("slices", [False, True], ids=["contiguous", "sliced"])
def test_gemm(rng, compute, transpose_a, transpose_b, beta, slices):
    for rows, columns, inner in [(1, 1, 1), (5, 3, 7), (1, 6, 2), (6, 1, 9), (4, 4, 33)]:
        a = rng.standard_normal((inner, rows) if transpose_a else (rows, inner)).astype(compute)
        b = rng.standard_normal((columns, inner) if transpose_b else (inner, columns)).astype(compute)
        c = rng.standard_normal((rows, columns)).astype(compute)
        expected = naive.gemm(1.5, a, transpose_a, b, transpose_b, beta, c)
        if beta == 0.0:
            c[:] = np.nan  # must not be read
        if slices:
            a, b, c = strided(a), strided(b), strided(c)
        blas.gemm(1.5, a, transpose_a, b, transpose_b, beta, c)
        limit = tolerance("product", compute) * (3.0 * np.sqrt(inner) + 4.0)
        np.testing.assert_allclose(c, expected, rtol=0, atol=limit)
        if slices:
            assert np.isnan(c.base[:, 0]).all() and np.isnan(c.base[:, -1]).all()  # nothing beside c is written


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("slices", [False, True], ids=["contiguous", "sliced"])
def test_syrk(rng, compute, beta, slices):
    for k, n in [(1, 1), (7, 3), (3, 7), (33, 5), (1, 6)]:
        a, c = rng.standard_normal((k, n)).astype(compute), rng.standard_normal((n, n)).astype(compute)
        expected = naive.syrk(a, beta, c)
        if beta == 0.0:
            c[np.tril_indices(n)] = np.nan
        if slices:
            a, c = strided(a), strided(c)
        blas.syrk(a, beta, c)
        np.testing.assert_allclose(c, expected, rtol=0, atol=tolerance("product", compute) * (2.0 * np.sqrt(k) + 4.0))


def test_gemm_and_syrk_leave_empty_results_alone(rng):
    blas.gemm(1.0, np.ones((3, 2)), False, np.ones((2, 0)), False, 0.0, np.empty((3, 0)))
    blas.syrk(np.ones((3, 0)), 0.0, np.empty((0, 0)))
    c = np.ones((2, 2))
    blas.gemm(1.0, np.empty((2, 0)), False, np.empty((0, 2)), False, 0.0, c)  # an empty sum is zero
    np.testing.assert_array_equal(c, 0.0)


@pytest.mark.parametrize("compute", COMPUTE, ids=lambda t: t.__name__)
def test_a_single_row_may_have_any_stride(compute):
    """NumPy calls x[None, :] contiguous although its first stride is 0, which BLAS would refuse."""
    row = np.arange(1.0, 4.0).astype(compute)[None, :]
    assert row.strides[0] == 0
    c = np.full((2, 3), np.nan, compute)
    blas.gemm(1.0, np.ones((2, 1), compute), False, row, False, 0.0, c)
    np.testing.assert_array_equal(c, [[1, 2, 3], [1, 2, 3]])
    blas.syrk(row, 0.0, s := np.zeros((3, 3), compute))
    np.testing.assert_array_equal(np.tril(s), np.tril(row.T @ row))


@pytest.mark.needs_jit
def test_a_kernel_calls_its_own_copies_only(monkeypatch):
    """Weak symbols would let a process choose between two copies of a callee, which may round differently."""
    monkeypatch.setattr(jit, "cache_directory", lambda: None)

    @jit.lean_kernel
    def inner(x, out):
        for i in range(x.shape[0]):
            out[i] = np.sqrt(x[i]) / (x[i] + 1)

    @jit.lean_kernel
    def middle(x, out):
        inner(x, out)
        inner(out, x)

    @jit.kernel
    def outer(x, out):
        middle(x, out)
        inner(x, out)

    for kernel in (inner, middle, outer):
        x, out = np.full(3, 4.0), np.zeros(3)
        kernel(x, out)
        (compiled,) = kernel.overloads.values()
        own = {compiled.fndesc.llvm_func_name, compiled.fndesc.llvm_cpython_wrapper_name}
        own.add(compiled.fndesc.llvm_cfunc_wrapper_name)
        for function in compiled.library.get_defined_functions():
            assert function.name in own or function.linkage.name == "internal", function.name


MATRIX, VECTOR = 2, 1
CHECKED = {
    kernels.gemm: lambda f: (1.0, f("a"), False, f("b"), False, 0.0, f("c", written=True)),
    kernels.syrk: lambda f: (f("a"), 0.0, f("c", written=True)),
    kernels.masked_gram: lambda f: (f("gram"), f("prefix", VECTOR), f("out", written=True)),
    kernels.rotation: lambda f: (f("gram"), f("out", written=True)),
    kernels.tril: lambda f: (f("gram"), 1, f("out", written=True)),
    kernels.quotients: lambda f: (f("gram"), f("out", written=True)),
    kernels.normalise_rows: lambda f: (f("weights", written=True),),
    kernels.gram: lambda f: (
        f("rows", real=True), f("shift", VECTOR), f("weights", VECTOR, double=True), f("tile", written=True),
        f("out", written=True),
    ),
    kernels.row_pass: lambda f: (
        f("rows", real=True), f("shift", VECTOR), f("weights", VECTOR, double=True), f("block"),
        f("tile", written=True), f("codes", written=True), f("out", written=True),
    ),
    kernels.fused_step: lambda f: (
        kernels.SGD, f("scalars", VECTOR, double=True), 0.1, 0, f("dense"), f("product"), f("on_product", VECTOR),
        f("on_weights", VECTOR), f("penalty", VECTOR), f("prefix", VECTOR), True, f("weights", written=True),
        f("first", written=True), f("second", written=True), f("sums", VECTOR, double=True, written=True),
        f("row_sums", double=True, written=True), f("row_squares", VECTOR, double=True, written=True),
    ),
}  # fmt: skip


def named(kernel):
    """What a kernel takes, by the names of its arrays."""
    found = {}
    CHECKED[kernel](lambda name, ndim=MATRIX, **rules: found.setdefault(name, {"ndim": ndim, **rules}))
    return found


def called(kernel, odd="", change=np.copy):
    """The kernel called with arrays that fit, but for one that is changed."""

    def make(name, ndim=MATRIX, real=False, **_):
        fitting = np.ones((4,) * ndim, np.int16 if real else np.float64)
        return change(fitting) if name == odd else fitting

    return kernel(*CHECKED[kernel](make))


LARGE = kernels.row_pass, kernels.fused_step  # each refusal compiles what lies around them


@pytest.mark.parametrize(
    "kernel",
    [*(kernel for kernel in CHECKED if kernel not in LARGE), *cases.only_full(*LARGE)],
    ids=lambda kernel: kernel.__name__,
)
def test_public_kernels_refuse_what_does_not_go_together(kernel):
    """Each array in turn: of another dtype, of one without arithmetic, in F order, of other dimensions, read-only."""

    def refuses(message, name, change):
        with pytest.raises(TypeError, match=f"{kernel.__name__}: {message}"):
            called(kernel, name, change)

    called(kernel)
    one = [name for name, rules in named(kernel).items() if not rules.keys() & {"real", "double"}]
    for name, rules in named(kernel).items():
        if rules.get("double"):
            refuses(f"{name} must be float64.*: float32", name, np.float32)
            refuses(f"{name} must be float64.*: int64", name, np.int64)
        elif rules.get("real"):
            refuses(f"{name} must hold real numbers.*complex", name, np.complex128)
            refuses(f"{name} must be C-contiguous", name, column_slice)
        else:
            refuses(f"all arrays must have one dtype, .*{name} int64", name, np.int64)
            if len(one) > 1:
                refuses(f"all arrays must have one dtype, .*{name} float32", name, np.float32)
        if rules["ndim"] == MATRIX:
            refuses(f"{name} must hold rows", name, f_order)
        refuses(f"{name} must have {rules['ndim']} dim.*not {rules['ndim'] + 1}", name, lambda x: x[None])
        if rules.get("written"):
            refuses(f"{name} is written to", name, read_only)


@pytest.mark.needs_jit
def test_a_read_only_output_of_a_caller_is_refused_and_keeps_its_values():
    @numba.njit
    def mine(a, c):
        kernels.gemm(1.0, a, False, a, False, 0.0, c)

    c = read_only(np.full((3, 3), 7.0))
    with pytest.raises(TypeError, match="gemm: c is written to, and the array is read-only"):
        mine(read_only(np.ones((3, 3))), c)
    assert (c == 7.0).all()
    mine(read_only(np.ones((3, 3))), out := np.zeros((3, 3)))
    assert (out == 3.0).all()


@pytest.mark.needs_jit
def test_a_caller_of_a_public_kernel_is_refused_when_it_is_compiled():
    @numba.njit
    def mine(a, c):
        if a.shape[0] == 0:  # not even reached
            kernels.syrk(a, 0.0, c)

    with pytest.raises(TypeError, match="syrk: all arrays must have one dtype, float32 or float64; here: a float32, c"):
        mine(np.ones((3, 3), np.float32), np.ones((3, 3)))
