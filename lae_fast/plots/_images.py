"""Components of images, as images."""

from __future__ import annotations

import math
from typing import Any

from ..validation import check_integer
from ._figures import as_axes, check_title, new_axes
from ._inputs import check_shape, components_of, finite_matrix

# Room for an image is at least this high for its width, and the other way round: rows of one line are images too.
_FLAT = 0.25
# How many are drawn where nothing else is said.
_SHOWN = 16


def images(
    model: Any, shape: tuple[int, ...], axes: Any = None, *, n_images: int | None = None, title: str | None = None
) -> Any:
    """Draw components as images: zero is the middle of the scale, which is the same on both sides, for each its own.

    Parameters
    ----------
    model : fitted estimator, or components (p, d)
    shape : (height, width), or (height, width, 3) for colours, of d entries
    axes : array of axes, one for each image, optional; None makes a figure
    n_images : how many of the first, >= 1; by default 16, or as many as there are axes
    title : str, optional

    Returns
    -------
    ndarray of axes, of the shape that was given, or of the rows and columns of the figure

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or no model; components that are no finite matrix; a shape that does not have d
        entries; fewer axes than images.

    Notes
    -----
    The map (cividis) grows in lightness from one end to the other and is read with any colour vision. Colours, which
    have a sign each, are drawn as 0.5 + value / (2 largest).

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import plots
    >>> plots.images(np.eye(4, 6), (2, 3), title="Four components").shape
    (1, 4)
    """
    import numpy as np

    is_array = isinstance(model, (list, tuple)) or hasattr(model, "__array__")
    components = finite_matrix(model, "model") if is_array else components_of(model)
    shape = check_shape(shape, components.shape[1])
    given = None if axes is None else as_axes(axes, 1, None)
    shown = _SHOWN if given is None else len(given)
    count = min(len(components), shown if n_images is None else check_integer(n_images, "n_images", low=1))
    if given is not None and len(given) < count:
        raise ValueError(f"axes has {len(given)} entries for {count} images: pass as many, or n_images={len(given)}.")
    if given is None:
        across = min(count, max(4, math.ceil(math.sqrt(count))))
        down = math.ceil(count / across)
        high = min(max(shape[0] / shape[1], _FLAT), 1.0 / _FLAT)
        panel = new_axes((1.6 * across, (1.6 * high + 0.3) * down + (0.3 if title else 0.0)), down, across)
        if check_title(title) is not None:
            panel[0, 0].figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    else:
        panel = np.atleast_1d(np.asarray(axes, dtype=object))
    for one in panel.ravel():
        one.set_axis_off()
    ratio = getattr(model, "explained_variance_ratio_", None)
    for i, (one, component) in enumerate(zip(panel.ravel(), components[:count])):
        largest = float(np.abs(component).max(initial=0.0)) or 1.0
        picture = component.reshape(shape)
        if len(shape) == 3:
            one.imshow(0.5 + picture / (2.0 * largest), interpolation="nearest")
        else:
            one.imshow(picture, cmap="cividis", vmin=-largest, vmax=largest, interpolation="nearest")
        share = "" if ratio is None else f": {ratio[i]:.1%}".replace("%", " %")
        one.set_title(f"{i + 1}{share}", fontsize=9, pad=3)
    return panel
