"""Rows of a Parquet file, decoded as they are asked for: a matrix larger than memory.

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
from .errors import DataFileError, MemoryLimitError

# Bytes decoded at once; and read at once for all columns together.
_BATCH_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 23
# Row groups up to this size are decoded whole where nobody says how much may be held.
_GROUP_BYTES = 1 << 26
# Columns of a row group that are read together: each costs the reader some memory, whatever it holds.
_COLUMNS_AT_ONCE = 64
# Measured with pyarrow 25: bytes for each column that is read batch by batch, and for each one in each row group.
_READER_BYTES, _DESCRIBED_BYTES = 120_000, 1000
# What writers fill a page with, as a rule.
_PAGE_BYTES = 1 << 20


class ParquetRows:
    """A Parquet file of number columns with `shape`, `dtype` and slices ``[first:last]`` and ``[:, first:last]``.

    A row group that may be held is decoded whole, some columns after the other, and kept until another is asked for.
    Where row groups are too large for that, batches of rows are decoded in order; those of the last two requests are
    kept, for threads that ask in turns.  A request that lies further back, or in a later row group, starts at the
    beginning of its row group.  Pages are decoded whole: one of every column is held.

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
        rows = max(np.diff(self._starts), default=0)
        self._group_bytes = self.shape[1] * int(rows) * self.dtype.itemsize
        self._page_bytes = _page_bytes(described)
        self._whole = self._group_bytes <= _GROUP_BYTES
        self._group: tuple[int, np.ndarray] | None = None  # first row, and the rows of a row group (columns, rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        first, last, _ = rows.indices(self.shape[0])
        if columns == slice(None) or last - first < self.shape[0]:
            return self._read_rows(first, last)[:, columns]
        return self._read_columns(*columns.indices(self.shape[1])[:2])

    def read_within(self, limit: int) -> int:
        """Hold at most so many bytes beside the rows that are handed out; how many it will be.

        Raises
        ------
        MemoryLimitError
            Neither a row group nor a page of every column fits; says what is needed.
        """
        d = self.shape[1]
        described = _DESCRIBED_BYTES * d * self.n_groups
        together = self._group_bytes * min(1.0, _COLUMNS_AT_ONCE / max(1, d))
        whole = described + self._group_bytes + 2 * min(_BATCH_BYTES, int(together))
        by_batches = described + _READER_BYTES * d + self._page_bytes + _BUFFER_BYTES + 2 * _BATCH_BYTES
        self._whole = whole <= limit
        if min(whole, by_batches) > limit:
            raise MemoryLimitError(
                f"To read {self._path} takes {min(whole, by_batches) / 1e6:.3g} MB, and half of max_memory is "
                f"{limit / 1e6:.3g} MB: raise max_memory, or write the file in row groups of fewer rows (its largest "
                f"takes {self._group_bytes / 1e6:.3g} MB)."
            )
        return whole if self._whole else by_batches

    def close(self) -> None:
        """Close the file."""
        self._batches, self._kept, self._group = iter(()), deque(), None
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
        return (self._from_groups if self._whole else self._from_batches)(first, last, out).T

    def _from_groups(self, first: int, last: int, out: np.ndarray) -> np.ndarray:
        """Rows first..last into `out` (columns, rows)."""
        position = first
        while position < last:
            start, rows = self._decoded(bisect.bisect_right(self._starts, position) - 1)
            count = min(last, start + rows.shape[1]) - position
            out[:, position - first : position - first + count] = rows[:, position - start : position - start + count]
            position += count
            del rows  # before the next one is decoded
        return out

    def _decoded(self, group: int) -> tuple[int, np.ndarray]:
        """The first row of a row group, and its rows (columns, rows)."""
        start, count = self._starts[group], self._starts[group + 1] - self._starts[group]
        if self._group is not None and self._group[0] == start:
            return self._group
        self._group = None  # the one before goes first
        rows = np.empty((self.shape[1], count), self.dtype)
        each = int(np.clip(_BATCH_BYTES // (count * self.dtype.itemsize), 1, _COLUMNS_AT_ONCE))
        for column in range(0, self.shape[1], each):
            names = self._names[column : column + each]
            position = 0
            try:
                batches = self._file.read_row_group(group, columns=names, use_threads=False).select(names).to_batches()
            except self._errors as error:
                raise self._unreadable(error) from error
            for batch in batches:
                _copy(batch, position, rows[column : column + each])
                position += batch.num_rows
            if position != count:
                raise DataFileError(f"{self._path} is truncated: it ends at row {start + position} of {self.shape[0]}")
        self._group = start, rows
        return self._group

    def _from_batches(self, first: int, last: int, out: np.ndarray) -> np.ndarray:
        """Rows first..last into `out` (columns, rows)."""
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
        return out

    def _read_columns(self, first: int, last: int) -> np.ndarray:
        """Columns first..last of all rows."""
        out = np.empty((last - first, self.shape[0]), self.dtype)
        self._start(0, groups=range(self.n_groups), columns=self._names[first:last])
        while self._position < self.shape[0]:
            batch = self._next()
            _copy(batch.select(self._names[first:last]), self._position, out)
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


def _page_bytes(described: Any) -> int:
    """Bytes of a page of every column, at the most."""
    total = 0
    for column in range(described.num_columns):
        sizes = (described.row_group(group).column(column) for group in range(described.num_row_groups))
        total += min(_PAGE_BYTES, max((chunk.total_uncompressed_size for chunk in sizes), default=0))
    return total


def _copy(batch: Any, start: int, out: np.ndarray) -> None:
    """Into out (columns, rows) what falls into it of a batch whose first row has the place `start` there."""
    skipped, first = max(0, -start), max(0, start)
    count = min(batch.num_rows - skipped, out.shape[1] - first)
    if count <= 0:
        return
    for row, column in zip(out, batch.columns):
        part = column.slice(skipped, count)
        if part.type == "bool":
            part = part.cast("uint8")  # truth values are packed, and missing ones would come as objects
        row[first : first + count] = _numbers(part)


def _numbers(part: Any) -> np.ndarray:
    """An Arrow array as NumPy's, missing values as NaN.

    Arrow's own conversion imports pandas where there is one: 30 MB, for numbers that lie there as they are.
    """
    dtype = np.dtype(part.type.to_pandas_dtype())
    if part.null_count or dtype.kind not in "iuf":
        return part.to_numpy(zero_copy_only=False)
    return np.frombuffer(part.buffers()[1], dtype, len(part), part.offset * dtype.itemsize)
