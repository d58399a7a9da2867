"""Certificates are upper bounds where rounding errors are not independent: repeated, enormous, nearly empty rows.

The truth is computed in extended precision (`np.longdouble`, 64-bit mantissa), where a product of two float64 numbers
is wrong by 5e-20 of itself.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.moments import Moments
from tests.oracle import naive
from tests.oracle.certificate_cases import check_residuals, repeated_rows

pytestmark = [
    pytest.mark.usefixtures("serial_oracle"),
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs extended precision as the truth for float64"),
]


def rows_of_one_direction(rng, m, d):
    """All entries of the component are of one magnitude, so the products of a row with it are equal."""
    return np.outer(rng.choice([-1.0, 1.0], m), np.ones(d)) * 1234.5 + 1e-3 * rng.standard_normal((m, d))


def enormous_row(rng, m, d):
    X = rng.standard_normal((m, d))
    X[m // 3] *= 1e9
    return X


def far_tails(rng, m, d):
    return np.exp(3 * rng.standard_normal((m, d)))


def sentinel(rng, m, d):
    X = rng.standard_normal((m, d))
    X[rng.random((m, d)) < 4e-3] = -9999.0
    return X


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("d", [3, 48])
@pytest.mark.parametrize("kind", [repeated_rows, rows_of_one_direction, enormous_row, far_tails, sentinel])
def test_residuals_bound_the_truth_where_rounding_errors_add_up(kind, d, solver, dtype):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = kind(rng, int(rng.integers(100, 4000)), d).astype(dtype)
        check_residuals(X, 2, solver=solver)
        check_residuals(scipy.sparse.csr_matrix(X), 2, solver=solver)


@pytest.mark.needs_jit
@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_component_of_equal_entries_is_allowed_for(solver, standardize):
    """Two rows: centred they are one direction of a few whole numbers, or of equal ones where standardized."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = rng.poisson(3.0, (2, int(rng.integers(100, 2000)))).astype(np.float32)
        check_residuals(X, 2, solver=solver, standardize=standardize)


def clipped_row(rng, m, d):
    """Small whole numbers, and a row of the largest that int16 holds, but for a few."""
    X = np.round(rng.standard_normal((m, d)))
    X[rng.integers(m)] = np.clip(10.0 ** rng.uniform(5.5, 7) * rng.standard_normal(d), -32768, 32767)
    return X.astype(np.int16)


def row_of_few_magnitudes(rng, m, d):
    X = rng.standard_normal((m, d))
    X[rng.integers(m)] = 1e4 * rng.choice([0.0, 1.0, 2.0], d) * rng.uniform(0.5, 1.0)
    return X.astype(np.float32)


def enormous_entry(rng, m, d):
    """All other products of its row are rounded at the last place of the first."""
    X = rng.uniform(0.5, 1.0, (m, d))
    row = rng.integers(m)
    X[row] *= 10.0 ** rng.uniform(2, 4)
    X[row, 0] *= 10.0 ** rng.uniform(2, 3.5)
    return X.astype(np.float32)


def wide_lognormal(rng, m, d):
    """Nearly all of a component is in one row, and nearly all of that in one entry."""
    return np.exp(4.0 * rng.standard_normal((m, d))).astype(np.float32)


def sparse_row_of_one_magnitude(rng, m, d):
    X = 0.1 * (rng.random((m, d)) < 0.05)
    X[rng.integers(m)] = 32767.0 * rng.choice([-1.0, 1.0], d)
    return scipy.sparse.csr_matrix(X.astype(np.float32))


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "kind", [clipped_row, row_of_few_magnitudes, enormous_entry, wide_lognormal, sparse_row_of_one_magnitude]
)
def test_residuals_bound_the_truth_where_one_row_is_a_component(kind):
    """Rounding errors add up along the row, and no other row averages them: about one in thirty was above its bound."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        X = kind(rng, int(rng.integers(34, 60)), int(rng.integers(500, 2500)))
        check_residuals(X, 3, solver="gram" if seed % 5 else "krylov")


def one_hot(rng, m, d):
    X = np.zeros((m, d))
    X[np.arange(m), rng.choice(d, m, p=rng.dirichlet(np.ones(d)))] = rng.choice([0.1, 0.3])
    return X


def mostly_zeros(rng, m, d):
    return 0.1 * (rng.random((m, d)) < 0.1)


@pytest.mark.needs_jit
@pytest.mark.parametrize(("kind", "first"), [(one_hot, 60), (mostly_zeros, 170)])
def test_residuals_bound_the_truth_where_few_rows_hold_the_weight_of_few_values(kind, first):
    """The others lie on one side of the mean: products of two columns repeat, and errors add up off the diagonal."""
    for seed in range(first, first + 40):
        rng = np.random.default_rng(seed)
        X = kind(rng, int(rng.integers(200, 800)), int(rng.integers(34, 70)))
        w = np.ones(len(X))
        w[rng.integers(0, len(X), rng.integers(1, 4))] = 10.0 ** rng.uniform(3, 7)
        check_residuals(X.astype(np.float32), 30, solver="gram", sample_weight=w)


@pytest.mark.needs_jit
@pytest.mark.parametrize("standardize", [False, True])
def test_features_that_are_one_number_throughout_a_chunk(standardize):
    """What is left of their squares there is the rounding of the shift: bounds were infinite, or above one."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X = one_hot(rng, 800, 200)
        w = np.exp(rng.uniform(2, 3) * rng.standard_normal(800))
        pairs, _ = check_residuals(X, 3, solver="gram", sample_weight=w, standardize=standardize)
        assert (pairs.residuals < 1e-11).all()


@pytest.mark.needs_jit
@pytest.mark.parametrize("d", [10, 40])
@pytest.mark.parametrize("heavy", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_of_most_of_the_weight(heavy, rows, d):
    """Other rows lie far from the weighted mean, and the heavy ones are multiplied by their weight."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, d)).astype(np.float32)
    X[:rows] = X[0]
    w = np.ones(1000)
    w[:rows] = heavy
    exact = naive.leading_eigenpairs(naive.moments(X.astype(float), w)[2], 3)[0]
    pairs, _ = check_residuals(X, 3, solver="gram", sample_weight=w)
    np.testing.assert_allclose(pairs.values, exact, rtol=1e-6)
    halves = Moments(d)
    for part in (slice(0, rows + 1), slice(rows + 1, None)):
        halves.update(X[part], sample_weight=w[part])
    np.testing.assert_allclose(top_eigenpairs(halves, 3).values, exact, rtol=1e-6)
