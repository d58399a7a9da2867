"""Where results lie, `benchmarks/results/MACHINE/NAME.json`, and how the pages name a machine.

A benchmark that runs on a second machine adds to what the first one found, and overwrites nothing of it. Imports the
standard library and `harness`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import harness

RESULTS = Path(__file__).resolve().parents[1] / "results"

# The machine whose full tables and plots the pages show, and the table of README.md; those of others are shorter. A
# benchmark that it has not run is shown from the first other machine, by name.
FIRST = "amd-epyc-2-cores"

# In RESULTS, and of no machine: the figures of the papers.
_NO_MACHINE = "papers"


def slug(environment: dict[str, Any] | None = None) -> str:
    """Name of a machine by its processor and usable cores: `intel-xeon-2.50ghz-2-cores`; of this one by default."""
    found = environment or harness.processor()
    plain = re.sub(r"\b(CPU|Processor|\d+-Core)\b|[^\w.]", " ", _without_marks(found["cpu"])).lower()
    return "-".join([*plain.split(), f"{found['cores_usable']}-cores"])


def _without_marks(cpu: str) -> str:
    """Without (R) and (TM)."""
    return re.sub(r"\((R|TM)\)", "", cpu)


def check_name(name: str) -> None:
    """Refuse the folder of the papers, and what holds other signs than small letters, digits, `.`, `_` and `-`."""
    if name == _NO_MACHINE or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(
            f"{name!r} cannot name a machine: take small letters, digits, '.', '_' and '-', and not {_NO_MACHINE!r}"
        )


def place(name: str, smoke: bool = False, machine: str | None = None) -> Path:
    """Where the benchmark `name` writes: into the folder of this machine, or of the one that is named."""
    return RESULTS / (machine or slug()) / f"{name}{'-smoke' if smoke else ''}.json"


def stored(name: str, folder: Path = RESULTS) -> list[Path]:
    """The kept results of one benchmark, a file for each machine, FIRST first and then by name."""
    files = sorted(folder.glob(f"*/{name}.json"), key=lambda path: (path.parent.name != FIRST, path.parent.name))
    return [path for path in files if path.parent.name != _NO_MACHINE]


def load(path: Path) -> dict[str, Any]:
    """The results in a file, `machine` among them: the name of its folder."""
    return json.loads(path.read_text(encoding="ascii")) | {"machine": path.parent.name}


def title(result: dict[str, Any]) -> str:
    """Processor and cores, for people; the name of the folder where it was chosen by hand."""
    machine, found = result.get("machine"), result["environment"]
    by_hand = "" if machine in (None, slug(found)) else f" ({machine})"
    return f"{_without_marks(found['cpu'])}, {found['cores_usable']} cores{by_hand}"


def conditions(result: dict[str, Any]) -> str:
    """Machine, software and day, the command that repeats the benchmark, and whether other work ran beside it."""
    found = result["environment"]
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items() if number)
    busy = f" The machine was not idle (load {found['load_at_start']})." if harness.is_busy(found) else ""
    return (
        f"{title(result)}, {found['memory_gb']} GB, {found['system']}, Python {found['python']}, {packages};"
        f" {found['date'][:10]}. Reproduce: `python -m benchmarks.{result['benchmark']}`.{busy}"
    )


def side_by_side(
    results: Sequence[dict[str, Any]], headline: Callable[[dict[str, Any]], dict[str, str]], what: str
) -> list[str]:
    """A column for each machine, a row for each case; a cell is empty where a machine did not run the case.

    Parameters
    ----------
    results : of one benchmark
    headline : of one result, the figure of each case
    what : what a figure says, for the corner of the table
    """
    figures = [headline(result) for result in results]
    rows = list(dict.fromkeys(label for found in figures for label in found))
    return [
        f"| {what} | {' | '.join(map(title, results))} |",
        f"|:--|{'--:|' * len(results)}",
        *(f"| {label} | {' | '.join(found.get(label, '') for found in figures)} |" for label in rows),
    ]
