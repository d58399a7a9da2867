"""Files: open what the command line calls INPUT, and write results so that none is ever half there.

Knows nothing of estimators. Imports `datasets`, `parquet`, `csvrows`, `hdf5`, `tables` and `errors` of this package;
NumPy, and scipy or h5py when a file needs them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import math
import os
import re
import secrets
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lae_fast import datasets
from lae_fast.errors import DataFileError

if TYPE_CHECKING:
    import numpy as np

    from lae_fast.data.tables import TableFile

FORMATS = (
    f"{', '.join(datasets.NAMES)}, FILE.npy, FILE.npz[:KEY], FILE.h5[:DATASET], FILE.h5ad[:DATASET], "
    "FILE.zarr[:ARRAY], FILE.parquet, FILE.csv, FILE.tsv, "
    "or a scipy.sparse matrix saved as FILE.npz"
)

# "FILE.npz:KEY": a colon counts only behind one of these suffixes, so C:\data\x.npy stays one path.
_MEMBER = re.compile(r"(?P<path>.*?\.(?:npz|h5|hdf5|h5ad|nxs|nc|zarr)):(?P<member>.+)", re.IGNORECASE | re.DOTALL)

# No space, a file as large as it may be, a quota used up; Windows has no quotas.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

# How many members of a file a message lists.
_SHOWN = 30

# What readers raise for damaged files.
UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError, KeyError, IndexError, TypeError,
    AttributeError, struct.error, OverflowError, MemoryError, UnicodeError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """An opened INPUT: `data` has ``shape`` and ``dtype``; `where` says in words where its rows are.

    column_names : of the columns, where `data` does not say
    """

    name: str
    data: Any
    where: str
    path: Path | None = None
    column_names: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns, or None."""
        return self.column_names or getattr(self.data, "names", None)

    @property
    def dtype(self) -> str:
        """Of the numbers; of a table, of its first column."""
        return str(self.data.schema.types[0] if hasattr(self.data, "schema") else self.data.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers themselves: of the stored entries where the matrix is sparse."""
        if hasattr(self.data, "column_names"):
            return int(self.data.nbytes)
        count = self.data.nnz if hasattr(self.data, "nnz") else self.data.size
        return int(count) * self.data.dtype.itemsize

    def fingerprint(self) -> dict[str, Any]:
        """What tells this input from another one, and from itself after a change; of a directory, of all its files."""
        kept = [self.path] if self.path is None or not self.path.is_dir() else sorted(self.path.rglob("*"))
        stats = [path.stat() for path in kept if path is not None]
        return {
            "input": self.name if self.path is None else self.name.replace(str(self.path), os.path.realpath(self.path)),
            "shape": [int(size) for size in self.data.shape],
            "dtype": self.dtype,
            "columns": zlib.crc32("\n".join(self.names or ()).encode()),
            "size": sum(stat.st_size for stat in stats),
            "mtime_ns": max((stat.st_mtime_ns for stat in stats), default=0),
        }


@contextlib.contextmanager
def open_input(
    spec: str | TableFile, max_memory: int | None = None, names: Sequence[str] | None = None
) -> Iterator[Source]:
    """Open what `spec` names, for as long as the context lasts.

    Parameters
    ----------
    spec : str or TableFile
        One of `FORMATS`. A ``.npy`` file is memory-mapped read-only; HDF5, Zarr, Parquet and large CSV files stay in
        their files; the other formats are read into memory. Without a key, a ``.npz`` or HDF5 file must hold exactly
        one matrix. A TableFile says which columns of a CSV or Parquet file are taken, and how a CSV file is laid out.
    names : of the features that are wanted, where a model has some: such columns of a table are no index
    max_memory : bytes, of which the numbers of a CSV file that are kept in memory may take half

    Yields
    ------
    Source

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is truncated, unreadable, or holds no such matrix.
    ValueError
        The suffix is none that can be read, or its format has no columns to choose from.
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
        yield Source(spec, datasets.load(spec), where)
        return
    path, member = _split(spec)
    opener = _OPENERS.get(path.suffix.lower())
    if path.suffix.lower() in _COMPRESSED:
        raise ValueError(f"{spec} is compressed: decompress it first")
    if opener is None:
        raise ValueError(f"cannot tell how to read {spec!r}; INPUT is one of: {FORMATS}")
    if path.is_dir() and path.suffix.lower() != ".zarr":
        raise DataFileError(f"{path} is a directory, not a file")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not os.access(path, os.R_OK):
        raise DataFileError(f"{path} may not be read by this user")
    with contextlib.ExitStack() as stack:
        if opener is _open_csv:
            opened = _open_csv(path, table, stack, max_memory, names)
        elif opener is _open_parquet:
            opened = _open_parquet(path, table, stack, names)
        else:
            opened = opener(path, member, stack)
        yield replace(opened, path=path)


def input_path(spec: str) -> Path | None:
    """The file that `spec` names, or None where it names a data set."""
    return None if spec in datasets.NAMES else _split(spec)[0]


def _split(spec: str) -> tuple[Path, str | None]:
    match = None if os.path.exists(spec) else _MEMBER.fullmatch(spec)
    return (Path(spec), None) if match is None else (Path(match["path"]), match["member"])


def _open_npy(path: Path, _member: None, _stack: contextlib.ExitStack) -> Source:
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise DataFileError(f"{path} is a .npz archive under another name; rename it to .npz")
            file.seek(0)
            shape, dtype = _npy_header(file)
            promised, held = file.tell() + math.prod(shape) * dtype.itemsize, path.stat().st_size
        if dtype.hasobject:
            raise DataFileError(f"{path} holds Python objects, not numbers; save it with a numeric dtype")
        # numpy's own message for this speaks of the length of a memory map.
        if held < promised:
            raise DataFileError(f"{path} is truncated: {_dimensions(shape)} {dtype} takes {promised} bytes, not {held}")
        data = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(_unreadable(path, error)) from error
    return Source(str(path), data, "memory-mapped")


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    from numpy.lib import format as npy_format

    version = npy_format.read_magic(file)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _fortran_order, dtype = read(file)
    return shape, dtype


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of a .npz, without pickle; raises what NumPy raises where there are none.

    The file is opened here: one that np.load opens itself stays open where the archive turns out to be cut.
    """
    import numpy as np

    with open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataFileError(f"{path} is a single array under another name; rename it to .npy")
        with archive:
            yield archive


def _open_npz(path: Path, member: str | None, stack: contextlib.ExitStack) -> Source:
    try:
        file = stack.enter_context(open_archive(path))
        keys = set(file.files)
        if member is None and {"format", "shape", "data"} <= keys:
            return _open_sparse(path)
        if member is None:
            member = _only_matrix(path, _npz_shapes(path), "FILE.npz:KEY")
        elif member not in keys:
            raise DataFileError(f"{path} holds no array {member!r}; it holds: {', '.join(sorted(keys))}")
        return Source(f"{path}:{member}", file[member], "read into memory")
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(_unreadable(path, error)) from error


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in an archive. Only headers are read: the arrays may not fit in memory together."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    shapes[name.removesuffix(".npy")] = _npy_header(file)[0]
    return shapes


def _open_sparse(path: Path) -> Source:
    import scipy.sparse

    matrix = scipy.sparse.load_npz(path)
    if matrix.format not in ("csr", "csc"):
        matrix = matrix.tocsr()
    return Source(str(path), matrix, f"sparse {matrix.format}, {matrix.nnz} stored entries, read into memory")


def _open_hdf5(path: Path, member: str | None, stack: contextlib.ExitStack) -> Source:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {path} needs h5py; install it with: pip install 'lae-fast[io]'") from error
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        raise DataFileError(_unreadable(path, error)) from error
    try:
        return _checked(_in_hdf5(path, file, member))
    except UNREADABLE as error:
        raise DataFileError(str(error) if isinstance(error, DataFileError) else _unreadable(path, error)) from error


def _in_hdf5(path: Path, file: Any, member: str | None) -> Source:
    from lae_fast.data import hdf5

    if member is None:
        member = _main_matrix(path, file, hdf5.members, "FILE.h5:DATASET")
    item = hdf5.look_up(file, member)
    if item is None:
        raise DataFileError(f"{path} holds no data set {member!r}; it holds: {_listed(hdf5.members(file))}")
    return _in_group(path, file, member, item, "HDF5")


def _main_matrix(path: Path, group: Any, members: Callable[[Any], dict[str, tuple[int, ...]]], how: str) -> str:
    """Name of the matrix that is meant where nobody names one: AnnData's X, or the only one."""
    from lae_fast.data import hdf5

    if not hdf5.is_anndata(group) and path.suffix.lower() != ".h5ad":
        return _only_matrix(path, members(group), how)
    if "X" not in group:
        raise DataFileError(
            f"{path} is an AnnData file without X: name a layer as {path.name}:layers/NAME. It holds: "
            f"{_listed(members(group))}"
        )
    return "X"


def _in_group(path: Path, group: Any, member: str, item: Any, storage: str) -> Source:
    """A dataset, array or sparse matrix of an HDF5 file or Zarr store."""
    from lae_fast.data import hdf5

    name, names = f"{path}:{member}", hdf5.variable_names(group, member)
    if hasattr(item, "shape"):
        hdf5.check_unpacked(item, name)
        return Source(name, item, f"read from {storage} block by block", column_names=names)
    if hdf5.sparse_format(item) is None:
        members, how = (
            (hdf5.members, "FILE.h5:DATASET") if storage == "HDF5" else (hdf5.members_of_store, "FILE.zarr:ARRAY")
        )
        what = "data set" if storage == "HDF5" else "array"
        raise DataFileError(f"{name} is a group, no {what}; name one as {how}. Below it are: {_listed(members(item))}")
    matrix = hdf5.read_sparse(item)
    where = f"sparse {matrix.format}, {matrix.nnz} stored entries, read into memory"
    return Source(name, matrix, where, column_names=names)


def _open_zarr(path: Path, member: str | None, _stack: contextlib.ExitStack) -> Source:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {path} needs zarr; install it with: pip install 'lae-fast[io]'") from error
    from lae_fast.data import hdf5

    try:
        opened = zarr.open(path, mode="r")
        if isinstance(opened, zarr.Array):
            if member is not None:
                raise DataFileError(f"{path} is one array; leave out :{member}")
            hdf5.check_unpacked(opened, str(path))
            return _checked(Source(str(path), opened, "read from Zarr block by block"))
        if member is None:
            member = _main_matrix(path, opened, hdf5.members_of_store, "FILE.zarr:ARRAY")
        elif member.strip("/") not in opened:
            held = _listed(hdf5.members_of_store(opened))
            raise DataFileError(f"{path} holds no array {member!r}; it holds: {held}")
        return _checked(_in_group(path, opened, member, opened[member.strip("/")], "Zarr"))
    except UNREADABLE as error:
        raise DataFileError(str(error) if isinstance(error, DataFileError) else _unreadable(path, error)) from error


def _checked(source: Source) -> Source:
    """Read one corner: a missing codec or a broken header shows before an hour of work is spent."""
    try:
        if 0 not in source.data.shape:
            source.data[(slice(0, 1),) * len(source.data.shape)]
    except UNREADABLE as error:
        raise DataFileError(f"{source.name} cannot be read, it may be truncated: {error}") from error
    return source


def _open_parquet(
    path: Path, table: TableFile | None, stack: contextlib.ExitStack, names: Sequence[str] | None
) -> Source:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading {path} needs pyarrow; install it with: pip install 'lae-fast[io]'"
        ) from error
    from lae_fast.data.parquet import ParquetRows

    rows = stack.enter_context(contextlib.closing(ParquetRows(path, table, names)))
    return _checked(Source(str(path), rows, rows.described))


def _open_csv(
    path: Path,
    table: TableFile | None,
    stack: contextlib.ExitStack,
    max_memory: int | None,
    names: Sequence[str] | None,
) -> Source:
    from lae_fast.data.csv_rows import CsvRows

    try:
        rows = stack.enter_context(contextlib.closing(CsvRows(path, table, max_memory, names)))
    except OSError as error:
        raise DataFileError(_unreadable(path, error)) from error
    return Source(str(path), rows, rows.described)


_OPENERS = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".h5ad": _open_hdf5,
    ".nxs": _open_hdf5,
    ".nc": _open_hdf5,
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".zarr": _open_zarr,
    ".parquet": _open_parquet,
}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
# Those that a `TableFile` says more about.
_TABLES = (".csv", ".tsv", ".parquet")


def _only_matrix(path: Path, shapes: dict[str, tuple[int, ...]], how: str) -> str:
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    count = "no matrix" if not matrices else f"{len(matrices)} matrices; name one as {how}"
    raise DataFileError(f"{path} holds {count} (it holds: {_listed(shapes)})")


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    """What a file holds, for a message."""
    held = [f"{name} {_dimensions(shape)}" for name, shape in sorted(shapes.items())]
    return (", ".join(held[:_SHOWN]) + (f", and {len(held) - _SHOWN} more" if len(held) > _SHOWN else "")) or "nothing"


def _dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read, it may be truncated or no {path.suffix} file: {error}"


def check_writable(path: Path) -> None:
    """Raise an OSError that says why when `path` cannot be written: called before the work, not after it.

    A file is made beside `path` and removed, because permission bits say little of read-only or full file systems.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    parent = _real(path).parent
    if not parent.is_dir():
        raise FileNotFoundError(f"the directory {parent} does not exist; make it first")
    probe = _beside(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"the directory {parent} cannot be written to: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_rows(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes rows (count, shape[1]), one block after the other, which become the .npy `path` together.

    They are written, not mapped: a full disk is an OSError then, and not a signal that ends the process.
    See `atomic_write`.
    """
    import numpy as np
    from numpy.lib import format as npy_format

    with atomic_write(path) as file:
        npy_format.write_array_header_1_0(
            file, {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        yield lambda rows: file.write(memoryview(np.ascontiguousarray(rows, dtype)).cast("B"))


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the context ends well, and leaves no trace when it does not.

    The bytes are on the disk before the name is: another process, or this one after a crash, sees the old file or the
    new one, never a part. A symbolic link stays a link.
    """
    target, temporary = _real(path), _beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno, f"{path} was not written: {error.strerror}. Free some space or name a file elsewhere"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)  # after the rename it is missing
    _sync_directory(target.parent)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _beside(path: Path) -> Path:
    """A free name in the directory of `path`: a rename is atomic only within one file system."""
    target = _real(path)
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def unfinished(path: Path) -> list[Path]:
    """What `atomic_write` of `path` has left behind in processes that were killed, and what it is writing now."""
    target = _real(path)
    return list(target.parent.glob(f".{glob.escape(target.name)}.*.tmp"))


def _sync_directory(directory: Path) -> None:
    # Windows cannot open a directory, and some network file systems refuse to sync one; the file itself is synced.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
