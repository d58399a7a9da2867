"""Certificates are upper bounds: the allowances are never below the true rounding, residuals_ never below the truth.

The truth is computed in extended precision (`np.longdouble`, 64-bit mantissa), where a product of two float64 numbers
is wrong by 5e-20 of itself.
"""

from __future__ import annotations

import functools
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl

from lae_fast import datasets
from lae_fast.backends import drift
from lae_fast.backends.cpu import panels
from lae_fast.data import sources
from lae_fast.eigen import eigenpairs
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators import rounding
from lae_fast.operators.dense import DenseOperator
from lae_fast.operators.moments import Moments
from lae_fast.operators.rows import RowsOperator
from tests.oracle import naive
from tests.oracle.tolerances import eps

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks import certificate as benchmark  # noqa: E402

M, D = 1500, 32

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 60, reason="needs extended precision as the truth for float64"
)


def gaussian(rng):
    return rng.standard_normal((M, D)) @ rng.standard_normal((D, D)) + 10


def heavy_tails(rng):
    return rng.exponential(1.0, (M, D)) ** 3


def correlated_heavy_tails(rng):
    return rng.exponential(1.0, (M, 8)) ** 3 @ rng.random((8, D))


def constant_columns(rng):
    X = rng.standard_normal((M, D)) + 5
    X[:, ::3] = 3.7
    return X


def one_outlier(rng):
    X = rng.standard_normal((M, D))
    X[700] *= 1e5
    return X


def binary(rng):
    return (rng.random((M, D)) < rng.random(D)).astype(float)


def poisson(rng):
    return rng.poisson(rng.random(D) * 4, (M, D)).astype(float)


def harmonic(rng):
    """Singular values 1 / k."""
    U, V = np.linalg.qr(rng.standard_normal((M, D)))[0], np.linalg.qr(rng.standard_normal((D, D)))[0]
    return U / np.arange(1, D + 1) @ V.T


def nearly_constant(rng):
    """Far from zero against what it varies: uncentred, all entries of S are nearly one number."""
    return rng.standard_normal((M, D)) * 1e-3 + rng.random(D) * 5


def mild_outlier(rng):
    """Large enough to rule the Gram, small enough that what comes after it is rounded."""
    X = rng.standard_normal((M, D))
    X[rng.integers(M)] *= 100
    return X


def far_mean(rng):
    return rng.standard_normal((M, D)) * np.linspace(0.1, 3, D) + 1e4


def rank_one(rng):
    return np.multiply.outer(rng.standard_normal(M), rng.standard_normal(D))


def all_positive(rng):
    """Strongly correlated: every entry of S has one sign."""
    return rng.random((M, 1)) * 10 + rng.random((M, D))


def digits(rng):
    return datasets.load("digits")[:M].astype(float)


def mnist(rng):
    if datasets.local_file("mnist") is None:
        pytest.skip("MNIST is not here: set LAE_FAST_DATA to the directory of mnist.npz")
    return datasets.load("mnist", subset="test")[:M, 400:460].astype(float)


DATA = [
    gaussian, heavy_tails, correlated_heavy_tails, constant_columns, one_outlier, binary, poisson, harmonic, far_mean,
    nearly_constant, mild_outlier, rank_one, all_positive, digits, mnist,
]  # fmt: skip
WHOLE = {binary, poisson, digits, mnist}


@pytest.fixture(autouse=True, scope="module")
def serial_oracle():
    """The oracle's small LAPACK calls on one thread: on a busy machine BLAS threads cost more than they bring."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


@functools.cache
def made(function):
    return function(np.random.default_rng(11))


# Only data of whole numbers are asked for in bytes.
CASES = [
    pytest.param((function, dtype), id=f"{function.__name__}-{dtype.__name__}")
    for function in DATA
    for dtype in (np.float32, np.float64, np.uint8)
    if dtype is not np.uint8 or function in WHOLE
]


@pytest.fixture(params=CASES)
def data(request):
    """(M, D) of one kind in one dtype."""
    function, dtype = request.param
    return made(function).astype(dtype)


CENTER = pytest.mark.parametrize("center", [True, False], ids=["centred", "raw"])


def long_scatter(X, center, dtype=np.longdouble):
    X = X.astype(dtype)
    if center:
        X = X - X.mean(axis=0)
    return X.T @ X


@pytest.mark.needs_jit
@CENTER
def test_gram_allowance_covers_the_rounding_of_the_gram(data, center):
    """|E u| for E the error of the moments' matrix, for every eigenvector."""
    X = data
    moments = Moments.from_data(X, center=center)
    matrix, scale = moments.scaled_xx()
    # a float32 Gram may be checked in float64, whose own error is 5e8 times smaller
    work = np.float64 if moments.dtype == np.float32 else np.longdouble
    error = matrix.astype(work) - long_scatter(X, center, work) * work(scale) ** 2
    values, vectors = naive.leading_eigenpairs(matrix, D)
    allowance = rounding.gram_rounding(
        matrix, vectors, np.maximum(values, 0), rounding.GramSums(moments.dtype.itemsize)
    )
    true = np.sqrt(((error @ vectors.astype(work)) ** 2).sum(axis=0)).astype(float)
    assert (true <= allowance).all(), f"worst {np.max(true / allowance):.3g} of the allowance"


def tall(X):
    return X


def wide(X):
    """Few long lines: a component may sit in one of them, and BLAS sums them in one run."""
    return np.ascontiguousarray(X.T)


def square(X):
    return np.ascontiguousarray(X[:1200].reshape(160, -1))


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("shape", [tall, wide, square], ids=lambda f: f.__name__)
def test_pass_allowance_covers_the_rounding_of_a_pass(data, center, shape):
    check_pass(shape(data), center)


def outlier_among_long_lines(rng):
    X = rng.standard_normal((300, 3000))
    X[7] *= 300
    return X


LONG = {
    "gaussian": lambda rng: rng.standard_normal((300, 4000)) + 1,
    "heavy_tails": lambda rng: rng.exponential(1, (300, 4000)) ** 3,
    "all_positive": lambda rng: rng.random((300, 3)) @ rng.random((3, 4000)) + 0.01 * rng.random((300, 4000)),
    "outlier": outlier_among_long_lines,
    "binary": lambda rng: (rng.random((300, 3000)) < 0.1).astype(float),
    "repeated_rows": lambda rng: np.repeat(rng.standard_normal((20, 3000)), 20, axis=0),
}


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("name", LONG)
def test_pass_allowance_covers_lines_of_thousands_of_entries(name, center):
    check_pass(LONG[name](np.random.default_rng(3)).astype(np.float32), center)


def check_pass(X, center):
    """S u as RowsOperator computes it against S u, for the leading eigenvectors stored in the compute dtype."""
    operator = RowsOperator(sources.as_source(X), center=center, block=12)
    centred = X.astype(float) - (X.astype(float).mean(axis=0) if center else 0.0)
    vectors = np.linalg.svd(centred, full_matrices=False)[2][:24].T.astype(operator.dtype)
    image = operator.apply(vectors)
    work = np.float64 if operator.dtype == np.float32 else np.longdouble
    exact = naive.apply_scatter(X, vectors, center=center, dtype=work) * work(operator.scale) ** 2
    values = np.maximum(np.einsum("ij,ij->j", vectors, image), 0)
    allowance = operator.rounding(vectors, values)
    true = np.sqrt(((image - exact) ** 2).sum(axis=0)).astype(float)
    assert (true <= allowance).all(), f"worst {np.max(true / np.maximum(allowance, 1e-300)):.3g} of the allowance"


def check_residuals(X, p, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an honest bound is asked for, not a small one
        pairs = top_eigenpairs(X, p, **options)
    compute = sources.compute_dtype(X.dtype)
    work = np.float64 if compute == np.float32 else np.longdouble
    known = {name: options[name] for name in ("center", "standardize") if name in options}
    dense = X.toarray() if scipy.sparse.issparse(X) else X
    images = naive.apply_scatter(dense, pairs.vectors, options.get("sample_weight"), dtype=work, **known)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(compute))
    assert np.isfinite(pairs.residuals).all()
    # The first factor is the oracle's own rounding where it runs in float64, the last term that of a perfect pair.
    assert (true <= pairs.residuals + 1e-300).all(), f"worst {np.max(true / np.maximum(pairs.residuals, 1e-300)):.3g}"
    return pairs, true


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


# --- data whose rounding errors are not independent -------------------------------------------------------------------


def repeated_rows(rng, m, d):
    return rng.standard_normal((2, d))[rng.integers(0, 2, m)]


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
