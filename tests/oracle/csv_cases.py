"""CSV files for tests, by either reader."""

import pytest

from lae_fast.data import csv_rows
from lae_fast.data.csv_rows import CsvRows
from lae_fast.data.tables import TableFile

READERS = ("pyarrow", "Python")


def read(text, path, reader="pyarrow", **table):
    """The rows of a file with this text, by one of the two readers."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "_reader", lambda: reader)
        return CsvRows(path, TableFile(path, **table))
