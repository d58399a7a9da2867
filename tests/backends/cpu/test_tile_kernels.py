"""Every kernel of backends/cpu/passes/tiles.py against its naive twin: dtypes, layouts, awkward shapes."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.backends.cpu import few_columns
from lae_fast.backends.cpu.passes import tiles
from tests.oracle import naive
from tests.oracle.tile_cases import (
    COMPUTE,
    EVERY,
    INPUT,
    LAYOUTS,
    NO_DRIFT,
    NO_OFFSET,
    NOTHING,
    SHAPES,
    TILE,
    Case,
    learning,
    loading,
    numbers,
    partial,
)
from tests.oracle.tolerances import tolerance


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
    whole = width - few_columns.n_left_over(width, compute)
    vectors, few = np.ascontiguousarray(block[:, :whole]), np.ascontiguousarray(block[:, whole:].T)
    tiles.project_chunk(*learning(leading), case.buffer(), partial(case.buffer()), vectors, few, out, 1, sums, squares)
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
