"""Row blocks and paths as data: the same components as from the array, in one pass or several."""

import itertools
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import plan
from lae_fast.data import row_blocks, sources
from tests.oracle import cases
from tests.oracle.block_cases import cut, data
from tests.oracle.naive import moments as naive_moments

DTYPES = ("float32", "float64", "float16", "uint8", "int64", ">f4", *cases.only_full(*cases.RARE))


def ragged(X):
    cuts = [0, 1, 2, 40, 40, 47, 900, X.shape[0]]
    return [X[first:last] for first, last in itertools.pairwise(cuts)]


def write(X, folder):
    """Every file format that holds X, by name."""
    import h5py
    import pyarrow
    import pyarrow.parquet
    import zarr

    np.save(folder / "x.npy", X)
    np.savez(folder / "x.npz", X)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = X
    zarr.save_array(folder / "x.zarr", X)
    pyarrow.parquet.write_table(
        pyarrow.table({f"c{j}": np.ascontiguousarray(X[:, j]) for j in range(X.shape[1])}), folder / "x.parquet"
    )
    np.savetxt(folder / "x.csv", X, delimiter=",")
    scipy.sparse.save_npz(folder / "sparse.npz", scipy.sparse.csr_array(X))
    return [folder / name for name in ("x.npy", "x.npz", "x.h5", "x.zarr", "x.parquet", "x.csv", "sparse.npz")]


def variances(X):
    return np.linalg.eigvalsh(np.cov(np.asarray(X, dtype=np.float64).T))[::-1]


def assert_same(pca, whole, X):
    """Variances within the promise, and components up to what the gaps between the variances leave."""
    single = whole.components_.dtype == np.float32
    tolerance = 1e-5 if single else 1e-10
    np.testing.assert_allclose(pca.explained_variance_, variances(X)[: pca.n_components_], rtol=tolerance)
    np.testing.assert_allclose(pca.components_, whole.components_, atol=100 * tolerance)
    np.testing.assert_allclose(pca.mean_, whole.mean_, rtol=tolerance, atol=tolerance)
    assert pca.n_samples_ == len(X) and pca.n_features_in_ == X.shape[1] and pca.converged_.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("height", [1, 7, 1000, "ragged"])
def test_blocks_of_every_dtype_and_height(dtype, height):
    X = data(dtype)
    parts = ragged(X) if height == "ragged" else cut(X, height)
    whole = lf.PCA(3).fit(X)
    for given in (iter(parts), parts, lambda: iter(parts)):
        pca = lf.PCA(3).fit(given)
        assert_same(pca, whole, X)
        assert pca.solver_ == "gram" and pca.n_passes_ == 1


@pytest.mark.parametrize("estimator", [lf.PCA, lf.IncrementalPCA, lf.TruncatedSVD])
def test_the_heights_of_blocks_change_no_bit(estimator):
    X = data("float32", 5000)
    results = [estimator(3).fit(iter(parts)) for parts in (cut(X, 1), cut(X, 7), cut(X, 1000), ragged(X), [X])]
    for other in results[1:]:
        np.testing.assert_array_equal(other.components_, results[0].components_)
        np.testing.assert_array_equal(other.explained_variance_, results[0].explained_variance_)


def test_the_number_of_threads_changes_no_bit():
    X = data("float32", 9000)
    results = []
    try:
        for threads in (1, 2, 3):
            lf.set_num_threads(threads)
            results.append(lf.Moments.from_data(iter(cut(X, 100))).xx)
    finally:
        lf.set_num_threads(None)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_every_container_and_path(dtype, tmp_path):
    X = data(dtype, 300)
    whole = lf.PCA(3).fit(X)
    for path in write(X, tmp_path):
        for given in (path, str(path)):
            assert_same(lf.PCA(3).fit(given), whole, X)
        np.testing.assert_allclose(lf.PCA(3).fit_transform(path), whole.transform(X), atol=1e-3)
        np.testing.assert_allclose(lf.Moments.from_data(path).xx, lf.Moments.from_data(X).xx, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(lf.IncrementalPCA(3).fit(path).var_, X.var(axis=0), rtol=1e-5)
        np.testing.assert_allclose(lf.top_eigenpairs(path, 2).values, variances(X)[:2] * 299, rtol=1e-5)
        np.testing.assert_allclose(
            lf.TruncatedSVD(2).fit(path).components_, lf.TruncatedSVD(2).fit(X).components_, atol=1e-4
        )


def test_a_path_is_closed_after_the_fit_and_after_an_error(tmp_path):
    h5py = pytest.importorskip("h5py")
    X = data("float64", 50)
    X[7, 2] = np.nan
    for name, rows in (("good.h5", X[:7]), ("bad.h5", X)):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = rows
    lf.PCA(2).fit(tmp_path / "good.h5")
    with pytest.raises(ValueError, match="row 7, column 2"):
        lf.PCA(2).fit(tmp_path / "bad.h5")
    for name in ("good.h5", "bad.h5"):
        with h5py.File(tmp_path / name, "r+"):  # refused while another handle is open
            pass


def test_blocks_may_be_sparse_tables_and_frames():
    import pandas
    import pyarrow

    X = data("float64", 200) * (np.random.default_rng(1).random((200, 9)) < 0.3)
    whole = lf.PCA(3).fit(X)
    assert_same(lf.PCA(3).fit(scipy.sparse.csr_array(part) for part in ragged(X)), whole, X)
    assert_same(lf.PCA(3).fit(lambda: (scipy.sparse.csc_matrix(part) for part in cut(X, 13))), whole, X)
    assert_same(lf.PCA(3).fit(pandas.DataFrame(part) for part in cut(X, 13)), whole, X)
    tables = [pyarrow.table({f"c{j}": part[:, j] for j in range(9)}) for part in cut(X, 13)]
    assert_same(lf.PCA(3).fit(iter(tables)), whole, X)
    weights = np.arange(200) % 3 * (np.arange(200) > 20)
    stacked = lf.Moments.from_data((scipy.sparse.csr_array(part) for part in cut(X, 20)), sample_weight=weights)
    np.testing.assert_allclose(stacked.xx, lf.Moments.from_data(X, sample_weight=weights).xx, rtol=1e-12)


def test_sparse_blocks_are_stacked_however_they_are_cut(monkeypatch):
    X = scipy.sparse.random(3000, 40, 0.05, format="csr", random_state=0)
    expected = np.cov(X.toarray().T) * 2999
    found = [lf.Moments.from_data(iter(cut(X, height))).xx for height in (1000, 7)]
    np.testing.assert_allclose(found[0], expected, atol=1e-12 * expected.max())
    np.testing.assert_array_equal(found[1], found[0])
    monkeypatch.setattr("lae_fast.operators.gather._STACKED_ENTRIES", 1)  # stacks of 256 rows
    bad = X.toarray()
    bad[2900, 3] = np.nan
    np.testing.assert_allclose(lf.Moments.from_data(iter(cut(X, 7))).xx, expected, atol=1e-11 * expected.max())
    with pytest.raises(ValueError, match="row 2900, column 3"):
        lf.Moments.from_data(scipy.sparse.csr_array(part) for part in cut(bad, 7))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_of_blocks_against_the_definition(center, dtype):
    X = data(dtype, 60, 4)
    weights = np.arange(60) % 4
    weights[:10] = 0
    found = lf.Moments.from_data(iter(cut(X, 7)), sample_weight=weights, center=center)
    expected = naive_moments(X, weights, center)
    np.testing.assert_allclose(found.xx, expected[2], rtol=1e-5 if dtype == "float32" else 1e-12)
    assert found.n_samples == 60 and found.weight_sum == weights.sum()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e18])
@pytest.mark.parametrize("start", ["constant", "small", "far"])
def test_the_first_rows_need_not_be_like_the_others(scale, start):
    """The shift and scale of a stream come from its first rows."""
    X = data("float64", 30_000, 5) * scale
    X[:20_000] = {"constant": 0.0, "small": X[:20_000] * 1e-9, "far": X[:20_000] + 1e3 * scale}[start]
    X = X.astype(np.float32)
    exact = np.cov(X.T.astype(np.float64) / scale)
    found = lf.Moments.from_data(iter(cut(X, 999))).covariance() / scale**2
    np.testing.assert_allclose(found, exact, atol=1e-6 * np.abs(exact).max())


def test_krylov_on_a_factory():
    X = data("float32", 4000, 60)
    opened = []

    def rows():
        opened.append(1)
        return iter(cut(X, 333))

    pca = lf.PCA(3, svd_solver="krylov").fit(rows)
    np.testing.assert_allclose(pca.explained_variance_, variances(X)[:3], rtol=1e-5)
    assert pca.solver_ == "krylov" and pca.converged_.all()
    assert pca.n_passes_ == len(opened)  # one of them to count the rows
    wide = lf.PCA(3, svd_solver="krylov").fit(lambda: iter(cut(X[:50], 8)))  # no lines of features here
    np.testing.assert_allclose(wide.explained_variance_, variances(X[:50])[:3], rtol=1e-5)


def test_small_variances_are_refined_where_rows_can_be_read_again():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((40, 40)))[0]  # fewer features are multiplied in float64
    X = (rng.standard_normal((3000, 40)) * np.logspace(0, -3.5, 40) @ rotation).astype(np.float32)
    exact = variances(X)
    again = lf.PCA(40).fit(lambda: iter(cut(X, 500)))
    np.testing.assert_allclose(again.explained_variance_, exact, rtol=1e-4)
    assert again.n_passes_ > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        once = lf.PCA(40).fit(iter(cut(X, 500)))
    off = abs(once.explained_variance_[-1] / exact[-1] - 1)
    assert once.n_passes_ == 1 and 1e-3 < off < once.residuals_[-1]  # and the certificate says so


def test_other_estimators_and_parameters():
    X = data("float64", 400)
    parts = cut(X, 37)
    weights = np.arange(400) % 3
    whole = lf.PCA(3).fit(X, sample_weight=weights)
    weighted = lf.PCA(3).fit(iter(parts), sample_weight=weights)
    np.testing.assert_allclose(weighted.components_, whole.components_, atol=1e-10)
    np.testing.assert_allclose(
        lf.PCA(3, standardize=True).fit(iter(parts)).components_,
        lf.PCA(3, standardize=True).fit(X).components_,
        atol=1e-10,
    )
    assert lf.PCA(0.9).fit(iter(parts)).n_components_ == lf.PCA(0.9).fit(X).n_components_
    assert lf.PCA("mle").fit(parts).n_components_ == lf.PCA("mle").fit(X).n_components_
    assert lf.PCA().fit(iter(parts[:1] + [X[:0]])).n_components_ == 9
    for given in (iter(parts), parts):
        svd, whole = lf.TruncatedSVD(3).fit(given), lf.TruncatedSVD(3).fit(X)
        for name in ("components_", "singular_values_", "explained_variance_", "explained_variance_ratio_"):
            np.testing.assert_allclose(getattr(svd, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    train = {"max_iter": 50, "tol": 0.0, "regime": "moments", "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lf.LinearAutoencoder(2, **train).fit(iter(parts))
        whole = lf.LinearAutoencoder(2, **train).fit(X)
    np.testing.assert_allclose(model.decoder_, whole.decoder_, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="mini-batches need the rows of X, which rows that come in blocks"):
        lf.LinearAutoencoder(2, batch_size=10).fit(iter(parts))
    gaps = X.copy()
    gaps[::7, 3] = np.nan
    em = lf.PCA(2, missing="em").fit(lambda: iter(cut(gaps, 37)))
    np.testing.assert_allclose(em.components_, lf.PCA(2, missing="em").fit(gaps).components_, atol=1e-6)


@pytest.mark.parametrize(
    "parameters", [{}, {"forget": 0.99}, {"max_memory": 60_000}, {"max_memory": 60_000, "forget": 0.9}]
)
def test_incremental_takes_blocks_in_fit_and_partial_fit(parameters, monkeypatch):
    X = data("float64", 400, 200 if "max_memory" in parameters else 9)
    weights = 1.0 + np.arange(400) % 3
    weights[150:170] = 0.0
    monkeypatch.setattr(
        "lae_fast.estimators._stream_state._ENTRIES_AT_ONCE", 1000
    )  # so that some steps have weights of zero only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        whole = lf.IncrementalPCA(3, **parameters).fit(X, sample_weight=weights)
        fitted = lf.IncrementalPCA(3, **parameters).fit(iter(cut(X, 7)), sample_weight=weights)
        added = lf.IncrementalPCA(3, **parameters).partial_fit(X[:100], sample_weight=weights[:100])
        added.partial_fit(iter(cut(X[100:], 13)), sample_weight=weights[100:])
    for pca in (fitted, added):
        assert pca.n_samples_seen_ == 400 and pca.solver_ == whole.solver_
        np.testing.assert_allclose(pca.var_, whole.var_, rtol=1e-9, atol=1e-15)  # of 1e-14 about 3
        gap = np.abs(pca.explained_variance_ - whole.explained_variance_)
        assert (gap <= whole.error_bound_ + pca.error_bound_ + 1e-9).all()


def test_the_owner_of_a_block_may_use_its_memory_again():
    X = data("float32", 6000)
    memory = np.empty((50, 9), np.float32)

    def rows():
        for part in cut(X, 50):
            memory[:] = part
            yield memory
            memory[:] = np.nan

    np.testing.assert_array_equal(lf.Moments.from_data(rows()).xx, lf.Moments.from_data(iter([X])).xx)


def test_rows_are_read_by_the_callers_thread_while_others_compute():
    """One chunk at work, one that waits, one that is being read: no more are held."""
    X = data("float32", 40_000, 30)
    chunk = plan.tiling(float("inf"), 30, 4, 2.0 * 30 * 30).chunk
    seen, threads = [], set()

    def rows():
        for part in cut(X, chunk):
            threads.add(threading.get_ident())
            yield part

    def tick(done, total):
        seen.append((done, total))

    lf.Moments(30).update(rows(), tick=tick)
    assert threads == {threading.get_ident()}
    assert seen == [(k, None) for k in range(1, -(-40_000 // chunk) + 1)]


def test_what_counts_as_blocks():
    X = np.eye(3)
    assert all(map(row_blocks.is_blocks, (iter([X]), (X for _ in "x"), lambda: iter([X]), [X, X[:1]], (X,))))
    assert not any(
        map(row_blocks.is_blocks, (X, [[1, 2]], X.tolist(), [X[0]], [], "x.npy", Path("x.npy"), 3, {}, None))
    )
    source = sources.as_source([X, X])
    assert source.n_features == 3 and source.shape == (6, 3) and source.counting_passes == 1
    with pytest.raises(TypeError, match="no lines of features"):
        source.block(0, 1, True)
    np.testing.assert_array_equal(source.block(4, 6, False), X[1:])
    np.testing.assert_array_equal(source.block(1, 2, False), X[1:2])


def test_a_data_set_by_name():
    assert lf.PCA(3).fit("digits").n_samples_ == 1797
