"""The command ``lae-fast report``: one page about a model, with all that it shows: table, pictures, how it was made."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from lae_fast.cli import options as cli_options
from lae_fast.cli.model_file import Model, ModelPath, how_it_was_made, load_model
from lae_fast.cli.options import Declaration, option
from lae_fast.cli.output import Outputs, check_outputs, interruptions, print_fields, print_json
from lae_fast.cli.pictures import Image, Rows, draw, parse_image, some_rows
from lae_fast.sizes import format_bytes

# Components that have a picture of their loadings, and rows of the table.
_LOADINGS, _TABLE = 3, 200
# Features beyond which arrows hide each other.
_ARROWS = 200
_VECTORS = ("scree", "loadings", "circle", "history")  # few shapes: drawn sharply at any size

_WORDS = {
    "scree": ("Variance explained", "Bars: each component. Line: their running sum. Below: the certificate."),
    "scores": ("Rows", "Rows along the first two components."),
    "biplot": ("Rows and columns", "Points: rows, of unit variance. Arrows: columns, as long as their deviation."),
    "circle": ("Correlations", "Correlation of each column with the first two components."),
    "loadings": ("Loadings", "The columns that weigh most in a component; negative weights are hatched."),
    "images": ("Components as images", "Zero is the middle of the scale."),
    "history": ("Training", "Loss and gradient norm while it was trained; below, how near it came to a reference."),
}


@dataclass(frozen=True, kw_only=True)
class ReportOptions(cli_options.Common):
    """What ``lae-fast report`` was asked for, as it was typed."""

    model: ModelPath
    input: Annotated[
        str | None,
        Declaration((), {"metavar": "INPUT", "help": "The rows, to draw them too."}, is_argument=True),
    ] = None  # type: ignore[assignment]  # which no other command goes without
    output: Annotated[Path, option("-o", "--output", help="Write the page to this .html; an existing one is replaced.")]
    image: Image = None


def run_report(options: ReportOptions) -> None:
    """Read the model, and rows where they are given; draw; write the page."""
    began = time.perf_counter()
    from lae_fast import plots
    from lae_fast.data.atomic import atomic_write

    plots.require("lae-fast report")
    image = parse_image(options.image)
    check_outputs(options.input or str(options.model), options.output, ".html")
    with interruptions(Outputs(options.output).__str__):
        model = load_model(options.model, "report", options.output)
        rows = None if options.input is None else _rows(options, model)
        meta = how_it_was_made(options.model)
        text = page(model.estimator, meta, options.model.name, rows, image).encode()
        with atomic_write(options.output) as file:
            file.write(text)
    seconds = time.perf_counter() - began
    if options.json:
        print_json({"output": str(options.output), "bytes": len(text), "seconds": seconds})
    elif not options.quiet:
        print_fields({"time": f"{seconds:.3f} s", "wrote": f"{options.output}: {format_bytes(len(text))}"})


def _rows(options: ReportOptions, model: Model) -> Rows:
    """Some rows of INPUT, as the model sees them."""
    from lae_fast.cli.transform import codes_of
    from lae_fast.data import files, row_labels, sources

    with files.open_input(options.source(), None, model.names) as opened:
        seen = codes_of(sources.as_source(opened, "INPUT"), opened.name, model, options.model)
        return some_rows(seen.source, seen.center, seen.weights, row_labels.read(options.source()))


def page(
    model: Any, meta: Mapping[str, Any], name: str, rows: Rows | None = None, image: tuple[int, ...] | None = None
) -> str:
    """The page as HTML that refers to nothing outside itself.

    model : fitted estimator;  meta : of its file;  name : of the file;  rows, image : for pictures of them
    """
    p, d = model.components_.shape
    is_pca = not hasattr(model, "encoder_")
    kind = "Principal components" if is_pca else "Linear autoencoder"
    data = meta.get("options", {}).get("input", "")
    title = f"{kind} of {data}" if data else kind
    figures = "".join(_figure(which, axes) for which, axes in _pictures(model, is_pca, rows, image))
    summary = f"{p} {'components' if is_pca else 'units'} of {d} columns"
    if hasattr(model, "n_samples_"):
        summary += f" and {int(model.n_samples_)} rows"
    if is_pca:
        summary += f", {float(model.explained_variance_ratio_.sum()):.2%} of the variance"
    return _PAGE.format(
        title=html.escape(title),
        style=_STYLE,
        summary=html.escape(summary),
        table=_table(model, is_pca),
        figures=figures,
        how=_how(meta, is_pca),
        name=html.escape(name),
    )


def _pictures(model: Any, is_pca: bool, rows: Rows | None, image: tuple[int, ...] | None) -> list[tuple[str, Any]]:
    """(kind, axes) of all pictures that this model has."""
    p, d = model.components_.shape
    from lae_fast import plots

    found = [("scree" if is_pca else "history", draw("scree" if is_pca else "history", model, None, None))]
    if rows is not None and p > 1:
        found.append(("scores", draw("scores", model, rows, None)))
        if hasattr(model, "mean_") and is_pca and d <= _ARROWS and image is None:
            found.append(("biplot", draw("biplot", model, rows, None)))
    if getattr(model, "scale_", None) is not None and p > 1 and d <= _ARROWS:
        found.append(("circle", draw("circle", model, None, None)))
    if image is not None:
        found.append(("images", draw("images", model, None, image)))
    else:
        found += [("loadings", plots.loadings(model, component=i)) for i in range(min(p, _LOADINGS))]
    return found


def _figure(kind: str, axes: Any) -> str:
    """A picture inside the page, with its words."""
    import numpy as np

    heading, words = _WORDS[kind]
    vector = kind in _VECTORS
    file = io.BytesIO()
    np.ravel(np.asarray(axes, dtype=object))[0].figure.savefig(file, format="svg" if vector else "png", dpi=130)
    data = base64.b64encode(file.getvalue()).decode()
    source = f"data:image/{'svg+xml' if vector else 'png'};base64,{data}"
    shown = f'<img alt="{heading}: {words}" src="{source}">'
    return f"<figure><h2>{heading}</h2>{shown}<figcaption>{words}</figcaption></figure>\n"


def _table(model: Any, is_pca: bool) -> str:
    import numpy as np

    columns = {"variance": [f"{one:#.6g}" for one in model.explained_variance_]}
    if is_pca:
        ratio = np.asarray(model.explained_variance_ratio_, dtype=np.float64)
        columns["ratio"] = [f"{one:.4%}" for one in ratio]
        columns["cumulative"] = [f"{one:.4%}" for one in np.cumsum(ratio)]
    for name, words in (("residuals_", "residual"), ("alignment_residuals_", "alignment residual")):
        if hasattr(model, name):
            columns[words] = [f"{one:.1e}" for one in getattr(model, name)]
    head = "".join(f"<th>{one}</th>" for one in ("component", *columns))
    count = len(model.explained_variance_)
    body = "".join(
        f"<tr><td>{i + 1}</td>" + "".join(f"<td>{cells[i]}</td>" for cells in columns.values()) + "</tr>"
        for i in range(min(count, _TABLE))
    )
    more = f"<p>{count - _TABLE} more are in the file.</p>" if count > _TABLE else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


# What is said of how it was made: key of the file's meta, words.
_HOW = {
    "solver": "route",
    "route_reason": "why this route",
    "n_passes": "passes over the data",
    "n_iter": "iterations",
    "converged": "converged",
    "converged_reason": "how it ended",
    "excess_loss": "excess loss",
    "regime": "regime",
    "choice": "number of components by",
    "shape": "rows and columns",
    "dtype": "dtype of the data",
    "seconds": "seconds",
    "workspace_bytes": "workspace",
    "backend": "backend",
    "lae_fast": "lae_fast",
    "created": "made",
}


def _how(meta: Mapping[str, Any], is_pca: bool) -> str:
    fields = {}
    for key, words in _HOW.items():
        if meta.get(key) is not None:
            value = meta[key]
            fields[words] = _said(key, value)
    typed = {key: value for key, value in meta.get("options", {}).items() if value not in (None, False, "", [])}
    fields["options"] = ", ".join(f"{key}={value}" for key, value in typed.items())
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(one))}</td></tr>" for name, one in fields.items()
    )
    certificate = (
        "A residual is an upper bound of |S u - l u| / l for a component u of variance l: it certifies that u is "
        "one. That no larger variance was missed is certain on the Gram route only."
        if is_pca
        else "An alignment residual is |S u - r u| / r: how far a unit's direction is from a principal axis."
    )
    return f'<table class="how"><tbody>{rows}</tbody></table><p>{certificate}</p>'


def _said(key: str, value: Any) -> str:
    """A value of the file's meta, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "workspace_bytes":
        return format_bytes(int(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


_STYLE = """
:root { color-scheme: light dark; --line: #ddd; --faint: #555 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; max-height: 30rem;
  overflow: auto }
th, td { padding: 0.15rem 0.9rem 0.15rem 0; text-align: right; border-bottom: 1px solid var(--line) }
.how th, .how td { text-align: left; vertical-align: top } .how { max-height: none }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption, footer { color: var(--faint);
  font-size: 0.9rem }
@media (max-width: 40rem) { th, td { padding-right: 0.45rem; font-size: 0.85rem } }
@media screen and (prefers-color-scheme: dark) {
  :root { --line: #444; --faint: #aaa } body { color: #ddd; background: #16181a } img { border-radius: 4px } }
@media print { table { max-height: none } figure { break-inside: avoid } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<h2>Components</h2>
{table}
{figures}
<h2>How it was computed</h2>
{how}
<footer>Of the file {name}, by lae-fast report. This page needs no other file.</footer>
</body>
</html>
"""
