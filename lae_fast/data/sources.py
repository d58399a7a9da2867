"""Where rows come from: arrays of any real dtype and stride, sparse matrices, sliceable files, blocks, paths.

`as_source` and `opened` make of anything that a user may pass as X a source, which hands out chunks of lines
(source_base.py) and never copies the whole matrix.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from .. import validation
from . import containers, files, hdf5_zarr, sparse_source, tables
from .dask_rows import DaskSource, is_dask
from .dask_rows import mean as dask_mean
from .opened_file import OpenedFile
from .row_blocks import Blocks, is_blocks
from .source_base import KERNEL_DTYPES, Chunk, Source, as_chunk, compute_dtype, has_unit_stride
from .sparse_source import SparseSource

__all__ = [
    "ArraySource",
    "BlockSource",
    "ColumnsSource",
    "DaskSource",
    "DeviceSource",
    "SlicedSource",
    "Source",
    "SparseSource",
    "StackedSource",
    "as_source",
    "compute_dtype",
    "dask_mean",
    "is_dask",
    "is_on_device",
    "is_path",
    "opened",
    "raise_nonfinite",
]

# Rows read at once on the way to others.
_ROWS_SKIPPED = 256


class ArraySource(Source):
    """A NumPy array or memmap, in any real dtype, order and stride, read-only or not."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array.shape, array.dtype)
        self.array = np.asarray(array)
        self.in_memory = not _is_mapped(array)

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        return self.array[:, first:last].T if by_feature else self.array[first:last]

    def copies_chunks(self, by_feature: bool) -> bool:
        return self.dtype not in KERNEL_DTYPES or not has_unit_stride(self.array)


class DeviceSource(Source):
    """A 2-D array on a CUDA device, of any library that has `__cuda_array_interface__`; used where it lies.

    `block` copies lines to the host: for samples of the data, messages, and backend="cpu".
    """

    on_device = True
    suggests_em = False

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
        if max_memory is None:
            return 0
        if not hasattr(self._dataset, "read_within"):
            return hdf5_zarr.bytes_to_read(self._dataset)
        return self._dataset.read_within(max_memory // 2)


class ColumnsSource(Source):
    """A table in memory, as `tables.TableRows` hands it out: rows are gathered from the columns by chunks.

    A missing value becomes NaN, which is refused where it is met.
    """

    def __init__(self, rows: tables.TableRows, name: str) -> None:
        validation.check_shape(rows.shape, name)
        super().__init__(rows.shape, rows.dtype)
        self._rows = rows

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        return self._rows[:, first:last].T if by_feature else self._rows[first:last]


class StackedSource(Source):
    """[X, Y] side by side, lines of samples; for the cross moments of a regression."""

    def __init__(self, left: Source, right: Source) -> None:
        super().__init__(
            (left.shape[0], left.shape[1] + right.shape[1]), np.result_type(left.compute_dtype, right.compute_dtype)
        )
        self._parts = (left, right)
        self.in_order = left.in_order or right.in_order
        self.by_row_only, self.suggests_em = True, False

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("stacked data has no lines of features")
        out = np.empty((last - first, self.shape[1]), self.compute_dtype)
        split = self._parts[0].shape[1]
        out[:, :split] = self._parts[0].block(first, last, False)
        out[:, split:] = self._parts[1].block(first, last, False)
        return out


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
    def shape(self) -> tuple[int, int]:  # type: ignore[override]  # counts the rows when asked
        self.counting_passes += self.blocks.length is None
        return self.blocks.count(), self.n_features

    @property
    def n_features(self) -> int:
        return self.blocks.n_features

    @property
    def names(self) -> tuple[str, ...] | None:  # type: ignore[override]  # known to the blocks
        return self.blocks.names

    def _reordered(self, places: np.ndarray) -> Source:
        self.blocks.reorder(self._names_at(places))
        return self

    @property
    def rereadable(self) -> bool:  # type: ignore[override]  # known to the blocks
        return self.blocks.rereadable

    @property
    def position(self) -> int:
        return self.blocks.position

    def n_lines(self, by_feature: bool) -> int:
        """Number of lines; inf as long as the rows have not been read to the end."""
        if by_feature:
            return self.n_features
        return math.inf if self.blocks.length is None else self.blocks.length  # type: ignore[return-value]  # no int

    def next_chunk(self, count: int) -> Chunk:
        """The next `count` rows, fewer at the end and none after it."""
        return as_chunk(self.blocks.take(count), self.compute_dtype)

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


def _is_mapped(array: Any) -> bool:
    """Whether the numbers lie in a file that is mapped to memory."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array is not None


def is_on_device(X: Any) -> bool:
    """Whether X is an array on a CUDA device: CuPy's, PyTorch's, Numba's or another library's."""
    if containers.is_tensor(X):  # which has the interface on every device, and raises where it does not apply
        return bool(X.is_cuda)
    return hasattr(X, "__cuda_array_interface__")


def is_path(X: Any) -> bool:
    """Whether X names a file, or a data set of `datasets.NAMES`."""
    return isinstance(X, (str, os.PathLike))


def opened(
    X: Any, name: str = "X", max_memory: int | None = None, names: Sequence[str] | None = None
) -> contextlib.AbstractContextManager[Source]:
    """The source for `X`, where a path is opened for as long as the context lasts; see `files.open_input`.

    Raises
    ------
    TypeError, ValueError
        As `as_source`.
    FileNotFoundError, DataFileError, ModuleNotFoundError
        As `files.open_input`.
    """
    return _opened_path(X, name, max_memory, names) if is_path(X) else contextlib.nullcontext(as_source(X, name))


@contextlib.contextmanager
def _opened_path(X: Any, name: str, max_memory: int | None, names: Sequence[str] | None) -> Iterator[Source]:
    with files.open_input(X if isinstance(X, tables.TableFile) else os.fsdecode(X), max_memory, names) as file:
        yield as_source(file, name)


def as_source(X: Any, name: str = "X") -> Source:
    """The source for `X`: checks kind, dimensions and dtype; never its values.

    X : anything that `PCA.fit` takes except a path, or an `OpenedFile`

    Raises
    ------
    TypeError, ValueError
        Naming `name`: not 2-D, empty, complex, strings, objects that are no numbers.
    """
    if isinstance(X, Source):
        return X
    if type(X) is np.ndarray:
        return ArraySource(validation.as_matrix(X, name))
    X = containers.rows_of_batch(X)
    if is_on_device(X):
        return DeviceSource(X, name)
    if isinstance(X, OpenedFile):
        source = as_source(X.data, name)
        source.file = X
        source.takes_by_name = True
        if X.names is not None:
            source.names = X.names
        return source
    validation.check_open(X, name)
    if containers.is_tensor(X):
        validation.check_tensor(X, name)
    hdf5_zarr.refuse_group(X, name)
    data, labels = containers.unwrapped(X, name)
    source = _array_source(data, name)
    if labels is not None:
        source.names = labels
    return source


def _array_source(X: Any, name: str) -> Source:
    if is_dask(X):
        return DaskSource(X, as_source, name)
    if is_blocks(X):
        return BlockSource(X, name)
    if validation.is_sparse(X):
        validation.check_shape(X.shape, name)
        validation.check_dtype(X.dtype, name)
        return SparseSource(sparse_source.checked(X, name))
    if isinstance(X, tables.TableRows):
        return ColumnsSource(X, name)
    if validation.is_sliceable(X):
        validation.check_shape(X.shape, name)
        validation.check_dtype(X.dtype, name)
        if hasattr(X, "attrs"):
            hdf5_zarr.check_unpacked(X, name)
        return SlicedSource(X)
    return ArraySource(validation.as_matrix(X, name))


def raise_nonfinite(source: Source, chunk: Chunk | None = None, first: int = 0) -> NoReturn:
    """Raise the error for sums that are not finite: it names the first NaN or inf, or says that the sums overflow.

    chunk, first : lines of samples that are known to hold the entry, and the number of their first row
    """
    suggests_em = source.suggests_em
    if chunk is not None:
        strides = (chunk.line_stride * chunk.flat.itemsize, chunk.entry_stride * chunk.flat.itemsize)
        rows = np.lib.stride_tricks.as_strided(chunk.flat, (chunk.count, source.n_features), strides, writeable=False)
        labels, source = source.names, ArraySource(rows)
        source.first_row, source.names = first, labels
    found = source.first_nonfinite()
    if found is not None:
        row, column, value = found
        raise ValueError(validation.nonfinite_message(source.first_row + row, source.label(column), value, suggests_em))
    raise ValueError(
        f"Sums over X overflow {source.compute_dtype}: entries reach further apart than its range; rescale X or "
        "convert it to float64 (no entry is NaN or inf)."
    )
