"""Checks of parameters: numbers, choices, small vectors and matrices.

A value outside the allowed ones is a ValueError, and one of the wrong type a `ParameterTypeError`.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import sizes

# Probabilities and shares typed by hand or computed in float32 miss a sum of 1 by about this much.
UNIT_TOLERANCE = 1e-6


class ParameterTypeError(TypeError, ValueError):
    """A parameter of the wrong type.  It is a ValueError too, as scikit-learn's own error for wrong parameters is."""


def listed(values: Iterable[object]) -> str:
    """Values as text for a message, such as "'a', 'b'"."""
    return ", ".join(map(repr, values))


def check_choice(value: Any, choices: Sequence[str], name: str) -> str:
    """One of the listed strings."""
    if not isinstance(value, str) or value not in choices:
        kind = ValueError if isinstance(value, str) else ParameterTypeError
        raise kind(f"{name}={value!r} is unknown; choose one of {listed(choices)}.")
    return value


def as_path(value: Any, name: str) -> Path:
    """A path of text or os.PathLike; a number, which `open` takes for an open file, is none."""
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise ParameterTypeError(f"{name}={value!r} must be a path: a str or os.PathLike.")


def check_bool(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise ParameterTypeError(f"{name}={value!r} must be True or False.")
    return bool(value)


def check_real(
    value: Any,
    name: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> float:
    """A real number with low <= value <= high and above < value < below, where these are given; never NaN.

    below=inf asks for a finite number.
    """
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if is_real else math.nan
    fits = (
        not math.isnan(number)
        and (low is None or number >= low)
        and (above is None or number > above)
        and (high is None or number <= high)
        and (below is None or number < below)
    )
    if fits:
        return number
    kind = "finite" if below == math.inf else "real"
    bounds = ((">=", low), (">", above), ("<=", high), ("<", None if below == math.inf else below))
    within = " and ".join(f"{sign} {bound:.6g}" for sign, bound in bounds if bound is not None)
    message = f"{name}={value!r} must be a {kind} number {within}".rstrip()
    raise (ValueError if is_real else ParameterTypeError)(f"{message}.")


def check_integer(
    value: Any, name: str, *, low: int, high: int | None = None, high_is: str = "", or_none: str = ""
) -> int:
    """An integer, at least `low` and at most `high`.

    high_is : what `high` is, in words, for the message;  or_none : what None means, where the caller takes that too
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_integer and low <= int(value) and (high is None or int(value) <= high):
        return int(value)
    none = f", or None for {or_none}" if or_none else ""
    most = "" if high is None else f" and <= {f'{high_is} = ' if high_is else ''}{high}"
    raise (ValueError if is_integer else ParameterTypeError)(
        f"{name}={value!r} must be an integer >= {low}{most}{none}."
    )


def check_float_dtype(dtype: Any) -> np.dtype:
    """numpy.float32 or numpy.float64, as a dtype."""
    found = np.dtype(dtype)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ParameterTypeError(f"dtype={found} must be float32 or float64.")
    return found


def _real_array(values: Any, name: str, ndim: int) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made into an array, since its entries differ in length.") from error
    if array.dtype.kind not in "iuf":
        raise ParameterTypeError(f"{name} must hold real numbers; it has dtype {array.dtype}.")
    if array.ndim != ndim or array.size == 0:
        dimensions = {1: "one-dimensional", 2: "two-dimensional"}[ndim]
        raise ValueError(f"{name} must be {dimensions} and not empty; it has shape {array.shape}.")
    array = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        place = tuple(map(int, bad[0]))
        raise ValueError(f"{name}[{', '.join(map(str, place))}]={array[place]} must be finite.")
    return array


def check_vector(values: Any, name: str) -> np.ndarray:
    """A non-empty 1-D float64 array of finite numbers."""
    return _real_array(values, name, 1)


def check_matrix(matrix: Any, name: str) -> np.ndarray:
    """A non-empty 2-D float64 array of finite numbers."""
    return _real_array(matrix, name, 2)


def memory_bytes(max_memory: Any) -> int | None:
    """Bytes from a number or from text such as "500MB", "2G" or "2 GiB"; None, no limit, for None and inf."""
    if max_memory is None:
        return None
    if isinstance(max_memory, str):
        size = sizes.parse_bytes(max_memory)
        if size is None:
            raise ValueError(f"max_memory={max_memory!r} is not a size; write for example '500MB', '2GiB' or 2e9.")
        return size
    limit = check_real(max_memory, "max_memory", low=1)
    return None if math.isinf(limit) else int(limit)
