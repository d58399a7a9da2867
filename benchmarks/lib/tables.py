"""Markdown tables from JSON: `training` and `sparse`, ours against peers.

Imports the standard library only, so that `benchmarks.report` needs nothing of lae_fast.
"""

from __future__ import annotations

from typing import Any

# What the project has set itself; see the benchmark's own text.
_SPARSE_AIM = 4.0


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


def training_headline(result: dict[str, Any]) -> dict[str, str]:
    """Of each case: an iteration of ours, and how many times as long the quickest PyTorch takes."""
    found = {}
    for case in result["cases"]:
        raced = {name: record for name, record in case["contestants"].items() if record["times_ours"]}
        if "lae_fast" in raced:
            torch = [record["times_ours"]["median"] for name, record in raced.items() if name.startswith("PyTorch")]
            times = f", **{min(torch):.3g}x**" if torch else ""
            label = f"{case['title']}, d = {case['d']}, p = {case['p']}"
            found[label] = f"{_microseconds(raced['lae_fast']['us'])}{times}"
    return found


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


def sparse_summary(cases: list[dict[str, Any]]) -> list[str]:
    """One row for each matrix: ours against the best peer that meets the tolerance, memory, and what misses the aim."""
    lines = [
        "| columns | stored entries | components | lae_fast | best accurate peer | lae_fast is | peak memory | of its"
        " stated workspace |",
        "|---|--:|--:|--:|:--|--:|--:|--:|",
    ]
    short = []
    for case in cases:
        records = {record["name"]: record for record in case["contestants"]}
        ours = records["lae_fast PCA"]
        best, ratio = records.get(case["best_peer"]), case["speedup"].get(case["best_peer"])
        peak = case["memory"].get(ours["name"], {}).get("peak_bytes")
        share = f"{peak / ours['detail']['workspace_bytes']:.1f}x" if peak is not None and ours["accurate"] else ""
        peer = f"{best['name']}, {_sparse_time(best)}" if best else "none met the tolerance"
        lines.append(
            f"| {case['name']} ({case['m']} x {case['d']}) | {case['nnz'] / 1e6:.1f} million | {case['p']} "
            f"| {_sparse_time(ours)} | {peer} "
            f"| {f'**{_short_ratio(ratio)}**' if ratio else ''} | {_megabytes(peak)} | {share} |"
        )
        if ratio and ratio["median"] < _SPARSE_AIM:
            short.append(f"{case['name']} ({ratio['median']:.2f}x)")
    return [*lines, "", f"Short of the aim, {_SPARSE_AIM:g}x: {'; '.join(short) or 'none'}."]


def sparse_headline(result: dict[str, Any]) -> dict[str, str]:
    """Of each matrix: our time, and the ratio to the best accurate peer."""
    found = {}
    for case in result["cases"]:
        ours = next(record for record in case["contestants"] if record["name"] == "lae_fast PCA")
        if ours["summary"]:
            ratio = case["speedup"].get(case["best_peer"])
            times = f", **{ratio['median']:.2f}x**" if ratio else ""
            found[f"{case['name']} ({case['m']} x {case['d']})"] = f"{ours['summary']['median']:.3g} s{times}"
    return found


def sparse_full(cases: list[dict[str, Any]]) -> str:
    """Markdown: one row for each contestant."""
    lines = [
        "| columns | contestant | median | worst residual | lae_fast is | peak memory | remarks |",
        "|---|:--|--:|--:|--:|--:|:--|",
    ]
    for case in cases:
        for record in sorted(case["contestants"], key=lambda r: r["summary"].get("median", float("inf"))):
            residual = record["detail"].get("worst_residual")
            remarks = [record["note"]] if record["note"] else []
            if record["accurate"] is False and residual is not None:
                remarks.append("misses the tolerance")
            if not record["summary"]:
                remarks.append(f"{record['status']}: {record['reason']}")
            ratio = case["speedup"].get(record["name"])
            median = f"{record['summary']['median']:.3g} s" if record["summary"] else ""
            lines.append(
                f"| {case['name']} | {record['name']} | {median} | {'' if residual is None else f'{residual:.0e}'} "
                f"| {_short_ratio(ratio) if ratio else ''} "
                f"| {_megabytes(case['memory'].get(record['name'], {}).get('peak_bytes'))} | {'; '.join(remarks)} |"
            )
    return "\n".join(lines)


def _sparse_time(record: dict[str, Any]) -> str:
    if not record["summary"]:
        return f"{record['status']}: {record['reason']}"
    return f"{record['summary']['median']:.3g} s ({record['detail']['worst_residual']:.0e})"


def _short_ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f}x as fast ({ratio['q1']:.2f} to {ratio['q3']:.2f})"


def _megabytes(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f} MB"


def small(result: dict[str, Any]) -> list[str]:
    """Small data: fits and transforms, and from which size on none is lost."""
    lines = ["| | data, float32 | lae_fast | scikit-learn | lae_fast is |", "|:--|--:|--:|:--|--:|"]
    for case in result["cases"]:
        times, (m, d) = case["lower_quartile_s"], case["shape"]
        theirs = f"{times[case['peer']] * 1e6:.0f} us" + (f", {case['peer']}" if case["work"] == "fit" else "")
        ratio = f"{case['ratio']:.2f}x" if case["ratio"] < 1.0 else f"**{case['ratio']:.2f}x**"
        ours = f"{times['lae_fast'] * 1e6:.0f} us"
        lines.append(f"| {case['work']} | {m} x {d} | {ours} | {theirs} | {ratio} as fast |")
    said = []
    for work, entries in result["crossover"].items():
        said.append(
            f"{work}: " + ("the largest is lost" if entries is None else f"none lost from {entries} entries up")
        )
    threads = result["settings"]["threads"]
    return [
        *lines,
        "",
        f"Crossover: {'; '.join(said)}. At most 10 components; lower quartiles of rounds in which all ran one after "
        f"the other, {'one thread' if threads == 1 else f'{threads} threads'} each, the quicker of the two solvers of "
        "scikit-learn that are accurate for any data."
        + (" Times are those of the thread, not of the clock on the wall." if threads == 1 else ""),
    ]


def small_headline(result: dict[str, Any]) -> dict[str, str]:
    """Of each size: our time, and the ratio to scikit-learn's quicker solver."""
    found = {}
    for case in result["cases"]:
        m, d = case["shape"]
        found[f"{case['work']}, {m} x {d}"] = (
            f"{case['lower_quartile_s']['lae_fast'] * 1e6:.0f} us, **{case['ratio']:.2f}x**"
        )
    return found
