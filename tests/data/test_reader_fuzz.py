"""Readers against damage: cut and corrupted files give `DataFileError` or the right shape, and never a crash."""

from __future__ import annotations

import shutil
import zlib

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import cli
from lae_fast.data import files
from lae_fast.errors import DataFileError

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


def table(X):
    return pyarrow.table({f"c{j}": X[:, j] for j in range(X.shape[1])})


def write_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=X, chunks=(8, 6), compression="gzip", fletcher32=True)


WRITERS = {
    "a.npy": lambda path: np.save(path, X),
    "a.npz": lambda path: np.savez_compressed(path, x=X),
    "s.npz": lambda path: scipy.sparse.save_npz(path, scipy.sparse.csr_array(np.where(X > 1, X, 0))),
    "a.h5": write_h5,
    "a.csv": lambda path: np.savetxt(path, X, delimiter=","),
    "a.parquet": lambda path: parquet.write_table(table(X), path),
}


def read(path):
    """The matrix that the file holds, read and fitted as the command line does."""
    with files.open_input(str(path)) as source:
        data = source.data
        lf.PCA(2).fit(data)
        return data.shape


@pytest.mark.parametrize("name", WRITERS)
def test_whole_files_are_read(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == X.shape


def damaged(content, random):
    """One cut or a few changed bytes."""
    kind = random.integers(4)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        start = random.integers(len(content))
        return content[:start] + content[start + random.integers(1, 40) :]
    changed = bytearray(content)
    where = random.integers(len(changed), size=random.integers(1, 6)) if kind == 2 else np.arange(16) % len(changed)
    for place in where:
        changed[place] = random.integers(256)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore:The first line of")  # of which damage makes a doubtful one
@pytest.mark.parametrize("name", WRITERS)
def test_damage_is_a_clear_error_or_a_matrix(tmp_path, name):
    """Bytes of the numbers themselves may change without notice where a format has no checksum; then PCA runs."""
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    random = np.random.default_rng(zlib.crc32(name.encode()))
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(content, random))
        try:
            with np.errstate(all="ignore"):
                shape = read(path)
        except (DataFileError, ValueError, TypeError, OSError) as error:
            assert str(error)
            refused += 1
            continue
        assert len(shape) == 2 and shape[0] > 1
    assert refused >= 20


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "s.npz", "a.h5", "a.parquet"])
def test_a_cut_file_leaves_no_output(tmp_path, name, capsys):
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    for share in (0.0, 0.3, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        assert cli.main(["pca", str(path), "-k", "2", "-o", str(tmp_path / "out.npz"), "-q"]) == 2
        assert "error" in capsys.readouterr().err
        assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_zarr_is_read_by_blocks_and_damage_is_noticed(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=X.shape, chunks=(8, 6), dtype=X.dtype)
    array[:] = X
    assert read(path) == X.shape
    np.testing.assert_allclose(lf.PCA(2).fit(array).components_, lf.PCA(2).fit(X).components_, atol=1e-6)
    header = next(entry for entry in path.iterdir() if entry.name.endswith((".json", "zarray")))
    header.write_bytes(header.read_bytes()[:40])
    with pytest.raises(DataFileError, match=r"a\.zarr"):
        read(path)
    shutil.rmtree(path)
    group = zarr.open_group(path, mode="w")
    group.create_array("x", shape=X.shape, dtype=X.dtype)[:] = X
    group.create_array("y", shape=X.shape, dtype=X.dtype)[:] = X
    with pytest.raises(DataFileError, match="2 matrices"), files.open_input(str(path)):
        pass
    with files.open_input(f"{path}:y") as source:
        np.testing.assert_array_equal(source.data[:], X)
    with pytest.raises(DataFileError, match="holds no array 'z'"), files.open_input(f"{path}:z"):
        pass


def test_arrow_tables():
    found = lf.PCA(2).fit(table(X))
    np.testing.assert_array_equal(found.components_, lf.PCA(2).fit(X).components_)
    mixed = pyarrow.table({"a": np.arange(5), "b": np.linspace(0, 1, 5)})
    assert lf.PCA(1).fit(mixed).components_.shape == (1, 2)
    with pytest.raises(ValueError, match="column 'b' of X"):
        lf.PCA(1).fit(pyarrow.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}))
    with pytest.raises(ValueError, match="first at row 1, column 1"):
        lf.PCA(1).fit(pyarrow.table({"a": [1, 2, 3], "b": [1, None, 3]}))
