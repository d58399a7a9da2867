"""Labels of rows: the column of a table that is no feature, for pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from .csv_layout import read_layout
from .tables import TableFile


def read(table: TableFile | str) -> np.ndarray | None:
    """The labels (m,) of a CSV, TSV or Parquet file: numbers where all are, else text; None where it names none.

    Of the built-in data set "digits" the digits.

    Raises
    ------
    ValueError
        `label` names no column, or the file has no columns.
    """
    if table == "digits":
        from sklearn.datasets import load_digits

        return np.asarray(load_digits().target)
    if not isinstance(table, TableFile) or table.label is None:
        return None
    path = Path(table)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        found = _of_parquet(path, table.label)
    elif suffix in (".csv", ".tsv"):
        found = _of_csv(path, table)
    else:
        raise ValueError(f"label={table.label!r}: {path} has no columns of labels; a CSV, TSV or Parquet file has.")
    texts = found.astype(str)
    for kind in (np.int64, np.float64):
        try:
            return np.asarray(texts.astype(kind))
        except ValueError:
            continue
    return np.asarray(texts)


def _of_parquet(path: Path, label: str) -> Any:
    import pyarrow.parquet

    if label not in pyarrow.parquet.read_schema(path).names:
        raise ValueError(f"label={label!r} names no column of {path}.")
    return pyarrow.parquet.read_table(path, columns=[label]).column(0).to_numpy(zero_copy_only=False)


def _of_csv(path: Path, table: TableFile) -> np.ndarray:
    layout = read_layout(path, table)
    if table.label not in (layout.names or ()):
        raise ValueError(f"label={table.label!r} names no column of {path}.")
    place = (layout.names or ()).index(table.label)
    with path.open("rb") as file:
        file.seek(layout.start)
        rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""), delimiter=layout.separator)
        return np.array([row[place].strip() for row in rows if row])
