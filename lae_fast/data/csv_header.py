"""Whether the first line of a CSV file names its columns, and which columns are an index: rules of docs/storage.md."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from .csv_fields import FALSE, MISSING, TRUE, WHOLE, by_column, kind_of, number
from .tables import TableFile, is_stored_index

# First columns that hold the index of a frame: what pandas and R write, and read in again as a column.
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)*|Unnamed: 0_level_0")
_MAYBE_INDEX = re.compile(r"index|rownames|row[._ ]names?|row", re.IGNORECASE)
# Rows that must be there before a column is said to count them.
COUNTED = 10
# How likely it may be that an ordinary first row is taken for names.
_CHANCE = 0.002


def is_asked_for(first: Sequence[str], table: TableFile, wanted: Sequence[str] | None) -> bool:
    """Whether the first line holds a name that `table` asks for, or all names that a model knows."""
    if wanted is not None and set(wanted) <= set(map(str.strip, first)):
        return True
    asked: list[object] = [table.label, *table.drop, *(table.columns or ())]
    asked += table.index if isinstance(table.index, (list, tuple)) else [table.index]
    return any(isinstance(name, str) and number(name) is None and name in map(str.strip, first) for name in asked)


def has_header(first: Sequence[str], rows: Sequence[Sequence[str]], decimal: str) -> tuple[bool, bool]:
    """Whether the first line names the columns, and whether that is a guess, because numbers stand in it."""
    fields = [field.strip() for field in first]
    values = [number(field, decimal) for field in fields]
    places = [j for j, value in enumerate(values) if value is not None and fields[j] not in MISSING]
    words = [j for j, value in enumerate(values) if value is None and fields[j] not in TRUE + FALSE]
    if not rows:
        return bool(words) and not places, False
    columns = by_column(rows, len(first))
    is_number = [kind_of(column, decimal)[0] in ("number", "truth") for column in columns]
    if len(first) == len(rows[0]) - 1:  # R's write.table gives the row names no name
        return True, False
    if not places:
        lacks = [field in MISSING and (field != "" or not words) for field in fields]  # no names above numbers
        if all(lacks) or any(map(all, zip(lacks, is_number))):
            return any(is_number[j] for j in words), False
        return True, False
    are_names, sure = _are_names([fields[j] for j in places], [columns[j] for j in places], decimal)
    named_words = [j for j in words if any(map(str.isalnum, fields[j]))]  # "?" is a missing value, and no name
    if any(is_number[j] for j in named_words):
        return True, not (are_names and named_words == [0] and len(places) == len(first) - 1)
    if fields[0] == "" and any(field.strip() for field in columns[0]):
        return _names_an_index(columns[0], [fields[j] for j in places], are_names, decimal)
    return are_names and sure, are_names


def _names_an_index(column: Sequence[str], names: Sequence[str], are_names: bool, decimal: str) -> tuple[bool, bool]:
    """As `has_header` where the first field is blank: the column below may be an index, or lack its first number."""
    given = _numbers(column, decimal)
    if len(given) < len(column) or (given[0] in (0, 1) and is_counting(given)):  # text, or 0, 1, 2, ... as frames have
        return True, not are_names and any(not WHOLE.fullmatch(name) for name in names)
    tells_apart = len(set(given)) == len(given) and (
        all(WHOLE.fullmatch(field.strip()) for field in column) or (len(given) > 2 and _is_sorted(given))
    )
    if tells_apart and are_names:
        return True, False
    is_index = tells_apart and all(WHOLE.fullmatch(name) for name in names)
    return is_index or are_names, is_index or are_names


def _are_names(first: Sequence[str], columns: Sequence[Sequence[str]], decimal: str) -> tuple[bool, bool]:
    """Whether numbers in a first line may be names of columns (years, wavelengths, 0, 1, 2, ...); and whether they are.

    Where they may be, but too few rows follow to be sure, the line counts as a row, and there is a warning.
    """
    values = _numbers(first, decimal)
    below = [_numbers(column, decimal) for column in columns]
    if len(values) < 2 or any(len(column) < len(fields) for column, fields in zip(below, columns)):
        return False, False
    rows = list(zip(*below))
    whole = all(WHOLE.fullmatch(field) for field in first)
    distinct = len(set(values)) == len(values)
    if whole and len(rows) > 2 and distinct:
        given = [field.strip() for column in columns for field in column]
        if all(WHOLE.fullmatch(field) is None for field in given if field not in MISSING):
            return True, True  # whole numbers above numbers with decimals
    enough = len(values) > 2 or len(rows) > 20
    if whole and enough and values[0] in (0, 1) and is_counting(values) and not any(is_counting(row) for row in rows):
        return True, True
    if len(values) < 3:
        return False, False
    far = len(rows) > 2 and all(_is_far(value, column) for value, column in zip(values, below))
    if not _is_sorted(values):  # numbers of genes, of items
        return whole and distinct and far, len(rows) >= COUNTED
    chance = 2 / math.factorial(min(len(values), 20))
    if chance * (1 - chance) ** len(rows) < _CHANCE and not any(_is_sorted(row) for row in rows):
        return True, True
    return far, True


def _numbers(fields: Sequence[str], decimal: str) -> list[float]:
    """The numbers that fields spell, NaN where one is missing; fields that are none are left out."""
    return [value for field in fields if (value := number(field, decimal)) is not None]


def is_counting(row: Sequence[float]) -> bool:
    """Whether each number is the one before plus one."""
    return all(b - a == 1 for a, b in itertools.pairwise(row))


def _is_sorted(row: Sequence[float]) -> bool:
    """Whether the numbers rise throughout, or fall throughout."""
    return all(a < b for a, b in itertools.pairwise(row)) or all(a > b for a, b in itertools.pairwise(row))


def _is_far(value: float, column: Sequence[float]) -> bool:
    """Whether `value` lies further from the numbers of `column` than they lie from each other."""
    given = [other for other in column if not math.isnan(other)]
    if not given:
        return True
    low, high = min(given), max(given)
    return max(low - value, value - high) > high - low


def column_names(first: Sequence[str], n_fields: int) -> tuple[str, ...]:
    """Names of the columns; one without a name, or with the name of another, is called as pandas calls it."""
    fields = [field.strip() for field in first]
    fields = [""] * (n_fields - len(fields)) + fields if len(fields) == n_fields - 1 else fields
    names = [field or f"Unnamed: {place}" for place, field in enumerate(fields[:n_fields])]
    given, seen = set(names), set()
    for place, name in enumerate(names):  # as pandas does, so that names tell columns apart
        if name in seen:
            names[place] = next(other for k in itertools.count(1) if (other := f"{name}.{k}") not in given)
            given.add(names[place])
        seen.add(name)
    return tuple(names)


def index_places(
    names: Sequence[str], kinds: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str] | None
) -> tuple[int, ...]:
    """Places of the leading columns that hold the index of a frame.  wanted : names of features, which are no index"""
    found = []
    for place, (name, kind) in enumerate(zip(names, kinds)):
        fields = [row[place].strip() for row in rows if place < len(row)]
        tells_rows_apart = kind in ("text", "dates") or (
            all(WHOLE.fullmatch(field) for field in fields) and len(set(fields)) == len(fields)
        )
        tells_rows_apart = tells_rows_apart or wanted is not None
        stored = _INDEX.fullmatch(name) or is_stored_index(name)
        if (wanted is not None and name in wanted) or not (
            stored or (_MAYBE_INDEX.fullmatch(name) and tells_rows_apart)
        ):
            break
        found.append(place)
    return tuple(found) if len(found) < len(names) else ()
