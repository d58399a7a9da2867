"""Products through backends/cpu/blas.py against their naive twins: transposes, slices, empty results, strides."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.backends.cpu import blas
from tests.oracle import naive
from tests.oracle.tile_cases import COMPUTE
from tests.oracle.tolerances import tolerance


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
