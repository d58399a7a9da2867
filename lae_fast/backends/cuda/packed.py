"""Arguments of a kernel as the driver takes them, packed without Numba, which looks at each of them at every launch.

Numba passes an array as two null pointers, its number of items and their size, its address, its shape and its strides
in bytes; a number as one of its type.  That a kernel takes ours for Numba's is checked at its first launch
(`same_as_numba`): where a version of Numba packs otherwise, or cuda.core is missing, Numba goes on to launch it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_NUMBERS: dict[type, Any] = {
    int: ctypes.c_int64, np.int64: ctypes.c_int64, np.int32: ctypes.c_int32, float: ctypes.c_double,
    np.float64: ctypes.c_double, np.float32: ctypes.c_float,
}  # fmt: skip


def kinds(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """What the compiled code depends on: type of each number; dtype, dimensions and order of each array."""
    return tuple(
        (argument.dtype, argument.ndim, argument.flags.c_contiguous, argument.flags.f_contiguous)
        if _is_array(argument)
        else type(argument)
        for argument in arguments
    )


def packed(arguments: Sequence[Any]) -> list[Any] | None:
    """What `cuda.core.launch` takes; None where an argument is of another type."""
    found: list[Any] = []
    for argument in arguments:
        if _is_array(argument):
            shape, strides, where = argument.shape, argument.strides, 0
            if argument.size:
                where = argument.data.ptr
            else:  # Numba's, whatever an empty array says
                strides = tuple(argument.itemsize * math.prod(shape[k + 1 :]) for k in range(len(shape)))
            found += (0, 0, argument.size, argument.itemsize, where, *shape, *strides)
        elif type(argument) is bool:
            found.append(argument)
        elif type(argument) in _NUMBERS:
            found.append(_NUMBERS[type(argument)](argument))
        else:
            return None
    return found


def _is_array(argument: Any) -> bool:
    """Its class is asked: an array's own answer is made anew each time."""
    return hasattr(type(argument), "__cuda_array_interface__")


def same_as_numba(ours: Sequence[Any], kernel: Any, views: Sequence[Any]) -> bool:
    """Whether Numba packs the same for a compiled kernel.  views : the arguments as Numba takes them."""
    theirs: list[Any] = []
    after: list[Any] = []  # what is to be done after the launch, for arrays that are copied
    for kind, argument in zip(kernel.argument_types, views):
        kernel._prepare_args(kind, argument, 0, after, theirs)
    return not after and [_known(one) for one in ours] == [_known(one) for one in theirs]


def _known(value: Any) -> tuple[int, Any]:
    """Size in bytes and value; NaN is the same as NaN."""
    size = 1 if type(value) is bool else 8 if isinstance(value, int) else ctypes.sizeof(value)
    return size, repr(getattr(value, "value", value))
