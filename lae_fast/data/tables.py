"""Tables: which of their columns are taken for features, under which names and dtype, and which are refused.

The same rules for Arrow tables, Parquet and CSV files and frames (docs/storage.md, "Tables").  A leaf: imports errors
of this package and NumPy; pyarrow where somebody has passed a table of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataFileError

_FLOAT = np.dtype(np.float64)

# What to do with a column of each kind that holds no numbers.
_WAYS = {
    "text": "encode it as numbers",
    "categories": "encode them (one column for each), or convert the column to numbers where they are measurements",
    "dates": "turn them into numbers, such as days since a date",
    "times": "turn them into numbers, such as seconds",
    "lists": "make them of one length, which are taken as a matrix",
    "structs": "make a column of each of its fields",
    "bytes": "decode it",
    "complex numbers": "pass real and imaginary parts as two columns",
    "values": "convert it to numbers",
}
# How many columns a message names.
_SHOWN = 5
# What pandas calls an index without a name in a stored table.
_STORED_INDEX = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True)
class TableFile(os.PathLike):
    """A file with columns, and which of them are meant: to be passed as X where a path may be passed.

    Parameters
    ----------
    path : str or os.PathLike, of a CSV or Parquet file
    header : bool or None
        Whether the first line of a CSV file holds the names of the columns; None decides by the rules of
        docs/storage.md, "CSV files".
    index : str, int, a sequence of them, False or None
        Columns (names, or numbers from 0) that name the rows and are no features; False says that there is none; None
        decides by the rules.
    columns : names of the only columns to be taken, in this order; None takes all
    drop : names of columns to leave out
    label : name of a column that labels the rows, and is no feature
    separator : of a CSV file, one character; None decides by its first lines
    decimal : "." or "," in the numbers of a CSV file; None decides by its first lines, and refuses those of which all
        commas may stand between thousands

    Notes
    -----
    A column without a name is named by its number, from 0.
    """

    path: str | os.PathLike[str]
    header: bool | None = None
    index: Any = None
    columns: Sequence[str] | None = None
    drop: Sequence[str] = ()
    label: str | None = None
    separator: str | None = None
    decimal: str | None = None

    def __post_init__(self) -> None:
        for name in ("columns", "drop"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name}={getattr(self, name)!r} must be a sequence of names: write [{name!r}].")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '\r\n"'):
            raise ValueError(f"separator={self.separator!r} must be one character, such as ',' or ';'.")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal={self.decimal!r} must be '.' or ','.")
        if self.decimal is not None and self.decimal == self.separator:
            raise ValueError(f"separator and decimal are both {self.decimal!r}: they must differ.")

    def __fspath__(self) -> str:
        return os.fsdecode(self.path)

    @property
    def chooses(self) -> bool:
        """Whether it says anything but where the file is."""
        return self != TableFile(self.path)


@dataclass(frozen=True)
class Column:
    """A column of a table that is taken: one feature, or `width` of them where all its entries are lists so long.

    place : number of the column in the table
    """

    name: str
    place: int
    dtype: np.dtype
    width: int | None = None

    @property
    def features(self) -> list[str]:
        """Names of its features."""
        return [self.name] if self.width is None else [f"{self.name}[{i}]" for i in range(self.width)]


def feature_names(columns: Iterable[Column]) -> tuple[str, ...]:
    """Names of the features of all columns, in order."""
    return tuple(name for column in columns for name in column.features)


def common_dtype(columns: Iterable[Column]) -> np.dtype:
    """The dtype that holds the numbers of all columns."""
    return np.result_type(*(column.dtype for column in columns))


def check_columns(bad: Sequence[tuple[str, str, str]], where: str, leave_out: str) -> None:
    """Refuse columns that hold no numbers.

    bad : (name, kind of `_WAYS`, what exactly) of each;  leave_out : how columns are left out of `where`
    """
    if not bad:
        return
    listed = "; ".join(f"column {name!r} of {where} holds {kind} ({what})" for name, kind, what in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    ways = "; ".join(dict.fromkeys(_WAYS[kind.removesuffix(" of different lengths")] for _, kind, _ in bad))
    raise ValueError(f"Numbers are needed: {listed}{more}. Leave {_it(bad)} out ({leave_out}), or {ways}.")


def _it(things: Sequence[Any]) -> str:
    return "it" if len(things) == 1 else "them"


def chosen(names: Sequence[str], table: TableFile, stored_index: Iterable[str]) -> tuple[list[int], list[int]]:
    """Places of the columns that may be features, in their order, and of those that are the index.

    stored_index : names of the columns that are the index where `table` does not say

    Raises
    ------
    ValueError
        There is no column of a name, or too many of them.
    """
    place = {name: i for i, name in reversed(list(enumerate(names)))}

    def find(name: Any, option: str) -> int:
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool) and str(name) not in place:
            if not 0 <= name < len(names):
                raise ValueError(f"{option}={name!r}: {table.path} has columns 0 to {len(names) - 1}.")
            return int(name)
        if str(name) not in place:
            shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
            raise ValueError(f"{option}: {table.path} has no column {name!r}; it has {shown}.")
        if list(names).count(str(name)) > 1:
            raise ValueError(f"{option}: {table.path} has more than one column {name!r}; rename one of them.")
        return place[str(name)]

    if table.index is None or table.index is True:
        index = [i for i, name in enumerate(names) if name in set(stored_index)]
    elif table.index is False:
        index = []
    else:
        given = table.index if isinstance(table.index, (list, tuple)) else [table.index]
        index = [find(name, "index") for name in given]
    out = {*index, *(find(name, "drop") for name in table.drop)}
    if table.label is not None:
        out.add(find(table.label, "label"))
    wanted = range(len(names)) if table.columns is None else [find(name, "columns") for name in table.columns]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"columns={list(table.columns)!r} names a column twice.")  # type: ignore[arg-type]
    return [i for i in wanted if i not in out], index


def check_distinct(names: Sequence[str], where: str) -> None:
    """Refuse two columns of one name, which could not be told apart.

    Raises
    ------
    DataFileError
        Names them.
    """
    twice = (
        next((name for name in names if list(names).count(name) > 1), None) if len(set(names)) < len(names) else None
    )
    if twice is not None:
        raise DataFileError(f"{where} has two columns of one name, {twice!r}; rename one of them")


def is_stored_index(name: str) -> bool:
    """Whether pandas names an index without a name so in a stored table."""
    return _STORED_INDEX.fullmatch(name) is not None


def arrow_index(schema: Any) -> set[str]:
    """Names of the columns that hold the index of the frame a table was made of: by its metadata, or by their name."""
    stored = (schema.pandas_metadata or {}).get("index_columns", ())
    return {name for name in stored if isinstance(name, str)} | {name for name in schema.names if is_stored_index(name)}


def arrow_columns(
    schema: Any,
    places: Iterable[int],
    where: str,
    leave_out: str,
    missing: Callable[[int], bool],
    length: Callable[[int], int | None],
) -> list[Column]:
    """The columns at these places of an Arrow schema.

    missing : (place) -> whether some value of that column is missing, or may be: it becomes NaN
    length : (place) -> of the lists in that column, None where they are of different lengths
    """
    columns, bad = [], []
    categories = {told["name"] for told in _told(schema) if told.get("pandas_type") == "categorical"}
    for place in places:
        field = schema.field(place)
        width, kind, dtype = arrow_kind(field.type)
        if field.name in categories:  # Parquet keeps those of numbers as numbers
            kind, dtype = "categories", None
        if width == 0:
            width = length(place)
            kind, dtype = ("lists", dtype) if width else ("lists of different lengths", None)
        if dtype is None:
            bad.append((field.name, kind, str(field.type)))
            continue
        if dtype.kind != "f" and missing(place):
            dtype = _FLOAT
        columns.append(Column(field.name, place, dtype, width))
    check_columns(bad, where, leave_out)
    return columns


def _told(schema: Any) -> list[dict[str, Any]]:
    """What pandas has written about the columns of a frame."""
    return (schema.pandas_metadata or {}).get("columns", [])


def arrow_kind(type_: Any) -> tuple[int | None, str, np.dtype | None]:
    """Length of lists (0 where their type does not say), kind of what is refused, dtype of what is taken."""
    import pyarrow
    from pyarrow import types

    if isinstance(type_, pyarrow.FixedShapeTensorType) and len(type_.shape) == 1:
        type_ = type_.storage_type
    if types.is_fixed_size_list(type_):
        width, _, dtype = arrow_kind(type_.value_type)
        return (type_.list_size, "", dtype) if width is None and dtype is not None else (None, "lists", None)
    if types.is_list(type_) or types.is_large_list(type_):
        width, _, dtype = arrow_kind(type_.value_type)
        return (0, "", dtype) if width is None and dtype is not None else (None, "lists", None)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return None, "", np.dtype(type_.to_pandas_dtype())
    if types.is_decimal(type_) or types.is_null(type_):
        return None, "", _FLOAT
    kinds = (
        ("text", (types.is_string, types.is_large_string, types.is_string_view)),
        ("categories", (types.is_dictionary,)),
        ("dates", (types.is_date, types.is_timestamp)),
        ("times", (types.is_time, types.is_duration, types.is_interval)),
        ("lists", (types.is_list, types.is_large_list, types.is_map)),
        ("structs", (types.is_struct,)),
        ("bytes", (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)),
    )
    return None, next((kind for kind, tests in kinds if any(test(type_) for test in tests)), "values"), None


def arrow_numbers(part: Any, column: Column) -> np.ndarray:
    """An Arrow array as NumPy's (rows,) or (rows, width), missing values as NaN.

    Arrow's own conversion imports pandas where there is one: 30 MB, for numbers that lie there as they are.
    """
    import pyarrow

    if isinstance(part, pyarrow.ExtensionArray):
        part = part.storage
    if column.width is not None:
        for other in set(list_lengths(part)) - {column.width}:
            raise DataFileError(
                f"Column {column.name!r} holds lists of different lengths, {column.width} and {other}: leave it out, "
                f"or {_WAYS['lists']}."
            )
        rows = arrow_numbers(part.flatten(), Column(column.name, column.place, column.dtype))
        rows = rows.reshape(-1, column.width)
        if part.null_count:
            present, given = np.asarray(part.is_valid()), rows
            rows = np.full((len(part), column.width), np.nan)
            rows[present] = given
        return rows
    if part.type == "bool":
        part = part.cast("uint8")  # truth values are packed, and missing ones would come as objects
    elif pyarrow.types.is_decimal(part.type) or pyarrow.types.is_null(part.type):
        part = part.cast("float64")
    dtype = np.dtype(part.type.to_pandas_dtype())
    if part.null_count or not len(part):
        return part.to_numpy(zero_copy_only=False)
    return np.frombuffer(part.buffers()[1], dtype, len(part), part.offset * dtype.itemsize)


def slices(key: Any) -> tuple[slice, slice]:
    """The slices of rows and columns that a key ``[rows]``, ``[rows, columns]`` or ``[...]`` asks for."""
    if key is Ellipsis:
        return slice(None), slice(None)
    return key if isinstance(key, tuple) else (key, slice(None))


def list_lengths(part: Any) -> list[int]:
    """The lengths that lists in an Arrow array have, each once."""
    if not len(part) or part.null_count == len(part):
        return []
    if hasattr(part.type, "list_size"):
        return [part.type.list_size]
    return np.unique(part.value_lengths().drop_null().to_numpy(zero_copy_only=False)).tolist()


class Rows:
    """Base of tables in memory: `shape`, `dtype`, `names`, and slices ``[first:last]`` and ``[:, first:last]``.

    A subclass gives the numbers of a column, `part(column, first, last)`.
    """

    def __init__(self, n_rows: int, columns: Sequence[Column]) -> None:
        self._columns = columns
        self.names = feature_names(columns)
        self.shape = (n_rows, len(self.names))
        self.dtype = common_dtype(columns) if columns else _FLOAT

    def part(self, column: Column, first: int, last: int) -> np.ndarray:
        """Rows first..last of a column: (rows,) or (rows, width)."""
        raise TypeError(f"{type(self).__name__} does not provide columns")

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, wanted = slices(key)
        first, last, _ = rows.indices(self.shape[0])
        begin, end, _ = wanted.indices(self.shape[1])
        out = np.empty((end - begin, last - first), self.dtype)
        place = 0
        for column in self._columns:
            width = column.width or 1
            if place < end and place + width > begin:
                values = self.part(column, first, last).reshape(last - first, width).T
                here = slice(max(begin - place, 0), min(end - place, width))
                start = place + here.start - begin
                out[start : start + here.stop - here.start] = values[here]
            place += width
        return out.T


class ArrowRows(Rows):
    """The number columns of an Arrow table or record batch."""

    def __init__(self, table: Any, name: str) -> None:
        import pyarrow

        if isinstance(table, pyarrow.RecordBatch):
            table = pyarrow.Table.from_batches([table])
        elif not isinstance(table, pyarrow.Table):  # of another library, which hands its columns out as Arrow's
            table = pyarrow.table(table)
        self._table = table
        check_distinct(table.schema.names, name)
        places, _ = chosen(table.schema.names, TableFile(name), arrow_index(table.schema))
        columns = arrow_columns(
            table.schema, places, name, f"{name}.drop_columns([...])",
            missing=lambda place: _lacks(table.column(place)), length=lambda place: _one_length(table.column(place)),
        )  # fmt: skip
        super().__init__(table.num_rows, columns)

    def part(self, column: Column, first: int, last: int) -> np.ndarray:
        chunks = self._table.column(column.place).slice(first, last - first).chunks
        parts = [arrow_numbers(chunk, column) for chunk in chunks]
        if len(parts) == 1:
            return parts[0]
        shape = (0,) if column.width is None else (0, column.width)
        return np.concatenate(parts) if parts else np.empty(shape, column.dtype)


def _lacks(column: Any) -> bool:
    """Whether an Arrow column, or a list in it, has a missing value."""
    if column.null_count:
        return True
    return any(hasattr(chunk, "flatten") and chunk.flatten().null_count > 0 for chunk in column.chunks)


def _one_length(column: Any) -> int | None:
    """The length of all lists in an Arrow column, or None."""
    lengths = {length for chunk in column.chunks for length in list_lengths(chunk)}
    return lengths.pop() if len(lengths) == 1 else None
