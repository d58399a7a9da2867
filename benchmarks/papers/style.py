"""How every figure looks: one size of type, colours that differ in lightness too, and a dash or marker for each line.

The colours are told apart by the colour-blind (after Okabe and Ito 2008) and, because each is lighter than the one
before, in grey print.  Imports matplotlib only when something is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# From dark to light.
COLOURS = ("#000000", "#4b1d91", "#0a5fa5", "#d55e00", "#7a9b3c", "#e69f00", "#8fd0f5")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), "-")
MARKERS = ("o", "s", "^", "D", "v", "X", "P")
WIDTH = 7.2  # inches, of a whole page

_SETTINGS = {
    "font.size": 9.0, "axes.titlesize": 9.5, "axes.labelsize": 9.0, "legend.fontsize": 8.0, "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0, "lines.linewidth": 1.5, "lines.markersize": 4.5, "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "svg.hashsalt": "lae-fast",
    "svg.fonttype": "path", "figure.constrained_layout.use": True, "image.cmap": "gray", "figure.dpi": 100.0,
}  # fmt: skip


def pyplot() -> Any:
    """matplotlib's pyplot without a screen, in the style of all figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as found

    found.rcParams.update(found.rcParamsDefault)
    matplotlib.use("Agg")
    found.rcParams.update(_SETTINGS)
    return found


def line(place: int) -> dict[str, Any]:
    """Colour and dash of the line of this place."""
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place % len(DASHES)]}


def points(place: int) -> dict[str, Any]:
    """Colour and marker of the points of this place."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def lightness(colour: str) -> float:
    """Grey level of a colour "#rrggbb" in print, 0 black to 1 white (Rec. 709 luma)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255.0 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def save(figure: Any, plots: Path, name: str) -> None:
    """NAME.svg and NAME.png; the same figure gives the same bytes on the same matplotlib."""
    plots.mkdir(parents=True, exist_ok=True)
    figure.savefig(plots / f"{name}.svg", metadata={"Date": None})
    figure.savefig(plots / f"{name}.png", dpi=100, metadata={"Software": None})


def images(axes: Any, pictures: Any, shape: tuple[int, int], symmetric: bool = False) -> None:
    """Pictures (k, pixels) on k axes, each in its own range; symmetric: grey is zero."""
    for axis, picture in zip(axes, pictures):
        largest = max(abs(float(min(picture))), abs(float(max(picture))), 1e-30)
        low = -largest if symmetric else float(min(picture))
        rows = [picture[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
        axis.imshow(rows, vmin=low, vmax=largest, interpolation="nearest")
        bare(axis)


def bare(axis: Any) -> None:
    """An axis without ticks, grid and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for side in axis.spines.values():
        side.set_visible(False)
