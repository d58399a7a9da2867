"""What kernels that others may call refuse when they are compiled: it costs nothing when they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numba import types
from numba.extending import overload

from .jit import JIT_DISABLED

# Which dtypes an array may have: that of the other arrays with SAME, which is float32 or float64.
SAME, FLOAT64, REAL = "same", "float64", "real"


@dataclass(frozen=True)
class Taken:
    """What a kernel takes for one of its arrays.

    ndim : number of dimensions;  dtype : SAME, FLOAT64, or REAL (any integers or floats);  written : whether the kernel
    writes to it;  contiguous : whether its rows must follow each other without gaps
    """

    ndim: int
    dtype: str = SAME
    written: bool = False
    contiguous: bool = False


MATRIX, VECTOR = Taken(2), Taken(1)
WRITTEN = Taken(2, written=True)
DOUBLES = Taken(1, FLOAT64)


@dataclass(frozen=True)
class _Found:
    """What is known of an array when its kernel is compiled."""

    ndim: int
    dtype: str
    layout: str  # "C", "F", or "A" for any other strides
    writeable: bool


def checked(kernel: str, **arrays: Taken) -> Callable[..., None]:
    """A function to be called first in a kernel, with its arrays in the order of `arrays`.

    It refuses what does not fit: by a TypeError while the caller is compiled, or at once where compilation is switched
    off.
    """

    def check(*given: Any) -> None:
        _refuse(kernel, arrays, [_of_array(array) for array in given])

    if not JIT_DISABLED:

        @overload(check)
        def check_types(*given):
            wrong = [name for name, kind in zip(arrays, given) if not isinstance(kind, types.Array)]
            if wrong:
                raise TypeError(f"{kernel}: {', '.join(wrong)} must be an array")
            _refuse(kernel, arrays, [_Found(kind.ndim, str(kind.dtype), kind.layout, kind.mutable) for kind in given])
            return lambda *given: None

    return check


def _of_array(array: Any) -> _Found:
    flags = array.flags
    layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
    return _Found(array.ndim, str(array.dtype), layout, flags.writeable)


def _refuse(kernel: str, taken: dict[str, Taken], found: Sequence[_Found]) -> None:
    pairs = [(name, wanted, held) for (name, wanted), held in zip(taken.items(), found)]
    same = [(name, held.dtype) for name, wanted, held in pairs if wanted.dtype == SAME]
    dtypes = {dtype for _, dtype in same}
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in same)
        raise TypeError(f"{kernel}: all arrays must have one dtype, float32 or float64; here: {listed}")
    for name, wanted, held in pairs:
        if held.ndim != wanted.ndim:
            raise TypeError(f"{kernel}: {name} must have {wanted.ndim} dimension(s), not {held.ndim}")
        if wanted.dtype == FLOAT64 and held.dtype != "float64":
            raise TypeError(f"{kernel}: {name} must be float64, whatever the other arrays are; here: {held.dtype}")
        if wanted.dtype == REAL and not held.dtype.startswith(("int", "uint", "float", "bool")):
            raise TypeError(f"{kernel}: {name} must hold real numbers; here: {held.dtype}")
        if wanted.ndim == 2 and held.layout == "F":
            raise TypeError(
                f"{kernel}: {name} must hold rows (C order); a transpose or an array in F order holds columns"
            )
        if wanted.contiguous and held.layout != "C":
            raise TypeError(
                f"{kernel}: {name} must be C-contiguous, and a slice of columns is not; pass numpy.ascontiguousarray"
                f"({name})"
            )
        if wanted.written and not held.writeable:
            raise TypeError(f"{kernel}: {name} is written to, and the array is read-only")
