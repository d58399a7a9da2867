"""Ordered against MSE: ratios and intervals from times whose answer is known, counts, tables; nothing is timed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks import ordered, report  # noqa: E402
from benchmarks.lib import costs, harness, ordered_tables, paired, training_steps  # noqa: E402


def times(rng, ratio, placements=10, rounds=36):
    """Times of two contestants, one `ratio` times the other, with the noise of a busy machine: it only adds."""
    where = np.exp(0.01 * rng.standard_normal((placements, 1, 2)))
    noise = 1.0 + rng.gamma(0.3, 0.3, (placements, rounds, 2))
    found = where * noise * [ratio, 1.0]
    return found[..., 0], found[..., 1]


@pytest.mark.parametrize("ratio", [1.0, 1.05])
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(ratio):
    rng = np.random.default_rng(0)
    intervals = [paired.ratio(paired.draws(*times(rng, ratio), 400, rng)) for _ in range(60)]
    held = np.mean([found["low"] <= ratio <= found["high"] for found in intervals])
    assert 0.85 <= held <= 1.0
    assert np.median([found["high"] - found["low"] for found in intervals]) < 0.03
    assert np.median([found["value"] for found in intervals]) == pytest.approx(ratio, abs=0.005)


def test_one_placement_that_is_off_widens_the_interval():
    rng = np.random.default_rng(0)
    mine, theirs = times(rng, 1.0)
    before = paired.ratio(paired.draws(mine, theirs, 400, rng))
    mine[3] *= 1.3
    after = paired.ratio(paired.draws(mine, theirs, 400, rng))
    assert after["high"] - after["low"] > 2 * (before["high"] - before["low"])


def test_the_slope_is_per_factor_of_ten():
    places = [1, 10, 100]
    values = np.log(np.array([[1.0] * 5, [1.1] * 5, [1.2] * 5]))
    assert paired.slope(places, values)["value"] == pytest.approx(0.1)
    assert paired.slope(places, values[::-1])["value"] == pytest.approx(-0.1)


def test_every_contestant_runs_once_a_round_in_orders_that_repeat():
    logs = []
    for _ in range(2):
        log = []
        work = [lambda k=k, log=log: log.append(k) for k in range(3)]
        assert paired.rounds(work, 60, itertools.count().__next__).tolist() == [[1.0] * 3] * 60
        rounds = list(zip(log[::3], log[1::3], log[2::3]))
        assert all(sorted(order) == [0, 1, 2] for order in rounds)
        assert len(set(rounds)) == 6
        logs.append(log)
    assert logs[0] == logs[1]


def test_counts_differ_by_one_product_a_row_of_two_matrices():
    for p, step in ((5, "gradient"), (130, "adam")):
        for batch in (None, 512):
            found = training_steps.counts(p, 1000, batch, step)
            assert found["ordered"]["flops"] - found["mse"]["flops"] == 2 * p
            assert found["ordered"]["bytes"] - found["mse"]["bytes"] == 8 * p
    # p = 1: products with S, two Gram matrices of one entry, their factors, two outer products, 14 flops an entry.
    assert training_steps.counts(1, 10, None, "gradient")["mse"]["flops"] == 400 + 40 + 2 + 40 + 280


def result(**values):
    """A run over two widths, `values` for the ratio beside the kernel at p = 100."""
    flat = {"value": 1.0, "low": 0.995, "high": 1.005}
    ratio = {"mse": flat, "kernel": flat | values}
    counts = training_steps.counts(100, 1000, None, "gradient")
    cases = [
        {
            "d": 1000, "p": p, "regime": regime, "step": step, "pairs": 90, "placements": 10, "counts": counts,
            "correct": {"ordered": True}, "us": {"ordered": 10.0}, "ratio": ratio,
        }
        for p in (10, 100) for regime, step in ordered.KINDS
    ]  # fmt: skip
    slope = {"value": 0.0, "low": -0.001, "high": 0.001}
    return {
        "benchmark": "ordered", "smoke": False, "environment": harness.environment(("numpy",)), "cases": cases,
        "summary": {
            "mse": {"by_width": {"10": flat, "100": flat}, "slope": slope},
            "kernel": {"by_width": {"10": flat, "100": flat | values}, "slope": slope | {"low": 0.0001}},
        },
    }  # fmt: skip


def test_the_table_says_what_leaves_the_aim_and_what_grows():
    text = "\n".join(ordered_tables.summary(result(value=1.03, high=1.04)))
    assert "| 100 | 1.000 (0.995 to 1.005) | 1.030 (0.995 to 1.040) |" in text
    assert "squared error in the same loop: 2 of 2 intervals lie within 0.98 to 1.02." in text
    assert "only: 1 of 2 intervals lie within 0.98 to 1.02 (not p = 100)." in text
    assert "(-0.0010 to +0.0010), which includes 0." in text
    assert "(+0.0001 to +0.0010), which does not include 0." in text
    assert "at least 360 rounds" in text and "Wrong" not in text
    wrong = result()
    wrong["cases"][0]["correct"]["ordered"] = False
    assert "Wrong answers: p = 10, moments, gradient." in "\n".join(ordered_tables.summary(wrong))
    assert "ordered.svg" in report.content(result(), "full", "ordered.svg")


def test_the_plot_is_the_same_file_for_the_same_results(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        ordered_tables.plot(result(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("count n (n + 1)", 7040),
        ("5 n^2 / 2", 250),
        ("3/2 p^2 itemsize", 54),
        ("2 (rows of c)(inner)", 60),
        ("2 p^2 (last - first)", 72),
    ],
)
def test_a_cost_line_is_evaluated_as_it_is_read(formula, value):
    sizes = {"count": 64, "n": 10, "p": 3, "itemsize": 4, "rows of c": 6, "inner": 5, "last": 7, "first": 3}
    assert costs.evaluate(formula, sizes) == value


def test_a_cost_line_must_stand_in_the_docstring():
    def kernel():
        """Sums.  2 m n
        flops."""

    assert costs.cost(kernel, "2 m n", {"m": 3, "n": 4}) == 24
    with pytest.raises(ValueError, match="does not say '3 m n'"):
        costs.cost(kernel, "3 m n", {"m": 3, "n": 4})
    with pytest.raises(ValueError, match="no number for n"):
        costs.cost(kernel, "2 m n", {"m": 3})
