"""From the JSON of the benchmarks to Markdown tables and plots, the ones in README.md and docs/ included.

    python -m benchmarks.report [--check] [FILE]

A table lives between `<!-- benchmark:pca -->` and `<!-- /benchmark:pca -->`: README.md gets a small one, docs/ the
summary, every contestant and the plot. Where several machines have run a benchmark, a table with a column for each
comes first. Nothing between the markers is written by hand; `--check` exits with 1 when a file differs from what the
JSON says. The tables of a FILE are printed; a smoke run, or a file that does not lie in benchmarks/results/MACHINE/,
gets into no page. Imports matplotlib when it plots and nothing of lae_fast.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.lib import (
    first_call,
    growth_tables,
    machines,
    ordered_tables,
    pca_tables,
    stream_tables,
    tables,
)
from benchmarks.lib.markers import replace_between

ROOT = Path(__file__).resolve().parents[1]

# Which file gets how much; a file that does not exist, or has no markers, is left alone.
TARGETS = (("README.md", "brief"), ("docs/benchmarks.md", "full"))

Result = dict[str, Any]


class Tables(NamedTuple):
    """What the pages show of a benchmark.

    summary : of one result, the table and what is seen in it
    headline : of one result, the figure of each case, for the machines side by side
    figure : what a figure says
    full : every contestant; None where the summary says all
    brief : for README.md, of the first result, with the others; None takes the summary
    plot : suffix of the image's file, and what draws it
    """

    summary: Callable[[Result], list[str]]
    headline: Callable[[Result], dict[str, str]]
    figure: str
    full: Callable[[Result], list[str]] | None = None
    brief: Callable[..., list[str]] | None = None
    plot: tuple[str, Callable[[Result, Path], None]] | None = None


BENCHMARKS = {
    "pca": Tables(
        pca_tables.summary,
        pca_tables.headline,
        "a fit; the best accurate peer takes",
        pca_tables.full,
        pca_tables.brief,
        (".png", pca_tables.plot),
    ),
    "ordered": Tables(
        ordered_tables.summary,
        ordered_tables.headline,
        "ordered / squared error, same loop",
        lambda result: [ordered_tables.full(result["cases"])],
        plot=(".svg", ordered_tables.plot),
    ),
    "growth": Tables(
        growth_tables.summary,
        growth_tables.headline,
        "the largest size takes; time grows with the power",
        lambda result: [growth_tables.full(result)],
        plot=(".svg", growth_tables.plot),
    ),
    "training": Tables(
        lambda result: tables.training_summary(result["cases"]),
        tables.training_headline,
        "an iteration; the quickest PyTorch takes",
        lambda result: [tables.training_full(result["cases"])],
    ),
    "sparse": Tables(
        lambda result: tables.sparse_summary(result["cases"]),
        tables.sparse_headline,
        "a fit; the best accurate peer takes",
        lambda result: [tables.sparse_full(result["cases"])],
    ),
    "streaming": Tables(
        stream_tables.streaming, stream_tables.streaming_headline, "a fit; scikit-learn takes on bytes"
    ),
    "incremental": Tables(
        stream_tables.incremental, stream_tables.incremental_headline, "the stream; scikit-learn takes"
    ),
    "small": Tables(tables.small, tables.small_headline, "a call; scikit-learn takes"),
    "first_call": Tables(first_call.table, first_call.headline, "the first call, cold and warm"),
}


def content(result: Result, amount: str, image: str | None = None) -> str:
    """The tables of one result: "brief", "summary" or "full"."""
    shown = BENCHMARKS[result["benchmark"]]
    if amount == "brief" and shown.brief:
        return "\n".join(shown.brief(result))
    lines = [*shown.summary(result), "", machines.conditions(result)]
    if amount == "full":
        lines += ["", f"![Results of the benchmark {result['benchmark']}]({image})"] if image else []
        lines += ["", "\n".join(shown.full(result)).strip()] if shown.full else []
    return "\n".join(lines)


def of_machines(results: Sequence[Result], amount: str, image: str | None = None) -> str:
    """What belongs between the markers, from the results of one benchmark: those of the first machine, and beside them
    those of the others.

    Parameters
    ----------
    results : a result for each machine, all of one benchmark
    amount : "brief", "summary" or "full", of the first machine
    image : link to its plot
    """
    first, *others = results
    shown = BENCHMARKS[first["benchmark"]]
    if not others:
        return content(first, amount, image)
    if amount == "brief" and shown.brief:
        return "\n".join(shown.brief(first, *others))
    blocks = ["\n".join(machines.side_by_side(results, shown.headline, shown.figure)), content(first, amount, image)]
    for other in others if amount == "full" else []:
        blocks += [f"On {machines.title(other)}:", content(other, "summary")]
    return "\n\n".join(blocks)


def regenerate(results: Sequence[Result], root: Path, image: Path | None, *, write: bool = True) -> list[str]:
    """Bring the files of TARGETS up to date; the names of those that differed from the results of one benchmark."""
    changed = []
    for name, amount in TARGETS:
        path = root / name
        if not path.is_file():
            continue
        old = path.read_text(encoding="utf-8")
        link = Path(os.path.relpath(image, path.parent)).as_posix() if image else None
        new = replace_between(old, results[0]["benchmark"], of_machines(results, amount, link))
        if new != old:
            changed.append(name)
            if write:
                path.write_text(new, encoding="utf-8")
    return changed


def draw(result: Result, path: Path, *, write: bool = True) -> Path | None:
    """The plot beside the JSON, drawn where `write`; None for a benchmark that has none."""
    plot = BENCHMARKS[result["benchmark"]].plot
    if plot is None:
        return None
    suffix, drawn = plot
    if write:
        drawn(result, path.with_suffix(suffix))
    return path.with_suffix(suffix)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, draw the plot, bring the files up to date; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="JSON of a benchmark; all that were kept by default")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a table is out of date")
    options = parser.parse_args(arguments)
    names = list(BENCHMARKS)
    if options.file:
        if not options.file.is_file():
            parser.error(f"{options.file} does not exist; run a benchmark first, `python -m benchmarks.pca` for one")
        result = json.loads(options.file.read_text(encoding="ascii"))
        print(content(result, "full"))
        if result["smoke"] or options.file.resolve() not in machines.stored(result["benchmark"]):
            print(f"\n{'A smoke run' if result['smoke'] else 'Not in benchmarks/results'}: no file gets its tables.")
            return 0
        names = [result["benchmark"]]
    kept = {name: files for name in names if (files := machines.stored(name))}
    if not kept:
        parser.error("there are no results; run a benchmark first, `python -m benchmarks.pca` for one")
    return max([_report(files, options.check) for files in kept.values()])


def _report(files: Sequence[Path], check: bool) -> int:
    """Bring the pages up to date with the results of one benchmark."""
    results = [machines.load(path) for path in files]
    images = [draw(result, path, write=not check) for result, path in zip(results, files)]
    changed = regenerate(results, ROOT, images[0], write=not check)
    where = ", ".join(result["machine"] for result in results)
    done = f"{'out of date' if check else 'regenerated'}: {', '.join(changed) or 'nothing'}"
    print(f"{results[0]['benchmark']} ({where}): {done}")
    return 1 if check and changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
