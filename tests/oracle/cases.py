"""Which of a test's cases the short run takes: `python -m pytest`; `--full` runs them all.

A test over several parameters asks for their product, and nearly every fault shows with two of them at once. The short
run takes few cases in which every two values of different parameters still meet; `@pytest.mark.each` takes fewer, in
which every value occurs; `@pytest.mark.every` takes all, and `@pytest.mark.full` none.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence

import pytest

Case = Mapping[str, Hashable]

# A dtype is a set of kernels to compile; tests/eigen/test_routes.py has a fit with each of these in the short run.
RARE = ("int8", "int16", "bool")

full = False  # whether this run is one with --full, for tests that draw their cases themselves


def pairs(cases: Sequence[Case], meeting: int = 2) -> list[int]:
    """Which of `cases` (parameter -> value) are enough for every `meeting` values that occur in a case together.

    Greedy and repeatable: the case that shows most that is new, the first of equals. Cases that differ in nothing else
    than values seen together elsewhere are left out.
    """
    new = [set(itertools.combinations(sorted(case.items()), min(meeting, len(case)))) for case in cases]
    missing = set().union(*new)
    kept = []
    while missing:
        best = max(range(len(cases)), key=lambda i: (len(new[i]), -i))
        kept.append(best)
        missing -= new[best]
        found = new[best].copy()
        for one in new:
            one -= found
    return sorted(kept)


def each(cases: Sequence[Case]) -> list[int]:
    """Which of `cases` are enough for every value to occur once; the first where there is no parameter."""
    return pairs(cases, 1) or [0]


def only_full(*values: object) -> list:
    """Values of a parameter that the short run leaves out."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]
