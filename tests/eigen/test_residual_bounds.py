"""Certificates are upper bounds: residuals_ are never below the truth, nor idle, for every kind of data and operator.

The truth is computed in extended precision (`np.longdouble`, 64-bit mantissa), where a product of two float64 numbers
is wrong by 5e-20 of itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from lae_fast.backends import drift
from lae_fast.backends.cpu import panels
from lae_fast.eigen import eigenpairs
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.dense import DenseOperator
from lae_fast.operators.moments import Moments
from tests.oracle import naive
from tests.oracle.certificate_cases import CENTER, check_residuals, long_scatter, repeated_rows
from tests.oracle.tolerances import eps

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks import certificate as benchmark  # noqa: E402
from benchmarks.lib import hostile  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("serial_oracle"),
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs extended precision as the truth for float64"),
]


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_residuals_bound_the_truth_tall(data, center, solver):
    pairs, _ = check_residuals(data, 10, center=center, solver=solver)
    assert pairs.solver == solver


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_residuals_bound_the_truth_wide(data, center, solver):
    X = np.ascontiguousarray(data.T)
    check_residuals(X, 10, center=center, solver=solver)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("option", ["weights", "standardize", "both"])
def test_residuals_with_weights_and_standardized(dtype, solver, wide, option):
    rng = np.random.default_rng(5)
    X = (rng.standard_normal((300, 50)) @ rng.standard_normal((50, 50)) + 30).astype(dtype)
    X = np.ascontiguousarray(X.T) if wide else X
    options = {}
    if option in ("weights", "both"):
        options["sample_weight"] = rng.integers(1, 5, len(X)).astype(float)
    if option in ("standardize", "both"):
        options["standardize"] = True
    check_residuals(X, 6, solver=solver, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_residuals_are_not_idle(dtype, solver):
    """A bound that is never near the truth would be honest and useless: within 300 of it on ordinary data."""
    rng = np.random.default_rng(5)
    X = (rng.standard_normal((800, 40)) * np.linspace(1, 4, 40)).astype(dtype)
    pairs, true = check_residuals(X, 5, solver=solver)
    assert (pairs.residuals <= 64 * eps(dtype) * pairs.values[0] / pairs.values).all()
    assert (pairs.residuals <= 300 * true).any()


def test_residuals_of_moments_and_dense_operators():
    rng = np.random.default_rng(2)
    X = (rng.standard_normal((600, 30)) * np.linspace(1, 3, 30) + 4).astype(np.float32)
    pairs = top_eigenpairs(Moments.from_data(X), 4)
    true = naive.relative_residuals(pairs.values, pairs.vectors, naive.apply_scatter(X, pairs.vectors), eps(np.float32))
    assert (true <= pairs.residuals).all()
    S = long_scatter(X.astype(float), True).astype(float)
    pairs = top_eigenpairs(DenseOperator(S), 4)
    images = S.astype(np.longdouble) @ pairs.vectors
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(np.float64))
    assert (true <= 2 * pairs.residuals + 8 * eps(np.float64)).all()  # an operator's own rounding is its own business


def test_relative_is_zero_for_a_zero_spectrum():
    np.testing.assert_array_equal(eigenpairs.relative(np.zeros(2), np.zeros(2), 1e-7), 0.0)
    assert eigenpairs.relative(np.zeros(0), np.zeros(0), 1e-7).size == 0
    np.testing.assert_allclose(eigenpairs.relative(np.array([1.0, 1e-9]), np.array([2.0, 0.0]), 1e-7), [0.5, 5e-3])


def test_measured_is_the_norm_of_the_residual():
    values, vectors, images = np.array([2.0, 1.0]), np.eye(3)[:, :2], np.zeros((3, 2))
    images[0, 0], images[2, 0], images[1, 1] = 2.0, 3.0, -1.0
    np.testing.assert_array_equal(eigenpairs.measured(values, vectors, images), [3.0, 2.0])
    assert panels.cross(vectors, images)[0, 0] == 2.0


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_a_wrong_vector_is_not_certified(solver, monkeypatch):
    """Break the eigensolver's answer: the certificate must see it."""
    from lae_fast.eigen import dense, krylov, refine

    rng = np.random.default_rng(5)
    X = rng.standard_normal((900, 30)) * np.linspace(1, 4, 30)

    def turned(vectors):
        wrong = vectors.copy()
        wrong[:, 0] += 1e-3 * rng.standard_normal(30)
        return wrong / np.linalg.norm(wrong, axis=0)

    real_dense, real_krylov, real_refine = dense.leading_eigenpairs, krylov.block_krylov, refine.refined

    def wrong_dense(*args):
        values, vectors = real_dense(*args)
        return values, turned(vectors)

    def wrong_krylov(*args, **options):
        pairs = real_krylov(*args, **options)
        pairs.vectors = turned(pairs.vectors)
        pairs.images = naive.apply_scatter(X, pairs.vectors).astype(float) * args[0].scale ** 2
        return pairs

    monkeypatch.setattr(dense, "leading_eigenpairs", wrong_dense)
    monkeypatch.setattr(krylov, "block_krylov", wrong_krylov)
    monkeypatch.setattr(
        refine,
        "refined",
        lambda source, request, found, basis: found if solver == "gram" else real_refine(source, request, found, basis),
    )
    with pytest.warns(UserWarning, match="above the tolerance"):
        pairs = top_eigenpairs(X, 3, solver=solver)
    assert pairs.residuals.max() > 1e-5
    assert not pairs.converged.all()


@pytest.mark.needs_jit
@pytest.mark.parametrize("deviation", [1.0, 0.3, 0.1, 0.035])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_sparse_column_far_from_zero(deviation, standardize):
    """Products of stored entries are summed about zero: what the mean takes off must not count as exact."""
    rng = np.random.default_rng(0)
    D = 0.01 * rng.standard_normal((400, 200)) * (rng.random((400, 200)) < 0.02)
    D[:, 0] = 3 + deviation * rng.standard_normal(400)
    X = scipy.sparse.csr_matrix(D)
    for solver in ("gram", "krylov"):
        check_residuals(X, 3, solver=solver, standardize=standardize)
    wide = scipy.sparse.csr_matrix(D.T.copy())
    check_residuals(wide, 3, solver="gram", standardize=standardize)


def test_moments_carry_how_far_their_sums_are_off(tmp_path):
    rng = np.random.default_rng(0)
    X = repeated_rows(rng, 2000, 40)
    odd = Moments.from_data(X)
    plain = Moments.from_data(rng.standard_normal((2000, 40)))
    assert plain.run == 128 and 0 < plain.drift <= drift.LARGEST_DRIFT < odd.drift
    assert (odd + plain).drift == (plain + odd).drift == odd.decayed(0.5).drift == odd.drift
    odd.save(tmp_path / "odd.npz")
    assert Moments.load(tmp_path / "odd.npz").drift == odd.drift
    single = Moments.from_data(X.astype(np.float32))
    assert single.run == 0 and single.drift == 0.0  # all summed in float64
    sparse = Moments.from_data(scipy.sparse.random_array((500, 100), density=0.01, rng=rng))
    assert sparse.about_zero == (plain + Moments(40)).about_zero + 500


def test_krylov_finds_nearly_all_components_of_white_data():
    """A block of data without a leading direction is nearly invariant, and leaves no directions to go on with."""
    rng = np.random.default_rng(0)
    m, d, k = 792, 443, 442
    Q = rng.standard_normal((m, k))
    Q = np.linalg.qr(Q - Q.mean(axis=0))[0]
    V = np.linalg.qr(rng.standard_normal((d, k)))[0]
    X = ((Q * np.r_[10.0, np.ones(k - 1)]) @ V.T).astype(np.float32)
    for p in (436, 441):
        pairs, _ = check_residuals(X, p, solver="krylov")
        assert pairs.converged.all() and pairs.solver == "krylov"
        np.testing.assert_allclose(pairs.values[1:], 1.0, rtol=1e-5)


@pytest.mark.needs_jit
def test_the_benchmark_of_bounds_finds_none_exceeded(capsys):
    assert benchmark.main(["--fits", "40", "--seed", "5"]) == 0
    assert "exceeded" in capsys.readouterr().out


@pytest.mark.needs_jit
def test_the_benchmark_of_bounds_sees_one_that_is_too_small(monkeypatch, capsys):
    monkeypatch.setattr(eigenpairs, "relative", lambda norms, values, eps: 1e-3 * np.ones_like(norms) * eps)
    assert benchmark.main(["--fits", "6", "--seed", "5"]) == 1
    assert "of the bound" in capsys.readouterr().out


@pytest.mark.needs_jit
def test_a_small_value_that_is_refined_is_the_one_that_is_measured():
    """Found by hostile fits: weighted one-hot rows whose last component is small, before others that are zero."""
    assert benchmark.main(["--fits", "1", "--first", "1354", "--seed", "104"]) == 0


@pytest.mark.needs_jit
def test_entries_of_two_neighbouring_magnitudes_are_equal_enough():
    """Found by hostile fits: rows of one sign and the other, whose sums of some multiples were exact by chance."""
    assert benchmark.main(["--fits", "1", "--first", "39689", "--seed", "701"]) == 0


@pytest.mark.needs_jit
def test_the_truth_of_the_benchmark_is_off_by_no_more_than_it_says():
    """Mostly zeros: sums of their squares drift in float64, while the moments of bytes are exact."""
    for seed in range(8):
        X = (np.random.default_rng(seed).random((7000, 2)) < 0.003).astype(np.uint8)
        pairs = top_eigenpairs(X, 2, standardize=True, solver="gram")
        fit = X, pairs.values, pairs.vectors, eps(np.float32)
        truth, own = hostile.true_residuals(*fit, standardize=True)
        exact, left = hostile.true_residuals(*fit, standardize=True, exact=True)
        assert (np.abs(truth - exact) <= own).all() and (exact - left <= pairs.residuals).all()
