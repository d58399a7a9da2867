"""top_eigenpairs and what it stands on: routes, spectra that hurt, signs, restarts, warnings, refusals."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import threadpoolctl
from sklearn.exceptions import ConvergenceWarning

from lae_fast import plan
from lae_fast.data.sources import as_source
from lae_fast.eigen import dense, krylov, krylov_route
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.errors import MemoryLimitError
from lae_fast.operators.dense import DenseOperator
from lae_fast.operators.moments import Moments
from lae_fast.operators.rows import RowsOperator
from tests.oracle import naive
from tests.oracle.tolerances import eps, tolerance

REAL = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
SOLVERS = pytest.mark.parametrize("solver", ["gram", "krylov"])
SIDES = pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])


@pytest.fixture(autouse=True, scope="module")
def serial_oracle():
    """The oracle's small LAPACK calls on one thread: on a busy machine BLAS threads cost more than they bring."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


def orthonormal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((m, n)))[0]


def with_singular_values(rng, m, d, singular, dtype=np.float64):
    """X = U diag(s) V' and V, with the rows of X summing to zero, so that centring changes nothing."""
    k = len(singular)
    U = rng.standard_normal((m, k))
    U = np.linalg.qr(U - U.mean(axis=0))[0]
    V = orthonormal(rng, d, k)
    return (U * singular @ V.T).astype(dtype), V


@pytest.fixture
def rng():
    return np.random.default_rng(19)


def truth(X, weights=None, center=True, standardize=False):
    """All eigenpairs with a nonzero value, by an SVD in float64."""
    X = np.asarray(X, dtype=np.float64)
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if center:
        X = X - (w @ X) / w.sum()
    if standardize:
        squares = w @ X**2
        X = X / np.where(squares > 0, np.sqrt(squares / (w.sum() - 1)), 1.0)
    _, s, Vt = np.linalg.svd(np.sqrt(w)[:, None] * X, full_matrices=False)
    return s**2, Vt.T


def assert_pairs(pairs, X, p, dtype, **known):
    """Values, orthonormality, the subspace, order, signs, and convergence of what was found."""
    values, vectors = truth(X, **known)
    assert pairs.values.shape == (p,) and pairs.values.dtype == np.float64
    assert pairs.vectors.shape == (X.shape[1], p) and pairs.vectors.dtype == dtype
    assert pairs.vectors.flags.c_contiguous
    np.testing.assert_allclose(pairs.values, values[:p], rtol=0, atol=tolerance("eigenvalue", dtype) * values[0])
    assert (np.diff(pairs.values) <= 0).all()
    gram = pairs.vectors.astype(float).T @ pairs.vectors
    np.testing.assert_allclose(gram, np.eye(p), rtol=0, atol=tolerance("orthonormality", dtype))
    largest = np.abs(pairs.vectors).argmax(axis=0)
    assert (pairs.vectors[largest, np.arange(p)] > 0).all()
    assert pairs.converged.all()
    gap = values[p - 1] - (values[p] if p < len(values) else 0.0)
    if gap > 1e-3 * values[0]:
        distance = naive.projector_distance(pairs.vectors, vectors[:, :p])
        assert distance <= tolerance("subspace", dtype) * values[0] / gap


@REAL
@SOLVERS
@SIDES
@pytest.mark.parametrize("center", [True, False], ids=["centred", "raw"])
@pytest.mark.parametrize("option", ["plain", "weights", "standardize", "weights+standardize"])
def test_routes(rng, dtype, solver, wide, center, option):
    m, d = (45, 160) if wide else (160, 45)
    X = (rng.standard_normal((m, 40)) @ (rng.standard_normal((40, d)) * np.linspace(3, 1, 40)[:, None]) + 7).astype(
        dtype
    )
    options = {"center": center}
    if "standardize" in option:
        if not center:
            pytest.skip("standardizing without centring is not on offer")
        options["standardize"] = True
    weights = rng.integers(1, 4, m).astype(float) if "weights" in option else None
    pairs = top_eigenpairs(X, 5, solver=solver, sample_weight=weights, **options)
    assert_pairs(pairs, X, 5, dtype, weights=weights, **options)
    assert pairs.solver == solver
    assert pairs.n_passes >= 1
    assert pairs.trace == pytest.approx(truth(X, weights, **options)[0].sum(), rel=64 * eps(dtype))
    assert pairs.weight_sum == (m if weights is None else weights.sum())
    if center:
        mean = np.average(X.astype(float), axis=0, weights=weights)
        np.testing.assert_allclose(pairs.mean, mean, rtol=16 * eps(dtype))
        squares = np.average((X.astype(float) - mean) ** 2, axis=0, weights=weights) * pairs.weight_sum
        np.testing.assert_allclose(pairs.variances, squares, rtol=64 * eps(dtype))


@REAL
@SIDES
@pytest.mark.parametrize("mean", [0.0, 1e1, 1e3, 1e5])
@SOLVERS
def test_promise_1_at_any_mean(rng, dtype, wide, mean, solver):
    """|dl_i| <= 1e-5 l_i where l_i >= 1e-2 l_1, else <= 1e-7 l_1 (contract, promise 1)."""
    X, _ = with_singular_values(rng, 300, 60, 30 * 0.8 ** np.arange(60))
    X = ((X.T if wide else X) + mean).astype(dtype)
    pairs = top_eigenpairs(X, 20, solver=solver)
    values = truth(X)[0][:20]
    limit = np.where(values >= 1e-2 * values[0], 1e-5 * values, 1e-7 * values[0])
    assert (np.abs(pairs.values - values) <= limit).all()


@SOLVERS
@SIDES
@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_promise_1_at_any_scale(rng, solver, wide, scale):
    X, _ = with_singular_values(rng, 200, 50, np.linspace(10, 1, 50))
    X = ((X.T if wide else X) * scale).astype(np.float32)
    assert_pairs(top_eigenpairs(X, 4, solver=solver), X, 4, np.float32)


@pytest.mark.parametrize("input_dtype", [np.uint8, np.int8, np.int16, np.bool_, np.float16, np.int64, ">f4", object])
def test_input_dtypes(rng, input_dtype):
    X = np.clip(rng.normal(60, 25, (200, 12)) * np.linspace(0.2, 1, 12), 0, 120).astype(np.int64)
    X = (X > 50 if input_dtype == np.bool_ else X).astype(input_dtype)
    double = input_dtype in (np.int64, object)
    assert_pairs(top_eigenpairs(X, 3), X.astype(float), 3, np.float64 if double else np.float32)


@pytest.mark.needs_jit
@REAL
@SIDES
@SOLVERS
@pytest.mark.parametrize("fraction", [0.3, 0.8, 0.99])
def test_fraction_of_the_trace(rng, dtype, wide, solver, fraction):
    X, _ = with_singular_values(rng, 250, 60, 10 * 0.8 ** np.arange(60), dtype)
    X = np.ascontiguousarray(X.T) if wide else X
    values = truth(X)[0]
    p = int(np.searchsorted(np.cumsum(values) / values.sum(), fraction)) + 1
    assert_pairs(top_eigenpairs(X, fraction, solver=solver), X, p, dtype)


@pytest.mark.needs_jit
@SIDES
def test_a_fraction_of_a_flat_spectrum_needs_many(rng, wide):
    """More components than the model expected: the basis must grow, or the route change."""
    X, _ = with_singular_values(rng, 360, 300, np.linspace(1.1, 1.0, 300))
    X = np.ascontiguousarray(X.T) if wide else X
    values = truth(X)[0]
    p = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.5)) + 1
    pairs = top_eigenpairs(X, 0.5)
    np.testing.assert_allclose(pairs.values, values[:p], rtol=1e-12)


@REAL
@SOLVERS
@pytest.mark.parametrize("shape", [(60, 12), (12, 60), (20, 20), (30, 1), (1, 30), (2, 5), (5, 2), (3, 3)], ids=str)
def test_all_components(rng, dtype, solver, shape):
    """p = None and p = min(m, d); for m <= d the last centred eigenvalue is zero."""
    X = (rng.standard_normal(shape) + 2).astype(dtype)
    p = min(shape)
    pairs = top_eigenpairs(X, None, solver=solver)
    assert_pairs(pairs, X, p, dtype)
    np.testing.assert_array_equal(top_eigenpairs(X, p, solver=solver).values, pairs.values)
    if shape[0] <= shape[1]:
        assert pairs.values[-1] <= tolerance("eigenvalue", dtype) * max(pairs.values[0], np.finfo(dtype).tiny)


@REAL
@SOLVERS
@SIDES
@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6, 1e-3])
def test_tied_and_clustered_eigenvalues(rng, dtype, solver, wide, gap):
    """Within a cluster vectors are arbitrary; the cluster's subspace is not."""
    singular = np.concatenate([[4.0 + gap * i for i in range(5)], np.linspace(2, 0.5, 30)])
    X, V = with_singular_values(rng, 150, 50, singular, dtype)
    if wide:
        X, V = np.ascontiguousarray(X.T), None
    pairs = top_eigenpairs(X, 5, solver=solver, center=False)
    V = truth(X, center=False)[1] if V is None else V
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, np.sort(singular[:5])[::-1] ** 2, rtol=tolerance("eigenvalue", dtype))
    assert naive.projector_distance(pairs.vectors, V[:, :5]) <= tolerance("subspace", dtype) * 16 / 12
    gram = pairs.vectors.astype(float).T @ pairs.vectors
    np.testing.assert_allclose(gram, np.eye(5), rtol=0, atol=tolerance("orthonormality", dtype))


@REAL
@SOLVERS
def test_a_cut_through_a_tie(rng, dtype, solver):
    """p = 3 of five equal eigenvalues: any three orthonormal vectors of that subspace are right."""
    X, V = with_singular_values(rng, 200, 40, [5.0] * 5 + [1.0] * 20, dtype)
    pairs = top_eigenpairs(X, 3, solver=solver)
    np.testing.assert_allclose(pairs.values, 25.0, rtol=tolerance("eigenvalue", dtype))
    outside = pairs.vectors - V[:, :5] @ (V[:, :5].T @ pairs.vectors)
    assert np.linalg.norm(outside) <= tolerance("subspace", dtype)


@pytest.mark.needs_jit
@REAL
@SOLVERS
def test_multiplicity_above_the_krylov_block(rng, dtype, solver):
    """Block p + 10 = 12, multiplicity 30: a Krylov space sees one copy per start vector."""
    X, V = with_singular_values(rng, 500, 120, [6.0] * 30 + [2.0] * 60, dtype)
    for p in (2, 30):
        pairs = top_eigenpairs(X, p, solver=solver, n_oversamples=10 if p == 2 else 1)
        np.testing.assert_allclose(pairs.values, 36.0, rtol=tolerance("eigenvalue", dtype))
        outside = pairs.vectors - V[:, :30] @ (V[:, :30].T @ pairs.vectors)
        assert np.linalg.norm(outside) <= tolerance("subspace", dtype) * np.sqrt(p)


@REAL
@SOLVERS
@SIDES
def test_zero_matrix(dtype, solver, wide):
    for value in (0.0, 3.0):  # constant data are zero once centred
        X = np.full((20, 70) if wide else (70, 20), value, dtype)
        pairs = top_eigenpairs(X, 3, solver=solver)
        np.testing.assert_array_equal(pairs.values, 0.0)
        np.testing.assert_array_equal(pairs.residuals, 0.0)
        gram = pairs.vectors.astype(float).T @ pairs.vectors
        np.testing.assert_allclose(gram, np.eye(3), rtol=0, atol=tolerance("orthonormality", dtype))


@REAL
@SOLVERS
@SIDES
@pytest.mark.parametrize("rank", [1, 3])
def test_rank_deficient(rng, dtype, solver, wide, rank):
    X, _ = with_singular_values(rng, 120, 40, np.linspace(5, 3, rank), dtype)
    X = np.ascontiguousarray(X.T) if wide else X
    pairs = top_eigenpairs(X, 6, solver=solver, center=False)
    values = truth(X, center=False)[0]
    np.testing.assert_allclose(pairs.values, values[:6], rtol=0, atol=tolerance("eigenvalue", dtype) * values[0])
    assert (pairs.values[rank:] <= 64 * eps(dtype) * values[0]).all()
    gram = pairs.vectors.astype(float).T @ pairs.vectors
    np.testing.assert_allclose(gram, np.eye(6), rtol=0, atol=tolerance("orthonormality", dtype))
    assert np.isfinite(pairs.residuals).all()


@SIDES
@SOLVERS
@pytest.mark.parametrize("p", [12, 25])
def test_graded_spectrum_keeps_relative_accuracy(rng, wide, solver, p):
    """Singular values over 6 orders, eigenvalues over 12, float64: small eigenvalues to far better than eps l_1."""
    singular = np.logspace(0, -6, 25)
    X, _ = with_singular_values(rng, 200, 60, singular)
    X = np.ascontiguousarray(X.T) if wide else X
    pairs = top_eigenpairs(X, p, solver=solver, center=False)
    values = truth(X, center=False)[0][:p]
    relative = np.abs(pairs.values - values) / values
    # X itself is known to eps s_1 per entry, so s_i to eps s_1 / s_i relative, and l_i to twice that
    limit = 1e-13 + 16 * eps(np.float64) * singular[0] / singular[:p]
    assert (relative <= limit).all(), relative / limit


@REAL
@SOLVERS
@SIDES
def test_signs_and_bits_are_reproducible(rng, dtype, solver, wide):
    X = rng.standard_normal((40, 130) if wide else (130, 40)).astype(dtype)
    first, second = top_eigenpairs(X, 4, solver=solver), top_eigenpairs(X.copy(order="F"), 4, solver=solver)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.values, second.values)
    other = top_eigenpairs(X, 4, solver=solver, random_state=5)
    assert np.einsum("ij,ij->j", first.vectors, other.vectors) == pytest.approx(np.ones(4), abs=1e-3)
    flipped = top_eigenpairs(-X, 4, solver=solver)
    assert np.einsum("ij,ij->j", first.vectors, flipped.vectors) == pytest.approx(np.ones(4), abs=1e-3)


@pytest.mark.parametrize(
    "state", [3, np.random.default_rng(3), np.random.RandomState(3)], ids=["int", "Generator", "legacy"]
)
def test_random_state_is_taken(rng, state):
    X = rng.standard_normal((130, 40))
    assert_pairs(top_eigenpairs(X, 3, solver="krylov", random_state=state), X, 3, np.float64)


@REAL
def test_moments_as_input(rng, dtype):
    X = (rng.standard_normal((300, 20)) * np.linspace(1, 3, 20) + 50).astype(dtype)
    moments = Moments.from_data(X)
    pairs = top_eigenpairs(moments, 4)
    assert_pairs(pairs, X, 4, dtype)
    assert pairs.n_passes == 0
    np.testing.assert_allclose(pairs.mean, moments.mean)
    assert_pairs(top_eigenpairs(moments, 4, standardize=True), X, 4, dtype, standardize=True)
    assert len(top_eigenpairs(moments, 0.5).values) == 1 + int(
        np.searchsorted(np.cumsum(truth(X)[0]), 0.5 * truth(X)[0].sum())
    )


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.needs_jit
def test_explicit_krylov_does_not_switch(rng, monkeypatch):
    X, _ = with_singular_values(rng, 520, 400, np.linspace(1.0001, 1.0, 400))
    monkeypatch.setattr(krylov_route, "_MOST_PRODUCTS", 3)
    with pytest.warns(ConvergenceWarning):
        pairs = top_eigenpairs(X, 3, solver="krylov")
    assert pairs.solver == "krylov"


@pytest.mark.needs_jit
@SOLVERS
def test_too_little_memory_names_the_figures(rng, solver):
    X = rng.standard_normal((600, 500))
    with pytest.raises(
        MemoryLimitError, match=rf"max_memory=1 kB is too small: the {solver} route needs [\d.]+ [kM]B for 600 x 500"
    ):
        top_eigenpairs(X, 5, solver=solver, max_memory=1000)
    need = plan.gram_bytes(500, 8, 1) if solver == "gram" else 2 * 500 * 60 * 8
    pairs = top_eigenpairs(X, 5, solver=solver, max_memory="1GB")
    assert need <= pairs.workspace_bytes <= 1e9


@pytest.mark.needs_jit
def test_memory_decides_the_route(rng):
    X = rng.standard_normal((500, 390)).astype(np.float32)
    assert top_eigenpairs(X, 2).solver == "gram"
    pairs = top_eigenpairs(X, 2, max_memory=plan.gram_bytes(390, 4, 1) - 1)
    assert pairs.solver == "krylov" and "d x d, would take" in pairs.reason
    assert_pairs(pairs, X, 2, np.float32)


@pytest.mark.parametrize("p", [0, -1, 13, 1.0, 0.0, 1.5, True, "3", np.nan])
def test_bad_counts(rng, p):
    with pytest.raises(ValueError, match=r"p="):
        top_eigenpairs(rng.standard_normal((30, 12)), p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "magic"}, "choose one of 'auto', 'gram', 'krylov'"),
        ({"backend": "tpu"}, "choose one of 'auto', 'cpu', 'cuda'"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"tol": "x"}, "tol='x'"),
        ({"n_oversamples": 0}, "n_oversamples=0"),
        ({"sample_weight": np.ones(3)}, r"sample_weight has shape \(3,\)"),
        ({"sample_weight": -np.ones(30)}, "must not be negative, first at row 0"),
        ({"sample_weight": np.zeros(30)}, "zero for every sample"),
        ({"max_memory": "much"}, "write for example '500MB'"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_bad_options(rng, options, message):
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(rng.standard_normal((30, 12)), 2, **options)


@SOLVERS
@SIDES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_data_are_named_on_every_route(rng, solver, wide, bad):
    X = rng.standard_normal((50, 700) if wide else (700, 50)).astype(np.float32)
    row, column = (33, 411) if wide else (411, 33)
    X[row, column] = bad
    with pytest.raises(ValueError, match=rf"first at row {row}, column {column}\b"):
        top_eigenpairs(X, 3, solver=solver)


@SOLVERS
@SIDES
def test_passes_are_counted_and_reported(rng, solver, wide):
    X = rng.standard_normal((45, 160) if wide else (160, 45))
    reads, seen = [], []
    source = as_source(X)
    source.block = functools.partial(_counted, source.block, reads)
    pairs = top_eigenpairs(source, 3, solver=solver, progress=lambda *report: seen.append(report))
    assert seen and all(done <= total for _, done, total in seen)
    lines = sum(last - first for first, last, by_feature in reads)
    longest, shortest = max(X.shape), min(X.shape)
    # the pilots read up to 256 lines more on each side
    assert lines <= pairs.n_passes * longest + 3 * 256
    assert lines >= pairs.n_passes * shortest


def _counted(block, reads, first, last, by_feature):
    reads.append((first, last, by_feature))
    return block(first, last, by_feature)


@pytest.mark.needs_jit
@REAL
@SOLVERS
@SIDES
def test_same_bits_for_any_number_of_threads(rng, dtype, solver, wide):
    import lae_fast

    X = rng.standard_normal((90, 2300) if wide else (2300, 90)).astype(dtype)
    found = []
    try:
        for threads in (1, 2, 4):
            lae_fast.set_num_threads(threads)
            found.append(top_eigenpairs(X, 4, solver=solver))
    finally:
        lae_fast.set_num_threads(None)
    for other in found[1:]:
        np.testing.assert_array_equal(other.values, found[0].values)
        np.testing.assert_array_equal(other.vectors, found[0].vectors)


def test_data_are_never_written(rng):
    for X in (rng.standard_normal((80, 30)), np.asfortranarray(rng.standard_normal((30, 80)))):
        before = X.copy()
        X.flags.writeable = False
        top_eigenpairs(X, 3, solver="krylov", standardize=True)
        top_eigenpairs(X, 3, solver="gram")
        np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_lapack_finds_all_that_are_asked_for_of_a_multiple_of_one(dtype):
    """As standardized one-hot columns about zero have it, with entries off the diagonal that are rounding."""
    rng = np.random.default_rng(0)
    for n in (64, 100, 256):
        for tiny in (1e-20, 1e-15, 1e-9):
            matrix = 725.0 * np.eye(n)
            matrix[1:, 0] = matrix[0, 1:] = tiny * rng.random(n - 1)
            values, vectors = dense.largest(matrix.astype(dtype), 4)
            assert values.shape == (4,) and vectors.shape == (n, 4)
            np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[-4:], rtol=100 * np.finfo(dtype).eps)
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: t.__name__)
def test_one_hot_columns_standardized_about_zero(dtype):
    X = np.zeros((800, 300), dtype)
    X[np.arange(800), np.arange(800) % 300] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = top_eigenpairs(X, 4, solver="gram", center=False, standardize=True)
    assert pairs.values.shape == (4,)
    np.testing.assert_allclose(pairs.values, 799.0, rtol=1e-5)
