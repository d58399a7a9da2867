"""The CUDA backend's host logic, end to end on Numba's simulator with NumPy in the place of CuPy.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_pca.py
Chunks are cut to a few lines, so that streaming, pipelining and residence have something to do.
"""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import backends, plan
from lae_fast.data import sources
from lae_fast.eigen import dense, krylov
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.errors import MemoryLimitError
from lae_fast.operators import projection, rows
from lae_fast.operators.dense import DenseOperator
from lae_fast.operators.pilot import pilot_view
from tests.backends.cuda_simulated import simulator
from tests.oracle import naive
from tests.oracle.tolerances import tolerance

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, blas, panels, stream
    from lae_fast.backends.cuda.passes import sparse

TALL, WIDE = (37, 6), (6, 37)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(plan, "DEVICE_TILE", 5)
    monkeypatch.setattr(plan, "DEVICE_LINES", 9)


def data(shape=TALL, dtype=np.float32, mean=50.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape) * np.linspace(3, 1, shape[1]) + mean
    if np.dtype(dtype).kind in "iu":
        return np.clip(np.round(X), 0, 120).astype(dtype)
    return X.astype(dtype)


def spectrum(X, p, center=True, weights=None):
    _, mean, scatter = naive.moments(X, weights, center)
    values, vectors = naive.leading_eigenpairs(scatter, p)
    return mean, values, vectors


def assert_pairs(pairs, X, center=True, weights=None, dtype=np.float32):
    p = pairs.values.size
    _, values, _vectors = spectrum(X, p, center, weights)
    assert np.abs(pairs.values - values).max() <= tolerance("eigenvalue", dtype) * values[0]
    assert (pairs.residuals * values <= 200 * np.finfo(dtype).eps * values[0]).all() and pairs.converged.all()
    images = naive.apply_scatter(X, pairs.vectors, weights, center)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, np.finfo(dtype).eps)
    assert (true <= pairs.residuals + 1e-15).all()  # the certificate is an upper bound
    assert pairs.backend == "cuda"


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


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.bool_, np.float16, ">f4"])
def test_every_dtype_and_layout_streams(dtype, layout):
    X = simulator.layouts(data((23, 4), np.uint8, mean=20).astype(dtype))[layout]
    _, mean, scatter = naive.moments(X)
    moments = lf.Moments.from_data(X, backend="cuda")
    bound = tolerance("moment", np.float32) * np.sqrt(np.multiply.outer(scatter.diagonal(), scatter.diagonal()))
    assert (np.abs(moments.xx - scatter) <= bound + 1e-9).all()
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    if np.dtype(dtype).itemsize == 1 and dtype is not np.bool_:
        np.testing.assert_allclose(moments.xx, scatter, rtol=1e-13, atol=1e-9)  # bytes are exact


@pytest.mark.parametrize("by_feature", [False, True])
def test_the_moments_of_targets_and_of_batches(by_feature):
    X, Y = data(), data((TALL[0], 2), seed=3)
    moments = lf.Moments.from_data(X, Y, backend="cuda")
    scatter = naive.cross_moments(X, Y)
    np.testing.assert_allclose(moments.xy, scatter, atol=tolerance("moment", np.float32) * np.abs(scatter).max() * 8)
    halves = lf.Moments.from_data(X[:9], backend="cuda").update(X[9:], backend="cuda")
    np.testing.assert_allclose(halves.xx, naive.moments(X)[2], rtol=2e-5, atol=2e-3)
    assert halves.run == 0  # lines this short are summed in float64


def test_a_drifting_mean_is_read_again_with_its_own_shift():
    X = data() + 1000.0 * np.arange(TALL[0], dtype=np.float32)[:, None] ** 2
    found = lf.Moments.from_data(X, backend="cuda").xx
    here = lf.Moments.from_data(X.astype(np.float64)).xx
    assert np.abs(found - here).max() <= 8 * tolerance("moment", np.float32) * np.abs(here).max()


def test_squares_that_overflow_float32_are_summed_in_float64():
    X = data(mean=0.0)
    X[20:] *= np.float32(1e25)
    found, wanted = lf.Moments.from_data(X, backend="cuda"), naive.moments(X.astype(np.float64))[2]
    assert np.isfinite(found.xx).all()
    assert np.abs(found.xx - wanted).max() <= 8 * tolerance("moment", np.float32) * np.abs(wanted).max()


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


@pytest.fixture
def stored_entries(monkeypatch):
    """The names of the passes over stored entries on the device, in order: denser matrices are read as tiles."""
    names = []
    for name in ("row_pass", "project", "gram"):
        run = getattr(sparse, name)
        monkeypatch.setattr(sparse, name, lambda *given, name=name, run=run: names.append(name) or run(*given))
    return names


@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_passes(by_feature, center, weighted, stored_entries):
    X = scipy.sparse.random(33, 9, 0.15, "csr", dtype=np.float32, random_state=2)
    X = X.T.tocsr() if by_feature else X
    weights = np.random.default_rng(3).integers(0, 3, X.shape[0]).astype(float) if weighted else None
    pairs = top_eigenpairs(X, 2, solver="krylov", backend="cuda", center=center, sample_weight=weights)
    assert_pairs(pairs, X.toarray(), center, weights)
    assert pairs.solver == "krylov" and "row_pass" in stored_entries


def test_sparse_scores_and_standardize(stored_entries):
    X = scipy.sparse.random(33, 9, 0.15, "csr", dtype=np.float32, random_state=2)
    there = lf.PCA(2, svd_solver="krylov", standardize=True, backend="cuda").fit(X)
    here = lf.PCA(2, svd_solver="krylov", standardize=True).fit(X)
    np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(there.transform(X), here.transform(X), atol=1e-4)
    assert {"row_pass", "project"} <= set(stored_entries)


@pytest.mark.parametrize("shape", [(33, 9), (9, 33)], ids=["tall", "wide"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sparse_gram_reads_stored_entries_where_it_pays(shape, weighted, stored_entries, monkeypatch):
    X = scipy.sparse.random(*shape, 0.15, "csr", dtype=np.float32, random_state=2)
    weights = np.random.default_rng(3).integers(0, 3, shape[0]).astype(float) if weighted else None
    for standardize in (False, True):
        there, here = (
            top_eigenpairs(X, 2, solver="gram", backend=name, sample_weight=weights, standardize=standardize)
            for name in ("cuda", "cpu")
        )
        assert there.solver == "gram" and there.converged.all()
        np.testing.assert_allclose(there.values, here.values, rtol=1e-5)
    assert stored_entries.count("gram") == 2
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 64)  # no room for both formats: dense chunks
    moments = lf.Moments.from_data(X, sample_weight=weights, backend="cuda")
    assert stored_entries.count("gram") == 2
    bound = 1e-5 * np.abs(naive.moments(X.toarray(), weights)[2]).max()
    np.testing.assert_allclose(moments.xx, naive.moments(X.toarray(), weights)[2], atol=bound)


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


def source_that_counts(X):
    class Counting(sources.ArraySource):
        reads = 0

        def block(self, first, last, by_feature):
            type(self).reads += 1
            return super().block(first, last, by_feature)

    return Counting(X)


def operator_on(source):
    return rows.RowsOperator(source, backend="cuda", block=2)


@pytest.mark.parametrize(("room", "chunks_per_pass"), [(1 << 20, 0), (0, 8), (384, 5)])
def test_chunks_stay_on_the_device_while_they_fit(monkeypatch, room, chunks_per_pass):
    """Half of what is free is taken: none of the eight chunks of 96 or 120 bytes, three of them, or all."""
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 2 * room)
    X, block = data(), np.eye(6, 2)
    source = source_that_counts(X)
    operator = operator_on(source)
    wanted = naive.apply_scatter(X, block)
    for attempt in range(3):
        before = source.reads
        image = operator.apply(block)
        assert np.abs(image / operator.scale**2 - wanted).max() <= 1e-5 * np.abs(wanted).max()
        if attempt:
            assert source.reads - before == chunks_per_pass


@pytest.mark.parametrize("room", [0, 300, 1 << 20])
def test_no_copy_starts_before_its_memory_is_free(monkeypatch, room):
    """Memory may have been another array's, which kernels in the device's queue still use: a copy waits for an event
    that follows the kernels of all chunks but the last, in whose time it runs."""
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 2 * room)
    launched, copies = [0], []
    monkeypatch.setattr(arrays, "event", lambda: launched[0])
    monkeypatch.setattr(arrays, "wait", lambda event: None)

    class Copies(arrays.CopyStream):
        def copy(self, host, device, after):
            copies.append(after)
            return super().copy(host, device, after)

    monkeypatch.setattr(arrays, "CopyStream", Copies)
    view, _ = pilot_view(sources.as_source(data((61, 6))), None, backend="cuda")
    for _ in stream.chunks(view):
        launched[0] += 1
    assert len(copies) == view.n_chunks > 5
    assert all(after is not None and index - 1 <= after <= index for index, after in enumerate(copies))


def test_an_error_while_reading_ends_the_pass_and_its_threads():
    class Broken(sources.ArraySource):
        def block(self, first, last, by_feature):
            if first >= 16:
                raise OSError("disk gone")
            return super().block(first, last, by_feature)

    view, variance = pilot_view(sources.as_source(data()), None, backend="cuda")
    view = dataclasses.replace(view, source=Broken(data()))
    with pytest.raises(OSError, match="disk gone"):
        backends.engine("cuda").passes.gram(view, variance, lambda chunk: None)


def test_chunks_commit_in_order_and_ticks_count_them():
    seen, ticks = [], []
    view, variance = pilot_view(
        sources.as_source(data()), None, backend="cuda", tick=lambda done, total: ticks.append((done, total))
    )
    backends.engine("cuda").passes.gram(view, variance, lambda chunk: seen.append((chunk.first, chunk.count)))
    assert [first for first, _ in seen] == [view.piece(k).first for k in range(view.n_chunks)]
    assert sum(count for _, count in seen) == TALL[0]
    assert ticks == [(k + 1, view.n_chunks) for k in range(view.n_chunks)] and view.n_chunks > 3


def test_running_out_of_memory_says_what_to_do(monkeypatch):
    def none_left(*_, **__):
        raise MemoryError("out")

    monkeypatch.setattr(panels.arrays.xp, "empty", none_left)
    with pytest.raises(MemoryLimitError, match=r"device ran out of memory.*backend='cpu'"):
        panels.empty((3, 3), np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_panels_are_those_of_the_cpu(dtype, monkeypatch):
    monkeypatch.setattr(panels, "_ROWS", 7)
    cpu, rng = backends.engine("cpu").panels, np.random.default_rng(5)
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
    gram = rng.standard_normal((2, 2))
    wanted = naive.syrk(a[0], 0.5, gram)
    blas.syrk(a[0], 0.5, gram)
    np.testing.assert_allclose(gram, wanted, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_scores_of_columns_far_from_zero(dtype):
    """The rules are the host's: such a column is centred before it is multiplied."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((60, 30)) * (rng.random((60, 30)) < 0.1)).astype(dtype)
    X[:, 4] = (1e6 if dtype == "float32" else 1e12) + rng.standard_normal(60)
    model = lf.PCA(2, whiten=True).fit(X)
    wanted = model.transform(X)
    scores = model.set_params(backend="cuda").transform(scipy.sparse.csr_matrix(X))
    np.testing.assert_allclose(scores, wanted, atol=1e-4 if dtype == "float32" else 1e-10)


@pytest.mark.parametrize("size", [1e-40, 1e-25, 1e25, 1e36])
@pytest.mark.parametrize("where", ["dense", "sparse"])
def test_float32_of_any_size(size, where):
    X = (data() * np.float64(size)).astype(np.float32)
    model = lf.PCA(2, whiten=True, backend="cuda").fit(X)
    plain = lf.PCA(2, whiten=True).fit(data())
    np.testing.assert_allclose(model.explained_variance_ / size / size, plain.explained_variance_, rtol=1e-3)
    given = scipy.sparse.csr_matrix(X) if where == "sparse" else X
    np.testing.assert_allclose(model.transform(given).std(axis=0, ddof=1), 1.0, rtol=1e-3)
