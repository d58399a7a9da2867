"""docs/papers.md out of the results: published and obtained side by side, configuration, time, deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lib import harness
from benchmarks.papers import results
from benchmarks.papers.figure import Figure, Row

_HEAD = """\
# The papers, reproduced

Every figure of the papers by one command; this page is written by it, out of the files it leaves.

<!-- not run: minutes; .ci/run has the quick one -->
```bash
pip install '.[bench]'
python -m benchmarks.papers                    # all figures, into the directory papers/: 83 minutes of one core's time
python -m benchmarks.papers kunin_race         # one of them
python -m benchmarks.papers --quick            # small sizes, one seed: does each figure show what it must?
python -m benchmarks.papers --publish          # results and plots to where they are kept, and this page
```

A run that was interrupted goes on where it was: each case and seed is stored when it is done. MNIST and Fashion-MNIST
are found through `LAE_FAST_DATA`. *obtained* is the median over the seeds, with the least and the largest in brackets;
a dash means that the threshold was not reached. The last column says whether that agrees with what is published; each
line is checked against what we expect, and the command fails where one does not hold.
"""


def page(figures: Mapping[str, Figure], found: Mapping[str, dict[str, Any]], plots: str) -> str:
    """The page.  found : results by name of the figure;  plots : the directory of the plots, as the page links it"""
    parts = [_HEAD]
    there = [figure for name, figure in figures.items() if name in found]
    parts.append("\n".join(f"- [{figure.title}](#{_anchor(figure.title)}): {figure.source}" for figure in there) + "\n")
    parts += [section(figure, found[figure.name], plots) for figure in there]
    missing = [name for name in figures if name not in found]
    if missing:
        parts.append("Not measured yet: " + ", ".join(f"`{name}`" for name in missing) + ".\n")
    return "\n".join(parts)


def section(figure: Figure, result: dict[str, Any], plots: str) -> str:
    """What the page says of one figure."""
    lines = [f"## {figure.title}", "", f"{figure.source}. `python -m benchmarks.papers {figure.name}`", ""]
    lines += [f"![{figure.title}]({plots}/{figure.name}.svg)", ""]
    lines += ["| | published | obtained | |", "|---|---|---|---|"]
    lines += [_row(row) for row in results.rows_of(figure, result)]
    if figure.table is not None:
        lines += ["", *figure.table(result["configuration"], results.runs_of(result))]
    lines += ["", f"Configuration: {_configuration(result['configuration'])}.", ""]
    lines += [_circumstances(figure, result), ""]
    if figure.notes:
        lines += ["Deviations and remarks:", "", *(f"- {note}" for note in figure.notes), ""]
    return "\n".join(lines)


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return kept.replace(" ", "-")


def number(value: float) -> str:
    """A number for people."""
    if math.isnan(value):
        return "-"
    if value == 0.0 or (value == round(value) and abs(value) < 1e7):
        return f"{value:.0f}"
    return f"{value:.3g}"


def _row(row: Row) -> str:
    median, low, high = results.spread(row)
    text = number(median)
    if len(row.obtained) > 1 and low != high and not math.isnan(median):
        text += f" ({number(low)} to {number(high)})"
    return f"| {_cell(row.what)} | {_cell(row.published)} | {text} | {_verdict(row)} |"


def _cell(text: str) -> str:
    """Text of a table: a bar would end its cell."""
    return text.replace("|", "\\|")


def _verdict(row: Row) -> str:
    if not row.holds:
        return "**no**"
    return "differs, see below" if row.differs else "" if row.published == "-" else "yes"


def _configuration(configuration: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return ", ".join(shown(item) for item in value)
        return f"{value:g}" if isinstance(value, float) else str(value)

    return "; ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in configuration.items())


def _circumstances(figure: Figure, result: dict[str, Any]) -> str:
    fewest, most = results.number_of_seeds(result)
    seeds = f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"
    all_of, there = len(figure.cases(result["configuration"])), len(results.runs_of(result))
    if there < all_of:
        seeds = f"**{there} of {all_of} cases measured so far**, {seeds}"
    machine = result["environment"]
    at_once = result.get("at_once", 1)
    text = f"{seeds}, {results.seconds_of(result):.0f} s in all on {machine['cpu']} ({machine['cores_usable']} cores"
    text += f", {at_once} cases at once on a thread each)" if at_once > 1 else ")"
    if harness.is_busy(machine):
        text += "; other work ran on the machine, so times say little"
    if result["quick"]:
        text += ", **in the small sizes of `--quick`**"
    return text + "."


def write(figures: Mapping[str, Figure], data: Path, path: Path, plots: str) -> None:
    """Write the page from the files in `data`."""
    found = {name: results.stored(data / f"{name}.json") for name in figures}
    text = page(figures, {name: result for name, result in found.items() if result}, plots)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
