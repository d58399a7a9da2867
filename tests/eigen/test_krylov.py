"""The Krylov route and what it stands on: operators, restarts, ties, the proof that nothing was missed, giving up."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lae_fast import plan
from lae_fast.data.sources import as_source
from lae_fast.eigen import dense, krylov, krylov_route
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.dense import DenseOperator
from lae_fast.operators.rows import RowsOperator
from tests.oracle import naive
from tests.oracle.eigen_cases import REAL, orthonormal, truth, with_singular_values
from tests.oracle.tolerances import eps, tolerance

pytestmark = pytest.mark.usefixtures("serial_oracle")


class Laplacian:
    """A custom operator: 2 on the diagonal, -1 beside it; eigenvalues 2 - 2 cos(k pi / (n + 1))."""

    def __init__(self, n, dtype=np.float64):
        self.dim, self.dtype = n, np.dtype(dtype)
        self.trace = 2.0 * n
        self.calls = 0

    def apply(self, block):
        self.calls += 1
        block = block.astype(np.float64)
        out = 2 * block
        out[1:] -= block[:-1]
        out[:-1] -= block[1:]
        return out

    def values(self, p):
        return (2 - 2 * np.cos(np.arange(1, self.dim + 1) * np.pi / (self.dim + 1)))[::-1][:p]


@REAL
def test_custom_operator(dtype):
    operator = Laplacian(90, dtype)
    pairs = top_eigenpairs(operator, 6)
    np.testing.assert_allclose(pairs.values, operator.values(6), rtol=0, atol=tolerance("eigenvalue", dtype) * 4)
    assert pairs.solver == "krylov" and pairs.vectors.dtype == dtype and pairs.mean is None
    assert pairs.converged.all()


def test_dense_operator_with_a_scale(rng):
    S = np.diag([4.0, 2.0, 1.0, 0.5])
    pairs = top_eigenpairs(DenseOperator(S, scale=0.5), 2)
    np.testing.assert_allclose(pairs.values, [16.0, 8.0], rtol=1e-14)
    np.testing.assert_allclose(np.abs(pairs.vectors), np.eye(4)[:, :2], atol=1e-14)


def tight(values):
    return 1e-11 * values[0] * np.ones_like(values)


@pytest.mark.parametrize("max_basis", [24, 40, 64])
def test_thick_restarts(max_basis):
    """A basis far below what convergence needs: restarts must lose nothing."""
    operator = Laplacian(120)
    pairs = krylov.block_krylov(
        operator, lambda values, trace: 4, lambda values: 1e-9 * np.full(values.shape, values[0]),
        krylov.Limits(8, max_basis, 4000),
    )  # fmt: skip
    assert pairs.converged and not pairs.complete
    assert operator.calls * 8 > 2 * max_basis  # it did restart
    np.testing.assert_allclose(pairs.values, operator.values(4), rtol=1e-11)
    images = operator.apply(pairs.vectors)
    assert np.linalg.norm(images - pairs.vectors * pairs.values, axis=0).max() <= 1e-8


@pytest.mark.needs_jit
def test_restarts_in_float32_keep_the_estimates_honest(rng):
    X, _ = with_singular_values(rng, 400, 200, np.linspace(2, 1, 200) ** 2, np.float32)
    operator = RowsOperator(as_source(X), block=8)
    pairs = krylov.block_krylov(
        operator, lambda values, trace: 3, lambda values: np.full(values.shape, 1e-5 * values[0]),
        krylov.Limits(8, 32, 200),
    )  # fmt: skip
    assert pairs.converged
    exact = naive.apply_scatter(X, pairs.vectors, dtype=np.float64) * operator.scale**2
    true = np.linalg.norm(exact - pairs.vectors * pairs.values, axis=0)
    assert (true <= 4e-5 * pairs.values[0]).all()


def test_wanting_more_than_the_basis_holds_gives_none():
    operator = Laplacian(100)
    assert krylov.block_krylov(operator, lambda v, t: 90, tight, krylov.Limits(8, 32, 50)) is None
    assert krylov.block_krylov(operator, lambda v, t: None, tight, krylov.Limits(8, 32, 50)) is None


class Diagonal:
    """An operator with a known spectrum."""

    def __init__(self, values, dtype=np.float32):
        self.values, self.dim, self.dtype, self.trace = values, values.size, np.dtype(dtype), float(values.sum())
        self.products = 0

    def apply(self, block):
        self.products += 1
        return self.values[:, None] * np.asarray(block, np.float64)


GAP = np.r_[0.5 - 0.004 * np.arange(40), 1e-3 / (1.0 + np.arange(940))]


@REAL
@pytest.mark.parametrize("share", [5e-7, 1e-4, 5e-3])
@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("tail", [GAP, 0.9 ** np.arange(1, 981), 0.9 / np.arange(1, 981)], ids=["gap", "fast", "slow"])
@pytest.mark.parametrize("copies", [9, 20])
def test_a_block_narrower_than_a_tie_finds_every_copy(dtype, copies, tail, spread, share):
    operator = Diagonal(np.r_[1.0 - spread * np.arange(copies) / copies, tail], dtype)
    found = krylov.block_krylov(
        operator, lambda values, trace: 30, lambda values: np.full(values.size, share * values[0]),
        krylov.Limits(8, 480, 100, widest=40),
    )  # fmt: skip
    np.testing.assert_allclose(found.values, operator.values[:30], rtol=0, atol=max(share, 1e-5))
    assert found.converged


def test_a_narrow_block_costs_nothing_more_where_nothing_ties():
    products = []
    for narrow in (8, 40):
        operator = Diagonal(0.95 ** np.arange(600.0))
        krylov.block_krylov(
            operator, lambda values, trace: 30, lambda values: np.full(values.size, 5e-7 * values[0]),
            krylov.Limits(narrow, 480, 100, widest=40),
        )  # fmt: skip
        products.append(operator.products * narrow)
    assert products[0] < products[1]


def test_a_basis_that_spans_the_space_is_complete(rng):
    S = np.diag(np.arange(20.0, 0, -1))
    pairs = krylov.block_krylov(DenseOperator(S), lambda v, t: 20, tight, krylov.Limits(8, 20, 10))
    assert pairs.complete and pairs.converged
    np.testing.assert_allclose(pairs.values, np.arange(20.0, 0, -1), rtol=1e-13)


def test_an_invariant_start_block_is_left_at_random(monkeypatch):
    """The start block spans an eigenspace: its residual is zero, and larger eigenvalues lie outside."""
    n = 60
    S = np.diag(np.arange(1.0, n + 1))
    real = krylov.KrylovBasis.orthonormalize
    first = []

    def start_small(self, panel, floor):
        if not first:
            first.append(True)
            panel = np.eye(n)[:, : panel.shape[1]]  # the smallest eigenvectors
        return real(self, panel, floor)

    def wanted_above_half(values, trace):  # unknown until a large one is seen
        return 3 if values[0] > n / 2 else None

    monkeypatch.setattr(krylov.KrylovBasis, "orthonormalize", start_small)
    pairs = krylov.block_krylov(
        DenseOperator(S), wanted_above_half, lambda v: np.full(v.shape, 1e-9), krylov.Limits(5, n, 40)
    )
    np.testing.assert_allclose(pairs.values, [60, 59, 58], rtol=1e-12)


def blind_start(direction):
    """A start block, and every later panel, orthogonal to `direction`: what it holds cannot be found."""
    real = krylov.KrylovBasis.orthonormalize

    def orthonormalize(self, panel, floor):
        panel = panel - np.multiply.outer(direction, direction @ panel).astype(panel.dtype)
        return real(self, panel, floor)

    return orthonormalize


@pytest.mark.full
def test_nothing_missed_is_proved(rng, monkeypatch):
    """Krylov cannot see the largest eigenvector; Cholesky notices, and LAPACK answers instead."""
    n = plan.SMALL_DENSE + 16
    Q = orthonormal(rng, n, n)
    values = np.concatenate([[9.0], np.linspace(3, 2, 5), 0.5 * 0.9 ** np.arange(n - 6)])
    S = (Q * values) @ Q.T
    S = 0.5 * (S + S.T)
    monkeypatch.setattr(krylov.KrylovBasis, "orthonormalize", blind_start(Q[:, 0]))
    operator = DenseOperator(S)
    pairs = krylov.block_krylov(operator, lambda v, t: 3, tight, krylov.Limits(16, 200, 60))
    assert pairs.converged
    np.testing.assert_allclose(pairs.values, values[1:4], rtol=1e-10)  # the trap works
    assert not dense._nothing_missed(operator, pairs)
    found, vectors = dense.leading_eigenpairs(operator, 3, lambda v, t: 3, tight)[:2]
    np.testing.assert_allclose(found, values[:3], rtol=1e-12)
    assert abs(vectors[:, 0] @ Q[:, 0]) == pytest.approx(1.0)


def test_nothing_missed_accepts_the_truth(rng):
    n = 200
    Q, values = orthonormal(rng, n, n), 0.9 ** np.arange(n)
    S = (Q * values) @ Q.T
    S = 0.5 * (S + S.T)
    operator = DenseOperator(S)
    pairs = krylov.block_krylov(operator, lambda v, t: 5, tight, krylov.Limits(16, 100, 60))
    assert dense._nothing_missed(operator, pairs)


def test_graded_eigenpairs_of_a_small_matrix(rng):
    """One-sided Jacobi keeps the small values of D A D relative, where eigh loses them."""
    A = orthonormal(rng, 8, 8)
    A = A * np.linspace(1, 2, 8) @ A.T
    scaling = np.logspace(0, -10, 8)
    G = A * np.multiply.outer(scaling, scaling)
    values, vectors = dense.graded_eigenpairs(G)
    # the oracle: eigenvalues of the inverse are the inverses, so the smallest of G are the largest of G^-1
    smallest = 1 / np.linalg.eigvalsh(np.linalg.inv(A) / np.multiply.outer(scaling, scaling))[::-1]
    np.testing.assert_allclose(values[-1], smallest[0], rtol=1e-12)
    assert values[-1] == pytest.approx(naive.jacobi_eigenvalues(G)[-1], rel=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-13)
    np.testing.assert_allclose((vectors * values) @ vectors.T, G, atol=1e-14)
    zero, axes = dense.graded_eigenpairs(np.zeros((3, 3)))
    np.testing.assert_array_equal(zero, 0.0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-14)


@pytest.mark.needs_jit
def test_exhausted_products_warn_and_keep_the_best(rng, monkeypatch):
    X, _ = with_singular_values(rng, 520, 400, np.linspace(1.2, 1.0, 400), np.float64)
    monkeypatch.setattr(krylov_route, "_MOST_PRODUCTS", 3)
    with pytest.warns(ConvergenceWarning, match=r"\d+ of 4 components are above the tolerance: components 0") as caught:
        pairs = top_eigenpairs(X, 4, solver="krylov")
    assert len(caught) == 1
    assert not pairs.converged.all()
    images = naive.apply_scatter(X, pairs.vectors, dtype=np.float64)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(np.float64))
    assert (true <= pairs.residuals + 1e-13).all() and true.max() > 1e-6
    values = truth(X)[0]
    assert (pairs.values <= values[:4] * (1 + 1e-12)).all()  # Ritz values: from below
    assert (pairs.values > np.median(values)).all()  # and better than a random start's


@pytest.mark.needs_jit
def test_a_looser_tolerance_costs_fewer_passes_and_does_not_warn(rng):
    X, _ = with_singular_values(rng, 520, 400, np.linspace(1.2, 1.0, 400))
    counts = []
    for tol in (1e-2, 1e-6, 1e-10):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pairs = top_eigenpairs(X, 3, solver="krylov", tol=tol)
        images = naive.apply_scatter(X, pairs.vectors, dtype=np.float64)
        true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(np.float64))
        assert true.max() <= tol
        counts.append(pairs.n_passes)
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.full
@pytest.mark.needs_jit
def test_auto_switches_to_gram_when_krylov_is_slow(rng, monkeypatch):
    """A plan that says Krylov, on a spectrum where it takes forever."""
    X, _ = with_singular_values(rng, 520, 400, np.linspace(1.0001, 1.0, 400))
    monkeypatch.setattr(plan, "choose_route", lambda *args, **options: plan.Route("krylov", False, "the test says so"))
    monkeypatch.setattr(plan, "pass_budget", lambda *args: 3)
    pairs = top_eigenpairs(X, 3)
    assert pairs.solver == "gram"
    assert "block Krylov converged too slowly (3 passes spent" in pairs.reason
    assert pairs.n_passes >= 4  # those of the attempt count
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, truth(X)[0][:3], rtol=1e-12)


@pytest.mark.full
@pytest.mark.needs_jit
def test_explicit_krylov_does_not_switch(rng, monkeypatch):
    X, _ = with_singular_values(rng, 520, 400, np.linspace(1.0001, 1.0, 400))
    monkeypatch.setattr(krylov_route, "_MOST_PRODUCTS", 3)
    with pytest.warns(ConvergenceWarning):
        pairs = top_eigenpairs(X, 3, solver="krylov")
    assert pairs.solver == "krylov"
