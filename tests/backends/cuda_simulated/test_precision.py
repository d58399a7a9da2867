"""Coarser products on the device (`precision`), refined in float32: the stand-in rounds what TF32 would.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_precision.py
"""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import plan
from lae_fast.data import sources
from lae_fast.eigen import krylov_route
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators import rows
from tests.oracle import naive, simulator

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, blas
    from lae_fast.backends.cuda.passes import gram as gram_passes
    from lae_fast.backends.cuda.passes import rows as row_passes

TALL, WIDE = (19, 8), (8, 19)
EPS = 2.0**-23


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(plan, "DEVICE_TILE", 5)
    monkeypatch.setattr(plan, "DEVICE_LINES", 9)
    monkeypatch.setattr(plan, "REFINING_PASSES", 0)  # a Gram of eight lines is refined, too


@pytest.fixture
def modes(monkeypatch):
    """The precision of every pass over the data, in order."""
    seen = []
    for passes, name in ((gram_passes, "float_gram"), (row_passes, "row_pass")):
        run = getattr(passes, name)

        def record(view, *arguments, run=run):
            seen.append(view.precision)
            return run(view, *arguments)

        monkeypatch.setattr(passes, name, record)
    return seen


def data(shape=TALL, dtype=np.float32):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * np.linspace(3, 1, shape[1]) + 50).astype(dtype)


def true_residuals(X, values, vectors):
    return naive.relative_residuals(values, vectors, naive.apply_scatter(X, vectors), EPS)


def test_tf32_of_the_stand_in_keeps_ten_bits():
    numbers = np.array([1 + 2.0**-10, 1 + 2.0**-11 + 2.0**-20, 1 + 2.0**-12, -3.0, 0.0, np.inf], np.float32)
    read = blas._as_read(numbers, "tf32")
    np.testing.assert_array_equal(read, np.array([1 + 2.0**-10, 1 + 2.0**-10, 1, -3, 0, np.inf], np.float32))
    for kept in (blas._as_read(numbers, "bf16x9"), blas._as_read(numbers, "float32")):
        np.testing.assert_array_equal(kept, numbers)
    double = np.array([1 + 2.0**-40])
    assert blas._as_read(double, "tf32")[0] == double[0]


def gram(X, by_feature, precision):
    if by_feature:
        source = sources.as_source(X)
        return rows.RowsOperator(source, by_feature=True, backend="cuda", precision=precision).gram()
    return lf.Moments(X.shape[1]).update(X, backend="cuda", precision=precision).xx


@pytest.mark.parametrize("by_feature", [False, True])
def test_without_refinement_tf32_shows(by_feature):
    """Else the tests below would prove nothing."""
    X = data(WIDE if by_feature else TALL)
    coarse, exact = (gram(X, by_feature, name) for name in ("tf32", "float32"))
    off = np.abs(coarse - exact).max() / np.abs(exact).max()
    assert 1e-5 < off < 2.0**-10
    values, vectors = naive.leading_eigenpairs(coarse, 1)
    assert np.linalg.norm(exact @ vectors - values * vectors) / values[0] > 8 * EPS


@pytest.mark.parametrize("precision", ["tf32", "bf16x9"])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_residuals_are_those_of_float32(solver, shape, precision, modes):
    X = data(shape)
    pairs = top_eigenpairs(X, 1, solver=solver, backend="cuda", precision=precision, n_oversamples=1)
    assert pairs.converged.all() and pairs.solver == solver and f" in {precision}, then float32" in pairs.reason
    true = true_residuals(X, pairs.values, pairs.vectors)
    assert (true <= 8 * EPS).all() and (true <= pairs.residuals).all()
    assert modes[0] == precision and set(modes[modes.index("float32") :]) == {
        "float32"
    }  # coarse first, and never after


def test_weights_standardize_centre_and_fractions(modes):
    X = data()
    weights = np.random.default_rng(1).integers(0, 3, TALL[0]).astype(float)
    cases = [{"sample_weight": weights, "p": 1}, {"standardize": True, "p": 1}, {"center": False, "p": 1}, {"p": 0.4}]
    for case in cases:
        modes.clear()
        there = top_eigenpairs(X, solver="gram", backend="cuda", precision="tf32", n_oversamples=1, **case)
        here = top_eigenpairs(X, solver="gram", backend="cpu", n_oversamples=1, **case)
        assert "tf32" in modes and there.converged.all()
        np.testing.assert_allclose(there.values, here.values, rtol=1e-5)


def test_pca_and_truncated_svd_take_it():
    X = data()
    for model in (lf.PCA(1, svd_solver="gram"), lf.TruncatedSVD(1, algorithm="gram")):
        here = model.set_params(backend="cpu").fit(X).explained_variance_
        there = model.set_params(backend="cuda", precision="tf32", n_oversamples=1).fit(X)
        np.testing.assert_allclose(there.explained_variance_, here, rtol=1e-5)
        assert "in tf32" in there.route_reason_ and there.converged_.all() and there.n_passes_ >= 2


def test_where_the_float32_passes_are_too_slow_there_is_a_float32_gram(monkeypatch, modes):
    """Two products are not enough to refine; the Gram route is, and it must be the one in float32."""
    monkeypatch.setattr(plan, "pass_budget", lambda *_: 1)
    monkeypatch.setattr(krylov_route, "_SHARE", 1e-9)
    X = data()
    pairs = top_eigenpairs(X, 1, solver="gram", backend="cuda", precision="tf32", n_oversamples=1)
    assert "converged too slowly (2 passes spent on it)" in pairs.reason and pairs.n_passes == 3
    assert (true_residuals(X, pairs.values, pairs.vectors) <= pairs.residuals).all() and pairs.converged.all()


@pytest.mark.parametrize(
    ("X", "options", "why"),
    [
        (data(dtype=np.float64), {}, "computed in float64"),
        (np.arange(40, dtype=np.uint8).reshape(10, 4) % 7, {}, "Gram of bytes is exact"),
        (scipy.sparse.random(20, 9, 0.02, "csr", np.float32, 0), {"solver": "krylov"}, "stored entries"),
        (data(), {"p": None}, "so many components"),
        (lambda: iter([data()]), {}, "gathered in float32"),
    ],
    ids=["float64", "bytes", "sparse", "all", "blocks"],
)  # fmt: skip
def test_where_it_has_no_effect_the_reason_says_so(X, options, why, modes):
    options = {"p": 1, "solver": "gram", "n_oversamples": 1} | options
    pairs = top_eigenpairs(X, backend="cuda", precision="tf32", **options)
    assert "precision='tf32' had no effect" in pairs.reason and why in pairs.reason
    assert set(modes) <= {"float32"} and pairs.converged.all()


def test_many_components_are_not_refined(monkeypatch):
    monkeypatch.setattr(plan, "REFINING_PASSES", 3)
    reason = top_eigenpairs(data(), 1, solver="gram", backend="cuda", precision="tf32").reason
    assert "so many components takes longer than a Gram in float32" in reason


def test_what_a_card_lacks_is_said(monkeypatch):
    monkeypatch.setattr(arrays, "xp", None)
    monkeypatch.setattr(arrays, "capability", lambda: 75)
    monkeypatch.setattr(arrays, "cublas_version", lambda: 120_600)
    with pytest.raises(lf.UnsupportedOnBackendError, match=r"capability 8\.0.*this one has 7\.5"):
        blas.require("tf32")
    monkeypatch.setattr(arrays, "capability", lambda: 90)
    blas.require("tf32")
    blas.require("float32")
    with pytest.raises(lf.UnsupportedOnBackendError, match=r"needs .*10\.0 or later.* 9\.0: use precision='tf32' or"):
        blas.require("bf16x9")  # a whole GEMM in float32 there
    monkeypatch.setattr(arrays, "capability", lambda: 100)
    with pytest.raises(lf.UnsupportedOnBackendError, match=r"cuBLAS 12\.9 or later, and this is 120600"):
        blas.require("bf16x9")
    monkeypatch.setattr(arrays, "cublas_version", lambda: 131_000)
    blas.require("bf16x9")
