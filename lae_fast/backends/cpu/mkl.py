"""Intel MKL where the extra `mkl` has installed it: found, loaded, and its routines' addresses for blas.py.

`LAE_FAST_BLAS` chooses: "auto" (MKL where it is found, else SciPy's OpenBLAS), "scipy", or "mkl", which raises where
MKL is missing.  MKL runs without threads of its own: this package calls it from threads, and a forked child would
inherit a dead pool.  Where other code has loaded it before, its threading is left alone; `threads.serial_blas` sees to
that.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import sys

CHOICES = ("auto", "scipy", "mkl")
_PATTERNS = ("lib/libmkl_rt.so*", "Library/bin/mkl_rt*.dll")
_SEQUENTIAL, _LP64 = 1, 0


@functools.cache
def loaded() -> ctypes.CDLL | None:
    """The loaded library, or None where SciPy's BLAS is to be used.

    Raises
    ------
    ValueError
        `LAE_FAST_BLAS` is none of the choices, or asks for MKL where there is none.
    """
    choice = os.environ.get("LAE_FAST_BLAS", "auto").lower()
    if choice not in CHOICES:
        raise ValueError(f"LAE_FAST_BLAS={choice!r} is unknown; choose one of {', '.join(CHOICES)}.")
    path = None if choice == "scipy" else find()
    if path is None:
        if choice == "mkl":
            raise ValueError(f"LAE_FAST_BLAS=mkl, but {sys.prefix} has no MKL: pip install 'lae-fast[mkl]'.")
        return None
    return _load(path)


def find() -> pathlib.Path | None:
    """Path of MKL's run-time library in this environment."""
    for pattern in _PATTERNS:
        for path in sorted(pathlib.Path(sys.prefix).glob(pattern)):
            return path
    return None


def _load(path: pathlib.Path) -> ctypes.CDLL | None:
    first = not _is_loaded(path)
    try:
        mkl = ctypes.CDLL(str(path))
    except OSError:  # built for another processor, or a part of it is missing
        return None
    if first:
        mkl.MKL_Set_Interface_Layer(_LP64)
        mkl.MKL_Set_Threading_Layer(_SEQUENTIAL)
    return mkl


def _is_loaded(path: pathlib.Path) -> bool:
    try:
        return path.name in pathlib.Path("/proc/self/maps").read_text()
    except OSError:
        return False


def address(name: str) -> int:
    """Address of a routine of the loaded library, by its Fortran name without the underscore."""
    symbol = name.upper() if sys.platform == "win32" else f"{name}_"
    return ctypes.cast(getattr(loaded(), symbol), ctypes.c_void_p).value or 0
