"""Where compiled kernels are kept from process to process: one policy for both backends.

Numba stamps a cached kernel with the file it stands in, so a kernel is not recompiled when a callee in another file
changes (numba#1833), and two processes that fill one cold cache can mix up their data files (numba#4807).  Here the
cache directory carries a digest of every source file and of the compilers' versions, and entries are saved under an
inter-process lock.  `LAE_FAST_CACHE=0` switches the cache off, `LAE_FAST_CACHE_DIR` moves it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def digest(files: Iterable[pathlib.Path], compilers: str) -> str:
    """Of everything that decides what kernels compile to, but the processor or card, which Numba keys itself."""
    found = hashlib.sha256(compilers.encode())
    for path in files:
        found.update(path.relative_to(PACKAGE).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def directory(name: str) -> pathlib.Path | None:
    """The directory of this name in the compile cache, or None where caching is off or it cannot be written."""
    if os.environ.get("LAE_FAST_CACHE", "1").lower() in {"0", "off", "false", "no"}:
        return None
    found = _root() / name
    try:
        found.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=found):
            pass
    except OSError as error:
        _warn(found, error)
        return None
    return found


def _root() -> pathlib.Path:
    named = os.environ.get("LAE_FAST_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR")
    if named:
        return pathlib.Path(named) / "lae_fast"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(pathlib.Path.home())
    elif sys.platform == "darwin":
        base = str(pathlib.Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    return pathlib.Path(base) / "lae_fast"


def _warn(place: pathlib.Path | str, error: OSError) -> None:
    warnings.warn(
        f"Compiled kernels cannot be kept in {place} ({error.strerror or error}): every process compiles them "
        "again, which takes some seconds to minutes. Name a directory that can be written with LAE_FAST_CACHE_DIR, "
        "or switch the cache off with LAE_FAST_CACHE=0.",
        UserWarning,
        stacklevel=4,
    )


def house_cache(
    cache: Any, impl: Any, locator: Any, home: Callable[[], pathlib.Path | None], stamp: Callable[[], str]
) -> Any:
    """Numba's function cache, in our directory, saving under a lock: its own picks a file name from an older index.

    A damaged entry is a miss, and one that cannot be written is a warning, where Numba's own raises.

    cache, impl, locator : Numba's classes of a target, or those of the package that provides it
    home, stamp : the directory, and the digest that it is named after
    """

    class Locator(locator):  # type: ignore[misc]  # a class of a package that has no types
        """Places every kernel of the package in one directory."""

        def __init__(self, py_func: Any, py_file: str) -> None:
            self._name = f"{pathlib.Path(py_file).stem}-{py_func.__code__.co_firstlineno}"

        def get_cache_path(self) -> str:
            return str(home())

        def get_source_stamp(self) -> str:
            return stamp()

        def get_disambiguator(self) -> str:
            return self._name

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Locator:
            return cls(py_func, py_file)

    class Impl(impl):  # type: ignore[misc]  # a class of a package that has no types
        _locator_classes = [Locator]  # noqa: RUF012  (Numba's own class attribute)

    class Cache(cache):  # type: ignore[misc]  # a class of a package that has no types
        _impl_class = Impl

        def _load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super()._load_overload(sig, target_context)
            except (EOFError, pickle.UnpicklingError):  # a damaged file, from a full disk for example: start afresh
                with _interprocess_lock(pathlib.Path(self.cache_path) / ".lock"):
                    self.flush()
                return None

        def _save_overload(self, sig: Any, data: Any) -> None:
            try:
                with _interprocess_lock(pathlib.Path(self.cache_path) / ".lock"):
                    super()._save_overload(sig, data)
            except OSError as error:  # a full disk: the kernel runs, and the next process compiles it again
                _warn(self.cache_path, error)

    return Cache


@contextlib.contextmanager
def _interprocess_lock(path: pathlib.Path) -> Iterator[None]:
    with open(path, "a+b") as handle:
        if sys.platform == "win32":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
            try:
                yield
            finally:
                handle.seek(0)
                msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)
