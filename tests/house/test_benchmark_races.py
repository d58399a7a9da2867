"""How benchmarks race: who is timed, how often, in which order, and how times are summed up.

No test here measures time: contestants run against a fake clock.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks.lib import harness, peers, race, shapes  # noqa: E402


class Clock:
    """A clock that only contestants move; it remembers who ran."""

    def __init__(self):
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contestant(self, name: str, *seconds: float, answer=None, **options) -> harness.Contestant:
        """Takes seconds[k] in its run k, the last of them from then on."""
        runs = iter(seconds)
        last = seconds[-1]

        def run():
            self.now += next(runs, last)
            self.log.append(name)
            return answer

        return harness.Contestant(name, run, **options)


def run_race(clock: Clock, contestants, **options) -> dict[str, harness.Record]:
    check = options.pop("check", lambda answer: {"accurate": True})
    limit_s = options.pop("limit_s", 100.0)
    records = {c.name: harness.trial(c, check, limit_s=limit_s, clock=clock) for c in contestants}
    clock.log.clear()
    harness.race(contestants, records, clock=clock, sleep=lambda seconds: None, **options)
    return records


@pytest.mark.full
def test_every_round_runs_every_contestant_once_in_a_seeded_shuffled_order():
    orders = []
    for seed in (1, 1, 2):
        clock = Clock()
        contestants = [clock.contestant(name, 1.0) for name in "abcd"]
        run_race(clock, contestants, rounds=6, seed=seed, warm_up_below_s=0.0)
        rounds = [clock.log[i : i + 4] for i in range(0, len(clock.log), 4)]
        assert len(rounds) == 6
        assert all(sorted(names) == list("abcd") for names in rounds)
        orders.append(clock.log)
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(orders[0][i : i + 4]) for i in range(0, 24, 4)}) > 1  # not the same order in every round


def test_warm_up_comes_before_the_rounds_and_is_not_recorded():
    clock = Clock()
    records = run_race(clock, [clock.contestant("a", 9.0, 5.0, 1.0, compiles=True)], rounds=4)
    assert records["a"].first_s == 9.0
    assert records["a"].times == [1.0, 1.0, 1.0, 1.0]  # neither the 9 s trial nor the 5 s warm-up


def test_the_ratio_is_taken_within_rounds():
    ours = harness.Record("ours", "ours", times=[1.0, 2.0, 4.0], rounds=[0, 1, 3])
    peer = harness.Record("peer", times=[2.0, 6.0, 100.0, 4.0], rounds=[0, 1, 2, 3])
    assert harness.round_ratios(peer, ours) == [2.0, 3.0, 1.0]  # round 2 has no partner
    assert harness.summarise(harness.round_ratios(peer, ours))["median"] == 2.0
    assert np.median(peer.times) / np.median(ours.times) != 2.0


def test_summary_is_median_minimum_and_interquartile_range():
    found = harness.summarise([4.0, 1.0, 2.0, 3.0, 10.0])
    assert found == {"median": 3.0, "min": 1.0, "q1": 2.0, "q3": 4.0, "iqr": 2.0, "n": 5}
    assert harness.summarise([]) == {}


def test_the_best_peer_is_the_quickest_accurate_one_and_never_ours():
    records = [
        harness.Record("ours", "ours", accurate=True, times=[1.0]),
        harness.Record("variant", "variant", accurate=True, times=[1.0]),
        harness.Record("quick and wrong", accurate=False, times=[2.0]),
        harness.Record("slow", accurate=True, times=[5.0, 5.0]),
        harness.Record("best", "reference", accurate=True, times=[3.0, 90.0, 3.0]),
        harness.Record("never timed", accurate=True),
    ]
    assert harness.best_accurate(records).name == "best"
    assert harness.best_accurate(records[:3]) is None


def test_a_slow_contestant_gets_fewer_rounds_at_least_three_and_they_are_spread():
    plan = harness.plan_rounds({"a": 1.0, "b": 10.0}, ["a", "b"], rounds=20, budget_s=55.0)
    assert plan["b"] >= 3
    assert plan["a"] > plan["b"]
    assert plan["a"] * 1.0 + plan["b"] * 10.0 <= 55.0
    rounds = [i for i in range(20) if harness.takes_part(i, 4, 20)]
    assert len(rounds) == 4
    assert np.diff(rounds).tolist() == [5, 5, 5]


@pytest.mark.full
def test_without_budget_the_most_important_two_still_race_and_the_others_say_why_not():
    clock = Clock()
    contestants = [clock.contestant(name, 7.0) for name in "abc"]
    records = run_race(clock, contestants, rounds=9, budget_s=1.0, priority=["c", "a", "b"])
    assert [len(records[name].times) for name in "abc"] == [3, 0, 3]
    assert records["b"].status == harness.SKIPPED
    assert "no time for 3 rounds: one run took 7" in records["b"].reason


@pytest.mark.full
def test_one_run_over_the_limit_is_skipped_with_its_time_and_its_answer_is_still_judged():
    clock = Clock()
    contestants = [clock.contestant("a", 1.0), clock.contestant("slow", 12.0)]
    records = run_race(clock, contestants, limit_s=10.0, rounds=3)
    assert records["slow"].status == harness.SKIPPED
    assert records["slow"].reason == "one run took 12.0 s, the limit is 10 s"
    assert records["slow"].accurate is True
    assert "slow" not in clock.log


@pytest.mark.full
def test_compiling_does_not_count_against_the_limit():
    clock = Clock()
    records = run_race(clock, [clock.contestant("ours", 30.0, 1.0, compiles=True)], limit_s=10.0, rounds=3)
    assert records["ours"].status == harness.RACED


def test_a_contestant_that_raises_is_reported_and_the_others_race():
    def fail():
        raise ValueError("no convergence\nsecond line")

    clock = Clock()
    records = run_race(clock, [clock.contestant("a", 1.0), harness.Contestant("b", fail)], rounds=3)
    assert (records["b"].status, records["b"].reason) == (harness.FAILED, "ValueError: no convergence")
    assert records["b"].accurate is False
    assert len(records["a"].times) == 3


def test_json_has_no_infinity_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "new" / "out.json"
    harness.write_json(path, {"a": np.float32(1.5), "b": [np.inf, float("nan")], "c": np.arange(2)})
    harness.write_json(path, {"a": np.float32(2.5), "b": [np.inf, float("nan")], "c": np.arange(2)})
    assert json.loads(path.read_text()) == {"a": 2.5, "b": [None, None], "c": [0, 1]}
    assert [p.name for p in path.parent.iterdir()] == ["out.json"]


def test_environment_names_the_machine_and_holds_no_path():
    found = harness.environment(("numpy", "no-such-package"))
    assert found["packages"] == {"numpy": np.__version__, "no-such-package": None}
    assert found["cpu"]
    assert "site-packages" not in json.dumps(found)
    assert str(Path.home()) not in json.dumps(found) or str(Path.home()) == "/"


def test_a_contestant_that_runs_the_code_of_another_is_reported_and_not_timed_twice():
    chosen = [p for p in peers.contestants() if p.name in ("scikit-learn auto", "scikit-learn covariance_eigh")]
    case = shapes.Case("tiny", "tiny", 90, 8, "float32", 2, lambda: shapes.synthetic(90, 8), aim=None)
    run = race.CaseRun(case, case.load(), chosen, say=lambda text: None)
    run.measure_ceilings(repeats=1)
    run.try_all(deadline=np.inf)
    assert run.records["scikit-learn auto"].status == harness.SKIPPED
    assert "see there" in run.records["scikit-learn auto"].reason
    assert run.records["scikit-learn covariance_eigh"].status == harness.READY
    alone = race.CaseRun(case, case.load(), chosen[:1] if "auto" in chosen[0].name else chosen[1:], lambda text: None)
    alone.measure_ceilings(repeats=1)
    alone.try_all(deadline=np.inf)
    assert alone.records["scikit-learn auto"].status == harness.READY


def test_where_every_accurate_peer_is_over_the_limit_the_quickest_races_all_the_same():
    case = shapes.Case("tiny", "tiny", 90, 8, "float32", 2, lambda: shapes.synthetic(90, 8), limit_s=0.0, aim=None)
    chosen = [p for p in peers.contestants() if p.name in ("scikit-learn arpack", "scipy svds arpack")]
    run = race.CaseRun(case, case.load(), chosen, say=lambda text: None)
    run.measure_ceilings(repeats=1)
    run.try_all(deadline=np.inf)
    ready = [r for r in run.records.values() if r.status == harness.READY]
    assert len(ready) == 1
    assert ready[0].estimate_s == min(r.estimate_s for r in run.records.values())


def test_tuning_finds_nearly_the_fewest_iterations():
    runs = []

    def answer(iterations):
        runs.append(iterations)
        return 0.7**iterations

    found, reason = race.tune(answer, lambda residual: residual, 1e-4, 4, limit_s=1e9)
    assert reason == ""
    assert 0.7**found <= 1e-4
    assert found <= 1.15 * 26  # 0.7^26 = 0.94e-4
    assert len(runs) <= 8


def test_tuning_takes_back_what_it_overshot():
    # The decay is slow at first, so the line through the first points points too far.
    found, _ = race.tune(
        lambda n: n, lambda n: 0.5 * 0.97**n if n < 12 else 0.5 * 0.97**12 * 0.3 ** (n - 12), 1e-4, 6, limit_s=1e9
    )
    assert 19 <= found <= 21  # 19 is the first that meets it


def test_tuning_gives_up_with_a_reason():
    stagnating = race.tune(lambda n: n, lambda n: 1e-3, 1e-4, 4, limit_s=1e9)
    assert stagnating[0] is None
    assert "stagnates" in stagnating[1]
    clock = Clock()

    def slow(iterations):
        clock.now += iterations
        return iterations

    too_long = race.tune(slow, lambda n: 0.9**n, 1e-4, 4, limit_s=20.0, clock=clock)
    assert too_long[0] is None
    assert "would take" in too_long[1]
