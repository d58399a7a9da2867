"""The benchmarks' own logic: who is timed, compared and judged how, and that tables are regenerated, not appended.

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

from benchmarks import ceilings, pca, report  # noqa: E402
from benchmarks.lib import accuracy, first_call, harness, peers, profiling, race, shapes  # noqa: E402


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


# --- timing -----------------------------------------------------------------------------------------------------------


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


def test_without_budget_the_most_important_two_still_race_and_the_others_say_why_not():
    clock = Clock()
    contestants = [clock.contestant(name, 7.0) for name in "abc"]
    records = run_race(clock, contestants, rounds=9, budget_s=1.0, priority=["c", "a", "b"])
    assert [len(records[name].times) for name in "abc"] == [3, 0, 3]
    assert records["b"].status == harness.SKIPPED
    assert "no time for 3 rounds: one run took 7" in records["b"].reason


def test_one_run_over_the_limit_is_skipped_with_its_time_and_its_answer_is_still_judged():
    clock = Clock()
    contestants = [clock.contestant("a", 1.0), clock.contestant("slow", 12.0)]
    records = run_race(clock, contestants, limit_s=10.0, rounds=3)
    assert records["slow"].status == harness.SKIPPED
    assert records["slow"].reason == "one run took 12.0 s, the limit is 10 s"
    assert records["slow"].accurate is True
    assert "slow" not in clock.log


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


def test_quick_contestants_are_repeated_to_a_sample_of_sufficient_length():
    clock = Clock()
    records = run_race(clock, [clock.contestant("a", 0.25)], rounds=3, min_sample_s=1.0, warm_up_below_s=0.0)
    assert len(clock.log) == 12
    assert records["a"].times == [0.25, 0.25, 0.25]


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


# --- accuracy ---------------------------------------------------------------------------------------------------------


def naive_residuals(X, values, components):
    """|S u - l u| / l from the definition, entry by entry, in float64."""
    m, d = X.shape
    X = X.astype(np.float64)
    mean = [sum(X[k, j] for k in range(m)) / m for j in range(d)]
    S = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            S[i, j] = sum((X[k, i] - mean[i]) * (X[k, j] - mean[j]) for k in range(m)) / (m - 1)
    return np.array(
        [
            np.sqrt(sum((sum(S[i, j] * u[j] for j in range(d)) - value * u[i]) ** 2 for i in range(d))) / value
            for value, u in zip(values, components)
        ]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("blocks", [1, 5])
def test_residuals_against_the_definition(dtype, blocks, monkeypatch):
    rng = np.random.default_rng(3)
    X = (rng.random((23, 6)) * 200).astype(dtype)
    values, components = np.array([900.0, 700.0, 30.0]), rng.standard_normal((3, 6))
    monkeypatch.setattr(accuracy, "_BLOCK_BYTES", 8 * 6 * -(-23 // blocks))
    found = accuracy.measure(X, values, components)
    np.testing.assert_allclose(found.residuals, naive_residuals(X, values, components), rtol=1e-12)
    np.testing.assert_allclose(accuracy.column_means(X), X.mean(axis=0, dtype=np.float64), rtol=1e-14)
    assert found.worst == found.residuals.max()


def eigenpairs(X, p):
    values, vectors = np.linalg.eigh(np.cov(X, rowvar=False))
    return values[::-1][:p], vectors[:, ::-1][:, :p].T


def test_a_right_answer_is_accurate_and_a_wrong_one_is_not():
    X = shapes.synthetic(300, 20, "float64")
    values, components = eigenpairs(X, 4)
    assert accuracy.measure(X, values, components).meets(1e-8)
    assert not accuracy.measure(X, values * (1 + 1e-6), components).meets(1e-8)
    assert not accuracy.measure(X, values, components + 1e-6).meets(1e-8)
    assert not accuracy.measure(X, values[::-1], components[::-1]).meets(1e-8)  # right pairs, wrong order
    twice = [0, 1, 1, 3]
    assert not accuracy.measure(X, values[twice], components[twice]).meets(1e-8)
    broken = components.copy()
    broken[2, 5] = np.nan
    assert accuracy.measure(X, values, broken).worst == np.inf
    assert accuracy.measure(X, np.zeros(4), components).worst == np.inf


def test_a_missed_eigenpair_shows_against_the_others():
    X = shapes.synthetic(300, 20, "float64")
    values, components = eigenpairs(X, 5)
    right = accuracy.measure(X, values[:4], components[:4])
    skipped = accuracy.measure(X, values[[0, 1, 3, 4]], components[[0, 1, 3, 4]])
    assert skipped.meets(1e-8)  # the residuals cannot see it
    assert accuracy.missed(skipped, [right, skipped], 1e-8) == 2
    assert accuracy.missed(right, [right, skipped], 1e-8) == 0
    # Nobody is found guilty by an answer that returns the first pair four times.
    same = accuracy.measure(X, values[[0, 0, 0, 0]], components[[0, 0, 0, 0]])
    assert accuracy.missed(right, [same], 1e-8) == 0


def test_the_tolerance_follows_the_dtype_of_the_computation():
    assert accuracy.tolerance_for(np.float32) == accuracy.tolerance_for("uint8") == 1e-4
    assert accuracy.tolerance_for("float64") == 1e-8


# --- data and contestants ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_synthetic_data_have_the_documented_spectrum_and_means(dtype):
    X = shapes.synthetic(20_000, 40, dtype)
    assert X.dtype == dtype
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X[:3], shapes.synthetic(20_000, 40, dtype)[:3])
    values, _ = eigenpairs(X.astype(np.float64), 40)
    np.testing.assert_allclose(values, shapes.spectrum(40), rtol=0.08)
    assert shapes.spectrum(40).mean() == pytest.approx(1.0)
    means = X.mean(axis=0, dtype=np.float64)
    assert means.min() > -0.05
    assert 0.7 < means.mean() < 1.3
    assert means.max() < 2.05


def test_the_promised_shapes_are_there():
    full = {(c.n_samples, c.n_features, c.dtype, c.n_components) for c in shapes.FULL}
    assert {
        (60_000, 784, "float32", 20),
        (60_000, 784, "float32", 100),
        (60_000, 784, "float32", 30),
        (20_000, 5_000, "float32", 50),
        (5_000, 20_000, "float32", 50),
        (500_000, 200, "float32", 10),
        (20_000, 2_000, "float64", 20),
    } <= full
    names = [case.name for case in (*shapes.FULL, *shapes.SMOKE)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("peer", [p for p in peers.contestants() if p.module in ("sklearn", "scipy", "numpy")], ids=str)
def test_peers_of_our_own_dependencies_find_the_components(peer):
    X = shapes.synthetic(400, 60, "float64", seed=5)
    answer = peer(X, 3, *([40] if peer.tune_from else []))
    assert answer.components.shape == (3, 60)
    np.testing.assert_allclose(answer.mean, X.mean(axis=0), atol=1e-12)
    found = accuracy.measure(X, answer.values, answer.components)
    assert found.orthogonality < 1e-8
    assert found.worst < (1e-2 if "randomized" in peer.name and not peer.tune_from else 1e-6)


@pytest.mark.parametrize(
    ("m", "d", "p"),
    [(600, 60, 5), (599, 60, 5), (400, 60, 5), (501, 60, 47), (501, 60, 49), (60, 501, 5)],
)
def test_the_automatic_choice_of_scikit_learn_is_as_documented(m, d, p):
    answer = peers.scikit_learn(shapes.synthetic(m, d), p)
    assert answer.info["solver"] == peers.automatic_solver(m, d, p)


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


def test_the_others_are_listed_whether_installed_or_not(monkeypatch):
    monkeypatch.setattr(peers, "is_installed", lambda module: False)
    absent = peers.Peer("absent", "no_such_module", fit=lambda X, p: pytest.fail("must not run"))
    case = shapes.Case("tiny", "tiny", 50, 8, "float32", 2, lambda: shapes.synthetic(50, 8), aim=None)
    run = race.CaseRun(case, case.load(), [absent], say=lambda text: None)
    run.measure_ceilings(repeats=1)
    run.try_all(deadline=np.inf)
    assert run.records["absent"].status == harness.NOT_INSTALLED
    assert "no_such_module" in run.records["absent"].reason


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


def test_flops_of_the_routes():
    assert ceilings.gram_flops(1000, 10) == ceilings.gram_flops(10, 1000) == 1000 * 10 * 11
    assert ceilings.pass_flops(1000, 10, 3) == 4 * 1000 * 10 * 3
    tall = shapes.Case("t", "t", 1000, 10, "float32", 3, lambda: None)
    wide = shapes.Case("w", "w", 10, 1000, "float32", 3, lambda: None)
    assert race.needed_flops("gram", 1, tall, 5) == (1000 * 10 * 11, 0)
    assert race.needed_flops("krylov", 4, tall, 5) == (0, 4 * 4 * 1000 * 10 * 5)
    # Wide data: two passes with the block, half a pass that carries p vectors over, one that refines them.
    assert race.needed_flops("krylov", 4, wide, 5) == (0, 4 * 1000 * 10 * (2 * 5 + 0.5 * 3 + 3))
    assert race.needed_flops("gram", 3, wide, 5) == (1000 * 10 * 11, 4 * 1000 * 10 * (0.5 * 3 + 3))


def test_the_share_of_the_ceiling_is_taken_within_rounds():
    case = shapes.Case("t", "t", 1000, 10, "float32", 3, lambda: None)
    limits = ceilings.Ceilings(syrk_gflops=1.0, gemm_gflops=2.0, square_gflops=3.0, read_gbps=1.0, block=5)
    mine = harness.Record("lae_fast", "ours", times=[2.0, 8.0], rounds=[0, 1], detail={"solver": "gram", "n_passes": 1})
    # BLAS does half of the flops, in a quarter of the time of that round: it would do all in half of the time.
    blas = harness.Record("BLAS alone", "ceiling", times=[0.5, 2.0], rounds=[0, 1])
    found = race.work(mine, blas, 1000 * 10 * 11 / 2, case, limits)
    assert found["ceiling_share"]["median"] == pytest.approx(0.5)
    assert found["ceiling_share"]["iqr"] == pytest.approx(0.0)


@pytest.mark.parametrize("shape", [(90, 20), (20, 90)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ceilings_compute_what_they_claim(shape, dtype):
    X = shapes.synthetic(*shape, dtype)
    run, flops = ceilings.gram_alone(X)
    expected = X.T @ X if shape[0] > shape[1] else X @ X.T
    np.testing.assert_allclose(np.triu(run()), np.triu(expected), rtol=1e-4, atol=1e-4)
    assert flops == 90 * 20 * 21
    _, fewer = ceilings.gram_alone(X, most_flops=10 * 20 * 21)
    assert fewer == 10 * 20 * 21
    _, flops = ceilings.pass_alone(X, 3)
    assert flops == 4 * 90 * 20 * 3


def test_time_in_a_file_is_counted_once():
    def own(*callers):
        return (1, 1, 0.0, 0.0, {caller: (1, 1, 0.0, seconds) for caller, seconds in callers})

    outer, inner, outside = ("a/rounding.py", 1, "outer"), ("a/rounding.py", 9, "inner"), ("a/solve.py", 3, "fit")
    functions = {outer: own((outside, 2.0)), inner: own((outer, 1.5), (outside, 0.25)), outside: own()}
    assert profiling._entered_s(functions, "rounding.py") == 2.25


# --- report -----------------------------------------------------------------------------------------------------------


def a_result(peer_time: float = 0.4) -> dict:
    def entry(name, kind, times, accurate, residual, **extra):
        record = harness.Record(name, kind, times=times, rounds=list(range(len(times))), accurate=accurate)
        record.status = harness.RACED if times else harness.SKIPPED
        record.detail = {"worst_residual": residual}
        for key, value in extra.items():
            setattr(record, key, value)
        return record.as_dict()

    case = {
        "name": "tiny", "title": "tiny", "m": 100, "d": 10, "dtype": "float32", "p": 3, "aim": 1.5, "limit_s": 8.0,
        "status": "done", "tolerance": 1e-4, "best_peer": "peer",
        "ceilings": ceilings.Ceilings(100.0, 50.0, 200.0, 20.0, 13).as_dict(),
        "contestants": [
            entry("lae_fast", "ours", [0.2, 0.2, 0.2], True, 1e-6),
            entry("peer", "peer", [peer_time] * 3, True, 2e-6),
            entry("rough", "peer", [0.1] * 3, False, 3e-2),
            entry("slow", "peer", [], True, 1e-7, reason="one run took 12.0 s, the limit is 8 s"),
        ],
        "work": {
            "solver": "gram", "n_passes": 1, "flops": 1e9, "gflops": 5.0, "ceiling": "SYRK",
            "ceiling_share": {"median": 0.5},
        },
        "profile": {"seconds": 0.2, "certificate_s": 0.002, "certificate_share": 0.01, "own": [["tiles.py: f", 0.1]]},
        "speedup": {"peer": harness.summarise([peer_time / 0.2] * 3), "rough": harness.summarise([0.5] * 3)},
    }  # fmt: skip
    described = {key: case[key] for key in ("m", "d", "dtype", "p", "aim", "limit_s")}
    missing = {
        **described,
        "name": "gone",
        "title": "gone",
        "status": "not run",
        "reason": "no data",
        "contestants": [],
    }
    return {
        "benchmark": "pca", "schema": 1, "smoke": False, "cases": [case, missing],
        "settings": {"rounds": 3}, "environment": harness.environment(("numpy",)),
        "first_call": {"warm_cache": {"import_s": 0.1, "gram_adds_s": 0.2, "krylov_adds_s": 0.3}},
    }  # fmt: skip


def test_regeneration_is_idempotent_and_touches_nothing_else(tmp_path):
    (tmp_path / "docs").mkdir()
    around = "# Title\n\ntext before\n\n<!-- benchmark:pca -->\nold, edited by hand\n<!-- /benchmark:pca -->\n\nafter\n"
    for name in ("README.md", "docs/benchmarks.md"):
        (tmp_path / name).write_text(around)
    result = json.loads(json.dumps(a_result()))
    assert report.regenerate(result, tmp_path, None, write=False) == ["README.md", "docs/benchmarks.md"]
    assert (tmp_path / "README.md").read_text() == around
    assert report.regenerate(result, tmp_path, None) == ["README.md", "docs/benchmarks.md"]
    once = {name: (tmp_path / name).read_text() for name in ("README.md", "docs/benchmarks.md")}
    assert report.regenerate(result, tmp_path, None) == []
    for name, text in once.items():
        assert (tmp_path / name).read_text() == text
        assert text.startswith("# Title\n\ntext before\n\n<!-- benchmark:pca -->\n|")
        assert text.endswith("\n<!-- /benchmark:pca -->\n\nafter\n")
        assert "edited by hand" not in text
    assert "one run took 12.0 s" in once["docs/benchmarks.md"]
    assert "one run took 12.0 s" not in once["README.md"]


def test_files_without_markers_or_absent_are_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("nothing here\n")
    assert report.regenerate(a_result(), tmp_path, None) == []
    assert (tmp_path / "README.md").read_text() == "nothing here\n"


@pytest.mark.parametrize(
    "text",
    [
        "<!-- benchmark:pca -->\n",
        "<!-- /benchmark:pca -->\n<!-- benchmark:pca -->\n",
        "<!-- benchmark:pca -->\n<!-- benchmark:pca -->\n<!-- /benchmark:pca -->\n",
    ],
)
def test_broken_markers_are_an_error(text):
    with pytest.raises(ValueError, match="expected <!-- benchmark:pca --> once"):
        report.replace_between(text, "pca", "new")


def test_wins_losses_and_missed_aims_are_printed():
    won = report.content(a_result(0.4), "summary")
    assert "**2.00x** as fast" in won
    assert "Lost: none. Won, but short of the aim: none." in won
    assert "rough, 100 ms (3e-02)" in won  # the quickest that misses the tolerance is named, and is not the best peer
    assert "not run: no data" in won
    short = report.content(a_result(0.25), "summary")
    assert "Lost: none. Won, but short of the aim: tiny (1.25x, aim 1.5x)." in short
    lost = report.content(a_result(0.1), "summary")
    assert "Lost: tiny (0.50x, to peer)." in lost


def test_the_plot_is_the_same_file_for_the_same_results(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        report.plot(a_result(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_ours_is_compared_profiled_and_certified(tmp_path, monkeypatch, capsys):
    def fit(X, p, factor=1.0):
        values, components = eigenpairs(X.astype(np.float64), p)
        info = {"solver": "gram", "route_reason": "r", "n_passes": 1, "workspace_bytes": 8, "certificate": np.ones(p)}
        return peers.Answer(values * factor, components, X.mean(axis=0), info)

    case = shapes.Case("tiny", "tiny", 200, 12, "float32", 2, lambda: shapes.synthetic(200, 12), aim=None)
    chosen = [peers.Peer("lae_fast", "numpy", fit, kind="ours")]
    chosen += [p for p in peers.contestants() if p.name == "scikit-learn full"]
    monkeypatch.setattr(shapes, "SMOKE", (case,))
    monkeypatch.setattr(pca, "select_peers", lambda names, routes: chosen)
    monkeypatch.setattr(first_call, "measure", lambda: {"failed": "not tried"})
    out = tmp_path / "pca-smoke.json"
    assert pca.main(["--smoke", "--out", str(out), "--budget", "4"]) == 0
    found = json.loads(out.read_text())["cases"][0]
    assert found["best_peer"] == "scikit-learn full"
    assert found["speedup"]["scikit-learn full"]["n"] == 3
    assert found["work"]["flops"] == 200 * 12 * 13
    assert found["work"]["ceiling_share"]["n"] == 3
    assert "BLAS alone" not in found["speedup"]
    assert found["profile"]["certificate_share"] == 0.0
    assert any("eigh" in name for name, _ in found["profile"]["own"])
    ours = found["contestants"][0]["detail"]
    assert (ours["certificate"], ours["certificate_holds"], ours["missed"]) == (1.0, True, 0)
    assert report.main([str(out)]) == 0
    assert "the bound holds" in capsys.readouterr().out
    chosen[0] = peers.Peer("lae_fast", "numpy", fit, kind="ours", options={"factor": 1.01})
    assert pca.main(["--smoke", "--out", str(out), "--budget", "4"]) == 1  # ours misses the tolerance


def test_a_run_without_ours_writes_json_that_the_report_reads(tmp_path, monkeypatch, capsys):
    case = shapes.Case("tiny", "tiny", 200, 12, "float32", 2, lambda: shapes.synthetic(200, 12), aim=None)
    gone = shapes.Case("gone", "gone", 9, 3, "float32", 2, lambda: shapes.images("mnist"), aim=None)

    def unavailable(name):
        raise shapes.DataUnavailableError(f"{name} is not here")

    monkeypatch.setattr(shapes, "images", unavailable)
    monkeypatch.setattr(shapes, "SMOKE", (case, gone))
    chosen = [p for p in peers.contestants() if p.name in ("scikit-learn arpack", "scikit-learn auto")]
    monkeypatch.setattr(pca, "select_peers", lambda names, routes: chosen)
    out = tmp_path / "pca-smoke.json"
    assert pca.main(["--smoke", "--out", str(out), "--budget", "4"]) == 0
    result = json.loads(out.read_text())
    assert [c["status"] for c in result["cases"]] == ["done", "not run"]
    by_name = {r["name"]: r for r in result["cases"][0]["contestants"]}
    assert by_name["scikit-learn arpack"]["summary"]["n"] == 3
    assert by_name["scikit-learn arpack"]["accurate"] is True
    assert result["cases"][0]["best_peer"] is not None
    assert report.main([str(out)]) == 0
    assert "A smoke run: no file gets its tables." in capsys.readouterr().out


def test_the_incremental_benchmark_checks_and_races_both(tmp_path, monkeypatch, capsys):
    from benchmarks import incremental

    X = shapes.synthetic(300, 12)
    monkeypatch.setattr(shapes, "digits", lambda: X)
    out = tmp_path / "incremental-smoke.json"
    arguments = ["--smoke", "--batch", "40", "--rounds", "3", "--budget", "5", "--out", str(out)]
    assert incremental.main(arguments) == 0
    result = json.loads(out.read_text())
    by_name = {r["name"]: r for r in result["contestants"]}
    assert by_name["lae_fast"]["accurate"] and by_name["lae_fast"]["detail"]["variance_error"] < 1e-5
    assert by_name["scikit-learn"]["summary"]["n"] == 3
    assert "worst error of a variance" in capsys.readouterr().out
    monkeypatch.setattr(incremental, "true_variances", lambda X, p: np.ones(p))
    assert incremental.main(arguments) == 1
