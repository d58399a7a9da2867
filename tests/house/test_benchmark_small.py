"""The benchmark of small data: from which size on nothing is lost, and its table."""

from benchmarks import small
from benchmarks.lib import tables


def case(work, m, ratio):
    times = {"lae_fast": 1e-3, "full": ratio * 1e-3}
    return {"work": work, "shape": [m, 10], "lower_quartile_s": times, "peer": "full", "ratio": ratio}


def test_the_crossover_is_the_smallest_size_above_the_last_loss():
    cases = [case("fit", m, ratio) for m, ratio in ((10, 2.0), (1000, 0.9), (100, 1.2), (5000, 1.1), (4000, 1.0))]
    assert small.crossover(cases, "fit") == 40_000
    assert small.crossover(cases[:2], "fit") is None
    assert small.crossover(cases[:1], "fit") == 100


def test_the_table_shows_wins_and_losses():
    cases = [case("fit", 10, 0.5), case("transform", 10, 2.0)]
    lines = tables.small({"cases": cases, "crossover": {"fit": None, "transform": 100}, "settings": {"threads": 1}})
    assert "| fit | 10 x 10 | 1000 us | 500 us, full | 0.50x as fast |" in lines
    assert "| transform | 10 x 10 | 1000 us | 2000 us | **2.00x** as fast |" in lines
    assert "fit: the largest is lost; transform: none lost from 100 entries up" in lines[-1]
