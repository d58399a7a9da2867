"""PCA on the CUDA backend, end to end on Numba's simulator with NumPy in the place of CuPy: routes, devices, errors.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_pca.py
Chunks are cut to a few lines, so that streaming, pipelining and residence have something to do.
"""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import backends, plan
from lae_fast.data import sources
from lae_fast.eigen import dense, krylov
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators import projection
from lae_fast.operators.dense import DenseOperator
from tests.oracle import naive, simulator
from tests.oracle.simulated_rows import TALL, WIDE, assert_pairs, data
from tests.oracle.tolerances import tolerance

pytestmark = [simulator.only, pytest.mark.usefixtures("small_chunks")]

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, blas, panels, stream


@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eigenpairs_by_every_route(solver, shape, dtype):
    X = data(shape, dtype)
    assert_pairs(top_eigenpairs(X, 3, solver=solver, backend="cuda"), X, dtype=dtype)


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_weights_zero_centre_and_standardize_agree_with_the_cpu(solver):
    X = data()
    weights = np.random.default_rng(1).integers(0, 3, TALL[0]).astype(float)
    assert_pairs(top_eigenpairs(X, 2, solver=solver, backend="cuda", sample_weight=weights), X, weights=weights)
    assert_pairs(top_eigenpairs(X, 2, solver=solver, backend="cuda", center=False), X, center=False)
    for shape in (TALL, WIDE):
        there = lf.PCA(2, svd_solver=solver, standardize=True, backend="cuda").fit(data(shape))
        here = lf.PCA(2, svd_solver=solver, standardize=True).fit(data(shape))
        np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-5)
        np.testing.assert_allclose(there.components_, here.components_, atol=2e-4)
        np.testing.assert_allclose(there.mean_, here.mean_, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
def test_nan_and_inf_are_named(value, solver, shape):
    X = data(shape)
    X[3, 5] = value
    with pytest.raises(ValueError, match="first at row 3, column 5"):
        lf.PCA(2, svd_solver=solver, backend="cuda").fit(X)
    fitted = lf.PCA(2).fit(data(shape))
    with pytest.raises(ValueError, match="first at row 3, column 5"):
        projection.scores(sources.as_source(X), fitted._exact_mean, np.ones((2, shape[1])), None, "cuda")


def test_truncated_svd_and_incremental_pca():
    X = data()
    there, here = (lf.TruncatedSVD(2, backend=name).fit(X) for name in ("cuda", "cpu"))
    assert there.backend_ == "cuda"
    np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(there.transform(X), here.transform(X), rtol=1e-5, atol=1e-3)
    scores = here.transform(X)
    back = there.inverse_transform(simulator.OnDevice(scores))
    np.testing.assert_allclose(back, here.inverse_transform(scores), rtol=1e-5)
    stream_there = lf.IncrementalPCA(2, backend="cuda").partial_fit(X[:20]).partial_fit(X[20:])
    np.testing.assert_allclose(
        stream_there.explained_variance_, lf.PCA(2).fit(X).explained_variance_, rtol=tolerance("eigenvalue", np.float32)
    )
    assert stream_there.backend_ == "cuda"


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
def test_data_on_the_device_are_used_where_they_lie_and_scores_come_back_there(layout, monkeypatch):
    X = simulator.layouts(data())[layout]
    there = simulator.OnDevice(X)
    monkeypatch.setattr(stream, "_arrivals", lambda *_: pytest.fail("copied from the host"))
    model = lf.PCA(2, svd_solver="gram").fit(there)  # "auto" follows the data
    assert model.backend_ == "cuda" and isinstance(model.components_, np.ndarray)
    returned = []
    monkeypatch.setattr(arrays, "as_library", lambda array, like: returned.append(like) or array)
    scores = model.transform(there)
    assert returned == [there]
    np.testing.assert_allclose(scores, lf.PCA(2).fit(X).transform(X), atol=1e-3)
    back = model.inverse_transform(simulator.OnDevice(scores))
    np.testing.assert_allclose(back, model.inverse_transform(np.asarray(scores)), rtol=1e-5)
    assert len(returned) == 2


@pytest.mark.parametrize("where", ["host", "device", "sparse"])
def test_densities_are_computed_on_the_device(where, monkeypatch):
    X = data()
    model = lf.PCA(2).fit(X)
    wanted = model.score_samples(X)
    products = []
    multiply = panels.multiply
    monkeypatch.setattr(panels, "multiply", lambda *given: products.append(1) or multiply(*given))
    monkeypatch.setattr(plan, "DEVICE_LINES", 20)
    given = {"host": X, "device": simulator.OnDevice(X), "sparse": scipy.sparse.csr_matrix(X)}[where]
    model.set_params(backend="auto" if where == "device" else "cuda")
    np.testing.assert_allclose(model.score_samples(given), wanted, rtol=1e-9)
    assert len(products) == 4 and model.score(given) == pytest.approx(wanted.mean())
    X[25, 3] = np.inf
    with pytest.raises(ValueError, match="first at row 25, column 3"):
        model.score_samples(simulator.OnDevice(X))


def test_the_command_transforms_on_the_device(tmp_path):
    from lae_fast.cli.options import BackendName
    from lae_fast.cli.transform import TransformOptions, run_transform

    X = data()
    model = lf.PCA(2).fit(X)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "m.npz", format_version=1, components=model.components_, mean=model._exact_mean)
    codes = {}
    for name in BackendName:
        out = tmp_path / f"{name}.npy"
        run_transform(
            TransformOptions(
                input=str(tmp_path / "x.npy"), model=tmp_path / "m.npz", output=out, backend=name, quiet=True
            )
        )
        codes[str(name)] = np.load(out)
    np.testing.assert_array_equal(codes["auto"], codes["cpu"])
    np.testing.assert_allclose(codes["cuda"], codes["cpu"], atol=1e-4)


def test_data_on_the_device_may_be_asked_to_the_cpu():
    X = data()
    assert lf.PCA(2, backend="cpu").fit(simulator.OnDevice(X)).backend_ == "cpu"


@pytest.mark.parametrize(
    ("X", "message"),
    [(np.zeros(5), "Expected 2D array"), (np.zeros((3, 2), complex), "Complex"), (np.zeros((0, 2)), "0 sample")],
)
def test_bad_device_data_get_the_usual_errors(X, message):
    with pytest.raises(ValueError, match=message):
        lf.PCA(1).fit(simulator.OnDevice(X))


def test_auto_does_not_move_host_data_to_the_simulator():
    assert backends.choose("auto", False, pays=True) == "cpu"
    assert backends.choose("auto", True) == "cuda"
    assert backends.choose("cpu", True) == "cpu"


def test_what_has_no_cuda_code_says_so():
    X = data()
    X[0, 0] = np.nan
    for model in (lf.PCA(2, missing="em", backend="cuda"), lf.IncrementalPCA(1, max_memory=300, backend="cuda")):
        with pytest.raises(lf.UnsupportedOnBackendError, match="no CUDA code yet"):
            model.fit(X)


def test_same_bits_from_run_to_run():
    X = data()
    first, second = (top_eigenpairs(X, 3, solver="krylov", backend="cuda") for _ in range(2))
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_panels_are_those_of_the_cpu(dtype, monkeypatch):
    monkeypatch.setattr(panels, "_ROWS", 7)
    cpu, rng = backends.get_backend("cpu").panels, np.random.default_rng(5)
    tall, other = rng.standard_normal((17, 4)).astype(dtype), rng.standard_normal((17, 3))
    small, vector = rng.standard_normal((4, 3)), rng.standard_normal(17)
    eps = 64 * np.finfo(dtype).eps
    for ours, theirs in [
        (panels.cross(tall, other), cpu.cross(tall, other)),
        (panels.cross(tall[:, :2], tall), cpu.cross(tall[:, :2], tall)),
        (panels.multiply(tall, small), cpu.multiply(tall, small)),
        (panels.multiply(tall, small, np.float64), cpu.multiply(tall, small, np.float64)),
        (panels.along(vector, tall), cpu.along(vector, tall)),
        (panels.scale_rows(tall, vector), cpu.scale_rows(tall, vector)),
        (panels.plus_outer(other, 2.0, vector, small[0]), cpu.plus_outer(other, 2.0, vector, small[0])),
        (panels.residual(other, other, small[0]), cpu.residual(other, other, small[0])),
        (panels.columns(tall, np.array([True, False, True, True])), tall[:, [0, 2, 3]]),
        (panels.empty((17, 0), dtype), np.empty((17, 0), dtype)),
    ]:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=eps, atol=eps)
    target = other.copy()
    panels.subtract_product(target, tall, small)
    np.testing.assert_allclose(target, other - tall @ small, atol=eps)
    assert panels.is_finite(tall) and not panels.is_finite(np.array([[np.inf]]))


def test_a_dense_matrix_by_krylov_on_the_device_and_the_proof_that_nothing_was_missed(monkeypatch):
    monkeypatch.setattr(plan, "SMALL_DENSE", 20)
    rng = np.random.default_rng(6)
    Q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    S = (Q * 0.7 ** np.arange(40)) @ Q.T
    operator = DenseOperator(0.5 * (S + S.T), panels=panels)
    values, _vectors = dense.leading_eigenpairs(operator, 3, lambda v, t: 3, lambda v: np.full(v.shape, 1e-10))
    np.testing.assert_allclose(values, 0.7 ** np.arange(3), rtol=1e-9)
    pairs = krylov.block_krylov(operator, lambda v, t: 3, lambda v: np.full(v.shape, 1e-10), krylov.Limits(6, 30, 40))
    assert dense._nothing_missed(operator, pairs)
    pairs.values[:], pairs.vectors[:] = 0.7 ** np.arange(1, 4), Q[:, 1:4]
    assert not dense._nothing_missed(operator, pairs)


def test_products_of_tiles_in_the_stand_in_are_blas_products():
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5, 4))
    out = np.empty((3, 2, 4))
    blas.cross(a, b, out)
    np.testing.assert_allclose(out, [naive.gemm(1.0, x, True, y, False, 0.0, None) for x, y in zip(a, b)], rtol=1e-13)
    grams = np.empty((3, 2, 2))
    blas.triangles(a, grams)
    np.testing.assert_allclose(np.tril(grams), np.tril([naive.gram(x) for x in a]), rtol=1e-13)


@pytest.mark.parametrize("size", [1e-40, 1e-25, 1e25, 1e36])
@pytest.mark.parametrize("where", ["dense", "sparse"])
def test_float32_of_any_size(size, where):
    X = (data() * np.float64(size)).astype(np.float32)
    model = lf.PCA(2, whiten=True, backend="cuda").fit(X)
    plain = lf.PCA(2, whiten=True).fit(data())
    np.testing.assert_allclose(model.explained_variance_ / size / size, plain.explained_variance_, rtol=1e-3)
    given = scipy.sparse.csr_matrix(X) if where == "sparse" else X
    np.testing.assert_allclose(model.transform(given).std(axis=0, ddof=1), 1.0, rtol=1e-3)
