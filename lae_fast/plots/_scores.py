"""Rows along two or three components, coloured by a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._figures import BLUE, component_label, legend_beside, one_axes, set_title
from ._inputs import check_components, check_labels, check_own_codes, codes_of_rows, fitted

if TYPE_CHECKING:
    import numpy as np

# Classes that have a colour and a marker each; more are too many to tell apart.
_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*", "p", "h")
# Beyond, points are drawn as pixels of one size, without an edge.
_LARGE_UP_TO = 500


def scores(
    codes: Any,
    axes: Any = None,
    *,
    components: Sequence[int] = (0, 1),
    labels: Any = None,
    model: Any = None,
    title: str | None = None,
) -> Any:
    """Draw rows along two components, or three, coloured by a label.

    Up to twelve different labels are classes: each has a colour, a marker and, at the median of its rows, its name.
    More are a scale of numbers.

    Parameters
    ----------
    codes : (m, p)
        What `transform` gives.
    axes : matplotlib axes, optional
        With ``projection="3d"`` for three components; None makes a figure.
    components : two or three numbers, counted from 0
    labels : (m,), optional
        Of the rows: names, or numbers.
    model : fitted estimator, optional
        Whose shares of the variance stand beside the axes.
    title : str, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError, TypeError
        Codes that are no finite matrix; no such components; labels of another length, with gaps, or too many to be
        classes and no numbers; axes of two dimensions for three components.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import plots
    >>> codes = np.random.default_rng(0).standard_normal((20, 3))
    >>> axes = plots.scores(codes, labels=["a", "b"] * 10)
    >>> axes.get_xlabel(), [text.get_text() for text in axes.get_legend().get_texts()]
    ('component 1', ['a', 'b'])
    """
    codes = codes_of_rows(codes)
    if model is not None:
        if not hasattr(model, "explained_variance_ratio_"):
            fitted(model, "components_")
        if (components_ := getattr(model, "components_", None)) is not None:
            check_own_codes(codes, len(components_))
    chosen = check_components(components, codes.shape[1], (2, 3))
    axes = one_axes(axes, (7.0, 5.5), solid=len(chosen) == 3)
    points = codes[:, chosen].T
    size = 16.0 if len(codes) <= _LARGE_UP_TO else 9.0
    if labels is None:
        axes.scatter(*points, s=size, color=BLUE, alpha=0.6, linewidths=0)
    else:
        labels, kinds = check_labels(labels, len(codes))
        if len(kinds) <= len(_MARKERS):
            _classes(axes, points, labels, kinds, size)
        elif labels.dtype.kind in "iufb":
            drawn = axes.scatter(*points, s=size, c=labels, cmap="viridis", linewidths=0)
            axes.figure.colorbar(drawn, ax=axes, label="label")
        else:
            raise ValueError(
                f"labels has {len(kinds)} different names, and {len(_MARKERS)} can be told apart: pass fewer classes, "
                "or numbers."
            )
    for which, component in zip("xyz", chosen):
        getattr(axes, f"set_{which}label")(component_label(model, component))
    set_title(axes, title)
    return axes


def _classes(axes: Any, points: np.ndarray, labels: np.ndarray, kinds: np.ndarray, size: float) -> None:
    """A colour and a marker each, of growing lightness; the name at the median of the rows."""
    import numpy as np
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.0, 0.92, len(kinds)))
    for kind, shade, marker in zip(kinds, shades, _MARKERS):
        own = points[:, labels == kind]
        axes.scatter(*own, s=size, color=shade, marker=marker, alpha=0.75, linewidths=0, label=str(kind))
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "edgecolor": shade}
        # on top of all points, the third axis of a 3-D picture included
        axes.text(*np.median(own, axis=1), str(kind), bbox=box, ha="center", va="center", fontsize=9, zorder=10,
                  parse_math=False)  # fmt: skip
    if len(points) == 3:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 1.0), frameon=False, markerscale=1.8)
    else:
        legend_beside(axes, markerscale=1.8)
