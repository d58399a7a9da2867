"""How a CSV file is laid out: separator, decimal mark, header, index columns; decided by rules from its first lines.

The rules are stated in docs/storage.md, "CSV files".  A leaf: imports tables and errors; the standard library's csv.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from .tables import TableFile, is_stored_index

# Bytes and rows that are looked at.
HEAD_BYTES = 1 << 20
_ROWS = 1000
# Lines that are wanted in any case, unless they are longer than this together.
_LINES, _MOST_BYTES = 8, 1 << 27
_SEPARATORS = (",", ";", "\t", "|", " ")

# Fields that stand for a missing value: those of pandas.
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")

_WHOLE = re.compile(r"[+-]?\d+")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}")
# First columns that hold the index of a frame: what pandas and R write, and read in again as a column.
_INDEX = re.compile(r"|Unnamed: 0(\.\d+)*|Unnamed: 0_level_0")
_MAYBE_INDEX = re.compile(r"index|rownames|row[._ ]names?|row", re.IGNORECASE)
# How files begin that are no text.
_COMPRESSED = "compressed ({}): decompress it first"
_ARCHIVES = {
    b"\x1f\x8b": _COMPRESSED.format("gzip"), b"BZh": _COMPRESSED.format("bzip2"),
    b"\xfd7zXZ\0": _COMPRESSED.format("xz"), b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd"),
    b"PK\x03\x04": "a zip archive, or a workbook of Excel: take the table out of it, or save it as CSV",
}  # fmt: skip
# Rows that must be there before a column is said to count them.
_COUNTED = 10
# How likely an ordinary first row may be taken for names.
_CHANCE = 0.002


@dataclass(frozen=True)
class Layout:
    """What the first lines of a file say.

    first : fields of the first line;  names : of all columns, None where there is no header;  n_fields : in a row
    kinds : of each column: "number", "truth", "text", "dates" or "blank", as far as it was read
    examples : of each column of text, its first text and the row
    index : places of columns that hold the index, where nobody says which
    start : of the first row, in bytes
    guessed : whether the first line holds numbers that may be names, or names that may be a row
    one_column : whether commas were taken for the decimal marks of a single column
    trailing : whether rows end in a separator, behind which is nothing
    counting : whether the first column does nothing but count the rows
    """

    separator: str
    decimal: str
    first: tuple[str, ...]
    names: tuple[str, ...] | None
    n_fields: int
    kinds: tuple[str, ...]
    examples: tuple[tuple[str, int] | None, ...]
    index: tuple[int, ...]
    start: int
    guessed: bool
    one_column: bool
    trailing: bool
    counting: bool


def number(field: str, decimal: str = ".") -> float | None:
    """The number that a field spells, or None; NaN where it stands for a missing value."""
    field = field.strip()
    if field in MISSING:
        return math.nan
    if decimal == ",":
        if "." in field:
            return None
        field = field.replace(",", ".")
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def read_layout(path: Path, table: TableFile, wanted: Sequence[str] | None = None) -> Layout:
    """Look at the first lines.  wanted : names of the features, where they are known

    Raises
    ------
    DataFileError
        The file is empty, or holds no text.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        while head.count(b"\n") < _LINES and len(head) < _MOST_BYTES and (more := file.read(HEAD_BYTES)):
            head += more  # lines are long
        whole = not file.read(1)
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            raise DataFileError(f"{path} is no text but {what}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DataFileError(f"{path} is not a table of numbers: it is no text in UTF-8 (save it as CSV, UTF-8)")
    lines = head[start:].splitlines(keepends=True)
    if len(lines) > 1 and not whole:
        lines.pop()  # it is cut
    skipped, separator = _skip(lines, table.separator)
    start += sum(map(len, lines[:skipped]))
    lines = lines[skipped:]
    if not lines:
        raise DataFileError(f"{path} is empty")
    text = [re.sub(r"^#+\s*", "", _decoded(lines[0])), *map(_decoded, lines[1:])]
    text = [line if line.strip(" \r\n") else "\n" for line in text]
    commas = separator is None and _is_one_column_of_commas(text, table.decimal)
    if separator is None:
        separator = ";" if commas else _find_separator(text)
    reader = csv.reader(text, delimiter=separator)
    first = _next_row(reader, path)
    header_lines = reader.line_num
    rows = [first]
    while len(rows) <= _ROWS and (row := _next_row(reader, path)):
        rows.append(row)
    decimal = table.decimal or ("," if commas else _find_decimal(separator, rows, path))
    header, guessed = table.header, False
    if header is None:
        header, guessed = (
            (True, False) if _is_asked_for(first, table, wanted) else _has_header(first, rows[1:], decimal)
        )
    if table.separator is None:
        _check_spaces(path, separator, rows)
    below = rows[1:] if header else rows
    n_fields = len(below[0]) if below else len(first)
    if header and len(first) not in (n_fields, n_fields - 1):
        raise DataFileError(
            f"{path} is not a table of numbers: the first line names {len(first)} columns, and the row below has "
            f"{n_fields} fields (rows count from 0, after the header)"
        )
    kinds, examples = zip(*(_kind(column, decimal) for column in _columns(below, n_fields)))
    trailing = n_fields > 1 and not any(field.strip() for row in below for field in row[n_fields - 1 :])
    trailing = trailing and (not header or "".join(first[n_fields - 1 :]).strip() == "")
    if trailing and len(first) == n_fields - 1:
        first = [*first, ""]
    counted = [number(row[0]) for row in below]
    counting = len(below) >= _COUNTED and counted[0] in (0, 1) and None not in counted and _counts(counted)
    names = _names(first, n_fields) if header else None
    index = _index(names, kinds, below, wanted) if names is not None else ()
    if header:
        start += sum(map(len, lines[:header_lines]))
    return Layout(
        separator, decimal, tuple(first), names, n_fields, kinds, examples, index, start, guessed, commas, trailing,
        counting,
    )  # fmt: skip


def _skip(lines: Sequence[bytes], separator: str | None) -> tuple[int, str | None]:
    """Lines before the table: blank ones, comments but for one that names the columns, and Excel's ``sep=;``."""
    skipped = 0
    for line in lines:
        told = re.fullmatch(rb"sep=(.)\s*", line)
        if told is not None and separator is None:
            separator = told[1].decode("latin-1")
        following = lines[skipped + 1] if skipped + 1 < len(lines) else b""
        if told is None and line.strip() and (not line.startswith(b"#") or not following.startswith(b"#")):
            break
        skipped += 1
    if skipped < len(lines) and lines[skipped].startswith(b"#") and skipped + 1 < len(lines):
        marks = separator or "".join(_SEPARATORS[:4])
        counts = [sum(line.count(mark.encode()) for mark in marks) for line in lines[skipped : skipped + 2]]
        if counts[0] != counts[1]:  # words, no names
            skipped += 1
    return skipped, separator


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _next_row(reader: Any, path: Path) -> list[str]:
    """The next row that is not blank; empty at the end."""
    try:
        return next((row for row in reader if row), [])
    except csv.Error as error:
        raise DataFileError(f"{path} is not a table of numbers: line {reader.line_num}: {error}") from error


def _find_separator(lines: Sequence[str]) -> str:
    """The one that cuts the first lines into equally many fields, most of them numbers."""
    best, found = (-1.0, False, 0), ","
    for separator in _SEPARATORS:
        try:
            rows = [row for row in csv.reader(lines[:50], delimiter=separator) if row]
        except csv.Error:
            continue
        widths = {len(row) for row in rows[1:] or rows}
        if len(widths) != 1 or widths == {1} or len(rows[0]) not in (max(widths), max(widths) - 1):
            continue
        fields = [field for row in rows[1:] or rows for field in row]
        decimals = "." if separator == "," else ".,"
        numbers = sum(any(number(field, decimal) is not None for decimal in decimals) for field in fields)
        score = (numbers / len(fields), len(rows[0]) in widths, -_SEPARATORS.index(separator))
        if score > best:
            best, found = score, separator
    return found


def _is_one_column_of_commas(lines: Sequence[str], decimal: str | None) -> bool:
    """Whether a comma in each line is the decimal mark of the only column, and separates no index from it."""
    below = [line.strip() for line in lines[1 : _ROWS + 1] if line.strip()]
    name = lines[0].strip()
    if decimal == "." or not below or ("," in name and not _DECIMAL_COMMA.fullmatch(name)):
        return False
    if not all(_DECIMAL_COMMA.fullmatch(line) or _WHOLE.fullmatch(line) for line in below):
        return False
    return decimal == "," or ("," not in name and number(name) is None)


def _check_spaces(path: Path, separator: str, rows: Sequence[Sequence[str]]) -> None:
    """Refuse columns that are aligned by several spaces, of which one would separate."""
    if separator == " ":
        aligned = any(not any(map(str.strip, column)) for column in _columns(rows, len(rows[-1]))[1:-1])
    else:
        aligned = all(len(row) == 1 and re.search(r"\S {2,}\S", row[0].strip()) for row in rows[1:] or rows)
    if aligned:
        raise DataFileError(
            f"{path} is not a table of numbers: several spaces separate its columns; write it with one separator "
            "between fields (a comma, a tab or one space)"
        )


def _find_decimal(separator: str, rows: Sequence[Sequence[str]], path: Path) -> str:
    if separator == ",":
        return "."
    fields = [field.strip() for row in rows for field in row]
    commas = [field for field in fields if _DECIMAL_COMMA.fullmatch(field)]
    if not commas or any("." in field and number(field) is not None for field in fields):
        return "."
    if all(_THOUSANDS.fullmatch(field) for field in commas):
        raise DataFileError(
            f"{path} has numbers such as {commas[0]}, which is {commas[0].replace(',', '.')} with a decimal comma, and "
            f"{commas[0].replace(',', '')} with a comma between thousands: for the first say --decimal-comma, or "
            "decimal=',' of lae_fast.TableFile; for the second write the file without commas in numbers"
        )
    return ","


def _columns(rows: Sequence[Sequence[str]], n_fields: int) -> list[list[str]]:
    return [[row[j] if j < len(row) else "" for row in rows] for j in range(n_fields)]


def _kind(column: Sequence[str], decimal: str) -> tuple[str, tuple[str, int] | None]:
    """What a column holds, and its first field that is no number."""
    fields = [field.strip() for field in column]
    given = [field for field in fields if field not in MISSING]
    if not given:
        return "blank", None
    if all(field in TRUE + FALSE for field in given):
        return "truth", None
    for row, field in enumerate(fields):
        if number(field, decimal) is None:
            return "dates" if _DATE.fullmatch(field) else "text", (field, row)
    return "number", None


def _is_asked_for(first: Sequence[str], table: TableFile, wanted: Sequence[str] | None) -> bool:
    """Whether a name that somebody asks for, or all that a model knows, stand in the first line."""
    if wanted is not None and set(wanted) <= set(map(str.strip, first)):
        return True
    asked = [table.label, *table.drop, *(table.columns or ())]
    asked += table.index if isinstance(table.index, (list, tuple)) else [table.index]
    return any(isinstance(name, str) and number(name) is None and name in map(str.strip, first) for name in asked)


def _has_header(first: Sequence[str], rows: Sequence[Sequence[str]], decimal: str) -> tuple[bool, bool]:
    """Whether the first line names the columns, and whether that is a guess, because numbers stand in it."""
    fields = [field.strip() for field in first]
    values = [number(field, decimal) for field in fields]
    places = [j for j, value in enumerate(values) if value is not None and fields[j] not in MISSING]
    words = [j for j, value in enumerate(values) if value is None and fields[j] not in TRUE + FALSE]
    if not rows:
        return bool(words) and not places, False
    columns = _columns(rows, len(first))
    is_number = [_kind(column, decimal)[0] in ("number", "truth") for column in columns]
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
    """The same where the first field is blank: the column below may be an index, or lack its first number."""
    given = [number(field, decimal) for field in column]
    if None in given or (given[0] in (0, 1) and _counts(given)):  # text, or 0, 1, 2, ...: what frames are written with
        return True, not are_names and any(not _WHOLE.fullmatch(name) for name in names)
    tells_apart = len(set(given)) == len(given) and (
        all(_WHOLE.fullmatch(field.strip()) for field in column) or (len(given) > 2 and _is_sorted(given))
    )
    if tells_apart and are_names:
        return True, False
    is_index = tells_apart and all(_WHOLE.fullmatch(name) for name in names)
    return is_index or are_names, is_index or are_names


def _are_names(first: Sequence[str], columns: Sequence[Sequence[str]], decimal: str) -> tuple[bool, bool]:
    """Whether numbers in a first line may be names of columns: years, wavelengths, 0, 1, 2, ...; and whether they are.

    Where they only may be, because few rows tell, they are a row, with a warning.
    """
    values = [number(field, decimal) for field in first]
    below = [[number(field, decimal) for field in column] for column in columns]
    if len(values) < 2 or any(value is None for column in below for value in column):
        return False, False
    rows = list(zip(*below))
    whole = all(_WHOLE.fullmatch(field) for field in first)
    distinct = len(set(values)) == len(values)
    if whole and len(rows) > 2 and distinct:
        given = [field.strip() for column in columns for field in column]
        if all(_WHOLE.fullmatch(field) is None for field in given if field not in MISSING):
            return True, True  # whole numbers above numbers with decimals
    enough = len(values) > 2 or len(rows) > 20
    if whole and enough and values[0] in (0, 1) and _counts(values) and not any(_counts(row) for row in rows):
        return True, True
    if len(values) < 3:
        return False, False
    far = len(rows) > 2 and all(_is_far(value, column) for value, column in zip(values, below))
    if not _is_sorted(values):  # numbers of genes, of items
        return whole and distinct and far, len(rows) >= _COUNTED
    chance = 2 / math.factorial(min(len(values), 20))
    if chance * (1 - chance) ** len(rows) < _CHANCE and not any(_is_sorted(row) for row in rows):
        return True, True
    return far, True


def _counts(row: Sequence[float]) -> bool:
    return all(b - a == 1 for a, b in itertools.pairwise(row))


def _is_sorted(row: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(row)) or all(a > b for a, b in itertools.pairwise(row))


def _is_far(value: float, column: Sequence[float]) -> bool:
    """Whether it lies further from the others than they are from each other."""
    given = [other for other in column if not math.isnan(other)]
    if not given:
        return True
    low, high = min(given), max(given)
    return max(low - value, value - high) > high - low


def _names(first: Sequence[str], n_fields: int) -> tuple[str, ...]:
    """Names of the columns; what has none, or the one of another, is called as pandas calls it."""
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


def _index(
    names: Sequence[str], kinds: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str] | None
) -> tuple[int, ...]:
    """Leading columns that hold the index of a frame; none that is a feature by name, where those are known."""
    found = []
    for place, (name, kind) in enumerate(zip(names, kinds)):
        fields = [row[place].strip() for row in rows if place < len(row)]
        tells_rows_apart = kind in ("text", "dates") or (
            all(_WHOLE.fullmatch(field) for field in fields) and len(set(fields)) == len(fields)
        )
        tells_rows_apart = tells_rows_apart or wanted is not None
        stored = _INDEX.fullmatch(name) or is_stored_index(name)
        if (wanted is not None and name in wanted) or not (
            stored or (_MAYBE_INDEX.fullmatch(name) and tells_rows_apart)
        ):
            break
        found.append(place)
    return tuple(found) if len(found) < len(names) else ()
