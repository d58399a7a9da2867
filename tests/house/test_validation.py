"""Checks at the boundary: what passes, and that each message names the argument and the way out."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast import validation


def test_weights_pass_unchanged():
    assert validation.sample_weights(None, 3) is None
    np.testing.assert_array_equal(validation.sample_weights([1, 0, 2], 3), [1.0, 0.0, 2.0])
    np.testing.assert_array_equal(validation.sample_weights(2, 3), [2.0, 2.0, 2.0])
    assert validation.sample_weights(np.ones(3, np.float32), 3).dtype == np.float64


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"sample_weight has shape \(2,\), but X has 3 samples"),
        ([[1, 2, 3]], r"sample_weight has shape \(1, 3\)"),
        ([1, np.nan, 2], "NaN or inf, first at row 1 "),
        ([1, 2, np.inf], "NaN or inf, first at row 2 "),
        ([1, 2, -1e-9], "must not be negative, first at row 2 "),
        ([0, 0, 0], "zero for every sample"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        validation.sample_weights(weights, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None), (1000, 1000), (2e9, 2 * 10**9), ("500MB", 5 * 10**8), ("2 GiB", 2**31), (" 1.5kb ", 1500),
        ("7", 7), ("3B", 3), ("1TB", 10**12), ("1mib", 2**20), (np.int64(5), 5), ("2G", 2 * 10**9), (2**30, 2**30),
        ("1GiB", 2**30), ("1073741824", 2**30), ("2e9", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("1k", 1000),
        ("3t", 3 * 10**12), (float("inf"), None),
    ],
)  # fmt: skip
def test_memory_bytes(text, expected):
    assert validation.memory_bytes(text) == expected


@pytest.mark.parametrize(
    "bad",
    ["", "MB", "12 parsecs", "-5MB", "1.2.3MB", "5MB extra", "1,5GB", "0MB", "inf", 0, -1, True, float("nan"), [1]],
)
def test_bad_memory(bad):
    with pytest.raises(ValueError, match="max_memory"):
        validation.memory_bytes(bad)


@pytest.mark.parametrize("value", ["b", 1, None, "", ["a"]])
def test_check_choice_lists_the_choices(value):
    assert validation.check_choice("a", ("a", "c"), "kind") == "a"
    with pytest.raises(ValueError, match=r"kind=.* is unknown; choose one of 'a', 'c'"):
        validation.check_choice(value, ("a", "c"), "kind")


@pytest.mark.parametrize("value", [-0.1, float("nan"), "1", None, True, 1j])
def test_check_real(value):
    assert validation.check_real(np.float32(0.5), "tol", low=0.0) == 0.5
    with pytest.raises(ValueError, match=r"tol=.* must be a real number >= 0"):
        validation.check_real(value, "tol", low=0.0)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_check_integer(value):
    assert validation.check_integer(np.int32(4), "n", low=1) == 4
    with pytest.raises(ValueError, match=r"n=.* must be an integer >= 1"):
        validation.check_integer(value, "n", low=1)


def test_nonfinite_message_names_place_and_kind():
    message = validation.nonfinite_message(3, "column 5", float("nan"))
    assert "Input X contains NaN" in message and "row 3, column 5" in message
    assert "infinity" in validation.nonfinite_message(0, "column 0", float("-inf"))


def test_sliceable_is_no_array_and_no_frame():
    class Frame:
        shape, dtype, chunks, iloc = (2, 2), np.dtype(float), None, None

        def __getitem__(self, key):
            return None

    assert not validation.is_sliceable(np.ones((2, 2)))
    assert not validation.is_sliceable(Frame())
    assert not validation.is_sliceable([[1, 2]])


def test_is_sparse_does_not_import_scipy(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "scipy.sparse", raising=False)
    assert not validation.is_sparse(object())
    assert "scipy.sparse" not in sys.modules
