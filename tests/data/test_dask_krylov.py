"""Rows on Dask, by passes over them: Krylov, refinement, standardizing, what components leave."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.backends import get_backend
from lae_fast.data import sources
from lae_fast.operators import remainder
from lae_fast.operators.chunk_passes import ChunkPasses
from lae_fast.operators.pilot import pilot_view
from lae_fast.operators.rows import RowsOperator
from tests.oracle import dask_cases

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("dask.dataframe")


def assert_same(found, expected, tolerance):
    np.testing.assert_allclose(found.components_, expected.components_, atol=tolerance)
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=tolerance)
    assert found.converged_.all()


@pytest.mark.parametrize("cut", dask_cases.DENSE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-6), (np.float64, 1e-11)])
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_dense_chunks_give_the_same_components(cut, dtype, tolerance, mean):
    X = dask_cases.rows(d=60, dtype=dtype, mean=mean)
    found = lf.PCA(4, svd_solver="krylov").fit(dask_cases.DENSE[cut](X))
    assert_same(found, lf.PCA(4, svd_solver="krylov").fit(X), tolerance)
    assert found.solver_ == "krylov" and found.n_passes_ > 1


@pytest.mark.parametrize("cut", dask_cases.SPARSE)
def test_sparse_chunks_give_the_same_components(cut):
    X = dask_cases.sparse_rows(d=80)
    found = lf.PCA(4, svd_solver="krylov").fit(dask_cases.SPARSE[cut](X))
    assert_same(found, lf.PCA(4, svd_solver="krylov").fit(X), 3e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_pass_over_sparse_chunks_goes_by_stored_entries(monkeypatch, dtype, weighted):
    """Every field of the contract, against dense rows in float64; rows are not made dense."""
    X = dask_cases.sparse_rows(d=80, dtype=dtype)
    weights = np.random.default_rng(1).integers(0, 3, X.shape[0]).astype(float) if weighted else None
    dense = X.toarray().astype(np.float64)
    view, _ = pilot_view(sources.as_source(dense.astype(dtype)), weights, block=3)
    shift = np.full(80, 0.01, dtype)  # no mean
    view = dataclasses.replace(view, shift=shift)
    block, offset = np.random.default_rng(2).standard_normal((80, 3)), np.array([0.5, -1.0, 2.0])
    peer = dataclasses.replace(view, source=sources.as_source(dense), shift=shift.astype(np.float64))
    here = get_backend("cpu").rows.row_pass(peer, block, True, None, offset)
    monkeypatch.setattr(sources.SparseSource, "block", None)
    monkeypatch.setattr(sources.SparseSource, "chunk", None)
    with dask.config.set(scheduler="synchronous"):
        passes = ChunkPasses(sources.as_source(dask_cases.sparse_chunks(X)), weights, "cpu")
        found = passes.row_pass(view, block.astype(dtype), True, None, offset, True)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12  # of the block, in that dtype
    for name in ("image", "inner", "total", "sums", "squares"):
        one, other = getattr(found, name), getattr(here, name)
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max(), err_msg=name)
    assert found.drift == 0.0 and found.fewest_lines < np.inf


def test_sparse_chunks_far_from_zero_are_shifted_first():
    X = dask_cases.sparse_rows(d=80, dtype=np.float64).toarray()
    X[:, 3] += 1e6
    cut = dask_cases.sparse_chunks(scipy.sparse.csr_array(X))
    assert_same(lf.PCA(4, svd_solver="krylov").fit(cut), lf.PCA(4, svd_solver="krylov").fit(X), 1e-9)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_pass_is_that_of_all_rows(center, weighted, standardize):
    X = dask_cases.rows(d=40, dtype=np.float64, mean=5.0)
    weights = np.random.default_rng(1).integers(0, 3, len(X)).astype(float) if weighted else None
    if weighted:
        weights[200:400] = 0.0  # a whole chunk
    block = np.random.default_rng(2).standard_normal((40, 3))
    given = {"weights": weights, "center": center, "standardize": standardize}
    here = RowsOperator(sources.as_source(X), **given)
    there = RowsOperator(sources.as_source(dask_cases.even(X)), **given)
    image, inner = there.apply_inner(block)
    expected = here.apply(block) * (there.scale / here.scale) ** 2
    np.testing.assert_allclose(image, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())
    np.testing.assert_allclose(inner, block.T @ image, rtol=1e-9, atol=1e-11 * np.abs(inner).max())
    counts = np.ones(len(X)) if weights is None else weights
    mean = counts @ X / counts.sum()
    np.testing.assert_allclose(there.location, mean, rtol=1e-12)
    if center and not standardize:
        centred = (X - mean) * np.sqrt(counts)[:, None]
        np.testing.assert_allclose(image / there.scale**2, centred.T @ (centred @ block), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(there.trace / there.scale**2, (centred**2).sum(), rtol=1e-12)


def test_a_pass_keeps_the_contract_of_a_backend():
    """Every field, with statistics that are known and without."""
    X = dask_cases.rows(d=40, dtype=np.float64, mean=5.0)
    here, source = get_backend("cpu").rows, sources.as_source(dask_cases.uneven(X))
    there = ChunkPasses(source, None, "cpu")
    view, _ = pilot_view(sources.as_source(X), None, block=3)
    block, offset = np.random.default_rng(2).standard_normal((40, 3)), np.array([0.5, -1.0, 2.0])
    known = here.statistics(view, np.dtype(np.float64))
    for statistics in (None, (known.sums, known.squares)):
        found = there.row_pass(view, block, True, statistics, offset, True)
        expected = here.row_pass(view, block, True, statistics, offset, True)
        for name in ("image", "inner", "total", "sums", "squares"):
            one, other = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * np.abs(other).max(), err_msg=name)
    np.testing.assert_allclose(there.statistics(view, np.dtype(np.float64)).squares, known.squares, rtol=1e-12)
    assert there.fewest_lines(3) == 1  # a chunk has one row


def test_small_eigenvalues_are_refined_by_reading_again():
    """The Gram of float32 has lost the last ones; `residuals_` are bounds against float64."""
    rng = np.random.default_rng(0)
    X = (np.linalg.qr(rng.standard_normal((2000, 8)))[0] * 10.0 ** -np.arange(8)).astype(np.float32)
    found = lf.PCA(8, svd_solver="gram").fit(dask_cases.even(X))
    assert found.n_passes_ > 1
    exact = np.linalg.svd(X.astype(np.float64) - X.astype(np.float64).mean(axis=0), compute_uv=False) ** 2 / 1999
    np.testing.assert_allclose(found.explained_variance_, exact, rtol=1e-5)


def test_residuals_are_bounds():
    X = dask_cases.rows(m=3000, d=50, mean=30.0)
    for solver in ("gram", "krylov"):
        found = lf.PCA(5, svd_solver=solver).fit(dask_cases.uneven(X))
        S = np.cov(X.astype(np.float64).T)
        U, values = found.components_.astype(np.float64).T, found.explained_variance_
        measured = np.linalg.norm(S @ U - U * values, axis=0) / values
        assert (measured <= found.residuals_).all(), solver


@pytest.mark.parametrize("solver", ["gram", "krylov"])
@pytest.mark.parametrize("cut", ["even", "unknown_rows"])
def test_standardize(solver, cut):
    X = dask_cases.rows(d=30, dtype=np.float64, mean=4.0) * 10.0 ** np.linspace(-3, 3, 30)
    found = lf.PCA(3, svd_solver=solver, standardize=True).fit(dask_cases.DENSE[cut](X))
    expected = lf.PCA(3, svd_solver=solver, standardize=True).fit(X)
    assert_same(found, expected, 1e-9)
    np.testing.assert_allclose(found.scale_, expected.scale_, rtol=1e-12)


def test_features_far_apart_are_multiplied_in_float64():
    X = dask_cases.rows(d=6) * np.float32(2.0) ** np.array([-60, 0, 0, 0, 0, 40], np.float32)
    found = lf.PCA(3, standardize=True).fit(dask_cases.even(X))
    assert_same(found, lf.PCA(3, standardize=True).fit(X), 1e-6)


def test_truncated_svd():
    X = dask_cases.rows(d=30, dtype=np.float64, mean=2.0)
    for algorithm in ("gram", "krylov"):
        found = lf.TruncatedSVD(4, algorithm=algorithm).fit(dask_cases.even(X))
        expected = lf.TruncatedSVD(4, algorithm=algorithm).fit(X)
        assert_same(found, expected, 1e-9)
        np.testing.assert_allclose(found.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=1e-9)


def test_what_components_leave():
    """So little that it is measured row by row."""
    X = dask_cases.rows(d=10, dtype=np.float64)
    X[:, 3:] *= 1e-9
    source = sources.as_source(dask_cases.even(X))
    pca = lf.PCA(3).fit(X)
    found = remainder.of_rows(source, X.mean(axis=0), pca.components_, None, None, "cpu")
    expected = remainder.of_rows(sources.as_source(X), X.mean(axis=0), pca.components_, None, None, "cpu")
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(lf.PCA(3).fit(dask_cases.even(X)).noise_variance_, pca.noise_variance_, rtol=1e-6)


def test_krylov_names_nan_too():
    X = dask_cases.rows(d=40)
    X[431, 7] = np.inf
    with pytest.raises(ValueError, match=r"Chunk 2 of X, which begins with row 400: .* first at row 431, column 7"):
        lf.PCA(2, svd_solver="krylov").fit(dask_cases.even(X))


def test_weights_of_krylov():
    X = dask_cases.rows(d=40, dtype=np.float64)
    weights = np.random.default_rng(0).integers(0, 4, len(X)).astype(float)
    found = lf.PCA(3, svd_solver="krylov").fit(
        dask_cases.unknown_rows(X), sample_weight=da.from_array(weights, chunks=99)
    )
    assert_same(found, lf.PCA(3, svd_solver="krylov").fit(X, sample_weight=weights), 1e-9)


class Reads:
    """A block of rows that counts how often it was made."""

    def __init__(self, X):
        self.X, self.count = X, 0

    def __call__(self):
        self.count += 1
        return self.X


def test_it_says_how_often_the_data_are_read():
    """One chunk, which is read for the sample too; rows that are kept are not made again."""
    rows = Reads(dask_cases.rows(d=60))
    with dask.config.set(scheduler="synchronous"):
        lazy = da.from_delayed(dask.delayed(rows)(), rows.X.shape, rows.X.dtype)
        found = lf.PCA(3, svd_solver="krylov").fit(lazy)
        samples = rows.count - found.n_passes_
        assert 1 <= samples <= 2  # of Krylov and of a refining pass
        kept = lazy.persist()
        rows.count = 0
        lf.PCA(3, svd_solver="krylov").fit(kept)
        assert rows.count == 0
