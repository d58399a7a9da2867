"""Row blocks, files, checkpoints and rows that are handed on, by the CUDA backend's host logic on Numba's simulator.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_blocks.py
"""

import math

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import backends, plan
from lae_fast.data import sampling, sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.errors import DataFileError
from lae_fast.operators import projection
from lae_fast.operators import rows as operators
from tests.oracle import naive, simulator
from tests.oracle.tolerances import tolerance

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import stream

CUTS = (3, 17, 18, 30)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(plan, "DEVICE_TILE", 5)
    monkeypatch.setattr(plan, "DEVICE_LINES", 9)
    # the pilot's look at the first rows must not see the last one, or they are counted
    first_lines = sampling._first_lines
    monkeypatch.setattr(sampling, "_SAMPLE_ENTRIES", 48)
    monkeypatch.setattr(sampling, "_first_lines", lambda source, count, weights: first_lines(source, 8, weights))


def data(shape=(37, 6), dtype=np.float32, mean=50.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape) * np.linspace(3, 1, shape[1]) + mean
    return np.clip(np.round(X), 0, 120).astype(dtype) if np.dtype(dtype).kind in "iu" else X.astype(dtype)


def blocks(X):
    return np.split(X, CUTS) if isinstance(X, np.ndarray) else [X[a:b] for a, b in zip((0, *CUTS), (*CUTS, 37))]


def forms(X):
    """The same rows as an iterator, a callable and a list."""
    return {"iterator": iter(blocks(X)), "callable": lambda: iter(blocks(X)), "list": blocks(X)}


def assert_moments(moments, X, weights=None):
    _, mean, scatter = naive.moments(X.astype(np.float64), weights)
    bound = tolerance("moment", np.float32) * np.sqrt(np.multiply.outer(scatter.diagonal(), scatter.diagonal()))
    assert (np.abs(moments.xx - scatter) <= bound + 1e-9).all()
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)


@pytest.mark.parametrize("form", ["iterator", "callable", "list"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.bool_])
def test_moments_of_rows_that_have_not_been_counted(form, dtype):
    X = data(dtype=np.uint8, mean=20).astype(dtype)
    ticks = []
    moments = lf.Moments(6).update(forms(X)[form], backend="cuda", tick=lambda *tick: ticks.append(tick))
    assert_moments(moments, X)
    assert moments.n_samples == 37 and ticks == [(k + 1, None) for k in range(len(ticks))] and len(ticks) > 3


def test_weights_of_rows_that_have_not_been_counted():
    X, weights = data(), np.random.default_rng(1).integers(0, 3, 37).astype(float)
    assert_moments(lf.Moments.from_data(iter(blocks(X)), sample_weight=weights, backend="cuda"), X, weights)
    with pytest.raises(ValueError, match="one weight per row"):
        lf.Moments.from_data(iter(blocks(X)), sample_weight=weights[:20], backend="cuda")


@pytest.mark.parametrize("form", ["iterator", "callable", "list"])
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_eigenpairs_of_rows_that_come_in_blocks(form, solver):
    X = data()
    if (form, solver) == ("iterator", "krylov"):
        with pytest.raises(ValueError, match="an iterator, which gives its rows once"):
            lf.PCA(2, svd_solver=solver, backend="cuda").fit(forms(X)[form])
        return
    found, whole = (lf.PCA(2, svd_solver=solver, backend=name) for name in ("cuda", "cpu"))
    found.fit(forms(X)[form]), whole.fit(X)
    assert found.backend_ == "cuda" and found.solver_ == solver
    np.testing.assert_allclose(found.explained_variance_, whole.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(found.components_, whole.components_, atol=2e-4)
    if form != "iterator":
        np.testing.assert_allclose(found.transform(forms(X)[form]), whole.transform(X), atol=1e-3)


def test_truncated_svd_and_streams_of_blocks():
    X = data()
    there, here = lf.TruncatedSVD(2, backend="cuda").fit(iter(blocks(X))), lf.TruncatedSVD(2).fit(X)
    assert there.backend_ == "cuda"
    np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-4)
    for forget in (1.0, 0.9):
        there = lf.IncrementalPCA(2, backend="cuda", forget=forget).fit(iter(blocks(X)))
        here = lf.IncrementalPCA(2, forget=forget).fit(X)
        assert there.backend_ == "cuda"
        np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-4)


def test_sparse_blocks():
    X = scipy.sparse.random(37, 6, 0.4, "csr", dtype=np.float32, random_state=2)
    assert_moments(lf.Moments.from_data(iter(blocks(X)), backend="cuda"), X.toarray())


def test_blocks_are_read_once_a_pass_by_the_caller_and_stay_where_they_are_counted():
    X, opened = data(), []
    source = sources.as_source(lambda: opened.append(1) or iter(blocks(X)))
    lf.Moments(6).update(source, backend="cuda")
    assert len(opened) == 1 and math.isfinite(source.n_lines(False))
    operator, block = operators.RowsOperator(source, backend="cuda", block=2), np.eye(6, 2)
    wanted = naive.apply_scatter(X, block)
    for _ in range(3):
        image = operator.apply(block)
        assert np.abs(image / operator.scale**2 - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert len(opened) == 2  # everything stays on the device


def test_no_chunk_stays_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(stream.arrays, "SIMULATED_BYTES", 2 * 250)
    X = data()
    source = sources.as_source(blocks(X))
    operator, block = operators.RowsOperator(source, backend="cuda", block=2), np.eye(6, 2)
    wanted = naive.apply_scatter(X, block)
    for _ in range(3):
        image = operator.apply(block)
        assert np.abs(image / operator.scale**2 - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("form", ["iterator", "callable", "list"])
def test_nan_in_a_block_is_named(form):
    X = data()
    X[29, 4] = np.nan
    with pytest.raises(ValueError, match="first at row 29, column 4"):
        lf.Moments.from_data(forms(X)[form], backend="cuda")


def test_an_error_of_the_generator_reaches_the_caller():
    def broken():
        yield from blocks(data())[:3]
        raise OSError("line gone")

    with pytest.raises(OSError, match="line gone"):
        lf.Moments.from_data(broken(), backend="cuda")


def test_auto_leaves_rows_that_have_not_been_counted_where_they_are(monkeypatch):
    monkeypatch.setattr(plan, "DEVICE_FLOPS", 1.0)
    assert plan.device_pays(1000, 10, 5) and not plan.device_pays(math.inf, 10, 5)
    assert lf.PCA(2).fit(iter(blocks(data()))).backend_ == "cpu"


def test_squares_that_vanish_in_float32_are_summed_in_float64():
    X = data(mean=0.0)
    X[20:] *= np.float32(1e-30)
    X = X[20:]
    tiny = lf.Moments(6)
    tiny._scale = 1.0  # that of rows seen before, which were of order one
    found, wanted = tiny.update(X, backend="cuda"), naive.moments(X.astype(np.float64))[2]
    assert np.abs(found.xx - wanted).max() <= 8 * tolerance("moment", np.float32) * np.abs(wanted).max()


@pytest.mark.parametrize("max_memory", [None, 2500])
def test_scores_are_handed_on_in_order(max_memory):
    X = data()
    model = lf.PCA(2).fit(X)
    loadings = model.components_.astype(np.float64)
    handed, ticks = [], []
    for given in (X, blocks(X), simulator.OnDevice(X)):
        handed.clear(), ticks.clear()
        nothing = projection.scores(
            sources.as_source(given), model._exact_mean, loadings, lambda rows: handed.append(rows.copy()), "cuda",
            max_memory=max_memory, tick=lambda *tick: ticks.append(tick),
        )  # fmt: skip
        assert nothing is None and len(handed) > 3 and ticks[-1] == (len(handed), len(handed))
        np.testing.assert_allclose(np.concatenate(handed), model.transform(X), atol=1e-3)


def test_scores_go_where_they_are_asked_to():
    X = data()
    model = lf.PCA(2, backend="cuda").fit(X)
    out = np.empty((37, 2), np.float32)
    assert model.transform(X, out=out) is out
    np.testing.assert_allclose(out, lf.PCA(2).fit(X).transform(X), atol=1e-3)
    with pytest.raises(ValueError, match="out must be a C-ordered array"):
        model.transform(X, out=np.empty((37, 3), np.float32))
    stored = scipy.sparse.random(37, 9, 0.2, "csr", dtype=np.float32, random_state=2)
    model, handed = lf.PCA(2, backend="cuda").fit(stored), []

    def hand(rows):
        handed.append(rows.copy())

    projection.scores(sources.as_source(stored), model._exact_mean, model.components_, hand, "cuda")
    np.testing.assert_allclose(np.concatenate(handed), model.transform(stored), atol=1e-5)


class Stopped(Exception):
    pass


def stop_at(chunk):
    def tick(*arguments):
        if arguments[-2] == chunk:
            raise Stopped

    return tick


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_killed_pass_goes_on_with_the_same_bits(tmp_path, dtype):
    np.save(tmp_path / "x.npy", data(dtype=dtype))
    whole = lf.Moments.from_data(tmp_path / "x.npy", backend="cuda")
    kept = lf.Checkpoint(tmp_path / "state", seconds=0)
    with pytest.raises(Stopped):
        lf.Moments(6).update(tmp_path / "x.npy", tick=stop_at(3), checkpoint=kept, backend="cuda")
    assert np.load(tmp_path / "state")["chunks"] == 3
    with pytest.raises(DataFileError, match="of another run"):
        lf.Moments.from_data(tmp_path / "x.npy", checkpoint=tmp_path / "state", backend="cpu")
    ticks = []
    found = lf.Moments(6).update(
        tmp_path / "x.npy", tick=lambda *tick: ticks.append(tick), checkpoint=tmp_path / "state", backend="cuda"
    )
    assert ticks[0][0] == 4 and not (tmp_path / "state").exists()
    np.testing.assert_array_equal(found.xx, whole.xx)
    np.testing.assert_array_equal(found.mean, whole.mean)


def test_a_killed_gram_of_samples_goes_on_with_the_same_bits(tmp_path):
    np.save(tmp_path / "x.npy", np.ascontiguousarray(data().T))
    whole = top_eigenpairs(tmp_path / "x.npy", 2, solver="gram", backend="cuda")
    kept = lf.Checkpoint(tmp_path / "state", seconds=0)
    with pytest.raises(Stopped):
        top_eigenpairs(tmp_path / "x.npy", 2, solver="gram", backend="cuda", checkpoint=kept, progress=stop_at(3))
    assert np.load(tmp_path / "state")["chunks"] == 3
    found = top_eigenpairs(tmp_path / "x.npy", 2, solver="gram", backend="cuda", checkpoint=kept)
    assert kept.resumed
    np.testing.assert_array_equal(found.vectors, whole.vectors)
    np.testing.assert_array_equal(found.values, whole.values)


def test_what_the_backends_agree_on():
    assert stream.PINNED_BUFFERS == plan.DEVICE_READERS
    cpu, cuda = (backends.get_backend(name) for name in ("cpu", "cuda"))
    assert cpu.provider() != cuda.provider()
