"""How a CSV file is laid out: separator, decimal mark, header, index columns; decided by rules from its first lines.

The rules are stated in docs/storage.md, "CSV files".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from .csv_fields import WHOLE, by_column, kind_of, number
from .csv_header import COUNTED, column_names, has_header, index_places, is_asked_for, is_counting
from .tables import TableFile

# Bytes and rows that are looked at.
HEAD_BYTES = 1 << 20
_ROWS = 1000
# Lines that are read even where they exceed HEAD_BYTES, up to this many bytes together.
_LINES, _MOST_BYTES = 8, 1 << 27
_SEPARATORS = (",", ";", "\t", "|", " ")

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# First bytes of files that are no text.
_COMPRESSED = "compressed ({}): decompress it first"
_ARCHIVES = {
    b"\x1f\x8b": _COMPRESSED.format("gzip"), b"BZh": _COMPRESSED.format("bzip2"),
    b"\xfd7zXZ\0": _COMPRESSED.format("xz"), b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd"),
    b"PK\x03\x04": "a zip archive, or a workbook of Excel: take the table out of it, or save it as CSV",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What the first lines of a file say.

    first : fields of the first line;  names : of all columns, None where there is no header;  n_fields : in a row
    kinds : of each column: "number", "truth", "text", "dates" or "blank", by the rows that were looked at
    examples : of each column of text, its first text and its row
    index : places of the columns that are taken for the index where the user names none
    start : where the first row begins, in bytes
    guessed : whether it is uncertain that the first line is, or is not, a header
    one_column : whether commas were taken for the decimal marks of a single column
    trailing : whether rows end in a separator with nothing behind it
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


def read_layout(path: Path, table: TableFile, wanted: Sequence[str] | None = None) -> Layout:
    """The layout of a file, from its first lines.  wanted : names of the features, where they are known

    Raises
    ------
    DataFileError
        The file is empty, or holds no text.
    """
    start, lines = _first_lines(path)
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
        header, guessed = (True, False) if is_asked_for(first, table, wanted) else has_header(first, rows[1:], decimal)
    if table.separator is None:
        _check_spaces(path, separator, rows)
    below = rows[1:] if header else rows
    n_fields = len(below[0]) if below else len(first)
    if header and len(first) not in (n_fields, n_fields - 1):
        raise DataFileError(
            f"{path} is not a table of numbers: the first line names {len(first)} columns, and the row below has "
            f"{n_fields} fields (rows count from 0, after the header)"
        )
    kinds, examples = zip(*(kind_of(column, decimal) for column in by_column(below, n_fields)))
    trailing = n_fields > 1 and not any(field.strip() for row in below for field in row[n_fields - 1 :])
    trailing = trailing and (not header or "".join(first[n_fields - 1 :]).strip() == "")
    if trailing and len(first) == n_fields - 1:
        first = [*first, ""]
    counted = [value for row in below if (value := number(row[0])) is not None]
    counting = len(counted) == len(below) >= COUNTED and counted[0] in (0, 1) and is_counting(counted)
    names = column_names(first, n_fields) if header else None
    index = index_places(names, kinds, below, wanted) if names is not None else ()
    if header:
        start += sum(map(len, lines[:header_lines]))
    return Layout(
        separator, decimal, tuple(first), names, n_fields, kinds, examples, index, start, guessed, commas, trailing,
        counting,
    )  # fmt: skip


def _first_lines(path: Path) -> tuple[int, list[bytes]]:
    """Where the text begins, in bytes, and the first whole lines of it."""
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
        lines.pop()  # the last one is cut
    return start, lines


def _skip(lines: Sequence[bytes], separator: str | None) -> tuple[int, str | None]:
    """Number of lines before the table (blank, comments, Excel's ``sep=;``), and the separator if one names it."""
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
    """The separator that cuts the first lines into equally many fields, most of them numbers."""
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
    """Whether the comma in each line is the decimal mark of the only column, and not a separator."""
    below = [line.strip() for line in lines[1 : _ROWS + 1] if line.strip()]
    name = lines[0].strip()
    if decimal == "." or not below or ("," in name and not _DECIMAL_COMMA.fullmatch(name)):
        return False
    if not all(_DECIMAL_COMMA.fullmatch(line) or WHOLE.fullmatch(line) for line in below):
        return False
    return decimal == "," or ("," not in name and number(name) is None)


def _check_spaces(path: Path, separator: str, rows: Sequence[Sequence[str]]) -> None:
    """Refuse columns that are aligned by several spaces, of which one would separate."""
    if separator == " ":
        aligned = any(not any(map(str.strip, column)) for column in by_column(rows, len(rows[-1]))[1:-1])
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
