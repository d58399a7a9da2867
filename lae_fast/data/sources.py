"""Where rows come from: arrays of any real dtype and stride, sparse matrices, sliceable files, blocks, paths.

A source never copies the matrix: it hands out chunks of *lines* (samples, or features when `by_feature`), each as a
flat view of memory with two element strides, one of them 1.  Only a chunk that cannot be seen that way (odd strides, a
dtype without a kernel, sparse rows, a slice of a file) is copied, chunk-sized.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import validation
from . import files, frames, hdf5, names, tables
from .row_blocks import Blocks, is_blocks

# dtypes that the tile kernels read directly; everything else is converted chunk by chunk
_KERNEL_DTYPES = frozenset(np.dtype(name) for name in ("float32", "float64", "uint8", "int8", "int16"))
_SINGLE_DTYPES = frozenset(np.dtype(name) for name in ("float32", "float16", "bool", "int8", "uint8", "int16"))
# a sample for the pilot: 8 MB in float64
_SAMPLE_ENTRIES = 1 << 20
# Rows read at once on the way to others.
_ROWS_SKIPPED = 256


class Chunk(NamedTuple):
    """`count` lines of the matrix: entry j of line r is flat[r * line_stride + j * entry_stride]."""

    flat: np.ndarray
    line_stride: int
    entry_stride: int
    count: int


def compute_dtype(dtype: Any) -> np.dtype:
    """float32 for float32, float16, bool, int8, uint8 and int16; float64 for every other real dtype."""
    return np.dtype(np.float32 if np.dtype(dtype).newbyteorder("=") in _SINGLE_DTYPES else np.float64)


class Source:
    """Base of all sources.

    Attributes
    ----------
    shape : (m, d);  dtype : of the stored entries;  compute_dtype : of the arithmetic (`compute_dtype(dtype)`).
    nnz : stored entries of a sparse matrix, None for any other.
    on_device : the data lie on a CUDA device (`DeviceSource`);  in_memory : in the host's, where reading costs little.
    in_order : chunks are best read one after the other, by one thread ahead of those that compute.
    by_row_only : there are no lines of features;  rereadable : False for rows that come once.
    first_row : number of the first row in messages, where this is a part of something.
    names : of the features, where X has some, or None.
    takes_by_name : names say which column is which, so that their order does not matter: of files and blocks.
    counting_passes : passes that did nothing but count the rows.
    file : the `files.Source` that was opened, or None.
    """

    on_device = in_memory = in_order = by_row_only = False
    rereadable = True
    first_row = counting_passes = 0
    file: files.Source | None = None
    names: tuple[str, ...] | None = None
    takes_by_name = False

    def __init__(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)
        self.compute_dtype = compute_dtype(dtype)
        self.nnz: int | None = None

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        """Lines first..last as a 2-D array (lines, entries); a view where the storage allows one."""
        raise TypeError(f"{type(self).__name__} does not provide blocks")

    def chunk(self, first: int, last: int, by_feature: bool = False) -> Chunk:
        """Lines first..last as the tile kernels want them."""
        return _as_chunk(self.block(first, last, by_feature), self.compute_dtype)

    @property
    def n_features(self) -> int:
        """d, which is known before any row is read."""
        return self.shape[1]

    def label(self, column: int) -> str:
        """A column in messages: its number, and its name where it has one."""
        return names.label(self.names, column)

    def with_names(self, wanted: Sequence[str]) -> Source:
        """A source whose columns are those of the names `wanted`, in that order; it must have names.

        Raises
        ------
        ValueError
            Other names, or another order where `takes_by_name` is False.
        """
        places = names.order(self.names, wanted, may_differ=self.takes_by_name)
        return self if places is None else self._reordered(places)

    def _reordered(self, places: np.ndarray) -> Source:
        return ReorderedSource(self, places)

    def n_lines(self, by_feature: bool) -> int:
        """Number of lines: d when lines are features, else m."""
        return self.shape[1] if by_feature else self.shape[0]

    def copies_chunks(self, by_feature: bool) -> bool:
        """Whether a chunk is a copy, so that the planner counts it."""
        return True

    def read_within(self, max_memory: int | None) -> int:
        """Let what decodes the rows, if anything does, hold at most half of `max_memory`; the bytes it will hold.

        Raises
        ------
        MemoryLimitError
            It cannot; says what is needed.
        """
        return 0


class ArraySource(Source):
    """A NumPy array or memmap, in any real dtype, order and stride, read-only or not."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array.shape, array.dtype)
        self.array = np.asarray(array)
        self.in_memory = not _is_mapped(array)

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        return self.array[:, first:last].T if by_feature else self.array[first:last]

    def copies_chunks(self, by_feature: bool) -> bool:
        return self.dtype not in _KERNEL_DTYPES or not _has_unit_stride(self.array)


class DeviceSource(Source):
    """A 2-D array on a CUDA device, of any library that has `__cuda_array_interface__`; used where it lies.

    `block` copies lines to the host: for samples of the data, messages, and backend="cpu".
    """

    on_device = True

    def __init__(self, X: Any, name: str) -> None:
        from ..backends import device_arrays

        self._given, self._arrays = X, device_arrays()
        self._array = self._arrays.as_device(X)
        validation.check_shape(self._array.shape, name)
        validation.check_dtype(self._array.dtype, name)
        super().__init__(self._array.shape, self._array.dtype)

    def device_block(self, first: int, last: int, by_feature: bool) -> Any:
        """Lines first..last as a 2-D device array, a view."""
        return self._array[:, first:last].T if by_feature else self._array[first:last]

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        return self._arrays.download(self.device_block(first, last, by_feature))

    def returned(self, array: Any) -> Any:
        """A device array in the library that X came in."""
        return self._arrays.as_library(array, self._given)


class SparseSource(Source):
    """A SciPy sparse matrix or array: stored entries by lines, or lines made dense chunk by chunk.

    CSR serves lines of samples and CSC lines of features; the other format is converted once, in memory of the size
    of the stored entries, and so is a copy with unsorted or repeated indices put in order.
    """

    def __init__(self, matrix: Any) -> None:
        super().__init__(matrix.shape, matrix.dtype)
        self._formats = {matrix.format: matrix}
        self._lock = threading.Lock()
        self.nnz = int(matrix.nnz)
        self.features: np.ndarray | None = None  # their numbers in the matrix that these were taken from

    def _lines_in(self, by_feature: bool) -> Any:
        wanted = "csc" if by_feature else "csr"
        with self._lock:
            if wanted not in self._formats:
                self._formats[wanted] = next(iter(self._formats.values())).asformat(wanted)
            return self._formats[wanted]

    def lines(self, first: int, last: int, by_feature: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indptr, indices, data) of lines first..last: views but for a dtype that has no kernel.

        indptr : (last - first + 1,), counted from the beginning of the matrix.
        """
        matrix = self._lines_in(by_feature)
        indptr = matrix.indptr[first : last + 1]
        stored = slice(int(indptr[0]), int(indptr[-1]))
        data = matrix.data[stored]
        if data.dtype == np.bool_:
            data = data.view(np.uint8)
        if data.dtype not in _KERNEL_DTYPES:
            data = data.astype(self.compute_dtype)
        return tuple(read_only(array) for array in (indptr, matrix.indices[stored], data))

    def pairs(self, by_feature: bool = False) -> float:
        """Sum over the lines of the squared number of stored entries."""
        stored = self._formats.get("csc" if by_feature else "csr")
        if stored is not None:
            lengths = np.diff(stored.indptr)
        else:  # counted where they are: the other format would be a copy
            lengths = np.bincount(next(iter(self._formats.values())).indices, minlength=self.n_lines(by_feature))
        return float((lengths.astype(np.float64) ** 2).sum())

    def used_features(self) -> np.ndarray:
        """(k,) int64, ascending: the features with a stored entry."""
        matrix = next(iter(self._formats.values()))
        if matrix.format == "csc":
            return np.flatnonzero(np.diff(matrix.indptr))
        if matrix.indices.min(initial=0) < 0 or matrix.indices.max(initial=0) >= self.n_features:
            return np.arange(self.n_features)  # the first pass says what is wrong
        used = np.zeros(self.n_features, dtype=bool)
        used[matrix.indices] = True
        return np.flatnonzero(used)

    def of_features(self, features: np.ndarray) -> SparseSource:
        """The same rows with these features alone, which must hold all stored entries; the entries are shared.

        features : (k,) int64, ascending
        """
        matrix = next(iter(self._formats.values()))
        if matrix.format == "csc":
            indices, indptr = matrix.indices, matrix.indptr[np.append(features, self.n_features)]
        else:
            place = np.zeros(self.n_features, matrix.indices.dtype)
            place[features] = np.arange(features.size)
            indices, indptr = place[matrix.indices], matrix.indptr
        made = type(matrix)((matrix.data, indices, indptr), shape=(self.shape[0], features.size), copy=False)
        source = SparseSource(made)
        source.compute_dtype, source.first_row, source.features = self.compute_dtype, self.first_row, features
        return source

    def first_nonfinite(self) -> tuple[int, int, float] | None:
        """Row, column and value of the first NaN or Inf in row order, or None: by stored entries."""
        matrix = next(iter(self._formats.values()))
        bad = np.flatnonzero(~np.isfinite(matrix.data))
        if not bad.size:
            return None
        line = np.searchsorted(matrix.indptr, bad, side="right") - 1
        rows, columns = (line, matrix.indices[bad]) if matrix.format == "csr" else (matrix.indices[bad], line)
        first = np.lexsort((columns, rows))[0]
        column = columns[first] if self.features is None else self.features[columns[first]]
        return int(rows[first]), int(column), float(matrix.data[bad[first]])

    def _reordered(self, places: np.ndarray) -> Source:
        source = SparseSource(_checked_sparse(self._lines_in(False)[:, places], "X"))
        source.file, source.names = self.file, tuple(self.names[place] for place in places)
        return source

    def some_values(self) -> np.ndarray:
        """A sample of the stored entries, float64."""
        data = next(iter(self._formats.values())).data
        return np.asarray(data[:: max(1, data.size // _SAMPLE_ENTRIES)], dtype=np.float64)

    def matrix(self, first: int, last: int) -> Any:
        """Rows first..last, a copy, CSR."""
        return self._lines_in(False)[first:last]

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        matrix = self._lines_in(by_feature)
        if by_feature:
            return matrix[:, first:last].T.toarray()
        return matrix[first:last].toarray()


class SlicedSource(Source):
    """An object with shape, dtype and 2-D slicing, such as an HDF5 dataset; reads are serialised by a lock."""

    in_order = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset.shape, dataset.dtype)
        self._dataset = dataset
        self._lock = threading.Lock()

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        with self._lock:
            if by_feature:
                return np.asarray(self._dataset[:, first:last]).T
            return np.asarray(self._dataset[first:last])

    def read_within(self, max_memory: int | None) -> int:
        if max_memory is None or not hasattr(self._dataset, "read_within"):
            return 0
        return self._dataset.read_within(max_memory // 2)


class ColumnsSource(Source):
    """A table in memory, as `tables.Rows` hands it out: rows are gathered from the columns by chunks.

    A missing value becomes NaN, which is refused where it is met.
    """

    def __init__(self, rows: tables.Rows, name: str) -> None:
        validation.check_shape(rows.shape, name)
        super().__init__(rows.shape, rows.dtype)
        self._rows = rows

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        return self._rows[:, first:last].T if by_feature else self._rows[first:last]


class ReorderedSource(Source):
    """The columns of another source in the order `places`; lines of samples."""

    by_row_only = True

    def __init__(self, source: Source, places: np.ndarray) -> None:
        super().__init__(source.shape, source.dtype)
        self._source, self._places = source, places
        self.in_order, self.file = source.in_order, source.file
        self.names = tuple(source.names[place] for place in places)

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("reordered columns have no lines of features")
        return np.asarray(self._source.block(first, last, False))[:, self._places]

    def read_within(self, max_memory: int | None) -> int:
        return self._source.read_within(max_memory)


class StackedSource(Source):
    """[X, Y] side by side, lines of samples; for the cross moments of a regression."""

    def __init__(self, left: Source, right: Source) -> None:
        super().__init__(
            (left.shape[0], left.shape[1] + right.shape[1]), np.result_type(left.compute_dtype, right.compute_dtype)
        )
        self._parts = (left, right)
        self.in_order = left.in_order or right.in_order
        self.by_row_only = True

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("stacked data has no lines of features")
        out = np.empty((last - first, self.shape[1]), self.compute_dtype)
        split = self._parts[0].shape[1]
        out[:, :split] = self._parts[0].block(first, last, False)
        out[:, split:] = self._parts[1].block(first, last, False)
        return out


def _is_mapped(array: Any) -> bool:
    """Whether the numbers lie in a file that is mapped to memory."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array is not None


def is_on_device(X: Any) -> bool:
    """Whether X is an array on a CUDA device: CuPy's, PyTorch's, Numba's or another library's."""
    if frames.is_tensor(X):  # which has the interface on every device, and raises where it does not apply
        return bool(X.is_cuda)
    return hasattr(X, "__cuda_array_interface__")


class BlockSource(Source):
    """Rows that come block by block (row_blocks.py): read in order, from the beginning again where that is possible.

    Attributes
    ----------
    shape : (m, d); where m is not known yet the rows are counted, in a pass of its own
    blocks : the rows;  position : rows read of this pass
    """

    in_order = by_row_only = takes_by_name = True

    def __init__(self, X: Any, name: str) -> None:
        self.blocks = Blocks(X, _as_block, name)
        self.dtype = np.dtype(self.blocks.dtype)
        self.compute_dtype = compute_dtype(self.dtype)
        self.nnz = None

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        self.counting_passes += self.blocks.length is None
        return self.blocks.count(), self.n_features

    @property
    def n_features(self) -> int:
        return self.blocks.n_features

    @property
    def names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return self.blocks.names

    def _reordered(self, places: np.ndarray) -> Source:
        self.blocks.reorder(tuple(self.names[place] for place in places))
        return self

    @property
    def rereadable(self) -> bool:  # type: ignore[override]
        return self.blocks.rereadable

    @property
    def position(self) -> int:
        return self.blocks.position

    def n_lines(self, by_feature: bool) -> int:
        """Number of lines; inf as long as the rows have not been read to the end."""
        if by_feature:
            return self.n_features
        return math.inf if self.blocks.length is None else self.blocks.length  # type: ignore[return-value]

    def next_chunk(self, count: int) -> Chunk:
        """The next `count` rows, fewer at the end and none after it."""
        return _as_chunk(self.blocks.take(count), self.compute_dtype)

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("rows that come block by block have no lines of features")
        if first < self.position:
            self.blocks.rewind()
        while self.position < first:
            self.blocks.take(min(first - self.position, _ROWS_SKIPPED))
        return self.blocks.take(last - first)


def _as_block(X: Any, name: str) -> Source:
    """A block of rows, which is taken by the names of its columns where it has some."""
    source = as_source(X, name)
    source.takes_by_name = True
    return source


def is_path(X: Any) -> bool:
    """Whether X names a file, or a data set of `datasets.NAMES`."""
    return isinstance(X, (str, os.PathLike))


@contextlib.contextmanager
def opened(
    X: Any, name: str = "X", max_memory: int | None = None, names: Sequence[str] | None = None
) -> Iterator[Source]:
    """The source for `X`, where a path is opened for as long as the context lasts; see `files.open_input`.

    Raises
    ------
    TypeError, ValueError
        As `as_source`.
    FileNotFoundError, DataFileError, ModuleNotFoundError
        As `files.open_input`.
    """
    if is_path(X):
        with files.open_input(X if isinstance(X, tables.TableFile) else os.fsdecode(X), max_memory, names) as file:
            yield as_source(file, name)
    else:
        yield as_source(X, name)


def as_source(X: Any, name: str = "X") -> Source:
    """The source for `X`: checks kind, dimensions and dtype; never its values.

    X : anything `PCA.fit` takes but a path, or what `files.open_input` made of one

    Raises
    ------
    TypeError, ValueError
        Naming `name`: not 2-D, empty, complex, strings, objects that are no numbers.
    """
    if isinstance(X, Source):
        return X
    if is_on_device(X):
        return DeviceSource(X, name)
    if isinstance(X, files.Source):
        source = as_source(X.data, name)
        source.file = X if X.path is not None else None
        source.takes_by_name = True
        if X.names is not None:
            source.names = X.names
        return source
    validation.check_open(X, name)
    if frames.is_tensor(X):
        validation.check_tensor(X, name)
    hdf5.refuse_group(X, name)
    data, labels = frames.unwrapped(X, name)
    source = _array_source(data, name)
    if labels is not None:
        source.names = labels
    return source


def _array_source(X: Any, name: str) -> Source:
    if is_blocks(X):
        return BlockSource(X, name)
    if validation.is_sparse(X):
        validation.check_shape(X.shape, name)
        validation.check_dtype(X.dtype, name)
        return SparseSource(_checked_sparse(X, name))
    if isinstance(X, tables.Rows):
        return ColumnsSource(X, name)
    if validation.is_sliceable(X):
        validation.check_shape(X.shape, name)
        validation.check_dtype(X.dtype, name)
        if hasattr(X, "attrs"):
            hdf5.check_unpacked(X, name)
        return SlicedSource(X)
    return ArraySource(validation.as_matrix(X, name))


def _checked_sparse(X: Any, name: str) -> Any:
    """CSR or CSC whose arrays fit together, without duplicates.

    Kernels trust the indices: what a broken matrix would make them read outside its arrays is refused here.
    """
    matrix = X if X.format in {"csr", "csc"} else X.tocsr()
    if not matrix.dtype.isnative:  # SciPy itself cannot do much with it
        native = matrix.data.astype(matrix.dtype.newbyteorder("="))
        matrix = type(matrix)((native, matrix.indices, matrix.indptr), shape=matrix.shape)
    lines, entries = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    indptr, indices = matrix.indptr, matrix.indices
    stored = int(indptr[-1]) if indptr.size == lines + 1 else -1
    fits = (
        0 <= stored <= min(indices.size, matrix.data.size)
        and indptr[0] == 0
        and bool((indptr[1:] >= indptr[:-1]).all())
    )
    if not fits or (stored and not (0 <= indices[:stored].min() and indices[:stored].max() < entries)):
        raise ValueError(
            f"Sparse {name} is broken: its indptr or indices do not fit its shape {matrix.shape}; "
            f"{name}.check_format() says how."
        )
    if matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()  # sum_duplicates works in place, and the caller's matrix is not ours to change
    matrix.sum_duplicates()
    return matrix


def sample_lines(
    source: Source,
    by_feature: bool,
    weights: np.ndarray | None = None,
    n_blocks: int = 16,
    block_lines: int = 16,
    most_bytes: int = 8 * _SAMPLE_ENTRIES,
) -> np.ndarray:
    """Up to n_blocks x block_lines lines spread evenly over the matrix, float64: for pilot shifts and scales.

    Fewer where lines are long, so that the sample stays at 8 MB, or at n_blocks lines; and at `most_bytes`, or two
    lines.

    weights : one per line, or None; lines of weight zero are left out, because nothing they hold may matter.
    """
    n_lines, n_entries = source.n_lines(by_feature), source.n_lines(not by_feature)
    if isinstance(source, BlockSource):
        return _first_lines(source, n_blocks * block_lines, weights)
    n_blocks = int(np.clip(most_bytes // (8 * n_entries), min(2, n_blocks), n_blocks))
    most_entries = min(_SAMPLE_ENTRIES, most_bytes // 8)
    block_lines = int(np.clip(most_entries // (n_blocks * n_entries), 1, block_lines))
    counted = None if weights is None else weights > 0
    if n_lines <= n_blocks * block_lines:
        every = np.asarray(source.block(0, n_lines, by_feature), dtype=np.float64)
        return every if counted is None else every[counted]
    last = n_lines - block_lines
    if counted is None:
        starts = np.linspace(0, last, n_blocks).astype(np.int64)
    else:
        places = np.flatnonzero(counted)
        starts = np.unique(np.minimum(places[np.linspace(0, places.size - 1, n_blocks).astype(np.int64)], last))
    parts = [np.asarray(source.block(int(s), int(s) + block_lines, by_feature), dtype=np.float64) for s in starts]
    if counted is not None:
        parts = [part[counted[s : s + block_lines]] for s, part in zip(starts, parts)]
    return np.concatenate(parts)


def _first_lines(source: BlockSource, count: int, weights: np.ndarray | None) -> np.ndarray:
    """`sample_lines` of rows that are read in order: `count` of the first ones, spread over some 8 MB of them."""
    rows = source.blocks
    rows.start()
    head = rows.peek(int(np.clip(_SAMPLE_ENTRIES // source.n_features, count, 16 * count)))
    usable = np.isfinite(head).all(axis=1)  # a NaN is named where the pass meets it
    if weights is not None:
        if weights.size < len(head):
            raise ValueError(validation.few_weights_message(weights.size))
        usable &= weights[: len(head)] > 0
    head = head[usable] if usable.any() else np.zeros((1, source.n_features))
    return np.asarray(head[:: max(1, -(-len(head) // count))], dtype=np.float64)


def first_nonfinite(source: Source, rows_at_once: int = 1024) -> tuple[int, int, float] | None:
    """Row, column and value of the first NaN or Inf in row order, or None; used for error messages only."""
    if isinstance(source, SparseSource):
        return source.first_nonfinite()
    for start in range(0, source.shape[0], rows_at_once):
        stop = min(source.shape[0], start + rows_at_once)
        block = np.asarray(source.block(start, stop, False), dtype=np.float64)
        bad = np.argwhere(~np.isfinite(block))
        if bad.size:
            row, column = int(bad[0, 0]), int(bad[0, 1])
            return start + row, column, float(block[row, column])
    return None


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written: one kernel signature for arrays whether or not their owner may write them."""
    view = array.view()
    view.flags.writeable = False
    return view


def raise_nonfinite(source: Source, chunk: Chunk | None = None, first: int = 0) -> None:
    """Raise the error that names the first NaN or Inf of the source, or that sums overflow.

    chunk, first : lines of samples that are known to have it, and the number of their first row
    """
    if chunk is not None:
        strides = (chunk.line_stride * chunk.flat.itemsize, chunk.entry_stride * chunk.flat.itemsize)
        rows = np.lib.stride_tricks.as_strided(chunk.flat, (chunk.count, source.n_features), strides, writeable=False)
        labels, source = source.names, ArraySource(rows)
        source.first_row, source.names = first, labels
    found = first_nonfinite(source)
    if found is not None:
        row, column, value = found
        raise ValueError(validation.nonfinite_message(source.first_row + row, source.label(column), value))
    raise ValueError(
        f"Sums over X overflow {source.compute_dtype}: entries reach further apart than its range; rescale X or "
        "convert it to float64 (no entry is NaN or inf)."
    )


def _has_unit_stride(array: np.ndarray) -> bool:
    itemsize = array.itemsize
    rows, columns = array.strides
    positive = rows > 0 and columns > 0 and rows % itemsize == 0 and columns % itemsize == 0
    return bool(array.flags.aligned and array.dtype.isnative and positive and (rows == itemsize or columns == itemsize))


def _as_chunk(block: np.ndarray, dtype: np.dtype) -> Chunk:
    if block.dtype == np.bool_:
        block = block.view(np.uint8)
    if block.dtype not in _KERNEL_DTYPES:
        block = block.astype(dtype)
    if block.size and not _has_unit_stride(block):
        block = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")  # unaligned ones too
    lines, entries = block.shape
    line_stride, entry_stride = (stride // block.itemsize for stride in block.strides)
    if entry_stride != 1 and line_stride != 1:  # a single line or entry, whose stride is arbitrary
        line_stride, entry_stride = (1, entry_stride) if lines == 1 else (line_stride, 1)
    extent = (lines - 1) * line_stride + (entries - 1) * entry_stride + 1 if block.size else 0
    flat = np.lib.stride_tricks.as_strided(block, (extent,), (block.itemsize,), writeable=False)
    return Chunk(flat, line_stride, entry_stride, lines)
