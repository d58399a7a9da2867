"""What chunks add to totals: merged Gram matrices, those of the used entries alone, sums, the mirrored triangle."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.backends.cpu.passes import tiles, totals
from lae_fast.data import sources
from tests.oracle import naive
from tests.oracle.tile_cases import COMPUTE, LAYOUTS, NOTHING, TILE, c_order, f_order, numbers, partial
from tests.oracle.tolerances import tolerance


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
    tiles.gram_chunk(*head, 0, 40, None, entries, *common)
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
