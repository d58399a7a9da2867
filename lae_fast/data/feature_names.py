"""Names of features: whether two lists of them are the same, and where the columns of one stand in the other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import user_level

# How many names a message lists.
_SHOWN = 5


def of_strings(names: Iterable[Any] | None) -> tuple[str, ...] | None:
    """The names where all of them are strings, else None: as scikit-learn takes the columns of a frame."""
    if names is None:
        return None
    names = tuple(names)
    return tuple(map(str, names)) if names and all(isinstance(name, str) for name in names) else None


def order(names: Sequence[str], wanted: Sequence[str], *, may_differ: bool = True) -> np.ndarray | None:
    """Places in `names` of the `wanted` ones, in their order; None where both lists are equal.

    may_differ : whether the same names may stand in another order

    Raises
    ------
    ValueError
        The names are not the same; the message says which are missing and which are not wanted.
    """
    if list(names) == list(wanted):
        return None
    unseen, missing = sorted(set(names) - set(wanted)), sorted(set(wanted) - set(names))
    # scikit-learn's own words, which people know and search for
    message = "The feature names should match those that were passed during fit.\n"
    if unseen:
        message += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        message += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if unseen or missing:
        raise ValueError(message)
    if not may_differ or len(names) != len(wanted) or len(set(names)) < len(names):
        raise ValueError(message + "Feature names must be in the same order as they were in fit.\n")
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[name] for name in wanted])


def common(one: Sequence[str] | None, other: Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    """The names that both have; None where one of them has none.

    Raises
    ------
    ValueError
        Both have names, and these or their order differ; `what` names the two things in the message.
    """
    if one is None or other is None:
        return None
    if list(one) != list(other):
        only = [sorted(set(a) - set(b)) for a, b in ((one, other), (other, one))]
        if any(only):
            listed = "; ".join(
                f"only {which} has {', '.join(map(repr, left[:_SHOWN]))}{', ...' * (len(left) > _SHOWN)}"
                for which, left in zip(("the first", "the second"), only)
                if left
            )
        else:
            listed = "they have the same names in another order"
        raise ValueError(f"The feature names of {what} differ: {listed}. Give both the same columns in the same order.")
    return tuple(one)


def warn_of_none(one: Sequence[str] | None, other: Sequence[str] | None, what: str) -> None:
    """Warn where one of two things has names and the other none, so that it cannot be checked that their columns agree.

    what : the two things, for the message
    """
    if (one is None) != (other is None):
        which = "first" if other is None else "second"
        warnings.warn(
            f"Of {what} only the {which} has feature names: their columns are taken to be in the same order.",
            UserWarning,
            stacklevel=user_level(),
        )


def label(names: Sequence[str] | None, column: int) -> str:
    """A column in a message: its number, and its name where it has one."""
    return f"column {column}" if names is None else f"column {column} ({names[column]!r})"


def _listed(names: list[str]) -> str:
    return "".join(f"- {name}\n" for name in names[:_SHOWN]) + ("- ...\n" if len(names) > _SHOWN else "")
