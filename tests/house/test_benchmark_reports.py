"""What benchmarks write: tables are regenerated and not appended, plots, and JSON that the report reads."""

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
from benchmarks.lib import harness, machines, pca_tables, peers, shapes  # noqa: E402


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
    assert report.regenerate([result], tmp_path, None, write=False) == ["README.md", "docs/benchmarks.md"]
    assert (tmp_path / "README.md").read_text() == around
    assert report.regenerate([result], tmp_path, None) == ["README.md", "docs/benchmarks.md"]
    once = {name: (tmp_path / name).read_text() for name in ("README.md", "docs/benchmarks.md")}
    assert report.regenerate([result], tmp_path, None) == []
    for name, text in once.items():
        assert (tmp_path / name).read_text() == text
        assert text.startswith("# Title\n\ntext before\n\n<!-- benchmark:pca -->\n")
        assert text.endswith("\n<!-- /benchmark:pca -->\n\nafter\n")
        assert "edited by hand" not in text
    assert "one run took 12.0 s" in once["docs/benchmarks.md"]
    assert "one run took 12.0 s" not in once["README.md"]


def test_files_without_markers_or_absent_are_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("nothing here\n")
    assert report.regenerate([a_result()], tmp_path, None) == []
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


def test_the_short_table_has_a_row_for_each_shape_and_names_the_losses():
    result = a_result(0.4)
    other, lost = (json.loads(json.dumps(case)) for case in (result["cases"][0], result["cases"][0]))
    other |= {"title": "other", "m": 200, "speedup": {"peer": harness.summarise([4.0])}}
    lost |= {"title": "lost", "p": 7, "speedup": {"peer": harness.summarise([0.5])}}
    result["cases"] += [other, lost]
    text = report.content(result, "brief")
    assert text.startswith("**1.59 times** as fast as the best peer of the same accuracy: geometric mean over 3 data")
    assert "| 100 x 10, float32 | tiny (3); lost (7) | **1.00x** as fast (0.50 to 2.00) | peer |" in text
    assert "| 200 x 10, float32 | other (3) | **4.00x** as fast | peer |" in text
    assert "Lost: lost 100 x 10 (7), 0.50x." in text
    assert "Lost: none." in report.content(a_result(), "brief")
    result["cases"] = result["cases"][1:2]  # the one that was not run
    assert report.content(result, "brief") == "No data set was raced."


def on(machine: str, cpu: str, peer_time: float) -> dict:
    result = a_result(peer_time)
    return result | {"machine": machine, "environment": result["environment"] | {"cpu": cpu, "cores_usable": 4}}


def test_a_second_machine_stands_beside_the_first_and_takes_nothing_of_it():
    first, second = on("a", "One", 0.4), on("b", "Two", 0.6)
    second["cases"][0]["p"] = 4  # another case: the first machine has an empty cell there
    text = report.of_machines([first, second], "full", "a/pca.png")
    assert text.startswith(
        "| a fit; the best accurate peer takes | One, 4 cores (a) | Two, 4 cores (b) |\n|:--|--:|--:|\n"
    )
    assert "\n| tiny, 100 x 10 float32, 3 components | 200 ms, **2.00x** |  |\n" in text
    assert "\n| tiny, 100 x 10 float32, 4 components |  | 200 ms, **3.00x** |\n" in text
    assert report.content(first, "full", "a/pca.png") in text
    assert f"On Two, 4 cores (b):\n\n{report.content(second, 'summary')}" in text
    assert text.count("![") == 1
    short = report.of_machines([first, second], "brief").splitlines()
    assert short[0].endswith("over 1 data sets. 3.00 times on Two, 4 cores (b).")
    assert short[1:] == report.content(first, "brief").splitlines()[1:]


@pytest.mark.parametrize("name", report.BENCHMARKS)
def test_every_kept_result_has_figures_to_stand_side_by_side(name):
    for path in machines.stored(name):
        result, shown = machines.load(path), report.BENCHMARKS[name]
        table = machines.side_by_side([result, result], shown.headline, shown.figure)
        assert len(table) > 2 and all(row.count("|") == 4 for row in table)


def test_a_machine_is_named_by_its_processor_and_cores():
    names = {
        "Intel(R) Xeon(R) Processor @ 2.50GHz": "intel-xeon-2.50ghz-2-cores",
        "AMD Ryzen 9 7950X 16-Core Processor": "amd-ryzen-9-7950x-2-cores",
        "13th Gen Intel(R) Core(TM) i7-1370P": "13th-gen-intel-core-i7-1370p-2-cores",
        "AMD EPYC": machines.FIRST,
    }
    for cpu, name in names.items():
        assert machines.slug({"cpu": cpu, "cores_usable": 2}) == name
        machines.check_name(name)
    assert machines.place("pca", smoke=True).parent == machines.RESULTS / machines.slug()
    for name in ("papers", "../x", "", "Laptop"):
        with pytest.raises(ValueError, match="cannot name a machine"):
            machines.check_name(name)


def test_results_are_found_first_machine_first(tmp_path):
    for machine in ("papers", "zen", machines.FIRST, "arm"):
        harness.write_json(tmp_path / machine / "pca.json", {})
    harness.write_json(tmp_path / "arm" / "pca-smoke.json", {})
    assert [path.parent.name for path in machines.stored("pca", tmp_path)] == [machines.FIRST, "arm", "zen"]


def test_the_plot_is_the_same_file_for_the_same_results(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        pca_tables.plot(a_result(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
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


@pytest.mark.full
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
