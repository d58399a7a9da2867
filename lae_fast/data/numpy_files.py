"""Files that NumPy and SciPy write: .npy mapped to memory, .npz archives, sparse matrices in .npz."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from .. import validation
from ..errors import DataFileError
from .opened_file import UNREADABLE, OpenedFile, dimensions, only_matrix, unreadable


def open_npy(path: Path) -> OpenedFile:
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
            raise DataFileError(f"{path} is truncated: {dimensions(shape)} {dtype} takes {promised} bytes, not {held}")
        data = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(unreadable(path, error)) from error
    return OpenedFile(str(path), data, "memory-mapped")


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
    with open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            other = "" if str(path).endswith(".npy") else " under another name; rename it to .npy"
            raise DataFileError(f"{path} is a single array{other}")
        with archive:
            yield archive


def read_archive(path: str | os.PathLike[str], kind: str) -> dict[str, np.ndarray]:
    """All arrays of a .npz of ours.  kind : what it is to hold, for the message

    Raises
    ------
    TypeError, OSError
        `path` is no path, or cannot be opened.
    DataFileError
        It is cut, damaged, or no .npz.
    """
    path = validation.as_path(path, "path")
    path.open("rb").close()  # what is refused from here on is the content
    try:
        with open_archive(path) as archive:
            return dict(archive)
    except DataFileError:
        raise
    except UNREADABLE as error:
        # NumPy takes what is in none of its formats for a pickle, and advises to execute it.
        why = "it is in none of NumPy's formats" if "pickle" in str(error) else error
        raise DataFileError(
            f"{path} cannot be read: it is truncated, damaged, or no .npz file of {kind} ({why})"
        ) from error


def open_npz(path: Path, member: str | None, stack: contextlib.ExitStack) -> OpenedFile:
    try:
        file = stack.enter_context(open_archive(path))
        keys = set(file.files)
        if member is None and {"format", "shape", "data"} <= keys:
            return _open_sparse(path)
        if member is None:
            member = only_matrix(path, _npz_shapes(path), "FILE.npz:KEY")
        elif member not in keys:
            raise DataFileError(f"{path} holds no array {member!r}; it holds: {', '.join(sorted(keys))}")
        return OpenedFile(f"{path}:{member}", file[member], "read into memory")
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(unreadable(path, error)) from error


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in an archive. Only headers are read: the arrays may not fit in memory together."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    shapes[name.removesuffix(".npy")] = _npy_header(file)[0]
    return shapes


def _open_sparse(path: Path) -> OpenedFile:
    import scipy.sparse

    matrix = scipy.sparse.load_npz(path)
    if matrix.format not in ("csr", "csc"):
        matrix = matrix.tocsr()
    return OpenedFile(str(path), matrix, f"sparse {matrix.format}, {matrix.nnz} stored entries, read into memory")
