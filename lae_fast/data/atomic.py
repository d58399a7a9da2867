"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# No space left, a file as large as it may be, a quota used up; Windows has no quotas.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_writable(path: Path) -> None:
    """Raise an OSError that says why when `path` cannot be written: called before the work, not after it.

    A file is made beside `path` and removed, because permission bits say little of read-only or full file systems.
    """
    probe = _beside(path)
    _created(probe, path).close()
    probe.unlink()


def _created(temporary: Path, path: Path) -> IO[bytes]:
    """The file beside `path`, new and open; an OSError names `path` or its directory, and not this file."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    if not temporary.parent.is_dir():
        raise FileNotFoundError(f"the directory {temporary.parent} does not exist; make it first")
    try:
        return temporary.open("xb")
    except OSError as error:
        why = error.strerror or error
        raise PermissionError(f"the directory {temporary.parent} cannot be written to: {why}") from error


@contextlib.contextmanager
def atomic_rows(path: Path, shape: tuple[int, int], dtype: np.dtype) -> Iterator[Callable[[np.ndarray], object]]:
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
        # as bytes, because a memoryview of no columns cannot be written
        yield lambda rows: file.write(np.ascontiguousarray(rows, dtype).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the context ends well, and leaves no trace when it does not.

    The bytes are on the disk before the name is: another process, or this one after a crash, sees the old file or the
    new one, never a part. A symbolic link stays a link.
    """
    target, temporary = _real(path), _beside(path)
    try:
        with _created(temporary, path) as file:
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
