"""Opens what the command line calls INPUT, and what may be passed as X by its name: a data set or a file.

The readers of the formats are imported when a file needs them, so that importing this module is cheap.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import datasets
from ..errors import DataFileError
from .opened_file import OpenedFile, checked, unreadable

if TYPE_CHECKING:
    from .tables import TableFile

FORMATS = (
    f"{', '.join(datasets.NAMES)}, FILE.npy, FILE.npz[:KEY], FILE.h5[:DATASET], FILE.h5ad[:DATASET], "
    "FILE.zarr[:ARRAY], FILE.parquet, FILE.csv, FILE.tsv, "
    "or a scipy.sparse matrix saved as FILE.npz"
)

# "FILE.npz:KEY": a colon counts only behind one of these suffixes, so C:\data\x.npy stays one path.
_MEMBER = re.compile(r"(?P<path>.*?\.(?:npz|h5|hdf5|h5ad|nxs|nc|zarr)):(?P<member>.+)", re.IGNORECASE | re.DOTALL)

_ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".h5ad", ".nxs", ".nc", ".zarr")
# Those that a `TableFile` says more about.
_TABLES = (".csv", ".tsv", ".parquet")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


@contextlib.contextmanager
def open_input(
    spec: str | TableFile, max_memory: int | None = None, names: Sequence[str] | None = None
) -> Iterator[OpenedFile]:
    """Open what `spec` names, for as long as the context lasts.

    Parameters
    ----------
    spec : str or TableFile
        One of `FORMATS`. A ``.npy`` file is memory-mapped read-only; HDF5, Zarr, Parquet and large CSV files stay in
        their files; the other formats are read into memory. Without a key, a ``.npz`` or HDF5 file must hold exactly
        one matrix. A TableFile says which columns of a CSV or Parquet file are taken, and how a CSV file is laid out.
    max_memory : bytes; the numbers of a CSV file that are kept in memory may take half of it
    names : of the features that a model was fitted with: a column of a table with such a name is no index

    Yields
    ------
    OpenedFile

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is truncated, unreadable, or holds no such matrix.
    ValueError
        The suffix is not one that can be read, or its format has no columns to choose from.
    ModuleNotFoundError
        The file needs h5py, zarr or pyarrow, which is not installed.
    """
    table = None if isinstance(spec, str) else spec
    spec = os.fspath(spec)
    if table is not None and table.chooses and Path(spec).suffix.lower() not in _TABLES:
        raise ValueError(f"{spec} is no table: columns, index and header are chosen in {', '.join(_TABLES)} files only")
    if spec in datasets.NAMES:
        if spec == "digits":
            where = "from scikit-learn"
        else:
            where = f"training rows, from {datasets.local_file(spec) or 'OpenML'}"
        yield OpenedFile(spec, datasets.load(spec), where)
        return
    path, member = _split(spec)
    suffix = path.suffix.lower()
    if suffix in _COMPRESSED:
        raise ValueError(f"{spec} is compressed: decompress it first")
    if suffix not in (*_ARRAYS, *_TABLES):
        raise ValueError(f"cannot tell how to read {spec!r}; INPUT is one of: {FORMATS}")
    if path.is_dir() and suffix != ".zarr":
        raise DataFileError(f"{path} is a directory, not a file")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not os.access(path, os.R_OK):
        raise DataFileError(f"{path} may not be read by this user")
    with contextlib.ExitStack() as stack:
        if suffix == ".parquet":
            opened = _open_parquet(path, table, stack, names)
        elif suffix in _TABLES:
            opened = _open_csv(path, table, stack, max_memory, names)
        else:
            opened = _open_arrays(path, member, stack)
        yield replace(opened, path=path)


def input_path(spec: str) -> Path | None:
    """The file that `spec` names, or None where it names a data set."""
    return None if spec in datasets.NAMES else _split(spec)[0]


def _split(spec: str) -> tuple[Path, str | None]:
    match = None if os.path.exists(spec) else _MEMBER.fullmatch(spec)
    return (Path(spec), None) if match is None else (Path(match["path"]), match["member"])


def _open_arrays(path: Path, member: str | None, stack: contextlib.ExitStack) -> OpenedFile:
    from . import hdf5_zarr, numpy_files

    suffix = path.suffix.lower()
    if suffix == ".npy":
        return numpy_files.open_npy(path)
    if suffix == ".npz":
        return numpy_files.open_npz(path, member, stack)
    if suffix == ".zarr":
        return hdf5_zarr.open_zarr(path, member)
    return hdf5_zarr.open_hdf5(path, member, stack)


def _open_parquet(
    path: Path, table: TableFile | None, stack: contextlib.ExitStack, names: Sequence[str] | None
) -> OpenedFile:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading {path} needs pyarrow; install it with: pip install 'lae-fast[io]'"
        ) from error
    from .parquet import ParquetRows

    rows = stack.enter_context(contextlib.closing(ParquetRows(path, table, names)))
    return checked(OpenedFile(str(path), rows, rows.described))


def _open_csv(
    path: Path,
    table: TableFile | None,
    stack: contextlib.ExitStack,
    max_memory: int | None,
    names: Sequence[str] | None,
) -> OpenedFile:
    from .csv_rows import CsvRows

    try:
        rows = stack.enter_context(contextlib.closing(CsvRows(path, table, max_memory, names)))
    except OSError as error:
        raise DataFileError(unreadable(path, error)) from error
    return OpenedFile(str(path), rows, rows.described)
