"""Rows on a cluster of processes: the same numbers as in one process, faults, memory, closed clients."""

import os
import signal
import time

import numpy as np
import pytest

import lae_fast as lf
from benchmarks.lib import memory
from tests.oracle import dask_cases

pytest.importorskip("distributed")
import dask
import dask.array as da
from distributed import Client, LocalCluster

pytestmark = [pytest.mark.full, pytest.mark.needs_jit, pytest.mark.skipif(os.name == "nt", reason="sends signals")]


@pytest.fixture(scope="module")
def client():
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def here(X, **parameters):
    with dask.config.set(scheduler="synchronous"):
        return lf.PCA(4, **parameters).fit(X)


@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("cut", ["even", "uneven", "columns_too", "unknown_rows", "delayed_blocks", "dataframe"])
def test_the_same_bits_as_in_one_process(client, solver, cut):
    X = dask_cases.rows(d=40, mean=20.0)
    collection = dask_cases.DENSE[cut](X)
    found, expected = lf.PCA(4, svd_solver=solver).fit(collection), here(collection, svd_solver=solver)
    np.testing.assert_array_equal(found.components_, expected.components_)
    np.testing.assert_array_equal(found.residuals_, expected.residuals_)
    scores = found.transform(collection)
    np.testing.assert_array_equal(scores.compute(), scores.compute(scheduler="synchronous"))


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_rows_that_are_kept_and_sparse_ones(client, solver):
    for X in (dask_cases.even(dask_cases.rows(d=40)), dask_cases.sparse_chunks(dask_cases.sparse_rows(d=80))):
        found = lf.PCA(4, svd_solver=solver).fit(X.persist())
        np.testing.assert_array_equal(found.components_, here(X, svd_solver=solver).components_)


def test_futures_of_blocks(client):
    X = dask_cases.rows()
    blocks = [client.submit(np.array, X[first : first + 100]) for first in range(0, 900, 100)]
    np.testing.assert_allclose(lf.PCA(3).fit(blocks).components_, lf.PCA(3).fit(X).components_, atol=3e-6)


def slow(block):
    time.sleep(0.2)
    return block


def dies_once(block, mark):
    """Ends its worker, the first time that any worker gets here."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return block
    os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_a_worker_that_is_killed(client, tmp_path, solver):
    X = dask_cases.even(dask_cases.rows(d=40))
    meta = np.empty((0, 0), X.dtype)
    fragile = da.concatenate([X[:600], X[600:].map_blocks(dies_once, str(tmp_path / "mark"), dtype=X.dtype, meta=meta)])
    found = lf.PCA(4, svd_solver=solver).fit(fragile)
    assert (tmp_path / "mark").exists()
    np.testing.assert_array_equal(found.components_, here(X, svd_solver=solver).components_)
    client.wait_for_workers(2, timeout=60)


def broken(block, block_info=None):
    if block_info[None]["chunk-location"][0] == 3:
        raise OSError("the disk is gone")
    return block


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_a_chunk_that_raises(client, solver):
    X = dask_cases.even(dask_cases.rows(d=40))
    with pytest.raises(OSError, match="the disk is gone") as error:
        lf.PCA(4, svd_solver=solver).fit(X.map_blocks(broken, dtype=X.dtype, meta=np.empty((0, 0), X.dtype)))
    assert error.value.__notes__ == ["Raised by chunk 3 of X, which begins with row 600."]
    bad = dask_cases.rows(d=40)
    bad[431, 7] = np.nan
    with pytest.raises(ValueError, match=r"Chunk 2 of X, which begins with row 400: .* first at row 431, column 7"):
        lf.PCA(4, svd_solver=solver).fit(dask_cases.even(bad))
    assert lf.PCA(4).fit(X).converged_.all()  # and the cluster goes on


def test_a_closed_client():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        with Client(cluster):
            X = dask_cases.even(dask_cases.rows()).persist()
        with pytest.raises(
            ValueError, match=r"X was kept on a cluster \(persist\), and the client that did it is closed"
        ):
            lf.PCA(2).fit(X)


MEGABYTES = 1e6


def chunk_of_25_megabytes(number):
    few = np.random.default_rng(number).normal(10, 1, (1000, 250)).astype(np.float32)
    return np.tile(few, (25, 1))


@pytest.mark.skipif(not memory.measurable(), reason="reads /proc/self/status, which Linux has")
def test_workers_of_500_megabytes_take_4_gigabytes():
    """Each chunk is made where it is used, and gone afterwards."""
    config = {"distributed.worker.memory.spill": False, "distributed.worker.memory.target": False}
    with (
        dask.config.set(config),
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="500MB", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        parts = [
            da.from_delayed(dask.delayed(chunk_of_25_megabytes)(number), (25_000, 250), np.float32)
            for number in range(160)
        ]
        X = da.concatenate(parts)
        assert X.nbytes == 4000 * MEGABYTES
        found = lf.PCA(3).fit(X)
        assert found.converged_.all() and found.n_samples_ == 4_000_000
        np.testing.assert_allclose(found.mean_, 10, atol=0.01)
        peaks = client.run(peak_memory)
        assert max(peaks.values()) < 500 * MEGABYTES, peaks


def peak_memory(dask_worker):
    assert dask_worker.memory_manager.memory_limit == 500 * MEGABYTES
    return memory.peak_resident()
