"""What sums in the compute dtype are off by is seen: backends/drift.py, and the kernels that it is told by."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.backends import sample_weights as weights
from lae_fast.backends.cpu.passes import gram as gram_passes
from lae_fast.backends.cpu.passes import inspection, tiles
from lae_fast.backends.drift import (
    LARGEST_DRIFT,
    constant_floor,
    drift_of,
    drift_of_differences,
    fewest_lines,
    roundoff,
)
from lae_fast.operators import pilot
from lae_fast.operators.moments import Moments
from tests.oracle import naive


def compared(*arguments):
    return drift_of_differences(inspection.inspect(*arguments).differences, 4)


def test_what_a_chunk_is_off_by():
    rng = np.random.default_rng(0)
    gram, sums = np.diag(rng.random(20) + 1).astype(np.float32), rng.random(20)
    squares, floor = gram.diagonal() * (1 + 1e-6 * rng.standard_normal(20)), rng.random(20)
    squares[3] = gram[3, 3]
    wrong, of = gram.diagonal() - squares, np.maximum(squares - sums**2 / 7.0, 7.0 * floor)
    found = compared(gram, np.empty(0, np.int64), sums, squares, 7.0, floor)
    assert found == pytest.approx(drift_of(wrong, of, 4), rel=1e-12)
    few = np.array([2, 5])
    found = compared(gram[few][:, few].copy(), few, sums, squares, 7.0, floor)
    assert found == pytest.approx(drift_of(wrong[few], of[few], 4), rel=1e-12)
    assert drift_of(np.zeros(5), np.zeros(5), 4) == 0.0
    assert drift_of(np.full(5, np.nan), np.ones(5), 4) == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_floor", [True, False])
@pytest.mark.parametrize("off", [0.0, 5.0])
def test_an_inspection_says_what_numpy_says(dtype, with_floor, off):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((50, 9)).astype(dtype).astype(np.float64)
    rows[:, 4], rows[:, 5] = 0.1, 0.0
    rows[:, 7] += off
    sums, squares = rows.sum(axis=0), (rows**2).sum(axis=0)
    gram = (rows.T @ rows).astype(dtype)
    floor = np.full(9, 0.3) if with_floor else np.empty(0)
    found = inspection.inspect(gram, np.empty(0, np.int64), sums, squares, 50.0, floor)
    assert found.finite and found.in_range and found.largest == squares.max()
    assert found.is_off == (with_floor and weights.shift_is_off(sums, squares, 50.0, floor))
    least = constant_floor(sums, squares, 50.0, floor if with_floor else None, gram.itemsize)
    of = np.maximum(squares - sums**2 / 50.0, 0.0 if least is None else 50.0 * least)
    size = gram.itemsize
    expected = drift_of(gram.diagonal() - squares, of, size)  # NumPy adds in another order
    assert drift_of_differences(found.differences, size) == pytest.approx(expected, rel=1e-12)
    gram[3, 3] = squares[2] = np.inf
    found = inspection.inspect(gram, np.empty(0, np.int64), sums, squares, 50.0, floor)
    assert found.finite and not found.in_range and not found.is_off and found.largest == np.inf
    sums[8] = np.nan
    assert not inspection.inspect(gram, np.empty(0, np.int64), sums, squares, 50.0, floor).finite


@pytest.mark.needs_jit
def test_equal_rows_show_in_sums_of_their_squares():
    rows = np.full((128, 12), 0.1, np.float32) * np.linspace(1, 2, 12, dtype=np.float32)
    runs, drift = np.zeros((3, 12), np.float32), np.zeros((3, 12))
    tiles.compare_sums(rows, runs, drift)
    exact = (rows.astype(float) ** 2).sum(axis=0)
    np.testing.assert_allclose(drift[1], exact, rtol=5e-7)
    np.testing.assert_allclose(runs[2], exact, rtol=80 * roundoff(4))
    assert drift_of(runs[2] - drift[1], drift[1], 4) > LARGEST_DRIFT


def test_how_many_lines_make_up_a_sum():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((100, 12))
    rows[:, 1], rows[:, 2], rows[7, 2] = 3.0, 0.0, 5.0
    runs, drift = np.zeros((3, 12)), np.zeros((4, 12))
    tiles.compare_sums(rows, runs, drift)
    np.testing.assert_allclose(drift[[1, 3]], [(rows**2).sum(axis=0), (rows**4).sum(axis=0)], rtol=1e-13)
    assert [fewest_lines(drift[1, j : j + 1], drift[3, j : j + 1]) for j in (1, 2)] == pytest.approx([100.0, 1.0])
    assert fewest_lines(drift[1], drift[3]) == pytest.approx(1.0)
    assert fewest_lines(np.zeros(2), np.zeros(2)) == np.inf


def test_even_weights():
    assert weights.are_even(np.empty(0)) and weights.are_even(np.ones(5)) and weights.are_even(np.array([1.0, 2, 3, 0]))
    assert not weights.are_even(np.array([1e6, 1.0])) and not weights.are_even(np.repeat([1e6, 1.0], [9, 3]))


def test_weight_that_a_few_rows_hold():
    assert weights.outweighed(np.r_[1e5, np.ones(400)]) and weights.outweighed(np.r_[[100.0] * 20, np.ones(400)])
    assert not weights.outweighed(np.r_[[100.0] * 200, np.ones(400)])
    for even in (np.empty(0), np.zeros(3), np.ones(9), np.r_[4.0, np.ones(9)]):
        assert not weights.outweighed(even)


def test_a_few_large_sums_count_more_than_many_small_ones():
    wrong, of = np.r_[np.full(4, 7e3), np.full(300, 0.5)] * roundoff(4), np.r_[np.full(4, 1e3), np.ones(300)]
    assert drift_of(wrong, of, 4) > LARGEST_DRIFT
    assert drift_of(wrong[4:], of[4:], 4) == pytest.approx(0.5)
    assert drift_of(np.r_[wrong, 1.0], np.r_[of, 0.0], 4) == np.inf


@pytest.mark.needs_jit
def test_rows_that_outweigh_others_in_a_few_columns_are_summed_in_float64():
    """What such rows leave of the others is lost in these columns' products; the other columns' are right."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        X, w = rng.standard_normal((256, 200)), np.ones(256)
        heavy = rng.choice(256, 3, replace=False)
        X[heavy, :4] = rng.choice([0.0, 1e3], (3, 4))
        w[heavy] = 1e6
        moments = Moments.from_data(X.astype(np.float32), sample_weight=w)
        exact = naive.moments(X.astype(np.float32).astype(float), w)[2]
        assert moments.run == 0  # in float64
        size = np.sqrt(np.multiply.outer(exact.diagonal(), exact.diagonal()))
        assert (np.abs(moments.xx - exact) <= 2.0 * roundoff(4) * size)[:4].all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("unused", [False, True])
def test_a_feature_that_drifts_is_summed_again_alone(weighted, unused, monkeypatch):
    """Two values of one magnitude, chosen for its last digits: equal squares, so equal rounding errors of their sum."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((4096, 80)).astype(np.float32)
    X[:, 7] = np.float32(0.260150373) * rng.choice([-1.0, 1.0], len(X)).astype(np.float32)
    if unused:  # entries that the Gram leaves out
        X[:, 20:60] = 0.0
    weights = rng.choice([1.0, 4.0], len(X)) if weighted else None  # their roots leave the last digits as they are
    slots, again = [], []
    slot = gram_passes._GramSlot
    made, summed = slot.__init__, slot.sum_again
    monkeypatch.setattr(slot, "__init__", lambda self, view, dtype: slots.append(dtype) or made(self, view, dtype))
    monkeypatch.setattr(slot, "sum_again", lambda *given: again.append(list(given[-1])) or summed(*given))
    monkeypatch.setattr(pilot, "coarse", lambda mean, deviation: np.zeros_like(mean))  # the shift is no third value
    moments = Moments.from_data(X, sample_weight=weights)
    assert again and all(few == [7] for few in again)
    assert {np.dtype(dtype) for dtype in slots} == {np.dtype(np.float32)}  # no chunk was summed in float64 as a whole
    doubled = X.astype(np.float64)
    w = np.ones(len(X)) if weights is None else weights
    mean = w @ doubled / w.sum()
    exact = (doubled - mean).T @ ((doubled - mean) * w[:, None])
    scale = np.sqrt(np.outer(exact.diagonal(), exact.diagonal())) + np.finfo(float).tiny
    assert (abs(moments.xx - exact)[7] / scale[7]).max() < 4 * np.finfo(np.float32).eps
