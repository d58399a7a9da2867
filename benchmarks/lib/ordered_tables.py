"""Table and plot of `ordered` from its JSON: what the ordered loss costs beside the squared error.

Imports matplotlib when it plots, else the standard library only, so that `benchmarks.report` needs nothing of lae_fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What the project has set itself: intervals within these, from this width on, and a slope of nothing.
AIM = (0.98, 1.02)
_REFERENCES = {"mse": "squared error in the same loop", "kernel": "kernel for the squared error only"}
_COLOURS = {"mse": "#c8452c", "kernel": "#2f5d8a"}


def summary(result: dict[str, Any]) -> list[str]:
    """One row for each width: both ratios with their intervals, and the counts; then what is seen."""
    found = result["summary"]
    lines = [
        f"| p | ordered / {_REFERENCES['mse']} | ordered / {_REFERENCES['kernel']} | flops of an iteration |"
        " the mask adds | bytes | adds |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for p in found["mse"]["by_width"]:
        counts = _counts(result["cases"], int(p))
        cells = [_interval(found[name]["by_width"][p]) for name in _REFERENCES]
        for unit in ("flops", "bytes"):
            base = counts["mse"][unit]
            cells += [f"{base:,.0f}", f"{counts['ordered'][unit] - base:,.0f}"]
        lines.append(f"| {p} | {' | '.join(cells)} |")
    fewest = min(case["pairs"] for case in result["cases"])
    lines += [
        "",
        f"Ratios of the lower quartiles of an iteration's time, geometric mean over moments and rows, plain steps and"
        f" Adam, d = {result['cases'][0]['d']}, one thread, its own clock; at least {4 * fewest} rounds for a width;"
        " in brackets the 95 % interval of the bootstrap. Counts are of a plain step on moments in float32.",
        "",
        *_verdict(found),
    ]
    wrong = [_place(case) for case in result["cases"] if not all(case["correct"].values())]
    return [*lines, *(["", f"Wrong answers: {'; '.join(wrong)}."] if wrong else [])]


def headline(result: dict[str, Any]) -> dict[str, str]:
    """The ratio to the squared error in the same loop, for each width."""
    return {f"p = {p}": _interval(ratio) for p, ratio in result["summary"]["mse"]["by_width"].items()}


def _verdict(found: dict[str, Any]) -> list[str]:
    """For each reference: which intervals leave the aim, and whether the ratio grows with p."""
    lines = []
    for name, title in _REFERENCES.items():
        by_width, slope = found[name]["by_width"], found[name]["slope"]
        out = [f"p = {p}" for p, r in by_width.items() if not AIM[0] <= r["low"] <= r["high"] <= AIM[1]]
        flat = "includes" if slope["low"] <= 0 <= slope["high"] else "does not include"
        lines.append(
            f"- Beside the {title}: {len(by_width) - len(out)} of {len(by_width)} intervals lie within {AIM[0]:g} to"
            f" {AIM[1]:g}{' (not ' + ', '.join(out) + ')' if out else ''}. For ten times the width the ratio changes by"
            f" {slope['value']:+.4f} ({slope['low']:+.4f} to {slope['high']:+.4f}), which {flat} 0."
        )
    return lines


def full(cases: list[dict[str, Any]]) -> str:
    """Markdown: one row a case."""
    lines = [
        "| p | regime | step | ordered (us) | / mse, same loop | / kernel | rounds | GF/s |",
        "|--:|---|---|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        speed = case["counts"]["ordered"]["flops"] / case["us"]["ordered"] / 1e3
        lines.append(
            f"| {case['p']} | {case['regime']} | {case['step']} | {case['us']['ordered']:.4g}"
            f" | {_interval(case['ratio']['mse'])} | {_interval(case['ratio']['kernel'])} | {case['pairs']}"
            f" | {speed:.0f} |"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Both ratios over p with their intervals, and each kind of iteration as a small dot; the same file each time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "lae_fast", "svg.fonttype": "none"}):
        figure, axis = plt.subplots(figsize=(6.4, 3.4))
        axis.axhspan(*AIM, color="#e8e8e8", linewidth=0)
        axis.axhline(1.0, color="black", linewidth=0.8)
        for (name, title), shift in zip(_REFERENCES.items(), (0.97, 1.03)):
            by_width = result["summary"][name]["by_width"]
            places, values = [shift * int(p) for p in by_width], list(by_width.values())
            axis.errorbar(
                places, [r["value"] for r in values],
                [[r["value"] - r["low"] for r in values], [r["high"] - r["value"] for r in values]],
                marker="o", markersize=4, capsize=2, color=_COLOURS[name], label=title,
            )  # fmt: skip
            cases = result["cases"]
            dots = [shift * c["p"] for c in cases], [c["ratio"][name]["value"] for c in cases]
            axis.plot(*dots, linestyle="none", marker=".", markersize=3, color=_COLOURS[name], alpha=0.5)
        axis.set_xscale("log")
        axis.set_xlabel("latent width p (grey: the aim; dots: moments, rows, plain steps, Adam)")
        axis.set_ylabel("ordered takes, times")
        axis.legend(frameon=False, fontsize=8, title="an iteration with the", title_fontsize=8)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)


def _counts(cases: list[dict[str, Any]], p: int) -> dict[str, dict[str, float]]:
    return next(c["counts"] for c in cases if (c["p"], c["regime"], c["step"]) == (p, "moments", "gradient"))


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _place(case: dict[str, Any]) -> str:
    return f"p = {case['p']}, {case['regime']}, {case['step']}"
