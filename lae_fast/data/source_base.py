"""What all sources of rows share: chunks of lines as the kernels read them, and the base class.

A *line* is a sample, or a feature when `by_feature`.  A chunk of lines is a flat view of memory with two element
strides, one of them 1.  Only what cannot be seen that way (odd strides, a dtype without a kernel) is copied.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import feature_names
from .opened_file import OpenedFile

# dtypes that the tile kernels read directly; everything else is converted chunk by chunk
KERNEL_DTYPES = frozenset(np.dtype(name) for name in ("float32", "float64", "uint8", "int8", "int16"))
# Rows searched at once for NaN and inf.
_ROWS_SEARCHED = 1024
_SINGLE_DTYPES = frozenset(np.dtype(name) for name in ("float32", "float16", "bool", "int8", "uint8", "int16"))


class Chunk(NamedTuple):
    """`count` lines of the matrix: entry j of line r is flat[r * line_stride + j * entry_stride]."""

    flat: np.ndarray
    line_stride: int
    entry_stride: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls


@functools.lru_cache(maxsize=64)
def compute_dtype(dtype: Any) -> np.dtype:
    """float32 for float32, float16, bool, int8, uint8 and int16; float64 for every other real dtype."""
    return np.dtype(np.float32 if np.dtype(dtype).newbyteorder("=") in _SINGLE_DTYPES else np.float64)


class Source:
    """Base of all sources.

    Attributes
    ----------
    shape : (m, d);  dtype : of the stored entries;  compute_dtype : of the arithmetic (`compute_dtype(dtype)`).
    nnz : stored entries of a sparse matrix, None for any other.
    on_device : the data lie on a CUDA device (`DeviceSource`);  on_dask : they are Dask's (`DaskSource`).
    in_memory : in host memory, where reading is cheap.
    in_order : chunks are best read one after the other, by one thread that reads ahead of those that compute.
    by_row_only : there are no lines of features;  rereadable : False for rows that come only once.
    first_row : number of this source's first row in messages; not 0 where it is a part of a larger one.
    names : of the features, or None where X has none.
    takes_by_name : columns are matched by name, so that their order may differ: of files and blocks.
    suggests_em : messages about NaN may point to PCA(missing='em'), which takes rows of this kind.
    counting_passes : passes that did nothing but count the rows.
    file : the `OpenedFile` that the rows are read from, a file or a built-in data set; or None.
    """

    on_device = on_dask = in_memory = in_order = by_row_only = False
    rereadable = True
    first_row = counting_passes = 0
    file: OpenedFile | None = None
    names: tuple[str, ...] | None = None
    takes_by_name = False
    suggests_em = True

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
        return as_chunk(self.block(first, last, by_feature), self.compute_dtype)

    @property
    def n_features(self) -> int:
        """d, which is known before any row is read."""
        return self.shape[1]

    def label(self, column: int) -> str:
        """A column in messages: its number, and its name where it has one."""
        return feature_names.label(self.names, column)

    def with_names(self, wanted: Sequence[str]) -> Source:
        """A source whose columns are those of the names `wanted`, in that order; it must have names.

        Raises
        ------
        ValueError
            Other names, or another order where `takes_by_name` is False.
        """
        places = feature_names.order(self.names or (), wanted, may_differ=self.takes_by_name)
        return self if places is None else self._reordered(places)

    def _reordered(self, places: np.ndarray) -> Source:
        return ReorderedSource(self, places)

    def _names_at(self, places: np.ndarray) -> tuple[str, ...]:
        return tuple((self.names or ())[place] for place in places)

    def n_lines(self, by_feature: bool) -> int:
        """Number of lines: d when lines are features, else m."""
        return self.shape[1] if by_feature else self.shape[0]

    def copies_chunks(self, by_feature: bool) -> bool:
        """Whether a chunk is a copy, so that the planner counts it."""
        return True

    def read_within(self, max_memory: int | None) -> int:
        """Let a reader that decodes the rows hold at most half of `max_memory`; returns the bytes it will hold.

        Raises
        ------
        MemoryLimitError
            Half of it is too little; the message says what is needed.
        """
        return 0

    def first_nonfinite(self) -> tuple[int, int, float] | None:
        """Row, column and value of the first NaN or inf in row order, or None; used for error messages only."""
        for first in range(0, self.shape[0], _ROWS_SEARCHED):
            block = np.asarray(self.block(first, min(self.shape[0], first + _ROWS_SEARCHED), False), dtype=np.float64)
            bad = np.argwhere(~np.isfinite(block))
            if bad.size:
                row, column = int(bad[0, 0]), int(bad[0, 1])
                return first + row, column, float(block[row, column])
        return None


class ReorderedSource(Source):
    """The columns of another source in the order `places`; has lines of samples only."""

    by_row_only = True

    def __init__(self, source: Source, places: np.ndarray) -> None:
        super().__init__(source.shape, source.dtype)
        self._source, self._places = source, places
        self.in_order, self.file = source.in_order, source.file
        self.names = source._names_at(places)

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        if by_feature:
            raise TypeError("reordered columns have no lines of features")
        return np.asarray(self._source.block(first, last, False))[:, self._places]

    def read_within(self, max_memory: int | None) -> int:
        return self._source.read_within(max_memory)


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written: one kernel signature for arrays whether or not their owner may write them."""
    view = array.view()
    view.flags.writeable = False
    return view


def has_unit_stride(array: np.ndarray) -> bool:
    itemsize = array.itemsize
    rows, columns = array.strides
    positive = rows > 0 and columns > 0 and rows % itemsize == 0 and columns % itemsize == 0
    return bool(array.flags.aligned and array.dtype.isnative and positive and (rows == itemsize or columns == itemsize))


def as_chunk(block: np.ndarray, dtype: np.dtype) -> Chunk:
    if block.dtype == np.bool_:
        block = block.view(np.uint8)
    if block.dtype not in KERNEL_DTYPES:
        block = block.astype(dtype)
    if block.size and not has_unit_stride(block):
        block = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")  # unaligned ones too
    lines = block.shape[0]
    line_stride, entry_stride = (stride // block.itemsize for stride in block.strides)
    if entry_stride != 1 and line_stride != 1:  # a single line or entry, whose stride is arbitrary
        line_stride, entry_stride = (1, entry_stride) if lines == 1 else (line_stride, 1)
    return Chunk(_flat(block, line_stride, entry_stride), line_stride, entry_stride, lines)


def _flat(block: np.ndarray, line_stride: int, entry_stride: int) -> np.ndarray:
    """The memory from the first entry of a block to its last one, read-only: one kernel signature for all owners."""
    if block.flags.c_contiguous or block.flags.f_contiguous:
        flat = block.ravel(order="K")
        flat.flags.writeable = False
        return flat
    lines, entries = block.shape
    extent = (lines - 1) * line_stride + (entries - 1) * entry_stride + 1 if block.size else 0
    return np.lib.stride_tricks.as_strided(block, (extent,), (block.itemsize,), writeable=False)
