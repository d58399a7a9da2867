"""Table and plot of the benchmark `growth`, from its JSON. Imports matplotlib when it plots and nothing of lae_fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What grows, as it is called below the axis; in the order of a point's numbers.
AXES = {"samples": "samples m", "features": "features d", "components": "components p", "threads": "threads"}


def summary(result: dict[str, Any]) -> list[str]:
    """The exponents, a row for each series."""
    lines = [
        "| what grows | of | from, to | time grows as | flops | bytes | worst error |",
        "|:--|:--|:--|--:|--:|--:|--:|",
    ]
    return [*lines, *map(row, result["cases"])]


def headline(result: dict[str, Any]) -> dict[str, str]:
    """The exponent of each series, and the time of its largest size."""
    return {
        f"{AXES[case['name']]}, {case['work']}": f"{case['points'][-1]['seconds']:.3g} s"
        + ("" if case["exponents"]["seconds"] is None else f", **{case['exponents']['seconds']:.2f}**")
        for case in result["cases"]
    }


def row(case: dict[str, Any]) -> str:
    first, last = case["points"][0], case["points"][-1]
    fixed = ", ".join(f"{key} = {first[key]}" for key in "mdp" if first[key] == last[key])
    powers = (case["exponents"][key] for key in ("seconds", "flops", "bytes"))
    cells = " | ".join("" if power is None else f"{power:.2f}" for power in powers)
    error = f"{max(point['error'] for point in case['points']):.0e}"
    return (
        f"| {AXES[case['name']]} | {case['work']}, {fixed} | {first['size']:g}, {last['size']:g} | {cells} |"
        f" {error}{'' if case['accurate'] else ', **misses the tolerance**'} |"
    )


def full(result: dict[str, Any]) -> str:
    """Every point."""
    lines = ["| what grows | size | seconds | GF/s | GB/s |", "|:--|--:|--:|--:|--:|"]
    for case in result["cases"]:
        for point in case["points"]:
            workers = point["size"] if case["name"] == "threads" else 1  # the point has the work of each
            rates = (point[key] * workers / point["seconds"] / 1e9 for key in ("flops", "bytes"))
            shown = " | ".join(f"{rate:.3g}" for rate in rates)
            lines.append(f"| {AXES[case['name']]} | {point['size']:g} | {point['seconds']:.3g} | {shown} |")
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Time over size on logarithmic axes, a panel a series, with what flops and bytes predict from the last point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "lae_fast", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.8), layout="constrained")
        for axis, case in zip(axes.flat, result["cases"]):
            _panel(axis, case)
        # the lines are the same in all panels
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _panel(axis: Any, case: dict[str, Any]) -> None:
    from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

    sizes, last = [point["size"] for point in case["points"]], case["points"][-1]
    for key, style in (("flops", "--"), ("bytes", ":")):
        line = [last["seconds"] * point[key] / last[key] for point in case["points"]]
        axis.plot(sizes, line, linestyle=style, color="#7a7a7a", label=f"as the {key} grow")
    axis.plot(sizes, [point["seconds"] for point in case["points"]], marker="o", color="#c8452c", label="measured")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(EngFormatter("s"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.set_xlabel(AXES[case["name"]])
    power = case["exponents"]["seconds"]
    grows = "" if power is None else f": grows with the power {power:.2f}"
    axis.set_title(f"{'A fit' if case['work'] == 'fit' else 'Scores'}{grows}", fontsize=10)
