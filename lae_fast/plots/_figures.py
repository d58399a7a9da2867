"""What the pictures share: figures without pyplot, colours, files.

Colours are of Okabe and Ito's palette, told apart with any colour vision; where they carry meaning a marker, a line
style or a text says it too, so that a grey print does.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.atomic import atomic_write, check_writable

if TYPE_CHECKING:
    import numpy as np

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
    """Check that matplotlib is installed.

    Parameters
    ----------
    what : str
        What needs it, for the message.

    Raises
    ------
    ModuleNotFoundError
        It is not; the message says what to install.

    Examples
    --------
    >>> from lae_fast import plots
    >>> plots.require("My report")  # it is installed
    >>> print("drawing")
    drawing
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs matplotlib; install it with: pip install 'lae-fast[plot]'") from error


def save(axes: Any, path: str | Path, *, dpi: float = 150) -> None:
    """Write the figure of some axes, whole or not at all; the suffix chooses the format.

    Parameters
    ----------
    axes : matplotlib axes, or an array of them of one figure
        What the functions of this module return.
    path : str or path
        Its suffix is one of FORMATS; an existing file is replaced.
    dpi : float > 0
        Dots per inch, of a .png.

    Raises
    ------
    ValueError, TypeError
        Another suffix; no axes, or no path.
    OSError
        The folder does not exist, or cannot be written to.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from lae_fast import plots
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "codes.svg")
    ...     plots.save(plots.scores([[1.0, 2.0], [3.0, 1.0]]), path)
    ...     path.exists()
    True
    """
    from ..validation import check_real

    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path={path!r} must be the name of a file, such as 'picture.png'.")
    path, dpi = Path(path), check_real(dpi, "dpi", above=0.0, below=math.inf)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"path={path}: end the name in one of {', '.join(FORMATS)}.")
    figure = as_axes(axes, 1, None)[0].figure
    check_writable(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lower().lstrip("."), dpi=dpi)


def as_axes(axes: Any, least: int, most: int | None) -> np.ndarray:
    """(n,) given axes of matplotlib, `least` to `most` (None: any number)."""
    import numpy as np

    flat = np.ravel(np.asarray(axes, dtype=object))
    for one in flat:
        if not (hasattr(one, "set_xlabel") and hasattr(one, "figure")):
            raise TypeError(
                f"axes has an entry of the type {type(one).__name__!r}: pass axes of matplotlib, such as those of "
                "figure.subplots(), or None for a figure of their own."
            )
    if len(flat) < least or (most is not None and len(flat) > most):
        wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"axes has {len(flat)} entries, and {wanted} can be drawn on.")
    return flat


def one_axes(axes: Any, size: tuple[float, float], *, solid: bool = False) -> Any:
    """The given axes of matplotlib, or those of a new figure.

    size : of the figure, in inches;  solid : three dimensions are drawn
    """
    if axes is None:
        more: dict[str, Any] = {"subplot_kw": {"projection": "3d"}} if solid else {}
        return new_axes(size, **more)[0, 0]
    (found,) = as_axes(axes, 1, 1)
    if solid and getattr(found, "name", "") != "3d":
        raise ValueError(
            "axes has two dimensions, and three components need three: pass figure.add_subplot(projection='3d'), or "
            "two components."
        )
    return found


def set_title(axes: Any, title: Any) -> None:
    """A title at the left, as it stands; None leaves it out."""
    if check_title(title) is not None:
        axes.set_title(title, loc="left", parse_math=False)


def check_title(title: Any) -> str | None:
    """A string, or None."""
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title={title!r} must be a string, or None.")
    return title


def legend_beside(axes: Any, **more: Any) -> None:
    """A legend to the right of the axes, where it hides nothing."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, **more)


def component_label(model: Any, component: int) -> str:
    """ "component 1 (14.9 %)", counted from 1, with its share of the variance where the model has one."""
    ratio = getattr(model, "explained_variance_ratio_", None)
    share = "" if ratio is None or component >= len(ratio) else f" ({ratio[component]:.1%})".replace("%", " %")
    return f"component {component + 1}{share}"
