"""transform(X, out=): every estimator, every storage, into arrays and memory maps, the same numbers as without it."""

import warnings

import h5py
import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from tests.oracle import cases

M, D, P = 3000, 30, 4
X = (np.random.default_rng(0).standard_normal((M, D)) * 0.9 ** np.arange(D) * 20 + 60).astype(np.float32)


def trained():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lf.LinearAutoencoder(P, optimizer="nesterov", max_iter=20).fit(X)


@pytest.fixture(scope="module")
def models():
    return {
        "PCA": lf.PCA(P).fit(X),
        "whitened": lf.PCA(P, whiten=True, standardize=True).fit(X),
        "IncrementalPCA": lf.IncrementalPCA(P).fit(X),
        "TruncatedSVD": lf.TruncatedSVD(P).fit(X),
        "LinearAutoencoder": trained(),
    }


NAMES = ("PCA", "whitened", "IncrementalPCA", "TruncatedSVD", "LinearAutoencoder")


@pytest.fixture
def stored(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = X
        yield {
            "memmap": np.load(tmp_path / "x.npy", mmap_mode="r"),
            "HDF5": file["x"],
            "Fortran": np.asfortranarray(X),
            "strided": np.repeat(X, 2, axis=1)[:, ::2],
            "big-endian": X.astype(">f4"),
            "CSR": scipy.sparse.csr_array(X),
            "list": X.tolist(),
        }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["memmap", "HDF5", "Fortran", "strided", "big-endian", "CSR", "list"])
def test_out_is_filled_and_returned(models, stored, tmp_path, name, kind):
    model, data = models[name], stored[kind]
    expected = model.transform(X)
    dtype = np.float64 if kind == "list" else np.float32
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", "w+", dtype, (M, P))
    assert model.transform(data, out=out) is out
    scale = np.abs(expected).max()
    np.testing.assert_allclose(out, expected, atol=1e-5 * scale)
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), out)
    part = np.full((M, P + 3), 7, dtype)
    model.transform(data, out=part[:, 1 : P + 1])
    np.testing.assert_array_equal(part[:, 1 : P + 1], out)
    assert (part[:, 0] == 7).all() and (part[:, P + 1 :] == 7).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "float16", "int64", *cases.only_full(*cases.RARE)])
def test_the_dtype_of_out_is_that_of_the_result(models, name, dtype):
    rows = (X[:200] % 100 - 50 * (dtype == "int8")).astype(dtype)
    expected = models[name].transform(rows)
    out = np.empty(expected.shape, expected.dtype)
    np.testing.assert_array_equal(models[name].transform(rows, out=out), expected)
    assert expected.dtype == (np.float64 if dtype in ("float64", "int64") else np.float32)


def test_sparse_rows_stay_sparse(monkeypatch):
    rows = scipy.sparse.random(4000, 500, 0.01, format="csr", dtype=np.float32, random_state=0)
    pca = lf.PCA(P).fit(rows)
    expected = (rows.toarray() - pca.mean_) @ pca.components_.T
    monkeypatch.setattr(scipy.sparse.csr_matrix, "toarray", lambda *_: pytest.fail("made dense"))
    out = np.empty((4000, P), np.float32)
    np.testing.assert_allclose(pca.transform(rows, out=out), expected, atol=1e-5)


BAD = {
    "shape": (np.empty((M, P + 1), np.float32), ValueError, r"shape \(3000, 4\) and dtype float32.*np\.empty"),
    "dtype": (np.empty((M, P)), ValueError, "not .* float64 with"),
    "order": (np.empty((M, P), np.float32, order="F"), ValueError, "C-ordered"),
    "a list": ([[0.0] * P] * M, TypeError, "out must be a NumPy array or np.memmap"),
    "read-only": (np.broadcast_to(np.float32(0), (M, P)), ValueError, "C-ordered"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", BAD)
def test_an_out_that_will_not_do(models, name, case):
    out, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        models[name].transform(X, out=out)


@pytest.mark.parametrize("name", NAMES)
def test_an_out_that_cannot_be_written(models, tmp_path, name):
    np.save(tmp_path / "old.npy", np.zeros((M, P), np.float32))
    out = np.load(tmp_path / "old.npy", mmap_mode="r")
    with pytest.raises(ValueError, match="out is read-only: pass an array that can be written"):
        models[name].transform(X, out=out)
    assert not np.load(tmp_path / "old.npy").any()
