"""One matrix in every dtype and container: the same components, and the same bits where the numbers are read alike."""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from tests.oracle import cases

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

M, D, P = 1500, 9, 4
DTYPES = ("uint8", "int32", "float16", "float32", "float64", *cases.only_full(*cases.RARE))


def whole_numbers(dtype):
    """Whole numbers that every dtype holds, with zeros for the sparse ones."""
    rng = np.random.default_rng(0)
    X = rng.poisson(3.0 * 0.7 ** np.arange(D), (M, D))
    return (X > 1 if dtype == "bool" else X).astype(dtype)


def table(X):
    return pa.table({f"c{j}": pa.array(np.ascontiguousarray(X[:, j])) for j in range(X.shape[1])})


def on_disk(X, folder):
    np.save(folder / "x.npy", X)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(100, D))
    stored = zarr.open_array(str(folder / "x.zarr"), mode="w", shape=X.shape, dtype=X.dtype, chunks=(100, D))
    stored[:] = X
    pq.write_table(table(X), folder / "x.parquet", row_group_size=400)
    return {name: folder / name for name in ("x.npy", "x.h5", "x.zarr", "x.parquet")}


def in_memory(X):
    locked = X.copy()
    locked.setflags(write=False)
    spaced = np.zeros((2 * M, 3 * D), X.dtype)
    spaced[::2, ::3] = X
    return {
        "C": X,
        "F": np.asfortranarray(X),
        "read-only": locked,
        "strided": spaced[::2, ::3],
        "reversed": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "big-endian": X.astype(X.dtype.newbyteorder(">")),
        "Arrow": table(X),
        **{f"blocks of {n}": [X[i : i + n] for i in range(0, M, n)] for n in (1, 7, 1000)},
        "generator": (X[i : i + 50] for i in range(0, M, 50)),
        "callable": lambda: iter([X[:3], X[3:1400], X[1400:]]),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_containers(dtype, tmp_path):
    X = whole_numbers(dtype)
    with np.errstate(all="ignore"):
        values, vectors = np.linalg.eigh(np.cov(X.astype(float).T))
    given = in_memory(X) | on_disk(X, tmp_path)
    given["memmap"] = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = None
    for name, data in given.items():
        pca = lf.PCA(P, svd_solver="gram").fit(data)
        if expected is None:
            eps = np.finfo(pca.components_.dtype).eps
            np.testing.assert_allclose(pca.explained_variance_, values[::-1][:P], rtol=40 * eps)
            assert (np.abs(pca.components_ @ vectors[:, ::-1][:, :P]).diagonal() > 1 - 1e-4).all()
            assert pca.components_.dtype == lf.PCA(1).fit(X[:50]).components_.dtype
            expected = pca
        for attribute in ("components_", "explained_variance_", "mean_"):
            # chunks of rows that come in blocks are cut without knowing their number
            np.testing.assert_allclose(
                getattr(pca, attribute), getattr(expected, attribute), rtol=100 * eps, atol=100 * eps, err_msg=name
            )


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "float16"])  # SciPy has no sparse float16
@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_sparse_containers(dtype, solver):
    X = whole_numbers(dtype)
    expected = lf.PCA(P).fit(X.astype(float))
    csr = scipy.sparse.csr_array(X)
    long = csr.copy()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    for data in (csr, csr.tocsc(), csr.tocoo(), long, scipy.sparse.csr_matrix(X), lambda: iter([csr[:3], csr[3:]])):
        pca = lf.PCA(P, svd_solver=solver).fit(data)
        eps = np.finfo(pca.components_.dtype).eps
        np.testing.assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=100 * eps)
        np.testing.assert_allclose(abs(pca.components_), abs(expected.components_), atol=1000 * eps)


def refuses(data, message, kind=ValueError):
    with pytest.raises(kind, match=message):
        lf.PCA(2).fit(data)


def test_what_hides_numbers_is_refused():
    X = whole_numbers("float64")
    refuses(np.ma.masked_array(X, X > 5), "masked entries.*missing='em'")
    lf.PCA(2).fit(np.ma.masked_array(X))
    refuses(np.zeros((30, 2), [("a", float), ("b", float)]), "named fields")


def test_a_missing_value_of_pandas_is_nan():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(whole_numbers("float64")).astype("Float64")
    frame.iloc[3, 1] = pandas.NA
    refuses(frame, "contains NaN: first at row 3, column 1")


def test_a_foreign_byte_order_of_stored_entries():
    X = scipy.sparse.csr_array(whole_numbers("float64"))
    other = X.copy()
    other.data = other.data.astype(">f8")
    for solver in ("gram", "krylov"):
        found, expected = lf.PCA(2, svd_solver=solver).fit(other), lf.PCA(2, svd_solver=solver).fit(X)
        np.testing.assert_array_equal(found.components_, expected.components_)


def test_a_closed_file_is_named(tmp_path):
    path = on_disk(whole_numbers("float64"), tmp_path)["x.h5"]
    with h5py.File(path) as file:
        data = file["x"]
    refuses(data, "X is a dataset of an HDF5 file that is closed")


def test_a_file_closed_during_the_fit_ends_it(tmp_path):
    """No hang and no segfault; the library's own exception."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.tile(whole_numbers("float64"), (60, 1))
    file = h5py.File(tmp_path / "x.h5")
    pca = lf.PCA(2, svd_solver="gram", progress=lambda *_: file.close())
    with pytest.raises((OSError, RuntimeError, ValueError)):
        pca.fit(file["x"])
    assert not hasattr(pca, "components_")


def test_a_callable_that_returns_nothing():
    refuses(lambda: None, r"X\(\) must return an iterator over blocks of rows, not NoneType", TypeError)
