"""top_eigenpairs by every route: means, scales, spectra that hurt, ties, signs, bits, memory and passes."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

from lae_fast import plan
from lae_fast.data.sources import as_source
from lae_fast.eigen import dense
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.moments import Moments
from tests.oracle import naive
from tests.oracle.eigen_cases import REAL, SIDES, SOLVERS, assert_pairs, truth, with_singular_values
from tests.oracle.tolerances import eps, tolerance

pytestmark = pytest.mark.usefixtures("serial_oracle")


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


@pytest.mark.needs_jit
def test_memory_decides_the_route(rng):
    X = rng.standard_normal((500, 390)).astype(np.float32)
    assert top_eigenpairs(X, 2).solver == "gram"
    pairs = top_eigenpairs(X, 2, max_memory=plan.gram_bytes(390, 4, 1) - 1)
    assert pairs.solver == "krylov" and "d x d, would take" in pairs.reason
    assert_pairs(pairs, X, 2, np.float32)


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
