"""An opened input file, whatever its format, and what the readers of all formats say when they refuse one."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataFileError

# How many members of a file a message lists.
_SHOWN = 30

# What readers raise for damaged files.
UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, SyntaxError, KeyError, IndexError, TypeError,
    AttributeError, struct.error, OverflowError, MemoryError, UnicodeError, RuntimeError, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class OpenedFile:
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
        """Of the numbers."""
        return str(self.data.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers themselves: of the stored entries where the matrix is sparse."""
        count = self.data.nnz if hasattr(self.data, "nnz") else self.data.size
        return int(count) * self.data.dtype.itemsize

    def fingerprint(self) -> dict[str, Any]:
        """What differs between two inputs, and for one input before and after a change to it, or to a file in it."""
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


def checked(opened: OpenedFile) -> OpenedFile:
    """The same, after one entry has been read: a missing codec or a broken header shows now, and not an hour later."""
    try:
        if 0 not in opened.data.shape:
            opened.data[(slice(0, 1),) * len(opened.data.shape)]
    except UNREADABLE as error:
        raise DataFileError(f"{opened.name} cannot be read, it may be truncated: {error}") from error
    return opened


def only_matrix(path: Path, shapes: Mapping[str, tuple[int, ...]], how: str) -> str:
    """The name of the only matrix in a file that holds arrays of these shapes.  how : a member is named, for messages

    Raises
    ------
    DataFileError
        There is no matrix, or more than one.
    """
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    count = "no matrix" if not matrices else f"{len(matrices)} matrices; name one as {how}"
    raise DataFileError(f"{path} holds {count} (it holds: {listed(shapes)})")


def listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a file holds, for a message."""
    held = [f"{name} {dimensions(shape)}" for name, shape in sorted(shapes.items())]
    return (", ".join(held[:_SHOWN]) + (f", and {len(held) - _SHOWN} more" if len(held) > _SHOWN else "")) or "nothing"


def dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def unreadable(path: Path, error: Exception) -> str:
    return f"{path} cannot be read, it may be truncated or no {path.suffix} file: {error}"
