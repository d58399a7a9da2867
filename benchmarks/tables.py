"""Markdown tables of the training benchmarks, from their JSON: `ordered` (ordered against mse) and `training` (peers).

Imports the standard library only, so that `benchmarks.report` needs nothing of lae_fast.
"""

from __future__ import annotations

from typing import Any

# What the project has set itself; see the benchmarks' own texts.
_ORDERED_AIM = 1.02
_ORDERED_FROM = 5


def ordered_summary(cases: list[dict[str, Any]]) -> list[str]:
    """One row for each width: ordered over mse for each regime and step, at the largest d; then what misses the aim."""
    largest = max(case["d"] for case in cases)
    chosen = [case for case in cases if case["d"] == largest]
    kinds = sorted({(case["regime"], case["step"]) for case in chosen})
    lines = [
        f"| p (d = {largest}) | " + " | ".join(f"{regime}, {step}" for regime, step in kinds) + " |",
        "|--:|" + "--:|" * len(kinds),
    ]
    for p in sorted({case["p"] for case in chosen}):
        cells = []
        for kind in kinds:
            found = [case for case in chosen if case["p"] == p and (case["regime"], case["step"]) == kind]
            cells.append(_ratio(found[0]["ordered"]["ratio"]) if found else "")
        lines.append(f"| {p} | " + " | ".join(cells) + " |")
    counted = [case for case in cases if case["p"] >= _ORDERED_FROM and case["ordered"]["ratio"]]
    over = [_place(case) for case in counted if case["ordered"]["ratio"]["median"] > _ORDERED_AIM]
    wrong = [_place(case) for case in cases if not all(case["correct"].values())]
    lines += [
        "",
        f"Time of an iteration with the ordered loss over that of a kernel that knows the squared error only, median"
        f" of the ratios within a round (quartiles). Over {_ORDERED_AIM:g} at p >= {_ORDERED_FROM}: {len(over)} of"
        f" {len(counted)} cases{': ' if over else ''}{'; '.join(over)}.",
    ]
    if wrong:
        lines.append(f"Wrong answers: {'; '.join(wrong)}.")
    return lines


def _place(case: dict[str, Any]) -> str:
    return f"d = {case['d']}, p = {case['p']}, {case['regime']}, {case['step']}"


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['q1']:.3f} to {ratio['q3']:.3f})" if ratio else ""


def ordered_full(cases: list[dict[str, Any]]) -> str:
    """Markdown: one row a case."""
    lines = [
        "| d | regime | step | p | mse (us) | ordered / mse | quartiles | RAG / mse | GHA / mse | GF/s |",
        "|--:|---|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for case in cases:
        ratio = case["ordered"]["ratio"]
        speed = sum(case["flops"].values()) / case["ordered"]["us"] / 1e3
        lines.append(
            f"| {case['d']} | {case['regime']} | {case['step']} | {case['p']} | {case['mse']['us']:.4g} "
            f"| {ratio['median']:.3f} | {ratio['q1']:.3f} to {ratio['q3']:.3f} | {case['rag']['ratio']['median']:.3f} "
            f"| {case['gha']['ratio']['median']:.3f} | {speed:.0f} |"
        )
    return "\n".join(lines)


def training_summary(cases: list[dict[str, Any]]) -> list[str]:
    """One row for each case: ours, the quickest PyTorch, the bare products, and forming the moments."""
    lines = [
        "| case | d | p | lae_fast, an iteration | quickest PyTorch | takes | bare GEMMs take | forming the moments |",
        "|---|--:|--:|--:|:--|--:|--:|--:|",
    ]
    for case in cases:
        raced = {name: record for name, record in case["contestants"].items() if record["times_ours"]}
        torch = {name: r["times_ours"]["median"] for name, r in raced.items() if name.startswith("PyTorch")}
        quickest = min(torch, key=torch.__getitem__, default="")
        times = f"**{torch[quickest]:.3g}x** as long" if torch else ""
        bare = next((r["times_ours"]["median"] for name, r in raced.items() if name.startswith("bare")), None)
        ours = raced.get("lae_fast")
        lines.append(
            f"| {case['title']} ({case['m']} samples) | {case['d']} | {case['p']} "
            f"| {_microseconds(ours['us']) if ours else 'not raced'} | {quickest} | {times} "
            f"| {'' if bare is None else f'{bare:.2f}x as long'} | {_microseconds(1e6 * case['moments_s'])} |"
        )
    wrong = [f"{name} ({case['title']})" for case in cases for name, right in case["correct"].items() if not right]
    return [*lines, *(["", f"Wrong gradients: {'; '.join(wrong)}."] if wrong else [])]


def _microseconds(value: float) -> str:
    return f"{value:.3g} us" if value < 1e3 else f"{value / 1e3:.3g} ms"


def training_full(cases: list[dict[str, Any]]) -> str:
    """Markdown: one row for each contestant."""
    lines = [
        "| case | d | p | contestant | per iteration (us) | times ours | quartiles |",
        "|---|--:|--:|---|--:|--:|---|",
    ]
    for case in cases:
        for name, record in case["contestants"].items():
            ratio = record["times_ours"]
            shown = f"{record['us']:.4g}" if record["us"] else f"{record['status']}: {record['reason']}"
            quartiles = f"{ratio['q1']:.2f} to {ratio['q3']:.2f}" if ratio else ""
            median = f"{ratio['median']:.2f}" if ratio else ""
            lines.append(f"| {case['title']} | {case['d']} | {case['p']} | {name} | {shown} | {median} | {quartiles} |")
        for name, note in case["notes"].items():
            lines.append(f"| {case['title']} | {case['d']} | {case['p']} | {name} | {note} | | |")
        lines.append(
            f"| {case['title']} | {case['d']} | {case['p']} | forming the moments of {case['m']} samples, once "
            f"| {1e6 * case['moments_s']:.4g} | | |"
        )
    return "\n".join(lines)
