"""The whole backend on arrays that are as strict as CuPy's: no host array reaches a product of the device, nothing is
read while it is copied, fresh memory is not taken for zeros.  The answers are the CPU's.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_strict.py
"""

import warnings

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from benchmarks.gpu import stand_in
from lae_fast import plan
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.pilot import pilot_view
from tests.oracle import simulator
from tests.oracle.cublas import Cublas

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays
    from lae_fast.backends.cuda.passes import gram

PLACES, SOLVERS = (np.array, stand_in.asarray), ("gram", "krylov")


@pytest.fixture(autouse=True)
def cupy(small_chunks):
    with stand_in.install(Cublas()) as module:
        yield module


def rows(shape=(23, 6), dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * np.linspace(3, 1, shape[1]) + 5
    return (X * 9).round().clip(0, 255).astype(dtype) if np.dtype(dtype).kind in "iu" else X.astype(dtype)


def on_host(array):
    return stand_in.asnumpy(array) if isinstance(array, stand_in.ndarray) else np.asarray(array)


def same(found, expected, tolerance=2e-4):
    found, expected = on_host(found), on_host(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance * max(np.abs(expected).max(), 1e-9))


EIGENPAIRS = [
    *((place, solver, shape, np.float32) for place in PLACES for solver in SOLVERS for shape in ((23, 6), (6, 23))),
    *((np.array, "gram", (23, 6), dtype) for dtype in (np.float64, np.uint8, np.float16, np.int64)),
    (stand_in.asarray, "krylov", (23, 6), np.int64),
    (stand_in.asarray, "gram", (23, 6), np.uint8),
]


@pytest.mark.every
@pytest.mark.parametrize(("place", "solver", "shape", "dtype"), EIGENPAIRS)
def test_eigenpairs(place, solver, shape, dtype):
    X = rows(shape, dtype)
    found = top_eigenpairs(place(X), 2, solver=solver, backend="cuda")
    same(found.values, top_eigenpairs(X, 2, solver=solver, backend="cpu").values)


@pytest.mark.parametrize("options", [{"standardize": True}, {"center": False}, {"sample_weight": np.arange(23.0) % 3}])
@pytest.mark.parametrize("solver", SOLVERS)
def test_options(options, solver):
    found = top_eigenpairs(rows(), 2, solver=solver, backend="cuda", **options)
    same(found.values, top_eigenpairs(rows(), 2, solver=solver, backend="cpu", **options).values)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("weights", [None, np.arange(23.0) % 3])
def test_sparse(solver, weights):
    X = scipy.sparse.csr_array(rows() * (np.random.default_rng(1).random((23, 6)) < 0.2))
    found = top_eigenpairs(X, 2, solver=solver, backend="cuda", sample_weight=weights)
    same(found.values, top_eigenpairs(X, 2, solver=solver, backend="cpu", sample_weight=weights).values)


def test_chunks_that_do_not_stay(monkeypatch):
    """Through three device buffers and four pinned ones, which are used again and again."""
    monkeypatch.setattr(stand_in, "FREE_BYTES", 1)
    X = rows((120, 6))
    for solver in ("gram", "krylov"):
        found = top_eigenpairs(X, 2, solver=solver, backend="cuda")
        same(found.values, top_eigenpairs(X, 2, solver=solver, backend="cpu").values)


def test_scores_and_back(cupy):
    X = rows()
    pca, there = lf.PCA(2, backend="cuda", whiten=True).fit(X), cupy.asarray(X)
    expected = lf.PCA(2, backend="cpu", whiten=True).fit(X)
    for given in (X, there):
        same(pca.transform(given), expected.transform(X))
        same(pca.score_samples(given), expected.score_samples(X))
    assert isinstance(pca.transform(there), stand_in.ndarray)
    same(pca.inverse_transform(pca.transform(there)), expected.inverse_transform(expected.transform(X)))
    out = np.empty((23, 2), np.float32)
    same(pca.transform(X, out=out), expected.transform(X))


def test_the_other_estimators():
    X = rows()
    for model in (lf.TruncatedSVD(2), lf.IncrementalPCA(2, batch_size=7)):
        found = type(model)(**model.get_params() | {"backend": "cuda"}).fit(X)
        same(found.explained_variance_, model.fit(X).explained_variance_)
    blocks = [X[first : first + 5] for first in range(0, 23, 5)]
    same(lf.PCA(2, backend="cuda").fit(iter(blocks)).explained_variance_, lf.PCA(2).fit(X).explained_variance_)


TRAINED = {
    "mse": {"loss": "mse"},
    "ordered": {"loss": "ordered"},
    "penalty": {"loss": lf.losses.sum_l2(0.1)},
    "product": {"loss": lf.losses.product_l2(0.1)},
    "rag": {"rule": "rag", "optimizer": "sgd"},
    "gha": {"rule": "gha", "optimizer": "sgd"},
    "eigengame": {"rule": "mu_eigengame", "optimizer": "sgd"},
    "tied": {"coupling": "tied"},
    "synchronised": {"coupling": "synchronised", "optimizer": "momentum"},
    "rows": {"regime": "rows"},
    "batches": {"batch_size": 4, "learning_rate": 1e-3},
    "dropout": {"loss": lf.losses.stochastic_nested_dropout("uniform"), "batch_size": 4, "learning_rate": 1e-3},
}


@pytest.mark.parametrize(("what", "place"), [*((what, np.array) for what in TRAINED), ("batches", stand_in.asarray)])
def test_training(what, place):
    options = TRAINED[what] | {"max_iter": 5, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of five iterations that reach nothing
        found = lf.LinearAutoencoder(2, backend="cuda", **options).fit(place(rows()))
        expected = lf.LinearAutoencoder(2, backend="cpu", **options).fit(rows())
    same(found.encoder_, expected.encoder_)
    same(found.decoder_, expected.decoder_)


def test_loss_and_gradients(cupy):
    rng = np.random.default_rng(0)
    A, B, X = rng.standard_normal((6, 2)), rng.standard_normal((2, 6)), rows(dtype=np.float64)
    there = [cupy.asarray(part) for part in (A, B, X)]
    assert lf.loss(*there) == pytest.approx(lf.loss(A, B, X), rel=1e-12)
    for found, expected in zip(lf.gradients(*there), lf.gradients(A, B, X)):
        assert isinstance(found, stand_in.ndarray)
        same(found, expected, 1e-12)


def test_a_large_array_goes_to_the_device_in_pieces(cupy, monkeypatch):
    """CuPy takes page-locked memory of the next power of two."""
    sent, asarray = [], cupy.asarray
    monkeypatch.setattr(cupy, "asarray", lambda array: sent.append(array.nbytes) or asarray(array))
    monkeypatch.setattr(arrays, "_PIECE_BYTES", 64)
    X = rows((5, 7), np.float64)
    np.testing.assert_array_equal(on_host(arrays.upload(X)), X)
    assert sent == [64, 64, 64, 64, 24]


@pytest.mark.parametrize(("shape", "dtype"), [((23, 17), np.float32), ((17, 23), np.float64)])
def test_second_moments_stay_on_the_device_for_the_eigensolver(cupy, monkeypatch, shape, dtype):
    """They come to the host, and do not go back: for block Krylov, its proof and the residuals."""
    monkeypatch.setattr(plan, "SMALL_DENSE", 4)
    sent, asarray = [], cupy.asarray
    monkeypatch.setattr(cupy, "asarray", lambda array, *more: sent.append(array.shape) or asarray(array, *more))
    found = top_eigenpairs(asarray(rows(shape, dtype)), 2, solver="gram", backend="cuda")
    assert (17, 17) not in sent and not arrays._kept
    same(np.abs(found.vectors), np.abs(top_eigenpairs(rows(shape, dtype), 2, solver="gram").vectors))


def test_what_is_kept_goes_with_the_array_it_was_downloaded_to(cupy):
    there = cupy.asarray(rows((5, 5), np.float64))
    host = arrays.download_kept(there)
    assert arrays.upload(host.T) is not there and arrays.upload(host[:3]) is not there
    assert arrays.upload(host, np.float32) is not there
    with pytest.raises(ValueError, match="read-only"):
        host[0, 0] = 1.0
    assert arrays.upload(host[:, :]) is there and arrays.upload(host) is not there
    arrays.download_kept(there)
    assert not arrays._kept


def test_the_statistics_of_a_wide_chunk_are_copied_before_the_next_one_is_launched(monkeypatch):
    """Else the host would wait for that one too."""
    monkeypatch.setattr(arrays, "download", lambda array: pytest.fail("the host waits for all that was launched"))
    view, _ = pilot_view(sources.as_source(rows((6, 23))), None, by_feature=True, backend="cuda")
    means = np.zeros(23)

    def commit(chunk):
        means[chunk.first : chunk.first + chunk.count] = chunk.sums

    gram.float_gram(view, None, commit)
    same(means, rows((6, 23)).mean(axis=0))


class TestTheStandIn:
    """It finds what it is there to find."""

    def test_host_arrays_are_refused(self, cupy):
        there = cupy.zeros((2, 2))
        for mix in (lambda: there + np.ones(2), lambda: np.asarray(there), lambda: cupy.isfinite(np.ones(2))):
            with pytest.raises(stand_in.HostArrayError):
                mix()
        with pytest.raises(stand_in.HostArrayError):
            there[...] = np.ones((2, 2))

    def test_fresh_memory_is_not_zero(self, cupy):
        assert np.isnan(cupy.asnumpy(cupy.empty(3))).all()

    def test_a_download_that_is_not_waited_for(self, cupy):
        stream, host = cupy.cuda.get_current_stream(), np.zeros(3)
        cupy.ones(3).get(stream=stream, out=host, blocking=False)
        event = stream.record()
        assert np.isnan(host).all()
        event.synchronize()
        assert (host == 1).all()

    def test_memory_that_is_changed_in_flight(self, cupy):
        stream, host, there = stand_in.Stream(), np.zeros(3), cupy.zeros(3)
        there.set(host, stream=stream)
        event = stream.record()
        host[0] = 1.0
        with pytest.raises(stand_in.InFlightError, match="was changed"):
            event.synchronize()

    def test_memory_that_is_used_again_in_flight(self, cupy):
        stream, host, there = stand_in.Stream(), np.zeros(3), cupy.zeros(3)
        there.set(host, stream=stream)
        with pytest.raises(stand_in.InFlightError, match="used again"):
            there.set(host[1:], stream=stream)
