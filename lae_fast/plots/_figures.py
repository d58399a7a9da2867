"""What the pictures share: figures without pyplot, colours, files.

Colours are of Okabe and Ito's palette, told apart with any colour vision; where they carry meaning a marker, a line
style or a text says it too, so that a grey print does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.atomic import atomic_write

FORMATS = (".png", ".pdf", ".svg")  # what `save` writes, of all that matplotlib can

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def new_axes(size: tuple[float, float], rows: int = 1, columns: int = 1, **more: Any) -> Any:
    """(rows, columns) array of axes of a new figure.  size : in inches;  more : as of `Figure.subplots`"""
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots(rows, columns, squeeze=False, **more)


def require(what: str = "A picture") -> None:
    """Raise the ModuleNotFoundError for `what` where matplotlib is not installed; it says what to install."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs matplotlib; install it with: pip install 'lae-fast[plot]'") from error


def save(axes: Any, path: str | Path, *, dpi: int = 150) -> None:
    """Write the figure of `axes`, or of an array of them, whole or not at all; the suffix chooses the format.

    Raises
    ------
    ValueError
        Another suffix than those of FORMATS.
    """
    import numpy as np

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: end the name in one of {', '.join(FORMATS)}.")
    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lower().lstrip("."), dpi=dpi)


def legend_beside(axes: Any, **more: Any) -> None:
    """A legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, **more)


def component_label(model: Any, component: int) -> str:
    """ "component 1 (14.9 %)", counted from 1, with its share of the variance where the model has one."""
    ratio = getattr(model, "explained_variance_ratio_", None)
    share = "" if ratio is None or component >= len(ratio) else f" ({ratio[component]:.1%})".replace("%", " %")
    return f"component {component + 1}{share}"


def check_any(available: int) -> None:
    """Refuse a model without components, such as one whose number was chosen from data that show none."""
    if available == 0:
        raise ValueError("The model has no components to draw: fit one with n_components of at least 1.")


def check_components(components: Any, available: int, allowed: tuple[int, ...] = (2,)) -> tuple[int, ...]:
    """Different component numbers, counted from 0, of which there are two (or three)."""
    from ..validation import check_integer

    check_any(available)
    chosen = tuple(check_integer(one, "components", low=0) for one in components)
    if len(chosen) not in allowed or len(set(chosen)) < len(chosen) or max(chosen) >= available:
        many = " or ".join(map(str, allowed))
        raise ValueError(
            f"components={chosen} must be {many} different numbers from 0 to {available - 1}, of the {available} "
            "components that there are."
        )
    return chosen


def feature_names(model: Any, names: Any) -> list[str]:
    """Names (d,) as given, of the model, or the numbers of the features, counted from 0."""
    d = model.components_.shape[1]
    if names is None:
        names = getattr(model, "feature_names_in_", None)
    if names is None:
        return [str(j) for j in range(d)]
    if len(names) != d:
        raise ValueError(f"names has {len(names)} entries, but the model has {d} features.")
    return [str(name) for name in names]
