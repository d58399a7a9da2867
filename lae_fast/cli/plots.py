"""Pictures of a fitted model. An edge: matplotlib is imported when a picture is drawn.

Figures are made without pyplot, on the Agg canvas, so drawing neither needs a display nor touches the caller's backend
or open figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lae_fast.data.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS_UP_TO = 60  # components; beyond, bars are thinner than their gaps and points read better
_MARKERS_UP_TO = 200

# Blue, orange and grey of the Okabe-Ito palette, told apart by readers with any colour vision.
_RATIO, _CUMULATIVE, _RESIDUAL = "#0072B2", "#D55E00", "#555555"


def image_formats() -> frozenset[str]:
    """Suffixes without the dot that :func:`scree` can write, such as png, pdf and svg."""
    from matplotlib.backend_bases import FigureCanvasBase

    return frozenset(FigureCanvasBase.get_supported_filetypes())


def scree(pca: Any, path: str | Path | None = None, *, title: str | None = None) -> Figure:
    """Draw the variance that each component explains, and how well each is certified.

    Upper panel: explained variance ratio per component, and its running sum. Lower panel, logarithmic: `residuals_`,
    the certified relative residual of each eigenpair; a residual of exactly zero cannot be drawn and is left out.

    Parameters
    ----------
    pca : fitted estimator
        Has `explained_variance_ratio_` (p,) and, where it has a certificate, `residuals_` (p,).
    path : str or Path, optional
        Write the figure there, atomically; the suffix chooses the format.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    ratio = np.asarray(pca.explained_variance_ratio_, dtype=np.float64)
    residuals = getattr(pca, "residuals_", None)
    component = np.arange(1, len(ratio) + 1)
    marker = "o" if len(ratio) <= _MARKERS_UP_TO else None

    panels = 1 if residuals is None else 2
    figure = Figure(figsize=(7.0, 4.0 if panels == 1 else 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=[3, 1][:panels])[:, 0]

    top = axes[0]
    if len(ratio) <= _BARS_UP_TO:
        top.bar(component, ratio, color=_RATIO, label="each component")
    else:
        top.plot(component, ratio, color=_RATIO, marker=marker, markersize=3, linestyle="none", label="each component")
    top.plot(component, np.cumsum(ratio), color=_CUMULATIVE, marker=marker, markersize=3, label="cumulative")
    top.set_ylabel("variance explained")
    top.set_ylim(0.0, 1.05)
    top.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    top.legend(loc="center right", frameon=False)
    if title is not None:
        top.set_title(title, loc="left", parse_math=False)

    if residuals is not None:
        bottom = axes[1]
        certified = np.asarray(residuals, dtype=np.float64)
        positive = certified > 0.0
        bottom.set_yscale("log")
        bottom.plot(component[positive], certified[positive], color=_RESIDUAL, marker=marker, markersize=3, linewidth=1)
        bottom.set_ylabel("residual")
        bottom.grid(axis="y", alpha=0.3)
    axes[-1].set_xlabel("component")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlim(0.4, len(ratio) + 0.6)

    if path is not None:
        with atomic_write(Path(path)) as file:
            figure.savefig(file, format=Path(path).suffix.lstrip(".").lower() or "png", dpi=150)
    return figure
