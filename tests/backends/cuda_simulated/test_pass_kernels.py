"""CUDA kernels on Numba's simulator against tests/oracle/naive.py, at sizes that fit no block.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_pass_kernels.py
"""

import math

import numpy as np
import pytest
import scipy.sparse

from lae_fast import plan
from lae_fast.backends.lines import Lines
from lae_fast.data import sources
from tests.oracle import naive, simulator
from tests.oracle.tolerances import tolerance

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import blas, launch
    from lae_fast.backends.cuda.passes import byte_gram, chunks, sparse, tiles, totals

DTYPES = (np.float32, np.float64)
SHAPES = [(1, 1), (3, 5), (11, 9), (17, 2)]


def flat_view(array):
    """The memory of a matrix as 1-D, and its strides in numbers."""
    strides = tuple(s // array.itemsize for s in array.strides)
    extent = sum((n - 1) * s for n, s in zip(array.shape, strides)) + 1
    return np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,)), *strides


def run_load(array, dtype, shift, scale, weights, learn=True, rows=None):
    count, n = array.shape
    rows = rows or count
    buffer = np.full((rows, n), np.nan, dtype)
    partials = np.full((launch.strips(rows), 2, n), np.nan)
    roots = np.empty(0, dtype) if weights is None else np.sqrt(weights).astype(dtype)
    flat, line_stride, entry_stride = flat_view(array)
    tiles.load.launch(
        *launch.over_strips(rows, n), flat, line_stride, entry_stride, count, shift.astype(dtype), dtype(scale), roots,
        learn, buffer, partials,
    )  # fmt: skip
    return buffer, partials


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("source", [np.float32, np.float64, np.float16, np.uint8, np.int8, np.int16])
def test_load_converts_shifts_scales_and_weights(source, layout):
    rng = np.random.default_rng(0)
    for dtype in DTYPES if source is np.float32 else DTYPES[:1]:
        for shape in SHAPES:
            given = (rng.integers(0, 100, shape)).astype(source)
            weights = rng.integers(0, 4, shape[0]).astype(float)
            shift = rng.integers(40, 60, shape[1]).astype(float)
            rows = shape[0] + 3
            found, partials = run_load(simulator.layouts(given)[layout], dtype, shift, 0.5, weights, rows=rows)
            tile, sums, squares = naive.load(given, False, shift, 0.5, weights)
            assert np.abs(found[: shape[0]] - tile).max() <= tolerance("load", dtype) * np.abs(tile).max()
            assert (found[shape[0] :] == 0).all()
            bound = tolerance("statistic", dtype) * 4 * max(squares.max(), 1.0) * math.sqrt(shape[0])
            assert np.abs(partials[:, 0].sum(axis=0) - sums).max() <= bound
            assert np.abs(partials[:, 1].sum(axis=0) - squares).max() <= bound


def test_load_without_learning_leaves_the_statistics_and_nan_reaches_them_with_it():
    X = np.ones((9, 5), np.float32)
    X[7, 3] = np.nan
    _, untouched = run_load(X, np.float32, np.zeros(5), 1.0, None, learn=False)
    assert np.isnan(untouched).all()
    _, partials = run_load(X, np.float32, np.zeros(5), 1.0, None)
    assert np.isnan(partials.sum(axis=0)).any(axis=0).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("center", "standardize"), [(True, False), (True, True), (False, True), (False, False)])
def test_center_lines_learns_and_then_repeats_itself(dtype, weighted, center, standardize):
    rng = np.random.default_rng(1)
    lines = (rng.standard_normal((3, 11)) + 1000).astype(dtype)
    lines[1] = dtype(0.1)  # a constant, whose mean must be exact
    weights = rng.integers(1, 4, 11).astype(float) if weighted else None
    mass = weights.sum() if weighted else 11.0
    denominator = mass - 1 if standardize else 0.0
    given = weights if weighted else np.empty(0)
    sums, squares = np.full(3, np.nan), np.full(3, np.nan)
    first, second = lines.copy(), lines.copy()
    for buffer, learn in ((first, True), (second, False)):
        tiles.center_lines.launch(
            *launch.over_lines(3), buffer, center, mass, denominator, dtype(0.5), given, learn, sums, squares
        )
    tile, wanted_sums, wanted_squares = naive.load(lines, True, None, 0.5, weights, center, denominator)
    scale = np.abs(lines).max() if not center else 4.0
    eps = tolerance("statistic", dtype)
    rows = [0, 1, 2]
    if center:
        np.testing.assert_allclose(sums, wanted_sums, rtol=1e-8 if dtype is np.float32 else 1e-15, atol=0)
        assert (first[1] == 0).all() and squares[1] == 0
        rows = [0, 2]  # where the oracle's rounding of a constant would be standardized, zero stays zero
    first, second, tile = first[rows], second[rows], tile[rows]
    np.testing.assert_allclose(squares[rows], wanted_squares[rows], rtol=8 * eps, atol=8 * eps * scale * scale * 1e-6)
    bound = 16 * eps * np.abs(tile).max() + 1000 * 2.0**-52  # the oracle rounds at a thousand, too
    if not (standardize and not center):
        assert np.abs(first - tile).max() <= bound
    # what it learned is enough to do the same again, to the rounding of a mean that is a thousand deviations off
    np.testing.assert_allclose(second, first, atol=bound, rtol=8 * eps)


def test_center_lines_of_one_entry_and_of_fewer_than_a_block_has_threads():
    for n in (1, 2, 3):
        lines = np.arange(2.0 * n, dtype=np.float32).reshape(2, n) + 7
        buffer, sums, squares = lines.copy(), np.full(2, np.nan), np.full(2, np.nan)
        tiles.center_lines.launch(
            *launch.over_lines(2), buffer, True, float(n), 0.0, np.float32(2), np.empty(0), True, sums, squares
        )
        tile, wanted_sums, wanted_squares = naive.load(lines, True, None, 2.0, None, True, 0.0)
        np.testing.assert_array_equal(buffer, tile)
        np.testing.assert_array_equal([sums, squares], [wanted_sums, wanted_squares])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_center_products(dtype, weighted):
    rng = np.random.default_rng(2)
    for count, b in SHAPES:
        rows = rng.standard_normal((count + 2, b)).astype(dtype)
        kept, offset = rows[count:].copy(), rng.standard_normal(b).astype(dtype)
        weights = rng.random(count) if weighted else None
        roots = np.sqrt(weights).astype(dtype) if weighted else np.empty(0, dtype)
        wanted, total = naive.center_products(rows[:count], offset, weights)
        partials = np.full((launch.strips(count), b), np.nan)
        tiles.center_products.launch(*launch.over_strips(count, b), rows, count, offset, roots, partials)
        eps = tolerance("product", dtype)
        assert np.abs(rows[:count] - wanted).max() <= eps * 4
        assert np.abs(partials.sum(axis=0) - total).max() <= eps * 4 * count
        np.testing.assert_array_equal(rows[count:], kept)


def test_add_tiles_adds_in_float64():
    parts = np.array([[2.0**24] * 5, [1.0] * 5, [1.0] * 5, [2.0] * 5, range(5)], np.float32)
    for count in range(1, 6):
        for fresh, before in ((False, 0.5), (True, np.nan)):
            total = np.full(5, before)
            totals.add_parts(parts[:count], total, fresh)
            wanted = parts[:count].sum(axis=0, dtype=np.float64)
            np.testing.assert_array_equal(total, wanted if fresh else wanted + 0.5)


@pytest.mark.parametrize("n", [1, 5, 11])
def test_add_triangles_adds_in_float64_and_leaves_the_upper_one(n):
    parts = np.random.default_rng(10).integers(0, 9, (3, n, n)).astype(np.float32)
    parts[0] += np.float32(2.0**24)
    lower = np.tril_indices(n)
    wanted = parts.astype(np.float64).sum(axis=0)[lower]
    for fresh, before in ((True, np.nan), (False, 0.5)):
        total = np.full((n, n), before)
        diagonal = np.full(n, np.nan)
        totals.add_triangles.launch(*launch.over_entries(n, n), parts.reshape(3, -1), fresh, total, diagonal)
        np.testing.assert_array_equal(total[lower], wanted if fresh else wanted + 0.5)
        np.testing.assert_array_equal(total.diagonal(), diagonal)
        np.testing.assert_array_equal(total[np.triu_indices(n, 1)], before)


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
@pytest.mark.parametrize("n", [1, 5, 11])
def test_commit_gram_and_symmetrize(n, dtype):
    rng = np.random.default_rng(3)
    gram = (rng.standard_normal((n + 2, n + 2)) * 50).astype(dtype)  # larger than the total: bytes are padded
    sums, mean, offset = rng.standard_normal((3, n))
    total = np.tril(rng.standard_normal((n, n)))
    wanted = naive.merge(gram[:n, :n], sums, mean, offset, 0.7, total)
    totals.commit_gram.launch(*launch.over_strips(n, n), gram, sums, mean, offset, 0.7, total)
    lower = np.tril_indices(n)
    np.testing.assert_allclose(total[lower], wanted[lower], rtol=0, atol=tolerance("merge", np.float64) * 100)
    assert (total[np.triu_indices(n, 1)] == 0).all()
    totals.symmetrize.launch(*launch.over_strips(n, n), total)
    np.testing.assert_array_equal(total, total.T)


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes_make_an_exact_gram(dtype, layout):
    rng = np.random.default_rng(4)
    info = np.iinfo(dtype)
    for count, n in [(1, 1), (3, 5), (21, 19)]:
        X = rng.integers(info.min, info.max + 1, (count, n)).astype(dtype)
        origin = 128 if dtype is np.uint8 else 0
        lines, columns = -(-count // 16) * 16, -(-n // 16) * 16
        out = np.full((columns, lines), 77, np.int8)
        partials = np.full((launch.strips(lines), n), -1, np.int64)
        flat, *strides = flat_view(simulator.layouts(X)[layout])
        byte_gram.load_bytes.launch(
            *launch.over_strips(lines, columns), flat, *strides, count, np.int32(origin), out, partials
        )
        moved = X.astype(np.int64) - origin
        wanted = np.zeros((columns, lines), np.int64)
        wanted[:n, :count] = moved.T
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(partials.sum(axis=0), moved.sum(axis=0))
        gram = np.empty((columns, columns), np.int32)
        blas.byte_gram(out, gram)
        np.testing.assert_array_equal(gram[:n, :n], naive.gram(moved.astype(float)))


def test_the_plan_cuts_what_the_backend_sums():
    assert byte_gram.MOST_LINES * 128 * 128 < 2**31  # a full chunk of bytes cannot overflow
    assert byte_gram.MOST_LINES == plan.DEVICE_LINES
    assert chunks.RUNS.lines == plan.DEVICE_TILE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_gather_is_both_products_of_a_pass(dtype, weighted):
    rng = np.random.default_rng(5)
    for lines, n, b in [(1, 1, 1), (7, 5, 3), (13, 9, 6)]:
        X = scipy.sparse.random(lines, n, 0.4, "csr", dtype=dtype, random_state=6)
        block, offset = rng.standard_normal((n, b)).astype(dtype), rng.standard_normal(b).astype(dtype)
        alpha = rng.random(lines)
        weights = rng.random(lines) if weighted else None
        y, image, _, _ = naive.sparse_pass(X.toarray(), 2.0, alpha, weights, block, offset)
        none = np.empty(0, dtype)
        found = np.full((lines, b), np.nan, dtype)
        sparse.gather.launch(
            *launch.over_rows(lines, b), X.indptr[:-1], X.indptr[1:], X.indices, X.data, dtype(2), none, block,
            alpha.astype(dtype), offset, found,
        )  # fmt: skip
        eps = tolerance("row_pass", dtype)
        assert np.abs(found - y).max() <= eps * max(1.0, np.abs(y).max())
        turned, out = X.tocsc(), np.full((n, b), np.nan)
        given = none if weights is None else weights.astype(dtype)
        sparse.gather.launch(
            *launch.over_rows(n, b), turned.indptr[:-1], turned.indptr[1:], turned.indices, turned.data, dtype(2),
            given, found, none, none, out,
        )  # fmt: skip
        assert np.abs(out - image).max() <= eps * max(1.0, np.abs(image).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_line_statistics(weighted):
    X = scipy.sparse.random(9, 7, 0.4, "csr", random_state=7)
    weights = np.random.default_rng(8).random(7) if weighted else None
    out = np.full((9, 2), np.nan)
    given = np.empty(0) if weights is None else weights
    starts, stops = X.indptr[:-1], X.indptr[1:]
    sparse.line_statistics.launch(*launch.over_items(9), starts, stops, X.indices, X.data, 0.5, given, out)
    sums, squares, _, _ = naive.sparse_statistics(X.toarray(), True, 0.5, weights)
    np.testing.assert_allclose(out.T, [sums, squares], rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram_over_pairs_of_stored_entries(dtype, weighted):
    rng = np.random.default_rng(9)
    for lines, n in [(1, 1), (7, 5), (13, 9)]:
        X = scipy.sparse.csr_matrix((rng.integers(1, 100, (lines, n)) * (rng.random((lines, n)) < 0.5)).astype(dtype))
        weights = rng.random(lines) if weighted else None
        wanted = naive.moments(0.5 * X.toarray().astype(float), weights, center=False)[2]
        turned, out = X.tocsc(), np.zeros((n, n))
        sparse.gram_pairs.launch(
            *launch.over_groups(n), X.indptr, X.indices, X.data, turned.indptr, turned.indices, turned.data, 0.5,
            np.empty(0) if weights is None else weights, out,
        )  # fmt: skip
        np.testing.assert_allclose(np.tril(out), np.tril(wanted), rtol=1e-13)
        assert (out[np.triu_indices(n, 1)] == 0).all()


def test_long_lines_of_stored_entries_are_summed_in_float64():
    n = sparse.LONGEST_RUN
    data = np.concatenate([[2.0**24], np.zeros(n - 1), np.ones(3)]).astype(np.float32)
    indices = np.arange(n + 3)
    out = np.full((1, 1), np.nan)
    none = np.empty(0, np.float32)
    sparse.gather.launch(
        *launch.over_rows(1, 1), np.array([0]), np.array([n + 3]), indices, data, np.float32(1), none,
        np.ones((n + 3, 1), np.float32), none, none, out,
    )  # fmt: skip
    assert out[0, 0] == 2.0**24 + 3


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_walks_cover_every_entry_once(dtype, monkeypatch):
    monkeypatch.setattr(sparse, "LONGEST_WALK", 3)
    indptr = np.cumsum([0, 2, 7, 0, 3, 6, 1]).astype(dtype)
    cut = sparse.walks(indptr)
    short = [range(a, b) for a, b in zip(cut.starts, cut.stops)]
    assert [len(one) for one in short] == [2, 0, 0, 3, 0, 1]
    long = [range(a, b) for a, b in zip(cut.long_starts, cut.long_stops)]
    assert [len(one) for one in long] == [3, 3, 1, 3, 3] and cut.long_starts.dtype == dtype
    assert cut.first.tolist() == [0, 3, 5] and cut.lines.tolist() == [1, 4]
    assert sorted(k for one in (*short, *long) for k in one) == list(range(19))


@pytest.mark.parametrize("weighted", [False, True])
def test_long_sparse_lines_are_walked_by_several_threads(weighted, monkeypatch):
    """The sums are those of one walk, which are exact here."""
    rng = np.random.default_rng(11)
    X = scipy.sparse.csr_matrix((rng.integers(1, 9, (7, 9)) * (rng.random((7, 9)) < 0.7)).astype(np.float32))
    weights = rng.integers(1, 4, 9).astype(float) if weighted else np.empty(0)
    block, offset = rng.integers(-3, 4, (9, 6)).astype(np.float32), rng.integers(-3, 4, 6).astype(np.float32)
    found = []
    for most in (1000, 3, 1):
        monkeypatch.setattr(sparse, "LONGEST_WALK", most)
        lines = Lines(sources.as_source(X.copy()), False, 7, 0.5)
        out = np.full((7, 6), np.nan, np.float32)
        sparse._gather(lines, False, weights, block, np.arange(7.0), offset, out)
        image = np.full((9, 6), np.nan)
        sparse._gather(lines, True, np.empty(0), out, np.empty(0), np.empty(0), image)
        found.append((out, image, *(sparse._statistics(sparse._lines(lines, turned), 0.5, weights[: 9 * (not turned)])
                                    for turned in (False, True))))  # fmt: skip
    wanted = 0.5 * X.toarray().astype(float) @ (block * weights[:, None] if weighted else block)
    np.testing.assert_array_equal(found[0][0], wanted - np.outer(np.arange(7.0), offset))
    for other in found[1:]:
        for one, same in zip(other, found[0]):
            np.testing.assert_array_equal(one, same)


def test_launch_shapes_cover_everything_and_refuse_what_cuda_does():
    for rows, columns in [(1, 1), (launch.STRIP + 1, launch.WIDTH + 1)]:
        (x, y), (width, height) = launch.over_strips(rows, columns)
        assert x * launch.WIDTH >= columns and y * launch.STRIP >= rows and (width, height) == (4, 2)
    assert launch.STRIP % launch.WIDTH == 0
    with pytest.raises(ValueError, match="outside what CUDA allows"):
        launch.over_strips(65536 * launch.STRIP, 1)
