"""Rows of a CSV file, parsed block by block as they are asked for: a matrix larger than memory.

pyarrow's reader parses it where pyarrow is installed, Python's csv module elsewhere.
"""

from __future__ import annotations

import bisect
import csv
import io
import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFileError, MemoryLimitError
from ..sizes import format_bytes
from .csv_fields import FALSE, MISSING, TRUE, number
from .csv_layout import read_layout
from .parquet import LEAVE_OUT
from .tables import TableFile, check_columns, chosen, slices

# Text parsed at once: so many rows, but at least and at most so many bytes.
_LEAST_BLOCK, _MOST_BLOCK, _ROWS_AT_ONCE = 1 << 20, 1 << 23, 128
# Numbers up to this size are kept where there is no memory limit.
_KEPT_BYTES = 1 << 24
# Parsed blocks that are kept, because threads take turns.
_BLOCKS_KEPT = 2


class CsvRows:
    """A CSV file of numbers: `shape`, `dtype`, `names`, and slices ``[first:last]`` and ``[:, first:last]``.

    The file is parsed once when it is opened, which finds the number of rows and every field that is no number.  Small
    files are kept in memory; larger ones are parsed again, block by block, when rows are asked for.

    Parameters
    ----------
    table : how the file is laid out and which columns are taken; what it leaves open, rules decide (csv_layout.py)
    wanted : names of the features, where they are known: a first line that holds them is a header
    max_memory : bytes; numbers that take more than half of it are not kept

    Attributes
    ----------
    names : None where there is no header;  header : bool;  index, left_out : names of columns that are no features
    reader : what parses it, "pyarrow" or "Python"

    Raises
    ------
    DataFileError
        The file is empty, ragged or no text, or a column holds no numbers; names row and column.
    ValueError
        There is no such column as `table` says.

    Warns
    -----
    UserWarning
        The names of the columns are numbers, so that they might be a row; or the first column counts the rows.
    """

    dtype = np.dtype(np.float64)

    def __init__(
        self,
        path: Path,
        table: TableFile | None = None,
        max_memory: int | None = None,
        wanted: Sequence[str] | None = None,
    ) -> None:
        table = TableFile(path) if table is None else table
        self._path, self._layout = path, read_layout(path, table, wanted)
        layout = self._layout
        self.header = layout.names is not None
        labels = layout.names or tuple(map(str, range(layout.n_fields)))
        self._labels = labels
        self._taken, index = chosen(labels, table, [labels[place] for place in layout.index])
        self._empty = [layout.n_fields - 1] if layout.trailing and table.columns is None else []
        self._taken = [place for place in self._taken if place not in self._empty]
        self.index = [labels[place] for place in index]
        self.left_out = [labels[j] for j in range(layout.n_fields) if j not in {*self._taken, *index, *self._empty}]
        self._check_kinds()
        self.names = tuple(labels[place] for place in self._taken) if self.header else None
        known = wanted is not None and self._labels[0] in wanted  # a feature, by its name
        self._warn_of_doubts(table, undecided=table.index is None and table.columns is None and not known)
        self.reader = _reader()
        self._blocks: list[tuple[int, int]] = []  # byte and length of each
        self._starts = [0]  # its first row, and the number of rows
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=_BLOCKS_KEPT)
        self._kept: list[np.ndarray] | None = []  # all blocks, parsed
        self._read_whole(_KEPT_BYTES if max_memory is None else min(_KEPT_BYTES, max_memory // 2))
        self.shape = (self._starts[-1], len(self._taken))
        self.size = self.shape[0] * self.shape[1]
        self.chunks = None

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = slices(key)
        first, last, _ = rows.indices(self.shape[0])
        begin, end, _ = columns.indices(self.shape[1])
        out = np.empty((last - first, end - begin))
        block = bisect.bisect_right(self._starts, first) - 1
        while block < len(self._blocks) and self._starts[block] < last:
            start, parsed = self._starts[block], self._parsed(block)
            here = slice(max(first, start), min(last, self._starts[block + 1]))
            out[here.start - first : here.stop - first] = parsed[here.start - start : here.stop - start, begin:end]
            block += 1
        return out

    def read_within(self, limit: int) -> int:
        """Hold at most so many bytes beside the rows that are handed out; how many it will be.

        Raises
        ------
        MemoryLimitError
            The blocks of text do not fit; says what is needed.
        """
        if self._kept is not None and self.size * self.dtype.itemsize <= limit:
            return self.size * self.dtype.itemsize
        rows = max((b - a for a, b in zip(self._starts, self._starts[1:])), default=0)
        text = max((length for _, length in self._blocks), default=0)
        need = (_BLOCKS_KEPT + 2) * rows * self.shape[1] * self.dtype.itemsize + 2 * text
        if need > limit:
            raise MemoryLimitError(
                f"To read {self._path} takes {format_bytes(need, at_least=True)}, and half of max_memory is "
                f"{format_bytes(limit)}: raise max_memory, or write the file as .npy or HDF5."
            )
        self._kept = None
        return need

    def close(self) -> None:
        """Let go of what is kept."""
        self._kept = None
        self._recent.clear()

    @property
    def described(self) -> str:
        """What was taken for what, for people."""
        parts = [f"header: {'yes' if self.header else 'no'}"]
        parts.append(f"index column: {', '.join(map(repr, self.index)) if self.index else 'no'}")
        if self.left_out:
            parts.append(f"left out: {', '.join(map(repr, self.left_out))}")
        if self._layout.separator != ",":
            parts.append(f"separator {self._layout.separator!r}")
        if self._layout.decimal != ".":
            parts.append(f"decimal {self._layout.decimal!r}")
        parts.append("read into memory" if self._kept is not None else "parsed block by block")
        if self.reader == "Python":
            parts[-1] += " by Python's csv module (pip install 'lae-fast[io]' for a faster reader)"
        return ", ".join(parts)

    def _warn_of_doubts(self, table: TableFile, undecided: bool) -> None:
        layout = self._layout
        if layout.guessed:
            shown = ", ".join(layout.first[:3]) + (", ..." if layout.n_fields > 3 else "")
            if self.header:
                doubt = "looks like names of columns and is taken for them; if it is a row, say --no-header, or"
            else:
                doubt = "may be names of columns, and is taken for a row; if it is names, say --header, or"
            warnings.warn(
                f"The first line of {self._path} ({shown}) {doubt} header={not self.header} of lae_fast.TableFile.",
                UserWarning,
                stacklevel=3,
            )
        if layout.one_column and table.decimal is None:
            warnings.warn(
                f"The commas in {self._path} are taken for the decimal marks of one column; if they separate two, say "
                "--separator , or separator=',' of lae_fast.TableFile.",
                UserWarning,
                stacklevel=3,
            )
        if undecided and layout.counting and 0 in self._taken and len(self._taken) > 1:
            name = self._labels[0]
            warnings.warn(
                f"Column {name!r} of {self._path} does nothing but count the rows, and is taken for a feature; if it "
                f"names them, say --index-col {name!r}, or index={name!r} of lae_fast.TableFile.",
                UserWarning,
                stacklevel=3,
            )

    def _check_kinds(self) -> None:
        layout, bad = self._layout, []
        for place in self._taken:
            example = layout.examples[place]
            if example is not None:
                field, row = example
                bad.append((self._labels[place], layout.kinds[place], f"{field!r} in row {row}"))
        try:
            check_columns(bad, str(self._path), LEAVE_OUT)
        except ValueError as error:
            raise DataFileError(f"{self._path} is not a table of numbers: {error}") from error

    def _read_whole(self, keep: int) -> None:
        """Find blocks and rows, check every field, and keep the numbers where they take at most `keep` bytes."""
        for start, text in self._cut():
            parsed = self._parse(text, self._starts[-1])
            self._blocks.append((start, len(text)))
            self._starts.append(self._starts[-1] + len(parsed))
            if self._starts[-1] * len(self._taken) * self.dtype.itemsize > keep:
                self._kept = None
            if self._kept is not None:
                self._kept.append(parsed)

    def _cut(self) -> Iterator[tuple[int, bytes]]:
        """The place of each block in the file, and its text: whole rows."""
        with self._path.open("rb") as file:
            file.seek(self._layout.start)
            place, rest = self._layout.start, b""
            line = len(file.readline())
            file.seek(self._layout.start)
            size = int(np.clip(_ROWS_AT_ONCE * line, _LEAST_BLOCK, _MOST_BLOCK))
            while more := file.read(size):
                text = rest + more
                end = _last_row_end(text)
                if end == 0 and len(text) > 4 * max(size, line):
                    raise DataFileError(f"{self._path} is not a table of numbers: no row ends after byte {place}")
                if end:
                    yield place, text[:end]
                    place += end
                rest = text[end:]
            if rest:
                yield place, rest

    def _parsed(self, block: int) -> np.ndarray:
        """The numbers of a block."""
        if self._kept is not None:
            return self._kept[block]
        for place, parsed in self._recent:
            if place == block:
                return parsed
        start, length = self._blocks[block]
        with self._path.open("rb") as file:
            file.seek(start)
            text = file.read(length)
        parsed = self._parse(text, self._starts[block])
        if len(parsed) != self._starts[block + 1] - self._starts[block]:
            raise DataFileError(f"{self._path} has changed while it was read")
        self._recent.append((block, parsed))
        return parsed

    def _parse(self, text: bytes, first: int) -> np.ndarray:
        """Rows (count, columns taken) of a block of text; first : number of its first row."""
        if self.reader == "pyarrow":
            parsed = self._parse_fast(text)
            if parsed is not None:
                return parsed
        return self._parse_plainly(text, first)  # finds the field that is no number, too

    def _parse_fast(self, text: bytes) -> np.ndarray | None:
        """None where something is no number: Arrow's own messages count rows from the beginning of the block."""
        import pyarrow
        import pyarrow.csv

        layout = self._layout
        names = list(map(str, range(layout.n_fields)))
        truth = {j for j in self._taken if layout.kinds[j] == "truth"}
        wanted = [names[j] for j in (*self._taken, *self._empty)]
        types = {names[j]: pyarrow.bool_() if j in truth else pyarrow.float64() for j in self._taken}
        types |= {names[j]: pyarrow.null() for j in self._empty}
        try:
            table = pyarrow.csv.read_csv(
                pyarrow.BufferReader(text),
                read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=layout.separator, quote_char='"' if b'"' in text else False,
                    newlines_in_values=b'"' in text,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    check_utf8=False, include_columns=wanted, null_values=list(MISSING), strings_can_be_null=True,
                    column_types=types,
                    true_values=list(TRUE), false_values=list(FALSE), decimal_point=layout.decimal,
                ),
            )  # fmt: skip
        except pyarrow.ArrowInvalid:
            return None
        out = np.empty((table.num_rows, len(self._taken)))
        for j, column in enumerate(table.columns[: len(self._taken)]):
            part = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
            if part.type == "bool":
                part = part.cast("uint8")
            out[:, j] = part.to_numpy(zero_copy_only=False)
        return out

    def _parse_plainly(self, text: bytes, first: int) -> np.ndarray:
        layout = self._layout
        rows: list[list[float]] = []
        try:
            decoded = text.decode()
        except UnicodeDecodeError:
            decoded = text.decode("latin-1")
        try:
            for fields in csv.reader(io.StringIO(decoded, newline=""), delimiter=layout.separator):
                if not fields or (len(fields) == 1 and fields[0] and not fields[0].strip()):
                    continue  # a line of nothing, or of blanks
                if len(fields) != layout.n_fields:
                    raise self._bad(f"row {first + len(rows)} has {len(fields)} fields, and not {layout.n_fields}")
                for place in self._empty:
                    if not math.isnan(self._number(fields[place], place, first + len(rows))):
                        raise self._bad(f"row {first + len(rows)} goes on behind the last separator of the others")
                rows.append([self._number(fields[j], j, first + len(rows)) for j in self._taken])
        except csv.Error as error:
            raise self._bad(f"row {first + len(rows)}: {error}") from error
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self._taken))

    def _number(self, field: str, place: int, row: int) -> float:
        if self._layout.kinds[place] == "truth" and field.strip() in TRUE + FALSE:
            return float(field.strip() in TRUE)
        value = number(field, self._layout.decimal)
        if value is None or (self._layout.kinds[place] == "truth" and not math.isnan(value)):
            raise self._bad(f"column {self._labels[place]!r} holds {field.strip()!r} in row {row}")
        return value

    def _bad(self, what: str) -> DataFileError:
        counted = "rows count from 0" + (", after the header" if self.header else "")
        return DataFileError(f"{self._path} is not a table of numbers: {what} ({counted})")


def _reader() -> str:
    try:
        import pyarrow.csv  # noqa: F401
    except ModuleNotFoundError:
        return "Python"
    return "pyarrow"


def _last_row_end(text: bytes) -> int:
    """Where the last row of a text ends: after a line break that is in no quotes; 0 where there is none."""
    end = text.rfind(b"\n") + 1
    quotes = text.count(b'"', 0, end)
    while end and quotes % 2:
        before = text.rfind(b"\n", 0, end - 1) + 1
        quotes -= text.count(b'"', before, end)
        end = before
    return end
