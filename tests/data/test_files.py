"""Files: every format opens to the same numbers, every bad one gets its message, no result is ever half there."""

import gc
import os
import stat
import warnings

import h5py
import numpy as np
import pytest
import scipy.sparse

from lae_fast import datasets
from lae_fast.data import atomic, files
from lae_fast.errors import DataFileError
from lae_fast.operators.moments import Moments

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array


WRITERS = {
    "a.npy": lambda path: np.save(path, MATRIX),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(MATRIX)),
    "UPPER.NPY": lambda path: path.open("wb").write(npy_bytes(MATRIX)),
    "one.npz": lambda path: np.savez(path, x=MATRIX, labels=MATRIX[:, 0]),
    "two.npz:y": lambda path: np.savez(path, x=MATRIX[:2], y=MATRIX),
    "one.h5": lambda path: write_h5(path, group__x=MATRIX, labels=MATRIX[:, 0]),
    "two.hdf5:group/y": lambda path: write_h5(path, x=MATRIX[:2], group__y=MATRIX),
    "slash.h5:/y": lambda path: write_h5(path, x=MATRIX[:2], y=MATRIX),
    "plain.csv": lambda path: np.savetxt(path, MATRIX, delimiter=","),
    "header.csv": lambda path: np.savetxt(path, MATRIX, delimiter=",", header="a,b,c", comments=""),
    "bom.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf0,1,2\n3,4,5\n6,7,8\n9,10,11\n"),
    "csr.npz": lambda path: scipy.sparse.save_npz(path, scipy.sparse.csr_array(MATRIX)),
    "csc.npz": lambda path: scipy.sparse.save_npz(path, scipy.sparse.csc_array(MATRIX)),
    "coo.npz": lambda path: scipy.sparse.save_npz(path, scipy.sparse.coo_array(MATRIX)),
    "colon:in.name.npy": lambda path: np.save(path, MATRIX),
}


def npy_bytes(array):
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("spec", WRITERS)
def test_every_format_opens_to_the_same_numbers(here, spec):
    path = here / (spec if spec in ("colon:in.name.npy",) else spec.split(":")[0])
    WRITERS[spec](path)
    with files.open_input(spec) as source:
        rows = source.data.toarray() if scipy.sparse.issparse(source.data) else source.data[...]
        np.testing.assert_array_equal(rows, MATRIX)
        assert source.data.shape == (4, 3)
        stored = 11 if scipy.sparse.issparse(source.data) else 12
        assert source.nbytes == stored * source.data.dtype.itemsize
    assert files.input_path(spec) == path.relative_to(here)


def test_npy_is_mapped_read_only(here):
    np.save("a.npy", MATRIX)
    with files.open_input("a.npy") as source:
        assert isinstance(source.data, np.memmap) and not source.data.flags.writeable
        assert source.where == "memory-mapped"


def test_hdf5_stays_in_its_file_and_is_closed_after(here):
    write_h5("a.h5", x=MATRIX)
    with files.open_input("a.h5") as source:
        data = source.data
        assert isinstance(data, h5py.Dataset)
    assert not data


def test_sparse_comes_as_rows_or_columns(here):
    for layout, expected in [("csr", "csr"), ("csc", "csc"), ("coo", "csr")]:
        scipy.sparse.save_npz("s.npz", scipy.sparse.coo_array(MATRIX).asformat(layout))
        with files.open_input("s.npz") as source:
            assert source.data.format == expected
            assert source.where == f"sparse {expected}, 11 stored entries, read into memory"


def test_empty_npy_reaches_the_engine(here):
    np.save("empty.npy", np.zeros((0, 3)))
    with files.open_input("empty.npy") as source:
        assert source.data.shape == (0, 3)


def test_data_set_by_name(monkeypatch):
    with files.open_input("digits") as source:
        assert source.data.shape == (1797, 64) and source.where == "from scikit-learn"
    assert files.input_path("digits") is None


def test_large_data_set_says_where_it_was_found(here, monkeypatch):
    np.savez("mnist.npz", x_train=np.ones((2, 3, 3), np.uint8))
    monkeypatch.setenv("LAE_FAST_DATA", str(here))
    with files.open_input("mnist") as source:
        assert source.data.shape == (2, 9) and source.where == f"training rows, from {here / 'mnist.npz'}"


BAD = [
    ("none.npy", None, FileNotFoundError, "none.npy does not exist"),
    ("d.npy", lambda p: p.mkdir(), DataFileError, "is a directory"),
    (
        "cut.npy",
        lambda p: p.write_bytes(npy_bytes(MATRIX)[:-5]),
        DataFileError,
        "truncated: 4 x 3 float32 takes 176",
    ),
    ("head.npy", lambda p: p.write_bytes(npy_bytes(MATRIX)[:40]), DataFileError, "may be truncated"),
    ("zero.npy", lambda p: p.touch(), DataFileError, "may be truncated"),
    ("text.npy", lambda p: p.write_text("hello, this is no array"), DataFileError, "no .npy file"),
    ("object.npy", lambda p: np.save(p, np.array([[{}]])), DataFileError, "holds Python objects"),
    ("zip.npy", lambda p: np.savez(p.open("wb"), x=MATRIX), DataFileError, "rename it to .npz"),
    ("npy.npz", lambda p: p.write_bytes(npy_bytes(MATRIX)), DataFileError, "rename it to .npy"),
    ("cut.npz", lambda p: p.write_bytes(npz_bytes()[:-30]), DataFileError, "may be truncated"),
    ("hurt.npz", lambda p: p.write_bytes(hurt(npz_bytes())), DataFileError, "may be truncated"),
    (
        "two.npz",
        lambda p: np.savez(p, x=MATRIX, y=MATRIX),
        DataFileError,
        "name one as FILE.npz:KEY (it holds: x 4",
    ),
    ("flat.npz", lambda p: np.savez(p, x=MATRIX[0], y=3), DataFileError, "no matrix (it holds: x 3, y scalar)"),
    ("object.npz", lambda p: np.savez(p, x=np.array([[{}]])), DataFileError, "allow_pickle"),
    ("one.npz:q", lambda p: np.savez(p, x=MATRIX), DataFileError, "holds no array 'q'; it holds: x"),
    ("cut.h5", lambda p: cut_h5(p), DataFileError, "may be truncated"),
    ("text.h5", lambda p: p.write_text("hello"), DataFileError, "may be truncated or no .h5 file"),
    ("one.h5:q", lambda p: write_h5(p, x=MATRIX), DataFileError, "holds no data set 'q'; it holds: x"),
    ("two.h5", lambda p: write_h5(p, x=MATRIX, y=MATRIX), DataFileError, "holds 2 matrices; name one as FILE.h5"),
    ("empty.csv", lambda p: p.touch(), DataFileError, "is empty"),
    ("word.csv", lambda p: p.write_text("1,2\n3,x\n"), DataFileError, "not a table of numbers"),
    ("ragged.csv", lambda p: p.write_text("a,b\n1,2\n3\n"), DataFileError, "after the header"),
    ("binary.csv", lambda p: p.write_bytes(b"\xff\xfe\x00"), DataFileError, "not a table of numbers"),
    ("a.zarr", lambda p: p.mkdir(), DataFileError, "may be truncated or no .zarr file"),
    ("a.parquet", lambda p: p.write_text("hello"), DataFileError, "may be truncated or no .parquet file"),
    ("a.foo", lambda p: p.touch(), ValueError, "cannot tell how to read 'a.foo'; INPUT is one of: digits"),
    ("a.csv.gz", lambda p: p.touch(), ValueError, "a.csv.gz is compressed: decompress it first"),
    ("", None, ValueError, "cannot tell how to read ''"),
]


def npz_bytes():
    import io

    buffer = io.BytesIO()
    np.savez(buffer, x=MATRIX)
    return buffer.getvalue()


def hurt(data):
    """Other bytes in the array: the archive's checksum must notice."""
    where = data.index(MATRIX[2].tobytes())
    return data[:where] + b"\x7f" * 8 + data[where + 8 :]


def cut_h5(path):
    write_h5(path, x=MATRIX)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(("spec", "write", "kind", "message"), BAD, ids=[case[0] or "nothing" for case in BAD])
def test_bad_file_gets_its_message(here, spec, write, kind, message):
    if write is not None:
        write(here / spec.split(":")[0])
    with pytest.raises(kind) as caught, files.open_input(spec):
        pass
    assert message in str(caught.value)
    assert spec.split(":")[0] in str(caught.value)


def test_missing_h5py_says_how_to_get_it(here, monkeypatch):
    write_h5("a.h5", x=MATRIX)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lae-fast\[io\]'"), files.open_input("a.h5"):
        pass


@pytest.mark.parametrize(
    ("spec", "path", "member"),
    [
        ("a.npz:k", "a.npz", "k"),
        ("a.npz:k:l.npz", "a.npz", "k:l.npz"),
        ("d.npz/a.npz:k", "d.npz/a.npz", "k"),
        ("C:\\d\\a.npy", "C:\\d\\a.npy", None),
        ("C:\\d\\a.h5:g/x", "C:\\d\\a.h5", "g/x"),
        ("a.npz:", "a.npz:", None),
    ],
)
def test_colon_names_a_member_behind_a_container_only(here, spec, path, member):
    assert files._split(spec) == (files.Path(path), member)


def test_atomic_write_replaces_whole_and_leaves_nothing_else(here):
    target = here / "out.npz"
    target.write_bytes(b"old")
    with atomic.atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(here) == ["out.npz"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_atomic_write_that_fails_keeps_the_old_file(here, error):
    target = here / "out.npz"
    target.write_bytes(b"old")
    with pytest.raises((KeyboardInterrupt, OSError)), atomic.atomic_write(target) as file:
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert os.listdir(here) == ["out.npz"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and links")
def test_atomic_write_follows_links_and_the_umask(here):
    (here / "real").mkdir()
    (here / "link").symlink_to(here / "real" / "target")
    with atomic.atomic_write(here / "link") as file:
        file.write(b"new")
    assert (here / "link").is_symlink()
    assert (here / "real" / "target").read_bytes() == b"new"
    (here / "plain").touch()
    assert stat.S_IMODE((here / "real" / "target").stat().st_mode) == stat.S_IMODE((here / "plain").stat().st_mode)


def test_check_writable(here, monkeypatch):
    atomic.check_writable(here / "out.npz")
    assert os.listdir(here) == []
    with pytest.raises(IsADirectoryError, match="is a directory; name a file"):
        atomic.check_writable(here)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; make it first"):
        atomic.check_writable(here / "nowhere" / "out.npz")

    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic.Path, "open", refuse)  # root may write anywhere, so permission bits would prove nothing
    with pytest.raises(PermissionError, match=f"{here} cannot be written to: Read-only file system"):
        atomic.check_writable(here / "out.npz")
    with pytest.raises(PermissionError, match=f"{here} cannot be written to"), atomic.atomic_write(here / "out.npz"):
        pass


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("load", ["open_input", "Moments", "datasets"])
def test_a_cut_archive_is_closed(here, monkeypatch, load, share):
    content = npz_bytes()
    (here / "mnist.npz").write_bytes(content[: int(share * len(content))])
    monkeypatch.setenv("LAE_FAST_DATA", str(here))

    def attempt():
        with pytest.raises((DataFileError, OSError)):
            if load == "Moments":
                Moments.load("mnist.npz")
            elif load == "datasets":
                datasets.load("mnist")
            else:
                with files.open_input("mnist.npz"):
                    pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attempt()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
