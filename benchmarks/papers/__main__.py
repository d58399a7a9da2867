"""The figures of the papers, by one command.

    python -m benchmarks.papers [NAME ...] [--quick] [--out DIR] [--seeds N] [--jobs N] [--again] [--redraw] [--publish]

Writes for each figure DIR/NAME.json (configuration, what was measured with each seed), DIR/NAME.svg and DIR/NAME.png,
and DIR/papers.md with published and obtained side by side.  Each case of a figure is stored with each seed, and what
the files have is not measured again, so a run that was interrupted goes on; --again measures it anew, and --redraw
measures nothing: it draws and compares what is there.  Cases are measured at once on all cores, on one thread each;
--jobs 1 measures one after the other on all threads.  --publish writes to where this repository keeps results, plots
and the page.  The exit status is 1 when a comparison does not hold.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.papers import jobs, page, results, style
from benchmarks.papers.catalogue import FIGURES
from benchmarks.papers.figure import Figure
from lae_fast import progress
from lae_fast.errors import DataFileError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test of what the figures show")
    parser.add_argument("--out", type=Path, default=Path("papers"), help="directory for results, plots and the page")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; each figure's own by default")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="cases at once, all cores by default")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw and compare what is there")
    parser.add_argument("--publish", action="store_true", help="write into this repository")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in FIGURES]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; choose from {', '.join(FIGURES)}")
    if asked.jobs < 1 or (asked.seeds is not None and asked.seeds < 1):
        parser.error("--jobs and --seeds must be positive")
    asked.data = ROOT / "benchmarks" / "results" / "papers" if asked.publish else asked.out
    asked.plots = ROOT / "docs" / "papers" if asked.publish else asked.out
    asked.page = ROOT / "docs" / "papers.md" if asked.publish else asked.out / "papers.md"
    figures = [FIGURES[name] for name in asked.names or FIGURES]
    try:
        asked.data.mkdir(parents=True, exist_ok=True)
        held = redrawn(figures, asked) if asked.redraw else measured(figures, asked)
        page.write(FIGURES, asked.data, asked.page, asked.plots.name if asked.publish else ".")
    except KeyboardInterrupt:
        print(f"Stopped. What was measured is in {asked.data}; the same command goes on from there.", file=sys.stderr)
        return 130
    except (OSError, DataFileError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0 if held else 1


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def redrawn(figures: Sequence[Figure], asked: argparse.Namespace) -> bool:
    """Show what the files have; whether all comparisons hold."""
    there = [(figure, results.stored(asked.data / f"{figure.name}.json")) for figure in figures]
    if all(result is None for _, result in there):
        raise DataFileError(f"{asked.data} has no results to draw: measure first, without --redraw")
    return all([shown(figure, result, asked) for figure, result in there if result is not None])


def measured(figures: Sequence[Figure], asked: argparse.Namespace) -> bool:
    """Measure what the files do not have, and show each figure when its last case is there; whether all hold."""
    found = {figure.name: results.opened(figure, asked) for figure in figures}
    wanted = [job for figure in figures for job in results.missing(figure, found[figure.name], asked)]
    left = collections.Counter(job.figure.name for job in wanted)
    held = [shown(figure, found[figure.name], asked) for figure in figures if not left[figure.name]]
    with progress.resolve(sys.stderr.isatty()) as report:
        for number, done in enumerate(jobs.run(wanted, asked.jobs), 1):
            figure = done.job.figure
            results.keep(found[figure.name], done, asked)
            report(f"figures ({figure.name}: {done.job.case})", number, len(wanted))
            left[figure.name] -= 1
            if not left[figure.name]:
                held.append(shown(figure, found[figure.name], asked))
    return all(held)


def shown(figure: Figure, result: dict[str, Any], asked: argparse.Namespace) -> bool:
    """Draw a figure and print its comparison; whether it holds."""
    pyplot = style.pyplot()
    drawn = figure.draw(result["configuration"], results.runs_of(result), pyplot)
    style.save(drawn, asked.plots, figure.name)
    pyplot.close(drawn)
    print("\n".join(lines(figure, result)), flush=True)
    return all(row.holds for row in results.rows_of(figure, result))


def lines(figure: Figure, result: dict[str, Any]) -> list[str]:
    """The comparison, for people."""
    found = [f"{figure.source} ({figure.name}, {results.seconds_of(result):.1f} s)"]
    for row in results.rows_of(figure, result):
        median, low, high = results.spread(row)
        mark = "holds" if row.holds else "DOES NOT HOLD"
        found.append(
            f"  {row.what}: published {row.published}, obtained {median:.3g} ({low:.3g} to {high:.3g}): {mark}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
