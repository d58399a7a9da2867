"""Arrow tables: what their columns hold, and the numbers in them.  pyarrow is imported when there is such a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DataFileError
from .tables import FLOAT, WAYS, Column, TableFile, TableRows, check_columns, check_distinct, chosen, is_stored_index


def stored_index(schema: Any) -> set[str]:
    """Names of the columns that hold the index of the frame a table was made of: by its metadata, or by their name."""
    stored = (schema.pandas_metadata or {}).get("index_columns", ())
    return {name for name in stored if isinstance(name, str)} | {name for name in schema.names if is_stored_index(name)}


def number_columns(
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
        width, kind, dtype = kind_of(field.type)
        if field.name in categories:  # Parquet keeps those of numbers as numbers
            kind, dtype = "categories", None
        if width == 0:
            width = length(place)
            kind, dtype = ("lists", dtype) if width else ("lists of different lengths", None)
        if dtype is None:
            bad.append((field.name, kind, str(field.type)))
            continue
        if dtype.kind != "f" and missing(place):
            dtype = FLOAT
        columns.append(Column(field.name, place, dtype, width))
    check_columns(bad, where, leave_out)
    return columns


def _told(schema: Any) -> list[dict[str, Any]]:
    """What pandas has written about the columns of a frame."""
    return (schema.pandas_metadata or {}).get("columns", [])


def kind_of(type_: Any) -> tuple[int | None, str, np.dtype | None]:
    """Length of lists (0 where their type does not say), kind of what is refused, dtype of what is taken."""
    import pyarrow
    from pyarrow import types

    if isinstance(type_, pyarrow.FixedShapeTensorType) and len(type_.shape) == 1:
        type_ = type_.storage_type
    if types.is_fixed_size_list(type_):
        width, _, dtype = kind_of(type_.value_type)
        return (type_.list_size, "", dtype) if width is None and dtype is not None else (None, "lists", None)
    if types.is_list(type_) or types.is_large_list(type_):
        width, _, dtype = kind_of(type_.value_type)
        return (0, "", dtype) if width is None and dtype is not None else (None, "lists", None)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return None, "", np.dtype(type_.to_pandas_dtype())
    if types.is_decimal(type_) or types.is_null(type_):
        return None, "", FLOAT
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


def numbers(part: Any, column: Column) -> np.ndarray:
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
                f"or {WAYS['lists']}."
            )
        rows = numbers(part.flatten(), Column(column.name, column.place, column.dtype))
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


def list_lengths(part: Any) -> list[int]:
    """The lengths that lists in an Arrow array have, each once."""
    if not len(part) or part.null_count == len(part):
        return []
    if hasattr(part.type, "list_size"):
        return [part.type.list_size]
    return np.unique(part.value_lengths().drop_null().to_numpy(zero_copy_only=False)).tolist()


class ArrowRows(TableRows):
    """The number columns of an Arrow table or record batch."""

    def __init__(self, table: Any, name: str) -> None:
        import pyarrow

        if isinstance(table, pyarrow.RecordBatch):
            table = pyarrow.Table.from_batches([table])
        elif not isinstance(table, pyarrow.Table):  # of another library, which hands its columns out as Arrow's
            table = pyarrow.table(table)
        self._table = table
        check_distinct(table.schema.names, name)
        places, _ = chosen(table.schema.names, TableFile(name), stored_index(table.schema))
        columns = number_columns(
            table.schema, places, name, f"{name}.drop_columns([...])",
            missing=lambda place: _lacks(table.column(place)), length=lambda place: _one_length(table.column(place)),
        )  # fmt: skip
        super().__init__(table.num_rows, columns)

    def part(self, column: Column, first: int, last: int) -> np.ndarray:
        chunks = self._table.column(column.place).slice(first, last - first).chunks
        parts = [numbers(chunk, column) for chunk in chunks]
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
