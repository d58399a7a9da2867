"""Rows of a Parquet file, decoded as they are asked for: a matrix larger than memory.

pyarrow is imported when a file is opened.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFileError, MemoryLimitError
from ..sizes import format_bytes
from . import arrow
from .tables import Column, TableFile, check_distinct, chosen, common_dtype, feature_names, slices

# Bytes decoded at once; and read at once for all columns together.
_BATCH_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 23
# Row groups up to this size are decoded whole where there is no memory limit.
_GROUP_BYTES = 1 << 26
# Columns of a row group that are read together: each costs the reader some memory, however small it is.
_COLUMNS_AT_ONCE = 64
# Measured with pyarrow 25: bytes for each column that is read batch by batch, and for each one in each row group.
_READER_BYTES, _DESCRIBED_BYTES = 120_000, 1000
# Lists that are looked at for their length, at a time.
_LISTS_TRIED = 64
# How columns are left out, for messages.
LEAVE_OUT = "--drop NAME, or drop=[...] of lae_fast.TableFile"
# What writers fill a page with, as a rule.
_PAGE_BYTES = 1 << 20


class ParquetRows:
    """A Parquet file of number columns: `shape`, `dtype`, `names`, and slices ``[first:last]``, ``[:, first:last]``.

    Parameters
    ----------
    table : which columns are taken; None takes all but the index that pandas has stored
    wanted : names of features, which are no index

    Attributes
    ----------
    index, left_out : names of the columns that are no features
    n_groups : number of row groups

    Notes
    -----
    A row group that fits the limit is decoded whole, a few columns at a time, and kept until another one is read.
    Where row groups are too large for that, batches of rows are decoded in order, and those of the last two requests
    are kept, because threads take turns.  A request for earlier rows, or for rows of a later row group, starts decoding
    at the beginning of their row group.  Pages are decoded whole, so one page of every column is held.

    Raises
    ------
    DataFileError
        The file cannot be read or decoded.
    ValueError
        A column holds no numbers; names it.
    """

    def __init__(self, path: Path, table: TableFile | None = None, wanted: Sequence[str] | None = None) -> None:
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
            stored = arrow.stored_index(schema) - set(wanted or ())
        except self._errors as error:
            raise self._unreadable(error) from error
        check_distinct(schema.names, str(path))
        places, index = chosen(schema.names, table or TableFile(path), stored)
        leaves = [0, *itertools.accumulate(_leaves(field.type) for field in schema)]
        self._columns = arrow.number_columns(
            schema, places, str(path), LEAVE_OUT,
            missing=lambda place: any(_may_lack(described, leaf) for leaf in range(*leaves[place : place + 2])),
            length=lambda place: self._list_length(schema.names[place]),
        )  # fmt: skip
        self.index = [schema.names[place] for place in index]
        self.left_out = [name for place, name in enumerate(schema.names) if place not in {*places, *index}]
        self.names = feature_names(self._columns)
        self._ends = list(itertools.accumulate(column.width or 1 for column in self._columns))
        self.dtype = common_dtype(self._columns) if self._columns else np.dtype(np.float64)
        self.shape = (described.num_rows, len(self.names))
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
        taken = [leaf for column in self._columns for leaf in range(*leaves[column.place : column.place + 2])]
        self._page_bytes = _page_bytes(described, taken)
        self._whole = self._group_bytes <= _GROUP_BYTES
        self._group: tuple[int, np.ndarray] | None = None  # first row, and the rows of a row group (columns, rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = slices(key)
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
                f"To read {self._path} takes {format_bytes(min(whole, by_batches), at_least=True)}, and half of "
                f"max_memory is {format_bytes(limit)}: raise max_memory, or write the file in row groups of fewer rows "
                f"(its largest takes {format_bytes(self._group_bytes)})."
            )
        return whole if self._whole else by_batches

    @property
    def described(self) -> str:
        """What was taken for what, for people."""
        parts = [f"index column: {', '.join(map(repr, self.index))}"] * bool(self.index)
        parts += [f"left out: {', '.join(map(repr, self.left_out))}"] * bool(self.left_out)
        return ", ".join([*parts, f"{self.n_groups} row groups, read batch by batch"])

    def close(self) -> None:
        """Close the file."""
        self._batches, self._kept, self._group = iter(()), deque(), None
        self._file.close()

    def _list_length(self, name: str) -> int | None:
        """Length of the first lists in a column, or None where they differ; decoding checks the other lists."""
        try:
            for batch in self._file.iter_batches(_LISTS_TRIED, columns=[name]):
                lengths = arrow.list_lengths(batch.column(batch.schema.names.index(name)))
                if lengths:
                    return lengths[0] if len(lengths) == 1 else None
        except self._errors as error:
            raise self._unreadable(error) from error
        return None

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
        self._group = None  # let go of the last one before the next takes memory
        rows = np.empty((self.shape[1], count), self.dtype)
        each = int(np.clip(_BATCH_BYTES // (count * self.dtype.itemsize), 1, _COLUMNS_AT_ONCE))
        for columns, features in self._together(each):
            names = [column.name for column in columns]
            position = 0
            try:
                batches = self._file.read_row_group(group, columns=names, use_threads=False).select(names).to_batches()
            except self._errors as error:
                raise self._unreadable(error) from error
            for batch in batches:
                _copy(batch, columns, position, rows[features])
                position += batch.num_rows
            if position != count:
                raise DataFileError(f"{self._path} is truncated: it ends at row {start + position} of {self.shape[0]}")
        self._group = start, rows
        return self._group

    def _together(self, each: int) -> Iterator[tuple[list[Column], slice]]:
        """The columns, some at a time: about `each` features, and which of them."""
        start = 0
        while start < len(self._columns):
            begin = self._ends[start - 1] if start else 0
            stop = max(start + 1, bisect.bisect_right(self._ends, begin + each))
            yield self._columns[start:stop], slice(begin, self._ends[stop - 1])
            start = stop

    def _from_batches(self, first: int, last: int, out: np.ndarray) -> np.ndarray:
        """Rows first..last into `out` (columns, rows)."""
        group = max(0, bisect.bisect_right(self._starts, first) - 1)
        oldest = self._kept[0][0] if self._kept else self._position
        if first < oldest or self._starts[group] > self._position:
            self._start(self._starts[group], range(group, self.n_groups), self._columns)
        for start, batch in self._kept:
            _copy(batch, self._columns, start - first, out)
        while self._position < last:
            start, batch = self._position, self._next()
            _copy(batch, self._columns, start - first, out)
            self._kept.append((start, batch))
            self._position += batch.num_rows
            while self._kept[0][0] + self._kept[0][1].num_rows <= self._position - 2 * (last - first):
                self._kept.popleft()
        return out

    def _read_columns(self, first: int, last: int) -> np.ndarray:
        """Columns first..last of all rows."""
        begin, end = bisect.bisect_right(self._ends, first), bisect.bisect_left(self._ends, last) + 1
        columns, before = self._columns[begin:end], self._ends[begin - 1] if begin else 0
        out = np.empty((sum(column.width or 1 for column in columns), self.shape[0]), self.dtype)
        self._start(0, range(self.n_groups), columns)
        while self._position < self.shape[0]:
            batch = self._next()
            _copy(batch, columns, self._position, out)
            self._position += batch.num_rows
        self._batches = iter(())  # at the end: the next request starts anew
        return out[first - before : last - before].T

    def _start(self, position: int, groups: range, columns: list[Column]) -> None:
        self._kept.clear()
        self._position = position
        names = [column.name for column in columns]
        try:
            batches = self._file.iter_batches(self._batch, row_groups=list(groups), columns=names)
            self._batches = (batch.select(names) for batch in batches)  # a name may begin as another one does
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
    """Whether the statistics of a column count missing values, or are not there to say that none is."""
    for group in range(described.num_row_groups):
        statistics = described.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count:
            return True
    return False


def _page_bytes(described: Any, taken: Iterable[int]) -> int:
    """Bytes of a page of every column that is taken, at the most."""
    total = 0
    for column in taken:
        sizes = (described.row_group(group).column(column) for group in range(described.num_row_groups))
        total += min(_PAGE_BYTES, max((chunk.total_uncompressed_size for chunk in sizes), default=0))
    return total


def _leaves(type_: Any) -> int:
    """Columns of the file that hold a column of this Arrow type: one for each plain value in it."""
    if hasattr(type_, "storage_type"):
        type_ = type_.storage_type
    if hasattr(type_, "index_type"):  # a dictionary, stored as its values
        return 1
    return sum(_leaves(type_.field(i).type) for i in range(type_.num_fields)) if type_.num_fields else 1


def _copy(batch: Any, columns: list[Column], start: int, out: np.ndarray) -> None:
    """Copy a batch of rows into out (features, rows), its first row to the place `start`; drop rows outside."""
    skipped, first = max(0, -start), max(0, start)
    count = min(batch.num_rows - skipped, out.shape[1] - first)
    if count <= 0:
        return
    place = 0
    for column, part in zip(columns, batch.columns):
        width = column.width or 1
        numbers = arrow.numbers(part.slice(skipped, count), column)
        out[place : place + width, first : first + count] = numbers.reshape(count, width).T
        place += width
