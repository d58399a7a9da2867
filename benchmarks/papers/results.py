"""Results of a figure in a file: measured case by case and seed by seed, and found again by the next run."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import harness
from benchmarks.papers.figure import Figure, Row, Runs

# Significant digits that are kept of what is measured.
_DIGITS = 5


def measured(figure: Figure, asked: argparse.Namespace, report: Callable[[str, int, int], None]) -> dict[str, Any]:
    """The result of a figure; only what its file does not have yet is measured, and each case is written at once."""
    path = asked.data / f"{figure.name}.json"
    configuration = figure.configured(asked.quick)
    identity = harness.plain({"name": figure.name, "quick": asked.quick, "configuration": configuration})
    result = stored(path, identity)
    if result is None or asked.again:
        result = identity | {"environment": harness.environment(("lae-fast", "numpy", "numba")), "runs": {}}
    seeds = asked.seeds or (figure.quick_seeds if asked.quick else figure.seeds)
    wanted = [(case, seed) for seed in range(seeds) for case in figure.cases(configuration)]
    for done, (case, seed) in enumerate(wanted):
        if str(seed) not in result["runs"].setdefault(case, {}):
            report(figure.name, done, len(wanted))
            began = time.perf_counter()
            data = _rounded(figure.measure(configuration, case, seed))
            seconds = round(time.perf_counter() - began, 2)
            result["runs"][case][str(seed)] = harness.plain({"seconds": seconds, "data": data})
            harness.write_json(path, result, indent=None)
    report(figure.name, len(wanted), len(wanted))
    return result


def stored(path: Path, identity: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What the file holds; None where there is none, or it is of another configuration."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
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
