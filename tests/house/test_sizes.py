"""Sizes in messages: figures that can be read, are true, and may be typed back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lae_fast import plan, sizes
from lae_fast.errors import MemoryLimitError


@given(st.integers(1, 10**18))
def test_a_size_is_read_as_it_was_written(count):
    shown, needed = sizes.format_bytes(count), sizes.format_bytes(count, at_least=True)
    assert abs(sizes.parse_bytes(shown) - count) <= 0.006 * count
    assert count <= sizes.parse_bytes(needed) <= 1.011 * count
    assert re.fullmatch(r"\d{1,3}(\.\d{1,2})? [kMGTP]?B|\d{4} PB", shown)


@given(st.integers(1, 10**7), st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(["gram", "krylov"]))
def test_whoever_allows_the_figure_of_a_refusal_is_not_refused(limit, m, d, solver):
    arguments = {"n_threads": 2, "solver": solver, "block": 15}
    try:
        plan.choose_route(m, d, 5, 4, max_memory=limit, **arguments)
    except MemoryLimitError as error:
        found = re.search(r"max_memory=(.+?) is too small: .* needs (.+?) for", str(error))
        assert sizes.parse_bytes(found[1]) <= 1.006 * limit
        plan.choose_route(m, d, 5, 4, max_memory=sizes.parse_bytes(found[2]), **arguments)


@given(st.integers(1, 10**6), st.integers(2, 5000), st.integers(1, 10**8), st.sampled_from([4, 8]))
def test_the_reason_never_argues_for_the_other_route(m, d, nnz, itemsize):
    """What takes fewer flops is taken, or the reason says why not."""
    nnz = min(nnz, m * d)
    route = plan.choose_route(m, d, 5, itemsize, block=15, n_threads=2, nnz=nnz)
    reason = route.reason
    if found := re.search(r"takes (\S+) flops, \d+ expected Krylov passes ([^;]+)", reason):
        gram, krylov = float(found[1]), float(found[2])
        assert gram <= krylov if route.solver == "gram" else krylov <= gram
    else:
        assert "would take" in reason or "although" in reason


@pytest.mark.parametrize(
    "text", ["", "MB", "0", "0.0GB", "1.2.3MB", "5 MB extra", "-5MB", "inf", "nan", "1e", "e3", "1e-3", "1e999"]
)
def test_what_is_no_size(text):
    assert sizes.parse_bytes(text) is None
