"""The figures of the papers, by one command.

    python -m benchmarks.papers [NAME ...] [--quick] [--out DIR] [--again]

Writes DIR/NAME.json for each figure: configuration, data, and published numbers beside ours with the spread over seeds.
A figure whose file is there with the same configuration is not measured again, so a run that was interrupted goes on;
--again measures it anew.  The exit status is 1 when a comparison does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import harness
from benchmarks.papers import kunin, petrevski
from benchmarks.papers.figure import Figure, Outcome
from lae_fast import progress

FIGURES = {figure.name: figure for module in (kunin, petrevski) for figure in module.FIGURES}


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer seeds, for a test of what the figures show")
    parser.add_argument("--out", type=Path, default=Path("papers"), help="directory for the results")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in FIGURES]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; choose from {', '.join(FIGURES)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    results = [measured(FIGURES[name], asked) for name in asked.names or FIGURES]
    for result in results:
        print("\n".join(lines(result)))
    return 0 if all(row["holds"] for result in results for row in result["rows"]) else 1


def measured(figure: Figure, asked: argparse.Namespace) -> dict[str, Any]:
    """The result of a figure, from its file if it is there."""
    path = asked.out / f"{figure.name}.json"
    identity = {"name": figure.name, "quick": asked.quick, "configuration": figure.configuration}
    if path.exists() and not asked.again:
        stored: dict[str, Any] = json.loads(path.read_text())
        if all(stored.get(key) == value for key, value in identity.items()):
            return stored
    began = time.perf_counter()
    with progress.resolve(sys.stderr.isatty()) as report:
        outcome = figure.make(asked.quick, lambda done, total: report(figure.name, done, total))
    result = as_json(figure, outcome, time.perf_counter() - began) | identity
    harness.write_json(path, result)
    return result


def as_json(figure: Figure, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """What is written of a figure."""
    rows = [
        {
            "what": row.what, "published": row.published, "obtained": row.obtained, "holds": bool(row.holds),
            "median": float(np.median(row.obtained)), "spread": [min(row.obtained), max(row.obtained)],
        }
        for row in outcome.rows
    ]  # fmt: skip
    return {
        "source": figure.source, "rows": rows, "note": outcome.note, "seconds": seconds, "data": outcome.data,
        "environment": harness.environment(("lae-fast", "numpy", "numba")),
    }  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    """The comparison, for people."""
    found = [f"{result['source']} ({result['name']}, {result['seconds']:.1f} s)"]
    for row in result["rows"]:
        low, high = row["spread"]
        mark = "holds" if row["holds"] else "DOES NOT HOLD"
        found.append(f"  {row['what']}: published {row['published']}, obtained {row['median']:.3g}"
                     f" ({low:.3g} to {high:.3g}): {mark}")  # fmt: skip
    return [*found, f"  {result['note']}"] if result["note"] else found


if __name__ == "__main__":
    sys.exit(main())
