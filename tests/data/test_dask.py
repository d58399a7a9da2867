"""Rows on Dask, by one Gram matrix: the numbers of the one-machine solver whatever the chunks, and clear refusals."""

import threading

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.backends.threads import _blas_libraries, get_num_threads
from lae_fast.data import dask_rows, sources
from tests.oracle import dask_cases

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("dask.dataframe")

SCHEDULERS = ("synchronous", "threads", "processes")


def assert_same(found, expected, tolerance):
    np.testing.assert_allclose(found.components_, expected.components_, atol=tolerance)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=tolerance)
    np.testing.assert_allclose(found.mean_, expected.mean_, rtol=tolerance, atol=tolerance)
    assert found.n_samples_ == expected.n_samples_


@pytest.mark.parametrize("cut", dask_cases.DENSE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_dense_chunks_give_the_same_components(cut, dtype, tolerance):
    X = dask_cases.rows(dtype=dtype)
    found = lf.PCA(4, svd_solver="gram").fit(dask_cases.DENSE[cut](X))
    assert_same(found, lf.PCA(4, svd_solver="gram").fit(X), tolerance)
    assert found.components_.dtype == dtype and found.converged_.all() and found.n_passes_ == 1


@pytest.mark.parametrize("cut", dask_cases.SPARSE)
def test_sparse_chunks_give_the_same_components(cut):
    X = dask_cases.sparse_rows()
    found = lf.PCA(4, svd_solver="gram").fit(dask_cases.SPARSE[cut](X))
    assert_same(found, lf.PCA(4, svd_solver="gram").fit(X), 3e-6)


def test_uint8_and_bool_chunks():
    rng = np.random.default_rng(0)
    for X in (rng.integers(0, 255, (500, 20), dtype=np.uint8), rng.random((500, 20)) < 0.3):
        assert_same(lf.PCA(3, svd_solver="gram").fit(dask_cases.even(X)), lf.PCA(3, svd_solver="gram").fit(X), 3e-6)


@pytest.mark.full
def test_every_scheduler_gives_the_same_bits():
    X = dask_cases.even(dask_cases.rows(mean=50.0))
    found = []
    for scheduler in SCHEDULERS:
        with dask.config.set(scheduler=scheduler):
            found.append(lf.PCA(4, svd_solver="gram").fit(X))
    for other in found[1:]:
        np.testing.assert_array_equal(other.components_, found[0].components_)
        np.testing.assert_array_equal(other.residuals_, found[0].residuals_)


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_moments_keep_their_digits_far_from_zero(mean):
    X = dask_cases.rows(mean=mean)
    moments = lf.Moments.from_data(dask_cases.uneven(X))
    exact = np.cov(X.astype(np.float64).T)
    assert np.abs(moments.covariance() - exact).max() < 1e-6 * np.abs(exact).max()
    assert moments.n_samples == len(X)


@pytest.mark.parametrize("kind", ["array", "dask", "zeros in a chunk"])
@pytest.mark.parametrize("cut", ["even", "unknown_rows", "delayed_blocks"])
def test_weights(kind, cut):
    X = dask_cases.rows(dtype=np.float64)
    weights = np.random.default_rng(0).integers(0, 4, len(X)).astype(float)
    if kind == "zeros in a chunk":
        weights[200:400] = 0
    given = da.from_array(weights, chunks=170) if kind == "dask" else weights
    found = lf.PCA(3, svd_solver="gram").fit(dask_cases.DENSE[cut](X), sample_weight=given)
    assert_same(found, lf.PCA(3, svd_solver="gram").fit(X, sample_weight=weights), 1e-12)


def test_the_estimators_that_read_once():
    X = dask_cases.rows(dtype=np.float64)
    cut = dask_cases.even(X)
    assert_same(lf.IncrementalPCA(3).fit(cut), lf.IncrementalPCA(3).fit(X), 1e-12)
    stream = lf.IncrementalPCA(3).partial_fit(X[:100]).partial_fit(cut)
    assert_same(stream, lf.IncrementalPCA(3).fit(np.vstack([X[:100], X])), 1e-12)
    assert_same(lf.PCA(3).partial_fit(cut), lf.PCA(3).fit(X), 1e-12)
    pairs, peer = lf.top_eigenpairs(cut, 3, center=False), lf.top_eigenpairs(X, 3, center=False)
    np.testing.assert_allclose(pairs.values, peer.values, rtol=1e-12)
    settings = {"loss": "ordered", "optimizer": "sgd", "max_iter": 50}
    with pytest.warns(Warning, match="max_iter"):
        found, expected = lf.LinearAutoencoder(2, **settings).fit(cut), lf.LinearAutoencoder(2, **settings).fit(X)
    np.testing.assert_allclose(found.encoder_, expected.encoder_, rtol=1e-9, atol=1e-12)


def test_names_of_a_dataframe():
    X = dask_cases.rows()
    pca = lf.PCA(2, svd_solver="gram").fit(dask_cases.dataframe(X))
    assert list(pca.feature_names_in_) == [f"c{j}" for j in range(12)]
    frame = dask_cases.dataframe(X)
    moments = lf.Moments.from_data(frame).update(frame[list(frame.columns[::-1])])
    np.testing.assert_allclose(moments.covariance(), lf.Moments.from_data(np.vstack([X, X])).covariance(), atol=1e-6)


def test_other_holders_of_dask_arrays():
    xarray, anndata = pytest.importorskip("xarray"), pytest.importorskip("anndata")
    X = dask_cases.rows()
    expected = lf.PCA(2, svd_solver="gram").fit(X)
    labelled = xarray.DataArray(
        dask_cases.even(X), dims=("cell", "gene"), coords={"gene": [f"g{j}" for j in range(12)]}
    )
    found = lf.PCA(2, svd_solver="gram").fit(labelled)
    assert_same(found, expected, 2e-6)
    assert found.feature_names_in_[3] == "g3"
    assert_same(lf.PCA(2, svd_solver="gram").fit(anndata.AnnData(dask_cases.even(X))), expected, 2e-6)


def test_a_tree_of_any_size_counts_every_chunk_once():
    for n_chunks in (1, 2, 4, 5, 16, 17, 65):
        X = np.arange(n_chunks * 3.0)[:, None]
        source = sources.as_source(da.from_array(X, chunks=(3, 1)))
        assert source.reduced(_total, np.add, (2.0,)) == 2 * X.sum()
        assert source.chunk_rows == [3] * n_chunks


def _total(source, own, factor):
    return factor * source.block(0, source.shape[0], False).sum()


def test_nan_names_chunk_and_row():
    X = dask_cases.rows()
    X[431, 7] = np.nan
    place = r"Chunk 2 of X, which begins with row 400: Input X contains NaN: first at row 431, column 7"
    for fit in (lf.PCA(2).fit, lf.Moments.from_data, lf.IncrementalPCA(2).fit):
        with pytest.raises(ValueError, match=place):
            fit(dask_cases.even(X))
    with pytest.raises(ValueError, match=r"Chunk 3 of X, whose own rows are counted here: .* first at row 41, column"):
        lf.PCA(2).fit(dask_cases.delayed_blocks(X))


def broken(block):
    raise OSError("the disk is gone")


def test_the_error_of_a_chunk_arrives():
    X = dask_cases.even(dask_cases.rows())
    with pytest.raises(OSError, match="the disk is gone"):
        lf.PCA(2, svd_solver="gram").fit(X.map_blocks(broken, dtype=X.dtype, meta=np.empty((0, 0), X.dtype)))


def of_width(width, dtype, m=10):
    return dask.delayed(np.ones((m, width), dtype))


REFUSED = {
    "other widths": (lambda: [of_width(3, "f4"), of_width(4, "f4")], "Chunk 1 of X.* it has 4 features, but X has 3"),
    "other kinds": (lambda: [of_width(3, "i4"), of_width(3, "f8")], "Chunk 1 of X.* has dtype float64, which does not"),
    "more digits than announced": (
        lambda: da.ones((8, 3), chunks=4).map_blocks(np.asarray, dtype="f4", meta=np.empty((0, 0), "f4")),
        r"Chunk [01] of X.* has dtype float64, which does not fit into float32",
    ),
    "strings": (lambda: da.from_array(np.full((4, 2), "a"), chunks=2), "X has dtype <U1, which holds no real numbers"),
    "objects": (lambda: da.from_array(np.full((4, 2), None), chunks=2), "X has dtype object, which holds no real num"),
    "complex": (lambda: da.ones((4, 2), dtype="c8", chunks=2), "Complex data not supported"),
    "1-D": (lambda: da.ones(5, chunks=2), "Expected 2D array, got 1D"),
    "3-D": (lambda: da.ones((5, 2, 2), chunks=2), "Expected 2D array, got 3D"),
    "no rows": (lambda: da.ones((0, 3), chunks=2), "0 sample"),
    "no columns": (lambda: da.ones((3, 0), chunks=2), "0 feature"),
    "empty chunks": (lambda: da.ones((9, 3), chunks=3)[da.zeros(9, chunks=3) > 0], "X has no rows"),
    "one row": (lambda: da.ones((1, 3), chunks=3), "n_samples=1"),
    "unknown width": (
        lambda: da.ones((9, 3), chunks=3)[:, da.ones(3, chunks=3) > 0],
        "does not know its number of fea",
    ),
    "a bag": (lambda: pytest.importorskip("dask.bag").from_sequence([1, 2]), "'Bag', which is no matrix"),
    "text columns": (lambda: dask_cases.dataframe(dask_cases.rows()).assign(name="x"), "'name'"),
    "other rows than announced": (
        lambda: da.ones((8, 3), chunks=4).map_blocks(np.repeat, 2, axis=0, dtype=float),
        r"Chunk [01] of X.* it has 8 rows, but 4 were announced",
    ),
}


@pytest.mark.every
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    make, message = REFUSED[what]
    with pytest.raises((ValueError, TypeError), match=message):
        lf.PCA(1, svd_solver="gram").fit(make())


def test_what_needs_rows_says_so():
    X = dask_cases.even(dask_cases.rows())
    with pytest.raises(TypeError, match="needs rows in the memory of one machine, and X is a Dask collection"):
        lf.PCA(2, missing="em").fit(X)
    with pytest.raises(ValueError, match=r"batch_size=32 draws single rows, and X is on Dask.*X.compute\(\)"):
        lf.LinearAutoencoder(2, batch_size=32).fit(X)
    with pytest.raises(ValueError, match="loss='stochastic_nested_dropout' draws single rows, and X is on Dask"):
        lf.LinearAutoencoder(2, loss="stochastic_nested_dropout").fit(X)
    for model in (lf.PCA(2), lf.IncrementalPCA(2)):
        with pytest.raises(ValueError, match="checkpoint= keeps the state of passes over a file, and X is on Dask"):
            model.fit(X, checkpoint="kept.npz")
    with pytest.raises(TypeError, match="cannot be paired with Y"):
        lf.Moments.from_data(X, X)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        lf.PCA(2).fit(X, sample_weight=np.ones(7))


def _threads(source, own):
    return get_num_threads(), {library.get() for library in _blas_libraries()}


def _both(one, other):
    return max(one[0], other[0]), one[1] | other[1]


@pytest.mark.needs_jit
def test_a_task_takes_the_thread_it_has():
    """Of ours and of BLAS; afterwards both are as before."""
    before = get_num_threads(), {library.get() for library in _blas_libraries()}
    with dask.config.set(scheduler="threads", num_workers=3):
        found = sources.as_source(da.ones((40, 3), chunks=(2, 3))).reduced(_threads, _both)
    assert found == (1, {1})
    assert (get_num_threads(), {library.get() for library in _blas_libraries()}) == before


class Counted:
    """A partial result that knows how many there are."""

    lock, alive, most = threading.Lock(), 0, 0

    def __init__(self):
        with Counted.lock:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

    def __del__(self):
        with Counted.lock:
            Counted.alive -= 1


def _counted(source, own):
    return Counted()


def _joined(one, other):
    return Counted()


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_partial_results_are_few(n_threads):
    """docs/clusters.md: about 2 a thread, and FAN_IN - 1 for each level of the tree.

    Dask promises no order: on a busy machine its threads run a few chunks ahead, so the bound is twice 2 a thread.
    """
    n_chunks = 256
    Counted.alive = Counted.most = 0
    scheduler = "synchronous" if n_threads == 1 else "threads"
    with dask.config.set(scheduler=scheduler, num_workers=n_threads):
        sources.as_source(da.ones((n_chunks, 2), chunks=(1, 2))).reduced(_counted, _joined)
    levels = 4
    assert dask_rows.FAN_IN**levels == n_chunks
    assert Counted.most <= 4 * n_threads + dask_rows.FAN_IN * levels


def test_moments_are_merged_in_the_order_of_chunks():
    """The same bits however often."""
    X = dask_cases.even(dask_cases.rows(mean=3.0))
    one, two = lf.Moments.from_data(X), lf.Moments.from_data(X)
    np.testing.assert_array_equal(one.xx, two.xx)


def test_nan_on_dask_is_not_sent_to_an_estimator_that_refuses_it():
    rows = dask_cases.rows()
    rows[5, 1] = np.nan
    for fit in (lf.PCA(2).fit, lf.PCA(2).fit(dask_cases.rows()).transform):
        with pytest.raises(ValueError, match=r"row 5, column 1 .*impute those entries first \(NaN"):
            np.asarray(fit(dask_cases.even(rows)))
