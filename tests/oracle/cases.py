"""Which of a test's cases the short run takes: `python -m pytest`; `--full` runs them all.

A test over several parameters asks for their product. The short run takes few of these cases, in which every value of
every parameter still occurs; `@pytest.mark.every` takes all, and `@pytest.mark.full` none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import pytest

Case = Mapping[str, Hashable]

# A dtype is a set of kernels to compile; tests/eigen/test_routes.py has a fit with each of these in the short run.
RARE = ("int8", "int16", "bool")

full = False  # whether this run is one with --full, for tests that draw their cases themselves


def each(cases: Sequence[Case]) -> list[int]:
    """Which of `cases` (parameter -> value) are enough for every value to occur; the first where there are none.

    Greedy and repeatable: the case that shows most that is new, the first of equals.
    """
    new = [set(case.items()) for case in cases]
    missing, kept = set().union(*new), []
    while missing:
        best = max(range(len(cases)), key=lambda i: (len(new[i] & missing), -i))
        kept.append(best)
        missing -= new[best]
    return sorted(kept) or [0]


def only_full(*values: object) -> list:
    """Values of a parameter that the short run leaves out."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]
