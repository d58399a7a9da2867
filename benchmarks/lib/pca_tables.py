"""Tables and plot of the benchmark `pca`, from its JSON.

Imports matplotlib when it plots and nothing of lae_fast, so that `benchmarks.report` needs nothing of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.lib import harness, machines

OURS = "lae_fast"


def seconds(value: float | None) -> str:
    """Three digits with a unit that keeps them short."""
    if value is None:
        return ""
    if value < 1e-3:
        return f"{1e6 * value:.3g} us"
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 999.5 else f"{value:.0f} s"


def summary(result: dict[str, Any]) -> list[str]:
    """One row for each data set: ours against the best peer that meets the tolerance, then what was lost."""
    lines = [
        "| data | components | lae_fast | best accurate peer | lae_fast is | quickest that misses the tolerance |"
        " of the BLAS ceiling |",
        "|---|--:|--:|:--|--:|:--|--:|",
    ]
    lines += [_summary_row(case) for case in result["cases"]]
    return [*lines, "", *_verdict(result["cases"]), "", _how(result)]


def headline(result: dict[str, Any]) -> dict[str, str]:
    """Of each data set: our time, and the ratio to the best accurate peer."""
    found = {}
    for case in result["cases"]:
        mine = _record(case, OURS)
        if mine and mine["summary"]:
            ratio = f", **{case['speedup'][case['best_peer']]['median']:.2f}x**" if _has_ratio(case) else ""
            label = f"{case['title']}, {_shape(case)} {case['dtype']}, {case['p']} components"
            found[label] = f"{seconds(mine['summary']['median'])}{ratio}"
    return found


def _ratios(result: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
    """Each case that has one, with its ratio to the best peer that meets the tolerance."""
    return [(case, case["speedup"][case["best_peer"]]["median"]) for case in result["cases"] if _has_ratio(case)]


def brief(result: dict[str, Any], *others: dict[str, Any]) -> list[str]:
    """Against the best peer that meets the tolerance: the mean over all data, a row for each shape, what was lost.

    Of `others`, the results of other machines, the mean alone.
    """
    raced = _ratios(result)
    if not raced:
        return ["No data set was raced."]
    shapes = list(dict.fromkeys((_shape(case), case["dtype"]) for case, _ in raced))
    lines = ["| shape | data (components) | lae_fast is | best accurate peer |", "|---|:--|--:|:--|"]
    for shape in shapes:
        group = [(case, ratio) for case, ratio in raced if (_shape(case), case["dtype"]) == shape]
        ratios = [ratio for _, ratio in group]
        data = "; ".join(f"{case['title']} ({case['p']})" for case, _ in group)
        peers = ", ".join(dict.fromkeys(case["best_peer"] for case, _ in group))
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(group) > 1 else ""
        lines.append(f"| {shape[0]}, {shape[1]} | {data} | **{_mean(ratios):.2f}x** as fast{spread} | {peers} |")
    lost = [f"{case['title']} {_shape(case)} ({case['p']}), {ratio:.2f}x" for case, ratio in raced if ratio < 1]
    machine = result["environment"]
    means = [(found, [ratio for _, ratio in _ratios(found)]) for found in others]
    elsewhere = [f" {_mean(ratios):.2f} times on {machines.title(found)}." for found, ratios in means if ratios]
    return [
        f"**{_mean([ratio for _, ratio in raced]):.2f} times** as fast as the best peer of the same accuracy: geometric"
        f" mean over {len(raced)} data sets.{''.join(elsewhere)}",
        "",
        *lines,
        "",
        f"Lost: {'; '.join(lost) or 'none'}. Interleaved fits, {machines.title(result)}, {machine['date'][:10]}"
        f"{', beside other work' if harness.is_busy(machine) else ''}: `python -m benchmarks.pca`.",
    ]


def _has_ratio(case: dict[str, Any]) -> bool:
    return bool(case.get("speedup", {}).get(case.get("best_peer") or ""))


def _mean(ratios: list[float]) -> float:
    """Geometric."""
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))


def _summary_row(case: dict[str, Any]) -> str:
    data = f"{case['title']} ({_shape(case)}, {case['dtype']})"
    if case["status"] != "done":
        return f"| {data} | {case['p']} | not run: {case['reason']} | | | | |"
    mine = _record(case, OURS)
    ours = _ours_cell(mine)
    best = _record(case, case["best_peer"])
    peer = f"{best['name']}, {seconds(best['summary']['median'])}" if best else "none met the tolerance"
    misses = min(
        (r for r in case["contestants"] if r["summary"] and r["accurate"] is False and r["kind"] != "ours"),
        key=lambda r: r["summary"]["median"],
        default=None,
    )
    worse = ""
    if misses:
        worse = f"{misses['name']}, {seconds(misses['summary']['median'])} ({_residual(misses)})"
    share = _share(case["work"]) if case.get("work") else ""
    return f"| {data} | {case['p']} | {ours} | {peer} | {_faster(case, case['best_peer'])} | {worse} | {share} |"


def _share(done: dict[str, Any]) -> str:
    return f"{100 * done['ceiling_share']['median']:.0f} % ({done['solver']})"


def _ours_cell(mine: dict[str, Any] | None) -> str:
    if mine is None:
        return "not run"
    if not mine["summary"]:
        return f"{mine['status']}: {mine['reason']}"
    remark = "" if mine["accurate"] else ", **misses the tolerance**"
    return f"{seconds(mine['summary']['median'])} ({_residual(mine)}){remark}"


def _faster(case: dict[str, Any], name: str | None) -> str:
    ratio = case.get("speedup", {}).get(name) if name else None
    if not ratio:
        return ""
    return f"**{ratio['median']:.2f}x** as fast ({ratio['q1']:.2f} to {ratio['q3']:.2f})"


def _verdict(cases: list[dict[str, Any]]) -> list[str]:
    """Losses and missed aims, in words, also when there are none."""
    lost, short = [], []
    for case in cases:
        if not _has_ratio(case):
            continue
        ratio = case["speedup"][case["best_peer"]]
        if ratio["median"] < 1:
            lost.append(f"{case['name']} ({ratio['median']:.2f}x, to {case['best_peer']})")
        elif case["aim"] and ratio["median"] < case["aim"]:
            short.append(f"{case['name']} ({ratio['median']:.2f}x, aim {case['aim']:g}x)")
    wrong = [case["name"] for case in cases if (mine := _record(case, OURS)) and mine["accurate"] is False]
    lines = [f"Lost: {'; '.join(lost) or 'none'}. Won, but short of the aim: {'; '.join(short) or 'none'}."]
    if wrong:
        lines.append(f"lae_fast misses the tolerance on: {', '.join(wrong)}.")
    return lines


def _how(result: dict[str, Any]) -> str:
    settings = result["settings"]
    return (
        f"Times are medians of fits that ran interleaved, at most {settings['rounds']} rounds; in brackets the worst"
        " relative residual, which must be at most 1e-4 for float32 and 1e-8 for float64. The ratio is the median of"
        " the ratios within a round, with its quartiles."
    )


def full(result: dict[str, Any]) -> list[str]:
    """Every contestant on every data set, the ones that were not timed with the reason, and the first call."""
    lines: list[str] = []
    for case in result["cases"]:
        lines += ["", f"### {case['title']}, {_shape(case)} {case['dtype']}, {case['p']} components", ""]
        if case["status"] != "done":
            lines.append(f"Not run: {case['reason']}.")
            continue
        lines += [
            "| contestant | median | min | IQR | rounds | worst residual | lae_fast is | remarks |",
            "|:--|--:|--:|--:|--:|--:|--:|:--|",
        ]
        lines += [_contestant_row(case, record) for record in _by_time(case)]
        lines += ["", *_case_notes(case)]
    return [*lines, *_first_call(result)]


def _contestant_row(case: dict[str, Any], record: dict[str, Any]) -> str:
    summary = record["summary"]
    name = f"**{record['name']}**" if record["name"] == OURS else record["name"]
    if not summary:
        reason = ": ".join(text for text in (record["status"], record["reason"]) if text)
        return f"| {name} | | | | | {_residual(record)} | | {reason} |"
    ratio = case.get("speedup", {}).get(record["name"])
    faster = f"{ratio['median']:.2f}x as fast" if ratio else ""
    remarks = [] if record["accurate"] is not False else ["misses the tolerance"]
    # Where the residuals are bad already, this adds nothing.
    if record["detail"].get("missed") and record["detail"]["worst_residual"] <= case["tolerance"]:
        remarks.append(f"lacks {record['detail']['missed']} of the leading eigenvalues")
    remarks += [record["note"]] if record["note"] else []
    return (
        f"| {name} | {seconds(summary['median'])} | {seconds(summary['min'])} | {seconds(summary['iqr'])} |"
        f" {summary['n']} | {_residual(record)} | {faster} |"
        f" {'; '.join(remarks)} |"
    )


def _case_notes(case: dict[str, Any]) -> list[str]:
    limits = case["ceilings"]
    lines = [
        f"Ceilings: SYRK {limits['syrk_gflops']:.3g} GF/s, a pass of {limits['block']} columns"
        f" {limits['gemm_gflops']:.3g} GF/s, square GEMM {limits['square_gflops']:.3g} GF/s, read"
        f" {limits['read_gbps']:.3g} GB/s."
    ]
    done = case.get("work")
    if done:
        lines.append(
            f"Ours: {done['solver']}, {done['n_passes']} passes, {done['flops']:.2e} flops,"
            f" {done['gflops']:.0f} GF/s; BLAS alone would take"
            f" {100 * done['ceiling_share']['median']:.0f} % of the time ({done['ceiling']})."
        )
    mine = _record(case, OURS)
    if mine and "certificate" in mine["detail"]:
        held = "holds" if mine["detail"]["certificate_holds"] else "DOES NOT HOLD"
        lines.append(f"Certified: {mine['detail']['certificate']:.1e}; measured: {_residual(mine)}; the bound {held}.")
    profile = case.get("profile")
    if profile:
        largest = ", ".join(f"`{name}` {100 * own / profile['seconds']:.0f} %" for name, own in profile["own"][:6])
        lines.append(
            f"Profile of one fit: certificate {100 * profile['certificate_share']:.1f} %; own times: {largest}."
        )
    return lines


def _first_call(result: dict[str, Any]) -> list[str]:
    names = {"warm_cache": "fresh process, warm cache", "no_cache": "fresh process, nothing cached"}
    found = result.get("first_call")
    if not found:
        return []
    lines = [
        "",
        "### The first call",
        "",
        "| | importing lae_fast | first fit adds, Gram | first fit adds, Krylov |",
        "|:--|--:|--:|--:|",
    ]
    for key, times in found.items():
        if "failed" in times:
            lines.append(f"| {names[key]} | failed: {times['failed']} | | |")
        else:
            cells = (times["import_s"], times["gram_adds_s"], times["krylov_adds_s"])
            lines.append(f"| {names[key]} | {' | '.join(seconds(cell) for cell in cells)} |")
    return lines


def plot(result: dict[str, Any], path: Path) -> None:
    """One panel for each data set: median time with quartiles, hollow where the answer misses the tolerance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = [case for case in result["cases"] if any(r["summary"] for r in case["contestants"])]
    if not cases:
        return
    columns = 2 if len(cases) > 1 else 1
    rows = math.ceil(len(cases) / columns)
    deepest = max(len([r for r in case["contestants"] if r["summary"]]) for case in cases)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, rows * (0.9 + 0.2 * deepest)), squeeze=False)
    for axis, case in zip(axes.flat, cases):
        _panel(axis, case)
    for axis in axes.flat[len(cases) :]:
        axis.set_axis_off()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it the same results give the same file.
    figure.savefig(path, dpi=140, metadata={"Software": None})
    pyplot.close(figure)


def _panel(axis: Any, case: dict[str, Any]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    timed = [r for r in _by_time(case) if r["summary"]][::-1]
    for height, record in enumerate(timed):
        summary = record["summary"]
        colour = {"ours": "#c8452c", "variant": "#c8452c", "ceiling": "#7a7a7a"}.get(record["kind"], "#2f5d8a")
        axis.plot([summary["q1"], summary["q3"]], [height, height], color=colour, linewidth=2)
        face = "white" if record["accurate"] is False else colour
        axis.plot(summary["median"], height, marker="o", color=colour, markerfacecolor=face, linestyle="none")
        axis.annotate(
            seconds(summary["median"]),
            (summary["q3"], height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axis.set_yticks(range(len(timed)), [r["name"] for r in timed], fontsize=8)
    axis.set_ylim(-0.7, len(timed) - 0.3)
    axis.set_xscale("log")
    axis.margins(x=0.25)
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 15 * low else (1.0, 3.0)))
    axis.xaxis.set_major_formatter(lambda value, _: seconds(value))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=8)
    axis.set_xlabel("a fit (hollow: misses the tolerance)", fontsize=8)
    axis.set_title(f"{case['title']}, {_shape(case)} {case['dtype']}, {case['p']} components", fontsize=9, loc="right")
    axis.grid(axis="x", alpha=0.3)


def _record(case: dict[str, Any], name: str | None) -> dict[str, Any] | None:
    return next((r for r in case["contestants"] if r["name"] == name), None)


def _by_time(case: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(case["contestants"], key=lambda r: r["summary"].get("median", math.inf))


def _shape(case: dict[str, Any]) -> str:
    return f"{case['m']} x {case['d']}"


def _residual(record: dict[str, Any]) -> str:
    detail = record["detail"]
    if "worst_residual" not in detail:
        return ""
    return "infinite" if detail["worst_residual"] is None else f"{detail['worst_residual']:.0e}"
