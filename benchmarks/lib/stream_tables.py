"""Markdown tables of the benchmarks `streaming` and `incremental`, from their JSON.

Imports the standard library only, so that `benchmarks.report` needs nothing of lae_fast.
"""

from __future__ import annotations

from typing import Any


def streaming(result: dict[str, Any]) -> list[str]:
    """Files larger than the memory allowed, then bytes against floats."""
    files = result["files"]
    lines = [f"Files: skipped, {files['skipped']}."] if "skipped" in files else _files(files)
    for images in result["bytes"]:
        lines += ["", *([f"Bytes: skipped, {images['skipped']}."] if "skipped" in images else _bytes(images))]
    return lines


def _files(files: dict[str, Any]) -> list[str]:
    lines = [
        "| file | peak memory | of max_memory | a fit | GB/s | of a plain read | of reading memory | worst error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in files["cases"]:
        rate, share = case["gbps"]["median"], case["share_of_read"]
        cells = (
            f"{case['kind']}, {case['bytes'] / 1e9:.2g} GB",
            f"{case['peak_with_libraries'] / 1e6:.0f} MB",
            f"{100 * case['peak_with_libraries'] / files['limit']:.0f} %",
            f"{case['seconds']['median']:.3g} s",
            f"{rate:.2f}",
            f"{100 * share['median']:.0f} % ({100 * share['q1']:.0f} to {100 * share['q3']:.0f})",
            f"{100 * rate / files['copy_gbps']:.0f} %",
            f"{case['error']:.0e}" + ("" if case["accurate"] else ", **misses the tolerance**"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    cached = "; ".join(f"{case['kind']} {', '.join(map(_percent, case['cached']))}" for case in files["cases"])
    return [
        *lines,
        "",
        f"{files['m']} x {files['d']} float32, {files['p']} components, max_memory {files['limit'] / 1e6:.0f} MB,"
        f" products by {files['cases'][0]['blas']}. Peak"
        " memory is all anonymous memory of the process, Python and the libraries included. A plain read is one thread"
        " that reads the same file into one buffer, before or after the fit in turns. In the page cache before each"
        f" round: {cached}.",
    ]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.0f} %"


def _bytes(images: dict[str, Any]) -> list[str]:
    m, d = images["shape"]
    lines = [f"| {images['name']}, {m} x {d}, {images['p']} components | median | uint8 is |", "|---|--:|--:|"]
    for record in images["contestants"]:
        ratio = images["ratios"].get(record["name"])
        faster = f"**{ratio['median']:.2f}x** as fast ({ratio['q1']:.2f} to {ratio['q3']:.2f})" if ratio else ""
        wrong = ", **misses the tolerance**" if record["accurate"] is False else ""
        lines.append(f"| {record['name']}{wrong} | {_time(record)} | {faster} |")
    return [
        *lines,
        "",
        f"BLAS: {images['blas']}. Aims: at least the speed of float32, and 3x scikit-learn (8x with MKL).",
    ]


def incremental(result: dict[str, Any]) -> list[str]:
    """A stream of images: ours, and scikit-learn's."""
    data, ratio = result["data"], result["speedup"]
    m, d = data["shape"]
    title = f"{data['name']} {m} x {d} {data['dtype']}, {data['n_components']} components, batches of {data['batch']}"
    lines = [f"| {title} | median | worst error of a variance |", "|---|--:|--:|"]
    for record in result["contestants"]:
        error = record["detail"].get("variance_error")
        lines.append(f"| {record['name']} | {_time(record)} | {'' if error is None else f'{error:.0e}'} |")
    if ratio:
        lines += [
            "",
            f"lae_fast is **{ratio['median']:.1f}x** as fast ({ratio['q1']:.1f} to {ratio['q3']:.1f}; aim 10x).",
        ]
    return lines


def streaming_headline(result: dict[str, Any]) -> dict[str, str]:
    """A fit of each file, then of images as bytes with the ratio to scikit-learn's, for each BLAS."""
    found = {}
    for case in result["files"].get("cases", []):
        found[f"{case['kind']}, {case['bytes'] / 1e9:.2g} GB"] = f"{case['seconds']['median']:.3g} s"
    for images in result["bytes"]:
        ours = next((r for r in images.get("contestants", []) if r["name"] == "lae_fast, uint8"), None)
        if ours and ours["summary"]:
            ratio = images["ratios"].get("scikit-learn, uint8")
            times = f", **{ratio['median']:.2f}x**" if ratio else ""
            found[f"{images['name']}, uint8, {images['blas'].split(' ')[0]}"] = f"{_time(ours)}{times}"
    return found


def incremental_headline(result: dict[str, Any]) -> dict[str, str]:
    """Our time and the ratio to scikit-learn's."""
    data, ratio = result["data"], result["speedup"]
    ours = next(record for record in result["contestants"] if record["name"] == "lae_fast")
    times = f", **{ratio['median']:.1f}x**" if ratio else ""
    return {f"{data['name']}, batches of {data['batch']}": f"{_time(ours)}{times}"}


def _time(record: dict[str, Any]) -> str:
    return f"{record['summary']['median']:.3g} s" if record["summary"] else f"{record['status']}: {record['reason']}"
