"""PCA on a CUDA card: `python -m pytest --full -m gpu`; LAE_FAST_REQUIRE_CUDA=1 turns a missing card into a failure.

The same statements as tests/backends/cuda_simulated/test_{pca,streaming,sparse}.py, at sizes that fill more than one
block, tile and chunk.
"""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import backends
from lae_fast.eigen.solve import top_eigenpairs
from tests.oracle import naive
from tests.oracle.tolerances import tolerance

pytestmark = pytest.mark.gpu
TALL, WIDE = (70_001, 97), (97, 70_001)


def data(shape, dtype=np.float32, mean=50.0):
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 1, min(shape))
    X = rng.standard_normal(shape) * (scales if shape[1] == scales.size else scales[:, None]) + mean
    return X.astype(dtype)


def assert_as_on_the_cpu(there, here, dtype):
    assert there.backend == "cuda" and there.converged.all()
    assert np.abs(there.values - here.values).max() <= tolerance("eigenvalue", dtype) * here.values[0]
    gap = np.abs(np.diff(here.values)).min() / here.values[0]
    sine = naive.projector_distance(there.vectors, here.vectors)
    assert sine <= tolerance("subspace", dtype) / gap


@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_route_dtype_and_order(solver, shape, dtype, order):
    X = np.asarray(data(shape, dtype), order=order)
    there, here = (top_eigenpairs(X, 3, solver=solver, backend=name) for name in ("cuda", "cpu"))
    assert_as_on_the_cpu(there, here, there.vectors.dtype)


def test_the_certificate_is_an_upper_bound():
    X = data((20_000, 64))
    for solver in ("gram", "krylov"):
        pairs = top_eigenpairs(X, 5, solver=solver, backend="cuda")
        images = naive.apply_scatter(X, pairs.vectors)
        assert (naive.relative_residuals(pairs.values, pairs.vectors, images, 2.0**-23) <= pairs.residuals).all()


def test_the_gram_of_bytes_is_exact():
    X = np.random.default_rng(1).integers(0, 256, (70_001, 97), dtype=np.uint8)
    wide = X.astype(np.int64)
    gram = wide.T @ wide - np.multiply.outer(wide.sum(0), wide.sum(0)) / 70_001
    np.testing.assert_allclose(lf.Moments.from_data(X, backend="cuda").xx, gram, rtol=1e-12, atol=1e-4)


def test_weights_standardize_and_sparse():
    X = data(TALL)
    weights = np.random.default_rng(2).integers(0, 4, TALL[0]).astype(float)
    pairs = [top_eigenpairs(X, 3, sample_weight=weights, backend=name, solver="krylov") for name in ("cuda", "cpu")]
    assert_as_on_the_cpu(*pairs, np.float32)
    sparse = scipy.sparse.random(5000, 700, 0.02, "csr", dtype=np.float32, random_state=3)
    for center in (True, False):
        pairs = [top_eigenpairs(sparse, 3, center=center, backend=n, solver="krylov") for n in ("cuda", "cpu")]
        assert np.abs(pairs[0].values - pairs[1].values).max() <= 1e-4 * pairs[1].values[0]


@pytest.mark.parametrize("library", ["cupy", "numba", "torch"])
def test_scores_come_back_in_the_library_of_the_data(library, libraries):
    if library == "torch":
        pytest.importorskip("torch")
    X = data((5000, 40))
    given = libraries(X).get(library)
    if given is None:
        pytest.skip(f"{library} sees no card")
    model = lf.PCA(3).fit(given)
    assert model.backend_ == "cuda"
    scores = model.transform(given)
    assert type(scores).__module__.split(".")[0].startswith(library)
    host = scores.copy_to_host() if library == "numba" else scores.cpu().numpy() if library == "torch" else scores.get()
    wanted = lf.PCA(3).fit(X).transform(X)
    np.testing.assert_allclose(host, wanted, atol=1e-3 * np.abs(wanted).max())


def test_same_bits_from_run_to_run():
    X = data(TALL)
    for solver in ("gram", "krylov"):
        first, second = (top_eigenpairs(X, 4, solver=solver, backend="cuda") for _ in range(2))
        np.testing.assert_array_equal(first.vectors, second.vectors)


def test_data_that_do_not_stay_on_the_card(monkeypatch):
    from lae_fast.backends.cuda import arrays

    X = data(TALL)
    here = top_eigenpairs(X, 3, solver="krylov", backend="cuda")
    monkeypatch.setattr(arrays, "free_bytes", lambda: X.nbytes // 2)
    there = top_eigenpairs(X, 3, solver="krylov", backend="cuda")
    np.testing.assert_array_equal(there.vectors, here.vectors)


def test_float32_is_float32():
    """With TF32 the products would be off by 5e-4."""
    from lae_fast.backends.cuda import arrays, blas

    a = np.random.default_rng(4).standard_normal((512, 512)).astype(np.float32)
    out = arrays.xp.empty((512, 512), np.float32)
    blas.gemm(arrays.upload(a), arrays.upload(a), out)
    assert np.abs(arrays.download(out) - a.astype(np.float64) @ a).max() <= 1e-3 / 8


@pytest.mark.parametrize("precision", backends.PRECISIONS[1:])
@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("shape", [(70_001, 397), (397, 70_001)], ids=["tall", "wide"])
def test_coarser_products_end_with_the_residuals_of_float32(shape, solver, precision):
    try:
        backends.require_precision(precision)
    except lf.UnsupportedOnBackendError as error:
        pytest.skip(str(error))
    X = data(shape)
    there = top_eigenpairs(X, 3, solver=solver, backend="cuda", precision=precision)
    assert f" in {precision}, then float32" in there.reason and there.converged.all()
    images = naive.apply_scatter(X, there.vectors)
    assert (naive.relative_residuals(there.values, there.vectors, images, 2.0**-23) <= there.residuals).all()
    assert (there.residuals <= 1e-4).all()


def test_tf32_is_tf32():
    """Else nothing of `precision` would be proven: the products are off by more than float32's and less than 1e-3."""
    from lae_fast.backends.cuda import arrays, blas

    a = np.random.default_rng(4).standard_normal((512, 512)).astype(np.float32)
    out = arrays.xp.empty((1, 512, 512), np.float32)
    there = arrays.upload(a)
    wanted = a.astype(np.float64).T @ a
    blas.triangles(there[None], out, "tf32")
    off = np.abs(np.tril(arrays.download(out)[0] - wanted)).max() / 512
    assert 1e-6 < off < 1e-3


def test_a_sparse_gram_over_stored_entries_is_exact():
    X = scipy.sparse.random(20_000, 500, 0.01, "csr", dtype=np.float32, random_state=3)
    dense = X.toarray().astype(np.float64)
    centred = dense - dense.mean(axis=0)
    found = lf.Moments.from_data(X, backend="cuda").xx
    np.testing.assert_allclose(found, centred.T @ centred, rtol=0, atol=1e-9 * dense.shape[0])


def test_densities_and_another_stream():
    import cupy

    X = data((5000, 40))
    model = lf.PCA(3, backend="cuda").fit(X)
    wanted = lf.PCA(3, backend="cpu").fit(X).score_samples(X)
    with cupy.cuda.Stream(non_blocking=True):
        np.testing.assert_allclose(model.score_samples(cupy.asarray(X)), wanted, rtol=1e-4)
        there = lf.PCA(3, svd_solver="gram").fit(cupy.asarray(X))
    np.testing.assert_allclose(there.components_, model.components_, atol=1e-4)


def test_nan_is_named():
    X = data(TALL)
    X[60_000, 5] = np.nan
    with pytest.raises(ValueError, match="first at row 60000, column 5"):
        lf.PCA(2, backend="cuda").fit(X)
