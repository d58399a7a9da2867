"""Pictures that commands write: ``--plot``, and those of ``lae-fast report``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli.options import option

if TYPE_CHECKING:
    import numpy as np

KINDS = ("scree", "scores", "biplot", "loadings", "images", "circle", "history")
_OF_ROWS = ("scores", "biplot")
# Rows that are drawn of more, by runs that are spread over the data.
_ROWS, _RUNS = 5000, 50

Plots = Annotated[
    list[str] | None,
    option(
        "--plot",
        metavar="[KIND:]FILE",
        help=f"Draw to this .png, .pdf or .svg; may be repeated. KIND: {', '.join(KINDS)}.",
    ),
]
Image = Annotated[
    str | None, option("--image", metavar="HxW", help="Shape of the images that rows are, such as 28x28.")
]


@dataclass(frozen=True)
class Rows:
    """codes : (n, p) of some rows;  labels : (n,) or None;  n_samples : rows there are"""

    codes: np.ndarray
    labels: np.ndarray | None
    n_samples: int


def parse_plots(texts: Sequence[str] | None, default: str, kinds: Sequence[str]) -> list[tuple[str, Path]]:
    """``--plot`` as (kind, file) pairs.

    >>> [kind for kind, _ in parse_plots(["a.png", "scores:b.png"], "scree", KINDS)]
    ['scree', 'scores']
    """
    found = []
    for text in texts or ():
        kind, colon, name = text.partition(":")
        if not colon or kind not in KINDS:
            if colon and re.fullmatch(r"[A-Za-z]\w+", kind):  # neither a folder nor the letter of a drive
                raise ValueError(
                    f"--plot {text}: {kind} is no kind of picture; take one of {', '.join(kinds)}, or write ./{text} "
                    "for a file of that name"
                )
            kind, name = default, text
        if kind not in kinds:
            raise ValueError(f"--plot {text}: there is no {kind} of this model; it has {', '.join(kinds)}")
        found.append((kind, Path(name)))
    return found


def parse_image(text: str | None) -> tuple[int, ...] | None:
    """``--image``.

    >>> parse_image("28x28"), parse_image("32x32x3"), parse_image(None)
    ((28, 28), (32, 32, 3), None)
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+x\d+(x3)?", text):
        raise ValueError(f"--image takes HEIGHTxWIDTH, such as 28x28, or 32x32x3 for colours; got {text!r}")
    return tuple(map(int, text.split("x")))


def check_kinds(asked: Sequence[str], image: str | None, standardize: bool) -> None:
    """Refuse before the work what could not be drawn after it."""
    if "images" in asked and parse_image(image) is None:
        raise ValueError("--plot images:FILE needs the shape of the images: add --image 28x28")
    if "circle" in asked and not standardize:
        raise ValueError(
            "--plot circle:FILE draws correlations, for which the columns must have unit variance: add --standardize"
        )


def some_rows(source: Any, mean: np.ndarray, weights: np.ndarray, labels: np.ndarray | None) -> Rows:
    """Codes (x - mean) weights' of at most 5000 rows of a `Source`, in runs spread over it."""
    import numpy as np

    m = source.shape[0]
    run = -(-_ROWS // _RUNS)
    firsts = range(0, m, run) if m <= _ROWS else np.linspace(0, m - run, _RUNS).astype(int)
    codes, places = [], []
    for first in firsts:
        last = min(m, int(first) + run)
        block = np.asarray(source.block(int(first), last, False), dtype=np.float64)
        codes.append((block - mean) @ weights.T)
        places.append(np.arange(first, last))
    if labels is not None and len(labels) != m:
        raise ValueError(f"--label has {len(labels)} entries for {m} rows")
    return Rows(np.vstack(codes), None if labels is None else labels[np.concatenate(places)], m)


def needs_rows(kinds: Sequence[str]) -> bool:
    """Whether one of these pictures shows rows."""
    return any(kind in _OF_ROWS for kind in kinds)


def draw(kind: str, model: Any, rows: Rows | None, image: tuple[int, ...] | None, title: str | None = None) -> Any:
    """The axes of a picture of this kind.  model : fitted, or what `lae_fast.plots` reads of such a one"""
    from lae_fast import plots

    if kind == "images":
        return plots.images(model, image or (), title=title)
    if rows is not None and kind == "scores":
        return plots.scores(rows.codes, labels=rows.labels, model=model, title=title)
    if rows is not None and kind == "biplot":
        return plots.biplot(model, rows.codes, title=title)
    one: dict[str, Any] = {
        "scree": plots.scree,
        "loadings": plots.loadings,
        "circle": plots.correlation_circle,
        "history": plots.history,
    }
    return one[kind](model, title=title)


def save(axes: Any, path: Path) -> None:
    """Write the picture that has these axes."""
    from lae_fast import plots

    plots.save(axes, path)
