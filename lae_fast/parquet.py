"""Rows of a Parquet file, decoded batch by batch as they are asked for: a matrix larger than memory.

A leaf: imports validation and errors; NumPy, and pyarrow when a file is opened.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from . import validation
from .errors import DataFileError

# Bytes decoded at once; and read at once for all columns together.
_BATCH_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 23


class ParquetRows:
    """A Parquet file of number columns with `shape`, `dtype` and slices ``[first:last]`` and ``[:, first:last]``.

    Rows are decoded in order; those of the last two requests are kept, for threads that ask in turns.  A request that
    lies further back, or in a later row group, starts at the beginning of its row group.  Pages are decoded whole: one
    of every column is held, and no more than a row group.

    Raises
    ------
    DataFileError
        The file cannot be read or decoded.
    ValueError
        A column holds no numbers; names it.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self._path = path
        self._errors = (OSError, ValueError, TypeError, pyarrow.ArrowException)
        try:
            described = pyarrow.parquet.read_metadata(path)
            buffer = max(4096, _BUFFER_BYTES // max(1, described.num_columns))
            # without a buffer whole columns of a row group would be read at once
            self._file = pyarrow.parquet.ParquetFile(path, metadata=described, buffer_size=buffer, pre_buffer=False)
            schema = self._file.schema_arrow
        except self._errors as error:
            raise self._unreadable(error) from error
        self._names = schema.names
        if len(set(self._names)) < len(self._names):
            raise DataFileError(f"{path} has two columns of one name; rename one of them")
        self.dtype = np.result_type(*self._dtypes(schema, described)) if self._names else np.dtype(np.float64)
        self.shape = (described.num_rows, len(self._names))
        self.size = self.shape[0] * self.shape[1]
        self.n_groups = described.num_row_groups
        self._starts = [0, *itertools.accumulate(described.row_group(i).num_rows for i in range(self.n_groups))]
        self._batch = int(np.clip(_BATCH_BYTES // max(1, self.shape[1] * self.dtype.itemsize), 64, 65_536))
        self.chunks = (self._batch, self.shape[1])
        self._batches: Any = iter(())
        self._kept: deque[tuple[int, Any]] = deque()  # first row, batch: without gaps, up to _position
        self._position = self.shape[0]  # of the next batch

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        first, last, _ = rows.indices(self.shape[0])
        if columns == slice(None) or last - first < self.shape[0]:
            return self._read_rows(first, last)[:, columns]
        return self._read_columns(*columns.indices(self.shape[1])[:2])

    def close(self) -> None:
        """Close the file."""
        self._batches, self._kept = iter(()), deque()
        self._file.close()

    def _dtypes(self, schema: Any, described: Any) -> list[np.dtype]:
        """Of the columns; float64 where whole numbers are, or may be, missing: a missing value becomes NaN."""
        dtypes = []
        for j, field in enumerate(schema):
            dtype = np.dtype(field.type.to_pandas_dtype())
            validation.check_dtype(dtype, f"column {field.name!r} of {self._path}")
            dtypes.append(np.dtype(np.float64) if dtype.kind != "f" and _may_lack(described, j) else dtype)
        return dtypes

    def _read_rows(self, first: int, last: int) -> np.ndarray:
        out = np.empty((self.shape[1], last - first), self.dtype)
        group = max(0, bisect.bisect_right(self._starts, first) - 1)
        oldest = self._kept[0][0] if self._kept else self._position
        if first < oldest or self._starts[group] > self._position:
            self._start(self._starts[group], groups=range(group, self.n_groups))
        for start, batch in self._kept:
            _copy(batch, start - first, out)
        while self._position < last:
            start, batch = self._position, self._next()
            _copy(batch, start - first, out)
            self._kept.append((start, batch))
            self._position += batch.num_rows
            while self._kept[0][0] + self._kept[0][1].num_rows <= self._position - 2 * (last - first):
                self._kept.popleft()
        return out.T

    def _read_columns(self, first: int, last: int) -> np.ndarray:
        """Columns first..last of all rows."""
        out = np.empty((last - first, self.shape[0]), self.dtype)
        self._start(0, groups=range(self.n_groups), columns=self._names[first:last])
        while self._position < self.shape[0]:
            batch = self._next()
            _copy(batch, self._position, out)
            self._position += batch.num_rows
        self._batches = iter(())  # at the end: the next request starts anew
        return out.T

    def _start(self, position: int, groups: range, columns: list[str] | None = None) -> None:
        self._kept.clear()
        self._position = position
        try:
            self._batches = self._file.iter_batches(self._batch, row_groups=list(groups), columns=columns)
        except self._errors as error:
            raise self._unreadable(error) from error

    def _next(self) -> Any:
        try:
            batch = next(self._batches, None)
        except self._errors as error:
            raise self._unreadable(error) from error
        if batch is None:
            raise DataFileError(f"{self._path} is truncated: it ends at row {self._position} of {self.shape[0]}")
        return batch

    def _unreadable(self, error: Exception) -> DataFileError:
        return DataFileError(f"{self._path} cannot be read, it may be truncated or no .parquet file: {error}")


def _may_lack(described: Any, column: int) -> bool:
    """Whether some value of a column is missing, or nothing says that none is."""
    for group in range(described.num_row_groups):
        statistics = described.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return True
    return False


def _copy(batch: Any, start: int, out: np.ndarray) -> None:
    """Into out (columns, rows) what falls into it of a batch whose first row has the place `start` there."""
    skipped, first = max(0, -start), max(0, start)
    count = min(batch.num_rows - skipped, out.shape[1] - first)
    if count <= 0:
        return
    for row, column in zip(out, batch.columns):
        part = column.slice(skipped, count)
        if part.null_count and part.type == "bool":
            part = part.cast("uint8")  # missing truth values would come as objects
        row[first : first + count] = part.to_numpy(zero_copy_only=False)
