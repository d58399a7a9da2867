"""Tables: which of their columns are taken for features, under which names and dtype, and which are refused.

The rules are the same for Arrow tables, Parquet and CSV files and frames (docs/storage.md, "Tables").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataFileError

FLOAT = np.dtype(np.float64)

# What a message advises for a column that holds no numbers, by what it holds.
WAYS = {
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
    """A file with columns, and which of them are taken: may be passed as X wherever a path may.

    Parameters
    ----------
    path : str or os.PathLike
        Of a CSV or Parquet file.
    header : bool or None
        Whether the first line of a CSV file holds the names of the columns; None decides by the rules of
        docs/storage.md, "CSV files".
    index : str, int, a sequence of them, False or None
        Columns (names, or numbers from 0) that name the rows and are no features; False says that there is none; None
        decides by the rules.
    columns : sequence of str or int, or None
        The only columns to be taken, in this order; None takes all.
    drop : sequence of str or int
        Columns to leave out.
    label : str or None
        A column that labels the rows, and is no feature.
    separator : str or None
        Of a CSV file, one character; None decides by its first lines.
    decimal : {".", ","} or None
        In the numbers of a CSV file.  None decides by its first lines, and refuses those of which all commas may stand
        between thousands.

    Raises
    ------
    TypeError, ValueError
        `columns` or `drop` is one name; `separator` or `decimal` is none.

    Notes
    -----
    A column without a name is named by its number, from 0.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> cars = [[1, 1.2, 70, 9], [2, 1.5, 110, 14], [3, 2.1, 190, 30]]
    >>> np.savetxt("cars.csv", cars, delimiter=",", header="car,weight,power,price", comments="")
    >>> model = lf.PCA(1).fit(lf.TableFile("cars.csv", index="car", drop=["price"]))
    >>> lf.TableFile("cars.csv").chooses  # no more than the path
    False
    >>> model.feature_names_in_.tolist(), model.n_samples_
    (['weight', 'power'], 3)
    """

    path: str | os.PathLike[str]
    header: bool | None = None
    index: Any = None
    columns: Sequence[str | int] | None = None
    drop: Sequence[str | int] = ()
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
        """Whether it says more than the path."""
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

    bad : (name, kind of `WAYS`, what exactly) of each;  leave_out : how columns are left out of `where`
    """
    if not bad:
        return
    listed = "; ".join(f"column {name!r} of {where} holds {kind} ({what})" for name, kind, what in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    ways = "; ".join(dict.fromkeys(WAYS[kind.removesuffix(" of different lengths")] for _, kind, _ in bad))
    raise ValueError(f"Numbers are needed: {listed}{more}. Leave {_it(bad)} out ({leave_out}), or {ways}.")


def _it(things: Sequence[Any]) -> str:
    return "it" if len(things) == 1 else "them"


def chosen(names: Sequence[str], table: TableFile, stored_index: Iterable[str]) -> tuple[list[int], list[int]]:
    """Places of the columns that may be features, in their order, and of those that are the index.

    stored_index : names of the columns that are the index where `table` does not say

    Raises
    ------
    ValueError
        There is no column of a given name, or more than one.
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
        raise ValueError(f"columns={list(table.columns or ())!r} names a column twice.")
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


def slices(key: Any) -> tuple[slice, slice]:
    """The slices of rows and columns that a key ``[rows]``, ``[rows, columns]`` or ``[...]`` asks for."""
    if key is Ellipsis:
        return slice(None), slice(None)
    return key if isinstance(key, tuple) else (key, slice(None))


class TableRows:
    """Base of tables in memory: `shape`, `dtype`, `names`, and slices ``[first:last]`` and ``[:, first:last]``.

    A subclass gives the numbers of a column, `part(column, first, last)`.
    """

    def __init__(self, n_rows: int, columns: Sequence[Column]) -> None:
        self._columns = columns
        self.names = feature_names(columns)
        self.shape = (n_rows, len(self.names))
        self.dtype = common_dtype(columns) if columns else FLOAT

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
