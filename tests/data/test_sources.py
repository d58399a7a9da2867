"""Sources: every storage gives the same lines, in views where it can, and errors name the place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse

from lae_fast import validation
from lae_fast.data import sampling, sources
from lae_fast.operators.moments import Moments


@pytest.fixture
def rng():
    return np.random.default_rng(23)


def lines_of(chunk):
    """What a kernel reads: entry j of line r is flat[r * line_stride + j * entry_stride]."""
    last = len(chunk.flat) - 1 - (chunk.count - 1) * chunk.line_stride
    n = 1 + (last // chunk.entry_stride if chunk.entry_stride else 0)
    return np.array(
        [[chunk.flat[r * chunk.line_stride + j * chunk.entry_stride] for j in range(n)] for r in range(chunk.count)]
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bool", "int8", "uint8", "int16", ">f4", ">i2"])
def test_single_precision_dtypes(dtype):
    assert sources.compute_dtype(dtype) == np.float32


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint16", "uint32", "uint64", "longdouble", ">f8"])
def test_double_precision_dtypes(dtype):
    assert sources.compute_dtype(dtype) == np.float64


def layouts(X):
    n = X.shape[0]
    return {
        "C": np.ascontiguousarray(X),
        "F": np.asfortranarray(X),
        "columns": np.hstack([X, X])[:, : X.shape[1]],
        "rows": np.repeat(X, 2, axis=0)[::2],
        "reversed": X[::-1].copy()[::-1],
        "both": np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        "broadcast": np.broadcast_to(X[:1], (n, X.shape[1])),
        "endian": X.astype(X.dtype.newbyteorder("S")),
        "unaligned": np.frombuffer(b"\0" + X.tobytes(), dtype=np.uint8)[1:].view(X.dtype).reshape(X.shape),
    }


@pytest.mark.parametrize("layout", list(layouts(np.eye(2))))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.bool_, np.float16, np.int64, np.uint32])
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
@pytest.mark.parametrize("shape", [(7, 4), (1, 5), (6, 1), (1, 1)], ids=str)
def test_chunks_of_every_layout(rng, layout, dtype, by_feature, shape):
    X = layouts(rng.integers(0, 2 if dtype == np.bool_ else 50, shape).astype(dtype))[layout]
    source = sources.as_source(X)
    n_lines = source.n_lines(by_feature)
    expected = (X.T if by_feature else X).astype(float)
    for first, last in [(0, n_lines), (n_lines // 2, n_lines)]:
        chunk = source.chunk(first, last, by_feature)
        assert chunk.count == last - first
        assert 1 in (chunk.line_stride, chunk.entry_stride)
        assert chunk.flat.dtype.isnative and chunk.flat.flags.aligned and not chunk.flat.flags.writeable
        np.testing.assert_array_equal(lines_of(chunk).astype(float), expected[first:last])


@pytest.mark.parametrize("layout", ["C", "F", "columns", "rows"])
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_ordinary_layouts_are_views(rng, layout, by_feature):
    X = layouts(rng.standard_normal((8, 5)))[layout]
    source = sources.as_source(X)
    assert np.shares_memory(source.chunk(2, 4, by_feature).flat, X)
    assert not source.copies_chunks(by_feature)


@pytest.mark.parametrize("layout", ["reversed", "both", "endian", "unaligned"])
def test_other_layouts_are_counted_as_copies(rng, layout):
    X = layouts(rng.standard_normal((8, 5)))[layout]
    source = sources.as_source(X)
    assert source.copies_chunks(False)
    assert not np.shares_memory(source.chunk(2, 4).flat, X)


def test_memmap_stays_on_disk(rng, tmp_path):
    X = rng.standard_normal((20, 3))
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = sources.as_source(mapped)
    assert np.shares_memory(source.chunk(3, 9).flat, mapped)
    np.testing.assert_array_equal(lines_of(source.chunk(3, 9)), X[3:9])


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("kind", [scipy.sparse.random, scipy.sparse.random_array])
@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_sparse(form, kind, by_feature):
    X = (
        kind((9, 6), density=0.4, random_state=1)
        if kind is scipy.sparse.random_array
        else kind(9, 6, 0.4, random_state=1)
    )
    source = sources.as_source(X.asformat(form))
    dense = X.toarray().T if by_feature else X.toarray()
    np.testing.assert_array_equal(lines_of(source.chunk(2, 5, by_feature)), dense[2:5])
    assert source.copies_chunks(by_feature) and source.shape == (9, 6)


class Dataset:
    """Like an HDF5 dataset: shape, dtype, slices; no array interface."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.chunks = array, array.shape, array.dtype, None
        self.read = 0

    def __getitem__(self, key):
        out = self._array[key]
        self.read += out.size
        return out


@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_sliceable(rng, by_feature):
    dataset = Dataset(rng.standard_normal((9, 6)).astype(np.float32))
    source = sources.as_source(dataset)
    assert isinstance(source, sources.SlicedSource) and dataset.read == 0
    found = lines_of(source.chunk(2, 5, by_feature))
    np.testing.assert_array_equal(found, (dataset._array.T if by_feature else dataset._array)[2:5])
    assert dataset.read == 3 * (9 if by_feature else 6)  # no more than the lines asked for


def test_hdf5(rng, tmp_path):
    h5py = pytest.importorskip("h5py")
    X = rng.standard_normal((300, 5)) + 7
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = X
        np.testing.assert_array_equal(Moments.from_data(file["x"]).xx, Moments.from_data(X).xx)


def test_stacked(rng):
    X, Y = rng.standard_normal((9, 3)).astype(np.float32), rng.integers(0, 9, (9, 2))
    source = sources.StackedSource(sources.as_source(X), sources.as_source(Y))
    assert source.shape == (9, 5) and source.compute_dtype == np.float64
    np.testing.assert_array_equal(lines_of(source.chunk(2, 5)), np.hstack([X, Y])[2:5])
    with pytest.raises(TypeError, match="no lines of features"):
        source.block(0, 2, True)


def test_a_source_is_taken_as_it_is():
    source = sources.as_source(np.eye(3))
    assert sources.as_source(source) is source


@pytest.mark.parametrize("by_feature", [False, True], ids=["samples", "features"])
def test_sample_lines_spread_over_the_whole(by_feature):
    X = np.arange(3000.0)[:, None] * np.ones(2)
    X = X.T if by_feature else X
    sample = sampling.sample_lines(sources.as_source(X), by_feature)
    assert sample.shape[0] == 256 and sample.dtype == np.float64
    assert sample[0, 0] == 0 and sample[-1, 0] == 2999
    assert np.diff(np.unique(sample[:, 0])).max() <= 3000 / 15
    few = sampling.sample_lines(sources.as_source(np.eye(5)), by_feature)
    np.testing.assert_array_equal(few, np.eye(5))


def test_first_nonfinite_is_first_in_row_order(rng):
    X = rng.standard_normal((2500, 4))
    assert sources.as_source(X).first_nonfinite() is None
    X[2100, 0], X[1500, 3], X[1500, 2] = np.nan, np.inf, -np.inf
    assert sources.as_source(X).first_nonfinite() == (1500, 2, -np.inf)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.ones(3), ValueError, "Expected 2D array, got 1D array"),
        (np.ones((2, 2, 2)), ValueError, "Expected 2D array, got 3D array"),
        (np.float64(3), ValueError, "got scalar array"),
        (np.ones((0, 3)), ValueError, r"0 sample\(s\)"),
        (np.ones((3, 0)), ValueError, r"0 feature\(s\)"),
        (np.ones((2, 2), complex), ValueError, "Complex data not supported"),
        (np.array([["a", "b"]]), ValueError, "holds strings"),
        (np.array([["1", "b"]], dtype=object), ValueError, "no numbers"),
        (np.array([[1, {}]], dtype=object), TypeError, "no numbers: argument must be a string or a number"),
        (np.array([[1, 1j]], dtype=object), ValueError, "Complex data"),
        ([[1, 2], [3]], ValueError, "ragged rows"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), ValueError, "holds no real numbers"),
        (scipy.sparse.csr_array(np.ones((2, 2), complex)), ValueError, "Complex data"),
        (scipy.sparse.csr_array((0, 3)), ValueError, r"0 sample\(s\)"),
        (Dataset(np.ones(4)), ValueError, "Expected 2D"),
        (Dataset(np.ones((2, 2), complex)), ValueError, "Complex data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(X, error, message):
    with pytest.raises(error, match=message):
        sources.as_source(X, "X")


def test_containers_become_arrays():
    for X in ([[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0)), np.array([[1, 2.5]], dtype=object)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert sources.as_source(X).array.dtype.kind in "fi"
    assert validation.as_matrix(np.ones((2, 2), np.longdouble)).dtype == np.float64
    with pytest.raises(TypeError, match="Y is sparse where a dense array is needed"):
        validation.as_matrix(scipy.sparse.eye_array(3), "Y")
