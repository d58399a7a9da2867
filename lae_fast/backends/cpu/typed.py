"""What kernels that others may call refuse when they are compiled: it costs nothing when they run.

May import jit.py and Numba only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.extending import overload

from .jit import JIT_DISABLED

_DTYPES = ("float32", "float64")


def one_dtype(kernel: str, *names: str) -> Callable[..., None]:
    """A function to be called first in a kernel, with its arrays of those names.

    It refuses arrays of other dtypes than float32 or float64 or of two of them, and matrices of columns (F order): by
    a TypeError while the caller is compiled, or at once where compilation is switched off.
    """

    def check(*arrays: Any) -> None:
        _refuse(kernel, names, [str(array.dtype) for array in arrays], [_is_by_column(array) for array in arrays])

    if not JIT_DISABLED:

        @overload(check)
        def check_types(*arrays):  # type: ignore[no-untyped-def]
            wrong = [name for name, kind in zip(names, arrays) if not isinstance(kind, types.Array)]
            if wrong:
                raise TypeError(f"{kernel}: {', '.join(wrong)} must be an array")
            _refuse(
                kernel,
                names,
                [str(kind.dtype) for kind in arrays],
                [kind.ndim == 2 and kind.layout == "F" for kind in arrays],
            )
            return lambda *arrays: None

    return check


def _refuse(kernel: str, names: Sequence[str], dtypes: Sequence[str], by_column: Sequence[bool]) -> None:
    if len(set(dtypes)) > 1 or not set(dtypes) <= set(_DTYPES):
        held = ", ".join(f"{name} {dtype}" for name, dtype in zip(names, dtypes))
        raise TypeError(f"{kernel}: all arrays must have one dtype, float32 or float64; here: {held}")
    if any(by_column):
        wrong = ", ".join(name for name, found in zip(names, by_column) if found)
        raise TypeError(f"{kernel}: {wrong} must hold rows (C order); a transpose or an array in F order holds columns")


def _is_by_column(array: Any) -> bool:
    return array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous
