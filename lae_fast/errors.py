"""Exceptions and warnings of lae_fast.

`ConvergenceWarning` is scikit-learn's own class, so that a filter written for scikit-learn also catches ours; it is
resolved when first used because importing lae_fast must not import scikit-learn.
"""

from __future__ import annotations

import sys
from typing import Any


def user_level() -> int:
    """The `stacklevel` of a warning that is to name the user's line: that of the first caller outside the library.

    Called as an argument of `warnings.warn`.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lae_fast", "sklearn"):
        level, frame = level + 1, frame.f_back
    return level


class LaeFastError(Exception):
    """Base class of the errors that are not plain ValueError or TypeError."""


class BackendUnavailableError(LaeFastError, RuntimeError):
    """The backend asked for cannot run here; the message says what was probed and what to do."""


class UnsupportedOnBackendError(LaeFastError, RuntimeError):
    """The backend runs, but not this operation; the message says why and which backend does."""


class MemoryLimitError(LaeFastError, MemoryError):
    """`max_memory` is smaller than the least workspace that can do the job; the message says what is needed."""


class DivergenceError(LaeFastError, ArithmeticError):
    """A training run met NaN or inf, or its loss grew far; the message says at which iteration and what to lower."""


class DataFileError(LaeFastError, ValueError):
    """A file is truncated, unreadable or not what its name says."""


def __getattr__(name: str) -> Any:
    if name == "ConvergenceWarning":
        from sklearn.exceptions import ConvergenceWarning

        return ConvergenceWarning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
