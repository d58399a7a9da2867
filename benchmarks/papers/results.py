"""Results of a figure in a file: measured case by case and seed by seed, and found again by the next run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import harness
from benchmarks.papers.figure import Figure, Row, Runs
from benchmarks.papers.jobs import Done, Job
from lae_fast.errors import DataFileError

# Significant digits that are kept of what is measured.
_DIGITS = 5


def opened(figure: Figure, asked: argparse.Namespace) -> dict[str, Any]:
    """What the figure's file has of this configuration, or a result without runs."""
    configuration = figure.configured(asked.quick)
    identity = harness.plain({"name": figure.name, "quick": asked.quick, "configuration": configuration})
    result = None if asked.again else stored(_path(figure, asked), identity)
    machine = harness.environment(("lae-fast", "numpy", "numba"))
    return result or identity | {"environment": machine, "at_once": asked.jobs, "runs": {}}


def missing(figure: Figure, result: dict[str, Any], asked: argparse.Namespace) -> list[Job]:
    """What is asked for and not there yet; puts the cases in their order."""
    configuration, found = figure.configured(asked.quick), []
    seeds = asked.seeds or (figure.quick_seeds if asked.quick else figure.seeds)
    for seed in range(seeds):
        for case in figure.cases(configuration):
            there = str(seed) in result["runs"].setdefault(case, {})
            if not there and (asked.seeds or seed == 0 or not figure.costly(configuration, case)):
                found.append(Job(figure, configuration, case, seed))
    return found


def keep(result: dict[str, Any], done: Done, asked: argparse.Namespace) -> None:
    """Add what was measured, and write the file."""
    run = {"seconds": round(done.seconds, 2), "data": _rounded(done.data)}
    result["runs"][done.job.case][str(done.job.seed)] = harness.plain(run)
    harness.write_json(_path(done.job.figure, asked), result, indent=None)


def _path(figure: Figure, asked: argparse.Namespace) -> Path:
    return Path(asked.data / f"{figure.name}.json")


def stored(path: Path, identity: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What the file holds; None where there is none, or it is of another configuration."""
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFileError(f"{path} is damaged ({error}): remove it, and its figure is measured anew") from error
    if identity is not None and any(found.get(key) != value for key, value in identity.items()):
        return None
    return found


def runs_of(result: dict[str, Any]) -> Runs:
    """By case what was measured with each seed, in the order of the seeds."""
    return {
        case: [by_seed[seed]["data"] for seed in sorted(by_seed, key=int)]
        for case, by_seed in result["runs"].items()
        if by_seed
    }


def rows_of(figure: Figure, result: dict[str, Any]) -> list[Row]:
    """The comparison of a result."""
    return [row for row in figure.compare(result["configuration"], runs_of(result)) if row.obtained]


def seconds_of(result: dict[str, Any]) -> float:
    """Time of all that was measured."""
    return float(sum(run["seconds"] for by_seed in result["runs"].values() for run in by_seed.values()))


def number_of_seeds(result: dict[str, Any]) -> tuple[int, int]:
    """The fewest and the most seeds that a case has."""
    counts = [len(by_seed) for by_seed in result["runs"].values() if by_seed]
    return min(counts), max(counts)


def spread(row: Row) -> tuple[float, float, float]:
    """Median, least and largest of what was obtained; nan where no seed has a number."""
    values = np.array(row.obtained, dtype=np.float64)
    if np.isnan(values).all():
        return np.nan, np.nan, np.nan
    return float(np.nanmedian(values)), float(np.nanmin(values)), float(np.nanmax(values))


def _rounded(value: Any) -> Any:
    """Floats with `_DIGITS` significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{_DIGITS}g}")
    return value
