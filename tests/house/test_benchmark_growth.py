"""`benchmarks.growth` and `python -m benchmarks`: exponents, predictions, which commands run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the installed package
    sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as everything  # noqa: E402
from benchmarks import growth, report  # noqa: E402
from benchmarks.lib import harness, machines  # noqa: E402


def test_exponents():
    sizes = np.array([10.0, 20.0, 80.0])
    assert growth.exponent(sizes, 3e-9 * sizes**2) == pytest.approx(2)
    assert growth.exponent([2.0], [1.0]) is None


def test_what_is_predicted():
    assert growth.predicted("fit", 100, 10, 3) == (100 * 10 * 11, 4 * 1000 + 8 * 100)
    assert growth.predicted("scores", 100, 10, 3) == (2 * 100 * 10 * 3, 4 * (1000 + 300))


@pytest.mark.parametrize("smoke", [True, False])
def test_one_size_grows_in_each_series(smoke):
    for name, (_, points) in growth.series(smoke, cores=4).items():
        changing = [i for i in range(4) if len({point[i] for point in points}) > 1]
        assert changing == [["samples", "features", "components", "threads"].index(name)]


@pytest.mark.needs_jit
def test_answers_are_checked_before_the_clock_runs():
    run, error = growth.prepared("scores", np.random.default_rng(0).random((300, 12), np.float32), 3)
    assert run().shape == (300, 3)
    assert 0 < error < 1e-4


def test_every_benchmark_has_a_command():
    commands = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} | {"papers"}
    no_benchmarks = {"__init__", "__main__", "conftest", "report"}
    named = {name for name in commands if not name.startswith("test_")} - no_benchmarks
    assert named == {*everything.REPORTED, *everything.OTHERS}
    assert set(everything.REPORTED) == set(report.BENCHMARKS)
    assert everything.command("papers", quick=True) is None
    # A second machine writes into a folder of its own.
    assert everything.command("pca", quick=True)[-1] == str(machines.RESULTS / machines.slug() / "pca-smoke.json")
    assert everything.command("pca", quick=False, machine="lab")[-1] == str(machines.RESULTS / "lab" / "pca.json")


def test_a_machine_that_cannot_be_named_so(capsys):
    with pytest.raises(SystemExit):
        everything.main(["--quick", "--machine", "papers"])
    assert "'papers' cannot name a machine: take small letters" in capsys.readouterr().err


def test_the_table_and_plot_of_growth(tmp_path):
    point = {"m": 10, "d": 4, "p": 2, "seconds": 1e-3, "error": 1e-7, "flops": 1e3, "bytes": 1e2}
    case = {
        "name": "samples", "work": "fit", "accurate": True,
        "points": [{**point, "size": 10.0}, {**point, "m": 20, "size": 20.0, "seconds": 2e-3}],
        "exponents": {"seconds": 1.0, "flops": 1.0, "bytes": 1.0},
    }  # fmt: skip
    found = harness.environment(("numpy",))
    payload = {"benchmark": "growth", "smoke": False, "environment": found, "cases": [case]}
    image = report.draw(payload, tmp_path / "growth.json")
    assert image == tmp_path / "growth.svg" and image.read_text().count("<svg") == 1
    text = report.content(payload, "full", image.name)
    assert "| samples m | fit, d = 4, p = 2 | 10, 20 | 1.00 |" in text and "](growth.svg)" in text
